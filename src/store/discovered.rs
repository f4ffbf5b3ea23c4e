//! Whom the last discovery has found: what the stages that find miners have put out in the newest cycle in which they ended
//! well, and what is kept of one of them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cycle::{CycleId, Hotkey, Pin, Standing};

use super::{Error, Store, standing::PinRow};

/// Cycles that are looked at: the newest may not have come so far yet, and some pipelines look for nobody.
const CYCLES: i64 = 20;

/// What a discovery has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// The cycle it was for.
    pub cycle: CycleId,
    /// When it ended.
    pub at: Option<DateTime<Utc>>,
    /// The block it is as of, where a chain was read.
    pub pin: Option<Pin>,
    /// What each of its stages put out.
    pub outputs: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    stages: Vec<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    id: String,
    uses: String,
}

#[derive(sqlx::FromRow)]
struct CycleRow {
    cycle_id: Uuid,
    definition: String,
    #[sqlx(flatten)]
    pin: PinRow,
}

impl Store {
    /// What the last discovery found, made by stages of these kinds. None where no cycle has found anybody lately.
    pub async fn discovered(&self, kinds: &[&str]) -> Result<Option<Discovered>, Error> {
        let recent: Vec<Uuid> = self
            .ask(|| async {
                let mut connection = self.pool.acquire().await?;
                let target = self.target(&mut connection).await?;
                // What was forked was found for another cycle.
                let sql = "select cycle_id from cycle
                           where ($1 or (netuid is not distinct from $2 and ($3::text is null or genesis = $3)))
                                 and origin = 'run' and epoch > 0
                           order by cycle_id desc limit $4";
                Ok(sqlx::query_scalar(sql)
                    .bind(target.is_all)
                    .bind(target.netuid)
                    .bind(&target.genesis)
                    .bind(CYCLES)
                    .fetch_all(&mut *connection)
                    .await?)
            })
            .await?;
        for cycle in recent {
            let found = self.found_in(cycle, kinds).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn found_in(&self, cycle: Uuid, kinds: &[&str]) -> Result<Option<Discovered>, Error> {
        let row: Option<CycleRow> = self
            .ask(|| async {
                let sql = "select cycle_id, definition::text, genesis, netuid, block, block_hash from cycle
                           where cycle_id = $1";
                Ok(sqlx::query_as(sql).bind(cycle).fetch_optional(&self.pool).await?)
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        let listed: Listed = serde_json::from_str(&row.definition).unwrap_or_default();
        let stages: BTreeSet<String> =
            listed.stages.into_iter().filter(|stage| kinds.contains(&stage.uses.as_str())).map(|it| it.id).collect();
        if stages.is_empty() {
            return Ok(None);
        }
        let stages = &Vec::from_iter(stages);
        let outputs: Vec<(String, Option<DateTime<Utc>>)> = self
            .ask(|| async {
                let sql = "select output::text, finished_at from task
                           where cycle_id = $1 and stage = any($2) and status = 'succeeded' order by position";
                Ok(sqlx::query_as(sql).bind(cycle).bind(stages).fetch_all(&self.pool).await?)
            })
            .await?;
        if outputs.is_empty() {
            return Ok(None);
        }
        let unreadable = |_| Error::Corrupt(format!("miners of cycle `{cycle}` that cannot be read"));
        let at = outputs.iter().filter_map(|(_, at)| *at).max();
        let outputs = outputs.iter().map(|(text, _)| serde_json::from_str(text).map_err(unreadable));
        let outputs = outputs.collect::<Result<_, _>>()?;
        Ok(Some(Discovered { cycle: row.cycle_id.into(), at, pin: row.pin.pin(), outputs }))
    }

    /// Since when a hotkey of a subnet has served what it serves.
    pub async fn standing_of(
        &self,
        (genesis, netuid): (&str, u16),
        hotkey: &Hotkey,
    ) -> Result<Option<Standing>, Error> {
        type Row = (i64, Option<i64>, String, String);
        let row: Option<Row> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select first_block, registered_at, model, endpoint from standing
                     where genesis = $1 and netuid = $2 and hotkey = $3",
                )
                .bind(genesis)
                .bind(i32::from(netuid))
                .bind(hotkey.as_str())
                .fetch_optional(&self.pool)
                .await?)
            })
            .await?;
        Ok(row.map(|(first_block, registered_at, model, endpoint)| Standing {
            first_block: first_block.unsigned_abs(),
            registered_at: registered_at.map(i64::unsigned_abs),
            model,
            endpoint,
        }))
    }
}
