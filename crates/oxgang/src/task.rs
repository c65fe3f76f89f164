//! Tasks, what becomes of them, and who is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use oxgang_shm::arena::Block;

use crate::limits::{Death, Overseen, TaskOptions};

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
    Result(Vec<u8>),
    /// It raised; the encoded error.
    Failure(Vec<u8>),
    /// Its worker ended while it ran.
    Crashed(Crash),
    /// The pool cannot go on; why.
    Broken(Arc<str>),
    /// It was taken back before it began.
    Cancelled,
}

/// Somebody to tell. Called with the pool's lock held: it must not block, nor call the pool.
pub trait Completion: std::any::Any + Send + Sync {
    /// Whether the task is still wanted, asked right before it is sent to a worker.
    fn wanted(&self) -> bool;

    /// The outcome. `true`: somebody must still be told by the pool's driver (see
    /// [`Turn::attention`](crate::pool::Turn)).
    fn complete(self: Arc<Self>, outcome: Outcome) -> bool;
}

/// A call's bytes, in two parts so that neither need be copied to stand behind the other.
#[derive(Default)]
pub struct Payload {
    head: Vec<u8>,
    body: Option<Box<dyn AsRef<[u8]> + Send + Sync>>,
}

impl Payload {
    /// `head`, and behind it `body`, which stays where it is.
    pub fn new(head: Vec<u8>, body: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self { head, body: Some(Box::new(body)) }
    }

    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, self.body.as_ref().map_or(&[], |body| (**body).as_ref())]
    }

    pub(crate) fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(head: Vec<u8>) -> Self {
        Self { head, body: None }
    }
}

/// One submitted call.
pub struct Task {
    pub(crate) id: TaskId,
    pub(crate) callable: Arc<Callable>,
    pub(crate) payload: Payload,
    pub(crate) completion: Arc<dyn Completion>,
    /// Where the payload is, once it has been put into the pool's arena: it is not kept twice.
    pub(crate) block: Option<Block>,
    /// If it has options.
    pub(crate) overseen: Option<Box<Overseen>>,
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
        Self { id, callable, payload, completion, block: None, overseen: None }
    }

    /// Gives it limits, or further tries.
    pub fn set_options(&mut self, options: Arc<TaskOptions>) {
        let matters = options.asks_for_something();
        self.overseen = matters.then(|| Box::new(Overseen::new(options)));
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
