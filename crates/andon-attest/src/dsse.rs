//! DSSE 1.0, the envelope of in-toto: a payload, its type, and signatures over both. Knows nothing of what is inside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::key::{NotAKey, Public, Signer};

/// The type of an in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The largest envelope that is read, in bytes.
pub const LARGEST: u64 = 16 << 20;

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// Base64.
    pub payload: String,
    /// Who signed it.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The name of the key, a hint.
    #[serde(default)]
    pub keyid: String,
    /// Base64.
    pub sig: String,
}

/// What is signed: type and payload with their lengths, so that nothing can be moved from one into the other.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Around a statement.
    pub fn seal(statement: &[u8], signer: &Signer) -> Result<Envelope, NotAKey> {
        let sig = STANDARD.encode(signer.sign(&pae(IN_TOTO, statement))?);
        Ok(Envelope {
            payload_type: IN_TOTO.to_owned(),
            payload: STANDARD.encode(statement),
            signatures: vec![Signature { keyid: signer.public.id(), sig }],
        })
    }

    /// The payload, if this key signed it.
    pub fn open(&self, key: &Public) -> Option<Vec<u8>> {
        let payload = STANDARD.decode(&self.payload).ok()?;
        let signed = pae(&self.payload_type, &payload);
        let good = |signature: &Signature| {
            STANDARD.decode(&signature.sig).is_ok_and(|signature| key.verifies(&signed, &signature))
        };
        self.signatures.iter().any(good).then_some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::event::KeyPurpose;

    #[test]
    fn what_is_signed_is_as_the_protocol_says() {
        // The example of the DSSE protocol.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn neither_payload_nor_type_can_be_changed() {
        let key = Signer::generate(KeyPurpose::Provenance).unwrap();
        let signer = Signer::of(KeyPurpose::Provenance, &key).unwrap();
        let sealed = Envelope::seal(b"{}", &signer).unwrap();
        assert_eq!(sealed.open(&signer.public).unwrap(), b"{}");
        assert_eq!(
            sealed,
            Envelope::seal(b"{}", &signer).unwrap(),
            "the same statement has the same envelope"
        );
        let other = Envelope { payload: STANDARD.encode(b"{ }"), ..sealed.clone() };
        assert!(other.open(&signer.public).is_none());
        let other = Envelope { payload_type: "text/plain".into(), ..sealed.clone() };
        assert!(other.open(&signer.public).is_none());
        assert!(Envelope { signatures: vec![], ..sealed }.open(&signer.public).is_none());
    }
}
