//! What `config show` tells: every key, from where, and no secret.

use super::*;
use crate::config::show::{Setting, Shown, show_text};

const VARIABLES: &[(&str, &str)] =
    &[("PGPASSWORD", "canary-9c1f-environment"), ("PGUSER", "from the environment")];

fn show_with(text: &str, secrets: &SecretStore, variables: &[(&str, &str)]) -> Vec<Setting> {
    let environment = |name: &str| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    };
    show_text("c.yaml", text, secrets, &environment, Build { fluvio: true, lancedb: true })
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn shown(text: &str) -> Vec<Setting> {
    show_with(text, &SecretStore::environment(), &[])
}

fn yaml(settings: &[Setting]) -> String {
    settings.iter().map(|setting| format!("{}\n", setting.yaml())).collect()
}

/// The line of a key, and where its value comes from.
fn line(settings: &[Setting], path: &str) -> (String, String) {
    let found = settings.iter().find(|setting| setting.path == path);
    let setting = found.unwrap_or_else(|| panic!("{path} is shown:\n{}", yaml(settings)));
    (setting.yaml().trim_start().to_owned(), setting.origin().unwrap_or_default())
}

/// All that Fluvio takes, and an index of each kind.
const FLUVIO: &str = "\
apiVersion: 0.2.0
meta:
  name: docs
  version: '1.10'
  topic: {version: 0.1.0, meta: {name: t}, partition: {count: 3}, retention: {time: 1h}, compression: {type: Gzip}}
  consumer: {partition: [2, 0], offset: {start: {from_end: 7}, flush-period: {secs: 3}}}
  secrets: [{name: A}, {name: B}]
transforms:
  - uses: group/name@0.1.0
  - uses: other
    with: {regex: '^a: #', n: 5, deep: {list: [1, null, true], api-key: canary-9c1f}, to: 'postgres://u:canary-9c1f@h'}
embedsink:
  sink: {postgres: {url: postgres://postgres@localhost/db}}
  tables:
    'odd: name': {dimensions: 1, index: {kind: ivfflat, lists: 5}}
    t: {dimensions: 3, index: {metric: l1}}
    none: {dimensions: 3, index: {kind: none}}
";

#[test]
fn every_key_that_the_reader_knows_is_shown() {
    let lance =
        MINIMAL.replacen("postgres: {url: postgres://postgres@localhost/db}", "lancedb: {uri: ./data}", 1);
    let settings = [shown(FLUVIO), shown(MINIMAL), shown(&lance)].concat();
    let described = |path: &str| {
        let path = path.replace("[0]", ".*").replace("[1]", ".*");
        match path.strip_prefix("embedsink.tables.").map(|rest| rest.split_once('.')) {
            None => path,
            Some(None) => "embedsink.tables.*".to_owned(),
            Some(Some((_, rest))) => format!("embedsink.tables.*.{rest}"),
        }
    };
    let found: BTreeSet<String> = settings.iter().map(|setting| described(&setting.path)).collect();
    let missing: Vec<&str> = KEYS.iter().map(|key| key.path).filter(|path| !found.contains(*path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_shown_says_the_same_when_it_is_read_again() {
    let plain = FLUVIO.replace("api-key: canary-9c1f", "x: 1").replace("u:canary-9c1f@h", "h");
    let lingers = format!("{MINIMAL}  batch: {{max-wait: 2ms}}\n");
    let silent = plain.replace(", flush-period: {secs: 3}", ", strategy: none");
    let url = MINIMAL.replace("localhost/db", "db.example:5433/db?sslmode=require");
    let odd = MINIMAL
        .replace("embeddings: {", "'no': {dimensions: 1}\n    '12': {dimensions: 1}\n    '# {': {")
        .replace("tables: {", "tables:\n    ")
        .replace("384}}", "384}");
    for text in [MINIMAL, REFERENCE, &plain, &lingers, &silent, &url, &odd] {
        let again = yaml(&shown(text));
        let read_again = read(&again).unwrap_or_else(|error| panic!("{error}\n{again}"));
        assert_eq!(read_again, read(text).unwrap(), "{again}");
        assert_eq!(yaml(&shown(&again)), again, "and is shown the same");
    }
}

#[test]
fn each_value_says_where_it_comes_from() {
    let text = "\
meta: {name: docs, topic: embeddings, secrets: [{name: HOST}, {name: KEY}]}
embedsink:
  source:
    kafka:
      bootstrap_servers: ['${{ secrets.HOST }}:9092', b:9093]
      properties: {client.id: me, sasl.password: {secret: {name: KEY}}}
  sink:
    postgres:
      url: postgres://localhost/db
  tables: {embeddings: {dimensions: 384}}
";
    let secrets = SecretStore::from_text("s", "HOST=a\nKEY=canary-9c1f\n").unwrap();
    let settings = show_with(text, &secrets, VARIABLES);
    let is = |path: &str, yaml: &str, origin: &str| {
        assert_eq!(line(&settings, path), (yaml.to_owned(), origin.to_owned()), "{path}");
    };
    is("meta.name", "name: docs", "line 1");
    is("meta.type", "type: embedsink", "default");
    is("meta.version", "# version: none", "default");
    is("embedsink.source.kafka.topics", "topics: [embeddings]", "meta.topic");
    is("embedsink.source.kafka.group-id", "group-id: docs", "meta.name");
    let servers = "bootstrap-servers: [\"${{ secrets.HOST }}:9092\", b:9093]";
    is("embedsink.source.kafka.bootstrap-servers", servers, "line 5, secret HOST from s");
    is("embedsink.source.kafka.properties.client.id", "client.id: me", "line 6");
    let password = "sasl.password: \"${{ secrets.KEY }}\"";
    is("embedsink.source.kafka.properties.sasl.password", password, "line 6, secret KEY from s");
    let variables = [("HOST", "a"), ("KEY", CANARY), ("PGUSER", "u")];
    let from_environment = show_with(text, &SecretStore::environment(), &variables);
    let origin = line(&from_environment, "embedsink.source.kafka.properties.sasl.password").1;
    assert_eq!(origin, "line 6, secret KEY from the environment");
    is("embedsink.sink.postgres.url", "url: \"postgres://localhost/db\"", "line 9");
    is("embedsink.sink.postgres.host", "host: localhost", "url, line 9");
    is("embedsink.sink.postgres.port", "port: 5432", "default");
    is("embedsink.sink.postgres.user", "user: \"from the environment\"", "environment PGUSER");
    is("embedsink.sink.postgres.password", "# password: hidden", "environment PGPASSWORD");
    is("embedsink.sink.postgres.tls.mode", "mode: disable", "default");
    is("embedsink.tables.embeddings.index", "# index: none", "default");
    is("embedsink.batch.max-bytes", "max-bytes: 8MiB", "default");
    is("embedsink.batch.linger", "linger: 5ms", "default");
    let rows = settings.iter().find(|setting| setting.path == "embedsink.batch.max-rows").unwrap();
    let object = rows.json().unwrap();
    assert_eq!((&object["value"], &object["from"]), (&2000.into(), &"default".into()));
}

#[test]
fn no_secret_is_shown_in_any_form() {
    let texts = [
        FLUVIO.to_owned(),
        MINIMAL.replace("postgres@localhost", "postgres:canary-9c1f@localhost"),
        MINIMAL.replace("/db}", "/db, password: canary-9c1f}"),
        MINIMAL.replace(
            "localhost:9092}",
            "localhost:9092, properties: {sasl.password: canary-9c1f, ssl.key.pem: canary-9c1f, client.id: 'a:canary-9c1f@b', \
             sasl.oauthbearer.config: canary-9c1f, sasl.oauthbearer.client.secret: canary-9c1f}}",
        ),
        MINIMAL
            .replace("topic: embeddings", "topic: embeddings, secrets: [{name: URL}]")
            .replace("postgres://postgres@localhost/db", "'${{ secrets.URL }}'"),
    ];
    let secrets = SecretStore::from_text("s", "URL=postgres://u:canary-9c1f@h/db\n").unwrap();
    for text in texts {
        let settings = show_with(&text, &secrets, VARIABLES);
        let json: String = settings.iter().filter_map(Setting::json).map(|json| json.to_string()).collect();
        let all = format!("{}{json}{settings:?}", yaml(&settings));
        assert!(!all.contains(CANARY), "{all}");
        assert!(all.contains("hidden"), "{all}");
    }
    let url =
        show_with(&MINIMAL.replace("postgres@localhost", "postgres:canary-9c1f@localhost"), &secrets, &[]);
    let hidden: Vec<&str> = url
        .iter()
        .filter(|setting| setting.shown == Shown::Hidden)
        .map(|setting| setting.path.as_str())
        .collect();
    assert_eq!(hidden, ["embedsink.sink.postgres.url", "embedsink.sink.postgres.password"]);
    assert_eq!(line(&url, "embedsink.sink.postgres.host").0, "host: localhost", "its other parts are");
}

#[test]
fn what_stands_beside_a_secret_in_a_secret_value_is_hidden_and_a_secret_alone_is_named() {
    let url = |url: &str| {
        let meta = "topic: embeddings, secrets: [{name: S}]";
        MINIMAL
            .replace("topic: embeddings", meta)
            .replace("postgres://postgres@localhost/db", &format!("'{url}'"))
    };
    let secrets = SecretStore::from_text("s", "S=db.example\n").unwrap();
    let shown = |text: &str, path: &str| line(&show_with(text, &secrets, &[]), path).0;
    let path = "embedsink.sink.postgres.url";
    for hidden in [
        "postgres://app:canary-9c1f@${{ secrets.S }}/db",
        "postgres://app:canary-9c1f${{ secrets.S }}@h/db",
        "postgres://app:65432@${{ secrets.S }}/db",
        "postgres://${{ secrets.S }}:canary-9c1f@h/db",
    ] {
        assert_eq!(shown(&url(hidden), path), "# url: hidden", "{hidden}");
    }
    for named in [
        "postgres://app:${{ secrets.S }}@h/db",
        "postgres://app@${{ secrets.S }}:5433/db",
        "postgres://u@h/${{secrets.S}}?sslmode=disable",
    ] {
        assert_eq!(shown(&url(named), path), format!("url: \"{named}\""));
    }

    let properties =
        "properties: {sasl.password: 'canary-9c1f-${{ secrets.S }}', ssl.key.pem: '${{ secrets.S }}',
        client.id: 'me-${{ secrets.S }}', client.rack: 'u:canary-9c1f@${{ secrets.S }}',
        sasl.oauthbearer.config: '${{ secrets.S }} canary-9c1f ${{ secrets.S }}'}";
    let kafka = MINIMAL
        .replace("topic: embeddings", "topic: embeddings, secrets: [{name: S}]")
        .replace("localhost:9092}", &format!("localhost:9092, {properties}}}"));
    let property = |key: &str| shown(&kafka, &format!("embedsink.source.kafka.properties.{key}"));
    for key in ["sasl.password", "client.rack", "sasl.oauthbearer.config"] {
        assert_eq!(property(key), format!("# {key}: hidden"));
    }
    assert_eq!(property("ssl.key.pem"), "ssl.key.pem: \"${{ secrets.S }}\"");
    assert_eq!(property("client.id"), "client.id: \"me-${{ secrets.S }}\"");

    let lance = MINIMAL.replace("topic: embeddings", "topic: embeddings, secrets: [{name: S}]").replace(
        "postgres: {url: postgres://postgres@localhost/db}",
        "lancedb: {uri: 'az://a/b', sole-writer: true,
                       storage-options: {a: 'canary-9c1f${{ secrets.S }}', b: '${{ secrets.S }}'}}",
    );
    // A build without stores refuses the URI.
    if cfg!(feature = "azure") {
        let option = |key: &str| shown(&lance, &format!("embedsink.sink.lancedb.storage-options.{key}"));
        assert_eq!((option("a").as_str(), option("b").as_str()), ("# a: hidden", "b: \"${{ secrets.S }}\""));
    }
}

#[test]
fn a_secret_deep_in_the_parameters_of_a_transform_is_hidden() {
    let text = FLUVIO.replace(
        "regex: '^a: #'",
        "urls: ['postgres://u:canary-9c1f@h', plain, ['a:canary-9c1f@b', {to: 'c:canary-9c1f@d'}]], \
         deeper: {keys: [canary-9c1f], list: [{token: 'canary-9c1f${{ secrets.A }}', pem: '${{ secrets.A }}'}], \
         to: 'u:canary-9c1f@${{ secrets.A }}'}",
    );
    let secrets = SecretStore::from_text("s", "A=a\nB=b\n").unwrap();
    let settings = show_with(&text, &secrets, &[]);
    let json: String = settings.iter().filter_map(Setting::json).map(|json| json.to_string()).collect();
    let all = format!("{}{json}{settings:?}", yaml(&settings));
    assert!(!all.contains(CANARY), "{all}");
    for part in [
        "urls: [hidden, plain, [hidden, {to: hidden}]]",
        "{keys: hidden, list: [{token: hidden, pem: \"${{ secrets.A }}\"}], to: hidden}",
        r#"[null,"plain",[null,{"to":null}]]"#,
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    for key in ["urls", "deeper"] {
        let told = settings.iter().filter_map(Setting::json);
        let told: Vec<_> = told.filter(|told| told["key"].as_str().unwrap().ends_with(key)).collect();
        assert!(told.len() == 1 && told[0]["hidden"] == true, "{told:?}");
    }
}
