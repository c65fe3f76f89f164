//! `Semaphore` and `BoundedSemaphore`: units to take and give.

use oxgang::parking::Line;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Books, describe, wait_until};
use crate::wait;

#[derive(Default)]
struct Units {
    free: i64,
    /// At most; none: no bound.
    most: Option<i64>,
    line: Line,
}

impl Units {
    fn take(&mut self) -> Option<()> {
        (self.free > 0).then(|| self.free -= 1)
    }
}

/// Base of the semaphores of `oxgang.threading`.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
#[derive(Default)]
pub struct ThreadSemaphore {
    books: Books<Units>,
}

impl ThreadSemaphore {
    fn give(&self, py: Python<'_>, count: i64) -> PyResult<()> {
        let mut units = self.books.open(py);
        let Some(free) = units.free.checked_add(count) else {
            return Err(PyOverflowError::new_err("the semaphore cannot have so many units"));
        };
        if units.most.is_some_and(|most| free > most) {
            return Err(PyValueError::new_err("Semaphore released too many times"));
        }
        units.free = free;
        if !units.line.is_empty() {
            let calls = units.line.call_many(usize::try_from(count).unwrap_or(usize::MAX));
            drop(units);
            drop(calls);
        }
        Ok(())
    }
}

#[pymethods]
impl ThreadSemaphore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    fn _open(&self, py: Python<'_>, value: i64, bounded: bool) -> PyResult<()> {
        if value < 0 {
            return Err(PyValueError::new_err("semaphore initial value must be >= 0"));
        }
        let mut units = self.books.open(py);
        (units.free, units.most) = (value, bounded.then_some(value));
        Ok(())
    }

    /// Takes a unit; waits for one if there is none.
    ///
    /// Args:
    ///     blocking: ``False``: does not wait.
    ///     timeout: Seconds to wait at most.
    ///
    /// Returns ``False`` if it got none. Raises `ValueError` for a timeout without waiting.
    #[pyo3(signature = (blocking=None, timeout=None))]
    fn acquire(
        &self,
        py: Python<'_>,
        blocking: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let blocking = blocking.map_or(Ok(true), |blocking| blocking.is_truthy())?;
        if !blocking && timeout.is_some() {
            return Err(PyValueError::new_err("can't specify timeout for non-blocking acquire"));
        }
        if self.books.open(py).take().is_some() {
            return Ok(true);
        }
        if !blocking {
            return Ok(false);
        }
        let deadline = wait::deadline(timeout)?;
        let taken = wait_until(py, &self.books, |units| &mut units.line, deadline, Units::take)?;
        Ok(taken.is_some())
    }

    /// Gives `n` units; as many of those who wait go on.
    ///
    /// Raises `ValueError` if `n` is less than one, or a bounded semaphore would have more units
    /// than at the beginning.
    #[pyo3(signature = (n=1))]
    fn release(&self, py: Python<'_>, n: i64) -> PyResult<()> {
        if n < 1 {
            return Err(PyValueError::new_err("n must be one or more"));
        }
        self.give(py, n)
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, None, None)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.give(py, 1)
    }

    /// Units there are now.
    #[getter]
    fn _value(&self, py: Python<'_>) -> i64 {
        self.books.open(py).free
    }

    #[getter]
    fn _initial_value(&self, py: Python<'_>) -> Option<i64> {
        self.books.open(py).most
    }

    fn _at_fork_reinit(&self, py: Python<'_>) {
        self.books.open(py).line.clear();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let units = slf.get().books.open(slf.py());
        let state = match units.most {
            Some(most) => format!("value={}/{most}", units.free),
            None => format!("value={}", units.free),
        };
        drop(units);
        describe(slf.as_any(), &state)
    }
}
