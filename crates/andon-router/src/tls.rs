//! Certificates by host name, exchanged while connections are served. Gets none: whoever has them puts them in.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ServerConfig, version};

/// A certificate with all that leads to its authority, and its key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate first.
    pub chain: String,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why a pair was refused.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM, or nothing in it.
    #[error(
        "the certificate cannot be read: {0}\nhint: a PEM file with the certificate first, then those between it and its authority"
    )]
    Chain(String),
    /// Not PEM, or not a key.
    #[error("the key cannot be read: {0}\nhint: a PEM file with one private key")]
    Key(String),
    /// They do not belong together.
    #[error("certificate and key do not belong together: {0}\nhint: take both from the same order")]
    Pair(String),
}

/// What is shown to whom. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Arc<ArcSwap<HashMap<String, Arc<CertifiedKey>>>>);

impl Certificates {
    /// Shows these from the next handshake on: by host name, `*.example.com` for all names one label below. Wholly or (with an error) not at all.
    pub fn show(&self, pairs: &HashMap<String, Pair>) -> Result<(), CertificateError> {
        let read =
            |(host, pair): (&String, &Pair)| Ok((host.to_ascii_lowercase(), Arc::new(certified(pair)?)));
        self.0.store(Arc::new(pairs.iter().map(read).collect::<Result<_, CertificateError>>()?));
        Ok(())
    }

    /// What a listener needs: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub fn config(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&version::TLS13, &version::TLS12]);
        let builder = builder.expect("ring knows both versions").with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let all = self.0.load();
        let host = host.to_ascii_lowercase();
        let above = || host.split_once('.').and_then(|(_, rest)| all.get(&format!("*.{rest}")));
        all.get(&host).or_else(above).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Without a name, or with one that is not ours, there is no handshake: a certificate of somebody else would only frighten.
        self.find(hello.server_name()?)
    }
}

fn certified(pair: &Pair) -> Result<CertifiedKey, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.chain.as_bytes()).collect();
    let chain = chain.map_err(|error| CertificateError::Chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(CertificateError::Chain("there is none in it".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let key = key.map_err(|error| CertificateError::Key(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| CertificateError::Pair(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(host: &str) -> Pair {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    #[test]
    fn a_host_is_shown_its_own_certificate_else_that_of_its_domain_else_none() {
        let certificates = Certificates::default();
        let pairs = HashMap::from([
            ("shop.example".to_owned(), pair("shop.example")),
            ("*.shop.example".to_owned(), pair("*.shop.example")),
        ]);
        certificates.show(&pairs).unwrap();
        let shown = |host: &str| certificates.find(host).map(|key| key.cert[0].clone());
        let read = |name: &str| CertificateDer::from_pem_slice(pairs[name].chain.as_bytes()).unwrap();
        assert_eq!(shown("SHOP.example"), Some(read("shop.example")));
        assert_eq!(shown("api.shop.example"), Some(read("*.shop.example")));
        assert_eq!((shown("a.b.shop.example"), shown("example")), (None, None));
    }

    #[test]
    fn what_does_not_belong_together_is_refused_and_what_was_shown_stays() {
        let certificates = Certificates::default();
        let good = HashMap::from([("a.example".to_owned(), pair("a.example"))]);
        certificates.show(&good).unwrap();
        let (one, other) = (pair("a.example"), pair("a.example"));
        for (bad, words) in [
            (Pair { chain: one.chain.clone(), key: other.key }, "belong together"),
            (Pair { chain: String::new(), key: one.key.clone() }, "certificate cannot be read"),
            (Pair { chain: one.chain.clone(), key: "key".into() }, "key cannot be read"),
        ] {
            let said =
                certificates.show(&HashMap::from([("a.example".to_owned(), bad)])).unwrap_err().to_string();
            assert!(said.contains(words) && said.contains("hint: "), "{said}");
        }
        assert!(certificates.find("a.example").is_some());
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
