//! `Batch`: what will come of many calls that are asked for together, without a future for each.
//!
//! | a part | left by | to |
//! |---|---|---|
//! | `Waiting` | the pool, from any thread, without the interpreter | `Come` |
//! | `Refused` (its call could not be encoded) | who takes it | `Taken` |
//! | `Come` | who takes it | `Taken` |
//!
//! Parts are taken one by one, in their order, by an iterator; or all at once when the last has
//! come. Who takes some and is interrupted in the middle puts them back.
//!
//! Under the lock are a few words and moves, never a call into Python nor into the pool: the pool
//! completes parts with its own lock held.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use oxgang::pool::Waitable;
use oxgang::task::Told;
use oxgang::{Completion, Outcome, Pool, TaskId, lock};
use oxgang_os::futex::{self, Woken};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::python::standard;
use crate::{payload, wait};

enum Part {
    Waiting,
    Come(Outcome),
    Refused(Py<PyAny>),
    Taken,
}

#[derive(Default)]
struct Books {
    parts: Vec<Part>,
    /// So many of them wait.
    waiting: usize,
    /// The calls' numbers, in order.
    tasks: Vec<TaskId>,
    /// Called when all have come.
    callbacks: Vec<Py<PyAny>>,
    /// The pool counts it among those that its driver must look after.
    watched: bool,
    /// Somebody sleeps until all have come, or until this one has.
    all_awaited: bool,
    awaited: Option<usize>,
}

/// What the calls' pool and who waits for them share.
pub struct Calls {
    pool: Arc<Pool>,
    /// What they run, for error messages.
    function: Py<PyAny>,
    books: Mutex<Books>,
    /// Moves whenever a sleeper is to wake up.
    word: AtomicU32,
}

impl Calls {
    pub fn new(pool: &Arc<Pool>, function: Py<PyAny>) -> Arc<Self> {
        let (books, word) = (Mutex::default(), AtomicU32::new(0));
        Arc::new(Self { pool: pool.clone(), function, books, word })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// A further call is about to be handed in: which part it is.
    pub fn expect(&self, task: TaskId) -> usize {
        let mut books = self.books();
        books.waiting += 1;
        books.tasks.push(task);
        books.parts.push(Part::Waiting);
        books.parts.len() - 1
    }

    /// A further call could not be encoded.
    pub fn refuse(&self, error: Py<PyAny>) {
        self.books().parts.push(Part::Refused(error));
    }

    /// By the driver, when the last has come: calls whom there is to call.
    pub fn call_back(&self, py: Python<'_>) -> PyResult<()> {
        let callbacks = std::mem::take(&mut self.books().callbacks);
        callbacks.iter().try_for_each(|callback| call(callback.bind(py)))
    }

    fn wait(&self, py: Python<'_>, part: Option<usize>, deadline: Option<Instant>) -> PyResult<()> {
        let until = Until { calls: self, part };
        wait::with_signals(py, || self.pool.wait(&until, deadline))
    }

    fn open(&self, py: Python<'_>, part: &Part) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
        match part {
            Part::Come(outcome) => payload::open(py, outcome, Some(&self.function)),
            Part::Refused(error) => Ok(Err(error.clone_ref(py))),
            Part::Waiting | Part::Taken => {
                Ok(Err(standard(py)?.cancelled_error(py).into_value(py).into_any()))
            }
        }
    }
}

impl Completion for Calls {
    fn wanted(&self) -> bool {
        true
    }

    fn complete(self: Arc<Self>, part: usize, outcome: Outcome) -> Told {
        let mut books = self.books();
        books.parts[part] = Part::Come(outcome);
        books.waiting -= 1;
        let last = books.waiting == 0;
        let awaited = books.awaited == Some(part) || last && books.all_awaited;
        if awaited {
            self.word.fetch_add(1, Ordering::Release);
        }
        let told = if last && books.watched { Told::ByDriver } else { Told::Nobody };
        books.watched &= !last;
        drop(books);
        if awaited {
            futex::wake(&self.word, u32::MAX);
        }
        told
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

/// Waits for one part, or for all.
struct Until<'a> {
    calls: &'a Calls,
    part: Option<usize>,
}

impl Until<'_> {
    fn is_over(&self, books: &Books) -> bool {
        match self.part {
            None => books.waiting == 0,
            Some(part) => !matches!(books.parts[part], Part::Waiting),
        }
    }
}

impl Waitable for Until<'_> {
    fn done(&self) -> bool {
        self.is_over(&self.calls.books())
    }

    fn park(&self, limit: Duration) -> Woken {
        let mut books = self.calls.books();
        if self.is_over(&books) {
            return Woken::Maybe;
        }
        match self.part {
            None => books.all_awaited = true,
            Some(part) => books.awaited = Some(part),
        }
        let word = self.calls.word.load(Ordering::Acquire);
        drop(books);
        futex::wait(&self.calls.word, word, Some(limit))
    }
}

/// The results to come of many calls.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Batch {
    pub calls: Arc<Calls>,
}

#[pymethods]
impl Batch {
    /// Whether all are done.
    fn done(&self) -> bool {
        let over = || self.calls.books().waiting == 0;
        over() || {
            self.calls.pool.poke();
            over()
        }
    }

    /// Waits until all are done, for so many seconds at most; raises `TimeoutError`.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.calls.wait(py, None, wait::deadline(timeout)?)
    }

    /// All values, and the first error in the order of the calls: to be taken once, by one thread,
    /// when all are done. `chunked`: each value is a list of values.
    fn take<'py>(
        &self,
        py: Python<'py>,
        chunked: bool,
    ) -> PyResult<(Bound<'py, PyList>, Option<Py<PyAny>>)> {
        let parts = std::mem::take(&mut self.calls.books().parts);
        let (values, mut first) = (PyList::empty(py), None);
        let add = |part| -> PyResult<()> {
            match self.calls.open(py, part)? {
                Ok(value) if chunked => {
                    values.as_sequence().in_place_concat(value.bind(py).cast()?)?;
                }
                Ok(value) => values.append(value)?,
                Err(error) => drop(first.get_or_insert(error)),
            }
            Ok(())
        };
        match parts.iter().try_for_each(add) {
            Ok(()) => Ok((values, first)),
            Err(interruption) => {
                self.calls.books().parts = parts;
                Err(interruption)
            }
        }
    }

    /// Calls `fn` when all are done; at once if they are.
    fn add_done_callback(&self, py: Python<'_>, r#fn: Py<PyAny>) -> PyResult<()> {
        let mut books = self.calls.books();
        if books.waiting == 0 {
            drop(books);
            return call(r#fn.bind(py));
        }
        books.callbacks.push(r#fn);
        let known = std::mem::replace(&mut books.watched, true);
        drop(books);
        if !known {
            py.detach(|| self.calls.pool.watch_one_more());
        }
        Ok(())
    }

    /// An iterator of the values, in the order of the calls, which raises a call's error in its
    /// place; `TimeoutError` so many seconds from now. One thread at a time.
    #[pyo3(signature = (timeout=None))]
    fn results(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<BatchResults> {
        let deadline = wait::deadline(timeout)?;
        Ok(BatchResults { calls: self.calls.clone(), deadline, next: Mutex::new(0) })
    }

    /// Takes back what has not begun.
    fn cancel(&self, py: Python<'_>) {
        let calls = &self.calls;
        py.detach(|| {
            let left = {
                let mut books = calls.books();
                if books.waiting == 0 {
                    return;
                }
                std::mem::take(&mut books.tasks)
            };
            calls.pool.cancel_these(&left);
        });
    }
}

/// What is left of a batch's values.
#[pyclass(frozen, module = "oxgang._core")]
pub struct BatchResults {
    calls: Arc<Calls>,
    deadline: Option<Instant>,
    next: Mutex<usize>,
}

#[pymethods]
impl BatchResults {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let calls = &self.calls;
        let next = || lock(&self.next);
        let index = *next();
        let part = loop {
            let mut books = calls.books();
            match books.parts.get_mut(index) {
                None => return Ok(None),
                Some(Part::Waiting) => {}
                Some(part) => break std::mem::replace(part, Part::Taken),
            }
            drop(books);
            calls.wait(py, Some(index), self.deadline)?;
        };
        match calls.open(py, &part) {
            Ok(opened) => {
                *next() = index + 1;
                drop(part);
                opened.map(Some).map_err(|error| PyErr::from_value(error.into_bound(py)))
            }
            Err(interruption) => {
                calls.books().parts[index] = part;
                Err(interruption)
            }
        }
    }
}
