//! A process that the program has started for itself, no worker, and how it ends.
//!
//! Either this process forked it, and reaps it; or the template did, which reaps it and tells.
//!
//! | state | what is known | moves on when |
//! |---|---|---|
//! | running | its handle | the handle becomes readable |
//! | ended | that it has ended | this process has reaped it; or the template has told, or has ended itself |
//! | told | how it ended | never |
//!
//! Between *ended* and *told* lies the template's next look, a moment. A template that ends
//! meanwhile closes the link: how the process ended is [`Exit::Unknown`] then, for ever. So is the
//! end of a child of ours that somebody else has reaped.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oxgang_os::Result;
use oxgang_os::event::wait_readable;
use oxgang_os::link::Link;
use oxgang_os::process::{self, Exit, Process, Room};

use crate::starter::Notice;
use crate::template::notice;

/// How long who only looks, and does not wait, waits for the template to tell.
const TELLING: Duration = Duration::from_secs(2);

/// A process that the template was asked for and has not told of.
#[derive(Debug)]
pub struct Expected {
    link: Arc<Link>,
    /// For its handle.
    room: Option<Room>,
}

impl Expected {
    /// By the link that [`Template::fork`](crate::template::Template::fork) gave.
    ///
    /// # Errors
    /// If there is no descriptor left for its handle.
    pub fn new(link: Arc<Link>) -> Result<Self> {
        let room = Some(Room::take(link.as_fd())?);
        Ok(Self { link, room })
    }

    /// Waits for it, for `limit` at most; `None`: not yet.
    ///
    /// # Errors
    /// If there will be none.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<Child>> {
        if !wait_readable(&[self.link.as_fd()], Some(limit))?[0] {
            return Ok(None);
        }
        self.room = None;
        let told = match self.link.receive(true) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            told => told?,
        };
        match told.and_then(notice) {
            Some(Notice::Started(_, process)) => {
                Ok(Some(Child::new(process, Some(self.link.clone()))))
            }
            Some(Notice::Refused(_, why)) => Err(std::io::Error::other(why)),
            _ => {
                let gone = "the template process has ended";
                Err(std::io::Error::new(std::io::ErrorKind::BrokenPipe, gone))
            }
        }
    }
}

/// A process of the program.
#[derive(Debug)]
pub struct Child {
    process: Process,
    end: Mutex<End>,
}

#[derive(Debug)]
struct End {
    exit: Option<Exit>,
    /// Of the template, if that is who reaps it.
    link: Option<Arc<Link>>,
}

impl Child {
    fn new(process: Process, link: Option<Arc<Link>>) -> Self {
        Self { process, end: Mutex::new(End { exit: None, link }) }
    }

    /// One that this process has just forked. If there is no handle to be had for it, it is ended.
    ///
    /// # Errors
    /// If it is no child, or there is no handle.
    pub fn own(pid: i32) -> Result<Self> {
        match Process::open(pid) {
            Ok(process) => Ok(Self::new(process, None)),
            Err(error) => {
                process::end_child(pid)?;
                Err(error)
            }
        }
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Sends a signal, unless it is known to have ended.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn signal(&self, number: i32) -> Result<()> {
        if self.end().exit.is_some() { Ok(()) } else { self.process.signal(number) }
    }

    /// How it ended; `None`: it runs.
    #[must_use]
    pub fn poll(&self) -> Option<Exit> {
        if !self.process.ended() {
            return self.end().exit;
        }
        self.told(Some(Instant::now() + TELLING))
    }

    /// Waits until it has ended, and it is known how; `None`: time is up, or a signal came.
    ///
    /// # Errors
    /// If its handle is bad.
    pub fn wait(&self, until: Option<Instant>) -> Result<Option<Exit>> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if wait_readable(&[self.process.as_fd()], left)?[0] {
            Ok(self.told(until))
        } else {
            Ok(self.end().exit)
        }
    }

    /// How it ended, which is to be told at any moment. Waits for that once, until then at most.
    fn told(&self, until: Option<Instant>) -> Option<Exit> {
        let link = {
            let mut end = self.end();
            if end.exit.is_none() {
                let exit = match &end.link {
                    None => Some(self.process.exit(true).unwrap_or(Exit::Unknown)),
                    Some(link) => heard(link),
                };
                end.exit = exit;
            }
            if end.exit.is_some() {
                end.link = None; // the template lets go of its end too
                return end.exit;
            }
            end.link.clone()?
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // without the lock: several threads may wait, and what one hears all know
        let _come = wait_readable(&[link.as_fd()], left.map(|left| left.min(TELLING)));
        let mut end = self.end();
        if end.exit.is_none() {
            end.exit = heard(&link);
        }
        end.exit
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// What the template has told by now.
fn heard(link: &Link) -> Option<Exit> {
    match link.receive(true) {
        Ok(Some(message)) => match notice(message) {
            Some(Notice::Ended(_, exit)) => Some(exit),
            _ => None,
        },
        Ok(None) => Some(Exit::Unknown),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(_) => Some(Exit::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn ended(child: &Child) -> Exit {
        loop {
            if let Some(exit) = child.wait(None).unwrap() {
                return exit;
            }
        }
    }

    fn told(one: u64, kind: u8, rest: &[u64]) -> Vec<u8> {
        let numbers = std::iter::once(&one).chain(rest);
        std::iter::once(kind).chain(numbers.flat_map(|number| number.to_le_bytes())).collect()
    }

    /// A program that the shell runs; reaped by nobody but who is under test.
    fn shell(program: &str) -> i32 {
        Command::new("sh").args(["-c", program]).spawn().unwrap().id().cast_signed()
    }

    #[test]
    fn the_end_of_an_own_child_is_known_for_ever() {
        let child = Child::own(shell("exit 3")).unwrap();
        assert_eq!(ended(&child), Exit::Code(3));
        assert_eq!(child.poll(), Some(Exit::Code(3)));
        child.signal(9).unwrap();
        let child = Child::own(shell("sleep 60")).unwrap();
        assert_eq!(child.poll(), None);
        assert_eq!(child.wait(Some(Instant::now())).unwrap(), None);
        child.signal(9).unwrap();
        assert_eq!(ended(&child), Exit::Signal(9));
    }

    #[test]
    fn who_reaps_tells_or_is_gone() {
        for told_of in [true, false] {
            let (ours, theirs) = Link::pair().unwrap();
            let mut expected = Expected::new(Arc::new(ours)).unwrap();
            assert!(expected.wait(Duration::ZERO).unwrap().is_none());
            let process = Process::open(shell("exit 3")).unwrap();
            let started = told(0, b's', &[process.pid.cast_unsigned().into()]);
            theirs.send(&started, &[process.as_fd()]).unwrap();
            let child = expected.wait(Duration::from_secs(60)).unwrap().unwrap();
            wait_readable(&[process.as_fd()], None).unwrap();
            assert_eq!(process.exit(true), Some(Exit::Code(3)));
            assert_eq!(child.wait(Some(Instant::now())).unwrap(), None, "nobody has told");
            if told_of {
                theirs.send(&told(0, b'e', &[0, 3]), &[]).unwrap();
            }
            drop(theirs);
            let exit = if told_of { Exit::Code(3) } else { Exit::Unknown };
            assert_eq!((ended(&child), child.poll()), (exit, Some(exit)));
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        let (ours, theirs) = Link::pair().unwrap();
        let mut expected = Expected::new(Arc::new(ours)).unwrap();
        let mut refused = told(0, b'r', &[]);
        refused.extend_from_slice(b"no memory");
        theirs.send(&refused, &[]).unwrap();
        assert_eq!(expected.wait(Duration::ZERO).unwrap_err().to_string(), "no memory");
        drop(theirs);
        // not at once, if another test forks at this moment
        let gone = expected.wait(Duration::from_secs(60)).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
