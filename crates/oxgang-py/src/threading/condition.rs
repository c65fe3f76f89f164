//! `Condition`: waiting until told, under a lock that the user brings.
//!
//! With an [`RLock`] of ours, who is told is moved from the condition's line to the lock's, and
//! sleeps on until the lock is free. With any other lock it is called at once, and then takes the
//! lock as that lock has it.

use std::sync::OnceLock;
use std::time::Instant;

use oxgang::parking::{Line, Seat};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::{Books, RLock, sit, sit_after};
use crate::wait;

enum Held {
    Ours(Py<RLock>),
    Other(Py<PyAny>),
}

/// Base of `oxgang.threading.Condition`.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
#[derive(Default)]
pub struct ThreadCondition {
    lock: OnceLock<Held>,
    line: Books<Line>,
}

impl ThreadCondition {
    /// Whether nobody waits.
    pub fn is_idle(&self, py: Python<'_>) -> bool {
        self.line.open(py).is_empty()
    }

    fn held(&self) -> PyResult<&Held> {
        self.lock.get().ok_or_else(|| {
            PyRuntimeError::new_err("a subclass of Condition must call super().__init__()")
        })
    }

    fn wait_ours(&self, py: Python<'_>, lock: &RLock, deadline: Option<Instant>) -> PyResult<bool> {
        let seat = Seat::new();
        self.line.open(py).join(&seat);
        let (depth, next) = lock.let_go(py);
        let rise = sit_after(py, next, &seat, deadline);
        let told = matches!(rise, Ok(true)) || !self.line.open(py).quit(&seat);
        if told && !seat.is_called() {
            lock.unqueue(py, &seat);
        }
        // a call was for taking the lock, which is what comes now
        let _called = seat.leave();
        lock.take_back(py, depth);
        if told && rise.is_err() {
            self.tell_ours(py, lock, 1);
        }
        rise.map(|_| told)
    }

    fn tell_ours(&self, py: Python<'_>, lock: &RLock, count: usize) {
        let seats = self.line.open(py).take(count);
        if !seats.is_empty() {
            lock.queue(py, &seats);
        }
    }

    fn wait_other(&self, cond: &Bound<'_, Self>, deadline: Option<Instant>) -> PyResult<bool> {
        let py = cond.py();
        let seat = Seat::new();
        self.line.open(py).join(&seat);
        let saved = match cond.call_method0(intern!(py, "_release_save")) {
            Ok(saved) => saved,
            Err(error) => {
                self.line.open(py).quit(&seat);
                if seat.leave() {
                    self.tell_other(py, 1);
                }
                return Err(error);
            }
        };
        let rise = sit(py, &seat, deadline);
        let quit = self.line.open(py).quit(&seat);
        let told = seat.leave() && !quit;
        let back = cond.call_method1(intern!(py, "_acquire_restore"), (saved,));
        if told && (rise.is_err() || back.is_err()) {
            self.tell_other(py, 1);
        }
        back?;
        rise.map(|_| told)
    }

    fn tell_other(&self, py: Python<'_>, count: usize) {
        let calls = self.line.open(py).call_many(count);
        drop(calls);
    }

    fn tell(slf: &Bound<'_, Self>, count: usize) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mine = match this.held()? {
            Held::Ours(lock) if lock.get().is_mine() => {
                this.tell_ours(py, lock.get(), count);
                return Ok(());
            }
            Held::Ours(_) => false,
            Held::Other(_) => slf.call_method0(intern!(py, "_is_owned"))?.is_truthy()?,
        };
        if !mine {
            return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
        }
        this.tell_other(py, count);
        Ok(())
    }
}

#[pymethods]
impl ThreadCondition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    fn _open(&self, lock: &Bound<'_, PyAny>) {
        // a subclass of it may have methods of its own
        let held = match lock.cast_exact::<RLock>() {
            Ok(lock) => Held::Ours(lock.clone().unbind()),
            Err(_) => Held::Other(lock.clone().unbind()),
        };
        // made once: who calls `__init__` again keeps the lock
        let _ = self.lock.set(held);
    }

    /// Gives the lock back, waits until told, takes the lock again; ``False`` if `timeout` seconds
    /// passed first. Raises `RuntimeError` if this thread does not have the lock.
    #[pyo3(signature = (timeout=None))]
    fn wait(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let deadline = wait::deadline(timeout)?;
        match this.held()? {
            Held::Ours(lock) if lock.get().is_mine() => this.wait_ours(py, lock.get(), deadline),
            Held::Other(_) if slf.call_method0(intern!(py, "_is_owned"))?.is_truthy()? => {
                this.wait_other(slf, deadline)
            }
            _ => Err(PyRuntimeError::new_err("cannot wait on un-acquired lock")),
        }
    }

    /// Tells up to `n` of those who wait, the longest waiting first. Raises `RuntimeError` if this
    /// thread does not have the lock.
    #[pyo3(signature = (n=1))]
    fn notify(slf: &Bound<'_, Self>, n: i64) -> PyResult<()> {
        Self::tell(slf, usize::try_from(n).unwrap_or(0))
    }

    /// Tells all who wait. Raises `RuntimeError` if this thread does not have the lock.
    fn notify_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::tell(slf, usize::MAX)
    }

    fn _waiting(&self, py: Python<'_>) -> usize {
        self.line.open(py).len()
    }

    fn _forget_waiters(&self, py: Python<'_>) {
        self.line.open(py).clear();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.lock.get() {
            Some(Held::Ours(lock)) => visit.call(lock),
            Some(Held::Other(lock)) => visit.call(lock),
            None => Ok(()),
        }
    }
}
