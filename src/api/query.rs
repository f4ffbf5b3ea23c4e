//! The part of an address behind the `?`: what is asked for, checked at one door, and pages whose keys are what they show.

use std::borrow::Cow;

use axum::{
    extract::{FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, de::DeserializeOwned};

use super::problem::Problem;
use crate::cycle::EpisodeKey;

/// The `type` of a problem with what was asked.
const BAD_QUESTION: &str = "urn:robo:problem:bad-question";

/// What can be asked of an address. A question that holds anything else is refused, and so are unknown words in it.
pub(super) trait Question: DeserializeOwned + JsonSchema {
    /// What it takes, for whoever has asked something else.
    const TAKES: &'static str;
}

/// A question that is one.
#[derive(Debug)]
pub(super) struct Asked<Q>(pub(super) Q);

impl<S: Send + Sync, Q: Question> FromRequestParts<S> for Asked<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<Q>::from_request_parts(parts, state).await;
        asked.map(|Query(question)| Self(question)).map_err(|_| mistaken(Q::TAKES))
    }
}

/// The answer to what cannot be understood, with what can.
pub(super) fn mistaken(takes: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, takes).of_type(BAD_QUESTION)
}

/// For addresses that take no question: who asks one does not mean this address.
pub(super) async fn refuse_questions(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => mistaken("this address takes no question: leave out the `?` and what follows").into_response(),
    }
}

/// How many things of a list: 1 to 100.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct PageSize(u32);

impl JsonSchema for PageSize {
    fn schema_name() -> Cow<'static, str> {
        "PageSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 100 })
    }
}

impl TryFrom<u32> for PageSize {
    type Error = &'static str;

    fn try_from(size: u32) -> Result<Self, Self::Error> {
        if (1..=100).contains(&size) { Ok(Self(size)) } else { Err("a page holds 1 to 100 things") }
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(20)
    }
}

impl PageSize {
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The last one of a page behind which there may be another; none of a page that is not full.
    pub(super) fn last<T>(self, page: &[T]) -> Option<&T> {
        page.last().filter(|_| page.len() == self.0 as usize)
    }
}

/// The place of an episode in its list: `ENVIRONMENT:SEED_INDEX:HOTKEY`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct EpisodePlace(pub(super) EpisodeKey);

impl JsonSchema for EpisodePlace {
    fn schema_name() -> Cow<'static, str> {
        "EpisodePlace".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let part = "[a-z][a-z0-9_-]{0,62}";
        json_schema!({ "type": "string", "pattern": format!("^{part}/{part}:[0-9]{{1,9}}:[A-Za-z0-9._-]{{1,64}}$") })
    }
}

impl TryFrom<String> for EpisodePlace {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let key = || {
            let (environment, rest) = text.split_once(':')?;
            let (seed_index, hotkey) = rest.split_once(':')?;
            Some(EpisodeKey {
                environment: environment.parse().ok()?,
                seed_index: seed_index.parse().ok()?,
                hotkey: hotkey.parse().ok()?,
            })
        };
        key().map(Self).ok_or("not the place of an episode")
    }
}

impl EpisodePlace {
    pub(super) fn text(environment: &str, seed_index: i32, hotkey: &str) -> String {
        format!("{environment}:{seed_index}:{hotkey}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let text = EpisodePlace::text("m/a", 7, "ann.b-c_d");
        let EpisodePlace(key) = text.clone().try_into().unwrap();
        assert_eq!((key.environment.as_str(), key.seed_index, key.hotkey.as_str()), ("m/a", 7, "ann.b-c_d"));
        for wrong in ["", "m/a", "m/a:7", "m/a:-1:ann", "m/a:7:", "a:7:ann", "m/a:99999999999:ann"] {
            assert!(EpisodePlace::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_full_page_has_another_behind_it() {
        let size = PageSize::try_from(2).unwrap();
        assert_eq!((size.last(&[1, 2]), size.last(&[1]), size.last::<u8>(&[])), (Some(&2), None, None));
        assert!(PageSize::try_from(0).is_err() && PageSize::try_from(101).is_err());
    }
}
