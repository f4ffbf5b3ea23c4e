//! The words of an expression that the engine looks up only when it runs: filters (`x | length`) and tests (`x is defined`).
//! Here they are looked up when a manifest is read, so that a typing mistake does not wait for the cycle.

use crate::manifest::suggest;

/// What can be called: `length(x)` or `x | length`.
pub(super) const FUNCTIONS: [&str; 14] =
    ["abs", "default", "first", "int", "join", "last", "length", "map", "max", "min", "range", "round", "sort", "sum"];

/// What can stand after `is`.
const TESTS: [&str; 2] = ["defined", "none"];

/// A word of an expression that means nothing, and what to write in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Check every filter and test of an expression that is otherwise well formed.
pub(super) fn check(expression: &str) -> Result<(), Unknown> {
    let plain = without_texts(expression);
    for (at, _) in plain.match_indices('|') {
        let (name, rest) = word(&plain[at + 1..]);
        if !FUNCTIONS.contains(&name) {
            return Err(unknown(format!("there is no function `{name}`"), name, &FUNCTIONS));
        }
        let arguments = rest.trim_start().strip_prefix('(').map_or("", str::trim_start);
        if name == "map" && word(arguments).0 != "attribute" {
            let help = Some("write `x | map(attribute='NAME')`".to_owned());
            return Err(Unknown { message: "`map` picks one field of every value of a list".into(), help });
        }
    }
    for (at, _) in plain.match_indices("is") {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let after = &plain[at + 2..];
        let before = plain[..at].chars().next_back();
        if before.is_some_and(|c| is_word(c) || c == '.') || after.chars().next().is_some_and(is_word) {
            continue;
        }
        let (first, rest) = word(after);
        let name = if first == "not" { word(rest).0 } else { first };
        if !TESTS.contains(&name) {
            return Err(unknown(format!("nothing `is {name}` here"), name, &TESTS));
        }
    }
    Ok(())
}

fn unknown(message: String, written: &str, known: &[&str]) -> Unknown {
    let help = match suggest::closest(written, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.join(", ")),
    };
    Unknown { message, help: Some(help) }
}

/// The word at the start of a text, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// The expression without what stands in quotes.
pub(super) fn without_texts(expression: &str) -> String {
    characters(expression).filter(|(_, quoted)| !quoted).map(|(character, _)| character).collect()
}

/// The expression with an ordinary index in place of each slice: `x[0~n]` for `x[:n]`. It gives something else, but refers to the
/// same things, and the parser's list of references leaves out what is sliced.
pub(super) fn without_slices(expression: &str) -> String {
    let mut plain = String::new();
    let mut open = Vec::new();
    for (character, quoted) in characters(expression) {
        let lacks_side = |plain: &str| plain.trim_end().ends_with(['[', '~']);
        match character {
            _ if quoted => {}
            '(' | '[' | '{' => open.push(character),
            ')' | ']' | '}' => {
                if plain.trim_end().ends_with('~') {
                    plain.push('0');
                }
                open.pop();
            }
            ':' if open.last() == Some(&'[') => {
                plain.push_str(if lacks_side(&plain) { "0~" } else { "~" });
                continue;
            }
            _ => {}
        }
        plain.push(character);
    }
    plain
}

/// The characters of an expression, and whether each stands inside quotes.
fn characters(expression: &str) -> impl Iterator<Item = (char, bool)> {
    let mut quote = None;
    let mut escaped = false;
    expression.chars().map(move |character| {
        let quoted = match quote {
            Some(open) if escaped || character != open => {
                escaped = !escaped && character == '\\';
                true
            }
            Some(_) => {
                quote = None;
                false
            }
            None => {
                quote = Some(character).filter(|c| matches!(c, '"' | '\''));
                false
            }
        };
        (character, quoted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_become_indices() {
        for (sliced, plain) in [
            ("x[:n]", "x[0~n]"),
            ("x[ n : ]", "x[ n ~ 0]"),
            ("x[::2][1:y[:z]]", "x[0~0~2][1~y[0~z]]"),
            ("{'a': x['b:c'][:]}", "{'a': x['b:c'][0~0]}"),
            ("[{'a': 1}, '[:']", "[{'a': 1}, '[:']"),
        ] {
            assert_eq!(without_slices(sliced), plain);
        }
    }

    #[test]
    fn filters_and_tests_are_looked_up_when_read() {
        for right in [
            "x | length > 0 and y|first|default('| nosuch')",
            "x is defined and y is not none and stages.is.this",
            "this.is is defined",
            "'a is b' ~ \"it\\\"s | z\"",
            "x | map( attribute = 'a') | sort",
            "list_is + isx",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, help) in [
            ("x | lenght", "did you mean `length`?"),
            ("x | map('int')", "attribute='NAME'"),
            ("x | map", "attribute='NAME'"),
            ("x is definde", "did you mean `defined`?"),
            ("x is not iterable", "there are: defined, none"),
            ("(x|upper) == 'A'", "there are: abs"),
        ] {
            let help_given = check(wrong).unwrap_err().help.unwrap();
            assert!(help_given.contains(help), "{wrong}: {help_given}");
        }
    }
}
