//! The framework's own blocks: `meta` in its three versions, the consumer, transforms, and Fluvio as a source.

use super::*;
use crate::framework::config::{Compression, ConsumerSettings, Partitions, TopicSettings, Transform};

/// A configuration of the framework: no `source`, so the topic is read from Fluvio.
const FLUVIO: &str = "\
apiVersion: 0.1.0
meta: {name: docs, type: embedsink, version: 0.1.0, topic: embeddings}
embedsink:
  sink: {postgres: {url: postgres://postgres@localhost/db}}
  tables: {embeddings: {dimensions: 384}}
";

fn with_meta(keys: &str) -> String {
    FLUVIO.replace("topic: embeddings}", &format!("topic: embeddings, {keys}}}"))
}

fn with_consumer(keys: &str) -> String {
    with_meta(&format!("consumer: {{{keys}}}"))
}

fn consumer(keys: &str) -> ConsumerSettings {
    fluvio(&read(&with_consumer(keys)).unwrap()).consumer.clone()
}

/// The file in version 0.2.0, with this as the topic.
fn described(topic: &str) -> String {
    FLUVIO.replace("0.1.0\nmeta", "0.2.0\nmeta").replace("topic: embeddings}", &format!("topic: {topic}}}"))
}

fn with_transforms(lines: &str) -> String {
    format!("{FLUVIO}transforms:\n{lines}\n")
}

#[test]
fn the_sample_that_cdk_test_runs_reads_from_fluvio() {
    let settings = read(include_str!("../../../sample-config.yaml")).unwrap();
    assert!(fluvio(&settings).create_topic);
}

#[test]
fn without_a_source_the_topic_of_meta_is_read_from_fluvio() {
    let settings = read(FLUVIO).unwrap();
    let expected = FluvioSettings {
        topic: TopicSettings::named("embeddings"),
        create_topic: false,
        profile: None,
        consumer: ConsumerSettings {
            id: "docs".to_owned(),
            partitions: Partitions::All,
            max_bytes: None,
            start: StartAt::Beginning,
            report_every: Some(Duration::from_secs(10)),
        },
        transforms: Vec::new(),
    };
    assert_eq!(settings.source, SourceSettings::Fluvio(expected));
    let named = format!("{FLUVIO}  source: {{fluvio: {{profile: cloud, create-topic: true}}}}\n");
    let named = read(&named).unwrap();
    assert_eq!((fluvio(&named).profile.as_deref(), fluvio(&named).create_topic), (Some("cloud"), true));
    // The block says nothing that its absence does not.
    assert_eq!(read(&format!("{FLUVIO}  source: {{fluvio: {{}}}}\n")).unwrap(), settings);
}

#[test]
fn all_versions_of_the_format_name_the_same_topic() {
    let versions = [
        FLUVIO.replace("apiVersion: 0.1.0\n", ""),
        FLUVIO.replace("apiVersion: 0.1.0", "apiVersion: 0.0.0"),
        FLUVIO.to_owned(),
        described("{meta: {name: embeddings}}"),
    ];
    for text in versions {
        assert_eq!(read(&text).unwrap(), read(FLUVIO).unwrap(), "{text}");
        let from_kafka = format!("{text}  source: {{kafka: {{bootstrap-servers: a:1}}}}\n");
        assert_eq!(kafka(&read(&from_kafka).unwrap()).topics, ["embeddings"], "{text}");
    }
}

#[test]
fn a_topic_of_0_2_0_is_taken_as_it_is_described() {
    let text = described(
        "{version: 0.1.1, meta: {name: embeddings}, partition: {count: 3, max-size: 1.0 KB, replication: 2, \
         ignore-rack-assignment: true}, retention: {time: 2m, segment-size: 2.0 KB}, compression: {type: Lz4}}",
    );
    let expected = TopicSettings {
        name: "embeddings".to_owned(),
        partitions: 3,
        replication: 2,
        ignore_rack_assignment: true,
        retention: Some(Duration::from_secs(120)),
        segment_size: Some(2000),
        max_partition_size: Some(1000),
        compression: Some(Compression::Lz4),
    };
    assert_eq!(fluvio(&read(&text).unwrap()).topic, expected);
    let compressed = |word: &str| {
        let text = described(&format!("{{meta: {{name: t}}, compression: {{type: {word}}}}}"));
        fluvio(&read(&text).unwrap()).topic.compression
    };
    assert_eq!((compressed("Any"), compressed("any")), (Some(Compression::Any), Some(Compression::Any)));
    assert_eq!((compressed("None"), compressed("ZSTD")), (Some(Compression::None), Some(Compression::Zstd)));
}

#[test]
fn a_consumer_is_taken_as_it_is_described() {
    let full = consumer(
        "id: c, partition: [5, 0, 2], max-bytes: 1MiB, offset: {strategy: manual, start: {absolute: 100}, \
         flush-period: {secs: 160, nanos: 500000000}}",
    );
    let expected = ConsumerSettings {
        id: "c".to_owned(),
        partitions: Partitions::Listed(vec![0, 2, 5]),
        max_bytes: Some(1 << 20),
        start: StartAt::Absolute(100),
        report_every: Some(Duration::from_millis(160_500)),
    };
    assert_eq!(full, expected);
    assert_eq!(consumer("partition: all").partitions, Partitions::All);
    assert_eq!(consumer("partition: 10").partitions, Partitions::Listed(vec![10]));
    assert_eq!(consumer("max_bytes: 1 MB").max_bytes, Some(1_000_000));
    assert_eq!(consumer("offset: {strategy: none}").report_every, None);
    for period in ["10s", "{secs: 10}", "{secs: 10, nanos: 0}"] {
        let every = consumer(&format!("offset: {{strategy: manual, flush-period: {period}}}")).report_every;
        assert_eq!(every, Some(Duration::from_secs(10)), "{period}");
    }
    for (start, expected) in [
        ("beginning", StartAt::Beginning),
        ("end", StartAt::End),
        ("{absolute: 9007199254740993}", StartAt::Absolute(9_007_199_254_740_993)),
        ("{from-beginning: 14}", StartAt::FromBeginning(14)),
        ("{from_end: 12}", StartAt::FromEnd(12)),
    ] {
        assert_eq!(consumer(&format!("offset: {{start: {start}}}")).start, expected, "{start}");
    }
}

#[test]
fn transforms_keep_their_order_and_give_everything_but_text_as_json() {
    let text = with_transforms(
        "  - uses: infinyon/json-sql@0.2.1
    with:
      plain: value
      number: 1.50
      boolean: true
      list: [1, 1.5, two, '3', null, true]
      mapping: {table: t, map-columns: {b: {type: int, required: true}, a: \"it's \\\"quoted\\\"\"}}
  - {uses: other}
  - uses: last",
    );
    let settings = read(&text).unwrap();
    let with = [
        ("plain", "value"),
        ("number", "1.50"),
        ("boolean", "true"),
        ("list", r#"[1,1.5,"two","3",null,true]"#),
        (
            "mapping",
            r#"{"map-columns":{"a":"it's \"quoted\"","b":{"required":true,"type":"int"}},"table":"t"}"#,
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let step = |uses: &str| Transform { uses: uses.to_owned(), with: BTreeMap::new() };
    let expected = [
        Transform { uses: "infinyon/json-sql@0.2.1".to_owned(), with: with.into() },
        step("other"),
        step("last"),
    ];
    assert_eq!(fluvio(&settings).transforms, expected);
    assert!(fluvio(&read(&format!("{FLUVIO}transforms: []\n")).unwrap()).transforms.is_empty());
    assert!(fluvio(&read(&format!("{FLUVIO}transforms:\n")).unwrap()).transforms.is_empty());
}

#[test]
fn secrets_reach_transforms_and_show_in_no_message_and_no_debug() {
    let text = with_transforms(
        "  - uses: s\n    with: {a: 'x${{ secrets.S }}', b: [{secret: {name: S}}, '${{ secrets.S }}']}",
    )
    .replace("topic: embeddings}", "topic: embeddings, secrets: [{name: S}]}");
    let settings = read_with(&text, &[("S", CANARY)]).unwrap();
    let with = &fluvio(&settings).transforms[0].with;
    assert_eq!(with["a"], format!("x{CANARY}"));
    assert_eq!(with["b"], format!(r#"["{CANARY}","{CANARY}"]"#));
    assert!(!format!("{settings:?}").contains(CANARY), "{settings:?}");

    // What goes into `meta`, and what follows it.
    let places = [
        ("topic: 'a SECRET'", ""),
        (
            "topic: {meta: {name: 'a SECRET'}, partition: {count: SECRET, max-size: SECRET}}",
            "apiVersion: 0.2.0",
        ),
        (
            "topic: {meta: {name: a}, retention: {time: SECRET}, compression: {type: SECRET}}",
            "apiVersion: 0.2.0",
        ),
        ("consumer: {id: [SECRET], partition: SECRET, max-bytes: SECRET}", ""),
        ("consumer: {partition: [SECRET, SECRET]}", ""),
        ("consumer: {offset: {strategy: SECRET, start: SECRET, flush-period: SECRET}}", ""),
        ("consumer: {offset: {start: {absolute: SECRET}, flush-period: {secs: SECRET}}}", ""),
        ("topic: a", "apiVersion: SECRET"),
        ("topic: a", "transforms: [{uses: [SECRET]}]"),
        ("topic: a", "transforms: [{uses: a, with: {b: {c: [SECRET]}, d: [0x10, SECRET]}}]"),
        ("topic: a", "embedsink: {source: {fluvio: {profile: [SECRET], create-topic: SECRET}}}"),
    ];
    for (meta, rest) in places {
        let text = format!("meta: {{name: d, secrets: [{{name: S}}], {meta}}}\n{rest}\n");
        let text = text.replace("'a SECRET'", "'a ${{ secrets.S }}'").replace("SECRET", "'${{ secrets.S }}'");
        let with_source = if rest.contains("embedsink") { text } else { format!("{text}embedsink: {{}}\n") };
        let error = read_with(&with_source, &[("S", CANARY)]).unwrap_err();
        assert!(!format!("{error}{error:?}").contains(CANARY), "{error}");
        let own = error.problems.iter().filter(|problem| problem.what != "missing").count();
        assert!(own > 0, "nothing was wrong with {meta} {rest}");
    }
}

#[test]
fn a_build_without_fluvio_says_so() {
    let problems = |text: &str| {
        let build = Build { fluvio: false, lancedb: false };
        let error =
            read_text("c.yaml", text, &SecretStore::environment(), &no_environment, build).unwrap_err();
        error.problems.iter().map(|problem| problem.to_string()[1..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(FLUVIO),
        [
            "3:1: embedsink.source: missing: the source would be Fluvio, and this build has no Fluvio in it; name \
          `embedsink.source.kafka`, or take a build with the feature `fluvio`"
        ]
    );
    assert_eq!(
        problems(&format!("{FLUVIO}  source: {{fluvio: {{}}}}\n")),
        [
            "6:12: embedsink.source.fluvio: this build has no Fluvio in it; name `embedsink.source.kafka`, or take a \
          build with the feature `fluvio`"
        ]
    );
    assert_eq!(
        problems(&format!("{FLUVIO}  source: {{}}\n")),
        ["6:3: embedsink.source: names no source; add `kafka`; this build has no Fluvio in it"]
    );
}

#[test]
fn what_is_wrong_with_the_consumer_is_said_even_where_the_source_is_not_clear() {
    let text = format!("{}  source: {{}}\ntransforms: [{{}}]\n", with_consumer("partition: []"));
    let found = problems(&text);
    let paths: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").nth(1)).collect();
    assert_eq!(paths, ["meta.consumer.partition", "embedsink.source", "transforms[0].uses"], "{found:?}");
}

#[test]
fn each_mistake_with_fluvio_has_its_sentence() {
    assert_sentences(cases());
}

/// A file, and its one problem. One case a line, so that they can be read side by side.
#[rustfmt::skip]
fn cases() -> Vec<(String, &'static str)> { vec![
    // Versions of the format.
    (FLUVIO.replace("apiVersion: 0.1.0", "apiVersion: 0.3.0"), "1:13: apiVersion: this build knows no apiVersion `0.3.0`; write `apiVersion: 0.1.0`, or 0.2.0 if `meta.topic` is a mapping"),
    (FLUVIO.replace("apiVersion: 0.1.0", "apiVersion: 0.2.0"), "2:60: meta.topic: with apiVersion 0.2.0 the topic is a mapping; text is the form of 0.0.0 and 0.1.0; write `topic: {meta: {name: NAME}}`, or `apiVersion: 0.1.0`"),
    (described("{meta: {name: t}}").replace("0.2.0", "0.1.0"), "2:60: meta.topic: with apiVersion 0.1.0 the topic is text; a mapping is the form of apiVersion 0.2.0; write `topic: NAME`, or `apiVersion: 0.2.0`"),
    (described("{meta: {name: t}}").replace("apiVersion: 0.2.0\n", ""), "1:60: meta.topic: without `apiVersion` the topic is text; a mapping is the form of apiVersion 0.2.0; write `topic: NAME`, or `apiVersion: 0.2.0`"),
    // The topic.
    (FLUVIO.replace(", topic: embeddings", ""), "2:1: meta.topic: missing: the source is Fluvio, and no topic is named; add the topic, or `embedsink.source.kafka` to read from Kafka"),
    (FLUVIO.replace("topic: embeddings", "topic: my_Topic"), "2:60: meta.topic: `my_Topic` cannot name a Fluvio topic; use 1 to 63 lower-case letters, digits and `-`, and no `-` at either end"),
    (described("{meta: {name: a-}}"), "2:74: meta.topic.meta.name: `a-` cannot name a Fluvio topic; use 1 to 63 lower-case letters, digits and `-`, and no `-` at either end"),
    (described("{meta: {}}"), "2:61: meta.topic.meta.name: missing; name the topic"),
    (described("{}"), "2:53: meta.topic.meta: missing; add `meta: {name: NAME}`"),
    (described("{name: t}"), "2:61: meta.topic.name: unknown key; it belongs under `meta.topic.meta`"),
    (described("{meta: {name: t}, partition: {count: 0}}"), "2:97: meta.topic.partition.count: `0` is out of range: a topic has at least one partition; give 1 to 10000"),
    (described("{meta: {name: t}, partition: {maps: [{id: 0, replicas: [1]}]}}"), "2:90: meta.topic.partition.maps: the connector leaves to the cluster which server keeps which partition; create the topic with `fluvio topic create --config`, and remove this; or give `count` and `replication`"),
    (described("{meta: {name: t}, partition: {max-partition-size: 1MB}}"), "2:90: meta.topic.partition.max-partition-size: unknown key; known keys are: count, replication, ignore-rack-assignment, max-size"),
    (described("{meta: {name: t}, partition: {ignore-rack-assignment: 1}}"), "2:114: meta.topic.partition.ignore-rack-assignment: `1` is not known here; give `true` or `false`"),
    (described("{meta: {name: t}, retention: {time: 1500ms}}"), "2:96: meta.topic.retention.time: `1500ms` is no whole number of seconds, as Fluvio counts it; round it"),
    (described("{meta: {name: t}, retention: {segment-size: 5GB}}"), "2:104: meta.topic.retention.segment-size: `5GB` is out of range: Fluvio counts a segment in 32 bits; give 1B to 4294967295B"),
    (described("{meta: {name: t}, compression: {type: brotli}}"), "2:98: meta.topic.compression.type: `brotli` is not known here; give `any` or `none` or `gzip` or `snappy` or `lz4` or `zstd`"),
    (described("{meta: {name: t}, deduplication: {bounds: {count: 1}}}"), "2:78: meta.topic.deduplication: the connector creates no topic that drops records; create the topic with `fluvio topic create --config`, and remove this"),
    // The consumer.
    (with_consumer("partition: some"), "2:94: meta.consumer.partition: `some` is no partition; give `all`, a number, or a list of numbers"),
    (with_consumer("partition: []"), "2:94: meta.consumer.partition: the list is empty; name at least one, or write `all`"),
    (with_consumer("partition: [1, 1]"), "2:98: meta.consumer.partition[1]: `1` is named twice; keep one"),
    (with_consumer("partition: -1"), "2:94: meta.consumer.partition: `-1` is out of range: partitions are numbered from 0; give 0 to 2147483647"),
    (with_consumer("max-bytes: 1KiB"), "2:94: meta.consumer.max-bytes: `1KiB` is out of range: an answer needs room for a record, and is kept in memory; give 64KiB to 1GiB"),
    (with_consumer("max-bytes: 2GiB"), "2:94: meta.consumer.max-bytes: `2GiB` is out of range: an answer needs room for a record, and is kept in memory; give 64KiB to 1GiB"),
    (with_consumer("offset: {strategy: auto}"), "2:102: meta.consumer.offset.strategy: with `auto`, Fluvio commits a record's offset when it hands the record out, before it is written: a crash would lose it; write `manual`, or `none`; positions are stored together with the rows"),
    (with_consumer("offset: {strategy: automatic}"), "2:102: meta.consumer.offset.strategy: `automatic` is not known here; give `manual` or `none`"),
    (with_consumer("offset: {strategy: none, flush-period: 1s}"), "2:122: meta.consumer.offset.flush-period: contradicts `strategy: none`, with which Fluvio is told nothing; remove it, or write `strategy: manual`"),
    (with_consumer("offset: {flush-period: 10}"), "2:106: meta.consumer.offset.flush-period: `10` has no unit; add a unit: `10ms` or `10s`"),
    (with_consumer("offset: {flush-period: {nanos: 5}}"), "2:92: meta.consumer.offset.flush-period.secs: missing; write `{secs: 10, nanos: 0}`, or `10s`"),
    (with_consumer("offset: {flush-period: {secs: 0, nanos: 5}}"), "2:106: meta.consumer.offset.flush-period: the value is out of range: Fluvio is told this often how far the connector is; give 100ms to 1h"),
    (with_consumer("offset: {start: middle}"), "2:99: meta.consumer.offset.start: `middle` is not known here; give `beginning` or `end`, or a mapping with `absolute`, `from-beginning` or `from-end`"),
    (with_consumer("offset: {start: {absolute: -1}}"), "2:110: meta.consumer.offset.start.absolute: `-1` is out of range: offsets begin at 0; give 0 to 9223372036854775807"),
    (with_consumer("offset: {start: {absolute: 1, from-end: 2}}"), "2:99: meta.consumer.offset.start: a start is one of `absolute`, `from-beginning` and `from-end`; give exactly one of them"),
    (with_consumer("offset: {start: {from-start: 2}}"), "2:100: meta.consumer.offset.start.from-start: unknown key; known keys are: absolute, from-beginning, from-end"),
    (with_meta("producer: {linger: 1ms}"), "2:72: meta.producer: this connector is a sink, and produces nothing; remove it"),
    (format!("{FLUVIO}consumer: {{partition: 1}}"), "6:1: consumer: a consumer block belongs under `meta`, and nothing would read it here; move it to `meta.consumer`"),
    (format!("{FLUVIO}  consumer: {{partition: 1}}"), "6:3: embedsink.consumer: a consumer block belongs under `meta`, and nothing would read it here; move it to `meta.consumer`"),
    // Transforms.
    (with_transforms("  uses: a"), "7:3: transforms: expected a list, found a mapping; write `[a, b]`, or one item a line after `- `"),
    (with_transforms("  - with: {a: 1}"), "7:5: transforms[0].uses: missing; name the SmartModule, such as `group/name@0.1.0`"),
    (with_transforms("  - {uses: a, with: {b: }}"), "7:22: transforms[0].with.b: the key has no value; give one, or remove the key"),
    (with_transforms("  - {uses: a, with: {b: [0x10]}}"), "7:26: transforms[0].with.b[0]: `0x10` is no number to JSON; write it in decimal, or in quotes"),
    (with_transforms("  - {uses: a, with: {b: '${{ secrets.S }}'}}"), "7:25: transforms[0].with.b: the secret `S` is not declared; add `- name: S` to `meta.secrets`"),
    (with_transforms("  - {uses: a, lookback: {last: 3}}"), "7:15: transforms[0].lookback: what a SmartModule remembers of earlier records would be another thing after each restart, and so would the rows; remove it"),
    (with_transforms("  - {uses: a, invoke: insert}"), "7:15: transforms[0].invoke: the connector runs a SmartModule as what it is; remove it"),
    (format!("{FLUVIO}  transforms: []"), "6:3: embedsink.transforms: transforms stand at the top of the file, beside `meta`, and nothing would run them here; move them to the top"),
    // The source.
    (format!("{FLUVIO}  source:"), "6:3: embedsink.source: names no source; add `kafka` or `fluvio`, or remove the block to read `meta.topic` from Fluvio"),
    (format!("{FLUVIO}  sourc: {{}}"), "6:3: embedsink.sourc: unknown key; did you mean `source`?"),
    (format!("{FLUVIO}  source: {{kafak: {{}}}}"), "6:12: embedsink.source.kafak: unknown key; did you mean `kafka`?"),
    (format!("{FLUVIO}  source: {{fluvio: {{}}, kafka: {{bootstrap-servers: a:1}}}}"), "6:12: embedsink.source.fluvio: contradicts `embedsink.source.kafka`: a connector reads from one source; keep one of them"),
    (format!("{FLUVIO}  source: {{fluvio: {{topic: t}}}}"), "6:21: embedsink.source.fluvio.topic: unknown key; it belongs under `meta`"),
    (format!("{FLUVIO}  source: {{fluvio: {{create-topic: perhaps}}}}"), "6:35: embedsink.source.fluvio.create-topic: `perhaps` is not known here; give `true` or `false`"),
    (format!("{}  source: {{kafka: {{bootstrap-servers: a:1}}}}", with_meta("consumer: {}")), "2:72: meta.consumer: it belongs to a Fluvio topic; `embedsink.source.kafka` reads from Kafka, and nothing would use it; remove it; `embedsink.source.kafka.start` says where to begin"),
    (format!("{FLUVIO}  source: {{kafka: {{bootstrap-servers: a:1}}}}\ntransforms: []"), "7:1: transforms: a Fluvio cluster runs transforms; `embedsink.source.kafka` reads from Kafka, and nothing would run them; remove them"),
] }
