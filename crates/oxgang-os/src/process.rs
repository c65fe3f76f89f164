//! Processes: a handle that cannot mean another one, how one ended, and a line that ends
//! a process when its owner ends.
//!
//! Safety: unsafe for two things: `fcntl` with the commands that rustix lacks, plain calls on an
//! open descriptor, which touch no memory; and signals that have a number and no name.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::Result;
use crate::link::Link;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody could tell.
    Unknown,
}

impl Exit {
    /// As Python's `exitcode`: negative for a signal.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(signal) => Some(-signal),
            Self::Unknown => None,
        }
    }

    /// The reverse of [`code`](Self::code).
    #[must_use]
    pub fn from_code(code: Option<i32>) -> Self {
        match code {
            Some(code) if code < 0 => Self::Signal(-code),
            Some(code) => Self::Code(code),
            None => Self::Unknown,
        }
    }
}

/// Room for one more descriptor, taken before it is needed: for what comes too late to be refused,
/// as the handle of a process that runs already.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held, to be let go")] OwnedFd);

impl Room {
    /// Takes it, by one more descriptor for what `any` is open for. Letting go of it gives it back.
    ///
    /// # Errors
    /// If there is none left.
    pub fn take(any: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self(any.try_clone_to_owned()?))
    }
}

/// A process, by a descriptor that stays its own even if its number is given to another.
/// It becomes readable when the process ends.
#[derive(Debug)]
pub struct Process {
    /// Its number, for people.
    pub pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// The process with this number. Right only while it cannot have been reaped: for a child
    /// of the caller, or by the word of its parent.
    ///
    /// # Errors
    /// If there is none, or the kernel has no pidfd (before 5.3, or forbidden by seccomp).
    pub fn open(pid: i32) -> Result<Self> {
        let number = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        let fd = rustix::process::pidfd_open(number, PidfdFlags::empty());
        Ok(Self { pid, fd: fd.map_err(|errno| crate::refused("pidfd_open", errno))? })
    }

    /// By a descriptor that its parent sent.
    #[must_use]
    pub fn adopt(pid: i32, fd: OwnedFd) -> Self {
        Self { pid, fd }
    }

    /// Sends a signal; one that has ended already is no error.
    ///
    /// # Errors
    /// If the caller may not, or the signal does not exist.
    pub fn signal(&self, number: i32) -> Result<()> {
        let signal = signal_of(number).ok_or(Errno::INVAL)?;
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL.as_raw())
    }

    /// Whether it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        crate::event::wait_readable(&[self.fd.as_fd()], Some(std::time::Duration::ZERO))
            .is_ok_and(|ready| ready[0])
    }

    /// How it ended, if it has and is a child of the caller. `reap`: and forget it; otherwise
    /// whoever started it can still ask.
    #[must_use]
    pub fn exit(&self, reap: bool) -> Option<Exit> {
        let mut options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        options.set(WaitIdOptions::NOWAIT, !reap);
        let status = rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        })
    }
}

fn signal_of(number: i32) -> Option<Signal> {
    let unnamed = (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
    // SAFETY: the number is one of those that the C library leaves to programs.
    let unnamed = unnamed.then(|| unsafe { Signal::from_raw_unchecked(number) });
    unnamed.or_else(|| Signal::from_named_raw(number))
}

/// The signal that asks a worker's task to stop: none that programs know by name, and none of
/// those that languages and libraries take first.
#[must_use]
pub fn soft_signal() -> i32 {
    libc::SIGRTMAX() - 2
}

/// The signal that has a worker write down its stacks and end.
#[must_use]
pub fn dump_signal() -> i32 {
    libc::SIGRTMAX() - 3
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Starts a program with a link to it as its standard input. Output goes where ours goes.
///
/// # Errors
/// If it cannot be started.
pub fn spawn(
    program: &std::ffi::OsStr,
    arguments: &[std::ffi::OsString],
) -> Result<(Process, Link)> {
    let (ours, theirs) = Link::pair()?;
    // the standard library keeps no thread and no handle of a child; the pidfd is opened
    // while the child cannot have been reaped
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::from(theirs.into_fd())).spawn()?;
    let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    match Process::open(pid) {
        Ok(process) => Ok((process, ours)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// Ends a child of the caller for which there is no handle, and reaps it.
///
/// # Errors
/// If it is none.
pub fn end_child(pid: i32) -> Result<()> {
    let number = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    rustix::process::kill_process(number, Signal::KILL)?;
    rustix::process::waitpid(Some(number), rustix::process::WaitOptions::empty())?;
    Ok(())
}

/// This process, this thread: the kernel's numbers.
#[must_use]
pub fn own_numbers() -> (u32, u32) {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    (pid.unsigned_abs(), tid.unsigned_abs())
}

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It started at this tick; `ended`: at least its first thread has.
    There { start: u64, ended: bool },
    /// It is not listed.
    Absent,
    /// The question failed: no descriptor is left, say.
    Unknown,
}

fn standing(pid: u32) -> Standing {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_stat(&stat).unwrap_or(Standing::Unknown),
        Err(error) if is_absence(&error) => Standing::Absent,
        Err(_) => Standing::Unknown,
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn parse_stat(stat: &[u8]) -> Option<Standing> {
    // the name in parentheses may itself hold any bytes
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let text = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = text.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    // state is the third field, the start the twenty-second
    Some(Standing::There { start: fields.nth(18)?.parse().ok()?, ended })
}

/// When a process started, in ticks since the machine did; 0: nobody knows.
#[must_use]
pub fn started(pid: u32) -> u64 {
    match standing(pid) {
        Standing::There { start, .. } => start,
        Standing::Absent | Standing::Unknown => 0,
    }
}

/// Whether the process `pid` is alive, and the one that is meant: `is_it` says so by its start.
/// A process that has ended and waits to be reaped is not alive. In doubt it is.
#[must_use]
pub fn lives(pid: u32, is_it: impl FnOnce(u64) -> bool) -> bool {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(number) = number else { return false };
    let answers = rustix::process::test_kill_process(number);
    if answers == Err(Errno::SRCH) {
        return false;
    }
    match standing(pid) {
        Standing::There { start, .. } if !is_it(start) => false,
        // the first thread of a process may end before others do
        Standing::There { ended: true, .. } => {
            match std::fs::read_dir(format!("/proc/{pid}/task")) {
                Ok(threads) => threads.count() > 1,
                Err(error) => !is_absence(&error),
            }
        }
        Standing::There { .. } | Standing::Unknown => true,
        // it has gone since the first question; unless `/proc` hides it (another user's), or is
        // not there at all
        Standing::Absent => answers.is_err() || standing(own_numbers().0) == Standing::Absent,
    }
}

/// Whether the process has this thread. In doubt it has.
#[must_use]
pub fn has_thread(pid: u32, tid: u32) -> bool {
    let path = format!("/proc/{pid}/task/{tid}");
    rustix::fs::access(path.as_str(), rustix::fs::Access::EXISTS) != Err(Errno::NOENT)
        || standing(own_numbers().0) == Standing::Absent
}

/// The owner's end of a line that ends other processes when the owner ends.
///
/// It is the writing end of a pipe. While some process has it open, nothing happens; when the
/// last one ends, by whatever cause, the kernel kills every process that has [`hold`] of the
/// other end, busy or not, without any of them having to look. A fork of the owner must
/// [`cut`](Self::cut) its copy, or it keeps the others alive.
#[derive(Debug)]
pub struct Lifeline {
    writing: Option<OwnedFd>,
    reading: OwnedFd,
}

impl Lifeline {
    /// A new one.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> Result<Self> {
        let (reading, writing) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { writing: Some(writing), reading })
    }

    /// The end to send to processes that shall end with the owner.
    #[must_use]
    pub fn end_to_hold(&self) -> BorrowedFd<'_> {
        self.reading.as_fd()
    }

    /// In a fork of the owner: this copy no longer counts.
    pub fn cut(&mut self) {
        self.writing = None;
    }
}

/// Which signal tells of a descriptor: the same number on every Linux, and missing in libc.
const F_SETSIG: libc::c_int = 10;

/// From now on this process is killed when the owner of the line ends. Gives the descriptor
/// that must stay open for it.
///
/// # Errors
/// If the kernel refuses; `BrokenPipe` if the owner has ended already.
pub fn hold(line: BorrowedFd<'_>) -> Result<OwnedFd> {
    // who is to be signalled is kept with the open file, so each process needs its own
    let path = format!("/proc/self/fd/{}", line.as_raw_fd());
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let own = rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty())?;
    let raw = own.as_raw_fd();
    // SAFETY: plain calls on a descriptor that `own` keeps open; they touch no memory.
    let refused = unsafe {
        libc::fcntl(raw, libc::F_SETOWN, libc::getpid()) < 0
            || libc::fcntl(raw, F_SETSIG, libc::SIGKILL) < 0
            || libc::fcntl(raw, libc::F_SETFL, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_ASYNC)
                < 0
    };
    if refused {
        return Err(std::io::Error::last_os_error());
    }
    // an owner that ended before the line was armed sends no signal any more
    let ready = crate::event::wait_readable(&[own.as_fd()], Some(std::time::Duration::ZERO))?;
    if ready[0] {
        let gone = "the owner has ended";
        return Err(std::io::Error::new(std::io::ErrorKind::BrokenPipe, gone));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cat() -> (Process, Link) {
        spawn("cat".as_ref(), &[]).unwrap()
    }

    fn wait(process: &Process) -> Exit {
        crate::event::wait_readable(&[process.as_fd()], Some(Duration::from_secs(30))).unwrap();
        process.exit(true).expect("ended")
    }

    #[test]
    fn a_child_is_seen_to_end_and_how() {
        let (child, link) = cat();
        assert!(!child.ended());
        assert_eq!(child.exit(false), None);
        drop(link);
        assert_eq!(wait(&child), Exit::Code(0));
        let (child, _link) = cat();
        child.kill().unwrap();
        assert_eq!(wait(&child), Exit::Signal(9));
        child.kill().unwrap();
    }

    #[test]
    fn life_is_told_from_number_start_and_thread() {
        let (pid, tid) = own_numbers();
        let start = started(pid);
        assert!(start > 0);
        assert!(lives(pid, |tick| tick == start));
        assert!(!lives(pid, |tick| tick == start + 1), "another one with the same number");
        assert!(has_thread(pid, tid));
        let other = std::thread::spawn(|| own_numbers().1).join().unwrap();
        assert!(!has_thread(pid, other));
        let (child, _link) = cat();
        let number = child.pid.unsigned_abs();
        assert!(lives(number, |_| true));
        child.kill().unwrap();
        crate::event::wait_readable(&[child.as_fd()], Some(Duration::from_secs(30))).unwrap();
        assert!(!lives(number, |_| true), "not reaped, but dead");
        assert!(child.exit(true).is_some());
        assert!(!lives(number, |_| true));
    }

    #[test]
    fn names_of_processes_hide_nothing() {
        let line = b"7 (a) S) 9 Z (x) R 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(parse_stat(line), Some(Standing::There { start: 4711, ended: false }));
        let zombie = b"7 (cat) Z 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12 0 0\n";
        assert_eq!(parse_stat(zombie), Some(Standing::There { start: 12, ended: true }));
        assert_eq!(parse_stat(b"7 (cat) S 1"), None);
        assert_eq!(standing(u32::MAX), Standing::Absent);
    }

    #[test]
    fn exit_codes_as_python_writes_them() {
        for exit in [Exit::Code(3), Exit::Signal(9), Exit::Unknown] {
            assert_eq!(Exit::from_code(exit.code()), exit);
        }
    }
}
