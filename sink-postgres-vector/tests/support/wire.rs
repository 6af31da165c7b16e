//! A proxy before the server that reads what the client says, and can fall silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    task::JoinHandle,
};

/// A message of the client: its kind, and the first text in it, which for `P` is the name of the statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) kind: u8,
    pub(crate) text: String,
}

/// Where the link falls silent: nothing more gets through, in neither direction, and nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Never.
    Never,
    /// Before the first message.
    Connect,
    /// Once the client has said who it is.
    Login,
    /// At the first message that begins with this kind and text.
    At(u8, &'static str),
    /// In the middle of a message of this kind that is longer than this.
    Within(u8, usize),
}

/// Forwards one connection after the other.
pub(crate) struct Wire {
    port: u16,
    said: Arc<Mutex<Vec<Said>>>,
    listener: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn before(server: u16, silence: Silence) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let heard = Arc::clone(&heard);
                tokio::spawn(async move { forward(client, server, silence, &heard).await });
            }
        });
        Self { port, said, listener }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What clients have said since the last time it was asked.
    pub(crate) fn said(&self) -> Vec<Said> {
        std::mem::take(&mut *lock(&self.said))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn lock(said: &Mutex<Vec<Said>>) -> MutexGuard<'_, Vec<Said>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forwards until one end hangs up or the silence comes; a silent link is held open until the client hangs up.
async fn forward(client: TcpStream, port: u16, silence: Silence, heard: &Mutex<Vec<Said>>) {
    let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    server.set_nodelay(true).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = async {
        let mut first = true;
        while let Some(head) = head(&mut from_client, first).await {
            let len = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap()) as usize - 4;
            let kind = if first { b'?' } else { head[0] };
            if matches!(silence, Silence::Within(at, longer) if at == kind && len > longer) {
                to_server.write_all(&head).await.unwrap();
                return;
            }
            let mut body = vec![0; len];
            if from_client.read_exact(&mut body).await.is_err() {
                break;
            }
            let text: Vec<u8> = body.iter().copied().take_while(|byte| *byte != 0).collect();
            let said = Said { kind, text: String::from_utf8_lossy(&text).into_owned() };
            let is_silence = match silence {
                Silence::Never | Silence::Within(..) => false,
                Silence::Connect | Silence::Login => true,
                Silence::At(at, with) => at == kind && said.text.starts_with(with),
            };
            lock(heard).push(said);
            if silence == Silence::Login {
                to_server.write_all(&[&head[..], &body].concat()).await.unwrap();
            }
            if is_silence {
                return;
            }
            if to_server.write_all(&[&head[..], &body].concat()).await.is_err() {
                break;
            }
            first = false;
        }
        // The client hung up.
        drop(to_server.shutdown().await);
        std::future::pending::<()>().await;
    };
    let answered = async {
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
    };
    tokio::select! {
        biased;
        () = asked => std::future::pending().await,
        () = answered => {}
    }
}

/// Kind and length; the first message has no kind.
async fn head(from: &mut OwnedReadHalf, first: bool) -> Option<Vec<u8>> {
    let mut head = vec![0; if first { 4 } else { 5 }];
    from.read_exact(&mut head).await.ok()?;
    Some(head)
}
