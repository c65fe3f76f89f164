//! Tasks, what becomes of them, and who is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use oxgang_os::Result;
use oxgang_os::process::Exit;
use oxgang_shm::arena::Block;
use oxgang_shm::channel::{ATTACHED, IN_BLOCK, Shape};

use crate::store::{Blocks, Received, Store, Stored};
use crate::wire;

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

/// How a worker was lost, as much as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The task that it had begun.
    pub task: TaskId,
    /// The worker's process number.
    pub pid: i32,
    /// How the process ended.
    pub exit: Exit,
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
    /// Where the bytes are if they are long.
    pub(crate) block: Option<Received>,
    pub(crate) attached: Vec<Arc<Received>>,
}

impl Body {
    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.block.as_ref().map_or(self.inline.len(), Received::length)
    }

    /// Copies a part of the bytes out.
    ///
    /// # Errors
    /// If they are fewer, or their memory cannot be mapped.
    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<()> {
        match &self.block {
            Some(block) => block.read(at, into),
            None => {
                let part = self.inline.get(at..at + into.len());
                into.copy_from_slice(part.ok_or_else(|| std::io::Error::other("too few bytes"))?);
                Ok(())
            }
        }
    }

    /// The bytes, if they are short enough to have come without a block.
    #[must_use]
    pub fn inline(&self) -> Option<&[u8]> {
        self.block.is_none().then_some(&self.inline)
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

    /// The blocks that came along, in the sender's order.
    #[must_use]
    pub fn attached(&self) -> &[Arc<Received>] {
        &self.attached
    }
}

/// Somebody to tell. Called with the pool's lock held: it must not block, nor call the pool.
pub trait Completion: std::any::Any + Send + Sync {
    /// Whether the task is still wanted, asked right before it is sent to a worker.
    fn wanted(&self) -> bool;

    /// The outcome. `true`: somebody must still be told by the pool's driver (see
    /// [`Turn::attention`](crate::pool::Turn)).
    fn complete(self: Arc<Self>, outcome: Outcome) -> bool;
}

/// Bytes for another process, in two parts so that neither need be copied to stand behind the
/// other, and blocks that go along.
#[derive(Default)]
pub struct Payload {
    head: Vec<u8>,
    body: Option<Box<dyn AsRef<[u8]> + Send + Sync>>,
    /// Both parts, once they have been put into a store: they are not kept twice.
    stored: Option<Arc<Stored>>,
    pub(crate) attached: Vec<Arc<Stored>>,
}

impl Payload {
    /// `head`, and behind it `body`, which stays where it is.
    pub fn new(head: Vec<u8>, body: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self { head, body: Some(Box::new(body)), ..Self::default() }
    }

    /// Lets blocks go along, [`MOST_ATTACHED`](wire::MOST_ATTACHED) at most. They must be of the
    /// store of the pool, or of the worker, that sends the payload.
    #[must_use]
    pub fn with(mut self, attached: Vec<Arc<Stored>>) -> Self {
        self.attached = attached;
        self
    }

    fn parts(&self) -> [&[u8]; 2] {
        [&self.head, self.body.as_ref().map_or(&[], |body| (**body).as_ref())]
    }

    /// How many bytes, without blocks that go along.
    #[must_use]
    pub fn length(&self) -> usize {
        match &self.stored {
            Some(stored) => stored.length() as usize,
            None => self.parts().iter().map(|part| part.len()).sum(),
        }
    }

    /// Puts long bytes into the store; short ones stay, for the frame. Done without the pool's
    /// lock if it is done before the payload is handed in.
    ///
    /// # Errors
    /// If there is no memory for it; nothing has changed then.
    pub fn settle(&mut self, store: &Arc<Store>) -> Result<()> {
        let table = 8 + self.attached.len() * Block::BYTES;
        if self.stored.is_none() && self.length() + table > Shape::STANDARD.longest_inline() {
            self.stored = Some(store.put(&self.parts())?);
            self.head = Vec::new();
            self.body = None;
        }
        Ok(())
    }

    /// Flags and content of the frame that carries it. It must have been settled.
    pub(crate) fn frame<T>(&self, kind: u8, push: impl FnOnce(u8, &[&[u8]]) -> T) -> T {
        let described = self.stored.as_ref().map(|stored| stored.block().to_bytes());
        let [head, body] = match &described {
            Some(bytes) => [bytes.as_slice(), &[]],
            None => self.parts(),
        };
        let kind = if described.is_some() { kind | IN_BLOCK } else { kind };
        if self.attached.is_empty() {
            return push(kind, &[head, body]);
        }
        let mut table = Vec::with_capacity(8 + self.attached.len() * Block::BYTES);
        table.extend_from_slice(&(self.attached.len() as u64).to_le_bytes());
        for stored in &self.attached {
            table.extend_from_slice(&stored.block().to_bytes());
        }
        push(kind | ATTACHED, &[&table, head, body])
    }

    /// The blocks that it holds.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.stored.iter().chain(&self.attached)
    }
}

/// Splits a frame's bytes into the blocks that came along and the rest.
pub(crate) fn split_attached(bytes: &[u8], blocks: &Blocks) -> Result<(Vec<Block>, usize)> {
    let nonsense = || std::io::Error::other("a frame's list of blocks makes no sense");
    let count = bytes.first_chunk().map(|count| u64::from_le_bytes(*count));
    let count = count.filter(|count| *count <= wire::MOST_ATTACHED as u64);
    let count = count.ok_or_else(nonsense)? as usize;
    let end = 8 + count * Block::BYTES;
    let table = bytes.get(8..end).ok_or_else(nonsense)?;
    let found = table.chunks_exact(Block::BYTES).map(|description| blocks.find(description));
    Ok((found.collect::<Result<_>>()?, end))
}

impl From<Vec<u8>> for Payload {
    fn from(head: Vec<u8>) -> Self {
        Self { head, ..Self::default() }
    }
}

/// One submitted call.
pub struct Task {
    pub(crate) id: TaskId,
    pub(crate) callable: Arc<Callable>,
    pub(crate) payload: Payload,
    pub(crate) completion: Arc<dyn Completion>,
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
        Self { id, callable, payload: payload.into(), completion }
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

    fn complete(self: Arc<Self>, outcome: Outcome) -> bool {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.done.notify_all();
        true // whoever submitted asked the driver to watch, since nobody leads
    }
}
