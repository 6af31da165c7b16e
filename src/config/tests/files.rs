//! Files that the configuration names: certificates, keys and the password.

use super::*;

pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
pub(super) const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n";
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
const OLD_ENCRYPTED: &str = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";

/// A folder with a file of each kind, and a file of none.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    folder.write("ca.pem", CERTIFICATE);
    folder.write("client.pem", CERTIFICATE);
    folder.write("client.key", KEY);
    folder.write("rsa.key", KEY.replace("PRIVATE", "RSA PRIVATE"));
    folder.write("encrypted.key", ENCRYPTED);
    folder.write("old-encrypted.key", OLD_ENCRYPTED);
    folder.write("password.txt", format!("{CANARY}\n"));
    folder.write("empty.txt", "\n");
    folder.write("latin.txt", b"caf\xe9\n");
    folder
}

fn load(folder: &Folder, text: &str) -> Result<Settings, ConfigError> {
    Settings::from_file(&folder.write("c.yaml", text), None)
}

/// The one problem of the text, without the file's name.
fn problem(folder: &Folder, text: &str) -> String {
    let error = load(folder, text).unwrap_err();
    assert!(!format!("{error}{error:?}").contains(CANARY), "{error}");
    let problems: Vec<String> =
        error.problems.iter().map(|problem| problem.to_string()[1..].to_owned()).collect();
    problems.join("\n")
}

#[test]
fn a_certificate_for_kafka_becomes_the_properties_of_librdkafka() {
    let folder = folder("kafka-files");
    let text = with_kafka(
        "ca-file: ca.pem, cert-file: client.pem, key-file: encrypted.key, \
         properties: {security.protocol: SASL_SSL, ssl.key.password: p}",
    );
    let settings = load(&folder, &text).unwrap();
    let property = |name: &str| PathBuf::from(kafka(&settings).properties[name].expose());
    assert_eq!(property("ssl.ca.location"), folder.0.join("ca.pem"));
    assert_eq!(property("ssl.certificate.location"), folder.0.join("client.pem"));
    assert_eq!(property("ssl.key.location"), folder.0.join("encrypted.key"));
    assert_eq!(kafka(&settings).properties.len(), 5);
    // Half a pair may be a property, for that is how it was done before.
    let mixed = "cert-file: client.pem, properties: {security.protocol: ssl, ssl.key.location: client.key}";
    assert!(load(&folder, &with_kafka(mixed)).is_ok());
}

#[test]
fn each_mistake_with_a_file_for_kafka_has_its_sentence() {
    let folder = folder("kafka-mistakes");
    let tls = "properties: {security.protocol: ssl}";
    for (keys, sentence) in [
        (
            "ca-file: none.pem, properties: {security.protocol: ssl}",
            "3:64: embedsink.source.kafka.ca-file: `none.pem` cannot be read: No such file or directory (os error 2); \
             give a PEM file; a relative path starts at this configuration's folder",
        ),
        (
            "ca-file: client.key, properties: {security.protocol: ssl}",
            "3:64: embedsink.source.kafka.ca-file: `client.key` holds no PEM certificate; give a PEM file; a relative \
             path starts at this configuration's folder",
        ),
        (
            "cert-file: client.pem, key-file: ca.pem, properties: {security.protocol: ssl}",
            "3:88: embedsink.source.kafka.key-file: `ca.pem` holds no PEM private key; give a PEM file; a relative path \
             starts at this configuration's folder",
        ),
        (
            &format!("cert-file: client.pem, {tls}"),
            "3:66: embedsink.source.kafka.cert-file: a certificate and its key go together, and the other is missing; add \
             `cert-file` and `key-file`",
        ),
        (
            &format!("key-file: client.key, {tls}"),
            "3:65: embedsink.source.kafka.key-file: a certificate and its key go together, and the other is missing; add \
             `cert-file` and `key-file`",
        ),
        (
            "ca-file: ca.pem",
            "3:64: embedsink.source.kafka.ca-file: without TLS nothing would use this file; add the property \
             `security.protocol: ssl`, or `sasl_ssl`",
        ),
        (
            "ca-file: ca.pem, properties: {security.protocol: plaintext}",
            "3:64: embedsink.source.kafka.ca-file: without TLS nothing would use this file; add the property \
             `security.protocol: ssl`, or `sasl_ssl`",
        ),
        (
            "ca-file: ca.pem, properties: {security.protocol: ssl, ssl.ca.location: other.pem}",
            "3:64: embedsink.source.kafka.ca-file: contradicts the property `ssl.ca.location`; keep one of them",
        ),
    ] {
        assert_eq!(problem(&folder, &with_kafka(keys)), sentence, "{keys}");
    }
}

#[test]
fn a_certificate_for_postgres_is_found_beside_the_configuration() {
    let folder = folder("postgres-files");
    let tls = |keys: &str| {
        load(&folder, &with_postgres(&format!("tls: {{{keys}}}")))
            .unwrap()
            .target
            .postgres()
            .unwrap()
            .tls
            .clone()
    };
    for key in ["client.key", "rsa.key"] {
        let client = ClientSettings { cert_file: folder.0.join("client.pem"), key_file: folder.0.join(key) };
        let expected = TlsSettings { mode: TlsMode::VerifyFull, ca_file: None, client: Some(client) };
        assert_eq!(tls(&format!("cert-file: client.pem, key-file: {key}")), expected);
    }
    assert_eq!(tls("mode: require, cert-file: client.pem, key-file: client.key").mode, TlsMode::Require);
}

#[test]
fn a_password_file_holds_the_password_and_one_line_break() {
    let folder = folder("password");
    let password = |bytes: &[u8]| {
        folder.write("p", bytes);
        load(&folder, &with_postgres("password-file: p"))
            .unwrap()
            .target
            .postgres()
            .unwrap()
            .password
            .clone()
            .unwrap()
    };
    for (bytes, expected) in [
        ("a b\n", "a b"),
        ("a\r\n", "a"),
        ("a", "a"),
        (" a\n\n", " a\n"),
        ("\"a\"", "\"a\""),
        ("\u{feff}a\n", "a"),
    ] {
        assert_eq!(password(bytes.as_bytes()).expose(), expected);
    }
    // The environment fills in only what is left out.
    let path = folder.write("c.yaml", with_postgres("password-file: password.txt"));
    let text = fs::read_to_string(&path).unwrap();
    let environment = |name: &str| (name == "PGPASSWORD").then(|| "other".to_owned());
    let name = path.display().to_string();
    let settings = Settings::from_yaml(&name, &text, &SecretStore::environment(), &environment).unwrap();
    assert_eq!(settings.target.postgres().unwrap().password.as_ref().map(Secret::expose), Some(CANARY));
    assert!(!format!("{settings:?}").contains(CANARY));
}

#[test]
fn each_mistake_with_a_file_for_postgres_has_its_sentence() {
    let folder = folder("postgres-mistakes");
    for (keys, sentence) in [
        (
            "password: x, password-file: password.txt",
            "4:88: embedsink.sink.postgres.password-file: contradicts `password`, which gives one too; keep one of them",
        ),
        (
            "password-file: none",
            "4:75: embedsink.sink.postgres.password-file: `none` cannot be read: No such file or directory (os error 2); \
             give a file that holds only the password; a relative path starts at this configuration's folder",
        ),
        (
            "password-file: empty.txt",
            "4:75: embedsink.sink.postgres.password-file: `empty.txt` is empty; give a file that holds only the password; \
             a relative path starts at this configuration's folder",
        ),
        (
            "password-file: latin.txt",
            "4:75: embedsink.sink.postgres.password-file: `latin.txt` is not UTF-8; give a file that holds only the \
             password; a relative path starts at this configuration's folder",
        ),
        (
            "tls: {cert-file: client.pem}",
            "4:60: embedsink.sink.postgres.tls.key-file: missing; a certificate and its key go together: add the other file",
        ),
        (
            "tls: {cert-file: client.pem, key-file: encrypted.key}",
            "4:99: embedsink.sink.postgres.tls.key-file: `encrypted.key` is encrypted, and the connector has no passphrase \
             for it; decrypt it with `openssl pkey`, and keep the file from others",
        ),
        (
            "tls: {cert-file: client.pem, key-file: old-encrypted.key}",
            "4:99: embedsink.sink.postgres.tls.key-file: `old-encrypted.key` is encrypted, and the connector has no \
             passphrase for it; decrypt it with `openssl pkey`, and keep the file from others",
        ),
        (
            "tls: {mode: disable, cert-file: client.pem, key-file: client.key}",
            "4:92: embedsink.sink.postgres.tls.cert-file: contradicts the TLS mode, which is `disable`: no certificate is \
             shown without TLS; use another mode, or remove the files",
        ),
    ] {
        assert_eq!(problem(&folder, &with_postgres(keys)), sentence, "{keys}");
    }
    let in_url = changed(&[(POSTGRES, "url: postgres://u:p@h/d, password-file: password.txt")]);
    assert_eq!(
        problem(&folder, &in_url),
        "4:61: embedsink.sink.postgres.password-file: contradicts `url`, which holds a password; keep one of them"
    );
    let socket = changed(&[(
        POSTGRES,
        "host: /run, database: d, user: u, tls: {cert-file: client.pem, key-file: client.key}",
    )]);
    assert_eq!(
        problem(&folder, &socket),
        "4:72: embedsink.sink.postgres.tls.cert-file: PostgreSQL speaks no TLS over a Unix socket; remove it, or name a \
         TCP host"
    );
}

#[test]
fn a_pem_file_that_was_cut_is_known_and_one_with_more_in_it_is_taken() {
    let folder = folder("cut-pem");
    let marks = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    for cut in [marks, "-----BEGIN CERTIFICATE-----\nMA==\n", &CERTIFICATE.replace("MA==", "<html>")] {
        folder.write("ca.pem", cut);
        let found = problem(&folder, &with_postgres("tls: {ca-file: ca.pem}"));
        assert!(found.contains("has the marks of a PEM certificate, but no base64 between them"), "{found}");
    }
    folder.write(
        "ca.pem",
        format!("Bag Attributes\n  subject: x\r\n{marks}{}", CERTIFICATE.replace('\n', "\r\n")),
    );
    assert!(load(&folder, &with_postgres("tls: {ca-file: ca.pem}")).is_ok());
    let headers = KEY.replace("MA==", "Proc-Type: 4,CLEAR\nDEK-Info: none\n\nMA==");
    folder.write("client.key", headers);
    assert!(load(&folder, &with_postgres("tls: {cert-file: client.pem, key-file: client.key}")).is_ok());
}
