//! Every key of the configuration, and those that other tools know and this one refuses.
//!
//! The reader takes its known keys from here, so a key that is not in this list does not exist.

/// Every key, from the top. `*` stands for a name that the user chooses, or for an item of a list.
pub(super) const KEYS: &[&str] = &[
    "apiVersion",
    "meta.version",
    "meta.name",
    "meta.type",
    "meta.topic",
    "meta.secrets.*.name",
    "embedsink.source.kafka.bootstrap-servers",
    "embedsink.source.kafka.topics",
    "embedsink.source.kafka.group-id",
    "embedsink.source.kafka.start",
    "embedsink.source.kafka.properties",
    "embedsink.sink.postgres.url",
    "embedsink.sink.postgres.host",
    "embedsink.sink.postgres.port",
    "embedsink.sink.postgres.database",
    "embedsink.sink.postgres.user",
    "embedsink.sink.postgres.password",
    "embedsink.sink.postgres.tls.mode",
    "embedsink.sink.postgres.tls.ca-file",
    "embedsink.sink.postgres.migrate",
    "embedsink.tables.*.dimensions",
    "embedsink.batch.max-rows",
    "embedsink.batch.max-bytes",
    "embedsink.batch.max-wait",
    "embedsink.errors.tolerance",
    "embedsink.shutdown-timeout",
];

/// Keys that are refused with their own reason and fix.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "transforms",
        "transforms need a Fluvio topic as the source; with Kafka nothing would run them",
        "remove them",
    ),
    (
        "consumer",
        "a consumer block belongs under `meta` and to a Fluvio topic; this build reads from Kafka only",
        "remove it; `embedsink.source.kafka.start` says where to begin",
    ),
    (
        "meta.consumer",
        "a consumer block belongs to a Fluvio topic; this build reads from Kafka only",
        "remove it; `embedsink.source.kafka.start` says where to begin",
    ),
    ("embedsink.source.fluvio", "this build reads from Kafka only", "name `embedsink.source.kafka`"),
    ("embedsink.sink.lancedb", "this build has no LanceDB target", "name `embedsink.sink.postgres`"),
];

/// The keys that the mapping at `schema` knows, in order.
pub(super) fn known_under(schema: &str) -> Vec<&'static str> {
    let mut known: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let rest = if schema.is_empty() {
            Some(*key)
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

/// The mapping elsewhere that knows `name`, when there is exactly one.
fn home_of(name: &str) -> Option<&'static str> {
    let mut homes: Vec<&'static str> = Vec::new();
    for key in KEYS {
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
