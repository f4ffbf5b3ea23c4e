//! What was written over the API: who did what, from where. A line stands there with what it tells of, in one transaction, or
//! neither does.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::cycle::CycleId;

use super::{
    Error, Store,
    append::{json, storable},
};

/// Something that an operator does. The handle of [`Store::noting`] writes it down.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its id: an operation that is tried again is written down once.
    pub id: Uuid,
    /// Id of the key that was shown.
    pub key: Uuid,
    /// Where the request came from.
    pub client: String,
    /// What is done, in a word.
    pub action: &'static str,
    /// To what: a pipeline's name, or a cycle's id.
    pub subject: String,
    /// How: what the client sent.
    pub detail: Value,
    /// What the client calls this request.
    pub once: Option<Once>,
}

/// A request that a client may send again without it being done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Its name.
    pub name: String,
    /// Digest of what it asks for: another request under the same name is a mistake.
    pub sha256: [u8; 32],
}

/// What became of a request with the same name, if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// There was none.
    None,
    /// The same, which led to this cycle.
    Same(CycleId),
    /// Another.
    Other,
}

/// Something that an operator has done.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct OperationRow {
    /// When.
    pub at: DateTime<Utc>,
    /// Name of the key.
    pub key: String,
    /// Where the request came from.
    pub client: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// How.
    pub detail: Value,
    /// What came of it.
    pub outcome: String,
    /// The cycle it is about.
    pub cycle_id: Option<Uuid>,
}

impl Store {
    /// A handle of the same database that writes this operation down with the next thing a person does through it.
    #[must_use]
    pub fn noting(&self, operation: Operation) -> Self {
        Self { operation: Some(std::sync::Arc::new(operation)), ..self.clone() }
    }

    /// What was done over the API, the latest first.
    pub async fn operations(&self, limit: u32) -> Result<Vec<OperationRow>, Error> {
        self.ask(|| async {
            let rows = sqlx::query_as(
                "select at, name as key, client, action, subject, detail, outcome, cycle_id
                 from operation join api_key using (api_key_id)
                 order by at desc, operation_id desc limit $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
            Ok(rows)
        })
        .await
    }

    /// What became of an earlier request of the same key with the same name.
    pub async fn earlier(&self, operation: &Operation) -> Result<Earlier, Error> {
        self.ask(|| async { earlier(&mut *self.pool.acquire().await?, operation).await }).await
    }

    /// Write down the operation of this handle, if it has one, in the transaction that `connection` is in.
    pub(super) async fn note_operation(
        &self,
        connection: &mut PgConnection,
        outcome: &str,
        cycle: Option<CycleId>,
    ) -> Result<(), Error> {
        let Some(operation) = &self.operation else { return Ok(()) };
        // A name stands for something that was done: one that was refused can be asked for again.
        let once = operation.once.as_ref().filter(|_| cycle.is_some());
        sqlx::query(
            "insert into operation (operation_id, api_key_id, client, action, subject, detail, outcome, cycle_id,
                                    idempotency_key, request_sha256)
             values ($1, $2, $3, $4, $5, $6::text::json, $7, $8, $9, $10)
             on conflict (operation_id) do nothing",
        )
        .bind(operation.id)
        .bind(operation.key)
        .bind(&operation.client)
        .bind(operation.action)
        .bind(storable(&operation.subject))
        .bind(json(&operation.detail)?)
        .bind(storable(outcome))
        .bind(cycle.map(|cycle| cycle.as_uuid()))
        .bind(once.map(|once| &once.name))
        .bind(once.map(|once| once.sha256.as_slice()))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The same in the transaction that `connection` is in.
pub(super) async fn earlier(connection: &mut PgConnection, operation: &Operation) -> Result<Earlier, Error> {
    let Some(once) = &operation.once else { return Ok(Earlier::None) };
    let row: Option<(Option<Uuid>, [u8; 32])> = sqlx::query_as(
        "select cycle_id, request_sha256 from operation
         where api_key_id = $1 and idempotency_key = $2 and operation_id <> $3",
    )
    .bind(operation.key)
    .bind(&once.name)
    .bind(operation.id)
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        None => Earlier::None,
        Some((Some(cycle), digest)) if digest == once.sha256 => Earlier::Same(cycle.into()),
        Some(_) => Earlier::Other,
    })
}
