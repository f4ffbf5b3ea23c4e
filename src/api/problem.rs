//! What a client reads when there is no answer: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

/// An answer that is not the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
    kind: &'static str,
}

/// What went wrong (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody<'a> {
    /// What kind of problem: `about:blank` where the status says it all.
    r#type: &'a str,
    /// The status in words.
    title: &'a str,
    /// The status.
    status: u16,
    /// What it was this time, and what to do.
    detail: &'a str,
    /// The address that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), header: None, kind: "about:blank" }
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

    /// The same, of a kind that a program may want to tell from others.
    pub(super) fn of_type(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    fn body(&self, instance: Option<&str>) -> Body {
        let body = ProblemBody {
            r#type: self.kind,
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
        };
        // Texts and a number are always JSON.
        serde_json::to_string(&body).unwrap_or_default().into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let headers = [(CONTENT_TYPE, "application/problem+json"), (CACHE_CONTROL, "no-store")];
        let mut response = (self.status, headers, self.body(None)).into_response();
        if let Some((name, value)) = self.header.clone() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Say in every problem which address was asked.
pub(super) async fn name_instance(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = problem.body(Some(uri.path()));
    }
    response
}
