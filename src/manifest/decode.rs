//! A serde deserialiser over a [`Document`]: wire structs derive `Deserialize`, and every mistake is located.
//!
//! Unlike most deserialisers it does not stop at the first mistake: unknown keys are reported as it passes, and an
//! unreadable entry of an `Entries` is reported and left out. A field that cannot be read ends its struct
//! (serde knows no other way), so the document is then read again as if that field were not there.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor, value};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::document::{Document, Kind, NodeId};
use super::located::{LOCATED, RAW, RECOVERED};
use super::suggest;

/// Read the wire type `T` out of a document. None when something was wrong; `diagnostics` then says what.
pub(crate) fn decode<'de, T: de::Deserialize<'de>>(
    document: &'de Document,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    decode_at(document, document.root(), diagnostics)
}

/// The same for a part of a document.
pub(crate) fn decode_at<'de, T: de::Deserialize<'de>>(
    document: &'de Document,
    node: NodeId,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let notes = Notes::default();
    for _ in 0..MOST_ROUNDS {
        let hidden_before = notes.hidden.borrow().len();
        let result = T::deserialize(Decoder { document, node, notes: &notes });
        match result {
            Ok(value) if !notes.problems.borrow().has_errors() => {
                diagnostics.extend(notes.problems.into_inner());
                return Some(value);
            }
            Err(error) if error.told == Told::Not => notes.problems.borrow_mut().push(error.located(document, node)),
            _ => {}
        }
        if notes.hidden.borrow().len() == hidden_before || notes.problems.borrow().is_full() {
            break;
        }
    }
    diagnostics.extend(notes.problems.into_inner());
    None
}

/// How often a document is read to find one more mistake.
const MOST_ROUNDS: usize = 50;

/// What is learnt while a document is read.
#[derive(Debug, Default)]
struct Notes {
    problems: RefCell<Diagnostics>,
    /// Values that could not be read: they are passed over from now on.
    hidden: RefCell<HashSet<NodeId>>,
}

impl Notes {
    fn is_hidden(&self, node: NodeId) -> bool {
        self.hidden.borrow().contains(&node)
    }

    /// Report an error that ends the reading of `node`, and pass over it from now on. Not if something inside has been
    /// hidden just now: with that out of the way, the next round gets further.
    fn tell(&self, error: DecodeError, document: &Document, node: NodeId) -> DecodeError {
        if error.told == Told::JustNow {
            return error;
        }
        if error.told == Told::Not {
            self.problems.borrow_mut().push(error.located(document, node));
        }
        self.hidden.borrow_mut().insert(node);
        DecodeError { told: Told::JustNow, ..DecodeError::new("") }
    }
}

/// Why a value is not what a wire type asks for.
#[derive(Debug)]
struct DecodeError {
    at: Option<NodeId>,
    message: String,
    help: Option<String>,
    missing: Option<&'static str>,
    told: Told,
}

/// Whether an error is known to the reader of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Not,
    /// In this round, and what caused it was hidden.
    JustNow,
    /// In an earlier round.
    Before,
}

impl DecodeError {
    fn new(message: impl Into<String>) -> Self {
        Self { at: None, message: message.into(), help: None, missing: None, told: Told::Not }
    }

    /// The innermost node that was being read wins.
    fn or_at(mut self, node: NodeId) -> Self {
        self.at.get_or_insert(node);
        self
    }

    fn located(&self, document: &Document, fallback: NodeId) -> Diagnostic {
        let diagnostic = document.error(self.at.unwrap_or(fallback), self.message.clone());
        match self.help.clone() {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", plain(&expected.to_string()), describe(found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::new(format!("`{field}` is missing")) }
    }

    fn unknown_variant(written: &str, expected: &'static [&'static str]) -> Self {
        let near = suggest::closest(written, expected.iter().copied());
        Self {
            help: near.map(|near| format!("did you mean `{near}`?")),
            ..Self::new(format!("unknown value `{written}`, expected {}", alternatives(expected)))
        }
    }
}

/// `one of a, b and c`, quoted.
pub(crate) fn alternatives<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match quoted.as_slice() {
        [] => "nothing".into(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What serde calls a type, in the words of a manifest.
fn plain(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0".into(),
        "i32" | "i64" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        other if other.starts_with("struct ") => "a mapping".into(),
        other if other.starts_with("an array of length ") => other.replace("an array of length ", "a list of length "),
        other => other.into(),
    }
}

fn describe(found: de::Unexpected<'_>) -> String {
    use de::Unexpected as U;
    match found {
        U::Unit | U::Option => "nothing".into(),
        U::Bool(value) => format!("`{value}`"),
        U::Signed(value) => format!("the number {value}"),
        U::Unsigned(value) => format!("the number {value}"),
        U::Float(value) => format!("the number {value}"),
        U::Str(text) => format!("the text `{}`", text.chars().take(80).collect::<String>()),
        U::Seq => "a list".into(),
        U::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

#[derive(Clone, Copy)]
struct Decoder<'de, 'p> {
    document: &'de Document,
    node: NodeId,
    notes: &'p Notes,
}

impl<'de, 'p> Decoder<'de, 'p> {
    fn child(&self, node: NodeId) -> Self {
        Self { node, ..*self }
    }

    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.document.kind(self.node) {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Integer(value) => visitor.visit_i64(*value),
            Kind::Unsigned(value) => visitor.visit_u64(*value),
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::List(items) => visitor.visit_seq(Items { of: self, items: items.iter() }),
            Kind::Mapping(entries) => {
                visitor.visit_map(Fields { of: self, entries: entries.iter(), value: None, known: None })
            }
        }
    }

    fn report_unknown_keys(&self, known: &'static [&'static str]) {
        for (name, key, _) in self.document.entries(self.node).filter(|(name, ..)| !known.contains(name)) {
            if self.notes.problems.borrow().is_full() {
                return;
            }
            let problem = self.document.error(key, format!("unknown key `{name}`"));
            let near = suggest::closest(name, known.iter().copied());
            self.notes.problems.borrow_mut().push(match near {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("the keys here are {}", alternatives(known).replace(" or ", " and "))),
            });
        }
    }
}

impl<'de> de::Deserializer<'de> for Decoder<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.visit(visitor).map_err(|error| error.or_at(self.node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.document.kind(self.node) {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match name {
            RAW => visitor.visit_u64(self.node.0 as u64),
            _ => visitor.visit_newtype_struct(self),
        };
        result.map_err(|error: DecodeError| error.or_at(self.node))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match name {
            LOCATED => visitor.visit_seq(Pair { of: self, next: 0 }),
            RECOVERED => visitor.visit_seq(Lenient { of: self, items: std::slice::from_ref(&self.node).iter() }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.document.kind(self.node) {
            Kind::List(items) => visitor.visit_seq(Lenient { of: self, items: items.iter() }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Kind::Mapping(entries) = self.document.kind(self.node) else { return self.deserialize_any(visitor) };
        self.report_unknown_keys(fields);
        let fields = Fields { of: self, entries: entries.iter(), value: None, known: Some(fields) };
        visitor.visit_map(fields).map_err(|error| {
            let missing = error.missing.and_then(|field| self.document.get(self.node, field));
            let told = if missing.is_some_and(|node| self.notes.is_hidden(node)) { Told::Before } else { error.told };
            DecodeError { told, missing: None, ..error.or_at(self.node) }
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match self.document.kind(self.node) {
            Kind::Text(_) => visitor.visit_enum(Variant { of: self, name: self.node, content: None }),
            Kind::Mapping(entries) if entries.len() == 1 => {
                visitor.visit_enum(Variant { of: self, name: entries[0].0, content: Some(entries[0].1) })
            }
            _ => Err(DecodeError::new(format!("expected {}", alternatives(variants)))),
        };
        result.map_err(|error| error.or_at(self.node))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple map
        identifier ignored_any
    }
}

/// The items of a list of fixed length, or of no special kind.
struct Items<'de, 'p> {
    of: Decoder<'de, 'p>,
    items: std::slice::Iter<'de, NodeId>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        self.items.next().map(|item| seed.deserialize(self.of.child(*item))).transpose()
    }
}

/// Items of which the unreadable ones are reported and left out.
struct Lenient<'de, 'p, 'i> {
    of: Decoder<'de, 'p>,
    items: std::slice::Iter<'i, NodeId>,
}

impl<'de> de::SeqAccess<'de> for Lenient<'de, '_, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let notes = self.of.notes;
        let Some(item) = self.items.find(|item| !notes.is_hidden(**item)) else { return Ok(None) };
        match seed.deserialize(self.of.child(*item)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                // The seed is spent, so this list ends here for now.
                notes.tell(error, self.of.document, *item);
                Ok(None)
            }
        }
    }
}

/// A node's number, then its value.
struct Pair<'de, 'p> {
    of: Decoder<'de, 'p>,
    next: u8,
}

impl<'de> de::SeqAccess<'de> for Pair<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        self.next += 1;
        match self.next {
            1 => seed.deserialize(value::U64Deserializer::<DecodeError>::new(self.of.node.0 as u64)).map(Some),
            2 => seed.deserialize(self.of).map(Some),
            _ => Ok(None),
        }
    }
}

/// The entries of a mapping; of a struct only the known ones, the others having been reported.
struct Fields<'de, 'p> {
    of: Decoder<'de, 'p>,
    entries: std::slice::Iter<'de, (NodeId, NodeId)>,
    value: Option<NodeId>,
    known: Option<&'static [&'static str]>,
}

impl<'de> de::MapAccess<'de> for Fields<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        for (key, value) in self.entries.by_ref() {
            let name = self.of.document.text(*key).unwrap_or_default();
            let wanted = |known: &[&str]| known.contains(&name) && !self.of.notes.is_hidden(*value);
            if self.known.is_none_or(wanted) {
                self.value = Some(*value);
                return seed.deserialize(self.of.child(*key)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let node = self.value.take().unwrap_or(self.of.node);
        let result = seed.deserialize(self.of.child(node)).map_err(|error| error.or_at(node));
        match self.known {
            Some(_) => result.map_err(|error| self.of.notes.tell(error, self.of.document, node)),
            None => result,
        }
    }
}

/// `variant`, or `variant: content` in a mapping of one entry.
struct Variant<'de, 'p> {
    of: Decoder<'de, 'p>,
    name: NodeId,
    content: Option<NodeId>,
}

impl<'de, 'p> de::EnumAccess<'de> for Variant<'de, 'p> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let name = self.of.document.text(self.name).unwrap_or_default();
        let name: value::StrDeserializer<'_, DecodeError> = name.into_deserializer();
        let value = seed.deserialize(name).map_err(|error| error.or_at(self.name))?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de, '_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        match self.content {
            None => Ok(()),
            Some(content) => Err(DecodeError::new("nothing may follow this word").or_at(content)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        match self.content {
            Some(content) => seed.deserialize(self.of.child(content)).map_err(|error| error.or_at(content)),
            None => Err(DecodeError::new("a value is missing: write `{word: value}`").or_at(self.name)),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.newtype_variant_seed(visitor_seed(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.newtype_variant_seed(visitor_seed(visitor))
    }
}

/// A seed that hands whatever stands there to a visitor.
fn visitor_seed<'de, V: Visitor<'de>>(visitor: V) -> impl DeserializeSeed<'de, Value = V::Value> {
    struct Seed<V>(V);
    impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Seed<V> {
        type Value = V::Value;

        fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
            deserializer.deserialize_any(self.0)
        }
    }
    Seed(visitor)
}
