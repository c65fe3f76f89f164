//! Everything between an owner and one worker: a ring each way, and the worker's bell.
//!
//! A channel belongs to one incarnation of one worker. It is made before the worker starts,
//! and given up when the worker ends, whatever state it is in: nothing in it is ever repaired.
//!
//! # A task's way, step by step, and what a death after each step means
//!
//! | step | by | a worker's death after it |
//! |---|---|---|
//! | push the frame, `READY` | owner | the task has not begun: it goes to another worker |
//! | claim: state word becomes the incarnation | worker | not begun, as before |
//! | read the payload | worker | not begun |
//! | begin: `head` moves past the frame | worker | the task is lost |
//! | run it | worker | lost |
//! | write the response frame | worker | lost: it is not published |
//! | publish: `tail` of the responses moves | worker | the task is done |
//! | wake the owner, if it sleeps | worker | done; the owner hears of the death and looks |
//!
//! So the owner needs to know only what it sent (its own memory) and two positions. Begun and
//! not answered means lost; not begun means free to run elsewhere.
//! `tests/crash_points.rs` stops a worker after every single step and checks this table.
//!
//! # Falling asleep and waking
//!
//! The worker stores `asleep`, fences, looks once more, and waits on `bell`; the owner
//! publishes, fences, and rings if it reads `asleep`. With the two fences one of them sees the
//! other. Release and acquire alone lose wake-ups; `tests/loom.rs` shows that they do.
//!
//! Tasks with limits use some words more: see [`oversight`](crate::oversight).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::ring::{Consumer, FIRST_INCARNATION, Frame, Full, Producer, RingAt};
use crate::{Corrupt, Words};

/// "oxgangch" and the layout's version: two versions of oxgang never share a channel.
const MAGIC: u64 = 0x6f78_6761_6e67_6301;

const AT_MAGIC: usize = 0;
const AT_SHAPE: usize = 8;
const AT_INCARNATION: usize = 16;
const AT_HELLO: usize = 24;
/// Word that the worker waits on.
pub const AT_BELL: usize = 640;
const AT_ASLEEP: usize = 648;
/// The rings' data starts here; the positions before it have a cache line pair each.
const AT_DATA: usize = 4096;

/// Set in a frame's kind if the payload is in a block of the arena and the frame holds only
/// its description.
pub const IN_BLOCK: u8 = 0x80;

/// Set in a frame's kind if blocks belong to it: the frame begins with their descriptions.
pub const ATTACHED: u8 = 0x40;

/// Sizes of a channel's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of request data, a multiple of 4096.
    pub requests: u32,
    /// Bytes of response data, a multiple of 4096.
    pub responses: u32,
}

impl Shape {
    /// 256 KiB each way.
    pub const STANDARD: Self = Self { requests: 1 << 18, responses: 1 << 18 };

    /// Bytes of memory that a channel takes; blocks may follow from there.
    #[must_use]
    pub const fn bytes(self) -> usize {
        AT_DATA + self.requests as usize + self.responses as usize
    }

    fn rings(self) -> (RingAt, RingAt) {
        let requests =
            RingAt { tail: 128, head: 256, data: AT_DATA, capacity: self.requests as usize };
        let responses = RingAt {
            tail: 384,
            head: 512,
            data: AT_DATA + self.requests as usize,
            capacity: self.responses as usize,
        };
        (requests, responses)
    }

    /// The longest payload that goes into a frame; longer ones go into a block.
    #[must_use]
    pub fn longest_inline(self) -> usize {
        let (requests, responses) = self.rings();
        requests.longest_payload().min(responses.longest_payload()) / 2
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct OwnerEnd<W> {
    words: W,
    /// Frames to the worker.
    pub requests: Producer<W>,
    /// Frames from the worker.
    pub responses: Consumer<W>,
}

impl<W: Words + Clone> OwnerEnd<W> {
    /// Makes a channel in zeroed memory.
    ///
    /// # Panics
    /// If the memory is smaller than the shape, or the incarnation is below
    /// [`FIRST_INCARNATION`].
    pub fn create(words: W, shape: Shape, incarnation: u64) -> Self {
        assert!(words.len() >= shape.bytes() && incarnation >= FIRST_INCARNATION);
        let (requests, responses) = shape.rings();
        words.store(
            AT_SHAPE,
            u64::from(shape.requests) << 32 | u64::from(shape.responses),
            Relaxed,
        );
        words.store(AT_INCARNATION, incarnation, Relaxed);
        words.store(AT_MAGIC, MAGIC, Release);
        Self {
            requests: Producer::new(words.clone(), requests),
            responses: Consumer::new(words.clone(), responses),
            words,
        }
    }

    /// Whether the worker has come up.
    pub fn greeted(&self) -> bool {
        self.words.load(AT_HELLO, Acquire) != 0
    }

    /// Whether the worker sleeps, so that a publish needs a ring. A hint, without a fence.
    pub fn seems_asleep(&self) -> bool {
        self.words.load(AT_ASLEEP, Relaxed) != 0
    }

    /// To be called after a publish, or after making room: whether the worker's bell must be
    /// rung. If so it has been moved on, and whoever waits on [`AT_BELL`] must be woken.
    pub fn ring_needed(&self) -> bool {
        // sync: fence here -> fence in prepare_sleep
        self.words.fence();
        if self.words.load(AT_ASLEEP, Relaxed) == 0 {
            return false;
        }
        self.words.fetch_add(AT_BELL, 1);
        true
    }
}

/// What a worker found in its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What it is, without [`IN_BLOCK`] and [`ATTACHED`].
    pub kind: u8,
    /// Whether the payload that was read describes a block.
    pub in_block: bool,
    /// Whether the payload that was read begins with descriptions of blocks.
    pub attached: bool,
    /// Of the task.
    pub id: u64,
    /// A second number.
    pub aux: u64,
    /// Of its frame: no other request of this channel has it.
    pub position: u64,
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd<W> {
    words: W,
    shape: Shape,
    incarnation: u64,
    requests: Consumer<W>,
    responses: Producer<W>,
    passed_over: bool,
}

impl<W: Words + Clone> WorkerEnd<W> {
    /// Opens the channel that an owner made, and greets.
    ///
    /// # Errors
    /// If the memory holds no channel of this version.
    pub fn open(words: W) -> Result<Self, Corrupt> {
        if words.len() < AT_DATA || words.load(AT_MAGIC, Acquire) != MAGIC {
            return Err(Corrupt("no channel here, or another version's"));
        }
        let packed = words.load(AT_SHAPE, Relaxed);
        let shape = Shape { requests: (packed >> 32) as u32, responses: packed as u32 };
        let whole = |bytes: u32| bytes > 0 && bytes.is_multiple_of(4096);
        if !whole(shape.requests) || !whole(shape.responses) || words.len() < shape.bytes() {
            return Err(Corrupt("channel longer than its memory"));
        }
        let incarnation = words.load(AT_INCARNATION, Relaxed);
        if incarnation < FIRST_INCARNATION {
            return Err(Corrupt("no incarnation"));
        }
        let (requests, responses) = shape.rings();
        words.store(AT_HELLO, incarnation, Release);
        Ok(Self {
            requests: Consumer::new(words.clone(), requests),
            responses: Producer::new(words.clone(), responses),
            words,
            shape,
            incarnation,
            passed_over: false,
        })
    }

    /// The sizes that the owner chose.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Takes the next request that is still wanted: claims it, copies its payload into
    /// `payload` (cleared first) and begins it.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn take(&mut self, payload: &mut Vec<u8>) -> Result<Option<Request>, Corrupt> {
        while let Some(frame) = self.requests.peek()? {
            let mine = self.requests.claim(&frame, self.incarnation);
            if mine {
                payload.clear();
                self.requests.read(&frame, payload);
            }
            self.requests.advance(&frame);
            if mine {
                return Ok(Some(request_of(&frame)));
            }
            self.passed_over = true;
        }
        Ok(None)
    }

    /// Whether it has passed over requests that the owner had taken back, since this was asked
    /// last: they took room till then, and no response tells the owner that they do not any more.
    pub fn has_passed_over(&mut self) -> bool {
        std::mem::take(&mut self.passed_over)
    }

    /// Whether requests wait. One load.
    pub fn has_request(&self) -> bool {
        self.requests.has_more()
    }

    /// Publishes a response.
    ///
    /// # Errors
    /// The inner error: no room now; sleep until the owner has made some.
    pub fn publish(
        &mut self,
        kind: u8,
        id: u64,
        aux: u64,
        parts: &[&[u8]],
    ) -> Result<Result<(), Full>, Corrupt> {
        Ok(self.responses.push(kind, id, aux, parts)?.map(|_| ()))
    }

    /// Whether more than half of the room for responses is taken.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn responses_pile_up(&mut self) -> Result<bool, Corrupt> {
        let half = self.shape.responses as usize / 2;
        // the owner's position is on a line that it writes: it is read only if the last look
        // at it does not settle the question
        Ok(self.responses.used_at_most() > half && self.responses.used()? > half)
    }

    /// Announces sleep, and gives what the bell shows. Look for work once more after this;
    /// then wait while [`AT_BELL`] shows that value, or not at all; then [`wake`](Self::wake).
    pub fn prepare_sleep(&self) -> u64 {
        let bell = self.words.load(AT_BELL, Acquire);
        self.words.store(AT_ASLEEP, 1, Relaxed);
        // sync: fence in ring_needed -> fence here
        self.words.fence();
        bell
    }

    /// Ends the sleep that was announced.
    pub fn wake(&self) {
        self.words.store(AT_ASLEEP, 0, Relaxed);
    }
}

fn request_of(frame: &Frame) -> Request {
    Request {
        kind: frame.kind & !(IN_BLOCK | ATTACHED),
        in_block: frame.kind & IN_BLOCK != 0,
        attached: frame.kind & ATTACHED != 0,
        id: frame.id,
        aux: frame.aux,
        position: frame.position,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::HeapWords;

    const SMALL: Shape = Shape { requests: 4096, responses: 4096 };

    #[test]
    fn a_task_goes_there_and_its_answer_back() {
        let words = Arc::new(HeapWords::new(SMALL.bytes()));
        let mut owner = OwnerEnd::create(words.clone(), SMALL, 17);
        assert!(!owner.greeted());
        let mut worker = WorkerEnd::open(words).unwrap();
        assert!(owner.greeted());
        owner.requests.push(1 | IN_BLOCK, 7, 3, &[b"abc"]).unwrap().unwrap();
        let mut payload = vec![9];
        let request = worker.take(&mut payload).unwrap().unwrap();
        let expected =
            Request { kind: 1, in_block: true, attached: false, id: 7, aux: 3, position: 0 };
        assert_eq!(request, expected);
        assert_eq!(payload, b"abc");
        assert_eq!(worker.take(&mut payload).unwrap(), None);
        worker.publish(2, 7, 0, &[b"d", b"ef"]).unwrap().unwrap();
        let frame = owner.responses.peek().unwrap().unwrap();
        let mut back = Vec::new();
        owner.responses.read(&frame, &mut back);
        assert_eq!((frame.kind, frame.id, back.as_slice()), (2, 7, &b"def"[..]));
    }

    #[test]
    fn the_bell_is_rung_only_for_a_sleeper() {
        let words = Arc::new(HeapWords::new(SMALL.bytes()));
        let owner = OwnerEnd::create(words.clone(), SMALL, 17);
        let worker = WorkerEnd::open(words.clone()).unwrap();
        assert!(!owner.ring_needed());
        let seen = worker.prepare_sleep();
        assert!(owner.ring_needed());
        assert_ne!(words.load(AT_BELL, Relaxed), seen);
        worker.wake();
        assert!(!owner.ring_needed());
    }

    #[test]
    fn strangers_are_refused() {
        let words = Arc::new(HeapWords::new(SMALL.bytes()));
        assert!(WorkerEnd::open(words.clone()).is_err(), "zeroes");
        OwnerEnd::create(words.clone(), SMALL, 17);
        words.store(AT_SHAPE, u64::MAX, Relaxed);
        assert!(WorkerEnd::open(words.clone()).is_err(), "shape");
        words.store(AT_SHAPE, 4096 << 32 | 4096, Relaxed);
        words.store(AT_INCARNATION, 1, Relaxed);
        assert!(WorkerEnd::open(words).is_err(), "incarnation");
    }
}
