use super::*;
use crate::batch::Place;
use crate::reject::{Reject, RejectReason};
use crate::route::{Router, TableLimits};
use crate::source::Headers;
use crate::source::SourceRecord;

fn monitor() -> Monitor {
    Monitor::new("docs", Budget::new(1_000))
}

fn lost_connection() -> WriteError {
    let fault = "host".parse::<tokio_postgres::Config>().expect_err("no settings");
    WriteError::Postgres(sink_postgres_vector::Error::during("reach the test's server", fault))
}

fn partition(number: i32) -> Partition {
    Partition::new("topic", number)
}

fn begin(monitor: &Monitor, number: i32, next_offset: i64, end: i64) {
    monitor.begins(&partition(number), Tenure(3), next_offset, end);
}

/// A batch of `records` dead letters that begins at offset 0 of partition 0.
fn written(monitor: &Monitor, records: i64, timestamp: Option<i64>) {
    let limits = TableLimits {
        name: "t".to_owned(),
        dimensions: 2,
        max_id_chars: None,
        max_source_chars: None,
        skip_stale: false,
    };
    let mut batch = Batch::new(1, &Router::new(vec![limits]));
    let partition = partition(0);
    let place = Place { partition: &partition, tenure: Tenure(3), stored: 0 };
    for offset in 0..records {
        let record = SourceRecord {
            offset,
            timestamp,
            key: Some(b"key"),
            payload: Some(b"canary"),
            headers: Headers::default(),
            omitted: 0,
        };
        batch.reject(&place, &record, None, Reject::new(RejectReason::BadJson, "not JSON"));
    }
    let receipt = Receipt::for_tests(1);
    let point = batch.settle(&receipt);
    monitor.written(&batch, &receipt, &point, Duration::from_millis(20));
}

#[test]
fn retrying_goes_before_paused_and_both_fall_back_to_what_was_before() {
    let monitor = monitor();
    let listener = LaneMonitor { monitor: &monitor, lane: 0 };
    let other = LaneMonitor { monitor: &monitor, lane: 1 };
    let phase = || monitor.health().phase;
    assert_eq!(phase(), Phase::Starting);
    listener.failed(&lost_connection());
    assert_eq!(phase(), Phase::Retrying);
    listener.recovered();
    assert_eq!(phase(), Phase::Starting, "nothing is read yet");
    begin(&monitor, 0, 0, 0);
    assert_eq!(phase(), Phase::Running);
    monitor.paused(true);
    assert_eq!(phase(), Phase::Paused);
    listener.failed(&lost_connection());
    other.failed(&lost_connection());
    assert_eq!(phase(), Phase::Retrying);
    listener.recovered();
    assert_eq!(phase(), Phase::Retrying, "the other lane cannot write yet");
    other.recovered();
    assert_eq!(phase(), Phase::Paused);
    monitor.paused(false);
    assert_eq!(phase(), Phase::Running);
    listener.failed(&lost_connection());
    monitor.enter(Phase::Draining, "asked to stop");
    assert_eq!((phase(), monitor.health().reason.as_str()), (Phase::Draining, "asked to stop"));
    monitor.enter(Phase::Stopped, "stopped");
    begin(&monitor, 0, 0, 0);
    assert_eq!(phase(), Phase::Stopped, "the end is final");
}

#[test]
fn a_phase_lasts_from_when_it_was_entered_not_from_its_last_reason() {
    let monitor = monitor();
    let listener = LaneMonitor { monitor: &monitor, lane: 0 };
    listener.failed(&lost_connection());
    let since = monitor.health().since.at;
    listener.failed(&lost_connection());
    assert_eq!(monitor.health().since.at, since);
    assert!(since.ends_with('Z') && since.len() == "2026-01-01T00:00:00.000Z".len(), "{since}");
}

#[test]
fn a_failed_attempt_is_counted_by_its_sqlstate_and_remembered_as_the_last_error() {
    let monitor = monitor();
    let listener = LaneMonitor { monitor: &monitor, lane: 0 };
    listener.failed(&lost_connection());
    listener.failed(&lost_connection());
    listener.recovered();
    let report = monitor.report();
    assert_eq!(report.sink.retries.total, 2);
    assert_eq!(report.sink.retries.by_sqlstate, BTreeMap::from([("connection".to_owned(), 2)]));
    assert!(report.health.last_error.is_some_and(|error| error.text.contains("reach the test's server")));
}

#[test]
fn what_is_written_moves_offsets_and_lag_and_what_is_released_leaves_the_table() {
    let monitor = monitor();
    begin(&monitor, 0, 0, 10);
    begin(&monitor, 1, 4, 4);
    let lag = || monitor.health().lag.iter().map(|lag| (lag.partition, lag.records)).collect::<Vec<_>>();
    assert_eq!(lag(), [(0, Some(10)), (1, Some(0))]);
    written(&monitor, 7, None);
    monitor.ends(&[(partition(1), 6), (partition(2), 99)]);
    assert_eq!(lag(), [(0, Some(3)), (1, Some(2))], "partition 2 is not ours");
    monitor.released(&[partition(0)]);
    written(&monitor, 7, None);
    assert_eq!(lag(), [(1, Some(2))]);
    assert_eq!(monitor.totals().next_offsets[&partition(0)], 7, "for the report at the end");
}

#[test]
fn a_batch_counts_once_in_every_figure() {
    let monitor = monitor();
    begin(&monitor, 0, 0, 10);
    written(&monitor, 4, Some(Timestamp::now().as_millisecond() - 2_000));
    written(&monitor, 6, Some(Timestamp::now().as_millisecond() + 60_000));
    let sink = monitor.report().sink;
    assert_eq!((sink.batches, sink.settled.records, sink.settled.bytes), (2, 10, 90));
    assert_eq!(sink.dead_letters.by_reason, BTreeMap::from([("bad_json".to_owned(), 10)]));
    assert_eq!((sink.batch_records.count, sink.batch_records.max), (2, Some(6.0)));
    assert_eq!((sink.write_seconds.count, sink.record_age_seconds.count), (2, 10));
    assert_eq!(sink.record_age_seconds.p50, Some(0.0), "a timestamp of the future is no age");
    let oldest = sink.record_age_seconds.max.expect("an age");
    assert!((1.9..4.0).contains(&oldest), "{oldest}");
    assert_eq!((sink.buffer.used_bytes, sink.buffer.limit_bytes), (0, 1_000));
    assert_eq!(sink.partitions.len(), 1);
    assert_eq!((sink.partitions[0].epoch, sink.partitions[0].next_offset), (3, 6));
}

#[test]
fn a_report_survives_json_and_holds_nothing_of_a_record() {
    let monitor = monitor();
    begin(&monitor, 0, 0, 10);
    written(&monitor, 3, Some(5));
    monitor.failed(&ConnectorError::Defect("a part".to_owned()));
    let report = monitor.report();
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("the same"), report);
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains(r#""phase":"failed""#), "{text}");
}

#[test]
fn what_was_given_and_has_not_begun_is_awaited_until_it_begins_or_goes() {
    let monitor = monitor();
    let look = || (monitor.look().partitions, monitor.look().awaited);
    monitor.awaits(&[partition(0), partition(1)]);
    assert_eq!(look(), (0, 2));
    begin(&monitor, 0, 0, 0);
    assert_eq!(look(), (1, 1));
    monitor.released(&[partition(0), partition(1)]);
    assert_eq!(look(), (0, 0));
    begin(&monitor, 0, 0, 0);
    monitor.awaits(&[partition(0)]);
    assert_eq!(look(), (1, 1), "somebody else has taken it, and it is to be taken again");
}
