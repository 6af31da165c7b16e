//! `embedsink.errors`.

use super::field::Field;
use super::problem::Report;
use super::quantity::Limits;
use super::section::Section;
use super::settings::{ErrorSettings, SourceSettings, Tolerance};
use super::source::Chosen;
use super::topic::topic_complaint;

const WINDOW: Limits<u32> = Limits {
    least: 10,
    most: 1_000_000,
    why: "fewer records say little, and more would be noticed too late",
};
const MAX_PAYLOAD: Limits<usize> = Limits {
    least: 1 << 10,
    most: 512 << 20,
    why: "a dead letter needs something to tell, and PostgreSQL takes no field of 1 GiB",
};
const RATIO: &str = "it is the part of the records that may be rejected, above 0 and up to 1";

/// Reads the section. `source` is what `chosen` became, when it could be read.
pub(super) fn read(
    embedsink: &Section<'_>,
    chosen: &Chosen<'_>,
    source: Option<&SourceSettings>,
    report: &mut Report,
) -> Option<ErrorSettings> {
    let errors = embedsink.section("errors", "embedsink.errors", report)?;
    let tolerance = match errors.get("tolerance") {
        Some(field) => field.choice(&[("data", Tolerance::Data), ("none", Tolerance::None)], report),
        None => Some(Tolerance::default()),
    };
    let max_ratio_permille = match errors.get("max-ratio") {
        Some(field) => field.permille(RATIO, report),
        None => Some(900),
    };
    let window = match errors.get("window") {
        Some(field) => field.count(&WINDOW, report).and_then(|records| usize::try_from(records).ok()),
        None => Some(1000),
    };
    let max_payload = match errors.get("max-payload") {
        Some(field) => field.size(&MAX_PAYLOAD, report),
        None => Some(64 << 20),
    };
    let dead_letter_topic = match errors.get("dead-letter-topic") {
        Some(field) if tolerance == Some(Tolerance::None) => {
            let what = "with `tolerance: none` there are no dead letters: the connector stops at the first bad record";
            field.complain(report, what, "remove it, or set `tolerance: data`");
            None
        }
        Some(field) => read_topic(field, chosen, source, report).map(Some),
        None => Some(None),
    };
    Some(ErrorSettings {
        tolerance: tolerance?,
        max_ratio_permille: max_ratio_permille?,
        window: window?,
        max_payload: max_payload?,
        dead_letter_topic: dead_letter_topic?,
    })
}

fn read_topic(
    field: &Field<'_>,
    chosen: &Chosen<'_>,
    source: Option<&SourceSettings>,
    report: &mut Report,
) -> Option<String> {
    let topic = field.text(report)?;
    if let Some(fix) = topic_complaint(topic) {
        field.complain(report, format!("{} cannot name a topic", field.quoted()), fix);
        return None;
    }
    if matches!(chosen, Chosen::Fluvio(_)) {
        let what =
            "it is a topic of Kafka, and this connector reads from Fluvio: it knows no brokers to write to";
        field.complain(report, what, "remove it; the table `embedsink.dead_letters` keeps every dead letter");
        return None;
    }
    if let Some(SourceSettings::Kafka(kafka)) = source
        && kafka.topics.iter().any(|read| read == topic)
    {
        let what =
            format!("{} is read by this connector, and its dead letters would come back", field.quoted());
        field.complain(report, what, "name a topic that it does not read");
        return None;
    }
    Some(topic.to_owned())
}
