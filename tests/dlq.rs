//! Dead letters as people deal with them: `embedsink dlq list | show | replay | purge`.

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{Database, one, positions, run};
use crate::support::record::Shape;

const PLAIN: Shape =
    Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 20, tombstones: 10, damaged: 0 };

/// A second table, which the connector does not know at first.
const ARTICLES: &str = "\narticles: {dimensions: 3}";

/// A connector with its database and topic, and what was sent so far.
struct Office {
    connector: Connector,
    database: Database,
    topic: Topic,
    client: Client,
    sent: usize,
}

impl Office {
    async fn open() -> Self {
        let (database, topic) = (Database::create().await, Topic::create(1).await);
        let connector = Connector::restless(&topic, &database, &PLAIN);
        connector.migrate().await;
        let client = database.connect().await;
        Self { connector, database, topic, client, sent: 0 }
    }

    /// Sends records, each with a timestamp of its own, and lets the connector take them.
    async fn takes(&mut self, payloads: &[&[u8]]) {
        let producer = TopicProducer::new(&self.topic);
        for payload in payloads {
            self.sent += 1;
            producer.send(0, 1_000 * self.sent as i64, None, Some(payload));
        }
        producer.finish();
        let mut process = self.connector.start();
        process.settles(&self.client, self.sent).await;
        process.stop().await;
    }

    /// The arguments of `dlq`, with the configuration as it is now.
    fn arguments<'a>(&self, path: &'a str, words: &'a str) -> Vec<&'a str> {
        self.connector.write();
        let words = words.split_whitespace();
        let command = words.clone().take(1);
        ["dlq"].into_iter().chain(command).chain(["--config", path]).chain(words.skip(1)).collect()
    }

    /// What `dlq` prints.
    async fn dlq(&self, words: &str) -> String {
        let path = self.connector.path();
        self.connector.run(&self.arguments(&path, words)).outputs().await
    }

    /// What `dlq` logs when it ends with this code.
    async fn dlq_fails(&self, code: i32, words: &str) -> String {
        let path = self.connector.path();
        self.connector.run(&self.arguments(&path, words)).ends_with(code).await
    }

    /// The letters that `dlq list` gives with these filters.
    async fn list(&self, filters: &str) -> Vec<Value> {
        let text = self.dlq(&format!("list --json {filters}")).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Their offsets.
    async fn offsets(&self, filters: &str) -> Vec<i64> {
        self.list(filters).await.iter().map(|letter| letter["offset"].as_i64().unwrap()).collect()
    }

    async fn count(&self, sql: &str) -> i64 {
        one(&self.client, &format!("select count(*) from {sql}")).await
    }

    /// Everything that a replay could change, but for the clock.
    async fn state(&self) -> String {
        one(
            &self.client,
            "select (select coalesce(string_agg(l::text, '|' order by id), '') from
                      (select id, reason, sqlstate, message, tries, table_name from embedsink.dead_letters) as l)
                 || (select coalesce(string_agg(e::text || e.xmin::text, '|' order by id), '') from embeddings as e)
                 || (select string_agg(o::text, '|') from embedsink.offsets as o)",
        )
        .await
    }
}

fn article(id: &str, text: &str) -> Vec<u8> {
    format!(r#"{{"id": "{id}", "embedding": [1, 2, 3], "text": "{text}", "table_name": "articles"}}"#)
        .into_bytes()
}

fn row(id: &str, text: &str) -> Vec<u8> {
    format!(r#"{{"id": "{id}", "embedding": [1, 2, 3], "text": "{text}"}}"#).into_bytes()
}

/// Two good records, and between them one for each of five reasons.
const MIXED: [&[u8]; 7] = [
    br#"{"id": "a", "embedding": [1, 2, 3]}"#,
    br#"{"id": "a", "embedding": [1, 2,"#,
    br#"{"id": "a", "embedding": [1, 2]}"#,
    br#"{"id": "a", "embedding": [1, 2, 3], "table_name": "articles"}"#,
    br#"{"embedding": [1, 2, 3]}"#,
    b"\xff\xfe",
    br#"{"id": "b", "embedding": [1, 2, 3]}"#,
];

#[tokio::test]
async fn letters_are_found_by_each_filter_and_only_by_their_own_connector() {
    let mut office = Office::open().await;
    office.takes(&MIXED).await;
    assert_eq!(office.offsets("").await, [1, 2, 3, 4, 5]);
    assert_eq!(office.offsets("--reason bad_json").await, [1]);
    assert_eq!(office.offsets("--reason missing_id --reason wrong_dimension").await, [2, 4]);
    assert_eq!(office.offsets("--table embeddings").await, [2]);
    assert_eq!(office.offsets("--partition 0 --offset 2..4").await, [2, 3, 4]);
    assert_eq!(office.offsets("--offset 5").await, [5]);
    assert_eq!(office.offsets("--partition 1").await, [0_i64; 0]);
    assert_eq!(office.offsets(&format!("--topic {}", office.topic.name())).await.len(), 5);
    assert_eq!(office.offsets("--topic other").await, [0_i64; 0]);
    assert_eq!(office.offsets("--since 1h").await.len(), 5);
    assert_eq!(office.offsets("--since 2099-01-01T00:00:00Z").await, [0_i64; 0]);
    assert_eq!(office.offsets("--until 1h").await, [0_i64; 0]);
    let all = office.list("").await;
    assert_eq!(office.list(&format!("--id {}", all[1]["id"])).await, all[1..2]);
    let (reason, message) = (all[0]["reason"].as_str().unwrap(), all[0]["message"].as_str().unwrap());
    assert!(reason == "bad_json" && !message.is_empty(), "{:?}", all[0]);
    let since = all[0]["first_seen"].as_str().unwrap();
    assert_eq!(office.offsets(&format!("--since {since}")).await.len(), 5, "its own times are understood");

    let table = office.dlq("list --limit 2").await;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("bad_json") && table.contains("first seen"), "{table}");
    let path = office.connector.path();
    let process = office.connector.run(&office.arguments(&path, "list --limit 2"));
    assert!(process.ends_with(0).await.contains("3 more"));
    assert!(office.dlq("list --reason too_large").await.contains("no dead letters"));

    run(&office.client, "update embedsink.dead_letters set connector = 'another'").await;
    assert_eq!(office.offsets("").await, [0_i64; 0]);
    let id = all[0]["id"].as_i64().unwrap();
    assert!(office.dlq_fails(1, &format!("show {id}")).await.contains("has no dead letter"));
    office.dlq("purge --yes").await;
    office.dlq("replay").await;
    assert_eq!(office.count("embedsink.dead_letters where tries = 1").await, 5);
}

#[tokio::test]
async fn a_letter_is_shown_whole_and_its_payload_byte_for_byte() {
    let mut office = Office::open().await;
    let producer = TopicProducer::new(&office.topic);
    producer.send(0, 1_700_000_000_000, Some(b"key-1"), Some(b"{\"id\": 1}"));
    producer.finish();
    office.sent = 1;
    office.takes(&[b"\xff\x00\x1b[31m"]).await;
    let letters = office.list("").await;
    let shown = office.dlq(&format!("show {}", letters[0]["id"])).await;
    for part in ["bad_id", "key-1", "2023-11-14T22:13:20", "{\"id\": 1}", "9 bytes", "offset 0"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown = office.dlq(&format!("show {}", letters[1]["id"])).await;
    assert!(shown.contains("base64 /wAbWzMxbQ=="), "{shown}");
    let path = office.connector.path();
    let words = format!("show {} --payload", letters[1]["id"]);
    let process = office.connector.run(&office.arguments(&path, &words));
    let output = process.output().to_owned();
    process.ends_with(0).await;
    assert_eq!(std::fs::read(output).unwrap(), b"\xff\x00\x1b[31m");
}

#[tokio::test]
async fn a_purge_deletes_what_the_filters_say_and_never_without_consent() {
    let mut office = Office::open().await;
    office.takes(&MIXED).await;
    assert!(office.dlq("purge --reason bad_json --dry-run").await.contains("would delete 1 dead letter;"));
    let refused = office.dlq_fails(1, "purge").await;
    assert!(refused.contains("Add a filter, or --yes"), "{refused}");
    let refused = office.dlq_fails(1, "purge --reason bad_json").await;
    assert!(refused.contains("no terminal"), "{refused}");
    assert_eq!(office.offsets("").await, [1, 2, 3, 4, 5]);
    assert!(office.dlq("purge --reason bad_json --yes").await.contains("deleted 1 dead letter\n"));
    assert!(office.dlq("purge --offset 4..9 --yes").await.contains("deleted 2 dead letters"));
    assert_eq!(office.offsets("").await, [2, 3]);
    assert!(office.dlq("purge --yes").await.contains("deleted 2 dead letters"));
    assert_eq!(office.offsets("").await, [0_i64; 0]);
    assert_eq!(office.count("embeddings").await, 2, "rows are not touched");
}

#[tokio::test]
async fn a_purge_on_a_terminal_goes_on_only_when_the_number_of_letters_is_typed() {
    let mut office = Office::open().await;
    office.takes(&MIXED).await;
    let path = office.connector.path();
    let arguments = office.arguments(&path, "purge --partition 0");
    for answer in ["", "yes", "4", "50"] {
        let (process, _terminal) = office.connector.run_on_terminal(&arguments, answer);
        let log = process.ends_with(1).await;
        assert!(
            log.contains("5 dead letters will be deleted for good. To go on, type their number"),
            "{log}"
        );
        assert!(log.contains("nothing was deleted"), "{answer:?}: {log}");
    }
    assert_eq!(office.offsets("").await, [1, 2, 3, 4, 5]);
    let (process, _terminal) = office.connector.run_on_terminal(&arguments, " 5 ");
    assert!(process.outputs().await.contains("deleted 5 dead letters"));
    assert_eq!(office.offsets("").await, [0_i64; 0]);
}

#[tokio::test]
async fn once_the_configuration_is_mended_a_replay_writes_what_can_be_used_and_keeps_the_rest() {
    let mut office = Office::open().await;
    let articles: Vec<Vec<u8>> =
        (0..700).map(|n| article(&format!("id-{}", n % 350), &format!("text {n}"))).collect();
    let records: Vec<&[u8]> = MIXED.into_iter().chain(articles.iter().map(Vec::as_slice)).collect();
    office.takes(&records).await;
    assert_eq!(office.count("embedsink.dead_letters").await, 705);
    let nothing = office.dlq("replay").await;
    assert!(nothing.contains("0 written") && nothing.contains("705 still refused"), "{nothing}");
    assert_eq!(office.count("embedsink.dead_letters where tries = 2").await, 705);

    office.connector.tables.push_str(ARTICLES);
    let text = office.dlq_fails(78, "replay").await;
    assert!(text.contains("table \"articles\""), "it makes no tables: {text}");
    office.connector.migrate().await;
    let before = office.state().await;
    let positions_before = positions(&office.client, office.topic.name()).await;
    let tried = office.dlq("replay --dry-run").await;
    assert!(tried.contains("would replay 705") && tried.contains("701 written"), "{tried}");
    assert_eq!(office.state().await, before, "a dry run changes nothing");
    assert_eq!(office.count("articles").await, 0);

    let told = office.dlq("replay").await;
    assert!(told.contains("replayed 705") && told.contains("701 written"), "{told}");
    assert!(told.contains("4 still refused") && told.contains("bad_json 1"), "{told}");
    assert_eq!(office.count("articles").await, 351);
    let in_order = "articles where id = 'a' or text = 'text ' || (substr(id, 4)::int + 350)";
    assert_eq!(office.count(in_order).await, 351, "the last record of a key wins");
    assert_eq!(office.offsets("").await, [1, 2, 4, 5]);
    assert_eq!(office.count("embedsink.dead_letters where tries = 3 and last_tried > first_seen").await, 4);
    assert_eq!(positions(&office.client, office.topic.name()).await, positions_before);

    let rows = "select string_agg(a::text || a.xmin::text, '|' order by id) from articles as a";
    let written: String = one(&office.client, rows).await;
    assert!(office.dlq("replay").await.contains("0 written"));
    assert_eq!(one::<String>(&office.client, rows).await, written, "a second replay changes no row");
    assert_eq!(office.offsets("").await, [1, 2, 4, 5], "and no letter comes or goes");
}

#[tokio::test]
async fn a_replay_never_overwrites_a_row_that_is_at_least_as_new() {
    let mut office = Office::open().await;
    office.takes(&[&article("n", "old"), &article("m", "only"), &article("d", "deleted later")]).await;
    office.connector.tables.push_str(ARTICLES);
    office.takes(&[&article("n", "new")]).await;
    let told = office.dlq("replay").await;
    assert!(told.contains("2 written, 1 superseded"), "{told}");
    let text: String = one(&office.client, "select text from articles where id = 'n'").await;
    assert_eq!(text, "new");
    let left = office.list("").await;
    assert!(left.len() == 1 && left[0]["reason"] == "superseded" && left[0]["tries"] == 2, "{left:?}");

    assert!(office.dlq("replay").await.contains("replayed 0 dead letters"), "it is left out from now on");
    let told = office.dlq("replay --reason superseded").await;
    assert!(told.contains("0 written, 1 superseded"), "unless it is asked for: {told}");
    assert!(office.dlq("purge --reason superseded --yes").await.contains("deleted 1 dead letter"));
    assert_eq!(office.count("embedsink.dead_letters").await, 0);
}

#[tokio::test]
async fn a_row_of_which_the_age_is_not_known_is_not_overwritten() {
    let mut office = Office::open().await;
    office.takes(&[&article("n", "letter"), &article("m", "letter")]).await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    run(&office.client, "insert into articles (id, text, embedding) values ('n', 'row', '[1, 2, 3]')").await;
    let told = office.dlq("replay").await;
    assert!(told.contains("1 written, 1 superseded"), "{told}");
    assert_eq!(office.count("articles where id = 'n' and text = 'row'").await, 1);
    let left = office.list("").await;
    assert!(left[0]["message"].as_str().unwrap().contains("no timestamp"), "{left:?}");
}

/// Refuses deletions, so that tombstones become letters.
const KEEP_ALL: &str = "
    create function keep() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
    create trigger keep before delete on embeddings for each row execute function keep();";

#[tokio::test]
async fn a_tombstone_deletes_a_row_that_is_there_only_when_it_is_asked_for_by_number() {
    let mut office = Office::open().await;
    let keys = ["later", "older", "gone", "undated"];
    let rows: Vec<Vec<u8>> = keys.iter().map(|key| row(key, "first")).collect();
    let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    office.takes(&rows).await;
    run(&office.client, KEEP_ALL).await;
    let producer = TopicProducer::new(&office.topic);
    for key in keys {
        producer.send(0, 50_000, Some(key.as_bytes()), None);
    }
    producer.finish();
    office.sent += keys.len();
    office.takes(&[]).await;
    // Written after its tombstone, with a `timestamp` of its own that lies before.
    let dated = br#"{"id": "later", "embedding": [1, 2, 3], "text": "second", "timestamp": 40000}"#;
    office.takes(&[dated]).await;
    assert_eq!(office.offsets("--reason refused").await, [4, 5, 6, 7]);
    run(
        &office.client,
        "drop trigger keep on embeddings; delete from embeddings where id = 'gone';
         update embeddings set \"timestamp\" = null where id = 'undated'",
    )
    .await;

    let told = office.dlq("replay").await;
    assert!(told.contains("1 written, 3 superseded"), "what is gone needs no deletion: {told}");
    assert_eq!(office.count("embeddings").await, 3, "no row is deleted");
    assert_eq!(office.count("embeddings where id = 'later' and text = 'second'").await, 1);
    let left = office.list("").await;
    assert!(left.iter().all(|letter| letter["message"].as_str().unwrap().contains("by --id")), "{left:?}");
    let again = office.dlq("replay --reason superseded").await;
    assert!(again.contains("0 written, 3 superseded"), "a filter is not enough: {again}");

    let id_at =
        |offset: i64| left.iter().find(|letter| letter["offset"] == offset).unwrap()["id"].to_string();
    let told = office.dlq(&format!("replay --id {} --id {}", id_at(5), id_at(7))).await;
    assert!(told.contains("1 written, 1 superseded"), "{told}");
    let ids: String = one(&office.client, "select string_agg(id, ' ' order by id) from embeddings").await;
    assert_eq!(ids, "later undated");
    let left = office.list("--offset 7").await;
    assert!(left[0]["message"].as_str().unwrap().contains("delete the row by hand"), "{left:?}");
}

#[tokio::test]
async fn a_tombstone_that_is_asked_for_deletes_from_every_table_or_from_none() {
    let mut office = Office::open().await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    let older = br#"{"id": "a", "embedding": [1, 2, 3], "timestamp": 10000}"#;
    let newer = br#"{"id": "a", "embedding": [1, 2, 3], "timestamp": 99000, "table_name": "articles"}"#;
    office.takes(&[older, newer]).await;
    run(&office.client, KEEP_ALL).await;
    let producer = TopicProducer::new(&office.topic);
    producer.send(0, 50_000, Some(b"a"), None);
    producer.finish();
    office.sent += 1;
    office.takes(&[]).await;
    run(&office.client, "drop trigger keep on embeddings").await;
    let id = office.list("--reason refused").await[0]["id"].to_string();

    let told = office.dlq(&format!("replay --id {id}")).await;
    assert!(told.contains("0 written, 1 superseded"), "{told}");
    assert_eq!((office.count("embeddings").await, office.count("articles").await), (1, 1));
    run(&office.client, "update articles set \"timestamp\" = to_timestamp(10)").await;
    let told = office.dlq(&format!("replay --id {id}")).await;
    assert!(told.contains("1 written"), "{told}");
    assert_eq!((office.count("embeddings").await, office.count("articles").await), (0, 0));
}

#[tokio::test]
async fn of_the_letters_of_a_key_the_last_one_in_the_log_counts_whatever_their_numbers_and_timestamps() {
    let mut office = Office::open().await;
    let at = |id: &str, text: &str, timestamp: u32| {
        let row = r#""embedding": [1, 2, 3], "table_name": "articles""#;
        format!(r#"{{"id": "{id}", "text": "{text}", "timestamp": {timestamp}, {row}}}"#).into_bytes()
    };
    let letters = [
        at("same", "first", 7_000),
        at("same", "last", 7_000),
        at("back", "first", 9_000),
        at("back", "last", 3_000),
        at("beaten", "first", 9_000),
        at("beaten", "last", 3_000),
        at("bad", "good", 9_000),
        at("bad", "bad", 9_000),
    ];
    let letters: Vec<&[u8]> = letters.iter().map(Vec::as_slice).collect();
    office.takes(&letters).await;
    // As a batch numbers them in which the target refuses some: all at one moment, in any order.
    let renumber = "
        create temporary table turned as select * from embedsink.dead_letters;
        delete from embedsink.dead_letters;
        insert into embedsink.dead_letters
          (connector, topic, partition, \"offset\", payload, reason, message, record_timestamp)
          select connector, topic, partition, \"offset\", payload, reason, message, record_timestamp
          from turned order by \"offset\" desc";
    run(&office.client, renumber).await;
    assert_eq!(office.offsets("").await, [7, 6, 5, 4, 3, 2, 1, 0]);
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    run(
        &office.client,
        "alter table articles add constraint no_bad check (text <> 'bad');
         insert into articles (id, text, embedding, \"timestamp\")
         values ('beaten', 'row', '[1, 2, 3]', timestamptz 'epoch' + interval '5 s')",
    )
    .await;
    let told = office.dlq("replay").await;
    assert!(told.contains("5 written, 2 superseded") && told.contains("refused 1"), "{told}");
    let rows: String =
        one(&office.client, "select string_agg(id || ' ' || text, ', ' order by id) from articles").await;
    assert_eq!(rows, "back last, bad good, beaten row, same last");
    assert_eq!(office.offsets("--reason superseded").await, [5, 4]);
}

#[tokio::test]
async fn a_tombstone_settles_what_stands_before_it_and_spares_what_stands_behind() {
    let mut office = Office::open().await;
    run(&office.client, KEEP_ALL).await;
    office.takes(&[&row("k", "row")]).await;
    let producer = TopicProducer::new(&office.topic);
    for (key, payload) in [
        ("a", Some(article("a", "before"))),
        ("a", None),
        ("b", Some(article("b", "before"))),
        ("b", None),
        ("b", Some(article("b", "behind"))),
        ("k", Some(article("k", "before"))),
        ("k", None),
    ] {
        producer.send(0, 60_000, Some(key.as_bytes()), payload.as_deref());
    }
    producer.finish();
    office.sent += 7;
    // Only the deletion of a row that is there is refused by itself.
    let tombstones = "
        insert into embedsink.dead_letters
          (connector, topic, partition, \"offset\", key, reason, message, record_timestamp)
        select connector, topic, partition, place, convert_to(t.key, 'utf8'), 'refused', 'x', record_timestamp
        from (values (2, 'a'), (4, 'b')) as t (place, key),
          (select * from embedsink.dead_letters order by id limit 1) as l;
        update embedsink.dead_letters set first_seen = now()";
    office.takes(&[]).await;
    run(&office.client, tombstones).await;
    assert_eq!(office.offsets("").await.len(), 7);
    run(&office.client, "drop trigger keep on embeddings").await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;

    let told = office.dlq("replay").await;
    assert!(told.contains("5 written, 2 superseded"), "{told}");
    let rows: String =
        one(&office.client, "select string_agg(id || ' ' || text, ', ' order by id) from articles").await;
    assert_eq!(rows, "b behind");
    assert_eq!(office.count("embeddings where id = 'k'").await, 1);
    assert_eq!(office.offsets("--reason superseded").await, [6, 7]);
}

/// A column that says in which transaction a row was made.
const MADE: &str = "alter table articles add column made xid8 default pg_current_xact_id()";

#[tokio::test]
async fn a_transaction_that_has_worked_for_long_ends_and_the_rest_goes_in_the_next_one() {
    let mut office = Office::open().await;
    let letters: Vec<Vec<u8>> =
        (0..5).map(|n| article(&format!("id-{n}"), "x")).chain([article("id-0", "last")]).collect();
    let letters: Vec<&[u8]> = letters.iter().map(Vec::as_slice).collect();
    office.takes(&letters).await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    // A server that takes its time over each row.
    let slow = "
        create function dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(0.8); return new; end $$;
        create trigger dawdle before insert on articles for each row execute function dawdle();";
    run(&office.client, &format!("{MADE}; {slow}")).await;
    let told = office.dlq("replay").await;
    assert!(told.contains("replayed 6") && told.contains("6 written"), "{told}");
    let transactions: i64 = one(&office.client, "select count(distinct made) from articles").await;
    assert!(transactions >= 2, "five rows of 0.8 s each");
    assert_eq!(office.count("articles where id = 'id-0' and text = 'last'").await, 1, "it settles the first");
    assert_eq!(office.count("embedsink.dead_letters").await, 0);
}

#[tokio::test]
async fn keys_and_headers_count_to_the_bytes_of_a_transaction_too() {
    let mut office = Office::open().await;
    office.connector.more = "batch: {max-bytes: 64KiB, max-wait: 20ms}".to_owned();
    let producer = TopicProducer::new(&office.topic);
    let large = "x".repeat(30_000);
    for n in 0..6 {
        let id = format!("id-{n}");
        producer.send_with_headers(
            0,
            1_000,
            Some(large.as_bytes()),
            Some(&article(&id, "")),
            &[("h", Some(large.as_bytes()))],
        );
    }
    producer.finish();
    office.sent = 6;
    office.takes(&[]).await;
    assert_eq!(office.count("embedsink.dead_letters").await, 6);
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    run(&office.client, MADE).await;
    assert!(office.dlq("replay").await.contains("6 written"));
    let transactions: i64 = one(&office.client, "select count(distinct made) from articles").await;
    assert_eq!(transactions, 3, "two letters are more than 64 KiB");
}

#[tokio::test]
async fn beside_a_live_writer_of_the_same_rows_a_replay_overwrites_nothing_newer_and_loses_no_letter() {
    const KEYS: usize = 40;
    let mut office = Office::open().await;
    let articles =
        |text: &str| -> Vec<Vec<u8>> { (0..KEYS).map(|n| article(&format!("id-{n:02}"), text)).collect() };
    let send = |office: &mut Office, letters: &[Vec<u8>]| {
        let producer = TopicProducer::new(&office.topic);
        for letter in letters {
            office.sent += 1;
            producer.send(0, 1_000 * office.sent as i64, None, Some(letter));
        }
        producer.finish();
    };
    send(&mut office, &articles("letter"));
    office.takes(&[]).await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    // The replay begins with the last letter, and has to stop in the middle, with locks on half of the rows.
    let locker = office.database.connect().await;
    let held = "insert into articles (id, text, embedding, \"timestamp\")
                values ('id-20', 'held', '[1, 2, 3]', timestamptz 'epoch')";
    run(&locker, held).await;
    run(&locker, "begin; select from articles where id = 'id-20' for update").await;
    let path = office.connector.path();
    let mut replay = office.connector.run(&office.arguments(&path, "replay"));
    let waiting = async |count: i64| {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
        (one::<i64>(&office.client, sql).await >= count).then_some(())
    };
    replay.until("the replay to wait for the row", async |_| waiting(1).await).await;
    let mut live = office.connector.start();
    let newer = articles("newer");
    let producer = TopicProducer::new(&office.topic);
    for (n, letter) in newer.iter().rev().enumerate() {
        producer.send(0, 1_000 * (KEYS + 1 + n) as i64, None, Some(letter));
    }
    producer.finish();
    live.until("the live writer to wait, too", async |_| waiting(2).await).await;
    run(&locker, "commit").await;

    let told = replay.outputs().await;
    live.settles(&office.client, 2 * KEYS).await;
    live.stop().await;
    assert_eq!(office.count("articles where text = 'newer'").await, KEYS as i64, "{told}");
    assert_eq!(office.count("articles").await, KEYS as i64);
    let left = office.count("embedsink.dead_letters where reason = 'superseded'").await;
    assert_eq!(office.count("embedsink.dead_letters").await, left);
    let written = KEYS as i64 - left;
    assert!(told.contains(&format!("{written} written, {left} superseded")), "{told}");
}

#[tokio::test]
async fn what_postgres_refuses_stays_until_the_table_is_altered() {
    let mut office = Office::open().await;
    let refuse = "
        alter table embeddings add constraint no_bad check (text is distinct from 'bad');
        create function judge() returns trigger language plpgsql as $$
        begin if new.text = 'late' then raise exception 'no' using errcode = '22023'; end if; return null; end $$;
        create constraint trigger judge after insert or update on embeddings
          deferrable initially deferred for each row execute function judge();";
    run(&office.client, refuse).await;
    office.takes(&[&row("a", "bad"), &row("b", "late"), &row("c", "good")]).await;
    assert_eq!(office.offsets("--reason refused").await, [0, 1]);
    // A letter that can be used, between two that cannot.
    run(
        &office.client,
        "insert into embedsink.dead_letters (connector, topic, partition, \"offset\", key, payload, reason, message)
         select connector, topic, partition, 7, 'k', convert_to('{\"embedding\": [1, 2, 3]}', 'utf8'), 'bad_field', 'x'
         from embedsink.dead_letters limit 1",
    )
    .await;
    let told = office.dlq("replay").await;
    assert!(told.contains("1 written") && told.contains("(refused 2)"), "{told}");
    assert_eq!(office.count("embeddings where id in ('c', 'k')").await, 2);
    let states: Vec<String> =
        office.list("").await.iter().map(|letter| letter["sqlstate"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["23514", "22023"]);

    run(&office.client, "alter table embeddings drop constraint no_bad; drop trigger judge on embeddings")
        .await;
    assert!(office.dlq("replay").await.contains("2 written, 0 superseded"));
    assert_eq!(office.count("embeddings").await, 4);
    assert_eq!(office.count("embedsink.dead_letters").await, 0);
}

#[tokio::test]
async fn a_letter_whose_payload_was_cut_is_not_replayed_but_told() {
    let mut office = Office::open().await;
    office.connector.more.push_str("\nerrors: {max-payload: 1KiB}");
    let large = article("a", &"x".repeat(2_000));
    office.takes(&[&large]).await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    let told = office.dlq("replay").await;
    let whole = format!("only 1024 of {} bytes", large.len());
    let place = format!("the whole record is at {}[0] offset 0", office.topic.name());
    assert!(told.contains("replayed 0") && told.contains(&whole) && told.contains(&place), "{told}");
    let letters = office.list("").await;
    assert!(letters[0]["is_cut"] == true && letters[0]["tries"] == 1, "{letters:?}");
}

#[tokio::test]
async fn a_missing_right_is_told_with_the_grant_that_mends_it() {
    let mut office = Office::open().await;
    office.takes(&MIXED).await;
    let role = format!("{}_reader", office.database.name());
    let grants = format!(
        "create role {role} login; grant usage on schema embedsink to {role};
         grant select on embedsink.migrations to {role}; grant select, insert on embedsink.dead_letters to {role}"
    );
    run(&office.client, &grants).await;
    office.connector.postgres = office.connector.postgres.replace("postgres@", &format!("{role}@"));
    assert_eq!(office.offsets("").await.len(), 5, "to look at letters, reading them is enough");
    let text = office.dlq_fails(78, "purge --yes").await;
    assert!(text.contains(&format!("grant delete on embedsink.dead_letters to \"{role}\"")), "{text}");
    let text = office.dlq_fails(78, "replay").await;
    assert!(
        text.contains(&format!("grant update, delete on embedsink.dead_letters to \"{role}\"")),
        "{text}"
    );
    assert_eq!(office.count("embedsink.dead_letters").await, 5);
    run(&office.client, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_replay_that_loses_its_connection_goes_on_and_tries_no_letter_twice() {
    let mut office = Office::open().await;
    office.takes(&[&article("a", "1"), &article("b", "2"), b"{"]).await;
    office.connector.tables.push_str(ARTICLES);
    office.connector.migrate().await;
    let locker = office.database.connect().await;
    run(&locker, "begin; lock table articles in exclusive mode").await;
    let path = office.connector.path();
    let mut process = office.connector.run(&office.arguments(&path, "replay"));
    let waiting = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    process
        .until("the replay to wait for the lock", async |_| {
            (one::<i64>(&office.client, waiting).await > 0).then_some(())
        })
        .await;
    process.logs(1, "trying again").await;
    run(&locker, "commit").await;
    let told = process.outputs().await;
    assert!(told.contains("2 written") && told.contains("1 still refused"), "{told}");
    assert_eq!(office.count("articles").await, 2);
    assert_eq!(office.count("embedsink.dead_letters where tries = 2").await, 1);
}

#[tokio::test]
async fn each_command_explains_itself_and_refuses_what_it_does_not_know() {
    let office = Office::open().await;
    for (command, word) in
        [("list", "--since"), ("show", "--payload"), ("replay", "superseded"), ("purge", "--yes")]
    {
        let help = office.connector.run(&["dlq", command, "--help"]).outputs().await;
        assert!(help.contains("--config") && help.contains(word), "{help}");
    }
    for (words, hint) in [
        ("list --reason bad_jason", "bad_json"),
        ("list --since yesterday", "such as 2h"),
        ("replay --offset 9..1", "100..199"),
        ("purge --limit 3", "--limit"),
    ] {
        let text = office.dlq_fails(2, words).await;
        assert!(text.contains(hint), "{hint} in {text}");
    }
}
