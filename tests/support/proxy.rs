//! A proxy before a server, which loses or holds the connection where a test wants it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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
    /// The same, but the connection stays open for this long, and silent.
    AnswerAfter(Duration),
}

/// Forwards connections to a server of this machine until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
    listener: JoinHandle<()>,
}

struct State {
    /// Happens once, to the first connection that sends the words.
    planned: Option<(Vec<u8>, Loss)>,
    /// How many bytes pass before the connection that carries the last of them is cut. Happens once.
    allowance: Option<usize>,
    /// How long each piece is held.
    delay: Duration,
    /// Nothing is forwarded while this is so.
    stalled: watch::Sender<bool>,
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
        let state = Arc::new(Mutex::new(State {
            planned: None,
            allowance: None,
            delay: Duration::ZERO,
            stalled: watch::Sender::new(false),
            away: false,
            connections: CancellationToken::new(),
        }));
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

    /// Whether connections stay open, are accepted even, and nothing passes.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        lock(&self.state).stalled.send_replace(stalled);
    }

    /// Holds each piece, in either direction, for this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Lets so many bytes more pass, over all connections and in both directions, and cuts the connection that
    /// carries the last of them.
    pub(crate) fn cut_after(&self, bytes: usize) {
        lock(&self.state).allowance = Some(bytes);
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
        let state = lock(&self.state);
        state.planned.is_none() && state.allowance.is_none()
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
                hold(state).await;
                recent.extend_from_slice(piece);
                match planned(state, &mut recent) {
                    None => pass(piece, &mut server, state).await?,
                    Some(Loss::Before) => return Ok(()),
                    Some(Loss::Behind) => return server.write_all(piece).await,
                    Some(Loss::Answer) => {
                        server.write_all(piece).await?;
                        return server.read(&mut answered).await.map(drop);
                    }
                    Some(Loss::AnswerAfter(silence)) => {
                        server.write_all(piece).await?;
                        let answer = server.read(&mut answered).await;
                        tokio::time::sleep(silence).await;
                        return answer.map(drop);
                    }
                }
            }
            length = server.read(&mut answered) => {
                let piece = &answered[..length?];
                if piece.is_empty() {
                    return Ok(());
                }
                hold(state).await;
                pass(piece, &mut client, state).await?;
            }
        }
    }
}

/// Waits as long as a piece is to be held.
async fn hold(state: &Mutex<State>) {
    let (delay, mut stalled) = {
        let state = lock(state);
        (state.delay, state.stalled.subscribe())
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    // It fails when the proxy is gone; then there is nothing to hold back any more.
    drop(stalled.wait_for(|stalled| !stalled).await);
}

/// Sends a piece on, or what the allowance leaves of it.
async fn pass(piece: &[u8], to: &mut TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let allowed = {
        let allowance = &mut lock(state).allowance;
        match allowance {
            Some(left) if *left <= piece.len() => allowance.take(),
            Some(left) => {
                *left -= piece.len();
                None
            }
            None => None,
        }
    };
    match allowed {
        None => to.write_all(piece).await,
        Some(bytes) => {
            to.write_all(&piece[..bytes]).await?;
            Err(std::io::Error::other("the allowance is used up"))
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
