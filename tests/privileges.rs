//! The least that the role needs that writes, as docs/postgres.md has it; and names and values that try to be SQL.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::model::assert_fold_of_all;
use crate::support::postgres::{Database, one, run, settled};
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};
use crate::support::stage::MIXED;
use crate::support::turn::alone;

const GUIDE: &str = include_str!("../docs/postgres.md");

const PLAIN: Shape = Shape { tables: &[("embeddings", 8)], ids: 0, ..MIXED };

/// Whoever runs DDL fails.
const NO_DDL: &str = "
create function refuse() returns event_trigger language plpgsql as $$ begin
  raise exception 'nobody asked for %', tg_tag;
end $$;
create event trigger no_ddl on ddl_command_start execute function refuse();
";

/// A role that may log in, has what the guide grants, and nothing else. Its name is as bad as a name can be.
struct Writer {
    name: String,
    owner: Client,
}

impl Writer {
    /// Takes from everybody what everybody has, then grants what the guide says.
    async fn create(database: &Database, tables: &[&str]) -> Self {
        let owner = database.connect().await;
        let writer = Self { name: format!("{} \"; drop schema embedsink; --", database.name()), owner };
        let (role, name) = (writer.quoted(), database.name());
        run(&writer.owner, &format!("create role {role} login")).await;
        run(&writer.owner, &format!("revoke all on database {name} from public")).await;
        run(&writer.owner, "revoke all on schema public from public").await;
        run(&writer.owner, &format!("grant connect on database {name} to {role}")).await;
        let (_, block) = GUIDE.split_once("The least that the role needs").unwrap();
        let (_, block) = block.split_once("```sql\n").unwrap();
        let (grants, _) = block.split_once("```").unwrap();
        assert_eq!(grants.lines().count(), 5, "{grants}");
        for line in grants.lines() {
            let line = line.replace("to writer;", &format!("to {role};"));
            for table in tables {
                run(&writer.owner, &line.replace("on embeddings to", &format!("on {table} to"))).await;
            }
        }
        writer
    }

    fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// How a connector logs in as this role, and migrates nothing.
    fn yaml(&self, database: &Database) -> String {
        format!(
            "host: 127.0.0.1\nport: {}\ndatabase: {}\nuser: {}\nmigrate: manual\n",
            database.port(),
            database.name(),
            Value::from(self.name.as_str())
        )
    }

    async fn drop(self) {
        let role = self.quoted();
        run(&self.owner, &format!("drop owned by {role}; drop role {role}")).await;
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[tokio::test]
async fn a_role_with_exactly_the_grants_of_the_guide_writes_everything_and_no_ddl_is_run() {
    let _alone = alone().await;
    let log = Generator::new(Random::new("least privilege"), MIXED).records(20_000);
    let (database, topic) = (Database::create().await, Topic::create(MIXED.partitions).await);
    topic.produce(&log);
    let mut connector = Connector::restless(&topic, &database, &MIXED);
    connector.migrate().await;
    let writer = Writer::create(&database, &["embeddings", "articles"]).await;
    connector.postgres = writer.yaml(&database);
    run(&writer.owner, NO_DDL).await;

    let mut process = connector.start();
    process.settles(&writer.owner, log.len()).await;
    process.stop().await;
    assert_fold_of_all(&writer.owner, &MIXED, topic.name(), &log).await;

    // A row that Postgres refuses is looked for with the same rights.
    run(&writer.owner, "alter event trigger no_ddl disable").await;
    run(&writer.owner, "alter table embeddings add constraint no check (text <> 'no') not valid").await;
    run(&writer.owner, "alter event trigger no_ddl enable").await;
    let producer = TopicProducer::new(&topic);
    let refused = br#"{"id": "refused", "text": "no", "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}"#;
    producer.send(0, 0, None, Some(refused));
    producer.finish();
    let mut process = connector.start();
    process.settles(&writer.owner, log.len() + 1).await;
    process.stop().await;
    let letters = "select count(*) from embedsink.dead_letters where reason = 'refused'";
    assert_eq!(one::<i64>(&writer.owner, letters).await, 1);

    // Who may create does not, where nothing is missing.
    connector.postgres = format!("url: {}\n", database.url());
    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    process.stop().await;
    writer.drop().await;
}

#[tokio::test]
async fn each_grant_that_is_taken_away_is_named_at_the_start() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let mut connector = Connector::new(&topic, &database, &PLAIN);
    connector.migrate().await;
    let writer = Writer::create(&database, &["embeddings"]).await;
    connector.postgres = writer.yaml(&database);
    let role = writer.quoted();
    let mut grants =
        vec![("usage", "schema embedsink"), ("usage", "schema public"), ("select", "embedsink.migrations")];
    for (rights, table) in [
        (&["select", "insert", "update"][..], "embedsink.offsets"),
        (&["select", "insert"], "embedsink.dead_letters"),
        (&["select", "insert", "update", "delete"], "embeddings"),
    ] {
        grants.extend(rights.iter().map(|right| (*right, table)));
    }
    for (right, object) in grants {
        run(&writer.owner, &format!("revoke {right} on {object} from {role}")).await;
        let text = connector.start().ends_with(78).await;
        let name = object.rsplit(['.', ' ']).next().unwrap();
        let named = text.lines().any(|line| {
            line.contains("grant") && line.contains(right) && line.contains(name) && line.contains(&role)
        });
        assert!(named, "without {right} on {object}: {text}");
        run(&writer.owner, &format!("grant {right} on {object} to {role}")).await;
    }
    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    process.stop().await;
    writer.drop().await;
}

#[tokio::test]
async fn a_grant_that_is_taken_away_later_stops_the_connector_and_nothing_moves() {
    let payload = |id: &str| format!(r#"{{"id": "{id}", "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}}"#);
    let send = |topic: &Topic, key: Option<&[u8]>, payload: Option<&str>| {
        let producer = TopicProducer::new(topic);
        producer.send(0, 0, key, payload.map(str::as_bytes));
        producer.finish();
    };
    for (right, object) in [
        ("insert", "embeddings"),
        ("delete", "embeddings"),
        ("update", "embedsink.offsets"),
        ("insert", "embedsink.dead_letters"),
    ] {
        let (database, topic) = (Database::create().await, Topic::create(1).await);
        let mut connector = Connector::new(&topic, &database, &PLAIN);
        connector.migrate().await;
        let writer = Writer::create(&database, &["embeddings"]).await;
        connector.postgres = writer.yaml(&database);
        send(&topic, None, Some(&payload("first")));
        let mut process = connector.start();
        process.settles(&writer.owner, 1).await;
        run(&writer.owner, &format!("revoke {right} on {object} from {}", writer.quoted())).await;
        match (right, object) {
            ("delete", _) => send(&topic, Some(b"first"), None),
            (_, "embedsink.dead_letters") => send(&topic, None, Some("no JSON")),
            _ => send(&topic, None, Some(&payload("second"))),
        }
        let text = process.ends_with(78).await;
        assert!(text.contains("42501") && text.contains(&writer.quoted()), "{right} on {object}: {text}");
        assert!(text.to_lowercase().contains("grant"), "{right} on {object}: {text}");
        assert_eq!(settled(&writer.owner).await, 1);
        assert_eq!(one::<i64>(&writer.owner, "select count(*) from embeddings").await, 1);
        writer.drop().await;
    }
}

/// Names that a table may have, and that would be something else if nobody quoted them.
const NAMES: &[&str] = &[
    "a\"b\"; drop table witness; --",
    "\"",
    "'; drop table witness; --",
    "Täble ñ 😀",
    "select",
    "$1",
    "%s {} \\",
    "with  blanks ",
    "\u{201c}curly\u{201d} \u{2019}",
    "-- comment /*",
    "sixty-three bytes \" and not one of them less than what fits in",
];

/// What values are made of.
const PIECES: &[&str] = &[
    "'; drop table witness; --",
    "\"; drop table witness; --",
    "$$; drop table witness; $$",
    "$1",
    "\\'; drop table witness; --",
    "{\"a\", NULL}",
    "NULL",
    "\\N",
    "\u{1}\u{7f}",
    "\t\r\n",
    "\\.",
    "%s%n",
    "😀",
    "\u{202e}",
    "''",
    "\"\"",
    "E'\\x00'",
    ",",
    "()",
    "[1,2,3]",
    "; commit; drop table witness; begin;",
];

fn value(random: &mut Random) -> String {
    (0..1 + random.below(3)).map(|_| random.pick(PIECES)).collect()
}

#[tokio::test]
async fn whatever_tables_are_called_and_fields_hold_it_lands_as_plain_data() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let mut connector = Connector::new(&topic, &database, &PLAIN);
    let tables: Vec<String> =
        NAMES.iter().map(|name| format!("{}: {{dimensions: 3}}", Value::from(*name))).collect();
    connector.tables = tables.join("\n");
    connector.migrate().await;
    let client = database.connect().await;
    run(&client, "create table witness ()").await;

    let mut random = Random::new("hostile values");
    let mut expected: BTreeMap<(&str, String), Value> = BTreeMap::new();
    let producer = TopicProducer::new(&topic);
    let mut count = 0;
    for number in 0..600 {
        let (id, text, source) =
            (format!("{} {}", value(&mut random), number % 200), value(&mut random), value(&mut random));
        let metadata = json!({value(&mut random): value(&mut random), "list": [value(&mut random), {value(&mut random): null}]});
        let table = random.pick(NAMES);
        let payload = json!({"id": id, "text": text, "source": source, "metadata": metadata, "table_name": table,
                             "embedding": [1, 2, 3]});
        producer.send(0, 0, None, Some(payload.to_string().as_bytes()));
        let row = json!({"text": text, "source": source, "metadata": metadata});
        expected.insert((table, id.clone()), row);
        count += 1;
        if random.chance(20) {
            // A tombstone is as hostile as the row it deletes.
            producer.send(0, 0, Some(id.as_bytes()), None);
            expected.retain(|(_, of), _| *of != id);
            count += 1;
        }
        if random.chance(10) {
            let payload = json!({"id": id, "embedding": [1, 2, 3], "table_name": value(&mut random)});
            producer.send(0, 0, Some(id.as_bytes()), Some(payload.to_string().as_bytes()));
            count += 1;
        }
    }
    producer.finish();
    let mut process = connector.start();
    process.settles(&client, count).await;
    process.stop().await;

    let mut found = BTreeMap::new();
    for name in NAMES {
        let sql = format!("select id, text, source, metadata::text from {}", quoted(name));
        for row in client.query(&sql, &[]).await.unwrap() {
            let metadata: Value = serde_json::from_str(row.get(3)).unwrap();
            let (text, source): (String, String) = (row.get(1), row.get(2));
            found.insert((*name, row.get(0)), json!({"text": text, "source": source, "metadata": metadata}));
        }
    }
    assert_eq!(found, expected);
    let others = "select reason from embedsink.dead_letters group by 1";
    assert_eq!(one::<String>(&client, others).await, "unknown_table");
    let made = "select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace \
                where n.nspname = 'public' and c.relkind = 'r'";
    assert_eq!(one::<i64>(&client, made).await, NAMES.len() as i64 + 1, "no table came or went");
}

#[tokio::test]
async fn a_name_that_no_table_can_have_is_a_bad_configuration() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let mut connector = Connector::new(&topic, &database, &PLAIN);
    for name in ["", "a\0b", &"x".repeat(64), &"ä".repeat(32), "public.embeddings"] {
        connector.tables = format!("{}: {{dimensions: 3}}", Value::from(name));
        let text = connector.start().ends_with(78).await;
        assert!(text.contains("connector.yaml:") && text.contains("table"), "{name:?}: {text}");
    }
}
