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
        let bytes = arrived(request, state, PATIENCE).await?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        match serde_json::from_slice(text) {
            Ok(body) => Ok(Self(body)),
            Err(error) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body is not what is asked for: {error}")))
            }
        }
    }
}

/// All of a body, if it comes in time.
async fn arrived<S: Send + Sync>(request: Request, state: &S, patience: Duration) -> Result<Bytes, Problem> {
    let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive");
    let bytes = tokio::time::timeout(patience, Bytes::from_request(request, state)).await.map_err(|_| slow())?;
    bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"),
    })
}

/// That a body is larger than any that is asked for.
pub(super) fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {LARGEST} bytes"))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use futures::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_to_an_end_is_not_waited_for() {
        let begin = stream::iter([Ok::<_, std::convert::Infallible>(r#"{"reason": "#)]);
        let request = Request::new(axum::body::Body::from_stream(begin.chain(stream::pending())));
        let problem = arrived(request, &(), Duration::from_millis(1)).await.unwrap_err().into_response();
        assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
