use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use super::*;

/// A folder with a short path, which goes when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("es-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("a.sock")
    }

    /// A socket whose process is gone.
    fn with_stale_socket(self) -> Self {
        drop(StdListener::bind(self.socket()).expect("a socket"));
        self
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the folder goes");
    }
}

async fn take_and_let_go(path: &Path) -> Result<(), Untaken> {
    Socket::take(path).await.map(drop)
}

#[tokio::test]
async fn a_socket_has_mode_0600_and_leaves_nothing_behind() {
    let folder = Folder::create();
    let socket = Socket::take(&folder.socket()).await.expect("the path is free");
    let found = fs::symlink_metadata(folder.socket()).expect("the socket");
    assert_eq!((found.file_type().is_socket(), found.mode() & 0o7777), (true, 0o600));
    assert_eq!(folder.names(), ["a.sock"], "nor beside it");
    let (client, accepted) = tokio::join!(UnixStream::connect(folder.socket()), socket.accept());
    assert!(client.is_ok() && accepted.is_ok());
    drop(socket);
    assert!(folder.names().is_empty());
}

#[tokio::test]
async fn a_live_socket_is_not_taken() {
    let folder = Folder::create();
    let theirs = StdListener::bind(folder.socket()).expect("a socket");
    assert!(matches!(take_and_let_go(&folder.socket()).await, Err(Untaken::Answered)));
    let ours = Folder::create();
    let first = Socket::take(&ours.socket()).await.expect("the path is free");
    assert!(matches!(take_and_let_go(&ours.socket()).await, Err(Untaken::Answered)));
    assert!(StdStream::connect(folder.socket()).is_ok() && StdStream::connect(ours.socket()).is_ok());
    assert_eq!((folder.names().len(), ours.names().len()), (1, 1), "and nothing is left beside them");
    drop((theirs, first));
}

#[tokio::test]
async fn a_socket_of_a_process_that_is_gone_is_taken() {
    let folder = Folder::create().with_stale_socket();
    let socket = Socket::take(&folder.socket()).await.expect("nobody listens there");
    assert!(StdStream::connect(folder.socket()).is_ok());
    drop(socket);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let folder = Folder::create().with_stale_socket();
    let at = |name: &str| folder.0.join(name);
    fs::write(at("file"), "dear").expect("a file");
    fs::create_dir(at("folder")).expect("a folder");
    symlink(at("nothing"), at("dangling")).expect("a link");
    symlink(folder.socket(), at("link")).expect("a link");
    let before = folder.names().len();
    for name in ["file", "folder", "dangling", "link"] {
        assert!(matches!(take_and_let_go(&at(name)).await, Err(Untaken::NotASocket)), "{name}");
    }
    assert_eq!(fs::read_to_string(at("file")).expect("the file"), "dear");
    assert_eq!(folder.names().len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_come_at_once_to_a_stale_socket_one_wins_and_keeps_it() {
    for _ in 0..20 {
        let folder = Folder::create().with_stale_socket();
        let contenders: Vec<_> = (0..12)
            .map(|_| {
                let path = folder.socket();
                tokio::spawn(async move { Socket::take(&path).await })
            })
            .collect();
        let mut winners = Vec::new();
        for contender in contenders {
            match contender.await.expect("no panic") {
                Ok(socket) => winners.push(socket),
                Err(why) => assert!(matches!(why, Untaken::Answered), "{why}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(Identity::at(&folder.socket()).expect("the socket"), winners[0].identity);
        assert_eq!(folder.names(), ["a.sock"]);
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_is_an_error_not_a_panic() {
    let folder = Folder::create();
    for path in [folder.0.join("x".repeat(120)), folder.0.join("missing/a.sock")] {
        assert!(matches!(take_and_let_go(&path).await, Err(Untaken::Failed { .. })), "{}", path.display());
    }
    assert!(folder.names().is_empty());
}

#[tokio::test]
async fn a_socket_that_somebody_else_put_in_our_place_stays() {
    let folder = Folder::create();
    let ours = Socket::take(&folder.socket()).await.expect("the path is free");
    fs::remove_file(folder.socket()).expect("as the framework's connectors do");
    let theirs = StdListener::bind(folder.socket()).expect("a socket");
    drop(ours);
    assert!(StdStream::connect(folder.socket()).is_ok());
    drop(theirs);
}

#[tokio::test]
async fn a_socket_is_lost_when_it_is_removed_or_replaced() {
    let folder = Folder::create();
    let ours = Socket::take(&folder.socket()).await.expect("the path is free");
    assert!(!ours.is_lost());
    fs::remove_file(folder.socket()).expect("it goes");
    assert!(ours.is_lost());
    let theirs = StdListener::bind(folder.socket()).expect("a socket");
    assert!(ours.is_lost());
    drop((ours, theirs));
    assert_eq!(folder.names(), ["a.sock"]);
}

#[tokio::test]
async fn what_was_left_by_one_that_was_killed_is_swept_and_nothing_else() {
    let folder = Folder::create();
    let now = SystemTime::now();
    let make = |name: &str, content: &str, modified: SystemTime| {
        let path = folder.0.join(name);
        fs::create_dir(&path).expect("a folder");
        match content {
            "" => {}
            "s" => drop(StdListener::bind(path.join("s")).expect("a socket")),
            file => fs::write(path.join(file), "dear").expect("a file"),
        }
        File::open(&path).and_then(|made| made.set_modified(modified)).expect("its time");
    };
    make(".es0123abcd", "", now - 2 * LEFT_FOR);
    make(".es0123abce", "s", now - 2 * LEFT_FOR);
    let others = [".es0123abcf", ".es0123abcx", ".es0123abcde", "es0123abcd", ".es01230000"];
    make(others[0], "s", now);
    for name in &others[1..4] {
        make(name, "", now - 2 * LEFT_FOR);
    }
    make(others[4], "file", now - 2 * LEFT_FOR);
    symlink(folder.0.join(others[1]), folder.0.join(".es11111111")).expect("a link");
    let socket = Socket::take(&folder.socket()).await.expect("the path is free");
    let mut names = folder.names();
    let mut wanted = [&others[..], &[".es11111111", "a.sock"]].concat();
    names.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    drop(socket);
}
