//! How a machine knows its server: a certificate that the server made itself, whose digest is part of every token. Knows nobody else.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::keep;

/// The server's certificate.
#[derive(Clone)]
pub struct Identity {
    /// Answers agents.
    pub acceptor: TlsAcceptor,
    /// SHA-256 of the certificate in hexadecimal.
    pub fingerprint: String,
}

/// The file, readable by the server alone: both in hexadecimal, DER.
#[derive(Serialize, Deserialize)]
struct Kept {
    certificate: String,
    key: String,
}

fn odd(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Identity {
    /// As this file keeps it; made where there is none.
    pub fn open(file: &Path) -> io::Result<Identity> {
        let kept = match keep::read::<Kept>(file)? {
            Some(kept) => kept,
            None => {
                let made = rcgen::generate_simple_self_signed(["andon".to_owned()]).map_err(odd)?;
                let certificate = hex::encode(made.cert.der());
                let kept = Kept { certificate, key: hex::encode(made.signing_key.serialize_der()) };
                keep::write(file, &kept)?;
                kept
            }
        };
        let certificate = CertificateDer::from(hex::decode(&kept.certificate).map_err(odd)?);
        let fingerprint = fingerprint(&certificate);
        let key = PrivateKeyDer::Pkcs8(hex::decode(&kept.key).map_err(odd)?.into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(odd)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(odd)?;
        Ok(Identity { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
    }

    /// What is typed on the machine that is to join: whom to believe, and the secret. Scanners find leaked ones by the prefix.
    pub fn token(&self, prefix: &str, secret: &str) -> String {
        format!("{prefix}{}_{secret}", self.fingerprint)
    }
}

/// Fingerprint and secret of a token with this prefix; none: it is not one.
pub fn parts(prefix: &str, token: &str) -> Option<(String, String)> {
    let (fingerprint, secret) = token.trim().strip_prefix(prefix)?.split_once('_')?;
    let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let good =
        fingerprint.len() == 64 && secret.len() == 32 && hexadecimal(fingerprint) && hexadecimal(secret);
    good.then(|| (fingerprint.to_owned(), secret.to_owned()))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(sha2::Sha256::digest(certificate))
}

/// Believes one certificate.
#[derive(Debug)]
pub(crate) struct Pinned {
    wanted: String,
    /// What another one showed.
    shown: Mutex<Option<String>>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// Only the one with this fingerprint.
    pub fn new(fingerprint: &str) -> Arc<Pinned> {
        let provider = Arc::new(ring::default_provider());
        Arc::new(Pinned { wanted: fingerprint.to_owned(), shown: Mutex::default(), provider })
    }

    /// For connections to it.
    pub fn connector(self: &Arc<Pinned>) -> io::Result<TlsConnector> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(odd)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Pinned>::clone(self))
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// The fingerprint of somebody else who answered.
    pub fn stranger(&self) -> Option<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = fingerprint(end_entity);
        if shown == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_token_is_read_back() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("door.json");
        let made = Identity::open(&file).unwrap();
        assert_eq!(Identity::open(&file).unwrap().fingerprint, made.fingerprint);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let secret = "0123456789abcdef0123456789abcdef";
        let token = made.token("andon_host_", secret);
        assert_eq!(parts("andon_host_", &token), Some((made.fingerprint.clone(), secret.to_owned())));
        for bad in
            ["", "andon_x", &token[..token.len() - 1], &token.to_uppercase(), &token.replace("host_", "")]
        {
            assert_eq!(parts("andon_host_", bad), None, "{bad}");
        }
    }
}
