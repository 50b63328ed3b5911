//! One server takes over from another on the same machine: the listening sockets go from process to process over a socket in the data directory, so that nobody
//! who knocks meanwhile is refused. Moves descriptors and says who is ready; what is stopped and started when is `serve`'s business.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::net::UnixListener;

/// The socket's name in the data directory.
const NAME: &str = "upgrade.sock";
/// For the one before to stop its controllers, and for the one after to be ready.
const STOPS: Duration = Duration::from_secs(60);
const STARTS: Duration = Duration::from_secs(120);

/// What a socket is for, as it travels.
pub const PAGES: u8 = b'p';
pub const USERS: u8 = b'u';
pub const SECURE: u8 = b's';
pub const HOSTS: u8 = b'h';
pub const RUNNERS: u8 = b'r';

/// Sockets, each with what it is for.
#[derive(Default)]
pub struct Sockets(Vec<(u8, TcpListener)>);

impl Sockets {
    /// Keeps another handle of this one.
    pub fn keep(&mut self, what: u8, listener: &tokio::net::TcpListener) -> io::Result<()> {
        self.0.push((what, TcpListener::from(listener.as_fd().try_clone_to_owned()?)));
        Ok(())
    }

    /// The one that is for this, if it came.
    pub fn take(&mut self, what: u8) -> Option<TcpListener> {
        let at = self.0.iter().position(|(kind, _)| *kind == what)?;
        Some(self.0.remove(at).1)
    }
}

/// Where the next one asks.
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Offer {
    fn drop(&mut self) {
        // The next one has made its own by then, or there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The next one, who waits for the sockets.
pub struct Next(UnixStream);

impl Offer {
    /// Begins to listen, in place of whoever did before. The data directory is its owner's alone.
    pub fn open(data: &Path) -> io::Result<Offer> {
        let path = data.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Offer { listener: UnixListener::bind(&path)?, path })
    }

    /// When somebody asks.
    pub async fn asked(&self) -> io::Result<Next> {
        let (stream, _) = self.listener.accept().await?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Next(stream))
    }

    /// It is over here: the path belongs to the next one.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

impl Next {
    /// Gives it the sockets, and waits until it says that it is ready.
    pub fn hand_over(mut self, sockets: &Sockets) -> io::Result<()> {
        let kinds: Vec<u8> = sockets.0.iter().map(|(kind, _)| *kind).collect();
        let descriptors: Vec<BorrowedFd<'_>> = sockets.0.iter().map(|(_, socket)| socket.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("there are too many sockets"));
        }
        sendmsg(&self.0, &[IoSlice::new(&kinds)], &mut control, SendFlags::empty())?;
        self.0.set_read_timeout(Some(STARTS))?;
        self.0.read_exact(&mut [0])
    }
}

/// The one before, who waits for us to be ready.
pub struct Before(UnixStream);

impl Before {
    /// We are.
    pub fn ready(mut self) -> io::Result<()> {
        self.0.write_all(&[1])
    }
}

/// Asks the server that runs on this data for its sockets. It has stopped its controllers when they come.
pub fn take_over(data: &Path) -> Result<(Before, Sockets), String> {
    let path = data.join(NAME);
    let stream = UnixStream::connect(&path).map_err(|error| {
        format!(
            "no server on {} lets itself be taken over: {error}\nhint: start it without --take-over",
            data.display()
        )
    })?;
    let took = receive(&stream);
    let sockets = took.map_err(|error| format!("the server that runs gave no sockets: {error}"))?;
    Ok((Before(stream), sockets))
}

fn receive(stream: &UnixStream) -> io::Result<Sockets> {
    stream.set_read_timeout(Some(STOPS))?;
    let mut kinds = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(stream, &mut [IoSliceMut::new(&mut kinds)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if got == 0 || descriptors.len() != got {
        return Err(io::Error::other("it went away, or sent something else"));
    }
    Ok(Sockets(kinds.into_iter().zip(descriptors.into_iter().map(TcpListener::from)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_handed_over_is_the_same_and_loses_nobody() {
        let room = tempfile::tempdir().unwrap();
        assert!(take_over(room.path()).err().unwrap().contains("without --take-over"));
        let offer = Offer::open(room.path()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = Sockets::default();
        sockets.keep(USERS, &listener).unwrap();
        let data = room.path().to_owned();
        let next = tokio::task::spawn_blocking(move || {
            let (before, mut sockets) = take_over(&data).unwrap();
            before.ready().unwrap();
            sockets.take(USERS).unwrap()
        });
        let asked = offer.asked().await.unwrap();
        // Whoever knocks between two servers waits in the socket itself.
        let _knocks = std::net::TcpStream::connect(address).unwrap();
        drop(listener);
        tokio::task::spawn_blocking(move || asked.hand_over(&sockets)).await.unwrap().unwrap();
        let taken = next.await.unwrap();
        taken.set_nonblocking(false).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(taken.accept().is_ok());
    }
}
