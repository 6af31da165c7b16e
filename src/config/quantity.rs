//! Counts, sizes and durations, each with its limits and the reason for them.

use std::fmt::Display;
use std::time::Duration;

use bytesize::ByteSize;

use super::field::Field;
use super::node::{Kind, Scalar};
use super::problem::Report;

/// What a quantity may be, and why.
pub(super) struct Limits<T> {
    pub(super) least: T,
    pub(super) most: T,
    /// Why it has limits: a clause that follows the value.
    pub(super) why: &'static str,
}

impl Field<'_> {
    /// A whole number within `limits`.
    pub(super) fn count<T>(&self, limits: &Limits<T>, report: &mut Report) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Copy + Display,
    {
        let scalar = self.scalar("a whole number", report)?;
        if scalar.kind == Kind::Text && !scalar.is_tainted() && is_whole(&scalar.text) {
            self.mismatch("a whole number", "remove the quotes", report);
            return None;
        }
        if !is_whole(&scalar.text) {
            let what = format!("{} is no whole number", self.quoted());
            self.complain(report, what, format!("give {} to {}", limits.least, limits.most));
            return None;
        }
        // What does not even fit an i128 is as far out of range as anything.
        let beyond = if scalar.text.starts_with('-') { i128::MIN } else { i128::MAX };
        let number = scalar.text.parse::<i128>().unwrap_or(beyond);
        let number = T::try_from(number).ok();
        self.within(number, limits, |number| number.to_string(), report)
    }

    /// A part of a whole, above 0 and up to 1, in thousandths.
    pub(super) fn permille(&self, why: &'static str, report: &mut Report) -> Option<u32> {
        const LIMITS: &str = "give 0.001 to 1, such as `0.9`";
        let scalar = self.scalar("a number", report)?;
        let Ok(number) = scalar.text.parse::<f64>() else {
            self.complain(report, format!("{} is no number", self.quoted()), LIMITS);
            return None;
        };
        if scalar.kind == Kind::Text && !scalar.is_tainted() {
            self.mismatch("a number", "remove the quotes", report);
            return None;
        }
        let found = (1..=1000_u32).find(|permille| (f64::from(*permille) / 1000.0 - number).abs() < 1e-9);
        if found.is_none() {
            let what = if number > 0.0 && number <= 1.0 {
                format!("{} has more than three decimals", self.quoted())
            } else {
                format!("{} is out of range: {why}", self.quoted())
            };
            self.complain(report, what, LIMITS);
        }
        found
    }

    /// A size in bytes within `limits`: `8MiB`, `500kB`, or a plain number of bytes.
    pub(super) fn size(&self, limits: &Limits<usize>, report: &mut Report) -> Option<usize> {
        let scalar = self.scalar("a size", report)?;
        let shown = |bytes: usize| exact_size(bytes);
        let size = if is_negative(scalar) {
            None
        } else {
            let Ok(size) = scalar.text.parse::<ByteSize>() else {
                let what = format!("{} is no size", self.quoted());
                self.complain(report, what, "write a number and a unit, such as `8MiB` or `500kB`");
                return None;
            };
            usize::try_from(size.as_u64()).ok()
        };
        self.within(size, limits, shown, report)
    }

    /// A duration within `limits`: `200ms`, `1s`, `1m30s`.
    pub(super) fn duration(&self, limits: &Limits<Duration>, report: &mut Report) -> Option<Duration> {
        const FORM: &str = "write a number and a unit, such as `200ms`, `5s` or `1m30s`";
        let scalar = self.scalar("a duration", report)?;
        if scalar.text.parse::<f64>().is_ok() {
            let fix = if self.is_hidden() { FORM.to_owned() } else { add_a_unit(&scalar.text) };
            self.complain(report, format!("{} has no unit", self.quoted()), fix);
            return None;
        }
        let duration = if is_negative(scalar) {
            None
        } else {
            match humantime::parse_duration(&scalar.text) {
                Ok(duration) => Some(duration),
                Err(humantime::DurationError::NumberOverflow) => Some(Duration::MAX),
                Err(_) => {
                    self.complain(report, format!("{} is no duration", self.quoted()), FORM);
                    return None;
                }
            }
        };
        self.within(duration, limits, exact_duration, report)
    }

    /// A duration that is given in another way, when it is within `limits`.
    pub(super) fn duration_within(
        &self,
        duration: Duration,
        limits: &Limits<Duration>,
        report: &mut Report,
    ) -> Option<Duration> {
        self.within(Some(duration), limits, exact_duration, report)
    }

    fn within<T: PartialOrd + Copy>(
        &self,
        value: Option<T>,
        limits: &Limits<T>,
        shown: impl Fn(T) -> String,
        report: &mut Report,
    ) -> Option<T> {
        let value = value.filter(|value| (limits.least..=limits.most).contains(value));
        if value.is_none() {
            let what = format!("{} is out of range: {}", self.quoted(), limits.why);
            self.complain(report, what, format!("give {} to {}", shown(limits.least), shown(limits.most)));
        }
        value
    }
}

fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `-` before a digit. It is a number out of range, not a spelling nobody knows.
fn is_negative(scalar: &Scalar) -> bool {
    scalar.text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn add_a_unit(number: &str) -> String {
    format!("add a unit: `{number}ms` or `{number}s`")
}

/// A duration as the file would say it.
pub(super) fn exact_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// A size in the largest unit that says it exactly.
fn exact_size(bytes: usize) -> String {
    const UNITS: &[(usize, &str)] = &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes}B"), |(size, name)| format!("{}{name}", bytes / size))
}
