use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use super::*;
use crate::source::{Budget, Partition, Tenure};

/// A test does not wait for seconds.
const SOON: Duration = Duration::from_millis(20);

fn path_of(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("es-{name}-{}.sock", std::process::id()))
}

/// Serves at a path of its own.
struct Stand {
    path: PathBuf,
    monitor: Arc<Monitor>,
    served: Option<Served>,
}

impl Stand {
    async fn open(name: &str) -> Self {
        let stand = Self::begin(path_of(name));
        stand.answers().await;
        stand
    }

    /// Serves as soon as it can.
    fn begin(path: PathBuf) -> Self {
        let monitor = Arc::new(Monitor::new("docs", Budget::new(1_000)));
        let served = Some(serve_looking_every(SOON, path.clone(), Arc::clone(&monitor)));
        Self { path, monitor, served }
    }

    /// Waits until a client gets a whole document.
    async fn answers(&self) -> Document {
        let since = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            if let Some(document) = read(&self.path).await {
                return document;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "nobody answers");
        }
    }

    async fn close(mut self) {
        self.served.take().expect("it is served").close().await;
        assert!(!self.path.exists(), "the socket is removed");
    }
}

/// What a client reads until the other side closes; `None` if that is no document.
async fn read(path: &Path) -> Option<Document> {
    let mut bytes = Vec::new();
    let mut client = UnixStream::connect(path).await.ok()?;
    client.read_to_end(&mut bytes).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[tokio::test]
async fn whoever_connects_gets_one_pretty_document_with_the_framework_s_keys() {
    let stand = Stand::open("keys").await;
    let mut text = String::new();
    let mut client = UnixStream::connect(&stand.path).await.expect("a connection");
    client.read_to_string(&mut text).await.expect("a document, and the end");
    assert!(text.starts_with("{\n  \"consumer\": {\n    \"records\": 0,\n    \"bytes\": 0\n  },"), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    // A feature of the JSON library, which another crate may switch on, keeps the order of the text.
    keys.sort_unstable();
    assert_eq!(keys, ["consumer", "health", "producer_client", "producer_connector", "sink", "smartmodules"]);
    assert_eq!(value["smartmodules"], serde_json::json!({}));
    assert_eq!(value["health"]["phase"], "starting");
    assert_eq!(value["sink"]["connector"], "docs");
    stand.close().await;
}

#[tokio::test]
async fn clients_that_hang_up_send_garbage_or_flood_harm_nothing() {
    let stand = Stand::open("flood").await;
    let mut held = Vec::new();
    for number in 0..1_000 {
        let Ok(mut client) = UnixStream::connect(&stand.path).await else { continue };
        match number % 3 {
            0 => drop(client),
            1 => drop(client.write_all(b"GET / HTTP/1.1\r\n\r\n\0\xff").await),
            _ => held.push(client),
        }
    }
    stand.answers().await;
    assert!(held.len() > 100, "{} of them are still there", held.len());
    stand.close().await;
}

#[tokio::test]
async fn clients_that_never_read_are_cut_off_and_later_ones_are_served() {
    let stand = Stand::open("stall").await;
    // More than a socket's buffer takes.
    for number in 0..4_000 {
        stand.monitor.begins(&Partition::new("topic", number), Tenure(1), 0, 10);
    }
    let mut stalled = Vec::new();
    for _ in 0..MOST_CLIENTS {
        stalled.push(UnixStream::connect(&stand.path).await.expect("a connection"));
    }
    assert_eq!(read(&stand.path).await, None, "no more than that at a time");
    let document = stand.answers().await;
    assert_eq!(document.report.sink.partitions.len(), 4_000);
    let mut bytes = Vec::new();
    drop(stalled[0].read_to_end(&mut bytes).await);
    assert!(serde_json::from_slice::<Document>(&bytes).is_err(), "the first one got a part only");
    stand.close().await;
}

#[tokio::test]
async fn where_it_cannot_serve_it_says_so_and_ends_in_peace() {
    let monitor = Arc::new(Monitor::new("docs", Budget::new(1_000)));
    let file = std::env::temp_dir().join(format!("es-file-{}", std::process::id()));
    std::fs::write(&file, "dear").expect("a file");
    serve(file.clone(), monitor).close().await;
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "dear");
    std::fs::remove_file(&file).expect("it goes");
}

#[tokio::test]
async fn a_path_that_is_not_free_is_left_to_the_other_and_taken_when_that_is_gone() {
    let path = path_of("busy");
    let theirs = UnixListener::bind(&path).expect("a socket");
    let stand = Stand::begin(path);
    for _ in 0..3 {
        drop(theirs.accept().await.expect("it looks who is there"));
    }
    // As after `kill -9`: the socket itself stays.
    drop(theirs);
    stand.answers().await;
    stand.close().await;
}

#[tokio::test]
async fn a_socket_that_is_removed_or_replaced_is_made_again() {
    let stand = Stand::open("lost").await;
    std::fs::remove_file(&stand.path).expect("it goes");
    stand.answers().await;

    let elsewhere = path_of("other");
    let theirs = UnixListener::bind(&elsewhere).expect("a socket");
    std::fs::rename(&elsewhere, &stand.path).expect("it takes the place of ours");
    for _ in 0..3 {
        drop(theirs.accept().await.expect("it looks who is there"));
    }
    std::fs::remove_file(&stand.path).expect("theirs is still there, and goes");
    stand.answers().await;
    drop(theirs);
    stand.close().await;
}
