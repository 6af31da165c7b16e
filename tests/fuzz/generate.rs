//! Records made of their parts: most are good, or bad in one place only.

use crate::random::Random;

const NAMES: &[&str] = &[
    "id",
    "text",
    "embedding",
    "timestamp",
    "source",
    "metadata",
    "table_name",
    "other",
    "Id",
    "\\u0069d",
    "",
];

const TEXTS: &[&str] = &[
    "a",
    "",
    "doc-1",
    "tést 😀",
    "\\u0000",
    "a\\u0000b",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\udc00\\ud800",
    "\\\"\\\\\\/\\b\\f\\n\\r\\t",
    "\\u00e9\\uFFFF",
    "\\x",
    "\u{1}",
    "'; drop table t; --",
];

const TIMES: &[&str] = &[
    "\"2024-01-01T00:00:00Z\"",
    "\"2024-02-29 12:34:56.789012345+05:30\"",
    "\"2023-02-29T00:00:00Z\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"0001-01-01T00:00:00+00:01\"",
    "\"9999-12-30T22:00:00Z\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"9999-12-31T23:59:59-00:01\"",
    "\"1969-12-31T23:59:59.9999999Z\"",
    "\"2016-12-31T23:59:60Z\"",
    "\"2024-01-01T00:00:00\"",
    "\"2024-01-01T01:30:00\\u002B01:30\"",
    "\"\\ud800\"",
    "1704067200000",
    "-1",
    "-0",
    "1704067200000.1234",
    "253402300799999",
    "253402300799999.5",
    "253402300800000",
    "-62135596800000",
    "-62135596800001",
    "1e300",
    "-1e999",
    "true",
];

const SPACES: &[&str] = &["", "", "", " ", "\n\t", "  \r\n"];

/// The payload of a record.
pub(crate) fn payload(random: &mut Random) -> Vec<u8> {
    let mut names = vec!["id", "embedding"];
    if random.chance(10) {
        names.remove(random.below(2));
    }
    for _ in 0..random.below(5) {
        let name = random.pick(NAMES);
        // A name that stands there twice is refused, which is one of many cases only.
        if random.chance(5) || !names.contains(&name) {
            names.insert(random.below(names.len() + 1), name);
        }
    }
    let mut text = String::from("{");
    for (index, name) in names.iter().enumerate() {
        let value = if random.chance(6) { value(random, 0) } else { value_for(random, name) };
        let comma = if index > 0 { "," } else { "" };
        let [first, second, third] = [random.pick(SPACES), random.pick(SPACES), random.pick(SPACES)];
        text.push_str(&format!("{comma}{first}\"{name}\"{second}:{third}{value}"));
    }
    text.push_str(random.pick(SPACES));
    text.push('}');
    text.into_bytes()
}

/// A value that suits the field.
fn value_for(random: &mut Random, name: &str) -> String {
    match name {
        "embedding" => {
            let separator = random.pick(&[",", ", ", " , ", ",\n"]);
            let numbers: Vec<_> = (0..random.below(12)).map(|_| number(random)).collect();
            format!("[{}]", numbers.join(separator))
        }
        "timestamp" => random.pick(TIMES).to_owned(),
        "metadata" => object(random, 0),
        "other" | "" | "Id" => value(random, 0),
        _ => text(random),
    }
}

fn text(random: &mut Random) -> String {
    // The first ones are good.
    let count = if random.chance(70) { 4 } else { TEXTS.len() };
    let texts: String = (0..random.below(3)).map(|_| TEXTS[random.below(count)]).collect();
    format!("\"a{texts}\"")
}

fn value(random: &mut Random, depth: usize) -> String {
    let kinds = if depth < 6 { 6 } else { 4 };
    match random.below(kinds) {
        0 => text(random),
        1 => number(random),
        2 => random.pick(&["null", "true", "false"]).to_owned(),
        3 => random.pick(&["{}", "[]", "\"\""]).to_owned(),
        4 => object(random, depth + 1),
        _ => {
            let values: Vec<_> = (0..random.below(4)).map(|_| value(random, depth + 1)).collect();
            let nested = if random.chance(2) { 120 + random.below(16) } else { 0 };
            format!("{}[{}]{}", "[".repeat(nested), values.join(","), "]".repeat(nested))
        }
    }
}

fn object(random: &mut Random, depth: usize) -> String {
    let fields: Vec<_> =
        (0..random.below(4)).map(|_| format!("{}:{}", text(random), value(random, depth + 1))).collect();
    format!("{{{}}}", fields.join(", "))
}

/// A number of JSON: as producers write them, at the edges of `f32`, halfway between two, or of any digits.
fn number(random: &mut Random) -> String {
    let float = f32::from_bits(random.next() as u32);
    let float = if float.is_finite() { float } else { 0.25 };
    match random.below(8) {
        0 => format!("{float:?}"),
        1 => format!("{:?}", f64::from(float)),
        2 => format!("{:e}", f64::from(float)),
        3 => random.fraction().to_string(),
        4 => random.next().to_string(),
        5 => {
            let above = f32::from_bits(float.to_bits().wrapping_add(1));
            let middle = (f64::from(float) + f64::from(above)) / 2.0;
            if middle.is_finite() {
                format!("{middle:.*e}", 12 + random.below(60))
            } else {
                "1e39".to_owned()
            }
        }
        6 => {
            let digits: String =
                (0..1 + random.below(40)).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
            let digits = digits.trim_start_matches('0');
            let exponent = random.below(100) as i64 - 50;
            format!("-0.{digits}1e{exponent}")
        }
        _ => {
            let digits = "7".repeat(1 + random.below(60));
            format!("{digits}.{digits}E{}", random.below(90) as i64 - 45)
        }
    }
}
