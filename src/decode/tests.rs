use std::borrow::Cow;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::source::Headers;

const NONE: &[u8] = b"";
/// 2024-01-01T00:00:00Z, in microseconds.
const NEW_YEAR: i64 = 1_704_067_200_000_000;

/// A record with this payload, a key and a timestamp of its own.
fn record(payload: &[u8]) -> SourceRecord<'_> {
    SourceRecord {
        offset: 7,
        timestamp: Some(1_000),
        key: Some(b"the key"),
        payload: Some(payload),
        headers: Headers::default(),
        omitted: 0,
    }
}

fn reason_of(record: &SourceRecord<'_>) -> Result<(), RejectReason> {
    decode(record, &mut Vec::new()).map(drop).map_err(|reject| reject.reason)
}

/// What is wrong with this payload.
fn reason(payload: impl AsRef<[u8]>) -> Result<(), RejectReason> {
    reason_of(&record(payload.as_ref()))
}

/// The row of this payload, with its vector.
#[track_caller]
fn row(payload: &str) -> (Embedding<'_>, Vec<f32>) {
    let mut vector = vec![9.0];
    match decode(&record(payload.as_bytes()), &mut vector) {
        Ok(Change::Upsert(embedding)) => (embedding, vector),
        other => panic!("{payload} became {other:?}"),
    }
}

const GOOD: &str = r#"{"id": "test-001", "text": "Hello \"world\"\n", "embedding": [0.1, -0.2, 3e-1],
    "timestamp": "2024-01-01T00:00:00Z", "source": "tést", "metadata": {"a": [1, {"b": null}], "c": "😀"},
    "table_name": "embeddings", "unknown": [1, "x", {"deep": [true]}]}"#;

#[test]
fn a_record_as_producers_write_it_is_a_row() {
    let (embedding, vector) = row(GOOD);
    assert_eq!(embedding.id, "test-001");
    assert_eq!(embedding.text.as_deref(), Some("Hello \"world\"\n"));
    assert_eq!(vector, [0.1, -0.2, 0.3]);
    assert_eq!(embedding.timestamp, Some(NEW_YEAR));
    assert_eq!(embedding.source.as_deref(), Some("tést"));
    assert_eq!(embedding.metadata, Some(r#"{"a": [1, {"b": null}], "c": "😀"}"#));
    assert_eq!(embedding.table_name.as_deref(), Some("embeddings"));
}

#[test]
fn a_text_without_escapes_is_not_copied() {
    let (embedding, _) = row(r#"{"id": "a", "text": "plain", "source": "with \u0041", "embedding": []}"#);
    assert!(matches!(embedding.id, Cow::Borrowed("a")));
    assert!(matches!(embedding.text, Some(Cow::Borrowed("plain"))));
    assert_eq!(embedding.source.as_deref(), Some("with A"));
}

#[test]
fn fields_that_are_null_are_the_same_as_fields_that_are_not_there() {
    let (embedding, vector) = row(
        r#"{"id": null, "text": null, "embedding": [1], "timestamp": null, "source":null, "metadata" : null ,
            "table_name": null, "other": null}"#,
    );
    let (absent, _) = row(r#"{"embedding": [1]}"#);
    assert_eq!(embedding, absent);
    assert_eq!(embedding.id, "the key");
    assert_eq!(embedding.timestamp, Some(1_000_000), "the record's own, in microseconds");
    assert_eq!(vector, [1.0]);
    assert_eq!(reason(r#"{"id": "a", "embedding": null}"#), Err(RejectReason::MissingEmbedding));
}

#[test]
fn the_id_falls_back_to_the_key_of_the_record() {
    let payload = br#"{"embedding": [1]}"#;
    for (key, wanted) in [
        (Some(&b"k\xc3\xa9y"[..]), Ok(())),
        (None, Err(RejectReason::MissingId)),
        (Some(NONE), Err(RejectReason::MissingId)),
        (Some(b"\xff\xfe"), Err(RejectReason::InvalidUtf8)),
        (Some(b"a\0b"), Err(RejectReason::NulByte)),
    ] {
        assert_eq!(reason_of(&SourceRecord { key, ..record(payload) }), wanted, "{key:?}");
        // With an id of its own the record needs no key, and nobody looks at it.
        let with_id = SourceRecord { key, ..record(br#"{"id": "a", "embedding": [1]}"#) };
        assert_eq!(reason_of(&with_id), Ok(()), "{key:?}");
    }
}

#[test]
fn a_null_payload_deletes_by_key() {
    let tombstone = |key| SourceRecord { key, payload: None, ..record(NONE) };
    let mut vector = vec![1.0];
    let deleted = decode(&tombstone(Some(b"k\xc3\xa9y")), &mut vector);
    assert_eq!(deleted, Ok(Change::Delete { id: Cow::Borrowed("kéy") }));
    assert!(vector.is_empty());
    assert_eq!(reason_of(&tombstone(None)), Err(RejectReason::MissingId));
    assert_eq!(reason_of(&tombstone(Some(NONE))), Err(RejectReason::MissingId));
    assert_eq!(reason_of(&tombstone(Some(b"\xc3"))), Err(RejectReason::InvalidUtf8));
    assert_eq!(reason_of(&tombstone(Some(b"\0"))), Err(RejectReason::NulByte));
}

#[test]
fn an_empty_payload_is_not_a_null_one() {
    assert_eq!(reason(""), Err(RejectReason::BadJson));
    assert_eq!(reason(" \n"), Err(RejectReason::BadJson));
    assert_eq!(reason("null"), Err(RejectReason::BadJson));
}

#[test]
fn every_fault_has_its_reason() {
    let cases: &[(&[u8], RejectReason)] = &[
        (b"[]", RejectReason::BadJson),
        (b"\"text\"", RejectReason::BadJson),
        (b"1", RejectReason::BadJson),
        (b"{", RejectReason::BadJson),
        (b"{}}", RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1]} x"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1]}{"id": "b", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1],}"#, RejectReason::BadJson),
        (br#"{"id": "a" "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id" "a", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{id: "a", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{'id': "a", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{1: "a", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{,"id": "a", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1], "x": nul}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1], "x": nulls}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1], "x": 01}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1], "x": NaN}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1], "x": [}"#, RejectReason::BadJson),
        (b"{\"id\": \"a\x01\", \"embedding\": [1]}", RejectReason::BadJson),
        (br#"{"id": "a\x41", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a\u12", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1]} // why"#, RejectReason::BadJson),
        (b"\xef\xbb\xbf{\"id\": \"a\", \"embedding\": [1]}", RejectReason::BadJson),
        (b"\0\0\0\0\x01{\"id\": \"a\", \"embedding\": [1]}", RejectReason::BadJson),
        (b"\0", RejectReason::BadJson),
        (br#"{"id": "a", "id": "a", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a", "\u0069d": "b", "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a", "embedding": [1], "embedding": [1]}"#, RejectReason::BadJson),
        (br#"{"id": "a", "text": null, "text": "b", "embedding": [1]}"#, RejectReason::BadJson),
        (b"{\"id\": \"\xff\", \"embedding\": [1]}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"x\": \"\xc3\"}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"x\": [{\"y\": \"\xff\"}]}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"\xff\": 1}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"text\": \"\xc3\"}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"source\": \"\xff\"}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"table_name\": \"\xff\"}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"metadata\": {\"k\": \"\xff\"}}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"metadata\": {\"\xff\": 1}}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"timestamp\": \"\xff\"}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1], \"text\": 1, \"x\": \"\xff\"}", RejectReason::InvalidUtf8),
        (b"{\"id\": \"a\", \"embedding\": [1, \xff]}", RejectReason::InvalidUtf8),
        // A surrogate, which UTF-8 must not hold.
        (b"{\"id\": \"\xed\xa0\x80\", \"embedding\": [1]}", RejectReason::InvalidUtf8),
        (br#"{"id": "", "embedding": [1]}"#, RejectReason::BadId),
        (br#"{"id": 5, "embedding": [1]}"#, RejectReason::BadId),
        (br#"{"id": ["a"], "embedding": [1]}"#, RejectReason::BadId),
        (br#"{"id": {}, "embedding": [1]}"#, RejectReason::BadId),
        (br#"{"id": false, "embedding": [1]}"#, RejectReason::BadId),
        (br#"{"id": "a"}"#, RejectReason::MissingEmbedding),
        (b"{}", RejectReason::MissingEmbedding),
        (br#"{"id": "a", "Embedding": [1]}"#, RejectReason::MissingEmbedding),
        (br#"{"id": "a", "embedding": "[1]"}"#, RejectReason::BadEmbedding),
        (br#"{"id": "a", "embedding": {"0": 1}}"#, RejectReason::BadEmbedding),
        (br#"{"id": "a", "embedding": [null]}"#, RejectReason::BadEmbedding),
        (br#"{"id": "a", "embedding": [[1]]}"#, RejectReason::BadEmbedding),
        (br#"{"id": "a", "embedding": [NaN]}"#, RejectReason::NotFinite),
        (br#"{"id": "a", "embedding": [1e39]}"#, RejectReason::NotFinite),
        (br#"{"id": "a", "embedding": [1], "text": 1}"#, RejectReason::BadField),
        (br#"{"id": "a", "embedding": [1], "text": ["b"]}"#, RejectReason::BadField),
        (br#"{"id": "a", "embedding": [1], "source": {}}"#, RejectReason::BadField),
        (br#"{"id": "a", "embedding": [1], "table_name": true}"#, RejectReason::BadField),
        (br#"{"id": "a", "embedding": [1], "metadata": []}"#, RejectReason::BadMetadata),
        (br#"{"id": "a", "embedding": [1], "metadata": "{}"}"#, RejectReason::BadMetadata),
        (br#"{"id": "a", "embedding": [1], "metadata": 1}"#, RejectReason::BadMetadata),
        (br#"{"id": "a", "embedding": [1], "metadata": {"a": "\ud800"}}"#, RejectReason::BadMetadata),
        (br#"{"id": "a", "embedding": [1], "metadata": {"\udc00": 1}}"#, RejectReason::BadMetadata),
        (br#"{"id": "a", "embedding": [1], "metadata": {"a": 1e20000}}"#, RejectReason::BadMetadata),
        (br#"{"id": "a", "embedding": [1], "metadata": {"a": }}"#, RejectReason::BadJson),
        (br#"{"id": "a\u0000", "embedding": [1]}"#, RejectReason::NulByte),
        (br#"{"id": "a", "text": "\u0000", "embedding": [1]}"#, RejectReason::NulByte),
        (br#"{"id": "a", "source": "b\u0000c", "embedding": [1]}"#, RejectReason::NulByte),
        (br#"{"id": "a", "embedding": [1], "metadata": {"a": "\u0000"}}"#, RejectReason::NulByte),
        (br#"{"id": "a", "embedding": [1], "metadata": {"\u0000": 1}}"#, RejectReason::NulByte),
        (br#"{"id": "a", "embedding": [1], "timestamp": "yesterday"}"#, RejectReason::BadTimestamp),
    ];
    for (payload, wanted) in cases {
        assert_eq!(reason(payload), Err(*wanted), "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn what_is_not_taken_for_the_sake_of_one_target_is_said_to_be_so() {
    for payload in [
        &br#"{"id": "a\u0000", "embedding": [1]}"#[..],
        br#"{"id": "a", "embedding": [1], "metadata": {"a": "\u0000"}}"#,
    ] {
        let reject = decode(&record(payload), &mut Vec::new()).unwrap_err();
        assert!(
            reject.message.contains("is not taken, since PostgreSQL cannot store it"),
            "{}",
            reject.message
        );
    }
}

#[test]
fn escapes_mean_what_json_says() {
    let (embedding, _) =
        row(r#"{"id": "\u00e9\ud83d\ude00\/\\\"\b\f\n\r\t", "\u0074ext": "\uFFFF", "embedding": [1]}"#);
    assert_eq!(embedding.id, "é😀/\\\"\u{8}\u{c}\n\r\t");
    assert_eq!(embedding.text.as_deref(), Some("\u{FFFF}"));
    for half in [r"\ud800", r"\udc00", r"\ud83dx", r"\ud83d\n", r"\ud83d\u0041", r"\ude00\ud83d"] {
        let payload = format!(r#"{{"id": "a", "text": "{half}", "embedding": [1]}}"#);
        assert_eq!(reason(payload), Err(RejectReason::BadJson), "{half}");
        let payload = format!(r#"{{"id": "a", "metadata": {{"b": "{half}"}}, "embedding": [1]}}"#);
        assert_eq!(reason(payload), Err(RejectReason::BadMetadata), "{half}");
    }
    let (embedding, _) =
        row(r#"{"embedding": [], "metadata": {"\ud83d\ude00": "\\u0000 \\ud800", "a": "\""}}"#);
    assert_eq!(embedding.metadata, Some(r#"{"\ud83d\ude00": "\\u0000 \\ud800", "a": "\""}"#));
}

#[test]
fn a_timestamp_is_rfc_3339_or_milliseconds() {
    let cases = [
        (r#""2024-01-01T00:00:00Z""#, NEW_YEAR),
        (r#""2024-01-01t00:00:00z""#, NEW_YEAR),
        (r#""2024-01-01 00:00:00Z""#, NEW_YEAR),
        (r#""2024-01-01T01:30:00+01:30""#, NEW_YEAR),
        // Some encoders write a plus sign as an escape.
        (r#""2024-01-01T01:30:00\u002B01:30""#, NEW_YEAR),
        (r#""2023-12-31 16:00:00-08:00""#, NEW_YEAR),
        (r#""2024-01-01T00:00:00.5Z""#, NEW_YEAR + 500_000),
        (r#""2024-01-01T00:00:00.123456+00:00""#, NEW_YEAR + 123_456),
        (r#""2024-01-01T00:00:00.123456789Z""#, NEW_YEAR + 123_456),
        (r#""2016-12-31T23:59:60Z""#, 1_483_228_799_000_000),
        (r#""0001-01-01T00:00:00Z""#, -62_135_596_800_000_000),
        (r#""9999-12-30T00:00:00Z""#, 253_402_128_000_000_000),
        (r#""9999-12-31T23:59:59Z""#, 253_402_300_799_000_000),
        (r#""9999-12-31T23:59:59.999999Z""#, 253_402_300_799_999_999),
        ("1704067200000", NEW_YEAR),
        ("1704067200000.0", NEW_YEAR),
        ("1704067200000.125", NEW_YEAR + 125),
        ("1.7040672e12", NEW_YEAR),
        ("0", 0),
        ("-0", 0),
        ("-0.0", 0),
        ("-1", -1_000),
        ("-1.5", -1_500),
        ("-62135596800000", -62_135_596_800_000_000),
        ("253402300799999", 253_402_300_799_999_000),
    ];
    for (timestamp, wanted) in cases {
        let payload = format!(r#"{{"embedding": [], "timestamp": {timestamp}}}"#);
        let mut vector = Vec::new();
        match decode(&record(payload.as_bytes()), &mut vector) {
            Ok(Change::Upsert(embedding)) => assert_eq!(embedding.timestamp, Some(wanted), "{timestamp}"),
            other => panic!("{timestamp} became {other:?}"),
        }
    }
    for timestamp in [
        r#""2024-01-01T00:00:00""#,
        r#""2024-01-01""#,
        r#""2024-02-30T00:00:00Z""#,
        r#""2024-01-01T25:00:00Z""#,
        r#""-000001-01-01T00:00:00Z""#,
        r#""10000-01-01T00:00:00Z""#,
        r#""1704067200000""#,
        r#""""#,
        r#""now""#,
        r#""2024-01-01T00:00:00Z ""#,
        "253402300800000",
        "-62135596800001",
        "9223372036854775807",
        "99999999999999999999",
        "1e300",
        "-1e999",
        "true",
        "[]",
        "{}",
    ] {
        let payload = format!(r#"{{"embedding": [], "timestamp": {timestamp}}}"#);
        assert_eq!(reason(&payload), Err(RejectReason::BadTimestamp), "{timestamp}");
    }
}

#[test]
fn without_a_timestamp_the_record_has_its_own() {
    let payload = br#"{"embedding": []}"#;
    let timestamp = |timestamp| match decode(&SourceRecord { timestamp, ..record(payload) }, &mut Vec::new())
    {
        Ok(Change::Upsert(embedding)) => Ok(embedding.timestamp),
        Ok(Change::Delete { .. }) => panic!("nothing is deleted here"),
        Err(reject) => Err(reject.reason),
    };
    assert_eq!(timestamp(Some(1_704_067_200_000)), Ok(Some(NEW_YEAR)));
    assert_eq!(timestamp(Some(-1)), Ok(Some(-1_000)));
    assert_eq!(timestamp(None), Ok(None));
    // A clock that is off by centuries is the producer's fault, not the record's.
    assert_eq!(timestamp(Some(i64::MAX)), Ok(None));
    assert_eq!(timestamp(Some(i64::MIN)), Ok(None));
    // A stated one wins, whatever the record says.
    let stated = record(br#"{"embedding": [], "timestamp": 5}"#);
    assert_eq!(reason_of(&SourceRecord { timestamp: Some(i64::MAX), ..stated }), Ok(()));
}

#[test]
fn a_record_cut_at_any_byte_is_refused() {
    for end in 0..GOOD.len() {
        let found = reason(&GOOD.as_bytes()[..end]);
        let utf8 = !GOOD.is_char_boundary(end);
        let wanted = if utf8 { RejectReason::InvalidUtf8 } else { RejectReason::BadJson };
        let is_right = found == Err(wanted)
            // A number or word that is cut short is seen where it stands.
            || (!utf8 && found == Err(RejectReason::BadEmbedding));
        assert!(is_right, "cut at {end}: {found:?}");
    }
}

#[test]
fn damaged_records_never_panic_and_what_is_accepted_is_json() {
    let mut state = 1_u64;
    let mut random = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    const PIECES: &[&str] = &[
        "\"",
        "\\",
        "\\u",
        "\\ud800",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "1e999",
        "-",
        "0",
        "NaN",
        "\0",
        "\u{feff}",
        "\"id\"",
        "\"embedding\"",
        "\"metadata\":{",
        " ",
        "\n",
        "9999999999999999999",
        ".",
        "é",
        "true",
    ];
    let (mut accepted, mut vector) = (0, Vec::new());
    for _ in 0..300_000 {
        let mut payload = GOOD.as_bytes().to_vec();
        for _ in 0..=random(3) {
            let at = random(payload.len());
            match random(5) {
                0 => payload[at] = random(256) as u8,
                1 => drop(payload.remove(at)),
                2 => {
                    let piece = PIECES[random(PIECES.len())];
                    drop(payload.splice(at..at, piece.bytes()));
                }
                3 => {
                    let end = (at + random(40)).min(payload.len());
                    let copy = payload[at..end].to_vec();
                    let to = random(payload.len());
                    drop(payload.splice(to..to, copy));
                }
                _ => payload[at] ^= 1 << random(8),
            }
        }
        if let Ok(Change::Upsert(embedding)) = decode(&record(&payload), &mut vector) {
            accepted += 1;
            let text = std::str::from_utf8(&payload).expect("UTF-8");
            serde_json::from_str::<serde::de::IgnoredAny>(text).expect("JSON");
            assert!(vector.iter().all(|number| number.is_finite()));
            if let Some(metadata) = embedding.metadata {
                assert!(metadata.starts_with('{') && metadata.ends_with('}'), "{metadata}");
            }
        }
    }
    assert!(accepted > 10_000, "only {accepted} of the damaged records were still good");
}

#[test]
fn deep_nesting_is_read_in_linear_time_without_the_stack() {
    // On a thread whose stack would not survive recursion.
    let reader = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
        let since = Instant::now();
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[1,", "]}]")] {
            let depth = 1_000_000;
            let middle = if open.ends_with(':') { "1" } else { "[]" };
            let nested = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(reason(format!(r#"{{"embedding": [], "unknown": {nested}}}"#)), Ok(()));
            let broken = format!(r#"{{"embedding": [], "unknown": {}"#, open.repeat(depth));
            assert_eq!(reason(broken), Err(RejectReason::BadJson));
            let inside = format!(r#"{{"embedding": [], "metadata": {{"x": {nested}}}}}"#);
            assert_eq!(reason(inside), Err(RejectReason::BadMetadata));
            for field in ["id", "text", "timestamp", "embedding"] {
                assert!(reason(format!(r#"{{"{field}": {nested}}}"#)).is_err());
            }
        }
        assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());
    });
    reader.expect("a thread").join().expect("no panic");
}

#[test]
fn metadata_may_be_128_levels_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let inside = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"embedding": [], "metadata": {{"x": {}}}}}"#, if depth == 1 { "1" } else { &inside })
    };
    assert_eq!(reason(nested(1)), Ok(()));
    assert_eq!(reason(nested(128)), Ok(()));
    assert_eq!(reason(nested(129)), Err(RejectReason::BadMetadata));
}

#[test]
fn metadata_may_have_32_mib_since_jsonb_takes_six_times_as_much_for_small_numbers() {
    let payload =
        |numbers: usize| format!(r#"{{"embedding": [], "metadata": {{"a":[{}1]}}}}"#, "1,".repeat(numbers));
    let most = (32 << 20) / 2 - r#"{"a":[1]}"#.len();
    assert_eq!(reason(payload(most)), Ok(()));
    assert_eq!(reason(payload(most + 9)), Err(RejectReason::BadMetadata));
}

#[test]
fn large_records_are_read_in_linear_time() {
    let since = Instant::now();
    let fields: String =
        (0..300_000).map(|index| format!(r#""unknown {index}": "\u00e9{index}","#)).collect();
    assert_eq!(reason(format!(r#"{{{fields}"embedding": [1]}}"#)), Ok(()));
    let escapes = r"\u00e9\n".repeat(2_000_000);
    assert_eq!(reason(format!(r#"{{"text": "{escapes}", "embedding": [1]}}"#)), Ok(()));
    assert_eq!(reason(format!(r#"{{"metadata": {{"a": "{escapes}"}}, "embedding": [1]}}"#)), Ok(()));
    let white = " \n".repeat(8_000_000);
    assert_eq!(reason(format!(r#"{{"embedding": {white}[{white}1{white}]{white}}}{white}"#)), Ok(()));
    assert_eq!(reason(&white), Err(RejectReason::BadJson));
    assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());
}

#[test]
fn a_message_never_holds_a_value_of_the_record() {
    const CANARY: &str = "c4nary";
    let values = [
        r#""c4nary""#,
        r#""c4nary\u0000""#,
        r#""c4nary\ud800""#,
        r#"["c4nary"]"#,
        r#"{"c4nary": "c4nary\u0000"}"#,
        r#"{"c4nary": 1e99999}"#,
        "c4nary",
        "31415926",
        "[31415926e99]",
        "[31415926 31415926]",
        "[031415926]",
        r#"["c4nary"]"#,
        r#"{"c4nary": "\ud800"}"#,
        r#""31415926-01-01T00:00:00Z""#,
        "31415926e31415926",
        "true",
    ];
    let mut refused = 0;
    for field in ["id", "text", "embedding", "timestamp", "source", "metadata", "table_name", CANARY] {
        for value in values {
            for rest in
                [r#", "embedding": [1]}"#, r#", "id": "c4nary", "c4nary": "c4nary"}"#, " c4nary", "", "}"]
            {
                let payload = format!(r#"{{"{field}": {value}{rest}"#);
                let key = Some(&b"c4nary\xff"[..]);
                let record = SourceRecord { key, ..record(payload.as_bytes()) };
                if let Err(reject) = decode(&record, &mut Vec::new()) {
                    refused += 1;
                    let said = format!("{reject} {reject:?}");
                    assert!(!said.contains(CANARY) && !said.contains("31415926"), "{payload}: {said}");
                }
            }
        }
    }
    assert!(refused > 500);
}

/// Any JSON, with texts that Postgres can hold.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any_text(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.replace('\0', "0"))
}

fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(any_text(), any_json(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// Half of the time nothing, sometimes null.
fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Value::Null)), 4 => value.prop_map(Some)]
}

fn any_embedding() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<f32>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| json!(f64::from(number))),
        any::<f32>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| json!(number)),
        any::<i32>().prop_map(|number| json!(number)),
        (-1.0..1.0_f64).prop_map(|number| json!(number)),
    ];
    prop::collection::vec(number, 0..20).prop_map(Value::from)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn what_is_accepted_is_what_serde_json_reads(
        id in maybe(any_text().prop_filter("not empty", |id| !id.is_empty()).prop_map(Value::from)),
        text in maybe(any_text().prop_map(Value::from)),
        source in maybe(any_text().prop_map(Value::from)),
        table_name in maybe(any_text().prop_map(Value::from)),
        metadata in maybe(any_object()),
        embedding in any_embedding(),
        millis in maybe((-62_135_596_800_000_i64..=253_402_300_799_999).prop_map(Value::from)),
        unknown in prop::collection::btree_map("[a-z\"\\\\é]{0,3}", any_json(), 0..4),
        pretty: bool,
    ) {
        let mut object: Map<String, Value> = unknown.into_iter().filter(|(name, _)| name != "id").collect();
        let known = [
            ("id", &id), ("text", &text), ("source", &source), ("table_name", &table_name),
            ("metadata", &metadata), ("timestamp", &millis),
        ];
        for (name, value) in known {
            object.extend(value.clone().map(|value| (name.to_owned(), value)));
        }
        object.insert("embedding".to_owned(), embedding.clone());
        let payload = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
        let payload = payload.expect("a text");

        let mut vector = Vec::new();
        let decoded = decode(&record(payload.as_bytes()), &mut vector);
        let Ok(Change::Upsert(found)) = decoded else {
            return Err(TestCaseError::fail(format!("{payload} became {decoded:?}")));
        };
        let text_of = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        prop_assert_eq!(Some(found.id.into_owned()), text_of(&id).or_else(|| Some("the key".to_owned())));
        prop_assert_eq!(found.text.map(Cow::into_owned), text_of(&text));
        prop_assert_eq!(found.source.map(Cow::into_owned), text_of(&source));
        prop_assert_eq!(found.table_name.map(Cow::into_owned), text_of(&table_name));
        let micros = millis.as_ref().and_then(Value::as_i64).unwrap_or(1_000) * 1_000;
        prop_assert_eq!(found.timestamp, Some(micros));
        let found_metadata = found.metadata.map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        let sent_metadata = metadata.filter(|value| !value.is_null());
        // Through the text, since serde_json's own floats may change by a bit on the way.
        let again = sent_metadata.map(|value| serde_json::from_str::<Value>(&value.to_string()).expect("JSON"));
        prop_assert_eq!(found_metadata, again);
        let wanted: Vec<u32> = embedding
            .as_array()
            .into_iter()
            .flatten()
            .map(|number| number.to_string().parse::<f32>().expect("a number").to_bits())
            .collect();
        let found: Vec<u32> = vector.iter().map(|number| number.to_bits()).collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn a_field_of_the_wrong_type_is_refused_by_name(value in any_json(), which in 0..7_usize) {
        let (field, wanted) = [
            ("id", RejectReason::BadId), ("text", RejectReason::BadField), ("source", RejectReason::BadField),
            ("table_name", RejectReason::BadField), ("metadata", RejectReason::BadMetadata),
            ("embedding", RejectReason::BadEmbedding), ("timestamp", RejectReason::BadTimestamp),
        ][which];
        let fits = match field {
            "metadata" => value.is_object(),
            "embedding" => value.is_array(),
            "timestamp" => value.is_number(),
            _ => value.is_string(),
        };
        prop_assume!(!fits && !value.is_null());
        let mut object = json!({"embedding": [1.0], "id": "a"});
        object[field] = value;
        prop_assert_eq!(reason(object.to_string()), Err(wanted));
    }

    #[test]
    fn any_bytes_at_all_get_an_answer(payload: Vec<u8>, key: Option<Vec<u8>>, timestamp: Option<i64>) {
        let record = SourceRecord { offset: 0, timestamp, key: key.as_deref(), payload: Some(&payload), headers: Headers::default(), omitted: 0 };
        prop_assert!(decode(&record, &mut Vec::new()).is_err());
    }
}
