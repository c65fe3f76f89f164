//! Waiting for any of several descriptors, and a descriptor that is only a wake-up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
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
    let limit = limit.map(timespec);
    match rustix::event::poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// What a look at one descriptor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing, and time is up.
    Nothing,
    /// A signal came.
    Signal,
    /// `readable`: there are bytes. `gone`: nobody has the other end open any more.
    Seen {
        /// There are bytes.
        readable: bool,
        /// Nobody has the other end open.
        gone: bool,
    },
}

/// Waits until there are bytes to read, or nobody has the other end open any more.
///
/// # Errors
/// If the descriptor is bad.
pub fn look(fd: BorrowedFd<'_>, limit: Option<Duration>) -> Result<Look> {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let limit = limit.map(timespec);
    match rustix::event::poll(&mut polled, limit.as_ref()) {
        Ok(0) => Ok(Look::Nothing),
        Ok(_) => {
            let seen = polled[0].revents();
            if seen.contains(PollFlags::NVAL) {
                return Err(Errno::BADF.into());
            }
            Ok(Look::Seen {
                readable: seen.contains(PollFlags::IN),
                gone: seen.intersects(PollFlags::HUP | PollFlags::ERR),
            })
        }
        Err(Errno::INTR) => Ok(Look::Signal),
        Err(error) => Err(error.into()),
    }
}

fn timespec(limit: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    }
}

/// A pipe: the end to read from, and the end to write to. Neither blocks.
///
/// # Errors
/// If there are no descriptors left.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{PipeFlags, pipe_with};
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// A pipe by one descriptor, to read from and to write to: it never ends.
///
/// # Errors
/// If there are no descriptors left, or there is no `/proc`.
pub fn endless_pipe() -> Result<OwnedFd> {
    let (one, _other) = pipe()?;
    open_pipe_of(std::process::id(), one.as_raw_fd(), OFlags::RDWR)
}

/// The pipe that another process has open under this number, as [`endless_pipe`].
///
/// # Errors
/// If that process has ended or has no such descriptor, or it is no pipe.
pub fn endless_pipe_of(pid: u32, fd: i32) -> Result<OwnedFd> {
    open_pipe_of(pid, fd, OFlags::RDWR)
}

fn open_pipe_of(pid: u32, fd: i32, how: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/fd/{fd}");
    let flags = how | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path.as_str(), flags, Mode::empty())?;
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode)
        != rustix::fs::FileType::Fifo
    {
        return Err(std::io::Error::other("something else than a pipe is in its place"));
    }
    Ok(fd)
}

/// Puts a byte into a pipe by the end to write to. A full one has more than enough.
///
/// # Errors
/// If nobody has the other end open.
pub fn put_byte(fd: BorrowedFd<'_>) -> Result<()> {
    loop {
        match rustix::io::write(fd, &[1]) {
            Ok(_) | Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Puts a byte into a pipe by the end to read from.
///
/// # Errors
/// If there is no descriptor left, or no `/proc`.
pub fn put_byte_behind(fd: BorrowedFd<'_>) -> Result<()> {
    put_byte(open_pipe_of(std::process::id(), fd.as_raw_fd(), OFlags::WRONLY)?.as_fd())
}

/// Takes all bytes out of a pipe that does not block.
pub fn take_bytes(fd: BorrowedFd<'_>) {
    let mut bytes = [0; 64];
    loop {
        match rustix::io::read(fd, &mut bytes) {
            Ok(64) | Err(Errno::INTR) => {}
            // the end, or no more, or a bad descriptor: none of them has bytes
            _ => return,
        }
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

    #[test]
    fn a_pipe_tells_of_bytes_and_of_its_end() {
        let now = Some(Duration::ZERO);
        let (reader, writer) = pipe().unwrap();
        assert_eq!(look(reader.as_fd(), now).unwrap(), Look::Nothing);
        put_byte(writer.as_fd()).unwrap();
        put_byte_behind(reader.as_fd()).unwrap();
        let seen = |readable, gone| Look::Seen { readable, gone };
        assert_eq!(look(reader.as_fd(), now).unwrap(), seen(true, false));
        take_bytes(reader.as_fd());
        assert_eq!(look(reader.as_fd(), now).unwrap(), Look::Nothing, "both are gone");
        assert_eq!(look(writer.as_fd(), now).unwrap(), Look::Nothing);
        put_byte(writer.as_fd()).unwrap();
        drop(writer);
        assert_eq!(look(reader.as_fd(), None).unwrap(), seen(true, true));
        take_bytes(reader.as_fd());
        assert_eq!(look(reader.as_fd(), None).unwrap(), seen(false, true));
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(look(writer.as_fd(), now).unwrap(), seen(false, true));
    }

    #[test]
    fn an_endless_pipe_is_one_for_all_who_open_it() {
        let one = endless_pipe().unwrap();
        let other = endless_pipe_of(std::process::id(), one.as_raw_fd()).unwrap();
        put_byte(one.as_fd()).unwrap();
        assert_ne!(look(other.as_fd(), None).unwrap(), Look::Nothing);
        take_bytes(other.as_fd());
        assert_eq!(look(one.as_fd(), Some(Duration::ZERO)).unwrap(), Look::Nothing);
        let file = WakeUp::new().unwrap();
        assert!(endless_pipe_of(std::process::id(), file.as_fd().as_raw_fd()).is_err());
    }
}
