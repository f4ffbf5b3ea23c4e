//! What discoveries leave behind: the block that a cycle is pinned to, and the standings of a subnet's hotkeys, from which the
//! next discovery goes on. Both are written with the line that ends the discovery, or not at all.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};

use crate::cycle::{CycleId, Discovery, Hotkey, Pin, Standing};

use super::{Error, append::storable, error::Trouble};

/// Numbers of blocks as the database counts.
pub(super) fn number(block: u64) -> i64 {
    i64::try_from(block).unwrap_or(i64::MAX)
}

/// The columns of a cycle's pin: all of them, or none.
#[derive(sqlx::FromRow)]
pub(super) struct PinRow {
    genesis: Option<String>,
    netuid: Option<i32>,
    block: Option<i64>,
    block_hash: Option<String>,
}

impl PinRow {
    pub(super) fn pin(self) -> Option<Pin> {
        Some(Pin {
            genesis: self.genesis?,
            netuid: self.netuid?.try_into().ok()?,
            block: self.block?.try_into().ok()?,
            hash: self.block_hash?,
        })
    }
}

/// Write down what was found, in the transaction that `connection` is in and under the fence of its line.
pub(super) async fn keep(connection: &mut PgConnection, cycle: CycleId, discovery: &Discovery) -> Result<(), Trouble> {
    let Discovery { pin, standings } = discovery;
    sqlx::query("update cycle set genesis = $2, netuid = $3, block = $4, block_hash = $5 where cycle_id = $1")
        .bind(cycle.as_uuid())
        .bind(&pin.genesis)
        .bind(i32::from(pin.netuid))
        .bind(number(pin.block))
        .bind(&pin.hash)
        .execute(&mut *connection)
        .await?;
    let each = || standings.values();
    sqlx::query(
        // Rows are locked in the order of the arrays, by hotkey: cycles that discover the same subnet wait and never in a circle.
        "insert into standing (genesis, netuid, hotkey, first_block, registered_at, model, endpoint, block)
         select $1, $2, hotkey, first_block, registered_at, model, endpoint, $3
         from unnest($4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
              as found (hotkey, first_block, registered_at, model, endpoint)
         on conflict (genesis, netuid, hotkey) do update
         set first_block = excluded.first_block, registered_at = excluded.registered_at, model = excluded.model,
             endpoint = excluded.endpoint, block = excluded.block
         -- A cycle that was slow must not take back what a later block has shown.
         where standing.block <= excluded.block",
    )
    .bind(&pin.genesis)
    .bind(i32::from(pin.netuid))
    .bind(number(pin.block))
    .bind(standings.keys().map(Hotkey::as_str).collect::<Vec<_>>())
    .bind(each().map(|standing| number(standing.first_block)).collect::<Vec<_>>())
    .bind(each().map(|standing| standing.registered_at.map(number)).collect::<Vec<_>>())
    .bind(each().map(|standing| storable(&standing.model)).collect::<Vec<_>>())
    .bind(each().map(|standing| standing.endpoint.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

type Row = (String, i64, Option<i64>, String, String);

/// The standings of a subnet.
pub(super) async fn known(pool: &PgPool, genesis: &str, netuid: u16) -> Result<BTreeMap<Hotkey, Standing>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "select hotkey, first_block, registered_at, model, endpoint from standing where genesis = $1 and netuid = $2",
    )
    .bind(genesis)
    .bind(i32::from(netuid))
    .fetch_all(pool)
    .await?;
    let standings = rows.into_iter().map(|(hotkey, first_block, registered_at, model, endpoint)| {
        let hotkey =
            hotkey.parse().map_err(|error| Error::Corrupt(format!("a standing of nobody that can be: {error}")))?;
        let registered_at = registered_at.map(i64::unsigned_abs);
        Ok((hotkey, Standing { first_block: first_block.unsigned_abs(), registered_at, model, endpoint }))
    });
    standings.collect()
}
