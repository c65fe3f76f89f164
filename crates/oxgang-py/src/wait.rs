//! Waiting with Python's rules: without the interpreter while asleep, with a look at signals
//! whenever one may have come, and time limits as the standard modules read them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use oxgang::pool::Waited;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::python::standard;

/// When a wait with this `timeout` argument is over: `None` waits for ever; a negative number
/// is over at once.
pub fn deadline(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Instant>> {
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) else {
        return Ok(None);
    };
    let seconds: f64 = timeout.extract()?;
    if seconds.is_nan() {
        return Err(pyo3::exceptions::PyValueError::new_err("timeout must not be NaN"));
    }
    // beyond what the clock can show is for ever
    let limit = Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    Ok(limit.and_then(|limit| Instant::now().checked_add(limit)))
}

/// What a `block` argument says; waiting is allowed if there is none.
pub fn may_block(block: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    block.map_or(Ok(true), |block| block.is_truthy())
}

/// Waits by `wait`, without the interpreter, and again after each look at signals; `false`: time is
/// up.
///
/// # Errors
/// What a signal's handler raised, or `RuntimeError` if what is waited for is another process's.
pub fn by_deadline(py: Python<'_>, wait: impl Fn() -> Waited + Sync) -> PyResult<bool> {
    loop {
        match py.detach(&wait) {
            Waited::Done => return Ok(true),
            Waited::TimeUp => return Ok(false),
            Waited::Signal => py.check_signals()?,
            Waited::Forked => {
                return Err(PyRuntimeError::new_err(
                    "this future belongs to the process that this one was forked from; wait for \
                     it there",
                ));
            }
        }
    }
}

/// The same; `TimeoutError` if time is up.
///
/// # Errors
/// And those of [`by_deadline`].
pub fn with_signals(py: Python<'_>, wait: impl Fn() -> Waited + Sync) -> PyResult<()> {
    if by_deadline(py, wait)? { Ok(()) } else { Err(standard(py)?.timeout_error(py)) }
}

/// Whether a wait without the interpreter is to be given up: since a signal's handler raised, which
/// is kept in `raised`, or since there is no interpreter any more.
pub fn interrupted(raised: &Cell<Option<PyErr>>) -> bool {
    match Python::try_attach(|py| py.check_signals()) {
        Some(Ok(())) => false,
        Some(Err(error)) => {
            raised.set(Some(error));
            true
        }
        None => true,
    }
}
