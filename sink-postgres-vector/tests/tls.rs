//! Encryption, against a server that speaks only the beginning of the protocol: after the handshake it says
//! "starting up" (57P03), which proves that the client has accepted it.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, Stream,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::danger::ClientCertVerifier,
};
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
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
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
        self.serve_whoever(name, rustls::server::WebPkiClientVerifier::no_client_auth())
    }

    /// Serves one connection to a client with a certificate of this authority. Gives the port.
    fn serve_known(&self, name: &str) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        self.serve_whoever(name, verifier.unwrap())
    }

    fn serve_whoever(&self, name: &str, clients: Arc<dyn ClientCertVerifier>) -> u16 {
        let (certificate, key) = self.issue(name);
        let certificate: CertificateDer<'static> = certificate.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .unwrap();
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
}

#[tokio::test]
async fn verify_ca_wants_the_authority_and_any_name() {
    let (ours, other) = (Authority::new("ca"), Authority::new("ca-other"));
    let ca = TlsMode::VerifyCa;
    accepted(&connect(ours.serve("db.example.com"), "127.0.0.1", ca, Some(&ours.file)).await);
    let wrong_authority = connect(ours.serve("127.0.0.1"), "127.0.0.1", ca, Some(&other.file)).await;
    refused(&wrong_authority, "invalid peer certificate", "ca-file");
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
    assert_ne!(stranger.sqlstate().map(|code| code.code()), Some("57P03"), "{stranger}");

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
