//! The worker's side: the next request, the publishing of answers, sleeping in between.
//!
//! One thread uses it. Every wait returns when a signal comes, so that the language above can
//! run its handlers and call again.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oxgang_os::clock;
use oxgang_os::event::WakeUp;
use oxgang_os::futex;
use oxgang_os::heap;
use oxgang_os::link::Link;
use oxgang_os::segment::Segment;
use oxgang_os::{Result, futex::Woken};
use oxgang_shm::arena::Block;
use oxgang_shm::channel::{AT_BELL, Request, WorkerEnd};
use oxgang_shm::oversight::Oversight;
use oxgang_shm::ring::Full;
use oxgang_shm::watch::{self, WATCH_BYTES, Wake, Watch};

use crate::region;
use crate::segment::Mapped;
use crate::spin::{self, Spinner};
use crate::starter::Invited;
use crate::store::{Blocks, Received, Returns, Store, Stored};
use crate::task::{Payload, copy_part, split_attached};
use crate::wire;

/// After this long without a request free memory goes back to the kernel.
const IDLE: Duration = Duration::from_secs(1);

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
    requests: Arc<Blocks>,
    results: Arc<Store>,
    /// What the owner was sent and has not given back.
    lent: HashMap<u64, Vec<Arc<Stored>>>,
    /// Blocks of the owner's that nothing looks at any more.
    returns: Arc<Returns>,
    /// Of these, what the owner has yet to be told.
    unsaid: Vec<u64>,
    regions: Vec<region::Address>,
    spinner: Spinner,
    payload: Vec<u8>,
    /// Where the last request's bytes are, if not in `payload`.
    block: Option<Block>,
    attached: Vec<Arc<Received>>,
    /// Since it was idle for so long that it gave back what it did not need.
    worked: bool,
    /// Requests were taken out that are not answered.
    made_room: bool,
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
        heap::keep_freed();
        Ok(Self {
            end,
            page,
            segment: same,
            channel,
            watch: Watch::new(watch_words.clone()),
            watch_words,
            driver: WakeUp::adopt(invited.wake),
            requests: Blocks::new(pool),
            results: Store::new(segment, shape.bytes() as u64),
            lent: HashMap::new(),
            returns: Arc::default(),
            unsaid: Vec::new(),
            regions: Vec::new(),
            spinner: Spinner::new(spin::budget()),
            payload: Vec::new(),
            block: None,
            attached: Vec::new(),
            worked: false,
            made_room: false,
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
                    self.fetch_payload()?;
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
                    self.publish(kind, request.id, nanoseconds, &mut answer.into())?;
                }
                wire::DEFINE => callables[slot] = self.fetch_payload()?.to_vec(),
                wire::SETUP => self.publish(wire::READY, 0, 0, &mut Payload::default())?,
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

    /// How many bytes the last request has.
    #[must_use]
    pub fn payload_length(&self) -> usize {
        self.block.map_or(self.payload.len(), |block| block.length as usize)
    }

    /// Copies a part of the last request's bytes out.
    ///
    /// # Errors
    /// If they are fewer, or their memory cannot be mapped.
    pub fn read_payload(&self, at: usize, into: &mut [u8]) -> Result<()> {
        match &self.block {
            Some(block) => self.requests.read(block, at, into),
            None => copy_part(&self.payload, at, into),
        }
    }

    /// The bytes of the last request, fetched from their block if they are in one.
    ///
    /// # Errors
    /// If their memory cannot be mapped.
    pub fn fetch_payload(&mut self) -> Result<&[u8]> {
        if let Some(block) = self.block.take() {
            self.payload.clear();
            let length = block.length as usize;
            self.payload.try_reserve_exact(length).map_err(std::io::Error::other)?;
            self.payload.resize(length, 0);
            self.requests.read(&block, 0, &mut self.payload)?;
        }
        Ok(&self.payload)
    }

    /// The bytes of the last request, if they are short enough to have come without a block.
    #[must_use]
    pub fn inline_payload(&self) -> Option<&[u8]> {
        self.block.is_none().then_some(&self.payload)
    }

    /// The blocks that came with the last request, until it is answered.
    #[must_use]
    pub fn attached(&self) -> &[Arc<Received>] {
        &self.attached
    }

    /// Where long bytes of answers are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.results
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
            self.tell_of_room();
            let end = &self.end;
            if self.spinner.spin(&self.watch, || end.has_request()) {
                continue;
            }
            let limit = (self.worked || self.results.has_slack()).then_some(IDLE);
            match self.sleep(limit, |worker| worker.end.has_request()) {
                Woken::Signal => return Ok(Next::Signal),
                Woken::TimeUp => {
                    self.worked = false;
                    heap::give_back();
                    let _kept = self.results.trim(); // what cannot be given back stays warm
                }
                Woken::Maybe => {}
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
                    self.made_room = true;
                    self.take_back(request.aux);
                }
                Some(request) => {
                    self.worked = true;
                    self.attached.clear();
                    if request.attached {
                        let receive =
                            |block| Received::new(&self.requests, block, &self.returns, false);
                        let (blocks, end) =
                            split_attached(&self.payload, &self.requests, receive, |_| None)?;
                        self.payload.drain(..end);
                        self.attached = blocks;
                    }
                    self.block = if request.in_block {
                        Some(self.requests.find(&self.payload)?)
                    } else {
                        None
                    };
                    return Ok(Some(request));
                }
                None => return Ok(None),
            }
        }
    }

    fn take_back(&mut self, offset: u64) {
        if let Some(lent) = self.lent.get_mut(&offset) {
            lent.pop();
            if lent.is_empty() {
                self.lent.remove(&offset);
            }
        }
    }

    /// Sleeps until the bell rings or time is up, unless `ready` says that there is no need.
    fn sleep(&mut self, limit: Option<Duration>, ready: impl Fn(&mut Self) -> bool) -> Woken {
        let bell = self.end.prepare_sleep();
        let woken = if ready(self) {
            Woken::Maybe
        } else {
            futex::wait(self.channel.futex_word(AT_BELL), bell as u32, limit)
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
    pub fn publish(&mut self, kind: u8, id: u64, aux: u64, answer: &mut Payload) -> Result<()> {
        while !self.publish_now(kind, id, aux, answer)? {
            // a signal is looked at by the caller, after the answer is out
            self.sleep(None, |worker| !worker.end.responses_pile_up().unwrap_or(false));
        }
        Ok(())
    }

    /// Publishes an answer if there is room for it now; `false` if not. A task's answer says
    /// first what of the task's blocks something still looks at.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_now(
        &mut self,
        kind: u8,
        id: u64,
        aux: u64,
        answer: &mut Payload,
    ) -> Result<bool> {
        answer.settle(&self.results)?;
        let published = self.say_what_is_kept(id)?
            && self.say_what_is_released()?
            && self.say_which_regions(id)?
            && {
                let pushed =
                    answer.frame(kind, |kind, parts| self.end.publish(kind, id, aux, parts));
                pushed.map_err(std::io::Error::other)? != Err(Full)
            };
        if published {
            for stored in answer.blocks() {
                self.lent.entry(stored.block().offset).or_default().push(stored.clone());
            }
        }
        let piled_up = self.end.responses_pile_up().map_err(std::io::Error::other)?;
        // another try is the driver's to arrange, whoever else waits for what
        let pressing = piled_up || !published || kind == wire::AGAIN;
        self.made_room = false;
        self.end.has_passed_over();
        self.wake_owner(!self.end.has_request(), pressing);
        Ok(published)
    }

    /// There is nothing more to do: if requests were taken out that are not answered, which may have
    /// filled the ring, the owner may wait for just that room, and nothing else tells it.
    pub(crate) fn tell_of_room(&mut self) {
        if self.end.has_passed_over() | std::mem::take(&mut self.made_room) {
            self.wake_owner(true, false);
        }
    }

    fn wake_owner(&self, dry: bool, pressing: bool) {
        match self.watch.after_publish(dry, pressing) {
            Wake::Nobody => {}
            Wake::Leader => {
                futex::wake(self.watch_words.futex_word(watch::AT_BELL), 1);
            }
            Wake::Driver => self.driver.ring(),
        }
    }

    /// `false`: there is no room for it now.
    fn say_what_is_kept(&mut self, task: u64) -> Result<bool> {
        while let Some(received) = self.attached.last() {
            // nobody else holds it, so nobody can begin to
            if Arc::strong_count(received) > 1 {
                if !self.say(wire::KEEP, task, received.offset())? {
                    return Ok(false);
                }
                // from here on its end is told; it may be now
                self.attached.last().inspect(|received| received.keep());
            }
            self.attached.pop();
        }
        Ok(true)
    }

    fn say_what_is_released(&mut self) -> Result<bool> {
        self.unsaid.extend(self.returns.take());
        while let Some(&offset) = self.unsaid.last() {
            if !self.say(wire::RELEASE, 0, offset)? {
                return Ok(false);
            }
            self.unsaid.pop();
        }
        Ok(true)
    }

    /// Regions that belong to the next answer; see [`wire::REGION`].
    pub fn add_regions(&mut self, regions: Vec<region::Address>) {
        self.regions.extend(regions);
    }

    fn say_which_regions(&mut self, task: u64) -> Result<bool> {
        while let Some(&address) = self.regions.last() {
            let bytes = region::to_bytes(address);
            let said = self.end.publish(wire::REGION, task, 0, &[&bytes]);
            if said.map_err(std::io::Error::other)?.is_err() {
                return Ok(false);
            }
            self.regions.pop();
        }
        Ok(true)
    }

    fn say(&mut self, kind: u8, id: u64, aux: u64) -> Result<bool> {
        Ok(self.end.publish(kind, id, aux, &[]).map_err(std::io::Error::other)?.is_ok())
    }
}
