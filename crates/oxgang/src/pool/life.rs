//! One worker as its owner sees it: its channel, what was sent to it, what it has answered.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use oxgang_os::Result;
use oxgang_os::clock;
use oxgang_os::event::WakeUp;
use oxgang_os::futex;
use oxgang_os::process::{Exit, Process};
use oxgang_os::segment::Segment;
use oxgang_shm::channel::{AT_BELL, ATTACHED, IN_BLOCK, OwnerEnd, Shape};
use oxgang_shm::oversight::{self, Oversight};
use oxgang_shm::ring::Full;

use crate::limits::{Asking, Cause, Limits, Moment};
use crate::region::{self, Region};
use crate::segment::Mapped;
use crate::store::{Blocks, Received, Returns, Stored};
use crate::supervisor::Incarnation;
use crate::task::{Body, Callable, Payload, Task, split_attached};
use crate::wire;

/// Room in the ring that is kept for the last frame: it must find its way in whatever the ring
/// holds (a ring full of tasks that were taken back, say), for nobody would try again.
const RESERVE: usize = 64;
/// The most that is read of a worker's stacks.
const STACKS_BYTES: usize = 1 << 18;

/// A task that is at a worker.
pub(super) struct Sent {
    pub task: Task,
    /// Its frame.
    pub position: u64,
    /// If it has options.
    pub overseen: Option<Box<Overseen>>,
}

/// What is known of a task with options at its worker.
pub(super) struct Overseen {
    sent: Moment,
    /// When it began: no later than this.
    began: Option<Moment>,
    pub limits: Limits,
}

/// Why a worker is on its way out.
pub(super) struct Ending {
    /// The task that it is for.
    pub position: u64,
    pub cause: Cause,
    /// If it has not ended by then, it is killed.
    pub killed_at: Moment,
}

/// An answer: short bytes copied out, long ones where they are.
pub(super) struct Answer {
    pub kind: u8,
    pub id: u64,
    pub aux: u64,
    pub body: Body,
}

/// What a task needs beside its payload and its worker lacks: a slot, and what is to be in it.
pub(super) type Lacking = [Option<(usize, u64, Payload)>; 2];

/// Why a worker's memory cannot be worked with any more.
pub(super) type Spoilt = std::io::Error;

/// One incarnation.
pub(super) struct Life {
    pub incarnation: Incarnation,
    end: OwnerEnd<Mapped>,
    page: Oversight<Mapped>,
    words: Mapped,
    segment: Segment,
    results: Arc<Blocks>,
    /// Result blocks that nobody looks at any more, from whoever dropped them.
    pub returns: Arc<Returns>,
    /// In the order in which they were sent.
    pub sent: VecDeque<Sent>,
    /// Which callable each of the worker's slots holds.
    slots: Vec<u64>,
    pub process: Option<Arc<Process>>,
    pub exit: Exit,
    /// Ready for tasks, as it said itself.
    pub ready: bool,
    /// Takes no more tasks.
    pub retiring: bool,
    /// Ended by us for what it wrote, not told to end.
    pub given_up: bool,
    /// Ended by us for a task's sake.
    pub ending: Option<Ending>,
    /// Its task is over its time: nothing is queued behind it.
    pub overdue: bool,
    /// To be killed as soon as there is a process to kill.
    pub doomed: bool,
    /// The most memory that it ever had, if that was looked at.
    pub peak: Option<u64>,
    /// Blocks that it may still read, of tasks that have been told their end.
    pub held: Vec<Arc<Stored>>,
    /// Tasks sent to it and not taken back.
    pub accepted: u64,
    /// Blocks of callables that it may not have read yet, by their frames.
    callables: Vec<(u64, Arc<Stored>)>,
    /// Regions of the answer that comes next.
    regions: Vec<Arc<Region>>,
    /// Blocks of tasks that it has answered, which something there still looks at.
    kept: Vec<Arc<Stored>>,
    /// Result blocks to give back when there is room to say so.
    owed: Vec<u64>,
    stop_owed: bool,
}

impl Life {
    pub fn new(incarnation: Incarnation, setup: &Payload, bell: &Arc<WakeUp>) -> Result<Self> {
        let shape = Shape::STANDARD;
        let segment = Segment::create("oxgang channel", shape.bytes() as u64)?;
        let words = Mapped::new(segment.map(0, shape.bytes())?);
        let mut end = OwnerEnd::create(words.clone(), shape, incarnation);
        let pushed = setup.frame(wire::SETUP, |kind, parts| end.requests.push(kind, 0, 0, parts));
        pushed.map_err(Spoilt::other)?.map_err(|Full| Spoilt::other("setup too long"))?;
        let results = Blocks::new(Segment::adopt(segment.as_fd().try_clone_to_owned()?)?);
        Ok(Self {
            incarnation,
            end,
            page: Oversight::new(words.clone()),
            words,
            segment,
            results,
            returns: Returns::with_bell(bell.clone()),
            sent: VecDeque::new(),
            slots: vec![0; wire::SLOTS + wire::FILTERS],
            process: None,
            exit: Exit::Unknown,
            ready: false,
            retiring: false,
            given_up: false,
            ending: None,
            overdue: false,
            doomed: false,
            peak: None,
            held: Vec::new(),
            accepted: 0,
            callables: Vec::new(),
            kept: Vec::new(),
            regions: Vec::new(),
            owed: Vec::new(),
            stop_owed: false,
        })
    }

    /// Its memory, for a test that plays the worker.
    #[cfg(test)]
    pub fn words(&self) -> Mapped {
        self.words.clone()
    }

    pub fn channel(&self) -> &Segment {
        &self.segment
    }

    /// Its process number: by its own word, as long as nobody else has given one.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.pid).or_else(|| self.page.pid())
    }

    pub fn seems_asleep(&self) -> bool {
        self.end.seems_asleep()
    }

    /// What has yet to be sent before the task.
    pub fn lacking(&self, task: &Task) -> Lacking {
        needs(task).map(|need| {
            let (slot, callable) = need.filter(|(slot, one)| self.slots[*slot] != one.id)?;
            Some((slot, callable.id, Payload::from(callable.bytes.clone())))
        })
    }

    /// Sends a task, and before it what it needs and the worker lacks. All of it must have been
    /// settled. Gives the task back if there is no room now, or the worker had to be given up.
    pub fn send(&mut self, task: Task, lacking: Lacking) -> Option<Task> {
        for (slot, id, callable) in lacking.iter().flatten() {
            let Ok(position) = self.push(wire::DEFINE, *id, *slot as u64, callable) else {
                return Some(task);
            };
            self.slots[*slot] = *id;
            self.callables.extend(callable.blocks().map(|block| (position, block.clone())));
        }
        let [function, filter] = needs(&task).map(|need| need.map_or(0, |(slot, _)| slot as u64));
        let overseen = task
            .options
            .as_ref()
            .map(|_| Box::new(Overseen { sent: clock::now(), began: None, limits: Limits::new() }));
        let flag = if overseen.is_some() { wire::OVERSEEN } else { 0 };
        let aux = function | filter << 16 | flag;
        match self.push(wire::TASK, task.id, aux, &task.payload) {
            Ok(position) => {
                self.accepted += 1;
                self.sent.push_back(Sent { task, position, overseen });
                None
            }
            Err(Full) => Some(task),
        }
    }

    fn push(
        &mut self,
        kind: u8,
        id: u64,
        aux: u64,
        payload: &Payload,
    ) -> std::result::Result<u64, Full> {
        let requests = &mut self.end.requests;
        let pushed = payload.frame(kind, |kind, parts| {
            let length = parts.iter().map(|part| part.len()).sum();
            match requests.has_room(length, RESERVE) {
                Ok(true) => requests.push(kind, id, aux, parts),
                Ok(false) => Ok(Err(Full)),
                Err(corrupt) => Err(corrupt),
            }
        });
        pushed.unwrap_or_else(|_| {
            self.give_up();
            Err(Full)
        })
    }

    /// Forgets blocks of callables that the worker has read by now.
    pub fn forget_callables_read(&mut self) {
        let Self { callables, end, .. } = self;
        callables.retain(|(position, _)| !end.requests.begun(*position).unwrap_or(false));
    }

    /// Something at the worker still looks at a block of this task; `false` if it makes that up.
    pub fn keep(&mut self, task: u64, offset: u64) -> bool {
        let sent = self.sent.iter().find(|sent| sent.task.id == task);
        let block = sent.and_then(|sent| {
            sent.task.payload.attached().find(|block| block.block().offset == offset)
        });
        self.kept.extend(block.cloned());
        block.is_some()
    }

    /// Nothing looks at a kept block any more; `false` if it makes that up.
    pub fn release(&mut self, offset: u64) -> bool {
        let at = self.kept.iter().position(|block| block.block().offset == offset);
        at.map(|at| self.kept.swap_remove(at)).is_some()
    }

    /// Wakes the worker if it sleeps.
    pub fn ring(&self) {
        if self.end.ring_needed() {
            futex::wake(self.words.futex_word(AT_BELL), 1);
        }
    }

    /// The next answer that has come.
    pub fn answer(&mut self) -> Result<Option<Answer>> {
        let Some(frame) = self.end.responses.peek().map_err(Spoilt::other)? else {
            return Ok(None);
        };
        let mut body = Body::default();
        self.end.responses.read(&frame, &mut body.inline);
        self.end.responses.advance(&frame);
        if frame.kind & ATTACHED != 0 {
            let ours = |offset| {
                let sent = self.sent.iter().find(|sent| sent.task.id == frame.id)?;
                let mut own = sent.task.payload.attached();
                own.find(|stored| stored.block().offset == offset).cloned().map(Received::back)
            };
            let theirs = |block| self.receive(block);
            let (attached, end) = split_attached(&body.inline, &self.results, theirs, ours)?;
            body.blocks.get_or_insert_default().attached = attached;
            body.inline.drain(..end);
        }
        if frame.kind & IN_BLOCK != 0 {
            let block = self.receive(self.results.find(&body.inline)?);
            body.blocks.get_or_insert_default().block = Some(block);
        }
        let kind = frame.kind & !(IN_BLOCK | ATTACHED);
        if kind == wire::REGION {
            // one that cannot be opened is missed, and named, when the answer is looked at
            let address = region::from_bytes(&body.inline);
            self.regions.extend(address.and_then(|address| Region::open(address).ok()));
        } else if !self.regions.is_empty() && !matches!(kind, wire::KEEP | wire::RELEASE) {
            body.blocks.get_or_insert_default().regions = std::mem::take(&mut self.regions);
        }
        Ok(Some(Answer { kind, id: frame.id, aux: frame.aux, body }))
    }

    fn receive(&self, block: oxgang_shm::arena::Block) -> Received {
        Received::new(&self.results, block, &self.returns, true)
    }

    pub fn has_answer(&self) -> bool {
        self.end.responses.has_more()
    }

    /// Takes the task out of what was sent. Answers come in the order of the tasks, so the
    /// first is the one, unless the worker makes things up.
    pub fn answered(&mut self, id: u64) -> Option<Sent> {
        let index = self.sent.iter().position(|sent| sent.task.id == id)?;
        self.sent.remove(index)
    }

    /// Takes back up to `count` tasks that have not begun, the last ones first.
    pub fn take_back(&mut self, count: usize) -> Vec<Sent> {
        let mut back = Vec::new();
        while back.len() < count && self.revoke(self.sent.len().wrapping_sub(1)) {
            back.extend(self.sent.pop_back());
        }
        back // what is before one that is claimed is claimed too
    }

    /// Takes back one task, if it has not begun.
    pub fn take_back_one(&mut self, id: u64) -> Option<Sent> {
        let index = self.sent.iter().position(|sent| sent.task.id == id)?;
        if self.revoke(index) { self.sent.remove(index) } else { None }
    }

    fn revoke(&mut self, index: usize) -> bool {
        let Some(sent) = self.sent.get(index) else { return false };
        let revoked = self.end.requests.revoke(sent.position).unwrap_or_else(|_| {
            self.give_up();
            false
        });
        self.accepted -= u64::from(revoked);
        revoked
    }

    /// Its memory makes no sense: it gets no more tasks and is ended; what it had is sorted out
    /// when it is dead.
    pub fn give_up(&mut self) {
        self.retiring = true;
        self.given_up = true;
        self.kill();
    }

    // -- limits --------------------------------------------------------------------------

    /// When the first of its tasks began, if that has options: by the worker's word, as far as
    /// that can be. `None`: it has not begun, or nobody watches it.
    pub fn first_began(&mut self, now: Moment) -> Option<Moment> {
        let first = self.sent.front_mut()?;
        let overseen = first.overseen.as_mut()?;
        if overseen.began.is_none() && self.end.requests.begun(first.position).unwrap_or(true) {
            overseen.began = Some(now);
        }
        let latest = overseen.began?;
        if let Some(told) = self.page.began(first.position) {
            overseen.began = Some(told.clamp(overseen.sent.min(latest), latest));
        }
        overseen.began
    }

    /// How long the task had run, if that was watched.
    pub fn ran(&self, sent: &Sent, now: Moment) -> Option<std::time::Duration> {
        let overseen = sent.overseen.as_ref()?;
        let latest = overseen.began.unwrap_or(now);
        let told = self.page.began(sent.position).unwrap_or(latest);
        let began = told.clamp(overseen.sent.min(latest), latest);
        Some(std::time::Duration::from_nanos(now.saturating_sub(began)))
    }

    /// Whether the first task can be made to raise now.
    pub fn asking(&self) -> Asking {
        let runs = self.sent.front().is_some_and(|f| self.page.began(f.position).is_some());
        // a worker says what it can do before it says that a task runs
        match self.page.skills() & oversight::SOFT != 0 {
            true if runs && self.process.is_some() => Asking::Now,
            false if runs => Asking::Never,
            _ => Asking::NotNow,
        }
    }

    /// Has the first task raise, if it still runs when the signal arrives.
    pub fn ask(&mut self, limit: std::time::Duration) {
        if let Some(first) = self.sent.front() {
            self.page.interrupt(first.position, limit.as_nanos() as u64);
            self.overdue = true;
            self.signal(oxgang_os::process::soft_signal());
        }
    }

    /// Has it write down its stacks and end; `false`: it cannot.
    pub fn dump(&self) -> bool {
        let can = self.process.is_some() && self.page.skills() & oversight::DUMP != 0;
        if can {
            self.signal(oxgang_os::process::dump_signal());
        }
        can
    }

    fn signal(&self, number: i32) {
        if let Some(process) = &self.process {
            // one that has just ended needs no signal
            let _gone = process.signal(number);
        }
    }

    /// What it has written down of its stacks; for when it has ended.
    pub fn stacks(&self) -> String {
        let bytes = self.segment.read_at(wire::STACKS, STACKS_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    // ------------------------------------------------------------------------------------

    /// Whether the task has begun; `None` if it is not here.
    pub fn has_begun(&mut self, id: u64) -> Option<bool> {
        let position = self.sent.iter().find(|sent| sent.task.id == id)?.position;
        Some(self.end.requests.begun(position).unwrap_or(true))
    }

    /// How many of the sent tasks have not begun, by the newest look.
    pub fn not_begun(&mut self) -> usize {
        let Self { end, sent, .. } = self;
        // positions grow, so the first that has not begun splits the rest off
        let begun = sent.iter().take_while(|s| end.requests.begun(s.position).unwrap_or(true));
        sent.len() - begun.count()
    }

    /// Says what is owed: blocks that are free again, and that it may end.
    pub fn settle_debts(&mut self) -> Result<()> {
        let mut said = false;
        self.owed.extend(self.returns.take());
        while let Some(&offset) = self.owed.last() {
            if !self.end.requests.has_room(0, RESERVE).map_err(Spoilt::other)? {
                break;
            }
            let pushed = self.end.requests.push(wire::FREED, 0, offset, &[]);
            if pushed.map_err(Spoilt::other)?.is_err() {
                break;
            }
            self.owed.pop();
            said = true;
        }
        // whoever stops needs no blocks any more; and the last frame always finds its reserve
        if self.stop_owed {
            let pushed = self.end.requests.push(wire::STOP, 0, 0, &[]);
            self.stop_owed = pushed.map_err(Spoilt::other)?.is_err();
            said = true;
        }
        if said {
            self.ring();
        }
        Ok(())
    }

    pub fn stop(&mut self) {
        self.retiring = true;
        self.stop_owed = true;
    }

    pub fn kill(&mut self) {
        self.doomed = true;
        if let Some(process) = &self.process {
            // the only refusal left is a process that we may not signal, which we started
            let killed = process.kill();
            debug_assert!(killed.is_ok());
        }
    }
}

/// A task's callable and what tells its errors apart, with the slots for them.
fn needs(task: &Task) -> [Option<(usize, &Arc<Callable>)>; 2] {
    let filter = task.options.as_ref().and_then(|options| options.retry_on.as_ref());
    [
        Some((task.callable.id as usize % wire::SLOTS, &task.callable)),
        filter.map(|filter| (wire::SLOTS + filter.id as usize % wire::FILTERS, filter)),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use oxgang_shm::Words;
    use oxgang_shm::ring::FIRST_INCARNATION;

    use super::*;
    use crate::task::JoinHandle;

    fn task(id: u64) -> Task {
        Task::new(id, Callable::new(vec![1]), vec![2], JoinHandle::new())
    }

    /// A worker can write anything into its memory, and must not take tasks along.
    #[test]
    fn nonsense_in_the_memory_costs_no_task() {
        let mut life =
            Life::new(FIRST_INCARNATION, &Payload::default(), &Arc::new(WakeUp::new().unwrap()))
                .unwrap();
        for id in 1..=3 {
            assert!(life.send(task(id), [None, None]).is_none());
        }
        let head = 256; // of the requests, as the channel lays them out
        life.words.store(head, 1 << 50, Relaxed);
        assert_eq!(life.take_back(3).len(), 0, "nobody can tell what has begun");
        assert!(life.retiring && life.sent.len() == 3);
        let mut filled = 3;
        let unsent = loop {
            // the position is looked at when the ring seems full
            filled += 1;
            if let Some(task) = life.send(task(filled), [None, None]) {
                break task;
            }
        };
        assert_eq!((unsent.id, life.sent.len() as u64), (filled, filled - 1));
    }
}
