//! What is wrong with a manifest, where, and what to write in its place.
//!
//! Every pass over a manifest adds to one [`Diagnostics`], so that an operator reads all mistakes at once. Rendering for
//! people follows the compilers they know; the JSON form is for editors and CI.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The manifest cannot be used.
    Error,
    /// It can, but it probably does not say what was meant.
    Warning,
}

/// A place in a file: what the caret points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pointer {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters that the caret underlines; at least 1.
    pub width: usize,
    /// The text of the line.
    pub source: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as the operator named it; none for the command line.
    pub file: Option<String>,
    /// Where in the file; none when the file could not be read at all.
    pub pointer: Option<Box<Pointer>>,
    /// Where in the document: `stages.train.with.episodes`. Empty for the whole.
    pub path: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl Diagnostic {
    /// Something wrong with a file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), ..Self::of_command_line(message) }
    }

    /// Something wrong with what was typed.
    pub fn of_command_line(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            pointer: None,
            path: String::new(),
            message: message.into(),
            suggestion: None,
        }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn help(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same, with `did you mean ...` when one of the candidates is close to what was written.
    #[must_use]
    pub fn closest<'c>(self, written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Self {
        match super::suggest::closest(written, candidates) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// The same, as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.message)?;
        let gutter = match &self.pointer {
            Some(pointer) => pointer.line.to_string().len(),
            None => 1,
        };
        if let Some(file) = &self.file {
            write!(f, "\n{:gutter$}--> {file}", "")?;
            if let Some(pointer) = &self.pointer {
                write!(f, ":{}:{}", pointer.line, pointer.column)?;
            }
            if !self.path.is_empty() {
                write!(f, " ({})", self.path)?;
            }
        }
        if let Some(pointer) = &self.pointer {
            write_excerpt(f, pointer, gutter)?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n{:gutter$} = help: {suggestion}", "")?;
        }
        Ok(())
    }
}

/// The longest part of a line that is shown.
const SHOWN: usize = 120;

fn write_excerpt(f: &mut fmt::Formatter<'_>, pointer: &Pointer, gutter: usize) -> fmt::Result {
    let characters: Vec<char> = pointer.source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = pointer.column.saturating_sub(1).min(characters.len());
    // A long line is cut so that the caret stays in sight.
    let from = if characters.len() > SHOWN { column.saturating_sub(SHOWN / 2) } else { 0 };
    let shown: String = characters.iter().skip(from).take(SHOWN).collect();
    let room = shown.chars().count().saturating_sub(column - from).max(1);
    let caret = "^".repeat(pointer.width.clamp(1, room));
    write!(f, "\n{:gutter$} |\n{:>gutter$} | {}", "", pointer.line, shown.trim_end())?;
    write!(f, "\n{:gutter$} | {:indent$}{caret}", "", "", indent = column - from)
}

/// The most that one report holds.
const MOST: usize = 200;

/// Everything that is wrong, in the order of the files and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Add one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        // Two passes may stumble over the same mistake; the operator reads it once, and never thousands of them.
        if !self.is_full() && !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Add all of another list.
    pub fn extend(&mut self, other: Self) {
        for diagnostic in other.0 {
            self.push(diagnostic);
        }
    }

    /// Whether anything makes the manifest unusable.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether no more fits in.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// Whether anything is wrong with what was typed, or set in the environment, rather than with a file.
    pub fn blames_command_line(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error && diagnostic.file.is_none())
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// The same in the order a reader expects: file by file, top to bottom.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        let place = |d: &Diagnostic| d.pointer.as_ref().map(|p| (p.line, p.column));
        self.0.sort_by(|a, b| (&a.file, place(a)).cmp(&(&b.file, place(b))));
        self
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(diagnostics: I) -> Self {
        let mut all = Self::default();
        diagnostics.into_iter().for_each(|diagnostic| all.push(diagnostic));
        all
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let source = format!("{}here{}", "x".repeat(5000), "y".repeat(5000));
        let diagnostic = Diagnostic {
            pointer: Some(Box::new(Pointer { line: 12, column: 5001, width: 4, source })),
            ..Diagnostic::of_file("a.yaml", "wrong")
        };
        let text = diagnostic.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() < 140), "{text}");
        let caret = lines[4].find("^^^^").unwrap();
        assert_eq!(&lines[3][caret..caret + 4], "here");
    }

    #[test]
    fn the_same_mistake_is_told_once() {
        let mut all = Diagnostics::default();
        all.push(Diagnostic::of_command_line("x"));
        all.push(Diagnostic::of_command_line("x"));
        assert_eq!(all.errors(), 1);
        assert!(all.has_errors());
    }
}
