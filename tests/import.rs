//! Records written by hand: `embedsink write`, from a file and from standard input.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::connector::{Connector, Process};
use crate::support::damage;
use crate::support::model::{assert_fold, assert_fold_of_all};
use crate::support::postgres::{Database, one, positions, run, settled};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::record::{Generator, NO_TIME, Outcome, Record, Shape, large_file};
use crate::support::turn::alone;
use crate::support::wait::until;

const MIXED: Shape = Shape {
    tables: &[("embeddings", 8), ("articles", 3)],
    partitions: 1,
    ids: 300,
    tombstones: 0,
    damaged: 10,
};

/// When all files here were modified, in milliseconds.
const MODIFIED: i64 = 1_650_000_000_000;

/// A connector that writes files.
struct Desk {
    connector: Connector,
    client: Client,
    database: Database,
}

/// A file of records with a known outcome.
struct Lines {
    path: PathBuf,
    log: Vec<Record>,
    blank: usize,
    count: i64,
}

impl Desk {
    async fn open(more: &str) -> Self {
        let database = Database::create().await;
        let mut connector = Connector::without_source(&database, &MIXED);
        connector.more.push_str(more);
        connector.migrate().await;
        let client = database.connect().await;
        Self { connector, client, database }
    }

    fn arguments<'a>(config: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        ["write", "--config", config].into_iter().chain(more.iter().copied()).collect()
    }

    fn start(&self, more: &[&str]) -> Process {
        self.connector.write();
        self.connector.run(&Self::arguments(&self.connector.path(), more))
    }

    fn start_with(&self, input: File, more: &[&str]) -> Process {
        self.connector.write();
        self.connector.run_with_input(&Self::arguments(&self.connector.path(), more), input)
    }

    /// The summary of a write that ends well.
    async fn write(&self, more: &[&str]) -> Value {
        let more: Vec<&str> = more.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.start(&more).outputs().await).unwrap()
    }

    /// A file of this name with these bytes.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.connector.file(name);
        fs::write(&path, bytes).unwrap();
        age(&path);
        path
    }

    async fn count(&self, sql: &str) -> i64 {
        one(&self.client, &format!("select count(*) from {sql}")).await
    }

    /// Waits until the server has ended what a killed process had begun: a commit may be under way.
    async fn rests(&self) {
        let sql = "select count(*) from pg_stat_activity where datname = current_database()
                   and application_name like 'embedsink test-%'";
        until("sessions to end", async || (one::<i64>(&self.client, sql).await == 0).then_some(())).await;
    }

    /// The one topic that the database knows, with its position.
    async fn stored(&self) -> (String, i64) {
        let topic: String = one(&self.client, "select topic from embedsink.offsets").await;
        let position = positions(&self.client, &topic).await[0].1;
        (topic, position)
    }
}

fn age(path: &PathBuf) {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(MODIFIED as u64);
    File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
}

impl Lines {
    /// `records` records, some of them bad, with blank lines between.
    fn new(desk: &Desk, seed: &str, records: usize) -> Self {
        let mut generator = Generator::new(Random::new(seed), MIXED);
        let path = desk.connector.file("records.jsonl");
        let mut file = BufWriter::new(File::create(&path).unwrap());
        let (mut log, mut blank, mut count) = (Vec::new(), 0, 0);
        while log.len() < records {
            let mut draft = generator.new_draft();
            draft.key = None;
            let id = Value::from(draft.row.id.as_str()).to_string();
            draft.set("id", id);
            if !draft.fields.iter().any(|(name, _)| *name == "timestamp") {
                draft.row.timestamp = NO_TIME;
            }
            let (payload, outcome) = if generator.random.chance(MIXED.damaged) {
                let damage = damage::pick(&mut generator.random);
                let payload = (damage.make)(&mut draft, &mut generator.random);
                (payload, Outcome::Dead(damage.reason))
            } else {
                (Some(draft.render()), Outcome::Row(draft.row))
            };
            // What a line cannot say: a key, a null, a line feed.
            let has_key = draft.key.is_some_and(|key| !key.is_empty());
            let Some(payload) = payload.filter(|payload| !has_key && !payload.contains(&b'\n')) else {
                continue;
            };
            if payload.trim_ascii().is_empty() || payload.ends_with(b"\r") {
                continue;
            }
            if generator.random.chance(5) {
                writeln!(file, "{}", generator.random.pick(&["", "  ", "\r"])).unwrap();
                (blank, count) = (blank + 1, count + 1);
            }
            file.write_all(&payload).unwrap();
            count += 1;
            if log.len() + 1 < records {
                file.write_all(generator.random.pick(&[&b"\n"[..], b"\r\n"])).unwrap();
            }
            let (offset, timestamp) = (count, NO_TIME);
            log.push(Record { partition: 0, offset, timestamp, key: None, payload: Some(payload), outcome });
        }
        file.into_inner().unwrap();
        age(&path);
        Self { path, log, blank, count }
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn bad(&self) -> usize {
        self.log.iter().filter(|record| matches!(record.outcome, Outcome::Dead(_))).count()
    }
}

#[tokio::test]
async fn a_thousand_records_become_rows_and_dead_letters_and_a_second_run_says_so() {
    let desk = Desk::open("").await;
    let lines = Lines::new(&desk, "import", 1_000);
    let summary = desk.write(&[lines.name()]).await;
    let (topic, position) = desk.stored().await;
    assert!(topic.starts_with("file:records.jsonl#"), "{topic}");
    assert_fold_of_all(&desk.client, &MIXED, &topic, &lines.log).await;
    assert_eq!(position, lines.count + 2, "behind the last line, and behind the end");
    let is = |name: &str, value: Value| assert_eq!(summary[name], value, "{name}: {summary}");
    is("complete", true.into());
    is("records", 1_000.into());
    is("blank_lines", lines.blank.into());
    is("dead_lettered", lines.bad().into());
    is("topic", topic.as_str().into());
    is("deleted", 0.into());
    assert!(summary["upserted"].as_u64().unwrap() >= 300, "{summary}");

    let text = desk.start(&[lines.name()]).outputs().await;
    assert!(text.contains("was written completely before; --again writes it again"), "{text}");
    assert_eq!(desk.stored().await, (topic.clone(), position));
    let summary = desk.write(&[lines.name()]).await;
    assert_eq!((&summary["written_before"], &summary["records"]), (&true.into(), &0.into()));

    run(&desk.client, "delete from articles").await;
    let text = desk.start(&["--again", lines.name()]).outputs().await;
    assert!(text.contains("1000 records in") && text.contains("dead-lettered ("), "{text}");
    assert!(text.contains(&format!("embedsink dlq list --topic '{topic}'")), "{text}");
    let letters = desk.count("embedsink.dead_letters").await;
    assert_eq!(letters, 2 * lines.bad() as i64, "what is asked for again is done again");
    let doubles = "delete from embedsink.dead_letters
                   where id not in (select min(id) from embedsink.dead_letters group by \"offset\")";
    run(&desk.client, doubles).await;
    assert_fold_of_all(&desk.client, &MIXED, &topic, &lines.log).await;
}

#[tokio::test]
async fn kill_nine_in_the_middle_of_a_file_loses_nothing_and_keeps_each_dead_letter_once() {
    let _alone = alone().await;
    let desk = Desk::open("batch: {max-rows: 50}").await;
    let lines = Lines::new(&desk, "import, kill -9", 20_000);
    let mut at_kills = Vec::new();
    for part in [1, 3, 5] {
        let mut process = desk.start(&[lines.name()]);
        let moment = lines.count as usize * part / 8;
        process.settles(&desk.client, moment).await;
        process.kill();
        desk.rests().await;
        at_kills.push(settled(&desk.client).await);
        let (topic, position) = desk.stored().await;
        assert_fold(&desk.client, &MIXED, &topic, &lines.log, &[(0, position)]).await;
    }
    assert!(at_kills.is_sorted_by(|earlier, later| earlier < later), "{at_kills:?}");
    assert!(at_kills[2] < lines.count, "every kill came before the end");

    // A clean interruption says how to go on, and is no success: not all is written.
    let mut process = desk.start(&[lines.name()]);
    process.settles(&desk.client, at_kills[2] as usize + 50).await;
    process.signal("INT");
    let text = process.ends_with(1).await;
    let position = desk.stored().await.1;
    assert!(text.contains(&format!("lines up to {} are written", position - 1)), "{position}: {text}");
    assert!(text.contains("the same command goes on behind them"), "{text}");

    let summary = desk.write(&[lines.name()]).await;
    let left = lines.log.iter().filter(|record| record.offset >= position).count();
    assert_eq!((&summary["complete"], &summary["records"]), (&true.into(), &left.into()), "{summary}");
    let (topic, position) = desk.stored().await;
    assert_eq!(position, lines.count + 2);
    assert_fold_of_all(&desk.client, &MIXED, &topic, &lines.log).await;
}

#[tokio::test]
async fn an_interrupted_write_from_the_first_line_says_that_it_goes_on_without_again() {
    let _alone = alone().await;
    let desk = Desk::open("batch: {max-rows: 50}").await;
    let lines = Lines::new(&desk, "import, again", 20_000);
    let first = desk.write(&[lines.name()]).await;
    assert_eq!(first["complete"], true);
    run(&desk.client, "truncate embeddings; truncate articles; delete from embedsink.dead_letters").await;
    let mut process = desk.start(&["--again", lines.name()]);
    process
        .until("some lines to be written again", async |_| {
            let position = desk.stored().await.1;
            (50..lines.count / 2).contains(&position).then_some(())
        })
        .await;
    process.signal("INT");
    let text = process.ends_with(1).await;
    let position = desk.stored().await.1;
    let said = format!("lines up to {} are written; without --again it goes on behind them", position - 1);
    assert!(text.contains(&said), "{position}: {text}");
    let left = lines.log.iter().filter(|record| record.offset >= position).count();
    assert_eq!(desk.write(&[lines.name()]).await["records"], left, "and so it does");
    assert_fold_of_all(&desk.client, &MIXED, &desk.stored().await.0, &lines.log).await;
}

#[tokio::test]
async fn standard_input_begins_at_its_start_each_time_and_leaves_no_position() {
    let desk = Desk::open("").await;
    let lines = Lines::new(&desk, "import, standard input", 500);
    for round in 1..=2 {
        let process = desk.start_with(File::open(&lines.path).unwrap(), &["--json"]);
        let summary: Value = serde_json::from_str(&process.outputs().await).unwrap();
        assert_eq!((&summary["records"], &summary["complete"]), (&500.into(), &true.into()), "{summary}");
        assert_eq!(desk.count("embedsink.offsets").await, 0);
        let letters = desk.count("embedsink.dead_letters where topic like 'stdin#%'").await;
        assert_eq!(letters, lines.bad() as i64 * round);
    }
    assert_eq!(desk.count("(select distinct topic from embedsink.dead_letters) as t").await, 2);
    assert!(desk.count("embeddings").await > 0);

    // What is typed is written without waiting for more; and what cannot be gone on with says so.
    let (reader, mut writer) = std::io::pipe().unwrap();
    desk.connector.write();
    let path = desk.connector.path();
    let mut process = desk.connector.run_with_input(&Desk::arguments(&path, &["-"]), reader);
    let typed = json!({"id": "typed", "embedding": [1, 2, 3], "table_name": "articles"});
    writeln!(writer, "{typed}").unwrap();
    process
        .until("the typed record to be a row", async |_| {
            (desk.count("articles where id = 'typed' and \"timestamp\" is null").await > 0).then_some(())
        })
        .await;
    process.signal("INT");
    let text = process.ends_with(1).await;
    assert!(text.contains("give it from line 2 on"), "{text}");
    assert_eq!(desk.count("embedsink.offsets").await, 0);
}

#[tokio::test]
async fn a_changed_file_is_another_one_and_unchanged_rows_of_it_are_left_alone() {
    let desk = Desk::open("").await;
    let row = |id: &str| json!({"id": id, "embedding": [1, 2, 3], "table_name": "articles"}).to_string();
    let path = desk.file("a.jsonl", format!("{}\n{}\n", row("a"), row("b")).as_bytes());
    let name = path.to_str().unwrap();
    assert_eq!(desk.write(&[name]).await["upserted"], 2);
    // As somebody appends to it: it is younger then.
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(format!("{}\n", row("c")).as_bytes())
        .unwrap();
    let summary = desk.write(&[name]).await;
    assert_eq!(
        (&summary["records"], &summary["upserted"], &summary["unchanged"]),
        (&3.into(), &1.into(), &2.into())
    );
    assert_eq!(desk.count("embedsink.offsets").await, 2);
}

#[tokio::test]
async fn another_file_of_the_same_name_length_and_time_is_not_taken_for_one_that_was_written() {
    let desk = Desk::open("").await;
    let row = |id: &str| json!({"id": id, "embedding": [1, 2, 3], "table_name": "articles"}).to_string();
    for id in ["a", "b"] {
        let path = desk.file("same.jsonl", format!("{}\n", row(id)).as_bytes());
        assert_eq!(desk.write(&[path.to_str().unwrap()]).await["upserted"], 1, "{id}");
    }
    assert_eq!(desk.count("articles where id in ('a', 'b')").await, 2);
}

#[tokio::test]
async fn on_a_terminal_a_bar_shows_how_far_it_is_and_is_gone_in_the_end() {
    let _alone = alone().await;
    let desk = Desk::open("batch: {max-rows: 50}").await;
    let lines = Lines::new(&desk, "import, terminal", 20_000);
    desk.connector.write();
    let path = desk.connector.path();
    let (mut process, screen) =
        desk.connector.run_before_a_terminal(&Desk::arguments(&path, &[lines.name(), "--json"]));
    let bar = async |_: &Process| {
        let text = screen.text();
        (text.contains("/s, ") && text.contains(" left, ") && text.contains("records written")).then_some(())
    };
    process.until("the bar", bar).await;
    let size = fs::metadata(&lines.path).unwrap().len();
    let total = format!(" of {}", indicatif::HumanBytes(size));
    assert!(screen.text().contains(&total), "{total}: {}", screen.text());
    let summary: Value = serde_json::from_str(&process.outputs().await).unwrap();
    assert_eq!(summary["complete"], true, "{summary}");
    let is_cleared = |text: &str| text.rsplit("records written").next().unwrap().contains("\u{1b}[2K");
    until("the line to be cleared", async || is_cleared(&screen.text()).then_some(())).await;
}

#[tokio::test]
async fn lines_that_are_too_long_are_dead_letters_of_which_the_beginning_is_kept() {
    let desk = Desk::open("batch: {max-bytes: 64KiB}\nerrors: {window: 10}").await;
    let good = |id: usize| {
        format!("{}\n", json!({"id": id.to_string(), "embedding": [1, 2, 3], "table_name": "articles"}))
    };
    let long = format!("{{\"id\": \"long\", \"text\": \"{}\"}}\n", "x".repeat(5_000_000));
    let half = "{\"id\": \"half\", \"embed";
    let text = format!("{}{long}{}\u{0}\n{}", good(1), good(2), half);
    let path = desk.file("long.jsonl", text.as_bytes());
    let summary = desk.write(&[path.to_str().unwrap()]).await;
    assert_eq!((&summary["records"], &summary["upserted"]), (&5.into(), &2.into()), "{summary}");
    assert_eq!(summary["dead_letters"], json!({"bad_json": 2, "too_large": 1}), "{summary}");
    let kept =
        "embedsink.dead_letters where \"offset\" = 2 and octet_length(payload) = 65536 and payload_bytes = ";
    assert_eq!(desk.count(&format!("{kept}{}", long.len() - 1)).await, 1);
    let message: String =
        one(&desk.client, "select message from embedsink.dead_letters where reason = 'too_large'").await;
    assert!(message.contains(&format!("{} bytes", long.len() - 1)), "{message}");
    let path = desk.connector.path();
    let text =
        desk.connector.run(&["dlq", "replay", "--config", &path, "--reason", "too_large"]).outputs().await;
    assert!(text.contains("only 65536 of") && text.contains("file:long.jsonl#"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_written_ends_it_with_the_codes_of_the_contract() {
    let desk = Desk::open("errors: {window: 10, max-ratio: 0.5}").await;
    let fails = async |code: i32, path: &str| desk.start(&[path]).ends_with(code).await;
    assert!(fails(1, "/nowhere/records").await.contains("cannot be read"));
    assert!(fails(1, "/tmp").await.contains("is a folder"));
    let path = desk.file("packed.gz", b"\x1f\x8b\x08...");
    assert!(fails(1, path.to_str().unwrap()).await.contains("zcat FILE |"));
    assert_eq!(desk.count("embedsink.offsets").await, 0, "nothing was begun");
    let path = desk.file("wrong.jsonl", "not a record\n".repeat(50).as_bytes());
    let text = fails(1, path.to_str().unwrap()).await;
    assert!(
        text.contains("50 of the last 50 records could not be used") && text.contains("bad_json"),
        "{text}"
    );
    assert!(text.contains("nothing was written in this run"), "{text}");
    assert_eq!(desk.count("embedsink.dead_letters").await, 0, "the breaker opens before they are written");
    let path = desk.file("empty.jsonl", b"");
    assert_eq!(desk.write(&[path.to_str().unwrap()]).await["records"], 0);
    run(&desk.client, "alter table articles drop column metadata").await;
    assert!(fails(78, path.to_str().unwrap()).await.contains("metadata"));
    assert!(desk.database.name().starts_with("embedsink"));
}

#[tokio::test]
async fn a_named_pipe_that_nobody_writes_to_is_waited_for_and_a_signal_ends_that() {
    let desk = Desk::open("").await;
    let pipe = desk.connector.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for signal in ["INT", "TERM"] {
        let mut process = desk.start(&[pipe.to_str().unwrap()]);
        process.until("a handler of signals", async |process| process.catches(signal).then_some(())).await;
        process.signal(signal);
        let text = process.ends_within(Duration::from_secs(10), 1).await;
        assert!(text.contains("could not be opened yet"), "{text}");
    }
    let process = desk.start(&["--json", pipe.to_str().unwrap()]);
    let record = json!({"id": "piped", "embedding": [1, 2, 3], "table_name": "articles"}).to_string();
    tokio::task::spawn_blocking(move || fs::write(&pipe, record).unwrap()).await.unwrap();
    let summary: Value = serde_json::from_str(&process.outputs().await).unwrap();
    assert_eq!((&summary["records"], &summary["upserted"]), (&1.into(), &1.into()), "{summary}");
}

#[tokio::test]
async fn a_database_that_stops_answering_does_not_keep_an_interrupted_write_beyond_the_shutdown_timeout() {
    let mut desk = Desk::open("shutdown-timeout: 1s").await;
    let proxy = Proxy::before(desk.database.port()).await;
    let port = format!(":{}/", desk.database.port());
    desk.connector.postgres = desk.connector.postgres.replace(&port, &format!(":{}/", proxy.port()));
    let (reader, mut writer) = std::io::pipe().unwrap();
    desk.connector.write();
    let path = desk.connector.path();
    let mut process = desk.connector.run_with_input(&Desk::arguments(&path, &["-"]), reader);
    writeln!(writer, "{}", json!({"id": "typed", "embedding": [1, 2, 3], "table_name": "articles"})).unwrap();
    let written = async |_: &Process| (desk.count("articles").await == 1).then_some(());
    process.until("the record to be a row", written).await;
    proxy.set_stalled(true);
    process.signal("INT");
    // A connection that nobody answers takes ten seconds to be given up.
    process.ends_within(Duration::from_secs(7), 1).await;
    assert_eq!(desk.count("embedsink.offsets").await, 1, "its position stays, and means nothing");
}

#[tokio::test]
async fn two_writers_of_one_file_write_it_once_and_one_of_them_ends() {
    let _alone = alone().await;
    let desk = Desk::open("batch: {max-rows: 20}").await;
    let lines = Lines::new(&desk, "import, twice", 30_000);
    let mut first = desk.start(&[lines.name()]);
    first.settles(&desk.client, 100).await;
    let second = desk.start(&[lines.name()]);
    let lost = first.ends_with(1).await;
    assert!(lost.contains("is being written by somebody else"), "{lost}");
    second.ends_with(0).await;
    let (topic, position) = desk.stored().await;
    assert_eq!(position, lines.count + 2);
    assert_fold_of_all(&desk.client, &MIXED, &topic, &lines.log).await;
}

#[tokio::test]
async fn a_large_file_takes_no_more_memory_than_the_limits_say() {
    const RECORDS: usize = 25_000;
    const LIMIT_KIB: u64 = 150 * 1000 * 1000 / 1024;
    let _alone = alone().await;
    let database = Database::create().await;
    let shape = Shape { tables: &[("embeddings", 384)], ..MIXED };
    let connector = Connector::without_source(&database, &shape);
    connector.migrate().await;
    let path = connector.file("large.jsonl");
    let bytes = large_file(&path, RECORDS);
    let client = database.connect().await;
    let config = connector.path();
    let peak = connector.run(&["write", "--config", &config, path.to_str().unwrap()]).peak().await;
    println!("{peak} KiB at most for {bytes} bytes");
    assert!(bytes > 200_000_000 && peak < LIMIT_KIB, "{peak} KiB for {bytes} bytes");
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, RECORDS as i64);
}
