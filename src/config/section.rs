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
        let mut section =
            Self { path: path.to_owned(), at, fields: Vec::new(), schema, suspected: Vec::new() };
        let field = Field { path: path.to_owned(), key_at: at, node, hidden: false };
        let known = keys::known_under(schema);
        for (key, field) in field.entries(Key::Known, report)? {
            if let Some((what, fix)) = keys::refusal(&join(schema, &key)) {
                report.add(field.key_at, &field.path, what, fix);
                if let [only] = known.as_slice() {
                    section.suspected.push(only);
                }
            } else if !known.contains(&key.as_str()) {
                let near = keys::nearest(&key, known.iter().copied());
                section.suspected.extend(near);
                let fix = if key.contains(':') {
                    "put a space after the `:`".to_owned()
                } else {
                    near.map_or_else(|| keys::advice(schema, &key), |near| format!("did you mean `{near}`?"))
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

    /// The value of `key`, which has to be there.
    pub(super) fn require(&self, key: &'static str, fix: &str, report: &mut Report) -> Option<&Field<'a>> {
        let field = self.get(key);
        if field.is_none() && !self.suspected.contains(&key) {
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
            }),
        }
    }
}
