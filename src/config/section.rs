//! A mapping of which every key is known: strict, and helpful about the rest.

use super::field::{Field, Key, join};
use super::keys;
use super::node::Node;
use super::problem::{Position, Report};

/// A mapping whose keys are known.
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) at: Position,
    fields: Vec<(String, Field<'a>)>,
    schema: &'static str,
    /// Keys that something unknown seems to stand for. They are not reported as missing too.
    suspected: Vec<&'static str>,
    /// Nothing in it is unknown or refused.
    whole: bool,
}

impl<'a> Section<'a> {
    /// The mapping `node`, whose known keys stand under `schema`. `None` when it is none. Nothing at all is
    /// an empty one.
    pub(super) fn open(
        node: &'a Node,
        path: &str,
        at: Position,
        schema: &'static str,
        report: &mut Report,
    ) -> Option<Self> {
        let mut section = Self {
            path: path.to_owned(),
            at,
            fields: Vec::new(),
            schema,
            suspected: Vec::new(),
            whole: true,
        };
        let field = Field { path: path.to_owned(), key_at: at, node, hidden: false };
        let known = keys::known_under(schema);
        for (key, field) in field.entries(Key::Known, report)? {
            let known_key = known.contains(&key.as_str());
            section.whole &= known_key;
            if let Some((what, fix)) = keys::refusal(&join(schema, &key)) {
                report.add(field.key_at, &field.path, what, fix);
                if let [only] = known.as_slice() {
                    section.suspected.push(only);
                }
            } else if !known_key {
                let near = keys::nearest(&key, known.iter().copied());
                let below = keys::below(schema, &key);
                section.suspected.extend(near.or(below.map(|(child, _)| child)));
                let fix = match (near, below) {
                    _ if key.contains(':') => "put a space after the `:`".to_owned(),
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, Some((_, home))) => format!("it belongs under `{home}`"),
                    (None, None) => keys::advice(schema, &key),
                };
                report.add(field.key_at, &field.path, "unknown key", fix);
            } else {
                section.fields.push((key, field));
            }
        }
        Some(section)
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<&Field<'a>> {
        debug_assert!(keys::known_under(self.schema).contains(&key), "{key} is not among the known keys");
        self.fields.iter().find(|(name, _)| name == key).map(|(_, field)| field)
    }

    /// Whether something unknown seems to stand for `key`.
    pub(super) fn suspects(&self, key: &'static str) -> bool {
        self.suspected.contains(&key)
    }

    /// Whether every key in it is known.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The value of `key`, which has to be there.
    pub(super) fn require(&self, key: &'static str, fix: &str, report: &mut Report) -> Option<&Field<'a>> {
        let field = self.get(key);
        if field.is_none() && !self.suspects(key) {
            report.add(self.at, &join(&self.path, key), "missing", fix);
        }
        field
    }

    /// The mapping under `key`, empty when it is absent.
    pub(super) fn section(
        &self,
        key: &'static str,
        schema: &'static str,
        report: &mut Report,
    ) -> Option<Self> {
        match self.get(key) {
            Some(field) => Section::open(field.node, &field.path, field.key_at, schema, report),
            None => Some(Self {
                path: join(&self.path, key),
                at: self.at,
                fields: Vec::new(),
                schema,
                suspected: Vec::new(),
                whole: true,
            }),
        }
    }
}
