//! How an expression may use a secret: whole, in a list or a mapping, or joined to other texts with `~`. Part of a secret, or what follows
//! from it, is another text that nothing would hide.
//!
//! A small grammar of what is allowed, not a list of what is forbidden: filters, functions, comparisons and slices are simply not in it.

/// Whether every secret in this expression comes out whole.
pub(super) fn is_whole(expression: &str) -> bool {
    let mut rest = Rest(expression);
    rest.value() && rest.0.trim_start().is_empty()
}

/// What of the expression has not been read yet.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    /// A list, a mapping, or texts and names joined with `~`.
    fn value(&mut self) -> bool {
        if self.takes('[') {
            return self.sequence(']', Self::value);
        }
        if self.takes('{') {
            return self.sequence('}', |rest| rest.text() && rest.takes(':') && rest.value());
        }
        while self.text() || self.name() {
            if !self.takes('~') {
                return true;
            }
        }
        false
    }

    /// What stands between commas, up to `end`.
    fn sequence(&mut self, end: char, one: impl Fn(&mut Self) -> bool) -> bool {
        loop {
            if self.takes(end) {
                return true;
            }
            if !one(self) {
                return false;
            }
            if !self.takes(',') {
                return self.takes(end);
            }
        }
    }

    fn takes(&mut self, wanted: char) -> bool {
        match self.0.trim_start().strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// A text in quotes; one with escapes is left to expressions without secrets.
    fn text(&mut self) -> bool {
        let start = self.0.trim_start();
        let Some(quote) = start.chars().next().filter(|first| matches!(first, '\'' | '"')) else { return false };
        match start[1..].split_once(quote) {
            Some((text, rest)) if !text.contains('\\') => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A number or a dotted name, `secrets.NAME` among them.
    fn name(&mut self) -> bool {
        let start = self.0.trim_start();
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.');
        let end = start.find(|letter| !is_part(letter)).unwrap_or(start.len());
        let steps: Vec<&str> = start[..end].split('.').collect();
        if end == 0 || (steps[0] == "secrets" && steps.len() != 2) {
            return false;
        }
        self.0 = &start[end..];
        true
    }
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_secret_comes_out_whole_or_not_at_all() {
        for right in [
            "secrets.T",
            " secrets.T ",
            "'Bearer ' ~ secrets.T",
            "secrets.A ~ \":\" ~ secrets.B ~ inputs.n ~ 3",
            "[secrets.T, 'x', []]",
            "{'key': 'a' ~ secrets.T, \"list\": [secrets.T,],}",
        ] {
            assert!(is_whole(right), "{right}");
        }
        for wrong in [
            "secrets.T[:8]",
            "secrets.T[0]",
            "secrets.T | upper",
            "secrets.T | length",
            "[secrets.T] | join",
            "[secrets.T][0][:3]",
            "{'a': secrets.T}.a[:3]",
            "('a' ~ secrets.T)[:3]",
            "secrets.T == 'guess'",
            "secrets.T ~ 'a' == 'guessa'",
            "secrets.T ~ inputs.x > 'm'",
            "'m' in secrets.T",
            "secrets.T if inputs.x else ''",
            "inputs.x if secrets.T else ''",
            "secrets.T is string",
            "not secrets.T",
            "-secrets.T",
            "secrets.T * 2",
            "secrets.T + 'a'",
            "min(secrets.T, 'm')",
            "range(3)[secrets.T]",
            "stages[secrets.T]",
            "secrets.T.x",
            "secrets['T'][:2]",
            "secrets",
            "'it\\'s' ~ secrets.T[:2] ~ 'x'",
            "[secrets.T",
            "secrets.T ~",
        ] {
            assert!(!is_whole(wrong), "{wrong}");
        }
    }
}
