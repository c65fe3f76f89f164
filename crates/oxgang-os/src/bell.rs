//! A connected socket that wakes who sleeps at its other end, and tells when that end is gone.
//!
//! Its bytes mean nothing. It is also how the two come to share memory: one message each way at
//! the beginning, with descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::Result;
use crate::link::{Link, Message};

/// One end.
#[derive(Debug)]
pub struct Bell(Link);

impl Bell {
    /// An end that was connected elsewhere, with nothing unread in it.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(Link::adopt(fd))
    }

    /// Sends the one message, with descriptors.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn greet(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.0.send(bytes, fds)
    }

    /// The other end's message, if it is there; `None`: it is gone.
    ///
    /// # Errors
    /// Of the kind `WouldBlock`: it has not come yet.
    pub fn greeted(&self) -> Result<Option<Message>> {
        self.0.receive(true)
    }

    /// Wakes who sleeps at the other end, or will. If that is gone, nothing: who waits for an
    /// answer is told.
    pub fn ring(&self) {
        // a full buffer is more than rung
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while rustix::net::send(&self.0, &[1], flags) == Err(Errno::INTR) {}
    }

    /// Forgets rings until now; `false`: the other end is gone.
    pub fn clear(&self) -> bool {
        let mut bytes = [0; 64];
        loop {
            match rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return false,
                Ok((_, count)) if count == bytes.len() => {}
                Ok(_) | Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Ends both directions: who sleeps at either end wakes, and finds the other gone.
    pub fn hang_up(&self) {
        // the only error is that the other end has done so already
        let done = rustix::net::shutdown(&self.0, Shutdown::Both);
        debug_assert!(matches!(done, Ok(()) | Err(Errno::NOTCONN)));
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::wait_readable;

    #[test]
    fn rings_are_heard_once_and_an_end_for_ever() {
        let (one, other) = Link::pair().unwrap();
        let (one, other) = (Bell(one), Bell(other));
        let now = Some(std::time::Duration::ZERO);
        for _ in 0..100 {
            one.ring();
        }
        assert_eq!(wait_readable(&[other.as_fd()], now).unwrap(), [true]);
        while wait_readable(&[other.as_fd()], now).unwrap() == [true] {
            assert!(other.clear());
        }
        assert!(other.clear(), "nothing is not the end");
        one.hang_up();
        assert!(!other.clear() && !one.clear());
        other.ring();
        one.hang_up();
    }
}
