//! What queues raise, how long their calls wait and how those end, and what a limit is.

use std::time::Instant;

use oxgang::parking::{Call, Line};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyFloat;

use crate::threading::{Books, wait_until};
use crate::wait;

/// What Python has to say.
pub struct Names {
    pub empty: Py<PyAny>,
    pub full: Py<PyAny>,
    pub shut_down: Py<PyAny>,
    pub plain: Py<PyModule>,
}

pub fn names(py: Python<'_>) -> PyResult<&Names> {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_try_init(py, || {
        let plain = py.import("oxgang._plain_queue")?;
        let of = |name: &str| -> PyResult<Py<PyAny>> { Ok(plain.getattr(name)?.unbind()) };
        let (empty, full, shut_down) = (of("Empty")?, of("Full")?, of("ShutDown")?);
        Ok(Names { empty, full, shut_down, plain: plain.unbind() })
    })
}

pub fn raise(py: Python<'_>, which: impl FnOnce(&Names) -> &Py<PyAny>) -> PyErr {
    let made = names(py).and_then(|names| which(names).bind(py).call0());
    made.map_or_else(|error| error, PyErr::from_value)
}

/// How long a call may take.
pub enum Patience {
    None,
    Until(Option<Instant>),
}

impl Patience {
    pub fn of(
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        if !wait::may_block(block)? {
            return Ok(Self::None);
        }
        if let Some(timeout) = timeout
            && timeout.lt(0)?
        {
            return Err(PyValueError::new_err("'timeout' must be a non-negative number"));
        }
        wait::deadline(timeout).map(Self::Until)
    }

    /// Tries at once, and waits for as long as there is patience; see [`wait_until`].
    pub fn wait<S, T>(
        &self,
        py: Python<'_>,
        books: &Books<S>,
        line: impl Fn(&mut S) -> &mut Line,
        mut attempt: impl FnMut(&mut S) -> Option<T>,
    ) -> PyResult<Option<T>> {
        match self {
            Self::None => Ok(attempt(&mut books.open(py))),
            Self::Until(deadline) => wait_until(py, books, line, *deadline, attempt),
        }
    }

    /// As arguments: `block`, `timeout`.
    pub fn left(&self) -> (bool, Option<f64>) {
        match self {
            Self::None => (false, None),
            Self::Until(end) => {
                let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                (true, left.map(|left| left.as_secs_f64()))
            }
        }
    }
}

/// How a wait at a queue ends.
pub enum End<T> {
    Done(T, Option<Call>),
    Shut,
    Plain,
}

/// What stands for no item; `oxgang._queue` has it too.
pub fn nothing(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static NOTHING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let nothing = NOTHING.get_or_try_init(py, || {
        Ok::<_, PyErr>(py.import("oxgang._plain_queue")?.getattr("NOTHING")?.unbind())
    })?;
    Ok(nothing.bind(py).clone())
}

/// A `maxsize` as a number of items.
pub fn limit(size: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(size) = size.cast::<PyFloat>() {
        // as the standard comparison has it: infinite is no limit, and so is not-a-number
        let size = size.value().ceil();
        return Ok(if size.is_finite() { size as i64 } else { 0 });
    }
    match size.extract::<i64>() {
        Ok(size) => Ok(size),
        Err(_) if size.gt(0)? => Ok(i64::MAX),
        Err(_) => Ok(0),
    }
}
