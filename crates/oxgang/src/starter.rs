//! How a worker comes to exist: the one thing that differs between start methods.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use oxgang_os::Result;
use oxgang_os::link::Link;
use oxgang_os::process::{Exit, Process};

use crate::supervisor::Incarnation;

/// What a worker needs to be one: three descriptors.
#[derive(Debug, Clone, Copy)]
pub struct Invitation<'a> {
    /// Which life this will be.
    pub incarnation: Incarnation,
    /// Its channel's segment.
    pub channel: BorrowedFd<'a>,
    /// The pool's segment: the watch page and blocks of requests.
    pub pool: BorrowedFd<'a>,
    /// What wakes the pool's driver.
    pub wake: BorrowedFd<'a>,
}

/// What a starter has to tell later.
#[derive(Debug)]
pub enum Notice {
    /// The worker's process is there.
    Started(Incarnation, Process),
    /// It could not be started.
    Refused(Incarnation, String),
    /// How it ended, from who reaped it. Comes after the process has ended.
    Ended(Incarnation, Exit),
    /// Who was to start these is gone, and will never say how that went; why.
    Lost(Vec<Incarnation>, String),
}

/// A start method. Called without the pool's lock.
pub trait Starter: Send + Sync {
    /// Starts a worker. `None`: a [`Notice`] will follow.
    ///
    /// # Errors
    /// If no process can be started.
    fn start(&self, invitation: Invitation<'_>) -> Result<Option<Process>>;

    /// What becomes readable when there are notices.
    fn notice_link(&self) -> Option<Arc<Link>> {
        None
    }

    /// The notices that have come.
    fn notices(&self) -> Vec<Notice> {
        Vec::new()
    }

    /// How a process of ours ended, once it has. `None`: a notice will tell.
    fn exit(&self, process: &Process) -> Option<Exit>;
}

/// Starts a program for each worker; it finds its invitation by
/// [`Worker::from_stdin`](crate::worker::Worker::from_stdin).
#[derive(Debug)]
pub struct SpawnProgram {
    program: OsString,
    arguments: Vec<OsString>,
}

impl SpawnProgram {
    /// Workers are `program` with these arguments.
    pub fn new(program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: arguments.iter().map(OsString::from).collect(),
        }
    }
}

impl Starter for SpawnProgram {
    fn start(&self, invitation: Invitation<'_>) -> Result<Option<Process>> {
        let (process, link) = oxgang_os::process::spawn(&self.program, &self.arguments)?;
        send_invitation(&link, &invitation)?;
        Ok(Some(process))
    }

    fn exit(&self, process: &Process) -> Option<Exit> {
        process.exit(true)
    }
}

pub(crate) fn send_invitation(link: &Link, invitation: &Invitation<'_>) -> Result<()> {
    let bytes = invitation.incarnation.to_le_bytes();
    link.send(&bytes, &[invitation.channel, invitation.pool, invitation.wake])
}

/// The descriptors of an invitation, as the invited has them.
#[derive(Debug)]
pub struct Invited {
    /// Which life this is.
    pub incarnation: Incarnation,
    /// See [`Invitation`].
    pub channel: std::os::fd::OwnedFd,
    /// See [`Invitation`].
    pub pool: std::os::fd::OwnedFd,
    /// See [`Invitation`].
    pub wake: std::os::fd::OwnedFd,
}

impl Invited {
    pub(crate) fn from_message(message: oxgang_os::link::Message) -> Result<Self> {
        let number = message.bytes.as_slice().try_into().map(Incarnation::from_le_bytes);
        let fds: std::result::Result<[_; 3], _> = message.fds.try_into();
        match (number, fds) {
            (Ok(incarnation), Ok([channel, pool, wake])) => {
                Ok(Self { incarnation, channel, pool, wake })
            }
            _ => Err(std::io::Error::other("not an invitation")),
        }
    }
}
