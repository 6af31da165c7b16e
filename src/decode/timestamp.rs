//! Timestamps: RFC 3339 text or milliseconds since the Unix epoch, to microseconds.

use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::DateTimeParser;
use serde_json::value::RawValue;

use crate::reject::{Reject, RejectReason};

/// 0001-01-01 to 9999-12-31, in milliseconds: what both RFC 3339 and `timestamptz` can say.
const MILLIS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

static PARSER: DateTimeParser = DateTimeParser::new();

pub(super) fn read(raw: &RawValue) -> Result<i64, Reject> {
    let text = raw.get();
    if let Some(quoted) = text.strip_prefix('"') {
        // No timestamp needs escapes, but some encoders write a `+` as one.
        if text.contains('\\') {
            let unescaped: String = serde_json::from_str(text).map_err(|_| malformed())?;
            return from_text(&unescaped);
        }
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
    let micros = micros_of(text).ok_or_else(malformed)?;
    if MILLIS.contains(&micros.div_euclid(1000)) { Ok(micros) } else { Err(out_of_range()) }
}

/// Counts by itself, since jiff's own `Timestamp` ends on 9999-12-30: the last day of all, which many
/// write for "never", would be lost.
fn micros_of(text: &str) -> Option<i64> {
    let pieces = PARSER.parse_pieces(text).ok()?;
    let offset = i64::from(pieces.to_numeric_offset()?.seconds());
    let since = pieces.date().to_datetime(pieces.time()?).duration_since(EPOCH);
    i64::try_from(since.as_nanos().div_euclid(1000)).ok()?.checked_sub(offset * 1_000_000)
}

fn malformed() -> Reject {
    Reject::new(
        RejectReason::BadTimestamp,
        "`timestamp` is not RFC 3339, such as 2024-01-01T00:00:00Z (the offset is needed)",
    )
}

fn out_of_range() -> Reject {
    Reject::new(RejectReason::BadTimestamp, "the timestamp is outside of the years 1 to 9999")
}
