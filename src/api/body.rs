//! What a client sends: JSON of a bounded size, in a bounded time, and nothing in it that nobody knows.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The largest body.
pub(super) const LARGEST: usize = 64 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that was read. None at all is the same as an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive");
        let bytes = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state)).await.map_err(|_| slow())?;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"),
        })?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        match serde_json::from_slice(text) {
            Ok(body) => Ok(Self(body)),
            Err(error) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body is not what is asked for: {error}")))
            }
        }
    }
}

/// That a body is larger than any that is asked for.
pub(super) fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {LARGEST} bytes"))
}
