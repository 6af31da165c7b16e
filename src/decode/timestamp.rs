//! Timestamps: RFC 3339 text or milliseconds since the Unix epoch, to microseconds.

use jiff::fmt::temporal::DateTimeParser;
use serde_json::value::RawValue;

use crate::reject::{Reject, RejectReason};

/// 0001-01-01 to 9999-12-31, in milliseconds: what both RFC 3339 and `timestamptz` can say.
const MILLIS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

static PARSER: DateTimeParser = DateTimeParser::new();

pub(super) fn read(raw: &RawValue) -> Result<i64, Reject> {
    let text = raw.get();
    if let Some(quoted) = text.strip_prefix('"') {
        // A timestamp needs no escapes, so the text between the quotes is the text.
        return from_text(quoted.strip_suffix('"').unwrap_or(quoted));
    }
    if let Ok(millis) = text.parse::<i64>() {
        return from_millis(millis);
    }
    match text.parse::<f64>() {
        // `time.time() * 1000` is a float; its microseconds are kept.
        Ok(millis) if (*MILLIS.start() as f64..=*MILLIS.end() as f64).contains(&millis) => {
            Ok((millis * 1000.0).round() as i64)
        }
        Ok(_) => Err(out_of_range()),
        Err(_) => Err(Reject::new(
            RejectReason::BadTimestamp,
            "`timestamp` is neither a string nor a number of milliseconds",
        )),
    }
}

/// Microseconds for milliseconds since the Unix epoch.
pub(super) fn from_millis(millis: i64) -> Result<i64, Reject> {
    if MILLIS.contains(&millis) { Ok(millis * 1000) } else { Err(out_of_range()) }
}

fn from_text(text: &str) -> Result<i64, Reject> {
    let parsed = PARSER.parse_timestamp(text).map_err(|_| {
        Reject::new(
            RejectReason::BadTimestamp,
            "`timestamp` is not RFC 3339, such as 2024-01-01T00:00:00Z (the offset is needed)",
        )
    })?;
    if MILLIS.contains(&parsed.as_millisecond()) { Ok(parsed.as_microsecond()) } else { Err(out_of_range()) }
}

fn out_of_range() -> Reject {
    Reject::new(RejectReason::BadTimestamp, "the timestamp is outside of the years 1 to 9999")
}
