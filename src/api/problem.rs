//! What a client reads when there is no answer: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;

/// An answer that is not the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    /// The same, with a header that says what to do.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// That a key is missing.
    pub(super) fn unauthorised(detail: &'static str) -> Self {
        let scheme = HeaderValue::from_static("Bearer realm=\"robo\"");
        Self::new(StatusCode::UNAUTHORIZED, detail).with(WWW_AUTHENTICATE, scheme)
    }

    /// That a key was shown, and is none.
    pub(super) fn wrong_key() -> Self {
        let scheme = HeaderValue::from_static("Bearer realm=\"robo\", error=\"invalid_token\"");
        let detail = "this is no API key of this backend, or it was revoked, or its end has come";
        Self::new(StatusCode::UNAUTHORIZED, detail).with(WWW_AUTHENTICATE, scheme)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = json!({ "title": title, "status": self.status.as_u16(), "detail": self.detail });
        let headers = [(CONTENT_TYPE, "application/problem+json"), (CACHE_CONTROL, "no-store")];
        let mut response = (self.status, headers, body.to_string()).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
