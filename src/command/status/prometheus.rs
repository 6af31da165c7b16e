//! The document in the text format of Prometheus (0.0.4).
//!
//! Names begin with `embedsink_`, counters end in `_total`, units are seconds and bytes. Every sample has the
//! label `connector`.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};

use crate::framework::monitoring::Document;
use crate::monitoring::{self, DatasetFigures, IndexState, Moment, Phase};
use crate::reject::RejectReason;

/// Labels and value of a sample.
type Sample<'a, V> = (Vec<(&'a str, String)>, V);

struct Families {
    /// `None` when nobody said which connector it is.
    connector: Option<String>,
    list: Vec<MetricFamily>,
}

/// Renders it. `phase` is `None` for one that only a later version knows.
///
/// # Errors
/// Never, as long as no family here is without a name.
pub(super) fn render(document: &Document, phase: Option<Phase>) -> io::Result<String> {
    let (health, sink) = (&document.report.health, &document.report.sink);
    let mut families = Families { connector: Some(sink.connector.clone()), list: Vec::new() };
    families.one("embedsink_up", "Whether a connector answers.", 1.0);
    let info = vec![("version", sink.version.clone())];
    families.gauges("embedsink_info", "The version; always 1.", vec![(info, 1.0)]);
    families.one(
        "embedsink_healthy",
        "Whether the phase is running, paused or draining.",
        f64::from(u8::from(phase.is_some_and(Phase::is_healthy))),
    );
    let phases = Phase::ALL
        .map(|known| (vec![("phase", known.as_str().to_owned())], f64::from(u8::from(phase == Some(known)))));
    families.gauges("embedsink_phase", "1 for the phase the connector is in.", phases.to_vec());
    for (name, help, moment) in [
        ("embedsink_phase_start_time_seconds", "When the phase was entered.", Some(&health.since)),
        ("embedsink_start_time_seconds", "When the connector started.", Some(&sink.started)),
        (
            "embedsink_last_write_time_seconds",
            "When the last batch became durable.",
            health.last_write.as_ref(),
        ),
        (
            "embedsink_last_error_time_seconds",
            "When something went wrong last.",
            health.last_error.as_ref().map(|error| &error.when),
        ),
    ] {
        let samples = moment.and_then(unix_seconds).map(|seconds| (Vec::new(), seconds));
        families.gauges(name, help, samples.into_iter().collect());
    }
    let none = |value: u64| vec![(Vec::new(), value)];
    families.counters(
        "embedsink_received_records_total",
        "Records from the source.",
        none(sink.received.records),
    );
    families.counters(
        "embedsink_received_bytes_total",
        "Bytes of their keys and payloads.",
        none(sink.received.bytes),
    );
    families.counters(
        "embedsink_settled_records_total",
        "Records that are durable as row, deletion or dead letter.",
        none(sink.settled.records),
    );
    families.counters(
        "embedsink_settled_bytes_total",
        "Bytes of their keys and payloads.",
        none(sink.settled.bytes),
    );
    families.counters("embedsink_batches_total", "Transactions.", none(sink.batches));
    families.counters("embedsink_rows_upserted_total", "Rows inserted or changed.", none(sink.rows.upserted));
    families.counters(
        "embedsink_rows_unchanged_total",
        "Rows that were as they should be.",
        none(sink.rows.unchanged),
    );
    families.counters("embedsink_rows_deleted_total", "Rows deleted.", none(sink.rows.deleted));
    families.counters(
        "embedsink_rows_stale_total",
        "Changes left out because the row they met is newer.",
        none(sink.rows.stale),
    );
    let known: Vec<&str> = RejectReason::LIVE.iter().map(|reason| reason.as_str()).collect();
    families.counters(
        "embedsink_dead_letters_total",
        "Records that cannot be used.",
        by_label("reason", &known, &sink.dead_letters.by_reason),
    );
    families.counters(
        "embedsink_retries_total",
        "Attempts that failed and were made again.",
        by_label("sqlstate", &["connection"], &sink.retries.by_sqlstate),
    );
    families.summary("embedsink_batch_records", "Records of a batch.", &sink.batch_records);
    families.summary("embedsink_batch_bytes", "Bytes that a batch took in memory.", &sink.batch_bytes);
    families.summary(
        "embedsink_write_seconds",
        "Time of the attempt that made a batch durable.",
        &sink.write_seconds,
    );
    families.summary(
        "embedsink_record_age_seconds",
        "Time from a record's timestamp to its being durable.",
        &sink.record_age_seconds,
    );
    families.one(
        "embedsink_buffer_bytes",
        "Bytes of records read and not batched yet.",
        sink.buffer.used_bytes as f64,
    );
    families.one("embedsink_buffer_limit_bytes", "The most they may be.", sink.buffer.limit_bytes as f64);
    type Told = fn(&monitoring::PartitionFigures) -> Option<f64>;
    let of_partitions: [(&str, &str, Told); 4] = [
        ("embedsink_partition_next_offset", "The offset of the next record to write.", |partition| {
            Some(partition.next_offset as f64)
        }),
        (
            "embedsink_partition_end_offset",
            "The offset that the topic's next record will get.",
            |partition| partition.end_offset.map(|end| end as f64),
        ),
        ("embedsink_partition_lag_records", "The end less the next offset.", |partition| {
            partition.lag.map(|lag| lag as f64)
        }),
        ("embedsink_partition_epoch", "The epoch under which the partition is held.", |partition| {
            Some(partition.epoch as f64)
        }),
    ];
    for (name, help, told) in of_partitions {
        let samples = sink.partitions.iter().filter_map(|partition| {
            let labels =
                vec![("topic", partition.topic.clone()), ("partition", partition.partition.to_string())];
            told(partition).map(|value| (labels, value))
        });
        families.gauges(name, help, samples.collect());
    }
    let states = sink.indexes.iter().flat_map(|index| {
        IndexState::ALL.map(|state| {
            let labels = vec![("table", index.table.clone()), ("state", state.as_str().to_owned())];
            (labels, f64::from(u8::from(index.progress.state == state)))
        })
    });
    families.gauges(
        "embedsink_index_state",
        "1 for the state a table's vector index is in.",
        states.collect(),
    );
    let done = sink.indexes.iter().filter_map(|index| {
        let ratio = index.progress.percent? / 100.0;
        Some((vec![("table", index.table.clone())], ratio))
    });
    families.gauges(
        "embedsink_index_build_ratio",
        "How much is done of the phase that the build of the index is in.",
        done.collect(),
    );
    dataset(&mut families, &sink.dataset);
    families.encode()
}

/// The tables of a LanceDB dataset.
fn dataset(families: &mut Families, tables: &[DatasetFigures]) {
    type Read = fn(&DatasetFigures) -> Option<u64>;
    let gauges: [(&str, &str, Read); 8] = [
        ("embedsink_dataset_rows", "Rows of a table.", |table| Some(table.stored.rows)),
        ("embedsink_dataset_deleted_rows", "Deleted rows that upkeep has still to remove.", |table| {
            Some(table.stored.deleted_rows)
        }),
        ("embedsink_dataset_unindexed_rows", "Rows that are not in the vector index yet.", |table| {
            table.stored.unindexed_rows
        }),
        ("embedsink_dataset_versions", "Versions that can still be read.", |table| {
            Some(table.stored.versions)
        }),
        ("embedsink_dataset_fragments", "Fragments of the newest version.", |table| {
            Some(table.stored.fragments)
        }),
        ("embedsink_dataset_files", "Files of a table.", |table| table.stored.files),
        ("embedsink_dataset_disk_bytes", "Bytes of all its files.", |table| table.stored.disk_bytes),
        ("embedsink_dataset_upkeep_failed", "Whether its last upkeep failed.", |table| {
            Some(u64::from(table.upkeep.trouble.is_some()))
        }),
    ];
    let labels = |table: &DatasetFigures| vec![("table", table.stored.table.clone())];
    for (name, help, read) in gauges {
        let samples = tables.iter().filter_map(|table| Some((labels(table), read(table)? as f64)));
        families.gauges(name, help, samples.collect());
    }
    let done = tables.iter().map(|table| (labels(table), table.upkeep.done));
    families.counters("embedsink_dataset_upkeeps_total", "How often a table was tidied.", done.collect());
}

/// Renders that nobody answers.
///
/// # Errors
/// As [`render`].
pub(super) fn render_absence(connector: Option<&str>) -> io::Result<String> {
    let mut families = Families { connector: connector.map(str::to_owned), list: Vec::new() };
    families.one("embedsink_up", "Whether a connector answers.", 0.0);
    families.encode()
}

impl Families {
    fn one(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, vec![(Vec::new(), value)]);
    }

    fn gauges(&mut self, name: &str, help: &str, samples: Vec<Sample<'_, f64>>) {
        self.add(name, help, MetricType::GAUGE, samples, |metric, value| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        });
    }

    fn counters(&mut self, name: &str, help: &str, samples: Vec<Sample<'_, u64>>) {
        self.add(name, help, MetricType::COUNTER, samples, |metric, value| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        });
    }

    /// The maximum is quantile 1. A quantile of nothing is NaN.
    fn summary(&mut self, name: &str, help: &str, told: &monitoring::Summary) {
        self.add(name, help, MetricType::SUMMARY, vec![(Vec::new(), told)], |metric, told| {
            let quantile = |(at, value): (f64, Option<f64>)| {
                let mut quantile = Quantile::default();
                quantile.set_quantile(at);
                quantile.set_value(value.unwrap_or(f64::NAN));
                quantile
            };
            let mut summary = Summary::default();
            summary.set_sample_count(told.count);
            summary.set_sample_sum(told.sum);
            summary.set_quantile([(0.5, told.p50), (0.99, told.p99), (1.0, told.max)].map(quantile).to_vec());
            metric.set_summary(summary);
        });
    }

    /// A family without samples is left out.
    fn add<V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: Vec<Sample<'_, V>>,
        set: impl Fn(&mut Metric, V),
    ) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let connector = self.connector.clone().map(|connector| ("connector", connector));
            let mut metric = Metric::from_label(connector.into_iter().chain(labels).map(label).collect());
            set(&mut metric, value);
            metric
        });
        let metrics: Vec<Metric> = metrics.collect();
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.list.push(family);
    }

    fn encode(&self) -> io::Result<String> {
        TextEncoder::new().encode_to_string(&self.list).map_err(io::Error::other)
    }
}

fn label((name, value): (&str, String)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

/// One sample for each value of a label that is known beforehand or has occurred: a counter that appears
/// only with its first event has no rate for it.
fn by_label<'a>(name: &'a str, known: &[&str], counts: &BTreeMap<String, u64>) -> Vec<Sample<'a, u64>> {
    let mut all: BTreeMap<&str, u64> = known.iter().map(|value| (*value, 0)).collect();
    all.extend(counts.iter().map(|(value, count)| (value.as_str(), *count)));
    all.into_iter().map(|(value, count)| (vec![(name, value.to_owned())], count)).collect()
}

fn unix_seconds(moment: &Moment) -> Option<f64> {
    let at: Timestamp = moment.at.parse().ok()?;
    Some(at.as_millisecond() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::monitoring::Monitor;
    use crate::source::{Budget, Partition, Tenure};

    fn document(connector: &str) -> Document {
        let monitor = Monitor::new(connector, Budget::new(4_096));
        monitor.begins(&Partition::new("to\\pic", 7), Tenure(2), 11, 1_000_000_000_011);
        Document::of(&monitor)
    }

    #[test]
    fn labels_are_escaped_and_numbers_written_in_full() {
        let text = render(&document("a \"b\" \\ c\nd"), Some(Phase::Running)).expect("text");
        let lag = "embedsink_partition_lag_records{connector=\"a \\\"b\\\" \\\\ c\\nd\",topic=\"to\\\\pic\",\
                   partition=\"7\"} 1000000000000";
        assert!(text.lines().any(|line| line == lag), "{text}");
        assert!(!text.contains("\nd"), "{text}");
    }

    #[test]
    fn every_phase_and_every_reason_has_a_sample_from_the_beginning() {
        let text = render(&document("docs"), Some(Phase::Running)).expect("text");
        for phase in Phase::ALL {
            let value = u8::from(phase == Phase::Running);
            let sample =
                format!("embedsink_phase{{connector=\"docs\",phase=\"{}\"}} {value}\n", phase.as_str());
            assert!(text.contains(&sample), "{sample} in {text}");
        }
        for reason in RejectReason::LIVE {
            let sample =
                format!("embedsink_dead_letters_total{{connector=\"docs\",reason=\"{reason}\"}} 0\n");
            assert!(text.contains(&sample), "{sample} in {text}");
        }
        assert!(!text.contains("superseded"), "only a replay finds that: {text}");
        assert!(text.contains("embedsink_retries_total{connector=\"docs\",sqlstate=\"connection\"} 0\n"));
        assert!(
            text.contains("embedsink_write_seconds{connector=\"docs\",quantile=\"0.99\"} NaN\n"),
            "{text}"
        );
        assert!(!text.contains("embedsink_last_write_time_seconds"), "there was none: {text}");
    }

    #[test]
    fn a_phase_of_a_later_version_is_none_of_those_here_and_not_healthy() {
        let text = render(&document("docs"), None).expect("text");
        assert!(text.contains("embedsink_healthy{connector=\"docs\"} 0\n"), "{text}");
        let phases = || text.lines().filter(|line| line.starts_with("embedsink_phase{"));
        assert!(phases().count() == Phase::ALL.len() && phases().all(|line| line.ends_with(" 0")), "{text}");
    }

    #[test]
    fn times_are_unix_seconds() {
        let at = |at: &str| unix_seconds(&Moment { at: at.to_owned(), age_seconds: 0.0 });
        assert_eq!(at("1970-01-02T00:00:00.250Z"), Some(Duration::from_hours(24).as_secs_f64() + 0.25));
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn a_connector_that_is_away_is_told_with_the_name_if_that_is_known() {
        assert!(render_absence(None).expect("text").ends_with("\nembedsink_up 0\n"));
        assert!(
            render_absence(Some("docs")).expect("text").ends_with("\nembedsink_up{connector=\"docs\"} 0\n")
        );
    }
}
