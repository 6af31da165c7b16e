//! One value of the tree under its key, read as what it has to be.
//!
//! A reader returns `None` after it has reported why. A value that failed before is never reported twice.

use super::keys;
use super::node::{Kind, Node, Scalar, Value};
use super::problem::{Position, Report, plain_key, quote};

/// A value under its key.
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) key_at: Position,
    pub(super) node: &'a Node,
    /// Its value is shown by no message.
    pub(super) hidden: bool,
}

/// How the keys of a mapping are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Ours: `_` stands for `-`.
    Known,
    /// The user's: as they are written.
    Free,
}

impl<'a> Field<'a> {
    /// The items of a mapping, each key once. Nothing at all is an empty mapping.
    pub(super) fn entries(&self, keys: Key, report: &mut Report) -> Option<Vec<(String, Field<'a>)>> {
        let entries = match &self.node.value {
            Value::Mapping(entries) => entries,
            Value::Null => return Some(Vec::new()),
            _ => {
                self.mismatch("a mapping", "write its keys on indented lines below, as `key: value`", report);
                return None;
            }
        };
        let mut fields: Vec<(String, Field<'a>)> = Vec::new();
        let mut readable = true;
        for entry in entries {
            if entry.key.contains("${{") {
                let path = join(&self.path, &plain_key(&entry.key));
                report.add(entry.key_at, &path, "a secret cannot be part of a key", "put it into a value");
                readable = false;
                continue;
            }
            let key = match keys {
                Key::Known => entry.key.replace('_', "-"),
                Key::Free => entry.key.clone(),
            };
            let path = join(&self.path, &plain_key(&key));
            if let Some((_, first)) = fields.iter().find(|(name, _)| *name == key) {
                let what = format!("the key is given twice, first at line {}", first.key_at.line);
                report.add(entry.key_at, &path, what, "keep one");
                continue;
            }
            let hidden = self.hidden || is_secret_key(&key);
            fields.push((key, Field { path, key_at: entry.key_at, node: &entry.node, hidden }));
        }
        // What else a mapping of ours says is still worth reading; of the user's own, a part would mislead.
        (readable || keys == Key::Known).then_some(fields)
    }

    /// The same value, shown by no message.
    pub(super) fn hide(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// The items of a list.
    pub(super) fn items(&self, report: &mut Report) -> Option<Vec<Field<'a>>> {
        let Value::Sequence(items) = &self.node.value else {
            self.mismatch("a list", "write `[a, b]`, or one item a line after `- `", report);
            return None;
        };
        let field = |(index, node): (usize, &'a Node)| Field {
            path: format!("{}[{index}]", self.path),
            key_at: node.at,
            node,
            hidden: self.hidden,
        };
        Some(items.iter().enumerate().map(field).collect())
    }

    /// The texts of a list, or of one text with commas, each with its field; and whether they are all.
    pub(super) fn texts(&self, report: &mut Report) -> (Vec<(String, Field<'a>)>, bool) {
        let (texts, complete) = match &self.node.value {
            Value::Scalar(_) => {
                let field = || Field { path: self.path.clone(), ..*self };
                let Some(text) = self.text(report) else {
                    return (Vec::new(), false);
                };
                (text.split(',').map(|text| (text.trim().to_owned(), field())).collect(), true)
            }
            Value::Sequence(items) => {
                let fields = self.items(report).unwrap_or_default();
                let texts: Vec<_> = fields
                    .into_iter()
                    .filter_map(|field| Some((field.text(report)?.to_owned(), field)))
                    .collect();
                let complete = texts.len() == items.len();
                (texts, complete)
            }
            _ => {
                self.mismatch("a list", "write `[a, b]`, or one item a line after `- `", report);
                return (Vec::new(), false);
            }
        };
        if texts.is_empty() && complete {
            self.complain(report, "the list is empty", "name at least one");
            return (texts, false);
        }
        (texts, complete)
    }

    /// A text that is not empty. A number is taken as it is spelt.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'a str> {
        let scalar = self.scalar("text", report)?;
        if scalar.kind == Kind::Boolean {
            self.mismatch("text", "put it in quotes", report);
            None
        } else if scalar.text.is_empty() {
            self.complain(report, "the value is empty", "give one, or remove the key");
            None
        } else {
            Some(&scalar.text)
        }
    }

    /// Any scalar, as it is spelt.
    pub(super) fn scalar(&self, expected: &str, report: &mut Report) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Null => {
                self.complain(report, "the key has no value", "give one, or remove the key");
                None
            }
            _ => {
                self.mismatch(expected, "write one value after the key", report);
                None
            }
        }
    }

    /// True or false.
    pub(super) fn boolean(&self, report: &mut Report) -> Option<bool> {
        self.choice_in_any_case(&[("true", true), ("false", false)], report)
    }

    /// One of the known words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        self.word(words, |word, text| word == text, report)
    }

    /// One of the known words, however its letters are written.
    pub(super) fn choice_in_any_case<T: Copy>(&self, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        self.word(words, str::eq_ignore_ascii_case, report)
    }

    fn word<T: Copy>(
        &self,
        words: &[(&str, T)],
        same: fn(&str, &str) -> bool,
        report: &mut Report,
    ) -> Option<T> {
        let scalar = self.scalar("a word", report)?;
        let found = words.iter().find(|(word, _)| same(word, &scalar.text)).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let fix = match keys::nearest(&scalar.text, words.iter().map(|(word, _)| *word)) {
                Some(near) if !self.is_hidden() => format!("did you mean `{near}`?"),
                _ => format!("give {}", known.join(" or ")),
            };
            self.complain(report, format!("{} is not known here", self.quoted()), fix);
        }
        found
    }

    /// The value for a message, or words in its place when nobody may see it.
    pub(super) fn quoted(&self) -> String {
        match &self.node.value {
            Value::Scalar(scalar) if !self.is_hidden() => quote(&scalar.text),
            _ => "the value".to_owned(),
        }
    }

    /// Whether messages may not show the value. `@` is in every URL with a password.
    pub(super) fn is_hidden(&self) -> bool {
        self.hidden
            || matches!(&self.node.value, Value::Scalar(scalar) if scalar.is_tainted() || scalar.text.contains('@'))
    }

    /// Reports a problem with the value.
    pub(super) fn complain(&self, report: &mut Report, what: impl Into<String>, fix: impl Into<String>) {
        // Nothing at all has its place wherever the next thing begins.
        let at = if matches!(self.node.value, Value::Null) { self.key_at } else { self.node.at };
        report.add(at, &self.path, what, fix);
    }

    /// Reports a value of the wrong type.
    pub(super) fn mismatch(&self, expected: &str, fix: &str, report: &mut Report) {
        let found = match &self.node.value {
            Value::Unresolved => return,
            Value::Null => "nothing",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar(Scalar { kind: Kind::Text, .. }) => "text",
            Value::Scalar(Scalar { kind: Kind::Number, .. }) => "a number",
            Value::Scalar(Scalar { kind: Kind::Boolean, .. }) => "true or false",
        };
        self.complain(report, format!("expected {expected}, found {found}"), fix);
    }
}

/// Whether values under `key` are secret by their name.
pub(super) fn is_secret_key(key: &str) -> bool {
    const MARKS: &[&str] = &["password", "secret", "token", "key", "pem", "jaas"];
    let key = key.to_lowercase();
    // The name of a file is shown; what is in it is not.
    if key.ends_with("-file") {
        return false;
    }
    key == "url" || MARKS.iter().any(|mark| key.contains(mark))
}

/// `path` and `key` with a dot between.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
