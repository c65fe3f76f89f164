//! Messages with descriptors between two processes, whole or not at all.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::Result;

/// The most descriptors in one message: a little below what the kernel takes.
pub const MOST_FDS: usize = 250;
/// The longest message.
pub const LONGEST: usize = 64 << 10;

/// One end of a connection.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// A message that came.
#[derive(Debug)]
pub struct Message {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What was sent along, closed on exec.
    pub fds: Vec<OwnedFd>,
}

impl Link {
    /// Two ends, connected.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// An end that was inherited or received.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor up, for the standard input of a process to be started.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If the other end is gone, or the message is too long.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(std::io::Error::other("too many descriptors for one message"));
        }
        loop {
            match rustix::net::sendmsg(
                &self.0,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Err(Errno::INTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }

    /// The next message; `None` if the other end is gone. Waits, unless `now`, which is an
    /// error of the kind `WouldBlock` if there is none.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn receive(&self, now: bool) -> Result<Option<Message>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; LONGEST];
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, now);
        let received =
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
        let count = match received {
            Ok(message) => message.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if count == 0 {
            return Ok(None);
        }
        bytes.truncate(count);
        Ok(Some(Message { bytes, fds }))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        let (one, other) = Link::pair().unwrap();
        let file = crate::event::WakeUp::new().unwrap();
        one.send(b"first", &[file.as_fd(), file.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        let first = other.receive(false).unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.fds.len()), (&b"first"[..], 2));
        assert_eq!(other.receive(false).unwrap().unwrap().bytes, b"second");
        let none = other.receive(true).unwrap_err();
        assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
        drop(one);
        assert!(other.receive(false).unwrap().is_none());
        assert!(other.send(b"x", &[]).is_err());
    }
}
