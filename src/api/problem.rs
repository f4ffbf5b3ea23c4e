//! What a client reads when there is no answer: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header::CONTENT_TYPE},
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
        Self { status, detail: detail.into(), kind: "about:blank" }
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
        let mut response = (self.status, [(CONTENT_TYPE, "application/problem+json")], self.body(None)).into_response();
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
