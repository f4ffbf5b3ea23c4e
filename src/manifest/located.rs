//! Wire types that know their place in the document: what semantic errors point at.
//!
//! They only deserialise from a decoder of `decode`, which recognises them by the names below.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::document::NodeId;

pub(super) const LOCATED: &str = "robo::Located";
pub(super) const RAW: &str = "robo::Raw";
pub(super) const RECOVERED: &str = "robo::Recovered";

/// A value and the node it was read from.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) at: NodeId,
    pub(crate) value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pair<T> {
            type Value = Located<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a located value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Located<T>, A::Error> {
                let at = access.next_element::<u64>()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let value = access.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                Ok(Located { at: NodeId(at as usize), value })
            }
        }
        deserializer.deserialize_tuple_struct(LOCATED, 2, Pair(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Any value, left in the document for a later pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw(pub(crate) NodeId);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Place;
        impl Visitor<'_> for Place {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_u64<E>(self, node: u64) -> Result<Raw, E> {
                Ok(Raw(NodeId(node as usize)))
            }
        }
        deserializer.deserialize_newtype_struct(RAW, Place)
    }
}

impl JsonSchema for Raw {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Any".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::default()
    }
}

/// A mapping with names of the operator's choosing, in file order.
///
/// An entry that cannot be read is reported and left out, so that the others are still checked.
#[derive(Debug, Clone)]
pub(crate) struct Entries<T>(pub(crate) Vec<(Located<String>, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Entries<T> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.value.as_str())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = access.next_key()? {
                    if let Recovered(Some(value)) = access.next_value()? {
                        entries.push((name, value));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(All(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// A value, or nothing when it could not be read; the reason has then been reported.
struct Recovered<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Recovered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Maybe<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Maybe<T> {
            type Value = Recovered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Recovered<T>, A::Error> {
                access.next_element().map(Recovered)
            }
        }
        deserializer.deserialize_tuple_struct(RECOVERED, 1, Maybe(PhantomData))
    }
}
