//! `embedsink.source.fluvio`, and what `meta` and `transforms` say of the same source.

use super::consumer;
use super::meta::Meta;
use super::problem::Report;
use super::section::Section;
use super::topic::Topic;
use super::transforms;
use crate::framework::config::FluvioSettings;

/// Reads the source. `meta` is the section that `read` has been made of, when there is one.
pub(super) fn read(
    fluvio: &Section<'_>,
    root: &Section<'_>,
    meta: Option<&Section<'_>>,
    read: &Meta,
    report: &mut Report,
) -> Option<FluvioSettings> {
    let create_topic = match fluvio.get("create-topic") {
        Some(field) => field.boolean(report),
        None => Some(false),
    };
    let profile = match fluvio.get("profile") {
        Some(field) => field.text(report).map(|profile| Some(profile.to_owned())),
        None => Some(None),
    };
    let topic = match &read.topic {
        Topic::Named(topic) => Some(topic.clone()),
        Topic::Bad => None,
        Topic::Absent => {
            if let Some(meta) = meta.filter(|meta| !meta.suspects("topic")) {
                let what = "missing: the source is Fluvio, and no topic is named";
                let fix = "add the topic, or `embedsink.source.kafka` to read from Kafka";
                report.add(meta.at, "meta.topic", what, fix);
            }
            None
        }
    };
    let consumer = meta.and_then(|meta| consumer::read(meta, read.name.as_deref(), report));
    let transforms = transforms::read(root, report);
    Some(FluvioSettings {
        topic: topic?,
        create_topic: create_topic?,
        profile: profile?,
        consumer: consumer?,
        transforms: transforms?,
    })
}
