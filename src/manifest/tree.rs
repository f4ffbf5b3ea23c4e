//! YAML text to a tree with places, within a budget. The only user of the YAML crate.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::document::{Kind, Place};

/// A value and where it is written.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar(Kind),
    List(Vec<Tree>),
    Mapping(Vec<(String, Place, Tree)>),
}

/// Why a text is not a tree.
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) place: Option<Place>,
}

/// Parse one YAML document.
pub(super) fn parse(text: &str) -> Result<Tree, Failure> {
    serde_yaml::from_str_with_options::<Tree>(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().filter(|location| *location != Location::UNKNOWN).map(place);
        Failure { message: plain(&error.to_string()), place }
    })
}

/// Limits far above any manifest and far below what takes noticeable time.
fn options() -> serde_yaml::Options {
    let budget = serde_yaml::budget! {
        max_depth: 64,
        flow_nesting_limit: 64,
        max_nodes: 50_000,
        max_events: 150_000,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_documents: 1,
        max_merge_keys: 1_000,
    };
    let mut options = serde_yaml::options! { budget: budget, strict_booleans: true, with_snippet: false };
    options.alias_limits.max_total_replayed_events = 50_000;
    options
}

/// What the parser says, in an operator's words and without the place it repeats at the end: that is shown apart.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message);
    let end = line.find(" at line ").unwrap_or(line.len());
    let line = line[..end].trim_end_matches('.');
    if let Some(key) = line.strip_prefix("duplicate mapping key: ") {
        return format!("`{}` is written twice", key.split(',').next().unwrap_or(key));
    }
    if line.starts_with("alias replay limit") || line.contains("alias") && line.contains("exceeded") {
        return format!("the aliases of this file unfold into too much ({line})");
    }
    if line.starts_with("recursion limit") || line.contains("depth") {
        return "this is nested too deeply".into();
    }
    line.to_owned()
}

fn place(location: Location) -> Place {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let span = location.span();
    let bytes = span.byte_offset().zip(span.byte_len()).map(|(start, length)| (number(start), number(length)));
    Place { line: number(location.line()), column: number(location.column()), span: bytes }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { place: place(spanned.referenced), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Kind::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Kind::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(Kind::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(Kind::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(i64::try_from(value).map_or(Kind::Unsigned(value), Kind::Integer)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        if !value.is_finite() {
            return Err(E::custom("a number must be finite"));
        }
        Ok(Content::Scalar(Kind::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(Kind::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            entries.push((key.value, place(key.referenced), access.next_value()?));
        }
        Ok(Content::Mapping(entries))
    }
}
