//! `embedsink.sink`: which of the two targets it is.

use super::problem::Report;
use super::section::Section;
use super::source::Build;

/// The target and its block.
pub(super) enum ChosenSink<'a> {
    Postgres(Section<'a>),
    Lance(Section<'a>),
    /// It cannot be told, or cannot be used. That has been reported.
    Unclear,
}

/// What else in the file depends on the target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SinkKind {
    Postgres {
        /// Whether statements have sessions of their own.
        prepared: bool,
    },
    Lance,
    Unclear,
}

/// Finds the target.
pub(super) fn choose<'a>(embedsink: &Section<'a>, build: Build, report: &mut Report) -> ChosenSink<'a> {
    let Some(sink) = embedsink.section("sink", "embedsink.sink", report) else {
        return ChosenSink::Unclear;
    };
    let open = |field: &super::field::Field<'a>, schema, report: &mut Report| {
        Section::open(field.node, &field.path, field.key_at, schema, report)
    };
    match (sink.get("postgres"), sink.get("lancedb")) {
        (Some(_), Some(lancedb)) => {
            let what = "contradicts `embedsink.sink.postgres`: a connector writes to one target";
            lancedb.complain_at_key(report, what, "keep one of them");
            ChosenSink::Unclear
        }
        (None, Some(lancedb)) if !build.lancedb => {
            let fix =
                "name `embedsink.sink.postgres`, or build with `cargo build --release --features lancedb`";
            lancedb.complain_at_key(report, "this build has no LanceDB in it", fix);
            ChosenSink::Unclear
        }
        (None, Some(lancedb)) => {
            open(lancedb, "embedsink.sink.lancedb", report).map_or(ChosenSink::Unclear, ChosenSink::Lance)
        }
        (postgres, None) => {
            let fix =
                "add the block with at least `url`; or `lancedb` with `uri`, for a dataset without a server";
            let postgres = postgres.or_else(|| sink.require("postgres", fix, report));
            postgres
                .and_then(|field| open(field, "embedsink.sink.postgres", report))
                .map_or(ChosenSink::Unclear, ChosenSink::Postgres)
        }
    }
}
