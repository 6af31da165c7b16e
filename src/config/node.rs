//! The YAML text as a tree in which every key and value knows its place.
//!
//! A scalar keeps its spelling: a password of `0123` or a version of `1.10` is what the file says, not the
//! number that YAML makes of it. Nothing here implements `Debug` or `Display`, for a tree may hold secrets.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::granit_parser::ErrorKind;
use serde_saphyr::localizer::ExternalMessageSource;
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

use super::problem::{Position, Problem};

/// A value and its place.
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// A value.
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Its secret could not be found. That has been reported, and nobody reports it again.
    Unresolved,
}

/// A key with its value. One key may occur twice: the reader reports it.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    pub(super) node: Node,
}

/// A single value as the file spells it.
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) kind: Kind,
    /// What the file has in its place, where a secret was put into it. No message may show the text then.
    pub(super) template: Option<String>,
}

impl Scalar {
    /// Whether a secret was put into it.
    pub(super) fn is_tainted(&self) -> bool {
        self.template.is_some()
    }
}

/// What YAML takes a scalar for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Boolean,
}

/// Reads one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { at: Position::START, value: Value::Null });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 20_000, max_aliases: 1_000, },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    let parsed: Result<Spanned<Raw>, _> = serde_saphyr::from_str_with_options(text, options);
    parsed.map(|raw| raw_to_node(raw, text)).map_err(|error| syntax_problem(&error))
}

/// What the visitor sees, before the spelling of numbers is looked up in the text.
enum Raw {
    Null,
    Typed(String, Kind),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string(), Kind::Boolean))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string(), Kind::Number))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string(), Kind::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string(), Kind::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_owned(), Kind::Text))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Typed(value, Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element()? {
            sequence.push(item);
        }
        Ok(Raw::Sequence(sequence))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut mapping = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Raw>>()? {
            if !matches!(key.value, Raw::Typed(..)) {
                return Err(A::Error::custom(ODD_KEY));
            }
            mapping.push((key, entries.next_value()?));
        }
        Ok(Raw::Mapping(mapping))
    }
}

const ODD_KEY: &str = "a key is no plain word";

fn raw_to_node(raw: Spanned<Raw>, text: &str) -> Node {
    let at = position(raw.referenced);
    let defined = raw.defined;
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Typed(value, kind) => {
            Value::Scalar(Scalar { text: spelling(value, kind, defined, text), kind, template: None })
        }
        Raw::Sequence(items) => {
            Value::Sequence(items.into_iter().map(|item| raw_to_node(item, text)).collect())
        }
        Raw::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .filter_map(|(key, value)| entry(key, raw_to_node(value, text), text))
                .collect(),
        ),
    };
    Node { at, value }
}

fn entry(key: Spanned<Raw>, node: Node, text: &str) -> Option<Entry> {
    let key_at = position(key.referenced);
    let Raw::Typed(value, kind) = key.value else {
        return None;
    };
    Some(Entry { key: spelling(value, kind, key.defined, text), key_at, node })
}

/// The scalar as the file spells it: text is what YAML says, a number or a boolean is the slice of the file.
fn spelling(value: String, kind: Kind, defined: Location, text: &str) -> String {
    if kind == Kind::Text {
        return value;
    }
    let span = defined.span();
    let slice = span.byte_offset().zip(span.byte_len()).and_then(|(offset, length)| {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        text.get(start..end)
    });
    match slice.map(str::trim) {
        Some(slice)
            if !slice.is_empty() && !slice.contains(|c: char| c.is_whitespace() || "!\"'".contains(c)) =>
        {
            slice.to_owned()
        }
        _ => value,
    }
}

fn position(location: Location) -> Position {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).max(1);
    Position { line: number(location.line()), column: number(location.column()) }
}

/// The parser's error in our own words. Its own text may quote the file, and the file may hold secrets.
fn syntax_problem(error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    const QUOTES: &str = "put a value with special characters in quotes";
    let position = error.location().map_or(Position::START, position);
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    let (what, fix) = match error {
        Error::Message { msg, .. } if msg == ODD_KEY => ("a key is no plain word", "write `key: value`"),
        Error::MultipleDocuments { .. } => ("the file holds more than one YAML document", "keep one"),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            ("the file is too deep or too large for a configuration", "check that it is the right file")
        }
        Error::UnknownAnchor { .. } => ("`*` begins a reference to an anchor that does not exist", QUOTES),
        Error::ExternalMessage { source, .. } => match source.as_ref() {
            ExternalMessageSource::Parser(error) => return scan_problem(error.kind(), position),
            _ => ("not valid YAML", QUOTES),
        },
        _ => ("not valid YAML: this value does not fit its tag or its place", QUOTES),
    };
    Problem { position: Some(position), path: String::new(), what: what.to_owned(), fix: fix.to_owned() }
}

fn scan_problem(kind: &ErrorKind, position: Position) -> Problem {
    let (what, fix) = match kind {
        ErrorKind::UnexpectedCharacter { .. } => (
            "not valid YAML: a value begins with a character that YAML reserves".to_owned(),
            "put the value in quotes",
        ),
        ErrorKind::UnknownAnchor => (
            "not valid YAML: `*` begins a reference to an anchor that does not exist".to_owned(),
            "put the value in quotes",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "not valid YAML: a `:` stands where no key can be".to_owned(),
            "put a value that holds `: ` in quotes, and check the indentation",
        ),
        ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInPlainScalar => {
            ("not valid YAML: a tab stands where only spaces may".to_owned(), "indent with spaces")
        }
        ErrorKind::Custom(_) | ErrorKind::InputIo { .. } | ErrorKind::InputDecoding { .. } => {
            ("not valid YAML".to_owned(), "check this line and the one above")
        }
        // What is left says what the parser was doing, never what it read.
        kind => (
            format!("not valid YAML: {kind}"),
            "check this line and the one above: indentation, quotes, brackets",
        ),
    };
    Problem { position: Some(position), path: String::new(), what, fix: fix.to_owned() }
}
