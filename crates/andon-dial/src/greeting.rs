//! The first words of both: a length of four bytes, most significant first, and so many bytes of JSON, once in each direction. What is in
//! them is the business of who greets.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest greeting, in bytes.
const GREETING_BYTES: u32 = 64 * 1024;

/// The server's first words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Greeting<T> {
    /// It is this machine.
    Welcome(T),
    /// It is not let in.
    Refused(Refused),
}

/// Why a machine is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// It was let in before and is not any more: what still runs there is to be ended.
    #[serde(default)]
    pub left: bool,
}

impl Refused {
    /// For this reason.
    pub fn because(why: impl Into<String>) -> Refused {
        Refused { why: why.into(), left: false }
    }
}

/// Says it.
pub async fn say<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), words: &T) -> io::Result<()> {
    let text = serde_json::to_vec(words)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= GREETING_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "too long a greeting"))?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(&text).await?;
    to.flush().await
}

/// Hears it.
pub async fn hear<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = from.read_u32().await?;
    if length > GREETING_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says is no greeting"));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_is_heard_as_it_was_said_and_noise_is_refused() {
        let hello = Greeting::Welcome("n1".to_owned());
        let mut said = Vec::new();
        say(&mut said, &hello).await.unwrap();
        assert_eq!(hear::<Greeting<String>>(&mut &said[..]).await.unwrap(), hello);
        for cut in 0..said.len() {
            assert!(hear::<Greeting<String>>(&mut &said[..cut]).await.is_err(), "{cut} bytes were enough");
        }
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 2, b'{', b'}'], b"\x16\x03\x01"]
        {
            assert!(hear::<Greeting<String>>(&mut &noise[..]).await.is_err(), "{noise:?}");
        }
    }
}
