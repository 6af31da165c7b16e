//! Encryption, against a server that speaks only the beginning of the protocol: after the handshake it says
//! "starting up" (57P03), which proves that the client has accepted it.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, Stream,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::danger::ClientCertVerifier,
};
use sha2::{Digest, Sha256};
use sink_postgres_vector::{Class, ClientCertificate, Connection, Error, Password, Tls, TlsMode};

use crate::support::options;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = std::env::temp_dir().join(format!("pgvector-{}-{name}.pem", std::process::id()));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A certificate for the name, and its key.
    fn issue(&self, name: &str) -> (Certificate, KeyPair) {
        self.issue_until(name, 4096)
    }

    /// One that is good until a year begins.
    fn issue_until(&self, name: &str, year: i32) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes a certificate for the client and its key.
    fn client(&self, name: &str) -> ClientCertificate {
        let (certificate, key) = self.issue(name);
        let file = |kind: &str| self.file.with_extension(format!("{name}.{kind}"));
        std::fs::write(file("crt"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        ClientCertificate { cert_file: file("crt"), key_file: file("key") }
    }

    /// Serves one connection with a certificate for the name. Gives the port.
    fn serve(&self, name: &str) -> u16 {
        self.serve_whoever(self.issue(name), rustls::server::WebPkiClientVerifier::no_client_auth())
    }

    /// Serves one connection with a certificate for the name that is no longer good. Gives the port.
    fn serve_expired(&self, name: &str) -> u16 {
        let expired = self.issue_until(name, 2020);
        self.serve_whoever(expired, rustls::server::WebPkiClientVerifier::no_client_auth())
    }

    /// Serves one connection to a client with a certificate of this authority. Gives the port.
    fn serve_known(&self, name: &str) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        self.serve_whoever(self.issue(name), verifier.unwrap())
    }

    fn serve_whoever(&self, own: (Certificate, KeyPair), clients: Arc<dyn ClientCertVerifier>) -> u16 {
        let config = server_config(own, clients);
        serve(move |mut socket| {
            let mut session = ServerConnection::new(Arc::new(config)).unwrap();
            socket.write_all(b"S").unwrap();
            let mut stream = Stream::new(&mut session, &mut socket);
            // A client that does not trust us hangs up here.
            if stream.read(&mut [0; 512]).is_ok() {
                stream.write_all(&fatal("57P03", "starting up")).unwrap();
            }
        })
    }
}

fn server_config(
    (certificate, key): (Certificate, KeyPair),
    clients: Arc<dyn ClientCertVerifier>,
) -> ServerConfig {
    let certificate: CertificateDer<'static> = certificate.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).unwrap();
    }
}

/// The message that ends a session.
fn fatal(code: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    let len = u32::try_from(fields.len() + 4).unwrap();
    [b"E", &len.to_be_bytes()[..], fields.as_bytes()].concat()
}

/// Answers the request for encryption of one client.
fn serve(answer: impl FnOnce(std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 8]).unwrap();
        answer(socket);
    });
    port
}

async fn connect(port: u16, host: &str, mode: TlsMode, ca_file: Option<&PathBuf>) -> Error {
    let mut options = options("postgres");
    options.host = host.into();
    options.port = port;
    options.tls = Tls { mode, ca_file: ca_file.cloned(), client: None };
    Connection::open(&options).await.unwrap_err()
}

fn accepted(error: &Error) {
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("57P03"), "{error}");
    assert_eq!(error.class(), Class::Transient);
}

fn refused(error: &Error, why: &str, remedy: &str) {
    assert_eq!(error.class(), Class::Configuration, "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert!(error.remedy().unwrap().contains(remedy), "{:?}", error.remedy());
}

#[tokio::test]
async fn verify_full_wants_the_authority_and_the_name() {
    let (ours, other) = (Authority::new("full"), Authority::new("full-other"));
    let full = TlsMode::VerifyFull;
    accepted(&connect(ours.serve("127.0.0.1"), "127.0.0.1", full, Some(&ours.file)).await);
    let wrong_name = connect(ours.serve("db.example.com"), "127.0.0.1", full, Some(&ours.file)).await;
    refused(&wrong_name, "not valid for name", "verify-ca");
    let wrong_authority = connect(ours.serve("127.0.0.1"), "127.0.0.1", full, Some(&other.file)).await;
    refused(&wrong_authority, "invalid peer certificate", "ca-file");
    let expired = connect(ours.serve_expired("127.0.0.1"), "127.0.0.1", full, Some(&ours.file)).await;
    refused(&expired, "expired", "Renew the server's certificate");
}

#[tokio::test]
async fn verify_ca_wants_the_authority_and_any_name() {
    let (ours, other) = (Authority::new("ca"), Authority::new("ca-other"));
    let ca = TlsMode::VerifyCa;
    accepted(&connect(ours.serve("db.example.com"), "127.0.0.1", ca, Some(&ours.file)).await);
    let wrong_authority = connect(ours.serve("127.0.0.1"), "127.0.0.1", ca, Some(&other.file)).await;
    refused(&wrong_authority, "invalid peer certificate", "ca-file");
    let expired = connect(ours.serve_expired("127.0.0.1"), "127.0.0.1", ca, Some(&ours.file)).await;
    refused(&expired, "expired", "Renew the server's certificate");
}

#[tokio::test]
async fn require_takes_any_certificate_but_no_plain_text() {
    let ours = Authority::new("require");
    accepted(&connect(ours.serve("db.example.com"), "127.0.0.1", TlsMode::Require, None).await);
}

#[tokio::test]
async fn a_server_that_asks_who_connects_is_shown_the_certificate() {
    let ours = Authority::new("client");
    let known = ours.client("embedsink");
    let connect = async |port: u16, client: Option<ClientCertificate>| {
        let mut options = options("postgres");
        options.host = "127.0.0.1".into();
        options.port = port;
        options.tls = Tls { mode: TlsMode::VerifyFull, ca_file: Some(ours.file.clone()), client };
        Connection::open(&options).await.unwrap_err()
    };
    accepted(&connect(ours.serve_known("127.0.0.1"), Some(known.clone())).await);
    // One that does not ask is not bothered by it.
    accepted(&connect(ours.serve("127.0.0.1"), Some(known.clone())).await);
    let stranger = connect(ours.serve_known("127.0.0.1"), None).await;
    refused(&stranger, "CertificateRequired", "cert-file");

    let other = ours.client("other");
    let mixed = ClientCertificate { cert_file: known.cert_file.clone(), key_file: other.key_file.clone() };
    refused(&connect(1, Some(mixed)).await, "cannot be used", "its own key");
    let swapped = ClientCertificate { cert_file: known.key_file.clone(), key_file: known.key_file.clone() };
    refused(&connect(1, Some(swapped)).await, "it holds no certificate", "cert-file");
    let missing = ClientCertificate { key_file: "/no/such/key.pem".into(), ..known.clone() };
    refused(&connect(1, Some(missing)).await, "the key-file /no/such/key.pem cannot be used", "key-file");
    for file in [known.cert_file, known.key_file, other.cert_file, other.key_file] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn a_server_without_encryption_is_refused_by_all_modes_but_disable() {
    let ours = Authority::new("plain");
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let port = serve(|mut socket| socket.write_all(b"N").unwrap());
        refused(
            &connect(port, "127.0.0.1", mode, Some(&ours.file)).await,
            "does not support TLS",
            "ssl = on",
        );
    }
}

#[tokio::test]
async fn a_handshake_that_is_cut_off_is_transient() {
    let ours = Authority::new("cut");
    let port = serve(|mut socket| socket.write_all(b"S").unwrap());
    let error = connect(port, "127.0.0.1", TlsMode::VerifyFull, Some(&ours.file)).await;
    assert_eq!(error.class(), Class::Transient, "{error}");
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_in_time() {
    let ours = Authority::new("stall");
    let mut options = options("postgres");
    options.host = "127.0.0.1".into();
    options.port = serve(|mut socket| {
        socket.write_all(b"S").unwrap();
        drop(socket.read_to_end(&mut Vec::new()));
    });
    options.tls = Tls { mode: TlsMode::VerifyFull, ca_file: Some(ours.file.clone()), client: None };
    options.connect_timeout = Duration::from_millis(200);
    let error = Connection::open(&options).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.to_string().ends_with("no answer within 0.2 s"), "{error}");
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_named() {
    let missing = PathBuf::from("/no/such/ca.pem");
    refused(&connect(1, "127.0.0.1", TlsMode::VerifyFull, Some(&missing)).await, "/no/such/ca.pem", "PEM");
    let empty = std::env::temp_dir().join(format!("pgvector-{}-empty.pem", std::process::id()));
    std::fs::write(&empty, "nothing").unwrap();
    refused(&connect(1, "127.0.0.1", TlsMode::VerifyCa, Some(&empty)).await, "no certificate", "PEM");
    std::fs::remove_file(&empty).unwrap();
}

/// Asks for a password with SCRAM, then refuses whatever comes.
fn ask_for_password() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut buffer = [0; 1024];
        assert!(socket.read(&mut buffer).unwrap() > 0);
        socket.write_all(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").unwrap();
        if socket.read(&mut buffer).unwrap() > 0 {
            socket.write_all(&fatal("28P01", "wrong")).unwrap();
        }
    });
    port
}

#[tokio::test]
async fn a_missing_and_a_wrong_password_are_configuration() {
    let mut options = options("postgres");
    options.port = ask_for_password();
    let missing = Connection::open(&options).await.unwrap_err();
    refused(&missing, "password missing", "Set the password");
    options.port = ask_for_password();
    options.password = Some(Password::new("canary"));
    let wrong = Connection::open(&options).await.unwrap_err();
    refused(&wrong, "the password is wrong", "Correct the user or the password");
    assert!(!format!("{wrong:?}").contains("canary"));
}

/// Asks over TLS for a password by these mechanisms. Gives the port, and then what the client answered: the mechanism,
/// its first message, and its last one.
fn ask_by(
    authority: &Authority,
    mechanisms: &'static str,
) -> (u16, thread::JoinHandle<[String; 3]>, Vec<u8>) {
    let own = authority.issue("127.0.0.1");
    let certificate = own.0.der().to_vec();
    let config = server_config(own, rustls::server::WebPkiClientVerifier::no_client_auth());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 8]).unwrap();
        socket.write_all(b"S").unwrap();
        let mut session = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = Stream::new(&mut session, &mut socket);
        let mut startup = [0; 4];
        stream.read_exact(&mut startup).unwrap();
        stream.read_exact(&mut vec![0; u32::from_be_bytes(startup) as usize - 4]).unwrap();
        stream.write_all(&authentication(10, &format!("{mechanisms}\0"))).unwrap();
        let chosen = message(&mut stream);
        let end = chosen.iter().position(|byte| *byte == 0).unwrap();
        let mechanism = String::from_utf8(chosen[..end].to_vec()).unwrap();
        let first = String::from_utf8(chosen[end + 5..].to_vec()).unwrap();
        let nonce = first.split_once(",r=").unwrap().1;
        stream.write_all(&authentication(11, &format!("r={nonce}more,s=c2FsdA==,i=4096"))).unwrap();
        let last = String::from_utf8(message(&mut stream)).unwrap();
        stream.write_all(&fatal("28P01", "wrong")).unwrap();
        [mechanism, first, last]
    });
    (port, answers, certificate)
}

fn authentication(kind: u32, data: &str) -> Vec<u8> {
    let len = u32::try_from(data.len() + 8).unwrap();
    [b"R", &len.to_be_bytes()[..], &kind.to_be_bytes(), data.as_bytes()].concat()
}

/// What stands in the next message, without its kind and length.
fn message(stream: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 4];
        three[1..=chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes(three);
        for place in 0..4 {
            match place <= chunk.len() {
                true => text.push(char::from(DIGITS[(number >> (18 - 6 * place)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

#[tokio::test]
async fn the_password_is_bound_to_the_certificate_when_the_server_offers_it() {
    let ours = Authority::new("scram");
    let mut options = options("postgres");
    options.host = "127.0.0.1".into();
    options.password = Some(Password::new("canary"));
    options.tls = Tls { mode: TlsMode::VerifyFull, ca_file: Some(ours.file.clone()), client: None };

    for offered in ["SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0", "SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0"] {
        let (port, answers, certificate) = ask_by(&ours, offered);
        options.port = port;
        refused(&Connection::open(&options).await.unwrap_err(), "the password is wrong", "Correct the user");
        let [mechanism, first, last] = answers.join().unwrap();
        assert_eq!(mechanism, "SCRAM-SHA-256-PLUS");
        assert!(first.starts_with("p=tls-server-end-point,,"), "{first}");
        let binding = [b"p=tls-server-end-point,,", &Sha256::digest(certificate)[..]].concat();
        assert!(last.starts_with(&format!("c={},", base64(&binding))), "{last}");
    }

    // Whoever took the offer out on the way is found out by the server: the client says that it would have bound.
    let (port, answers, _) = ask_by(&ours, "SCRAM-SHA-256\0");
    options.port = port;
    refused(&Connection::open(&options).await.unwrap_err(), "the password is wrong", "Correct the user");
    let [mechanism, first, _] = answers.join().unwrap();
    assert_eq!(mechanism, "SCRAM-SHA-256");
    assert!(first.starts_with("y,,"), "{first}");
}
