//! Which keys there are, where a misplaced one belongs, and those that other tools know and this one refuses.

use super::reference::{Described, KEYS};

/// Keys that are refused with their own reason and fix.
const REFUSED: &[(&str, &str, &str)] = &[
    ("consumer", CONSUMER, "move it to `meta.consumer`"),
    ("embedsink.consumer", CONSUMER, "move it to `meta.consumer`"),
    ("embedsink.source.fluvio.consumer", CONSUMER, "move it to `meta.consumer`"),
    ("producer", PRODUCER, "remove it"),
    ("meta.producer", PRODUCER, "remove it"),
    ("meta.transforms", TRANSFORMS, "move them to the top"),
    ("embedsink.transforms", TRANSFORMS, "move them to the top"),
    (
        "meta.topic.deduplication",
        "the connector creates no topic that drops records",
        "create the topic with `fluvio topic create --config`, and remove this",
    ),
    (
        "meta.topic.partition.maps",
        "the connector leaves to the cluster which server keeps which partition",
        "create the topic with `fluvio topic create --config`, and remove this; or give `count` and `replication`",
    ),
    (
        "meta.create-topic",
        "whether the topic is created stands with the source",
        "move it to `embedsink.source.fluvio.create-topic`",
    ),
    (
        "transforms.*.lookback",
        "what a SmartModule remembers of earlier records would be another thing after each restart, and so would the rows",
        "remove it",
    ),
    ("transforms.*.invoke", "the connector runs a SmartModule as what it is", "remove it"),
];
const CONSUMER: &str = "a consumer block belongs under `meta`, and nothing would read it here";
const PRODUCER: &str = "this connector is a sink, and produces nothing";
const TRANSFORMS: &str =
    "transforms stand at the top of the file, beside `meta`, and nothing would run them here";

/// The keys that the mapping at `schema` knows, in order.
pub(super) fn known_under(schema: &str) -> Vec<&'static str> {
    let mut known: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let key = key.path;
        let rest = if schema.is_empty() {
            Some(key)
        } else {
            key.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !known.contains(&name)
        {
            known.push(name);
        }
    }
    known
}

/// Why `path` is refused, and what to do, if it is one of the keys with a reason of their own.
pub(super) fn refusal(path: &str) -> Option<(&'static str, &'static str)> {
    REFUSED.iter().find(|(refused, ..)| *refused == path).map(|(_, what, fix)| (*what, *fix))
}

/// The fix for the key `name` that the mapping at `schema` does not know and has nothing near to.
pub(super) fn advice(schema: &str, name: &str) -> String {
    home_of(name).map_or_else(
        || format!("known keys are: {}", known_under(schema).join(", ")),
        |home| format!("it belongs under `{home}`"),
    )
}

/// The one mapping right under `schema` that knows `name`: its key and its place.
pub(super) fn below(schema: &str, name: &str) -> Option<(&'static str, &'static str)> {
    let inside = |key: &Described| {
        let (home, last) = key.path.rsplit_once('.')?;
        let child = home.strip_prefix(schema)?.strip_prefix('.')?;
        (last == name && !child.contains('.') && child != "*").then_some((child, home))
    };
    let mut homes = KEYS.iter().filter_map(inside);
    homes.next().filter(|_| homes.next().is_none())
}

/// The mapping elsewhere that knows `name`, when there is exactly one.
fn home_of(name: &str) -> Option<&'static str> {
    let mut homes: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let key = key.path;
        let mut end = 0;
        for segment in key.split('.') {
            if segment == "*" {
                break;
            }
            if segment == name && end > 0 && !homes.contains(&&key[..end - 1]) {
                homes.push(&key[..end - 1]);
            }
            end += segment.len() + 1;
        }
    }
    match homes.as_slice() {
        [home] => Some(home),
        _ => None,
    }
}

/// The candidate that `word` most likely means.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
