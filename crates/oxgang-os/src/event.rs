//! Waiting for any of several descriptors, and a descriptor that is only a wake-up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::Result;

/// A wake-up that can be waited for beside other descriptors, in this and other processes.
#[derive(Debug)]
pub struct WakeUp(OwnedFd);

impl WakeUp {
    /// A new one.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn new() -> Result<Self> {
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// One that another process made.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Wakes whoever waits, or the next one who does.
    pub fn ring(&self) {
        // EAGAIN means that the count is at its end: then it is more than rung
        let written = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
        debug_assert!(matches!(written, Ok(_) | Err(Errno::AGAIN | Errno::INTR)));
    }

    /// Forgets rings until now.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let read = rustix::io::read(&self.0, &mut count);
        debug_assert!(matches!(read, Ok(_) | Err(Errno::AGAIN | Errno::INTR)));
    }
}

impl AsFd for WakeUp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is readable or has ended. For each: whether it is. All `false`:
/// time is up, or a signal came.
///
/// # Errors
/// If a descriptor is bad, or there are too many.
pub fn wait_readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_kept_until_cleared() {
        let (one, other) = (WakeUp::new().unwrap(), WakeUp::new().unwrap());
        let now = Some(Duration::ZERO);
        let fds = [one.as_fd(), other.as_fd()];
        assert_eq!(wait_readable(&fds, now).unwrap(), [false, false]);
        other.ring();
        other.ring();
        assert_eq!(wait_readable(&fds, None).unwrap(), [false, true]);
        other.clear();
        assert_eq!(wait_readable(&fds, now).unwrap(), [false, false]);
    }
}
