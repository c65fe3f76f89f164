//! The worker's side: the next request, the publishing of answers, sleeping in between.
//!
//! One thread uses it. Every wait returns when a signal comes, so that the language above can
//! run its handlers and call again.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use oxgang_os::clock;
use oxgang_os::event::WakeUp;
use oxgang_os::futex;
use oxgang_os::link::Link;
use oxgang_os::segment::Segment;
use oxgang_os::{Result, futex::Woken};
use oxgang_shm::channel::{AT_BELL, IN_BLOCK, Request, WorkerEnd};
use oxgang_shm::oversight::Oversight;
use oxgang_shm::ring::Full;
use oxgang_shm::watch::{self, WATCH_BYTES, Wake, Watch};

use crate::segment::{BlockReader, BlockWriter, Mapped};
use crate::spin::{self, Spinner};
use crate::starter::Invited;
use crate::wire;

/// A worker's end of its pool.
#[derive(Debug)]
pub struct Worker {
    end: WorkerEnd<Mapped>,
    channel: Mapped,
    watch: Watch<Mapped>,
    watch_words: Mapped,
    driver: WakeUp,
    page: Oversight<Mapped>,
    /// The channel's segment, once more.
    segment: Segment,
    requests: BlockReader,
    results: BlockWriter,
    spinner: Spinner,
    payload: Vec<u8>,
    longest_inline: usize,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A request; its bytes are in [`Worker::payload`].
    Request(Request),
    /// Nothing yet: a signal came.
    Signal,
}

impl Worker {
    /// Takes up an invitation.
    ///
    /// # Errors
    /// If the memory is not what it should be, or cannot be mapped.
    pub fn join(invited: Invited) -> Result<Self> {
        let segment = Segment::adopt(invited.channel)?;
        let pool = Segment::adopt(invited.pool)?;
        let length = usize::try_from(segment.length()?).map_err(std::io::Error::other)?;
        let channel = Mapped::new(segment.map(0, length)?);
        let watch_words = Mapped::new(pool.map(0, WATCH_BYTES)?);
        let end = WorkerEnd::open(channel.clone()).map_err(std::io::Error::other)?;
        let shape = end.shape();
        let same = Segment::adopt(segment.as_fd().try_clone_to_owned()?)?;
        let page = Oversight::new(channel.clone());
        page.set_pid(std::process::id());
        Ok(Self {
            end,
            page,
            segment: same,
            channel,
            watch: Watch::new(watch_words.clone()),
            watch_words,
            driver: WakeUp::adopt(invited.wake),
            requests: BlockReader::new(pool),
            results: BlockWriter::new(segment, shape.bytes() as u64),
            spinner: Spinner::new(spin::budget()),
            payload: Vec::new(),
            longest_inline: shape.longest_inline(),
        })
    }

    /// Takes up the invitation that [`SpawnProgram`](crate::starter::SpawnProgram) sends to a
    /// program's standard input.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_stdin() -> Result<Self> {
        let link = Link::adopt(std::io::stdin().as_fd().try_clone_to_owned()?);
        let message = link.receive(false)?;
        let message = message.ok_or_else(|| std::io::Error::other("the owner has gone"))?;
        Self::join(Invited::from_message(message)?)
    }

    /// Serves until the pool says stop, for Rust programs: `run` gets a callable's bytes and a
    /// payload, and gives the result's bytes or the error's.
    ///
    /// # Errors
    /// If the channel is corrupt.
    pub fn serve(
        mut self,
        mut run: impl FnMut(&[u8], &[u8]) -> std::result::Result<Vec<u8>, Vec<u8>>,
    ) -> Result<()> {
        let mut callables = vec![Vec::new(); wire::SLOTS + wire::FILTERS];
        loop {
            let Next::Request(request) = self.wait_next()? else { continue };
            let slot = wire::slot(request.aux);
            match request.kind {
                wire::TASK => {
                    if request.aux & wire::OVERSEEN != 0 {
                        self.page.begin(request.position, clock::now());
                    }
                    let start = Instant::now();
                    let (kind, answer) = match run(&callables[slot], &self.payload) {
                        Ok(result) => (wire::RESULT, result),
                        Err(error) => (wire::FAILURE, error),
                    };
                    let nanoseconds = start.elapsed().as_nanos() as u64;
                    self.page.end();
                    self.publish(kind, request.id, nanoseconds, &[&answer])?;
                }
                wire::DEFINE => callables[slot] = self.payload.clone(),
                wire::SETUP => self.publish(wire::READY, 0, 0, &[])?,
                wire::STOP => return Ok(()),
                _ => return Err(std::io::Error::other("a request of an unknown kind")),
            }
        }
    }

    /// What the owner of tasks with limits must know, and how it interrupts them. Whoever serves
    /// requests by hand says there when one that is overseen begins and ends.
    #[must_use]
    pub fn oversight(&self) -> Oversight<Mapped> {
        self.page.clone()
    }

    /// Where to write down the stacks of this process, right before it ends for that.
    ///
    /// # Errors
    /// If there is no descriptor left, or no `/proc`.
    pub fn stacks(&self) -> Result<OwnedFd> {
        self.segment.writer_at(wire::STACKS)
    }

    /// The bytes of the request that came last.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Waits for the next request and begins it.
    ///
    /// # Errors
    /// If the channel is corrupt; the worker should end then.
    pub fn wait_next(&mut self) -> Result<Next> {
        loop {
            if let Some(request) = self.take()? {
                return Ok(Next::Request(request));
            }
            let end = &self.end;
            if self.spinner.spin(&self.watch, || end.has_request()) {
                continue;
            }
            if self.sleep(|worker| worker.end.has_request()) == Woken::Signal {
                return Ok(Next::Signal);
            }
        }
    }

    /// The next request, if there is one now.
    ///
    /// # Errors
    /// As [`wait_next`](Self::wait_next).
    pub fn try_next(&mut self) -> Result<Option<Request>> {
        self.take()
    }

    fn take(&mut self) -> Result<Option<Request>> {
        loop {
            match self.end.take(&mut self.payload).map_err(std::io::Error::other)? {
                Some(request) if request.kind == wire::FREED => {
                    self.results.take_back(request.aux);
                }
                Some(request) => {
                    if request.in_block {
                        let description = std::mem::take(&mut self.payload);
                        self.requests.read(&description, &mut self.payload)?;
                    }
                    return Ok(Some(request));
                }
                None => return Ok(None),
            }
        }
    }

    /// Sleeps until the bell rings, unless `ready` says that there is no need.
    fn sleep(&mut self, ready: impl Fn(&mut Self) -> bool) -> Woken {
        let bell = self.end.prepare_sleep();
        let woken = if ready(self) {
            Woken::Maybe
        } else {
            futex::wait(self.channel.futex_word(AT_BELL), bell as u32, None)
        };
        self.end.wake();
        woken
    }

    /// Publishes an answer and wakes whoever needs to know. If the owner has left no room for
    /// it, waits until it has.
    ///
    /// # Errors
    /// If the channel is corrupt, or there is no memory for a large answer; nothing has been
    /// published then, and a shorter answer can be.
    pub fn publish(&mut self, kind: u8, id: u64, aux: u64, parts: &[&[u8]]) -> Result<()> {
        while !self.publish_now(kind, id, aux, parts)? {
            // a signal is looked at by the caller, after the answer is out
            self.sleep(|worker| !worker.end.responses_pile_up().unwrap_or(false));
        }
        Ok(())
    }

    /// Publishes an answer if there is room for it now; `false` if not.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_now(&mut self, kind: u8, id: u64, aux: u64, parts: &[&[u8]]) -> Result<bool> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let pushed = if length <= self.longest_inline {
            self.end.publish(kind, id, aux, parts)
        } else {
            let block = self.results.put(parts)?;
            let pushed = self.end.publish(kind | IN_BLOCK, id, aux, &[&block.to_bytes()]);
            if pushed != Ok(Ok(())) {
                self.results.take_back(block.offset);
            }
            pushed
        };
        let published = pushed.map_err(std::io::Error::other)? != Err(Full);
        let piled_up = self.end.responses_pile_up().map_err(std::io::Error::other)?;
        // another try is the driver's to arrange, whoever else waits for what
        let pressing = piled_up || !published || kind == wire::AGAIN;
        match self.watch.after_publish(!self.end.has_request(), pressing) {
            Wake::Nobody => {}
            Wake::Leader => {
                futex::wake(self.watch_words.futex_word(watch::AT_BELL), 1);
            }
            Wake::Driver => self.driver.ring(),
        }
        Ok(published)
    }
}
