//! JSON as PostgreSQL prints it once it is stored as `jsonb`.
//!
//! Two texts of one value are printed alike, so that what is stored can be compared as text. The form is that of
//! `JsonbToCString` (`jsonb.c`) with `escape_json` (`json.c`): keys by length and then by bytes, of equal ones the last, a space
//! behind each comma and colon.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A string of JSON, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// So deep values are printed. Each level is read once more than the one above it.
const DEPTH: u8 = 16;

/// So many places a number's point is moved at most: what is printed stays within a few times what was given.
const PLACES: usize = 32;

/// Appends `json` as PostgreSQL would print it. `None`, and anything appended, where that is not certain: for what it refuses,
/// and for values too deep or numbers too long to be worth it.
pub(crate) fn print(json: &str, out: &mut String) -> Option<()> {
    print_at(DEPTH, json, out)
}

fn print_at(depth: u8, json: &str, out: &mut String) -> Option<()> {
    let below = depth.checked_sub(1)?;
    match json.as_bytes().first()? {
        b'{' => {
            let Members(mut members) = serde_json::from_str(json).ok()?;
            let order = |key: &str, other: &str| key.len().cmp(&other.len()).then_with(|| key.cmp(other));
            // Stable, so that of equal keys the last one stays the last.
            members.sort_by(|(key, _), (other, _)| order(key, other));
            out.push('{');
            let mut is_first = true;
            for (index, (key, value)) in members.iter().enumerate() {
                if members.get(index + 1).is_some_and(|(next, _)| next == key) {
                    continue;
                }
                if !std::mem::take(&mut is_first) {
                    out.push_str(", ");
                }
                quote(key, out)?;
                out.push_str(": ");
                print_at(below, value.get(), out)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                print_at(below, item.get(), out)?;
            }
            out.push(']');
        }
        b'"' => {
            let Text(text) = serde_json::from_str(json).ok()?;
            quote(&text, out)?;
        }
        b't' | b'f' | b'n' => out.push_str(json),
        _ => number(json, out)?,
    }
    Some(())
}

/// As `numeric` has it: no exponent, as many digits behind the point as that leaves, and zero without a sign.
fn number(json: &str, out: &mut String) -> Option<()> {
    let (sign, number) = json.strip_prefix('-').map_or(("", json), |number| ("-", number));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: isize = exponent.parse().ok()?;
    if exponent.unsigned_abs() > PLACES {
        return None;
    }
    let is_zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    out.push_str(if is_zero { "" } else { sign });
    if exponent == 0 {
        out.push_str(mantissa);
        return Some(());
    }
    let digits = format!("{whole}{fraction}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = isize::try_from(whole.len()).ok()? + exponent;
    let behind = usize::try_from(-point).unwrap_or_default();
    let before = usize::try_from(point).unwrap_or_default();
    let (whole, fraction) = digits.split_at(before.min(digits.len()));
    let missing = before.saturating_sub(digits.len());
    let whole = format!("{whole}{}", "0".repeat(missing));
    let whole = whole.trim_start_matches('0');
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(&"0".repeat(behind));
        out.push_str(fraction);
    }
    Some(())
}

fn quote(text: &str, out: &mut String) -> Option<()> {
    out.push('"');
    let mut rest = text;
    while let Some(place) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        out.push_str(&rest[..place]);
        // All of these are one byte long.
        match rest.as_bytes()[place] {
            // It has no place in a text of PostgreSQL.
            0 => return None,
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => out.push_str(&format!("\\u{other:04x}")),
        }
        rest = &rest[place + 1..];
    }
    out.push_str(rest);
    out.push('"');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: &str) -> Option<String> {
        let mut out = String::new();
        print(json, &mut out).map(|()| out)
    }

    #[test]
    fn json_is_printed_as_postgres_does() {
        for (json, expected) in [
            ("{}", "{}"),
            (r#"{"a":1,"b":[1,-2.50,[]],"c":{}}"#, r#"{"a": 1, "b": [1, -2.50, []], "c": {}}"#),
            (r#"{"bb":1,"a":2,"é":3,"c":4}"#, r#"{"a": 2, "c": 4, "bb": 1, "é": 3}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
            ("{ \"a\" :\n[ true , false,null ] }", r#"{"a": [true, false, null]}"#),
            (
                r#"{"a":"\u00e9\ud83e\udd80\/\"\\\b\f\n\r\t\u001F\u007f"}"#,
                "{\"a\": \"é🦀/\\\"\\\\\\b\\f\\n\\r\\t\\u001f\u{7f}\"}",
            ),
            (
                "[1e2,1.5E3,1e-05,-1.25e-1,0.050e1,12.5e+1,1e0,0e5,0.0e1,0e-2,123e-2]",
                "[100, 1500, 0.00001, -0.125, 0.50, 125, 1, 0, 0, 0.00, 1.23]",
            ),
            ("[-0,-0.0,-0e1,-0.10]", "[0, 0.0, 0, -0.10]"),
            (
                r#"{"a":0.0,"b":123456789012345678901234567890}"#,
                r#"{"a": 0.0, "b": 123456789012345678901234567890}"#,
            ),
        ] {
            assert_eq!(printed(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn what_is_not_certain_is_said_to_be_so() {
        for json in [
            r#"{"a":1e33}"#,
            "ée-1",
            "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]",
            r#"{"a":"\u0000"}"#,
            r#"{"a":"\ud800"}"#,
            "{",
            "",
        ] {
            assert_eq!(printed(json), None, "{json}");
        }
    }
}
