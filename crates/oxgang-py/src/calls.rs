//! `Calls`: what will come of many calls whose results are taken together, or one by one, without a
//! future for each.
//!
//! | a part | left by | to |
//! |---|---|---|
//! | `Waiting` | a pool of processes, from any thread, without the interpreter | `Come` |
//! | | a thread of a pool of threads | `Settled` |
//! | | who handed it in and was refused | not there any more |
//! | `Come`, `Settled`, `Refused` (it could not be encoded) | who takes it | not there any more |
//!
//! | the order | a part is there | the next to be taken |
//! |---|---|---|
//! | `OfCalls` | from the call on, at its place | the oldest, when it has come |
//! | `AsTheyCome` | when it has come | whichever came first |
//!
//! Further calls may be added as long as nobody has said that there will be none (`end`). Who takes a
//! part and is interrupted in the middle puts it back.
//!
//! Under the lock are a few words and moves, never a call into Python nor into the pool: the pool
//! completes parts with its own lock held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use oxgang::pool::Waitable;
use oxgang::task::Told;
use oxgang::{Completion, Outcome, Pool, TaskId, generation, lock};
use oxgang_os::futex::{self, Woken};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::future::Future;
use crate::python::standard;
use crate::{payload, threads, wait};

/// Which part is the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    OfCalls,
    AsTheyCome,
}

pub enum Part {
    /// Of a pool of processes: by which number it can be cancelled.
    Waiting(Option<TaskId>),
    Come(Outcome),
    /// A future that is done, of a pool of threads.
    Settled(Py<Future>),
    Refused(Py<PyAny>),
}

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That all have come.
    All,
    /// That one can be taken, or that there is none and will be none.
    Next,
}

pub struct Books {
    order: Order,
    parts: VecDeque<Part>,
    /// Which part the first of these is, in the order of the calls.
    first: usize,
    /// So many have not come.
    waiting: usize,
    /// No further calls will be added.
    ended: bool,
    /// So many may be taken before somebody looks at the window again. See [`crate::results`].
    pub allowed: usize,
    /// Called when all have come.
    callbacks: Vec<Py<PyAny>>,
    /// Somebody is to be called: a pool of processes counts it among those that its driver looks after.
    watched: bool,
    /// Somebody sleeps until all have come, or until one can be taken.
    all_awaited: bool,
    next_awaited: bool,
}

impl Books {
    fn new(order: Order) -> Self {
        Self {
            order,
            parts: VecDeque::new(),
            first: 0,
            waiting: 0,
            ended: false,
            allowed: 0,
            callbacks: Vec::new(),
            watched: false,
            all_awaited: false,
            next_awaited: false,
        }
    }

    /// Whether one can be taken.
    fn is_ready(&self) -> bool {
        self.parts.front().is_some_and(|part| !matches!(part, Part::Waiting(_)))
    }

    /// Takes the next, if it has come.
    pub fn take(&mut self) -> Option<Part> {
        if !self.is_ready() {
            return None;
        }
        self.first += 1;
        self.parts.pop_front()
    }

    /// How many have not come.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many have not been taken.
    pub fn length(&self) -> usize {
        match self.order {
            Order::OfCalls => self.parts.len(),
            Order::AsTheyCome => self.parts.len() + self.waiting,
        }
    }

    /// Whether none is left and none will come.
    pub fn is_over(&self) -> bool {
        self.ended && self.length() == 0
    }

    fn satisfies(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::All => self.waiting == 0,
            Wanted::Next => self.is_ready() || self.is_over(),
        }
    }

    /// Whether sleepers are to be woken now; who is still not content sleeps again.
    fn rouse(&mut self) -> bool {
        let all = self.all_awaited && self.satisfies(Wanted::All);
        let next = self.next_awaited && self.satisfies(Wanted::Next);
        self.all_awaited &= !all;
        self.next_awaited &= !next;
        all || next
    }
}

/// What the calls' pool and who takes their results share.
pub struct Calls {
    /// That of processes; `None`: one of threads.
    pool: Option<Arc<Pool>>,
    /// What they run, for error messages.
    function: Py<PyAny>,
    /// Of the process that made it.
    generation: u64,
    books: Mutex<Books>,
    /// Moves whenever sleepers are to wake up.
    word: AtomicU32,
}

impl Calls {
    /// Of calls that are all handed in before anybody asks.
    pub fn of_batch(pool: Option<&Arc<Pool>>, function: Py<PyAny>) -> Arc<Self> {
        Self::new(pool, function, Books { ended: true, ..Books::new(Order::OfCalls) })
    }

    /// Of calls that are handed in by and by.
    pub fn of_line(pool: Option<&Arc<Pool>>, function: Py<PyAny>, ordered: bool) -> Arc<Self> {
        let order = if ordered { Order::OfCalls } else { Order::AsTheyCome };
        Self::new(pool, function, Books::new(order))
    }

    fn new(pool: Option<&Arc<Pool>>, function: Py<PyAny>, books: Books) -> Arc<Self> {
        Arc::new(Self {
            pool: pool.cloned(),
            function,
            generation: generation(),
            books: Mutex::new(books),
            word: AtomicU32::new(0),
        })
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// The same, for who may be in a fork: a thread that is not there may hold them.
    pub fn books_here(&self) -> PyResult<MutexGuard<'_, Books>> {
        if self.generation != generation() {
            return Err(PyRuntimeError::new_err(
                "these results belong to the process that this one was forked from; take them there",
            ));
        }
        Ok(self.books())
    }

    // -- who hands calls in ---------------------------------------------------------------

    /// A further call is about to be handed in: which part it is.
    pub fn expect(&self, task: TaskId) -> usize {
        let mut books = self.books();
        let part = books.first + books.parts.len();
        books.waiting += 1;
        if books.order == Order::OfCalls {
            books.parts.push_back(Part::Waiting(Some(task)));
        }
        part
    }

    /// So many, of a pool of threads, whose parts come one after the other: which part the first is.
    pub fn expect_many(&self, count: usize) -> usize {
        let mut books = self.books();
        let part = books.first + books.parts.len();
        books.waiting += count;
        if books.order == Order::OfCalls {
            books.parts.extend((0..count).map(|_| Part::Waiting(None)));
        }
        part
    }

    /// The last ones that were expected could not be handed in, nor any after them.
    pub fn withdraw(&self, count: usize) {
        let mut refused = Vec::new();
        let mut books = self.books();
        books.waiting -= count;
        let mut left = if books.order == Order::OfCalls { count } else { 0 };
        while left > 0 {
            match books.parts.pop_back() {
                Some(Part::Waiting(_)) => left -= 1,
                Some(other) => refused.push(other),
                None => break,
            }
        }
        drop(books);
        drop(refused); // Python's objects
    }

    /// A further call could not be encoded.
    pub fn refuse(&self, error: Py<PyAny>) {
        self.change(|books| books.parts.push_back(Part::Refused(error)));
    }

    /// No further calls will be added.
    pub fn end(&self) {
        self.change(|books| books.ended = true);
    }

    /// A change that comes from no worker. Who leads sleeps until one has something to tell.
    fn change(&self, change: impl FnOnce(&mut Books)) {
        let mut books = self.books();
        change(&mut books);
        let rouse = books.rouse();
        drop(books);
        if rouse {
            self.rouse();
        }
        if let Some(pool) = &self.pool {
            pool.nudge();
        }
    }

    // -- who has run them -----------------------------------------------------------------

    /// A part has come.
    fn come(&self, part: usize, what: Part) -> Told {
        let mut books = self.books();
        books.waiting -= 1;
        let spent = match books.order {
            Order::AsTheyCome => {
                books.parts.push_back(what);
                None
            }
            Order::OfCalls => {
                let place = part.wrapping_sub(books.first);
                match books.parts.get_mut(place) {
                    Some(place) => Some(std::mem::replace(place, what)),
                    None => Some(what), // given up by a garbage collection
                }
            }
        };
        let last = books.waiting == 0;
        let told = if last && books.watched { Told::ByDriver } else { Told::Nobody };
        books.watched &= !last;
        let rouse = books.rouse();
        drop(books);
        if rouse {
            self.rouse();
        }
        drop(spent);
        told
    }

    /// By a thread of a pool of threads, in which there is no driver: its future is done.
    pub fn settle(&self, part: usize, future: &Bound<'_, Future>) -> PyResult<()> {
        match self.come(part, Part::Settled(future.clone().unbind())) {
            Told::ByDriver => self.call_back(future.py()),
            Told::Nobody | Told::Already => Ok(()),
        }
    }

    fn rouse(&self) {
        self.word.fetch_add(1, Ordering::Release);
        futex::wake(&self.word, u32::MAX);
    }

    /// When the last has come: calls whom there is to call.
    pub fn call_back(&self, py: Python<'_>) -> PyResult<()> {
        let callbacks = std::mem::take(&mut self.books().callbacks);
        callbacks.iter().try_for_each(|callback| call(callback.bind(py)))
    }

    // -- who takes results ----------------------------------------------------------------

    /// Whether there is what is wanted, with what has come and has not been taken in.
    pub fn has(&self, wanted: Wanted) -> bool {
        let has = || self.books().satisfies(wanted);
        has() || {
            self.pool.as_ref().is_some_and(|pool| {
                pool.poke();
                has()
            })
        }
    }

    /// Waits until there is; `false`: there is not by the deadline.
    pub fn wait(&self, py: Python<'_>, what: Wanted, deadline: Option<Instant>) -> PyResult<bool> {
        let until = Until { calls: self, what };
        wait::by_deadline(py, || match &self.pool {
            Some(pool) => pool.wait(&until, deadline),
            None => threads::wait(&until, deadline),
        })
    }

    /// The same; raises `TimeoutError`.
    pub fn wait_or_raise(
        &self,
        py: Python<'_>,
        what: Wanted,
        deadline: Option<Instant>,
    ) -> PyResult<()> {
        if self.wait(py, what, deadline)? { Ok(()) } else { Err(standard(py)?.timeout_error(py)) }
    }

    /// The value of a part that has come, or its error. The outer error: an interruption of the
    /// thread that asks.
    pub fn open(&self, py: Python<'_>, part: &Part) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
        match part {
            Part::Come(outcome) => payload::open(py, outcome, Some(&self.function)),
            Part::Refused(error) => Ok(Err(error.clone_ref(py))),
            Part::Settled(future) => Ok(Future::result(future.bind(py), None)
                .map_err(|error| error.into_value(py).into_any())),
            Part::Waiting(_) => {
                Ok(Err(standard(py)?.cancelled_error(py).into_value(py).into_any()))
            }
        }
    }

    /// Who took the next was interrupted.
    pub fn put_back(&self, part: Part) {
        let mut books = self.books();
        books.first -= 1;
        books.parts.push_front(part);
    }

    /// All parts.
    pub fn take_all(&self) -> VecDeque<Part> {
        std::mem::take(&mut self.books().parts)
    }

    /// Who took all was interrupted.
    pub fn put_all_back(&self, parts: VecDeque<Part>) {
        self.books().parts = parts;
    }

    /// Has `fn` called when all have come; at once if they have.
    pub fn when_all(&self, py: Python<'_>, r#fn: Py<PyAny>) -> PyResult<()> {
        let mut books = self.books();
        if books.waiting == 0 {
            drop(books);
            return call(r#fn.bind(py));
        }
        books.callbacks.push(r#fn);
        let known = std::mem::replace(&mut books.watched, true);
        drop(books);
        if let Some(pool) = self.pool.as_ref().filter(|_| !known) {
            py.detach(|| pool.watch_one_more());
        }
        Ok(())
    }

    /// Takes back what has not begun, in a pool of processes.
    pub fn cancel(&self, py: Python<'_>) {
        let Some(pool) = &self.pool else { return };
        py.detach(|| {
            let left: Vec<TaskId> = {
                let books = self.books();
                let task = |part: &Part| if let Part::Waiting(task) = part { *task } else { None };
                books.parts.iter().filter_map(task).collect()
            };
            if !left.is_empty() {
                pool.cancel_these(&left);
            }
        });
    }

    // -- the garbage collector ------------------------------------------------------------

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        let books = match self.books.try_lock() {
            Ok(books) => books,
            Err(TryLockError::Poisoned(books)) => books.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()), // in use, so no garbage
        };
        books.parts.iter().try_for_each(|part| match part {
            Part::Settled(future) => visit.call(future),
            Part::Refused(error) => visit.call(error),
            Part::Waiting(_) | Part::Come(_) => Ok(()),
        })
    }

    pub fn clear(&self) {
        let Ok(mut books) = self.books.try_lock() else { return };
        let parts = std::mem::take(&mut books.parts);
        books.first += parts.len();
        drop(books);
        drop(parts); // not under the lock: an object's end may run anything
    }
}

impl Completion for Calls {
    fn wanted(&self) -> bool {
        true
    }

    fn complete(self: Arc<Self>, part: usize, outcome: Outcome) -> Told {
        self.come(part, Part::Come(outcome))
    }
}

/// Calls back; what that raises is logged, as of a future's callbacks.
fn call(callback: &Bound<'_, PyAny>) -> PyResult<()> {
    match callback.call0() {
        Err(error) if error.is_instance_of::<PyException>(callback.py()) => {
            standard(callback.py())?.log_callback_failure(callback, error)
        }
        other => other.map(drop),
    }
}

/// Waits for what is wanted.
struct Until<'a> {
    calls: &'a Calls,
    what: Wanted,
}

impl Waitable for Until<'_> {
    fn done(&self) -> bool {
        self.calls.books().satisfies(self.what)
    }

    fn park(&self, limit: Duration) -> Woken {
        let mut books = self.calls.books();
        if books.satisfies(self.what) {
            return Woken::Maybe;
        }
        match self.what {
            Wanted::All => books.all_awaited = true,
            Wanted::Next => books.next_awaited = true,
        }
        // read under the lock: who makes a change after this moves the word on after this
        let word = self.calls.word.load(Ordering::Acquire);
        drop(books);
        futex::wait(&self.calls.word, word, Some(limit))
    }
}
