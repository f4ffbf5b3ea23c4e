//! Who asks: anybody, or an operator who has shown a key.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

/// Who asks.
#[expect(dead_code, reason = "nothing that is shown depends on it yet")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Whoever it is, they are told what is public.
    Anybody,
    /// The holder of the key of this name: they are told everything.
    Operator(String),
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::Anybody)
    }
}
