//! An operator's own question about the rows of one cycle, asked so that it can do nothing else.
//!
//! The server itself reads the query: as a temporary view, in a transaction that is always rolled back. From what it made
//! of the text follows what the query would touch, whatever it looks like: only our views of the cycle, only operators
//! and functions that are built in and neither change, sleep, read the session nor run a text as SQL. Then the very view
//! that was looked at is read, in the same transaction, which is read-only from there on. Names decide nothing: not which
//! schemas are searched, not who may read `cycle.salt`.

use futures::TryStreamExt;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cycle::{Question, Rows, RowsError};

use super::{Error, Store, error::absence};

/// Functions that are not immutable and harmless all the same: they depend on settings that are fixed below.
const HARMLESS: &str = "^(jsonb?_.*|to_jsonb?|row_to_json|array_to_json|array_to_string|concat|concat_ws|format|length|\
    numeric|interval|overlaps|quote_literal|quote_nullable|date|time|timetz|timestamp|timestamptz|timezone|date_part|\
    date_trunc|extract|generate_series|make_timestamptz|to_char|to_date|to_timestamp)$";

/// The first built-in object's successor: everything from here on was made by somebody.
const FIRST_NORMAL_OID: i64 = 16_384;

/// What the temporary view refers to that it may not. `$1`: [`HARMLESS`]; `$2`: [`FIRST_NORMAL_OID`].
///
/// The stored form of a view spells a reference as `:field oid`; texts and names of the query have their blanks escaped
/// in it, so they can add nothing and hide nothing.
const OFFENCES: &str = r"
    with rule as (
        select ev_class, ev_action::text as tree from pg_catalog.pg_rewrite
        where ev_class = 'pg_temp.robo_query'::regclass
    ), reference as (
        select distinct ev_class, found[1] as field, found[2]::bigint as target
        from rule cross join lateral regexp_matches(tree, ':(\w+) (\d+)\M', 'g') as found
        where found[1] ~ '^(relid|funcid|aggfnoid|winfnoid|tsmhandler|opno|sortop|eqop)$' and found[2] <> '0'
    )
    select 'the relation `' || target::oid::regclass::text || '`: there are `episodes`, `tasks`, `miners` and `scores`'
    from reference
    where field = 'relid' and target <> ev_class::oid::bigint
        and (target::oid = any (array[
            to_regclass('episodes')::oid, to_regclass('tasks')::oid, to_regclass('miners')::oid, to_regclass('scores')::oid
        ])) is not true
    union all
    select 'the function `' || coalesce(proname::text, target::text) || '`: only built-in ones of their arguments alone'
    from reference left join pg_catalog.pg_proc as function on function.oid = target::oid
    where field in ('funcid', 'aggfnoid', 'winfnoid', 'tsmhandler')
        and (target < $2 and (provolatile = 'i' or (provolatile = 's' and proname ~ $1))) is not true
    union all
    select 'an operator that is not built in' from reference where field in ('opno', 'sortop', 'eqop') and target >= $2
    union all
    select 'a value of the session or the clock' from rule where tree like '%{SQLVALUEFUNCTION %'";

impl Rows for Store {
    async fn ask(&self, question: &Question) -> Result<Vec<Value>, RowsError> {
        let mut connection = self.pool.acquire().await.map_err(storage)?;
        let mut transaction = connection.begin().await.map_err(storage)?;
        let rows = answer(&mut transaction, question).await;
        // The view must not stay; a connection that cannot even roll back is closed, which does the same.
        let rolled_back = transaction.rollback().await.map_err(storage);
        let rows = rows?;
        rolled_back?;
        Ok(rows)
    }
}

async fn answer(connection: &mut PgConnection, question: &Question) -> Result<Vec<Value>, RowsError> {
    settle(connection, question).await?;
    // The parser takes one statement here, and a view takes nothing that writes.
    let text = question.query.trim().trim_end_matches(';');
    let view = format!("create temporary view robo_query as {text}\n");
    sqlx::query(AssertSqlSafe(view)).execute(&mut *connection).await.map_err(|error| refused(error, question))?;
    let offences: Vec<String> = sqlx::query_scalar(OFFENCES)
        .bind(HARMLESS)
        .bind(FIRST_NORMAL_OID)
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| ours(error, question))?;
    if let Some(offence) = offences.first() {
        return Err(RowsError::Refused(format!("it uses {offence}")));
    }
    let read_only = sqlx::query("set local transaction_read_only = on").execute(&mut *connection).await;
    read_only.map_err(|error| ours(error, question))?;
    read(connection, question).await
}

/// What the answer may depend on besides the rows is the same on every server.
async fn settle(connection: &mut PgConnection, question: &Question) -> Result<(), RowsError> {
    let stages: Vec<&str> = question.stages.iter().map(crate::cycle::StageId::as_str).collect();
    // No stage has the name `-`: without stages there are no rows.
    let stages = if stages.is_empty() { "-".to_owned() } else { stages.join(",") };
    let milliseconds = question.timeout.as_millis().clamp(1, i32::MAX as u128);
    sqlx::query(
        "select set_config('robo.cycle_id', $1, true), set_config('robo.stages', $2, true),
             set_config('statement_timeout', $3, true), set_config('TimeZone', 'UTC', true),
             set_config('DateStyle', 'ISO', true), set_config('IntervalStyle', 'postgres', true),
             set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true),
             set_config('max_parallel_workers_per_gather', '0', true)",
    )
    .bind(question.cycle.to_string())
    .bind(stages)
    .bind(milliseconds.to_string())
    .execute(connection)
    .await
    .map_err(storage)?;
    Ok(())
}

async fn read(connection: &mut PgConnection, question: &Question) -> Result<Vec<Value>, RowsError> {
    let mut found = sqlx::query_scalar::<_, String>(
        "select left(row_to_json(found)::text, $1) from pg_temp.robo_query as found limit $2",
    )
    .bind(i32::try_from(question.max_bytes).unwrap_or(i32::MAX - 1).saturating_add(1))
    .bind(i64::try_from(question.max_rows).unwrap_or(i64::MAX - 1).saturating_add(1))
    .fetch(connection);
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(text) = found.try_next().await.map_err(|error| failed(error, question))? {
        bytes += text.len();
        if bytes > question.max_bytes {
            return Err(RowsError::TooLarge(question.max_bytes));
        }
        if rows.len() == question.max_rows {
            return Err(RowsError::TooManyRows(question.max_rows));
        }
        rows.push(
            serde_json::from_str(&text).map_err(|error| RowsError::Failed(format!("a row is no JSON: {error}")))?,
        );
    }
    Ok(rows)
}

fn storage(error: sqlx::Error) -> RowsError {
    RowsError::Storage(Box::new(Error::from(error)))
}

fn refused(error: sqlx::Error, question: &Question) -> RowsError {
    match words(&error) {
        Some(words) if !is_transient(&error) && !is_cancelled(&error) => RowsError::Refused(words),
        _ => failed(error, question),
    }
}

/// Of a statement of ours, which the operator's time limit holds for, too.
fn ours(error: sqlx::Error, question: &Question) -> RowsError {
    if is_cancelled(&error) { RowsError::Timeout(question.timeout) } else { storage(error) }
}

fn failed(error: sqlx::Error, question: &Question) -> RowsError {
    if is_cancelled(&error) {
        return RowsError::Timeout(question.timeout);
    }
    match words(&error) {
        Some(words) if !is_transient(&error) => RowsError::Failed(words),
        _ => storage(error),
    }
}

/// Whether the same query may work later. In a transaction that is read-only on purpose, a write is the query's fault.
fn is_transient(error: &sqlx::Error) -> bool {
    let writes = matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("25006"));
    !writes && absence(error).is_some()
}

/// `query_canceled`: the statement took too long.
fn is_cancelled(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("57014"))
}

fn words(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().map(|error| error.message().to_owned())
}
