//! Tasks, what becomes of them, and who is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use oxgang_os::Result;
use oxgang_shm::arena::Block;
use oxgang_shm::channel::{ATTACHED, IN_BLOCK, Shape};

use crate::region::Region;
use crate::store::{Blocks, Received, Store, Stored};
use crate::wire;

use crate::limits::{Death, TaskOptions, Tries};

/// Number of a task, unique in this process.
pub type TaskId = u64;

/// What a task runs, as bytes that the worker can turn into something callable. Sent once to
/// each worker, however many tasks use it.
#[derive(Debug)]
pub struct Callable {
    pub(crate) id: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Callable {
    /// A callable from its encoded form.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), bytes })
    }
}

/// What a task was lost by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The task that a worker had begun.
    pub task: TaskId,
    /// How that worker ended.
    pub death: Death,
    /// And those of the tries before, the first one first.
    pub earlier: Vec<Death>,
}

/// What becomes of a task. Exactly one of these.
#[derive(Debug)]
pub enum Outcome {
    /// It returned; the encoded result.
    Result(Body),
    /// It raised; the encoded error.
    Failure(Body),
    /// Its worker ended while it ran.
    Crashed(Crash),
    /// The pool cannot go on; why.
    Broken(Arc<str>),
    /// It was taken back before it began.
    Cancelled,
}

/// Bytes that came from another process, and blocks that came with them.
#[derive(Debug, Default)]
pub struct Body {
    pub(crate) inline: Vec<u8>,
    pub(crate) blocks: Option<Box<BodyBlocks>>,
}

/// What few bodies have.
#[derive(Debug, Default)]
pub(crate) struct BodyBlocks {
    /// Where the bytes are if they are long.
    pub block: Option<Received>,
    pub attached: Vec<Arc<Received>>,
    /// Open here, so that they can be found when the bytes are looked at.
    pub regions: Vec<Arc<Region>>,
}

/// A payload that goes nowhere.
impl From<Payload> for Body {
    fn from(payload: Payload) -> Self {
        Self { inline: payload.parts().concat(), ..Self::default() }
    }
}

impl Body {
    fn block(&self) -> Option<&Received> {
        self.blocks.as_ref()?.block.as_ref()
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.block().map_or(self.inline.len(), Received::length)
    }

    /// Copies a part of the bytes out.
    ///
    /// # Errors
    /// If they are fewer, or their memory cannot be mapped.
    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<()> {
        match self.block() {
            Some(block) => block.read(at, into),
            None => copy_part(&self.inline, at, into),
        }
    }

    /// The bytes, if they are short enough to have come without a block.
    #[must_use]
    pub fn inline(&self) -> Option<&[u8]> {
        self.block().is_none().then_some(&self.inline)
    }

    /// All bytes, copied.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.length()).map_err(std::io::Error::other)?;
        bytes.resize(self.length(), 0);
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn has_blocks(&self) -> bool {
        self.blocks.is_some()
    }

    /// Bytes that were passed on, and bytes of blocks that were lent with them.
    pub(crate) fn crossed(&self) -> (u64, u64) {
        let lent = self.attached().iter().map(|block| block.length() as u64).sum();
        (self.length() as u64, lent)
    }

    /// The blocks that came along, in the sender's order.
    #[must_use]
    pub fn attached(&self) -> &[Arc<Received>] {
        self.blocks.as_ref().map_or(&[], |blocks| &blocks.attached)
    }
}

/// Somebody to tell. Called with the pool's lock held: it must not block, nor call the pool.
pub trait Completion: std::any::Any + Send + Sync {
    /// Whether the task is still wanted, asked right before it is sent to a worker.
    fn wanted(&self) -> bool;

    /// The outcome. `part`: of which of the tasks that it waits for ([`Task::part`]).
    fn complete(self: Arc<Self>, part: usize, outcome: Outcome) -> Told;
}

/// Whom a completion has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nobody was to be told.
    Nobody,
    /// Everybody for whom the driver was to watch it
    /// ([`Pool::watch_one_more`](crate::Pool::watch_one_more)).
    Already,
    /// It was watched, and somebody must still be told by the driver (see
    /// [`Turn::attention`](crate::pool::Turn)).
    ByDriver,
}

/// Bytes of somebody else's, which stay where they are.
pub type Foreign = Box<dyn AsRef<[u8]> + Send + Sync>;

/// Bytes for another process, partly where they came from, so that they need not be copied to
/// stand in a row, and blocks that go along.
#[derive(Default)]
pub struct Payload {
    head: Vec<u8>,
    more: Option<Box<More>>,
}

/// A block that goes along with a payload.
#[derive(Debug, Clone)]
pub enum Attached {
    /// Of the sender's store.
    Stored(Arc<Stored>),
    /// The receiver's own, at this offset: it came with the task that this answers.
    Back(u64),
}

impl Attached {
    /// In the place of the extent: the block is the receiver's own.
    const BACK: u64 = u64::MAX;

    fn to_bytes(&self) -> [u8; Block::BYTES] {
        let block = match self {
            Self::Stored(stored) => stored.block(),
            &Self::Back(offset) => {
                Block { extent: Self::BACK, extent_length: 0, offset, length: 0 }
            }
        };
        block.to_bytes()
    }
}

/// What few payloads have.
#[derive(Default)]
struct More {
    /// What stands in between, and before which byte of the head; in this order.
    inserts: Vec<(usize, Foreign)>,
    /// All of that, once it has been put into a store: it is not kept twice.
    stored: Option<Arc<Stored>>,
    attached: Vec<Attached>,
    late: Option<Late>,
}

/// What a payload will be made of, once there is room for it: whatever the pool's user needs for
/// that. See [`Pool::encoded`](crate::Pool::encoded).
pub type Late = Arc<dyn std::any::Any + Send + Sync>;

impl Payload {
    /// `head`, with each of `inserts` standing before the byte of `head` that its number names.
    ///
    /// # Panics
    /// If the numbers are not in order, or beyond `head`.
    #[must_use]
    pub fn spliced(head: Vec<u8>, inserts: Vec<(usize, Foreign)>) -> Self {
        assert!(inserts.is_sorted_by_key(|(at, _)| at));
        assert!(inserts.last().is_none_or(|(at, _)| *at <= head.len()));
        let more = (!inserts.is_empty()).then(|| Box::new(More { inserts, ..More::default() }));
        Self { head, more }
    }

    /// `head`, and behind it `body`.
    pub fn new(head: Vec<u8>, body: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let end = head.len();
        Self::spliced(head, vec![(end, Box::new(body))])
    }

    /// One that the driver's user makes of this when it is asked to.
    #[must_use]
    pub fn late(late: Late) -> Self {
        let more = More { late: Some(late), ..More::default() };
        Self { head: Vec::new(), more: Some(Box::new(more)) }
    }

    /// What it is to be made of, if it has yet to be made.
    pub(crate) fn is_late(&self) -> Option<&Late> {
        self.more.as_ref()?.late.as_ref()
    }

    /// Lets blocks go along, [`MOST_ATTACHED`](wire::MOST_ATTACHED) at most: [`settle`](Self::settle)
    /// refuses more. They must be of the store of the pool, or of the worker, that sends the payload.
    #[must_use]
    pub fn with(mut self, attached: Vec<Attached>) -> Self {
        if !attached.is_empty() {
            self.more.get_or_insert_default().attached = attached;
        }
        self
    }

    /// The bytes in their parts, one after the other.
    #[must_use]
    pub fn parts(&self) -> Vec<&[u8]> {
        let inserts = self.more.as_ref().map_or(&[][..], |more| &more.inserts);
        let mut parts = Vec::with_capacity(2 * inserts.len() + 1);
        let mut from = 0;
        for (at, insert) in inserts {
            parts.extend([&self.head[from..*at], (**insert).as_ref()]);
            from = *at;
        }
        parts.push(&self.head[from..]);
        parts
    }

    /// How many bytes, without blocks that go along.
    #[must_use]
    pub fn length(&self) -> usize {
        let Some(more) = &self.more else { return self.head.len() };
        let inserted = || more.inserts.iter().map(|(_, insert)| (**insert).as_ref().len());
        match &more.stored {
            Some(stored) => stored.length() as usize,
            None => self.head.len() + inserted().sum::<usize>(),
        }
    }

    /// Bytes that are passed on, and bytes of blocks that are lent with them.
    pub(crate) fn crossing(&self) -> (u64, u64) {
        let attached = self.more.as_ref().map_or(&[][..], |more| &more.attached);
        let lent = attached.iter().map(|attached| match attached {
            Attached::Stored(stored) => stored.length(),
            Attached::Back(_) => 0,
        });
        (self.length() as u64, lent.sum())
    }

    /// Bytes that it holds outside of a store.
    pub(crate) fn held(&self) -> u64 {
        let stored = self.more.as_ref().is_some_and(|more| more.stored.is_some());
        if stored { 0 } else { self.length() as u64 }
    }

    /// Puts long bytes into the store; short ones stay, for the frame, which fits into any ring
    /// then. Done without the pool's lock if it is done before the payload is handed in.
    ///
    /// # Errors
    /// If there is no memory for it, or more blocks go along than may (`InvalidInput`); nothing has
    /// changed then.
    pub fn settle(&mut self, store: &Arc<Store>) -> Result<()> {
        let (attached, stored) =
            self.more.as_ref().map_or((0, false), |m| (m.attached.len(), m.stored.is_some()));
        if attached > wire::MOST_ATTACHED {
            let most = wire::MOST_ATTACHED;
            let why = format!("{attached} blocks of memory would go along, and {most} may");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        let length = self.length() + 8 + attached * Block::BYTES;
        if !stored && length > Shape::STANDARD.longest_inline() {
            let stored = store.put(&self.parts())?;
            self.head = Vec::new();
            let more = self.more.get_or_insert_default();
            more.inserts = Vec::new();
            more.stored = Some(stored);
        }
        Ok(())
    }

    /// Flags and content of the frame that carries it. It must have been settled.
    pub(crate) fn frame<T>(&self, kind: u8, push: impl FnOnce(u8, &[&[u8]]) -> T) -> T {
        let Some(more) = &self.more else { return push(kind, &[&self.head]) };
        let described = more.stored.as_ref().map(|stored| stored.block().to_bytes());
        let kind = if described.is_some() { kind | IN_BLOCK } else { kind };
        let content: Vec<&[u8]> = match &described {
            Some(bytes) => vec![bytes],
            None => self.parts(),
        };
        if more.attached.is_empty() {
            return push(kind, &content);
        }
        let mut table = Vec::with_capacity(8 + more.attached.len() * Block::BYTES);
        table.extend_from_slice(&(more.attached.len() as u64).to_le_bytes());
        for attached in &more.attached {
            table.extend_from_slice(&attached.to_bytes());
        }
        push(kind | ATTACHED, &[&[table.as_slice()], content.as_slice()].concat())
    }

    /// The blocks of the sender's that go along.
    pub(crate) fn attached(&self) -> impl Iterator<Item = &Arc<Stored>> {
        let attached = self.more.as_ref().map_or(&[][..], |more| &more.attached);
        attached.iter().filter_map(|attached| match attached {
            Attached::Stored(stored) => Some(stored),
            Attached::Back(_) => None,
        })
    }

    /// The blocks that it holds.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<Stored>> {
        let stored = self.more.as_ref().and_then(|more| more.stored.as_ref());
        stored.into_iter().chain(self.attached())
    }
}

/// Copies a part of bytes at hand.
pub(crate) fn copy_part(bytes: &[u8], at: usize, into: &mut [u8]) -> Result<()> {
    let part = bytes.get(at..at + into.len());
    into.copy_from_slice(part.ok_or_else(|| std::io::Error::other("too few bytes"))?);
    Ok(())
}

/// Splits a frame's bytes into the blocks that came along and the rest. `theirs` receives a block of
/// the sender's, `ours` the own one at an offset, if it can have come back.
pub(crate) fn split_attached(
    bytes: &[u8],
    blocks: &Blocks,
    theirs: impl Fn(Block) -> Received,
    ours: impl Fn(u64) -> Option<Received>,
) -> Result<(Vec<Arc<Received>>, usize)> {
    let nonsense = || std::io::Error::other("a frame's list of blocks makes no sense");
    let count = bytes.first_chunk().map(|count| u64::from_le_bytes(*count));
    let count = count.filter(|count| *count <= wire::MOST_ATTACHED as u64);
    let count = count.ok_or_else(nonsense)? as usize;
    let end = 8 + count * Block::BYTES;
    let table = bytes.get(8..end).ok_or_else(nonsense)?;
    let found = table.chunks_exact(Block::BYTES).map(|description| {
        let number =
            |at| u64::from_le_bytes(description[at..at + 8].try_into().unwrap_or_default());
        let received = if number(0) == Attached::BACK {
            ours(number(16)).ok_or_else(nonsense)
        } else {
            blocks.find(description).map(&theirs)
        };
        received.map(Arc::new)
    });
    Ok((found.collect::<Result<_>>()?, end))
}

impl From<Vec<u8>> for Payload {
    fn from(head: Vec<u8>) -> Self {
        Self { head, more: None }
    }
}

/// One submitted call.
pub struct Task {
    pub(crate) id: TaskId,
    pub(crate) callable: Arc<Callable>,
    pub(crate) payload: Payload,
    pub(crate) completion: Arc<dyn Completion>,
    pub(crate) part: usize,
    pub(crate) options: Option<Arc<TaskOptions>>,
    pub(crate) tries: Option<Box<Tries>>,
}

impl Task {
    /// What to run, on what, and whom to tell; the id is from
    /// [`Pool::next_task`](crate::Pool::next_task).
    pub fn new(
        id: TaskId,
        callable: Arc<Callable>,
        payload: impl Into<Payload>,
        completion: Arc<dyn Completion>,
    ) -> Self {
        let payload = payload.into();
        Self { id, callable, payload, completion, part: 0, options: None, tries: None }
    }

    /// Which of the tasks it is that its completion waits for, if there are several.
    #[must_use]
    pub fn part(mut self, part: usize) -> Self {
        self.part = part;
        self
    }

    /// With limits, or further tries.
    #[must_use]
    pub fn with_options(mut self, options: Option<Arc<TaskOptions>>) -> Self {
        self.options = options.filter(|options| options.asks_for_something());
        self
    }
}

/// The result to come, for Rust programs.
#[derive(Debug, Default)]
pub struct JoinHandle {
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
}

impl JoinHandle {
    /// One that nobody has completed yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits for the outcome and takes it. A second call would wait for ever, so it gives
    /// `None` instead.
    pub fn join(self: Arc<Self>) -> Option<Outcome> {
        let this = self;
        let mut outcome = this.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        while outcome.is_none() {
            outcome = this.done.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
        outcome.take()
    }
}

impl Completion for JoinHandle {
    fn wanted(&self) -> bool {
        true
    }

    fn complete(self: Arc<Self>, _part: usize, outcome: Outcome) -> Told {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.done.notify_all();
        Told::Already // whoever submitted asked the driver to watch, since nobody leads
    }
}

#[cfg(test)]
mod tests {
    use oxgang_os::segment::Segment;

    use super::*;

    fn with_blocks(store: &Arc<Store>, length: usize, blocks: usize) -> Payload {
        let block = store.put(&[&[1; 100]]).unwrap();
        Payload::from(vec![0; length]).with(vec![Attached::Stored(block); blocks])
    }

    #[test]
    fn what_is_settled_fits_into_a_ring_and_what_would_not_is_refused() {
        let store = Store::new(Segment::create("blocks", 0).unwrap(), 0);
        for length in [0, 1 << 12, 1 << 16, 1 << 20] {
            let mut most = with_blocks(&store, length, wire::MOST_ATTACHED);
            most.settle(&store).unwrap();
            let frame =
                most.frame(0, |_, parts| parts.iter().map(|part| part.len()).sum::<usize>());
            assert!(frame <= Shape::STANDARD.longest_inline(), "{length}: {frame}");
            let mut more = with_blocks(&store, length, wire::MOST_ATTACHED + 1);
            let refused = more.settle(&store).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
        }
    }
}
