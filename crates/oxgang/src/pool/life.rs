//! One worker as its owner sees it: its channel, what was sent to it, what it has answered.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use oxgang_os::Result;
use oxgang_os::futex;
use oxgang_os::process::{Exit, Process};
use oxgang_os::segment::Segment;
use oxgang_shm::channel::{AT_BELL, ATTACHED, IN_BLOCK, OwnerEnd, Shape};
use oxgang_shm::ring::Full;

use crate::segment::Mapped;
use crate::store::{Blocks, Received, Returns, Stored};
use crate::supervisor::Incarnation;
use crate::task::{Body, Callable, Payload, Task, split_attached};
use crate::wire;

/// Room in the ring that is kept for the last frame: it must find its way in whatever the ring
/// holds (a ring full of tasks that were taken back, say), for nobody would try again.
const RESERVE: usize = 64;

/// A task that is at a worker.
pub(super) struct Sent {
    pub task: Task,
    /// Its frame.
    pub position: u64,
}

/// An answer: short bytes copied out, long ones where they are.
pub(super) struct Answer {
    pub kind: u8,
    pub id: u64,
    pub aux: u64,
    pub body: Body,
}

/// Why a worker's memory cannot be worked with any more.
pub(super) type Spoilt = std::io::Error;

/// One incarnation.
pub(super) struct Life {
    pub incarnation: Incarnation,
    end: OwnerEnd<Mapped>,
    words: Mapped,
    segment: Segment,
    results: Arc<Blocks>,
    /// Result blocks that nobody looks at any more, from whoever dropped them.
    returns: Arc<Returns>,
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
    /// Tasks sent to it and not taken back.
    pub accepted: u64,
    /// Blocks of callables that it may not have read yet, by their frames.
    callables: Vec<(u64, Arc<Stored>)>,
    /// Blocks of tasks that it has answered, which something there still looks at.
    kept: Vec<Arc<Stored>>,
    /// Result blocks to give back when there is room to say so.
    owed: Vec<u64>,
    stop_owed: bool,
}

impl Life {
    pub fn new(incarnation: Incarnation, setup: &Payload) -> Result<Self> {
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
            words,
            segment,
            results,
            returns: Arc::default(),
            sent: VecDeque::new(),
            slots: vec![0; wire::SLOTS],
            process: None,
            exit: Exit::Unknown,
            ready: false,
            retiring: false,
            given_up: false,
            accepted: 0,
            callables: Vec::new(),
            kept: Vec::new(),
            owed: Vec::new(),
            stop_owed: false,
        })
    }

    pub fn channel(&self) -> &Segment {
        &self.segment
    }

    pub fn seems_asleep(&self) -> bool {
        self.end.seems_asleep()
    }

    /// Whether the worker has yet to be sent this callable.
    pub fn lacks(&self, callable: &Callable) -> bool {
        self.slots[callable.id as usize % wire::SLOTS] != callable.id
    }

    /// Sends a task, and before it its callable if the worker lacks it, which must have been
    /// settled (so must the task's own payload). Gives the task back if there is no room now, or
    /// the worker had to be given up.
    pub fn send(&mut self, task: Task, callable: Option<&Payload>) -> Option<Task> {
        let slot = task.callable.id as usize % wire::SLOTS;
        if let Some(callable) = callable {
            let id = task.callable.id;
            let Ok(position) = self.push(wire::DEFINE, id, slot as u64, callable) else {
                return Some(task);
            };
            self.slots[slot] = id;
            self.callables.extend(callable.blocks().map(|block| (position, block.clone())));
        }
        match self.push(wire::TASK, task.id, slot as u64, &task.payload) {
            Ok(position) => {
                self.accepted += 1;
                self.sent.push_back(Sent { task, position });
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
            sent.task.payload.attached.iter().find(|block| block.block().offset == offset)
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
            let (attached, end) = split_attached(&body.inline, &self.results)?;
            let received = attached.into_iter().map(|block| Arc::new(self.receive(block)));
            body.attached = received.collect();
            body.inline.drain(..end);
        }
        if frame.kind & IN_BLOCK != 0 {
            body.block = Some(self.receive(self.results.find(&body.inline)?));
        }
        let kind = frame.kind & !(IN_BLOCK | ATTACHED);
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

    pub fn kill(&self) {
        if let Some(process) = &self.process {
            // the only refusal left is a process that we may not signal, which we started
            let killed = process.kill();
            debug_assert!(killed.is_ok());
        }
    }
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
        let mut life = Life::new(FIRST_INCARNATION, &Payload::default()).unwrap();
        for id in 1..=3 {
            assert!(life.send(task(id), None).is_none());
        }
        let head = 256; // of the requests, as the channel lays them out
        life.words.store(head, 1 << 50, Relaxed);
        assert_eq!(life.take_back(3).len(), 0, "nobody can tell what has begun");
        assert!(life.retiring && life.sent.len() == 3);
        let mut filled = 3;
        let unsent = loop {
            // the position is looked at when the ring seems full
            filled += 1;
            if let Some(task) = life.send(task(filled), None) {
                break task;
            }
        };
        assert_eq!((unsent.id, life.sent.len() as u64), (filled, filled - 1));
    }
}
