//! Who asks: anybody, or an operator who has shown a key. `guard.rs` finds out; what answers takes [`Caller`] to show an operator
//! more, or [`Operator`] to answer nobody else.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, request::Parts},
};
use uuid::Uuid;

use super::problem::Problem;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Whoever it is, they are told what is public.
    Anybody,
    /// The holder of the key of this name: they are told everything.
    Operator(String),
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl Caller {
    /// Who sends a request that has passed the guard.
    pub(super) fn of(request: &Extensions) -> Self {
        request.get::<Operator>().map_or(Self::Anybody, |operator| Self::Operator(operator.name.clone()))
    }
}

/// The holder of a key, as what is done in their name is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operator {
    /// Id of the key.
    pub(super) key: Uuid,
    /// Its name.
    pub(super) name: String,
    /// Where the request came from.
    pub(super) client: IpAddr,
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| Problem::unauthorised("this address needs an API key"))
    }
}
