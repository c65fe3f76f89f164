//! Waiting for a stream in a way that can be ended.
//!
//! A plain `read` on a pipe, or a `write` to a reader that has stopped reading, can block for
//! ever, and the signal that should end it may be delivered to another thread. So every wait here
//! is a `poll` of at most [`STEP`], and between two of them a [`Check`] is asked whether to go on.
//! Its refusal comes back as an [`io::Error`] for which [`is_refusal`] holds; no byte read before
//! it is lost to the caller's buffer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;

/// May the wait go on? An error ends it.
pub type Check = Arc<dyn Fn() -> Result<(), Refused> + Send + Sync>;

/// The longest time between two questions to the check.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Bytes a pipe takes without blocking once it polls as writable (POSIX's smallest `PIPE_BUF`
/// is 512; Linux has 4096).
const BITE: usize = 4096;

/// The check said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asked to stop while waiting")
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        io::Error::other(refused)
    }
}

/// Whether this error is a check's refusal, not trouble with the stream.
pub fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

fn wait(fd: impl AsFd, flags: PollFlags, check: &Check) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(&fd, flags)];
        match poll(&mut fds, Some(&STEP)) {
            Ok(0) | Err(Errno::INTR) => check()?,
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A file, pipe or terminal whose reads ask the check while they wait.
pub struct PatientReader {
    file: File,
    check: Check,
}

impl PatientReader {
    /// Reads `file`, asking `check`.
    pub fn new(file: File, check: Check) -> PatientReader {
        PatientReader { file, check }
    }
}

impl Read for PatientReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            wait(&self.file, PollFlags::IN, &self.check)?;
            match self.file.read(buffer) {
                // WouldBlock: a descriptor that somebody set non-blocking, and another reader
                // of the same pipe was faster.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) =>
                {
                    (self.check)()?;
                }
                done => return done,
            }
        }
    }
}

/// Writes all of `bytes`, asking the check while the other side does not read.
pub fn write_all(mut file: &File, mut bytes: &[u8], check: &Check) -> io::Result<()> {
    while !bytes.is_empty() {
        wait(file, PollFlags::OUT, check)?;
        match file.write(&bytes[..bytes.len().min(BITE)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                check()?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn pipe() -> (File, File) {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        (reader.into(), writer.into())
    }

    fn refuse_after(questions: u32) -> Check {
        let asked = AtomicU32::new(0);
        Arc::new(move || {
            if asked.fetch_add(1, Ordering::Relaxed) < questions { Ok(()) } else { Err(Refused) }
        })
    }

    #[test]
    fn a_read_that_waits_is_ended_by_the_check() {
        let (reader, _writer) = pipe();
        let error = PatientReader::new(reader, refuse_after(1))
            .read(&mut [0; 8])
            .expect_err("nobody writes");
        assert!(is_refusal(&error), "{error}");
    }

    #[test]
    fn a_write_that_nobody_reads_is_ended_by_the_check() {
        let (_reader, writer) = pipe();
        let much = vec![b'x'; 1 << 20];
        let error = write_all(&writer, &much, &refuse_after(1)).expect_err("nobody reads");
        assert!(is_refusal(&error), "{error}");
    }

    #[test]
    fn a_write_without_a_reader_is_a_broken_pipe() {
        let (reader, writer) = pipe();
        drop(reader);
        let error = write_all(&writer, b"x", &refuse_after(100)).expect_err("no reader");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
