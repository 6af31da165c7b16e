//! A proxy before a server, which loses the connection where a test wants it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How the connection is lost, once the client has sent the words that are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Before the server sees them.
    Before,
    /// As soon as they are sent on: whether the server still acts on them is open.
    Behind,
    /// When the server has answered. The client does not see the answer.
    Answer,
}

/// Forwards connections to a server of this machine until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
    listener: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Happens once, to the first connection that sends the words.
    planned: Option<(Vec<u8>, Loss)>,
    /// New connections are cut at once.
    away: bool,
    /// Cancelled to cut all connections that there are.
    connections: CancellationToken,
}

impl Proxy {
    /// A proxy before the server at `port`.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if lock(&shared).away {
                    continue;
                }
                let cut = lock(&shared).connections.clone();
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        ended = forward(client, port, &shared) => drop(ended),
                    }
                });
            }
        });
        Self { port: own_port, state, listener }
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Loses the connection on which the client sends `words` next.
    pub(crate) fn lose_at(&self, words: &str, loss: Loss) {
        lock(&self.state).planned = Some((words.as_bytes().to_vec(), loss));
    }

    /// Whether the server is as if it were not there.
    pub(crate) fn set_away(&self, away: bool) {
        lock(&self.state).away = away;
        if away {
            self.cut();
        }
    }

    /// Whether the loss that was asked for has happened.
    pub(crate) fn has_lost(&self) -> bool {
        lock(&self.state).planned.is_none()
    }

    /// Cuts every connection that there is. New ones are served.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut lock(&self.state).connections).cancel();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(mut client: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    // What the client sent last, in case the words come in two pieces.
    let mut recent: Vec<u8> = Vec::new();
    loop {
        tokio::select! {
            length = client.read(&mut asked) => {
                let piece = &asked[..length?];
                if piece.is_empty() {
                    return Ok(());
                }
                recent.extend_from_slice(piece);
                match planned(state, &mut recent) {
                    None => server.write_all(piece).await?,
                    Some(Loss::Before) => return Ok(()),
                    Some(Loss::Behind) => return server.write_all(piece).await,
                    Some(Loss::Answer) => {
                        server.write_all(piece).await?;
                        return server.read(&mut answered).await.map(drop);
                    }
                }
            }
            length = server.read(&mut answered) => {
                let piece = &answered[..length?];
                if piece.is_empty() {
                    return Ok(());
                }
                client.write_all(piece).await?;
            }
        }
    }
}

/// The loss that is planned, if its words have come. It is then no longer planned.
fn planned(state: &Mutex<State>, recent: &mut Vec<u8>) -> Option<Loss> {
    let mut state = lock(state);
    let words = state.planned.as_ref().map_or(1, |(words, _)| words.len());
    let come = state
        .planned
        .as_ref()
        .is_some_and(|(words, _)| recent.windows(words.len()).any(|window| window == words));
    recent.drain(..recent.len().saturating_sub(words - 1));
    if come { state.planned.take().map(|(_, loss)| loss) } else { None }
}
