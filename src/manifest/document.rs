//! A YAML file, and those it includes, as trees in which every value and key knows its place.
//!
//! The limits on size, depth and aliases are here: whatever a file holds, reading it ends quickly, with a tree or a
//! located error. It knows nothing of pipelines.

use std::path::Path;

use serde_json::{Map, Value};

use super::diagnostic::{Diagnostic, Pointer};
use super::tree;

/// The largest file that is read.
pub(crate) const LARGEST_FILE: u64 = 1 << 20;

/// A value or key of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(super) usize);

/// Where something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    /// First byte and number of bytes.
    pub(super) span: Option<(usize, usize)>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<NodeId>),
    /// Keys and values in file order. No key comes twice.
    Mapping(Vec<(NodeId, NodeId)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Position among the files of the document.
    file: usize,
    pub(super) place: Place,
    pub(super) parent: Option<(NodeId, Step)>,
    pub(super) kind: Kind,
}

/// The text that nodes point into.
#[derive(Debug, Clone)]
struct Source {
    /// As the operator would name it.
    file: String,
    text: String,
    /// First byte of every line.
    lines: Vec<usize>,
}

/// A file that has been read, with those it includes: each is a tree of its own.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    sources: Vec<Source>,
    pub(super) nodes: Vec<Node>,
}

impl Document {
    /// Read a file.
    ///
    /// # Errors
    /// One located [`Diagnostic`]: it is not there, too large, not UTF-8, not YAML, nested too deeply, an alias bomb.
    pub(crate) fn read(path: &Path) -> Result<Self, Diagnostic> {
        let file = path.display().to_string();
        let cannot = |what: String| Diagnostic::of_file(&file, what);
        let metadata = std::fs::metadata(path).map_err(|error| cannot(format!("cannot read the file: {error}")))?;
        if metadata.is_dir() {
            return Err(cannot("this is a directory, not a file".into()));
        }
        if metadata.len() > LARGEST_FILE {
            return Err(too_large(&file, metadata.len()));
        }
        // A pipe or a growing file has no honest size; read no more than allowed.
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|opened| {
                std::io::Read::read_to_end(&mut std::io::Read::take(opened, LARGEST_FILE + 1), &mut bytes)
            })
            .map_err(|error| cannot(format!("cannot read the file: {error}")))?;
        Self::parse(&file, &bytes)
    }

    /// Read bytes that `file` holds.
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Self, Diagnostic> {
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(too_large(file, bytes.len() as u64));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
            Err(error) => return Err(not_utf8(file, bytes, error.valid_up_to())),
        };
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        let source = Source { file: file.to_owned(), text, lines };
        if source.text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Err(Diagnostic::of_file(file, "the file is empty"));
        }
        match tree::parse(&source.text) {
            Ok(root) => {
                let mut document = Self { sources: vec![source], nodes: Vec::new() };
                document.add(root, None);
                Ok(document)
            }
            Err(failure) => Err(Diagnostic {
                pointer: failure.place.map(|place| Box::new(source.pointer(place))),
                ..Diagnostic::of_file(file, failure.message)
            }),
        }
    }

    /// Take another file in: its nodes keep their places in it. Returns its root.
    pub(super) fn take_in(&mut self, other: Self) -> NodeId {
        let (nodes, sources) = (self.nodes.len(), self.sources.len());
        let moved = |id: NodeId| NodeId(id.0 + nodes);
        self.sources.extend(other.sources);
        self.nodes.extend(other.nodes.into_iter().map(|node| Node {
            file: node.file + sources,
            place: node.place,
            parent: node.parent.map(|(parent, step)| (moved(parent), step)),
            kind: match node.kind {
                Kind::List(items) => Kind::List(items.into_iter().map(moved).collect()),
                Kind::Mapping(entries) => {
                    Kind::Mapping(entries.into_iter().map(|(key, value)| (moved(key), moved(value))).collect())
                }
                scalar => scalar,
            },
        }));
        NodeId(nodes)
    }

    fn add(&mut self, tree: tree::Tree, parent: Option<(NodeId, Step)>) -> NodeId {
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node { file: 0, place: tree.place, parent, kind: Kind::Null });
        let kind = match tree.content {
            tree::Content::Scalar(kind) => kind,
            tree::Content::List(items) => {
                let add = |(index, item)| self.add(item, Some((id, Step::Index(index))));
                Kind::List(items.into_iter().enumerate().map(add).collect())
            }
            tree::Content::Mapping(entries) => Kind::Mapping(
                entries
                    .into_iter()
                    .map(|(key, place, value)| {
                        let parent = Some((id, Step::Key(key.clone())));
                        let key = tree::Tree { place, content: tree::Content::Scalar(Kind::Text(key)) };
                        (self.add(key, parent.clone()), self.add(value, parent))
                    })
                    .collect(),
            ),
        };
        self.nodes[id.0].kind = kind;
        id
    }

    /// The whole document.
    pub(crate) fn root(&self) -> NodeId {
        NodeId(0)
    }

    pub(super) fn kind(&self, node: NodeId) -> &Kind {
        &self.nodes[node.0].kind
    }

    /// The text of a node, if it is one.
    pub(crate) fn text(&self, node: NodeId) -> Option<&str> {
        match self.kind(node) {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self, node: NodeId) -> &[NodeId] {
        match self.kind(node) {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// Whether the node is a list.
    pub(crate) fn is_list(&self, node: NodeId) -> bool {
        matches!(self.kind(node), Kind::List(_))
    }

    /// The keys of a mapping with their values; none for anything else.
    pub(crate) fn entries(&self, node: NodeId) -> impl Iterator<Item = (&str, NodeId, NodeId)> {
        let entries: &[(NodeId, NodeId)] = match self.kind(node) {
            Kind::Mapping(entries) => entries,
            _ => &[],
        };
        entries.iter().map(|(key, value)| (self.text(*key).unwrap_or_default(), *key, *value))
    }

    /// What stands under a key of a mapping.
    pub(crate) fn get(&self, node: NodeId, key: &str) -> Option<NodeId> {
        self.entries(node).find(|(name, ..)| *name == key).map(|(.., value)| value)
    }

    /// The node furthest along `steps` (keys, or positions in lists) that the file really has.
    pub(crate) fn locate(&self, from: NodeId, steps: &[&str]) -> NodeId {
        let mut node = from;
        for step in steps {
            let position = step.parse().ok().and_then(|index: usize| self.items(node).get(index).copied());
            match self.get(node, step).or(position) {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The node as JSON.
    pub(crate) fn value(&self, node: NodeId) -> Value {
        match self.kind(node) {
            Kind::Null => Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Integer(value) => (*value).into(),
            Kind::Unsigned(value) => (*value).into(),
            Kind::Float(value) => (*value).into(),
            Kind::Text(value) => value.as_str().into(),
            Kind::List(items) => items.iter().map(|item| self.value(*item)).collect(),
            Kind::Mapping(_) => {
                let fields = self.entries(node).map(|(key, _, value)| (key.to_owned(), self.value(value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Where the node is in the document: `stages.train.depends_on[1]`.
    pub(crate) fn path(&self, node: NodeId) -> String {
        match &self.nodes[node.0].parent {
            None => String::new(),
            Some((parent, Step::Index(index))) => format!("{}[{index}]", self.path(*parent)),
            Some((parent, Step::Key(key))) => match self.path(*parent) {
                path if path.is_empty() => key.clone(),
                path => format!("{path}.{key}"),
            },
        }
    }

    /// Where a node is written, in one word: `pipelines/a.yaml:3:5`.
    pub(crate) fn place(&self, node: NodeId) -> String {
        let Node { file, place, .. } = &self.nodes[node.0];
        format!("{}:{}:{}", self.sources[*file].file, place.line, place.column)
    }

    /// An error at a node.
    pub(crate) fn error(&self, node: NodeId, message: impl Into<String>) -> Diagnostic {
        let Node { file, place, .. } = &self.nodes[node.0];
        let source = &self.sources[*file];
        Diagnostic {
            pointer: Some(Box::new(source.pointer(*place))),
            path: self.path(node),
            ..Diagnostic::of_file(&source.file, message)
        }
    }

    /// An error at a part of a node's text, when that part is written there as it is.
    pub(crate) fn error_within(&self, node: NodeId, part: &str, message: impl Into<String>) -> Diagnostic {
        let mut diagnostic = self.error(node, message);
        let Node { file, place, .. } = &self.nodes[node.0];
        let source = &self.sources[*file];
        let Some((start, length)) = place.span else { return diagnostic };
        let written = source.text.get(start..start + length).unwrap_or_default();
        if let Some(offset) = written.find(part).filter(|_| !part.is_empty()) {
            diagnostic.pointer = Some(Box::new(source.pointer_to(start + offset, part.len())));
        }
        diagnostic
    }
}

impl Source {
    fn pointer_to(&self, start: usize, length: usize) -> Pointer {
        let line = self.lines.partition_point(|line| *line <= start);
        let line_start = self.lines[line.saturating_sub(1)];
        let column = self.text[line_start..start].chars().count() + 1;
        self.pointer(Place { line, column, span: Some((start, length)) })
    }

    fn pointer(&self, place: Place) -> Pointer {
        let start = self.lines.get(place.line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let source = self.text[start..].lines().next().unwrap_or_default();
        let written = place.span.and_then(|(start, length)| self.text.get(start..start + length)).unwrap_or_default();
        let width = written.lines().next().unwrap_or_default().trim_end().chars().count().max(1);
        Pointer { line: place.line, column: place.column, width, source: source.to_owned() }
    }
}

fn too_large(file: &str, size: u64) -> Diagnostic {
    Diagnostic::of_file(file, format!("the file is too large: {size} bytes, at most {LARGEST_FILE} are read"))
}

fn not_utf8(file: &str, bytes: &[u8], valid: usize) -> Diagnostic {
    let before = &bytes[..valid];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let source = String::from_utf8_lossy(&before[start..]).into_owned();
    let pointer = Pointer { line, column: source.chars().count() + 1, width: 1, source };
    Diagnostic { pointer: Some(Box::new(pointer)), ..Diagnostic::of_file(file, "the file is not UTF-8 text") }
}
