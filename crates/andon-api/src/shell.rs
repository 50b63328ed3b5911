//! The wire of a shell: after `101 Switching Protocols` to [`NAME`] both sides send frames – a kind (one byte), a length (four bytes, the
//! highest first), and that many bytes. Carries them to and fro; opens nothing.
//!
//! | from | kind | means |
//! |---|---|---|
//! | person | 0 | bytes as typed |
//! | person | 1 | nothing more will come |
//! | person | 2 | the terminal has this size: columns, rows, two bytes each |
//! | server | 0 | output |
//! | server | 1 | output for errors |
//! | server | 2 | it ended: the status, four bytes; without bytes nobody saw how. The connection closes |

use std::io;

use andon_runtime::{Said, Shell, Size, Typed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the connection is upgraded to.
pub const NAME: &str = "andon-shell";
/// The largest frame that is taken, in bytes.
const LARGEST: usize = 64 * 1024;

/// Reads one frame; none: the other side is gone.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let kind = match from.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        kind => kind?,
    };
    let length = from.read_u32().await? as usize;
    if length > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some((kind, bytes)))
}

async fn send(to: &mut (impl AsyncWrite + Unpin), kind: u8, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(LARGEST).chain(bytes.is_empty().then_some(bytes)) {
        let mut whole = Vec::with_capacity(piece.len() + 5);
        whole.push(kind);
        whole.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
        whole.extend_from_slice(piece);
        to.write_all(&whole).await?;
    }
    to.flush().await
}

/// Reads what a person sends.
pub async fn typed(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Typed>> {
    let Some((kind, bytes)) = frame(from).await? else { return Ok(None) };
    Ok(Some(match (kind, &bytes[..]) {
        (0, _) => Typed::Bytes(bytes),
        (1, []) => Typed::End,
        (2, [a, b, c, d]) => {
            Typed::Size(Size { columns: u16::from_be_bytes([*a, *b]), rows: u16::from_be_bytes([*c, *d]) })
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame means nothing")),
    }))
}

/// Sends what a person typed.
pub async fn send_typed(to: &mut (impl AsyncWrite + Unpin), typed: &Typed) -> io::Result<()> {
    match typed {
        Typed::Bytes(bytes) => send(to, 0, bytes).await,
        Typed::End => send(to, 1, &[]).await,
        Typed::Size(size) => {
            let [a, b] = size.columns.to_be_bytes();
            let [c, d] = size.rows.to_be_bytes();
            send(to, 2, &[a, b, c, d]).await
        }
    }
}

/// Reads what the server sends.
pub async fn said(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Said>> {
    let Some((kind, bytes)) = frame(from).await? else { return Ok(None) };
    Ok(Some(match (kind, &bytes[..]) {
        (0, _) => Said::Out(bytes),
        (1, _) => Said::Err(bytes),
        (2, []) => Said::Ended(None),
        (2, [a, b, c, d]) => Said::Ended(Some(i32::from_be_bytes([*a, *b, *c, *d]))),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame means nothing")),
    }))
}

/// Sends what the shell said.
pub async fn send_said(to: &mut (impl AsyncWrite + Unpin), said: &Said) -> io::Result<()> {
    match said {
        Said::Out(bytes) => send(to, 0, bytes).await,
        Said::Err(bytes) => send(to, 1, bytes).await,
        Said::Ended(code) => {
            let bytes = code.map(i32::to_be_bytes);
            send(to, 2, bytes.as_ref().map_or(&[][..], |bytes| &bytes[..])).await
        }
    }
}

/// Carries frames between a connection and an open shell, until either ends. The shell ends with it.
pub async fn carry(connection: impl AsyncRead + AsyncWrite, shell: Shell) -> io::Result<()> {
    let Shell { input, mut output } = shell;
    let (mut from, mut to) = tokio::io::split(connection);
    let coming = async {
        while let Some(piece) = typed(&mut from).await? {
            if input.send(piece).await.is_err() {
                // It is over: its last words are on their way.
                return std::future::pending().await;
            }
        }
        Ok(())
    };
    let going = async {
        while let Some(piece) = output.recv().await {
            let last = matches!(piece, Said::Ended(_));
            send_said(&mut to, &piece).await?;
            if last {
                break;
            }
        }
        to.shutdown().await
    };
    tokio::select! {
        done = coming => done,
        done = going => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_is_read_and_what_means_nothing_is_refused() {
        let (mut here, mut there) = tokio::io::duplex(1 << 20);
        let size = Size { columns: 132, rows: 50 };
        for sent in [Typed::Bytes(b"ls\n".to_vec()), Typed::Size(size), Typed::End] {
            send_typed(&mut here, &sent).await.unwrap();
            assert_eq!(typed(&mut there).await.unwrap(), Some(sent));
        }
        let all = [Said::Out(vec![7; 3]), Said::Err(Vec::new()), Said::Ended(Some(-1)), Said::Ended(None)];
        for sent in all {
            send_said(&mut here, &sent).await.unwrap();
            assert_eq!(said(&mut there).await.unwrap(), Some(sent));
        }
        for bad in [&[9, 0, 0, 0, 0][..], &[2, 0, 0, 0, 1, 0], &[0, 255, 255, 255, 255]] {
            here.write_all(bad).await.unwrap();
            assert!(typed(&mut there).await.is_err(), "{bad:?}");
        }
        drop(here);
        assert_eq!(typed(&mut there).await.unwrap(), None);
    }
}
