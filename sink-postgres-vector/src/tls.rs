//! Encryption with rustls. The crypto provider is named here and never installed for the process.

use std::{
    fmt::Display,
    io,
    path::Path,
    sync::{Arc, Once},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError,
    RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    cause::Cause,
    options::{ClientCertificate, Tls, TlsMode},
};

/// Builds the connector for a mode; `None` for [`TlsMode::Disable`]. Reads files, so call it off the runtime.
pub(crate) fn connector(tls: &Tls) -> Result<Option<MakeRustlsConnect>, Cause> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match tls.mode {
        TlsMode::Disable => return Ok(None),
        TlsMode::Require => {
            warn_once();
            Arc::new(AnyServer { algorithms: provider.signature_verification_algorithms })
        }
        TlsMode::VerifyCa => Arc::new(AnyName { inner: verifier(tls, &provider)? }),
        TlsMode::VerifyFull => verifier(tls, &provider)?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Cause::Program(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &tls.client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let (chain, key) = identity(client)?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable("cert-file", &client.cert_file, &error, OWN_REMEDY))?
        }
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

const OWN_REMEDY: &str =
    "Give the certificate in `cert-file` and its own key, not encrypted, in `key-file` (PEM).";

/// What the client proves itself with.
fn identity(
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Cause> {
    let refused = |error: &dyn Display| unusable("cert-file", &client.cert_file, error, OWN_REMEDY);
    let chain: Vec<_> = CertificateDer::pem_file_iter(&client.cert_file)
        .and_then(Iterator::collect)
        .map_err(|error| refused(&error))?;
    if chain.is_empty() {
        return Err(refused(&"it holds no certificate"));
    }
    // What is wrong with a key is said without showing any of it.
    let key = PrivateKeyDer::from_pem_file(&client.key_file)
        .map_err(|error| unusable("key-file", &client.key_file, &error, OWN_REMEDY))?;
    Ok((chain, key))
}

fn unusable(key: &str, path: &Path, why: &dyn Display, remedy: &str) -> Cause {
    let text = format!("the {key} {} cannot be used: {why}", path.display());
    Cause::Tls { text, remedy: remedy.to_owned() }
}

fn warn_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!("tls mode `require` verifies nothing: whoever answers is believed; use `verify-full`");
    });
}

fn verifier(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Cause> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), Arc::clone(provider))
        .build()
        .map_err(|error| Cause::Tls { text: error.to_string(), remedy: USE_CA_FILE.to_owned() })
}

const USE_CA_FILE: &str =
    "Name the certificate of the authority that signed the server's in `ca-file` (PEM).";

fn roots(tls: &Tls) -> Result<RootCertStore, Cause> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            let remedy = "Give a readable PEM file with at least one certificate.";
            let refused = |why: &dyn Display| unusable("ca-file", path, why, remedy);
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))? {
                let certificate = certificate.map_err(|error| refused(&error))?;
                roots.add(certificate).map_err(|error| refused(&error))?;
            }
            if roots.is_empty() {
                return Err(refused(&"it holds no certificate"));
            }
        }
        None => {
            // What the machine's store holds that cannot be read is not ours to judge, unless nothing is left.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Cause::Tls {
                    text: "this machine has no store of trusted certificates".to_owned(),
                    remedy: format!("{USE_CA_FILE} Or install the package `ca-certificates`."),
                });
            }
        }
    }
    Ok(roots)
}

/// Explains a failed handshake. Lost connections stay what they are; everything else an operator must mend.
pub(crate) fn cause(source: Option<&(dyn std::error::Error + 'static)>, io: Option<&io::Error>) -> Cause {
    let Some(io) = io else {
        return Cause::Tls {
            text: source.map_or("the TLS handshake failed".to_owned(), ToString::to_string),
            remedy: "Switch TLS on at the server (`ssl = on`). Or set tls mode `disable`, if the network between here \
                     and the server is trusted."
                .to_owned(),
        };
    };
    let Some(error) = io.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) else {
        return match io.kind() {
            io::ErrorKind::InvalidInput => Cause::Tls {
                text: format!("the host cannot be used as a name for TLS: {io}"),
                remedy: "Give the host by the name or address in the server's certificate.".to_owned(),
            },
            _ => Cause::Io { text: format!("the TLS handshake failed: {io}") },
        };
    };
    let remedy = match error {
        RustlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "Connect by a name that is in the server's certificate. Or set tls mode `verify-ca`, which does not \
             compare the name."
        }
        RustlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "Renew the server's certificate, or set this machine's clock.",
        RustlsError::InvalidCertificate(_) => USE_CA_FILE,
        _ => {
            "Check the TLS versions and ciphers that the server allows, and whether it asks for a client certificate: \
             `cert-file` and `key-file` give one."
        }
    };
    Cause::Tls { text: format!("the TLS handshake failed: {error}"), remedy: remedy.to_owned() }
}

/// Whether the server hung up over the certificate of the client.
pub(crate) fn is_about_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// `verify-ca`: everything but the name.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        // The name is compared last, so whoever fails there has passed everything else.
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(RustlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// `require`: any certificate. The server still proves that it holds the key of the one it shows.
#[derive(Debug)]
struct AnyServer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
