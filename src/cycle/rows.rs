//! A question that an operator asks in SQL about the rows of a cycle.

use std::{future::Future, time::Duration};

use serde_json::Value;

use super::{CycleId, StageId};

/// One query and how far it may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The cycle whose rows there are.
    pub cycle: CycleId,
    /// The stages whose rows there are.
    pub stages: Vec<StageId>,
    /// One `select`.
    pub query: String,
    /// Longest it may take.
    pub timeout: Duration,
    /// Most rows of the answer.
    pub max_rows: usize,
    /// Most bytes of the answer as JSON.
    pub max_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// It is no query, or one that may not be asked.
    #[error("the query cannot be asked: {0}")]
    Refused(String),
    /// It failed on the rows there are.
    #[error("the query failed: {0}")]
    Failed(String),
    /// It took too long.
    #[error("the query took longer than {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// More rows than asked for.
    #[error("the query gives more than {0} rows")]
    TooManyRows(usize),
    /// Larger than asked for.
    #[error("the rows take more than {0} bytes as JSON")]
    TooLarge(usize),
    /// The storage failed: worth another try later.
    #[error("the database cannot be reached")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Whoever can answer questions about the rows of a cycle.
pub trait Rows: Send + Sync + 'static {
    /// The rows of the answer, each a JSON object by column.
    ///
    /// # Guarantees
    /// Nothing is changed, nothing outside the cycle and the named stages is read, and the answer follows from the query
    /// and those rows alone: not from the time, the session or chance.
    fn ask(&self, question: &Question) -> impl Future<Output = Result<Vec<Value>, RowsError>> + Send;
}
