//! An answer that can be asked for again cheaply: JSON with a strong `ETag` over its bytes, and 304 for whoever has them.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{problem::Problem, view::View};

/// How long an answer may be given to others without asking us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// What may be another thing in a moment.
    Moments,
    /// What only the one who has asked may read.
    Own,
    /// What never changes once it is there.
    Forever,
}

impl Cache {
    /// For answers that are made anew whenever they are asked for, for whoever may read them.
    pub(super) fn for_view(view: View) -> Self {
        match view {
            View::Public => Self::Moments,
            View::Operator => Self::Own,
        }
    }

    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Moments => "public, max-age=5",
            Self::Own => "private, no-store",
            Self::Forever => "public, max-age=86400, immutable",
        })
    }
}

/// JSON, ready to be sent any number of times.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    body: Bytes,
    /// None only if hex digits between quotes were no tag.
    etag: Option<ETag>,
    cache: Cache,
}

impl Answer {
    /// The answer that shows this.
    pub(super) fn of(body: &impl Serialize, cache: Cache) -> Result<Self, Problem> {
        let text = serde_json::to_string(body).map_err(|error| {
            tracing::error!("an answer that is no JSON: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written")
        })?;
        Ok(Self::text(text, cache))
    }

    /// The same of JSON that is there already.
    pub(super) fn new(value: &serde_json::Value, cache: Cache) -> Self {
        Self::text(value.to_string(), cache)
    }

    fn text(body: String, cache: Cache) -> Self {
        let digest = format!("\"{}\"", hex::encode(&Sha256::digest(&body)[..16]));
        Self { body: body.into(), etag: digest.parse().ok(), cache }
    }

    /// The answer to a request with these headers.
    pub(super) fn to(&self, request: &HeaderMap) -> Response {
        let asked = request.typed_get::<IfNoneMatch>().zip(self.etag.as_ref());
        let is_known = asked.is_some_and(|(asked, etag)| !asked.precondition_passes(etag));
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = Response::new(Body::from(self.body.clone()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        };
        if let Some(etag) = &self.etag {
            response.headers_mut().typed_insert(etag.clone());
        }
        response.headers_mut().insert(header::CACHE_CONTROL, self.cache.header());
        response
    }
}
