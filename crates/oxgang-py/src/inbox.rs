//! `Inbox`: objects for an event loop, from any thread.
//!
//! The way into a loop, as the port is the way out of a pool: whoever puts something in rings an
//! eventfd if the box was empty, and the loop, woken once for all that has come, takes it all.
//!
//! | | `put` | `urge` |
//! |---|---|---|
//! | open | taken in | taken in |
//! | closed | refused | taken in: what is under way may still have to be ended |
//! | in a fork of the process | refused | refused: the loop is the parent's |
//!
//! The lock is held for moments, and never across a call into Python.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oxgang::generation;
use oxgang_os::event::WakeUp;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

#[derive(Default)]
struct Content {
    items: Vec<Py<PyAny>>,
    closed: bool,
}

/// Objects for an event loop; see `oxgang.asyncio._service`.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct Inbox {
    content: Mutex<Content>,
    bell: WakeUp,
    born: u64,
}

impl Inbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, item: Py<PyAny>, although_closed: bool) -> bool {
        if self.is_elsewhere() {
            return false;
        }
        let mut content = self.content();
        if content.closed && !although_closed {
            drop(content); // before the item, which may run anything as it goes
            return false;
        }
        content.items.push(item);
        let first = content.items.len() == 1;
        drop(content);
        if first {
            self.bell.ring();
        }
        true
    }

    fn is_elsewhere(&self) -> bool {
        self.born != generation()
    }
}

#[pymethods]
impl Inbox {
    #[new]
    fn new() -> PyResult<Self> {
        let bell = WakeUp::new().map_err(PyOSError::new_err)?;
        Ok(Self { content: Mutex::default(), bell, born: generation() })
    }

    /// Readable when there is something.
    fn fileno(&self) -> i32 {
        self.bell.as_fd().as_raw_fd()
    }

    /// Puts something in; `False`: it is closed, or the loop is another process's.
    fn put(&self, item: Py<PyAny>) -> bool {
        self.take_in(item, false)
    }

    /// Puts something in, also when it is closed; `False`: the loop is another process's.
    fn urge(&self, item: Py<PyAny>) -> bool {
        self.take_in(item, true)
    }

    /// Nothing more may be `put`; wakes the loop.
    fn close(&self) {
        if self.is_elsewhere() {
            return;
        }
        self.content().closed = true;
        self.bell.ring();
    }

    /// All that is in it. For the loop.
    fn take(&self) -> Vec<Py<PyAny>> {
        // in this order: what comes in between rings again
        self.bell.clear();
        std::mem::take(&mut self.content().items)
    }

    #[getter]
    fn closed(&self) -> bool {
        self.content().closed
    }

    /// Whether this process was forked from the one whose loop it is.
    #[getter]
    fn forked(&self) -> bool {
        self.is_elsewhere()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // never blocks in here; what is locked just now is in use, and so no garbage
        if let Ok(content) = self.content.try_lock() {
            for item in &content.items {
                visit.call(item)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let items = std::mem::take(&mut self.content().items);
        drop(items);
    }
}
