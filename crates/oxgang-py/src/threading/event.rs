//! `Event`: a flag to wait for.

use std::sync::atomic::{AtomicBool, Ordering};

use oxgang::parking::Line;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Books, describe, wait_until};
use crate::wait;

/// Base of `oxgang.threading.Event`.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
#[derive(Default)]
pub struct ThreadEvent {
    /// Written with the books open.
    flag: AtomicBool,
    books: Books<Waiters>,
}

#[derive(Default)]
struct Waiters {
    line: Line,
    /// How often the flag was set: who waits since before learns of it although it is unset again.
    sets: u64,
}

#[pymethods]
impl ThreadEvent {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    /// Whether the flag is set.
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Sets the flag. All who wait go on.
    fn set(&self, py: Python<'_>) {
        let mut waiters = self.books.open(py);
        self.flag.store(true, Ordering::Release);
        waiters.sets += 1;
        if !waiters.line.is_empty() {
            let calls = waiters.line.call_all();
            drop(waiters);
            drop(calls);
        }
    }

    /// Unsets the flag: who waits from now on waits for the next `set`.
    fn clear(&self, py: Python<'_>) {
        let _waiters = self.books.open(py);
        self.flag.store(false, Ordering::Release);
    }

    /// Waits until the flag is set, or was set meanwhile; ``False`` if `timeout` seconds passed
    /// first.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        if self.is_set() {
            return Ok(true);
        }
        let deadline = wait::deadline(timeout)?;
        let mut before = None;
        let set = |waiters: &mut Waiters| {
            let before = *before.get_or_insert(waiters.sets);
            (self.is_set() || waiters.sets != before).then_some(())
        };
        let found = wait_until(py, &self.books, |waiters| &mut waiters.line, deadline, set)?;
        Ok(found.is_some())
    }

    #[getter]
    fn _flag(&self) -> bool {
        self.is_set()
    }

    fn _at_fork_reinit(&self, py: Python<'_>) {
        self.books.open(py).line.clear();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        describe(slf.as_any(), if slf.get().is_set() { "set" } else { "unset" })
    }
}
