//! Ways to break the miner protocol on purpose, by name: what tests hold the client and the engine against.

use std::{str::FromStr, time::Duration};

use axum::{
    body::Body,
    http::{Response, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use futures::StreamExt;

use crate::manifest::simulation::Dialect;

/// What goes wrong with an answer to `/act` (or `/reset`, where the name says so).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/act` is never answered.
    Timeout,
    /// `/reset` is never answered.
    ResetTimeout,
    /// Status 500 with terminal colours and HTML in its text.
    Http500,
    /// Text that is no JSON.
    Malformed,
    /// An action that holds `NaN`.
    Nan,
    /// An action with a number too many.
    WrongSize,
    /// An action outside of -1 to 1.
    OutOfRange,
    /// A body without end.
    Huge,
    /// A redirect to `/health`.
    Redirect,
    /// An answer that says it is compressed.
    Gzip,
    /// The connection is reset in the middle of the body.
    Close,
    /// A byte of the body every tenth of a second.
    SlowBody,
    /// The process ends.
    Down,
}

const NAMES: [(&str, Kind); 13] = [
    ("timeout", Kind::Timeout),
    ("reset-timeout", Kind::ResetTimeout),
    ("http-500", Kind::Http500),
    ("malformed", Kind::Malformed),
    ("nan", Kind::Nan),
    ("wrong-size", Kind::WrongSize),
    ("out-of-range", Kind::OutOfRange),
    ("huge", Kind::Huge),
    ("redirect", Kind::Redirect),
    ("gzip", Kind::Gzip),
    ("close", Kind::Close),
    ("slow-body", Kind::SlowBody),
    ("down", Kind::Down),
];

/// What goes wrong, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misbehaviour {
    /// What.
    pub kind: Kind,
    /// Answers to `/act`, over all episodes, that are fine before it starts.
    pub after: u64,
}

/// Why a text names no misbehaviour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not one of {}, alone or as `KIND-after:N`", NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownMisbehaviour {
    text: String,
}

impl FromStr for Misbehaviour {
    type Err = UnknownMisbehaviour;

    fn from_str(text: &str) -> Result<Self, UnknownMisbehaviour> {
        let unknown = || UnknownMisbehaviour { text: text.chars().take(40).collect() };
        let (name, after) = match text.split_once("-after:") {
            Some((name, after)) => (name, after.parse().map_err(|_| unknown())?),
            None => (text, 0),
        };
        let (_, kind) = NAMES.into_iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
        Ok(Self { kind, after })
    }
}

impl Kind {
    /// The broken answer. It never comes for the kinds that keep silent.
    pub(super) async fn answer(self, dialect: Dialect) -> Response<Body> {
        const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
        match self {
            Self::Timeout | Self::ResetTimeout | Self::Down => std::future::pending().await,
            Self::Http500 => {
                (StatusCode::INTERNAL_SERVER_ERROR, "\u{1b}[31m<b>the policy crashed</b>\u{1b}[0m").into_response()
            }
            Self::Nan | Self::WrongSize | Self::OutOfRange if dialect == Dialect::Canonical => {
                let twist = match self {
                    Self::Nan => "0.0, NaN, 0.0, 0.0, 0.0, 0.0",
                    Self::WrongSize => "0.0, 0.0, 0.0",
                    _ => "0.0, 0.0, 1e300, 0.0, 0.0, 0.0",
                };
                (JSON, format!(r#"{{"action": {{"continuous": {{"ee_twist": [{twist}], "gripper": [0.0]}}}}}}"#))
                    .into_response()
            }
            Self::Malformed => (JSON, r#"{"action": [0.0, 0.0"#).into_response(),
            Self::Nan => (JSON, r#"{"action": [0.0, NaN, 0.0, 0.0]}"#).into_response(),
            Self::WrongSize => (JSON, r#"{"action": [0.0, 0.0, 0.0, 0.0, 0.0]}"#).into_response(),
            Self::OutOfRange => (JSON, r#"{"action": [0.0, 0.0, 0.0, 1e300]}"#).into_response(),
            Self::Huge => {
                let blanks = Bytes::from(vec![b' '; 16 * 1024]);
                streamed(futures::stream::repeat_with(move || Ok(blanks.clone())))
            }
            Self::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/health")]).into_response(),
            Self::Gzip => ([(header::CONTENT_ENCODING, "gzip")], vec![0x1f, 0x8b, 8, 0]).into_response(),
            Self::Close => {
                let broken = std::io::Error::other("closed on purpose");
                streamed(futures::stream::iter([Ok(Bytes::from_static(b"{\"action\":")), Err(broken)]))
            }
            Self::SlowBody => {
                let blanks = futures::stream::repeat(Bytes::from_static(b" "));
                streamed(blanks.then(|blank| async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Ok(blank)
                }))
            }
        }
    }
}

fn streamed(chunks: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    Response::new(Body::from_stream(chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_alone_and_with_a_start() {
        for (name, kind) in NAMES {
            assert_eq!(name.parse(), Ok(Misbehaviour { kind, after: 0 }));
            assert_eq!(format!("{name}-after:7").parse(), Ok(Misbehaviour { kind, after: 7 }));
        }
        for wrong in ["", "sleep", "down-after:", "down-after:x", "down:3"] {
            assert!(wrong.parse::<Misbehaviour>().unwrap_err().to_string().contains("http-500"));
        }
    }
}
