//! Keys: Ed25519 for statements about artifacts, ECDSA on P-256 for tokens of jobs, since that is what clouds read. Seals and stores nothing.

use andon_model::Digest;
use andon_model::event::KeyPurpose;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde_json::{Value, json};

/// What stands before an Ed25519 key in SubjectPublicKeyInfo: RFC 8410, section 4.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What stands before an uncompressed point of P-256: RFC 5480, section 2.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a key is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAKey(String);

/// The half of a key that everybody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// What it verifies.
    pub purpose: KeyPurpose,
    /// The bare key: 32 bytes, or an uncompressed point.
    bytes: Vec<u8>,
}

impl Public {
    /// From a PEM file. What it is for follows from its kind.
    pub fn from_pem(text: &str) -> Result<Public, NotAKey> {
        let wrong = || NotAKey("this is no public key of Ed25519 or P-256 in PEM".into());
        let body: String = text
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "-----BEGIN PUBLIC KEY-----")
            .skip(1)
            .take_while(|line| *line != "-----END PUBLIC KEY-----")
            .collect();
        let der = STANDARD.decode(body).map_err(|_| wrong())?;
        if let Some(key) = der.strip_prefix(&ED25519_SPKI[..]).filter(|key| key.len() == 32) {
            return Ok(Public { purpose: KeyPurpose::Provenance, bytes: key.to_vec() });
        }
        let point = der.strip_prefix(&P256_SPKI[..]).filter(|point| point.len() == 65 && point[0] == 4);
        point.map(|point| Public { purpose: KeyPurpose::Identity, bytes: point.to_vec() }).ok_or_else(wrong)
    }

    fn der(&self) -> Vec<u8> {
        let front: &[u8] = match self.purpose {
            KeyPurpose::Provenance => &ED25519_SPKI,
            KeyPurpose::Identity => &P256_SPKI,
        };
        [front, &self.bytes].concat()
    }

    /// As other tools read it.
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(self.der());
        let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
        let lines: Vec<_> = lines.collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// Its name: the beginning of the SHA-256 of its SubjectPublicKeyInfo.
    pub fn id(&self) -> String {
        Digest::of(&self.der()).hex()[..32].to_owned()
    }

    /// Whether it says yes to these bytes.
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match self.purpose {
            KeyPurpose::Provenance => UnparsedPublicKey::new(&ED25519, &self.bytes).verify(bytes, signature),
            KeyPurpose::Identity => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.bytes).verify(bytes, signature)
            }
        }
        .is_ok()
    }

    /// As a JSON Web Key (RFC 7517, RFC 8037).
    pub fn jwk(&self) -> Value {
        let (id, text) = (self.id(), |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes));
        match self.purpose {
            KeyPurpose::Provenance => {
                json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": id, "x": text(&self.bytes) })
            }
            KeyPurpose::Identity => json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
                "x": text(&self.bytes[1..33]), "y": text(&self.bytes[33..]),
            }),
        }
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
}

/// Signs. Its secret half is shown to nobody.
pub struct Signer {
    pair: Pair,
    /// The other half.
    pub public: Public,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("public", &self.public.id()).finish_non_exhaustive()
    }
}

impl Signer {
    /// A new key as PKCS #8, to be sealed.
    pub fn generate(purpose: KeyPurpose) -> Result<Vec<u8>, NotAKey> {
        let random = SystemRandom::new();
        let made = match purpose {
            KeyPurpose::Provenance => Ed25519KeyPair::generate_pkcs8(&random),
            KeyPurpose::Identity => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
        };
        made.map(|made| made.as_ref().to_vec())
            .map_err(|_| NotAKey("this machine gives no randomness".into()))
    }

    /// A key that was sealed and opened again.
    pub fn of(purpose: KeyPurpose, pkcs8: &[u8]) -> Result<Signer, NotAKey> {
        let wrong = |error: ring::error::KeyRejected| NotAKey(format!("the key cannot be used: {error}"));
        let pair = match purpose {
            KeyPurpose::Provenance => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8).map_err(wrong)?),
            KeyPurpose::Identity => Pair::P256(Box::new(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
                    .map_err(wrong)?,
            )),
        };
        let bytes = match &pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) => pair.public_key().as_ref().to_vec(),
        };
        Ok(Signer { pair, public: Public { purpose, bytes } })
    }

    /// The signature: 64 bytes either way.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, NotAKey> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(bytes).as_ref().to_vec()),
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), bytes)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| NotAKey("this machine gives no randomness".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_signs_its_public_half_verifies_and_no_other() {
        for purpose in [KeyPurpose::Provenance, KeyPurpose::Identity] {
            let signer = Signer::of(purpose, &Signer::generate(purpose).unwrap()).unwrap();
            let other = Signer::of(purpose, &Signer::generate(purpose).unwrap()).unwrap();
            let signature = signer.sign(b"hello").unwrap();
            let read = Public::from_pem(&format!("words\n{}", signer.public.pem())).unwrap();
            assert_eq!(read, signer.public);
            assert!(read.verifies(b"hello", &signature));
            assert!(!read.verifies(b"hellp", &signature) && !other.public.verifies(b"hello", &signature));
            assert_eq!(read.jwk()["kid"], read.id());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "é"] {
            assert!(Public::from_pem(text).is_err(), "{text}");
        }
        assert!(Signer::of(KeyPurpose::Provenance, b"none").is_err());
    }
}
