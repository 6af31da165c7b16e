//! Puts secrets into the tree, after YAML has been parsed, so that no value can break or inject YAML.

use std::collections::BTreeSet;

use super::node::{Entry, Kind, Node, Scalar, Value};
use super::problem::{Report, plain_key};
use crate::framework::secret::{NAME_FORM, SecretStore, is_secret_name};

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// What may be put in, and where it comes from.
pub(super) struct Secrets<'a> {
    pub(super) declared: BTreeSet<String>,
    pub(super) store: &'a SecretStore,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Secrets<'_> {
    /// Replaces every `${{ secrets.NAME }}` and every `{secret: {name: NAME}}` in the tree under `path`.
    pub(super) fn put_into(&self, node: &mut Node, path: &str, report: &mut Report) {
        if let Some(name) = map_form(&node.value) {
            node.value = match self.value_of(name) {
                Ok(text) => {
                    let template = Some(format!("{OPEN} secrets.{name} {CLOSE}"));
                    Value::Scalar(Scalar { text, kind: Kind::Text, template })
                }
                Err((what, fix)) => {
                    report.add(node.at, path, what, fix);
                    Value::Unresolved
                }
            };
            return;
        }
        match &mut node.value {
            Value::Scalar(scalar) if scalar.text.contains(OPEN) => match self.fill(&scalar.text) {
                Ok(text) => {
                    let template = Some(std::mem::take(&mut scalar.text));
                    *scalar = Scalar { text, kind: Kind::Text, template };
                }
                Err((what, fix)) => {
                    report.add(node.at, path, what, fix);
                    node.value = Value::Unresolved;
                }
            },
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.put_into(item, &format!("{path}[{index}]"), report);
                }
            }
            Value::Mapping(entries) => {
                for Entry { key, node, .. } in entries {
                    let key = plain_key(&key.replace('_', "-"));
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    self.put_into(node, &path, report);
                }
            }
            Value::Null | Value::Scalar(_) | Value::Unresolved => {}
        }
    }

    fn fill(&self, text: &str) -> Result<String, (String, String)> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let Some((inside, tail)) = after.split_once(CLOSE) else {
                return Err(("`${{` has no `}}`".to_owned(), "write `${{ secrets.NAME }}`".to_owned()));
            };
            let Some(name) = inside.trim().strip_prefix("secrets.") else {
                let what = "`${{ … }}` names no secret".to_owned();
                return Err((what, "write `${{ secrets.NAME }}`".to_owned()));
            };
            filled.push_str(before);
            filled.push_str(&self.value_of(name.trim())?);
            rest = tail;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value_of(&self, name: &str) -> Result<String, (String, String)> {
        if !is_secret_name(name) {
            return Err(("the name of the secret is badly formed".to_owned(), NAME_FORM.to_owned()));
        }
        if !self.declared.contains(name) {
            let fix = format!("add `- name: {name}` to `meta.secrets`");
            return Err((format!("the secret `{name}` is not declared"), fix));
        }
        self.store.get(name, self.environment).map(|secret| secret.expose().to_owned())
    }
}

/// Whether a template is one `${{ secrets.NAME }}`, and so says nothing of the value itself.
pub(super) fn is_one_secret(template: &str) -> bool {
    let inside = template.trim().strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE));
    inside.is_some_and(|inside| !inside.contains(CLOSE))
}

/// A template with `word` in place of every `${{ secrets.NAME }}`.
pub(super) fn with_word(template: &str, word: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, tail)) =
        rest.split_once(OPEN).and_then(|(before, after)| Some((before, after.split_once(CLOSE)?.1)))
    {
        text.push_str(before);
        text.push_str(word);
        rest = tail;
    }
    text.push_str(rest);
    text
}

/// `NAME`, when the value is `{secret: {name: NAME}}`.
fn map_form(value: &Value) -> Option<&str> {
    let inner = only_entry(value, "secret")?;
    match &only_entry(&inner.value, "name")?.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

fn only_entry<'a>(value: &'a Value, key: &str) -> Option<&'a Node> {
    match value {
        Value::Mapping(entries) => match entries.as_slice() {
            [entry] if entry.key == key => Some(&entry.node),
            _ => None,
        },
        _ => None,
    }
}
