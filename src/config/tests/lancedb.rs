//! `embedsink.sink.lancedb`, and what else in the file depends on it.

use super::*;
use crate::config::show::{Setting, Shown, show_text};

const SERVER: &str = "postgres: {url: postgres://postgres@localhost/db}";

/// The minimal configuration with these keys under `lancedb`.
fn with_lance(keys: &str) -> String {
    changed(&[(SERVER, &format!("lancedb: {{{keys}}}"))])
}

/// The same over a folder, with this for the dimensions of its table.
fn with_table(keys: &str) -> String {
    with_lance("uri: ./data").replace("dimensions: 384", keys)
}

fn lance(text: &str) -> LanceSettings {
    match read(text).unwrap().target {
        TargetSettings::Lance(lance) => lance,
        TargetSettings::Postgres(_) => panic!("it writes to PostgreSQL"),
    }
}

#[test]
fn a_folder_is_all_that_is_needed_and_batches_are_larger() {
    let settings = read(&with_lance("uri: ./data")).unwrap();
    let expected =
        LanceSettings { uri: "data".to_owned(), storage_options: BTreeMap::new(), sole_writer: false };
    assert_eq!(settings.target, TargetSettings::Lance(expected));
    let batch = BatchSettings {
        max_rows: 10_000,
        max_bytes: 32 << 20,
        max_wait: Duration::from_secs(1),
        linger: Duration::from_millis(500),
    };
    assert_eq!(settings.batch, batch);
    assert_eq!((settings.tables[0].index, settings.tables[0].lance_index), (None, None));
}

#[test]
fn a_relative_folder_starts_at_the_folder_of_the_configuration() {
    let folder = Folder::new("lancedb");
    let uri = |uri: &str| {
        let path = folder.write("c.yaml", with_lance(&format!("uri: '{uri}'")));
        match Settings::from_file(&path, None).unwrap().target {
            TargetSettings::Lance(lance) => PathBuf::from(lance.uri),
            TargetSettings::Postgres(_) => panic!("it writes to PostgreSQL"),
        }
    };
    if cfg!(feature = "lancedb") {
        assert_eq!(uri("./data"), folder.0.join("data"));
        assert_eq!(uri("data/deep"), folder.0.join("data/deep"));
        assert_eq!(uri("file://data"), folder.0.join("data"));
        assert_eq!(uri("../data"), folder.0.join("../data"));
        assert_eq!(uri("./~data"), folder.0.join("./~data"));
        assert_eq!(uri("./s3:data"), folder.0.join("./s3:data"));
        assert_eq!(uri("/srv/data"), PathBuf::from("/srv/data"));
        assert_eq!(uri("file:///srv/data"), PathBuf::from("/srv/data"));
    }
}

#[test]
fn an_index_is_of_a_kind_and_a_metric_that_lancedb_has() {
    use LanceIndexMethod::{Flat, HnswSq, Pq};
    use LanceMetric::{Cosine, Dot, L2};
    for (keys, expected) in [
        ("", Some((HnswSq, Cosine))),
        ("metric: l2", Some((HnswSq, L2))),
        ("kind: ivfpq, metric: inner-product", Some((Pq, Dot))),
        ("kind: ivfflat", Some((Flat, Cosine))),
        ("kind: none", None),
    ] {
        let settings = read(&with_table(&format!("dimensions: 384, index: {{{keys}}}"))).unwrap();
        let expected = expected.map(|(method, metric)| LanceIndexSettings { method, metric });
        assert_eq!(settings.tables[0].lance_index, expected, "{keys}");
        assert_eq!(settings.tables[0].index, None, "{keys}");
    }
}

#[test]
fn each_mistake_with_lancedb_has_its_sentence() {
    assert_sentences(cases());
}

/// A file, and its one problem. One case a line, so that they can be read side by side.
#[rustfmt::skip]
fn cases() -> Vec<(String, &'static str)> { vec![
    (changed(&[(SERVER, &format!("{SERVER}, lancedb: {{uri: ./data}}"))]), "4:61: embedsink.sink.lancedb: contradicts `embedsink.sink.postgres`: a connector writes to one target; keep one of them"),
    (with_lance(""), "4:10: embedsink.sink.lancedb.uri: missing; name a folder, such as `./data`, or an object store's URI"),
    (with_lance("uri: ''"), "4:25: embedsink.sink.lancedb.uri: the value is empty; give one, or remove the key"),
    (with_lance("uri: 'file://'"), "4:25: embedsink.sink.lancedb.uri: it names no folder; name one, such as `./data`"),
    (with_lance("uri: 'ftp://host/data'"), "4:25: embedsink.sink.lancedb.uri: `ftp://` is no store that LanceDB knows; give a folder, or a URI with s3, gs, az or abfss"),
    (with_lance("uri: '~/data'"), "4:25: embedsink.sink.lancedb.uri: `~` stands for nothing here; write the whole path, or `./~/data` for a folder of that name"),
    (with_lance("uri: 'file:/data'"), "4:25: embedsink.sink.lancedb.uri: `file:` needs `//` behind it; write `/data`, or `./file:/data` for a folder of that name"),
    (with_lance("uri: 's3:bucket/data'"), "4:25: embedsink.sink.lancedb.uri: `s3:` needs `//` behind it; write `s3://bucket/data`, or `./s3:bucket/data` for a folder of that name"),
    (with_lance("uri: 's3:user:word@bucket'"), "4:25: embedsink.sink.lancedb.uri: `s3:` needs `//` behind it; write the scheme with `//`"),
    (with_lance("url: ./data, uri: ./data"), "4:20: embedsink.sink.lancedb.url: unknown key; did you mean `uri`?"),
    (with_lance("uri: ./data, sole-writer: true"), "4:33: embedsink.sink.lancedb.sole-writer: it is for object stores; a folder is locked, and has none; remove it"),
    (with_lance("uri: ./data, storage-options: {region: eu}"), "4:33: embedsink.sink.lancedb.storage-options: it is for object stores; a folder is locked, and has none; remove it"),
    (with_lance("uri: ./data, sole-writer: 1"), "4:46: embedsink.sink.lancedb.sole-writer: `1` is not known here; give `true` or `false`"),
    // Tables.
    (with_table("dimensions: 384").replace("embeddings: {", "embedsink_rows: {"), "5:12: embedsink.tables.embedsink_rows: `embedsink_rows` is among the connector's own tables in the dataset; give a name that does not begin with `embedsink_`"),
    (with_table("dimensions: 384").replace("embeddings: {", "a/b: {"), "5:12: embedsink.tables.a…: LanceDB has no table `a/b`; name it with ASCII letters, digits, `_`, `-` and single `.` only"),
    (with_table("dimensions: 384").replace("embeddings: {", "a..b: {"), "5:12: embedsink.tables.a..b: LanceDB has no table `a..b`; name it with ASCII letters, digits, `_`, `-` and single `.` only"),
    (with_table("dimensions: 384").replace("embeddings: {", "'ü': {"), "5:12: embedsink.tables.ü: LanceDB has no table `ü`; name it with ASCII letters, digits, `_`, `-` and single `.` only"),
    (with_table("dimensions: 384, index: {m: 8}"), "5:50: embedsink.tables.embeddings.index.m: it is for pgvector; LanceDB sizes its index by itself; remove it"),
    (with_table("dimensions: 384, index: {kind: ivfflat, lists: 8}"), "5:65: embedsink.tables.embeddings.index.lists: it is for pgvector; LanceDB sizes its index by itself; remove it"),
    (with_table("dimensions: 384, index: {build: immediate}"), "5:50: embedsink.tables.embeddings.index.build: it is for pgvector; LanceDB sizes its index by itself; remove it"),
    (with_table("dimensions: 384, index: {maintenance-memory: 1GiB}"), "5:50: embedsink.tables.embeddings.index.maintenance-memory: it is for pgvector; LanceDB sizes its index by itself; remove it"),
    (with_table("dimensions: 384, index: {metric: l1}"), "5:58: embedsink.tables.embeddings.index.metric: `l1` is not known here; did you mean `l2`?"),
    (with_table("dimensions: 384, index: {kind: ivf}"), "5:56: embedsink.tables.embeddings.index.kind: `ivf` is not known here; give `hnsw` or `ivfpq` or `ivfflat` or `none`"),
    (with_table("dimensions: 0"), "5:37: embedsink.tables.embeddings.dimensions: `0` is out of range: the connector writes vectors of 1 to 16000 dimensions; give 1 to 16000"),
]}

#[test]
fn an_object_store_wants_the_word_that_nothing_else_writes_and_a_build_that_knows_it() {
    for (uri, feature, is_built) in [
        ("s3://bucket/data", "aws", cfg!(feature = "aws")),
        ("gs://bucket/data", "gcs", cfg!(feature = "gcs")),
        ("az://container/data", "azure", cfg!(feature = "azure")),
        ("abfss://container@account/data", "azure", cfg!(feature = "azure")),
    ] {
        let (alone, sole) =
            (with_lance(&format!("uri: '{uri}'")), format!("uri: '{uri}', sole-writer: true"));
        let sole = with_lance(&format!("{sole}, storage-options: {{region: eu, timeout: 30s}}"));
        if is_built {
            let told = problems(&alone);
            let part = "embedsink.sink.lancedb.sole-writer: missing: an object store has no lock that keeps a second \
                 writer away; give `sole-writer: true` if nothing else writes there";
            assert!(told.len() == 1 && told[0].contains(part), "{told:?}");
            let settings = lance(&sole);
            assert_eq!((settings.uri.as_str(), settings.sole_writer), (uri, true));
            assert_eq!(settings.storage_options["timeout"].expose(), "30s");
        } else {
            let part = format!("build with `cargo build --release --features {feature}`");
            let told = problems(&sole);
            assert!(told.len() == 1 && told[0].ends_with(&part), "{told:?}");
        }
    }
}

#[test]
fn a_build_without_lancedb_says_how_to_get_one() {
    let build = Build { fluvio: true, lancedb: false };
    let text = with_lance("uri: ./data");
    let error = read_text("c.yaml", &text, &SecretStore::environment(), &no_environment, build).unwrap_err();
    let told: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    let expected = ":4:10: embedsink.sink.lancedb: this build has no LanceDB in it; name `embedsink.sink.postgres`, or \
                    build with `cargo build --release --features lancedb`";
    assert_eq!(told, [expected]);
}

/// Credentials of an object store, one of them from the secrets.
const OPTIONS: &str = "uri: 's3://bucket/data', sole-writer: true, \
                       storage-options: {aws_secret_access_key: canary-9c1f, region: '${{ secrets.REGION }}'}";

#[test]
fn storage_options_are_never_shown() {
    let text = with_lance(OPTIONS).replace(META, &format!("{META}, secrets: [{{name: REGION}}]"));
    let secrets = SecretStore::from_text("s", "REGION=canary-9c1f\n").unwrap();
    let build = Build { fluvio: true, lancedb: true };
    match show_text("c.yaml", &text, &secrets, &no_environment, build) {
        Ok(settings) => {
            let is_option =
                |setting: &&Setting| setting.path.starts_with("embedsink.sink.lancedb.storage-options.");
            let options: Vec<&Setting> = settings.iter().filter(is_option).collect();
            assert_eq!(options.len(), 2);
            assert!(options.iter().all(|setting| setting.shown == Shown::Hidden), "{options:?}");
        }
        // Without the feature the URI is refused, and what is said of it holds no option.
        Err(error) => {
            assert!(!format!("{error}{error:?}").contains(CANARY), "{error}");
        }
    }
    let settings = LanceSettings {
        uri: "s3://bucket".to_owned(),
        storage_options: [("key".to_owned(), Secret::new(CANARY))].into(),
        sole_writer: true,
    };
    assert!(!format!("{settings:?}").contains(CANARY));
}
