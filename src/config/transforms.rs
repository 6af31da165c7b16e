//! `transforms`: the SmartModules that records of a Fluvio topic go through.

use std::collections::BTreeMap;

use super::field::{Field, Key};
use super::node::{Kind, Value};
use super::problem::Report;
use super::section::Section;
use crate::framework::config::Transform;

/// Reads the list. None is an empty one.
pub(super) fn read(root: &Section<'_>, report: &mut Report) -> Option<Vec<Transform>> {
    let Some(list) = root.get("transforms").filter(|field| !matches!(field.node.value, Value::Null)) else {
        return Some(Vec::new());
    };
    let items = list.items(report)?;
    let wanted = items.len();
    let read: Vec<Transform> = items.iter().filter_map(|item| read_step(item, report)).collect();
    (read.len() == wanted).then_some(read)
}

fn read_step(item: &Field<'_>, report: &mut Report) -> Option<Transform> {
    let step = Section::open(item.node, &item.path, item.key_at, "transforms.*", report)?;
    let fix = "name the SmartModule, such as `group/name@0.1.0`";
    let uses = step.require("uses", fix, report).and_then(|field| field.text(report));
    let with = match step.get("with") {
        Some(field) => read_with(field, report),
        None => Some(BTreeMap::new()),
    };
    Some(Transform { uses: uses?.to_owned(), with: with? })
}

/// The parameters. A SmartModule takes texts, so anything else is written as JSON.
fn read_with(field: &Field<'_>, report: &mut Report) -> Option<BTreeMap<String, String>> {
    let mut with = BTreeMap::new();
    let mut good = true;
    for (name, field) in field.entries(Key::Free, report)? {
        let value = match &field.node.value {
            Value::Scalar(scalar) => Some(scalar.text.clone()),
            Value::Null => field.scalar("a value", report).map(|scalar| scalar.text.clone()),
            _ => json(&field, report).map(|value| value.to_string()),
        };
        match value {
            Some(value) => drop(with.insert(name, value)),
            None => good = false,
        }
    }
    good.then_some(with)
}

/// The value as JSON. Keys stand in alphabetical order.
fn json(field: &Field<'_>, report: &mut Report) -> Option<serde_json::Value> {
    match &field.node.value {
        Value::Unresolved => None,
        Value::Null => Some(serde_json::Value::Null),
        Value::Scalar(scalar) => match scalar.kind {
            Kind::Text => Some(scalar.text.clone().into()),
            Kind::Boolean => Some(scalar.text.eq_ignore_ascii_case("true").into()),
            Kind::Number => {
                let number = serde_json::from_str(&scalar.text).ok();
                if number.is_none() {
                    let what = format!("{} is no number to JSON", field.quoted());
                    field.complain(report, what, "write it in decimal, or in quotes");
                }
                number
            }
        },
        Value::Sequence(_) => {
            let items = field.items(report)?;
            let values: Vec<_> = items.iter().map(|item| json(item, report)).collect();
            values.into_iter().collect::<Option<Vec<_>>>().map(serde_json::Value::Array)
        }
        Value::Mapping(_) => {
            let entries = field.entries(Key::Free, report)?;
            let values: Vec<_> =
                entries.iter().map(|(key, field)| Some((key.clone(), json(field, report)?))).collect();
            let sorted = values.into_iter().collect::<Option<BTreeMap<_, _>>>()?;
            Some(serde_json::Value::Object(sorted.into_iter().collect()))
        }
    }
}
