//! Messages with descriptors between two processes, whole or not at all, however long.
//!
//! A message is one packet. One that is too long for that goes into memory of its own: the packet is
//! one zero byte then, and the memory's descriptor the last one. So no message is one zero byte.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::Result;
use crate::segment::Segment;

/// The most descriptors in one message: a little below what the kernel takes.
pub const MOST_FDS: usize = 250;
/// The longest packet.
pub const LONGEST: usize = 64 << 10;
/// In the place of a message that is longer.
const ELSEWHERE: &[u8] = &[0];

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

    /// Sends one message, which is not empty, nor one zero byte.
    ///
    /// # Errors
    /// If the other end is gone, there are too many descriptors, or there is no memory for a long
    /// message.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        debug_assert!(!bytes.is_empty() && bytes != ELSEWHERE);
        if bytes.len() <= LONGEST {
            return self.send_packet(bytes, fds);
        }
        let memory = Segment::create("oxgang message", bytes.len() as u64)?;
        memory.write_at(0, bytes)?;
        self.send_packet(ELSEWHERE, &[fds, &[memory.as_fd()]].concat())
    }

    /// Sends a text in as many packets as it takes, for a program that has nothing to receive
    /// messages with yet; behind them a zero byte.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn send_text(&self, text: &[u8]) -> Result<()> {
        debug_assert!(!text.contains(&0));
        text.chunks(LONGEST).chain([ELSEWHERE]).try_for_each(|part| self.send_packet(part, &[]))
    }

    fn send_packet(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
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
    /// As the kernel says; or if a message is not whole.
    pub fn receive(&self, now: bool) -> Result<Option<Message>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; LONGEST];
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, now);
        let received =
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
        let count = match received {
            Ok(message) if message.flags.contains(ReturnFlags::TRUNC) => {
                return Err(std::io::Error::other("a message was cut off"));
            }
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
        if bytes == ELSEWHERE {
            let memory = fds.pop().ok_or_else(|| {
                std::io::Error::other("a long message did not arrive: too many open files")
            })?;
            let memory = Segment::adopt(memory)?;
            let length = usize::try_from(memory.length()?).map_err(std::io::Error::other)?;
            bytes = memory.read_at(0, length)?;
        }
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
        let long: Vec<u8> = (0..5 * LONGEST).map(|at| at as u8 | 1).collect();
        one.send(&long[..=LONGEST], &[file.as_fd()]).unwrap();
        one.send(&long, &[]).unwrap();
        one.send(&long[..LONGEST], &[]).unwrap();
        for (length, fds) in [(LONGEST + 1, 1), (long.len(), 0), (LONGEST, 0)] {
            let message = other.receive(true).unwrap().unwrap();
            assert_eq!((message.bytes.len(), message.fds.len()), (length, fds));
            assert!(message.bytes == long[..length]);
        }
        drop(one);
        assert!(other.receive(false).unwrap().is_none());
        assert!(other.send(b"x", &[]).is_err());
    }

    #[test]
    fn a_text_of_any_length_goes_in_packets() {
        let (one, other) = Link::pair().unwrap();
        let text: Vec<u8> = (0..2 * LONGEST + 3).map(|at| at as u8 | 1).collect();
        let sent = text.clone();
        let sender = std::thread::spawn(move || one.send_text(&sent).map(|()| one));
        let mut got = Vec::new();
        let mut packet = vec![0; LONGEST];
        loop {
            let count = rustix::io::read(&other, &mut packet).unwrap();
            if packet[..count] == *ELSEWHERE {
                break;
            }
            got.extend_from_slice(&packet[..count]);
        }
        assert!(got == text);
        drop(sender.join().unwrap().unwrap());
    }

    #[test]
    fn a_packet_that_is_cut_off_is_an_error() {
        let (one, other) = Link::pair().unwrap();
        one.send_packet(&vec![1; LONGEST + 1], &[]).unwrap();
        assert!(other.receive(true).is_err());
    }
}
