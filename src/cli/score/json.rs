//! JSON that remembers where everything stood, so that an error about a value can point at it.
//!
//! `serde_json` tells the place of a syntax error only, keeps the last of two equal keys, and stops at the first `NaN`.
//! Values and grammar are the same: a property test holds the two together.

/// A value and the byte it starts at.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) at: usize,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool,
    /// The number as it was written.
    Number(&'a str),
    /// `NaN`, `Infinity` or `-Infinity`, which some programs write though JSON has no such numbers.
    NotFinite(&'a str),
    Text(String),
    Array(Vec<Node<'a>>),
    /// In the order of the text, equal keys included.
    Object(Vec<Entry<'a>>),
}

/// One `"key": value` and the byte its key starts at.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) value: Node<'a>,
}

/// What is not JSON, and where.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: usize,
    pub(super) message: String,
}

/// Nesting beyond this is refused; a table of scores has three levels.
const DEEPEST: usize = 64;

/// Read one JSON document.
pub(super) fn parse(text: &str) -> Result<Node<'_>, SyntaxError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let node = parser.value()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.unexpected("the end of the document")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Node<'a>, SyntaxError> {
        let next = self.peek();
        let at = self.at;
        let value = match next {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Value::Text(self.string()?),
            _ => self.word()?,
        };
        Ok(Node { at, value })
    }

    fn nested(&mut self, body: fn(&mut Self) -> Result<Value<'a>, SyntaxError>) -> Result<Value<'a>, SyntaxError> {
        if self.depth == DEEPEST {
            return Err(self.error(format!("nested deeper than {DEEPEST} levels")));
        }
        self.depth += 1;
        self.at += 1;
        let value = body(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value<'a>, SyntaxError> {
        let mut entries = Vec::new();
        if self.take(b'}') {
            return Ok(Value::Object(entries));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let at = self.at;
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.unexpected("`:`"));
            }
            entries.push(Entry { at, key, value: self.value()? });
            if self.take(b'}') {
                return Ok(Value::Object(entries));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    fn array(&mut self) -> Result<Value<'a>, SyntaxError> {
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    /// A string: its end is found here, its escapes are left to `serde_json`.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let close = rest.bytes().skip(1).position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        });
        let Some(close) = close else { return Err(self.error("this text has no closing `\"`".into())) };
        // The opening quote, what was skipped over, and the closing quote.
        let literal = &rest[..close + 2];
        let text = serde_json::from_str(literal)
            .map_err(|_| self.error("a text with a wrong escape or a line break in it".into()))?;
        self.at += literal.len();
        Ok(text)
    }

    /// `null`, `true`, `false`, a number, or one of the numbers that are none.
    fn word(&mut self) -> Result<Value<'a>, SyntaxError> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "" => return Err(self.unexpected("a value")),
            "null" => Value::Null,
            "true" | "false" => Value::Bool,
            "NaN" | "Infinity" | "-Infinity" => Value::NotFinite(word),
            number if is_number(number) => Value::Number(number),
            _ => return Err(self.error(format!("`{}` is not a JSON value", shortened(word)))),
        };
        self.at += end;
        Ok(value)
    }

    /// The next byte that is not white space, which becomes the current one.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn unexpected(&self, expected: &str) -> SyntaxError {
        match self.text[self.at..].chars().next() {
            Some(found) => self.error(format!("expected {expected}, found `{}`", found.escape_debug())),
            None => self.error(format!("expected {expected}, found the end of the document")),
        }
    }

    fn error(&self, message: String) -> SyntaxError {
        SyntaxError { at: self.at, message }
    }
}

/// The grammar of a JSON number: `-`? (`0` | digits without a leading zero) (`.` digits)? (`e` or `E`, then `+` or `-` or neither, digits)?
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(is_digits)
        && exponent.is_none_or(is_digits)
}

/// At most 40 characters of a text, for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The places of a text in the words of an editor. Made once per text, since a document may have thousands of problems.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self { text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at);
        (line, self.text[self.starts[line - 1]..at].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        let (line, column) = Lines::new(text).place(error.at);
        format!("{line}:{column}: {}", error.message)
    }

    #[test]
    fn values_know_their_place() {
        let text = "{\"é\": [1,\n  NaN]}";
        let Value::Object(entries) = parse(text).unwrap().value else { panic!("not an object") };
        let Value::Array(items) = &entries[0].value.value else { panic!("not an array") };
        assert_eq!(entries[0].key, "é");
        assert_eq!(Lines::new(text).place(items[0].at), (1, 8));
        assert_eq!(Lines::new(text).place(items[1].at), (2, 3));
        assert!(matches!(items[1].value, Value::NotFinite("NaN")));
    }

    #[test]
    fn syntax_errors_say_what_was_expected() {
        assert_eq!(error(""), "1:1: expected a value, found the end of the document");
        assert_eq!(error("{\"a\": 1,\n}"), "2:1: expected a key in double quotes, found `}`");
        assert_eq!(error("[1 2]"), "1:4: expected `,` or `]`, found `2`");
        assert_eq!(error("{\"a\" 1}"), "1:6: expected `:`, found `1`");
        assert_eq!(error("{} x"), "1:4: expected the end of the document, found `x`");
        assert_eq!(error("[nan]"), "1:2: `nan` is not a JSON value");
        assert_eq!(error("[01]"), "1:2: `01` is not a JSON value");
        assert_eq!(error("[\"a"), "1:2: this text has no closing `\"`");
        assert_eq!(error("[\"\\x\"]"), "1:2: a text with a wrong escape or a line break in it");
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_ok());
        assert!(error(&"[".repeat(100_000)).contains("nested deeper"));
    }

    fn json_like() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"\\u00e9\\\"\""),
            Just("\""),
            Just("\\"),
            Just("0"),
            Just("1"),
            Just("-"),
            Just("."),
            Just("e"),
            Just("+"),
            Just("null"),
            Just("true"),
            Just(" "),
            Just("\n"),
            Just("é"),
            Just("\u{1}"),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn documents() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        let value = leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        });
        (value, any::<bool>()).prop_map(|(value, pretty)| if pretty { format!("{value:#}") } else { value.to_string() })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn it_accepts_what_serde_json_accepts(text in prop_oneof![json_like(), documents()]) {
            let reference = serde_json::from_str::<serde_json::Value>(&text);
            // A number beyond all doubles is well-formed; what is done with it is up to the reader.
            let too_large = reference.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert_eq!(parse(&text).is_ok(), reference.is_ok() || too_large, "{:?}", text);
        }

        #[test]
        fn it_never_panics(text in any::<String>()) {
            if let Err(error) = parse(&text) {
                Lines::new(&text).place(error.at);
            }
        }
    }
}
