use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixSocket;

use super::*;
use crate::monitoring::Monitor;
use crate::source::Budget;

fn path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("es-ask-{}-{number}", std::process::id()))
}

fn document() -> Vec<u8> {
    serde_json::to_vec(&Document::of(&Monitor::new("docs", Budget::new(4_096)))).expect("JSON")
}

#[tokio::test]
async fn one_that_lets_nobody_in_or_closes_without_a_word_is_asked_again() {
    let path = path();
    let socket = UnixSocket::new_stream().expect("a socket");
    socket.bind(&path).expect("the path is free");
    let listener = socket.listen(1).expect("a short queue");
    let mut queue = Vec::new();
    let full = loop {
        match UnixStream::connect(&path).await {
            Ok(client) => queue.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    let answers = async {
        for _ in 0..=queue.len() {
            drop(listener.accept().await.expect("a client"));
        }
        let (mut client, _) = listener.accept().await.expect("it comes again");
        client.write_all(&document()).await.expect("an answer");
    };
    // It asks first, while the queue is full.
    let (answer, ()) = tokio::join!(biased; ask(&path), answers);
    assert_eq!(answer.expect("an answer").phase(), Some(Phase::Starting));
    std::fs::remove_file(&path).expect("it goes");
}

#[tokio::test]
async fn what_is_no_socket_is_told_so() {
    let file = path();
    std::fs::write(&file, "dear").expect("a file");
    for path in [std::env::temp_dir(), file.clone()] {
        let why = ask(&path).await.expect_err("nobody is there");
        assert!(why.contains("what is there is no socket"), "{why}");
    }
    std::fs::remove_file(&file).expect("it goes");
}

#[test]
fn a_phase_of_a_later_version_is_not_healthy_and_yet_an_answer() {
    let text = String::from_utf8(document()).expect("text");
    let later = text.replace(r#""phase":"starting""#, r#""phase":"resting""#);
    assert_ne!(text, later);
    let answer = Answer::from_bytes(later.clone().into_bytes()).expect("an answer");
    assert_eq!((answer.phase(), answer.later.as_deref()), (None, Some("resting")));
    assert_eq!(answer.bytes, later.as_bytes());
    let table = table::render(&answer.document, answer.later.as_deref(), false);
    assert!(table.starts_with("docs: resting for "), "{table}");
    for other in ["{}", r#"{"health": {"phase": 7}}"#, r#"{"health": {"phase": "starting"}}"#] {
        assert!(Answer::from_bytes(other.as_bytes().to_vec()).is_none(), "{other}");
    }
}
