//! Texts for people: those that strangers had a hand in, made harmless before anybody reads or stores them, and errors
//! with their causes.

/// Longest detail, in characters.
const DETAIL_LIMIT: usize = 500;

/// The text without terminal escape sequences, control characters and marks that turn the direction of writing, runs of
/// white space as one blank, cut at 500 characters.
pub fn plain_text(text: &str) -> String {
    let mut plain = String::new();
    let mut length = 0;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            skip_escape_sequence(&mut characters);
            continue;
        }
        let character = if character.is_whitespace() { ' ' } else { character };
        if character.is_control() || turns_direction(character) || (character == ' ' && plain.ends_with([' '])) {
            continue;
        }
        if length == DETAIL_LIMIT - 1 {
            plain.push('…');
            break;
        }
        plain.push(character);
        length += 1;
    }
    plain.trim().to_owned()
}

/// A text and the causes of its error, in one line; a cause that it tells already is not told again.
pub fn with_causes(text: String, error: &dyn std::error::Error) -> String {
    let mut text = text;
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

/// `ESC [ parameters letter` and `ESC ] ... BEL` in full; of any other sequence the character after `ESC`.
fn skip_escape_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => while characters.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
        Some(']') => while characters.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
        _ => {}
    }
}

fn turns_direction(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_go_and_words_stay() {
        assert_eq!(plain_text("a\u{1b}[31;1mred\u{1b}[0m\r\n\tb\0"), "ared b");
        assert_eq!(plain_text("\u{1b}]0;title\u{7}x\u{202e}y"), "xy");
        assert_eq!(plain_text("<b>é</b>"), "<b>é</b>");
    }

    #[test]
    fn a_megabyte_is_cut() {
        let cut = plain_text(&"é".repeat(1 << 20));
        assert_eq!(cut.chars().count(), 500);
        assert!(cut.ends_with('…'));
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in any::<String>()) {
            let plain = plain_text(&text);
            prop_assert!(plain.chars().count() <= 500);
            prop_assert!(!plain.chars().any(char::is_control));
        }
    }
}
