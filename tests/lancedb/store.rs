//! An object store in place of a folder: S3 as the Python package moto answers in its place. `make test-stores` runs it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sink_lancedb::DatasetOptions;

use crate::stage::Stage;
use crate::support::proxy::Proxy;
use crate::support::wait::until;

/// S3 with nothing in it. It ends when this is dropped.
struct Store {
    server: Child,
    port: u16,
}

impl Store {
    /// With the bucket `bucket`. So many requests are taken whoever asks; all later ones need a user whom it knows, and it knows none.
    async fn start(open_requests: u32) -> Self {
        let packages = std::env::var("MOTO_PYTHON")
            .expect("MOTO_PYTHON names the folder of the package: `make test-stores` sets it");
        // The system hands out another one each time, so most likely nobody else takes it in between.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env("PYTHONPATH", packages)
            .env("INITIAL_NO_AUTH_ACTION_COUNT", open_requests.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answer = until("the store's first answer", async || {
            let ended = server.try_wait().unwrap();
            assert!(ended.is_none(), "the store ended at its start: {ended:?}");
            put(port, "/bucket").ok()
        })
        .await;
        assert!(answer.contains(" 200 "), "{answer}");
        Self { server, port }
    }

    /// A dataset in the bucket `bucket`, reached through `port`.
    fn options(bucket: &str, port: u16) -> DatasetOptions {
        let mut options = DatasetOptions::new(format!("s3://{bucket}/data"));
        let endpoint = format!("http://127.0.0.1:{port}");
        options.storage_options = [
            ("aws_access_key_id", "canary-id"),
            ("aws_secret_access_key", "canary-secret"),
            ("aws_region", "us-east-1"),
            ("aws_endpoint", &endpoint),
            ("allow_http", "true"),
            ("client_max_retries", "1"),
            ("client_retry_timeout", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        options.sole_writer = true;
        options
    }
}

/// Asks the server at `port` for a bucket.
fn put(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// A stage whose dataset is there.
async fn stage(test: &str, records: usize, options: DatasetOptions) -> Stage {
    let mut stage = Stage::new(test, records).await;
    let lines: Vec<String> =
        options.storage_options.iter().map(|(name, value)| format!("  {name}: '{value}'")).collect();
    stage.connector.postgres =
        format!("uri: {}\nsole-writer: true\nstorage-options:\n{}\n", options.uri, lines.join("\n"));
    stage.store = Some(options);
    stage
}

#[tokio::test]
async fn a_connector_over_s3_that_is_killed_and_started_again_leaves_every_key_once() {
    let store = Store::start(u32::MAX).await;
    let mut stage = stage("S3", 6_000, Store::options("bucket", store.port)).await;
    let kafka = stage.connector.kafka.clone();
    for moment in [1, 1_500, 3_000] {
        // In the same group the broker would wait for the killed member's session to end.
        stage.connector.kafka = format!("{kafka}\ngroup-id: {}-{moment}", stage.connector.name());
        let mut process = stage.connector.start();
        stage.settles(&mut process, moment).await;
        process.kill();
        stage.assert_consistent().await;
    }
    let text = stage.finish(stage.connector.start()).await;
    assert!(!text.contains("canary"), "{text}");
    stage.assert_complete().await;
    assert!(!stage.connector.file("data").exists(), "nothing is in a folder");

    stage.connector.write();
    let query = ["query", "--config", &stage.connector.path(), "embeddings", "--limit", "1", "--json"];
    let answer = stage.connector.run(&query).outputs().await;
    assert_eq!(answer.lines().count(), 2, "a row and the summary: {answer}");
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_is_waited_for() {
    let store = Store::start(u32::MAX).await;
    let proxy = Proxy::before(store.port).await;
    let mut stage = stage("S3 away", 2_000, Store::options("bucket", proxy.port())).await;
    proxy.set_away(true);
    let mut process = stage.connector.start();
    let is_retrying = |told: &serde_json::Value| told["health"]["phase"] == "retrying";
    let told = stage.status(&mut process, "retrying at the start", is_retrying).await;
    let error = told["health"]["last_error"]["text"].as_str().unwrap();
    assert!(error.contains("the disk or the object store failed"), "{error}");
    proxy.set_away(false);
    stage.settles(&mut process, 500).await;

    proxy.set_away(true);
    stage.produce(500);
    stage.status(&mut process, "retrying under load", is_retrying).await;
    proxy.set_away(false);
    stage.finish(process).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_told_with_what_to_do() {
    let store = Store::start(u32::MAX).await;
    let stage = stage("no bucket", 10, Store::options("elsewhere", store.port)).await;
    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("s3://elsewhere/data") && text.contains("Make the bucket"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn credentials_that_the_store_does_not_take_are_told_and_not_shown() {
    let store = Store::start(1).await;
    let stage = stage("no rights", 10, Store::options("bucket", store.port)).await;
    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("this user may not") && text.contains("storage-options"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}
