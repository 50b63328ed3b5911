//! Waiting for several things at once, without a runtime.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What can be waited for.
pub(super) trait Readable {
    fn fd(&self) -> PollFd<'_>;
}

impl<T: AsFd> Readable for T {
    fn fd(&self) -> PollFd<'_> {
        PollFd::new(self, PollFlags::IN)
    }
}

/// Waits until one of these can be read, or the time is over.
pub(super) fn wait_for(on: &[&dyn Readable], most: Option<Duration>) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = on.iter().map(|readable| readable.fd()).collect();
    let most = most.map(|most| Timespec {
        tv_sec: most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    });
    match poll(&mut fds, most.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether it can be read now.
pub(super) fn can_read(on: &dyn Readable) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [on.fd()], Some(&now)), Ok(1..))
}
