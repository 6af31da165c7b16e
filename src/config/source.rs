//! `embedsink.source`: which of the two sources it is.
//!
//! A file without the block is what the framework knows: a connector that reads `meta.topic` from Fluvio.

use super::problem::Report;
use super::section::Section;

/// What was compiled in.
#[derive(Clone, Copy)]
pub(super) struct Build {
    /// The feature `fluvio`.
    pub(super) fluvio: bool,
    /// The feature `lancedb`.
    pub(super) lancedb: bool,
}

impl Build {
    /// This build.
    pub(super) const THIS: Self =
        Self { fluvio: cfg!(feature = "fluvio"), lancedb: cfg!(feature = "lancedb") };
}

/// The source and its block.
pub(super) enum Chosen<'a> {
    Kafka(Section<'a>),
    /// The block is empty when the file has none.
    Fluvio(Section<'a>),
    /// It cannot be told, or cannot be used. That has been reported.
    Unclear,
}

/// Finds the source.
pub(super) fn choose<'a>(embedsink: &Section<'a>, build: Build, report: &mut Report) -> Chosen<'a> {
    if embedsink.suspects("source") {
        return Chosen::Unclear;
    }
    let Some(source) = embedsink.section("source", "embedsink.source", report) else {
        return Chosen::Unclear;
    };
    let block = embedsink.get("source");
    match (source.get("kafka"), source.get("fluvio"), block) {
        (Some(kafka), None, _) => {
            Section::open(kafka.node, &kafka.path, kafka.key_at, "embedsink.source.kafka", report)
                .map_or(Chosen::Unclear, Chosen::Kafka)
        }
        (Some(_), Some(fluvio), _) => {
            let what = "contradicts `embedsink.source.kafka`: a connector reads from one source";
            report.add(fluvio.key_at, &fluvio.path, what, "keep one of them");
            Chosen::Unclear
        }
        (None, Some(fluvio), _) if !build.fluvio => {
            report.add(fluvio.key_at, &fluvio.path, "this build has no Fluvio in it", ELSEWHERE);
            Chosen::Unclear
        }
        (None, None, Some(block)) => {
            // Whatever is not known there may have been meant to be one.
            if source.is_whole() {
                let fix = if build.fluvio {
                    "add `kafka` or `fluvio`, or remove the block to read `meta.topic` from Fluvio"
                } else {
                    "add `kafka`; this build has no Fluvio in it"
                };
                report.add(block.key_at, &block.path, "names no source", fix);
            }
            Chosen::Unclear
        }
        (None, None, None) if !build.fluvio => {
            let what = "missing: the source would be Fluvio, and this build has no Fluvio in it";
            report.add(source.at, &source.path, what, ELSEWHERE);
            Chosen::Unclear
        }
        (None, ..) => source
            .section("fluvio", "embedsink.source.fluvio", report)
            .map_or(Chosen::Unclear, Chosen::Fluvio),
    }
}

const ELSEWHERE: &str = "name `embedsink.source.kafka`, or take a build with the feature `fluvio`";

/// Refuses what only Fluvio would do, in a file that reads from Kafka.
pub(super) fn refuse_fluvio_keys(root: &Section<'_>, meta: Option<&Section<'_>>, report: &mut Report) {
    if let Some(consumer) = meta.and_then(|meta| meta.get("consumer")) {
        let what = "it belongs to a Fluvio topic; `embedsink.source.kafka` reads from Kafka, and nothing would use it";
        let fix = "remove it; `embedsink.source.kafka.start` says where to begin";
        report.add(consumer.key_at, &consumer.path, what, fix);
    }
    if let Some(transforms) = root.get("transforms") {
        let what = "a Fluvio cluster runs transforms; `embedsink.source.kafka` reads from Kafka, and nothing would run them";
        report.add(transforms.key_at, &transforms.path, what, "remove them");
    }
}
