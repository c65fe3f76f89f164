//! Who is told in Python that a future is done: waiters of the standard `wait` and `as_completed`,
//! callbacks, and calls that it is a part of.

use std::sync::Arc;

use oxgang::Completion;
use pyo3::intern;
use pyo3::prelude::*;

use super::Future;
use super::cell::{Cell, FINISHED, NOTIFIED};
use crate::calls::Calls;
use crate::python::standard;

/// Tells everybody in Python who wants to know. Each is told once, whoever comes first.
pub fn deliver(slf: &Bound<'_, Future>) -> PyResult<()> {
    let py = slf.py();
    let cell = &slf.get().cell;
    let (condition, keep, part) = {
        let mut inner = cell.inner();
        let condition = inner.condition.as_ref().map(|one| one.clone_ref(py));
        (condition, inner.keep.take(), inner.part.take())
    };
    part.map_or(Ok(()), |part| part.settle(slf))?;
    if let Some(condition) = condition {
        let condition = condition.bind(py);
        condition.call_method0(intern!(py, "acquire"))?;
        let first = {
            let mut inner = cell.inner();
            // one that is cancelled and not notified is not done for them
            let done = matches!(cell.state(), FINISHED | NOTIFIED);
            done && !std::mem::replace(&mut inner.told, true)
        };
        let told = if first { tell_waiters(slf) } else { Ok(()) };
        condition.call_method0(intern!(py, "notify_all"))?;
        condition.call_method0(intern!(py, "release"))?;
        told?;
    }
    drop(keep);
    run_callbacks(slf)
}

fn tell_waiters(slf: &Bound<'_, Future>) -> PyResult<()> {
    let py = slf.py();
    let cell = &slf.get().cell;
    let waiters = cell.inner().waiters.as_ref().map(|list| list.clone_ref(py));
    let (Some(waiters), state) = (waiters, cell.state()) else { return Ok(()) };
    let method = match state {
        FINISHED => {
            Future::decode(slf)?;
            if cell.inner().exception.is_some() { "add_exception" } else { "add_result" }
        }
        NOTIFIED => "add_cancelled",
        _ => return Ok(()), // cancelled, but its executor has not said so yet
    };
    let list = waiters.bind(py);
    let all: Vec<_> = list.iter().collect();
    for waiter in all {
        waiter.call_method1(method, (slf,))?;
    }
    Ok(())
}

pub fn run_callbacks(slf: &Bound<'_, Future>) -> PyResult<()> {
    let callbacks = std::mem::take(&mut slf.get().cell.inner().callbacks);
    for callback in callbacks {
        call_back(slf, &callback)?;
    }
    Ok(())
}

pub fn call_back(slf: &Bound<'_, Future>, callback: &Py<PyAny>) -> PyResult<()> {
    let py = slf.py();
    match callback.call1(py, (slf,)) {
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
            standard(py)?.log_callback_failure(slf.as_any(), error)
        }
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Called by the driver for a completion that asked for it.
pub fn deliver_completion(py: Python<'_>, completion: Arc<dyn Completion>) -> PyResult<()> {
    let any: Arc<dyn std::any::Any + Send + Sync> = completion;
    match any.downcast::<Cell>() {
        Ok(cell) => {
            let keep = cell.inner().keep.take();
            // without it somebody else was faster
            keep.map_or(Ok(()), |future| deliver(future.bind(py)))
        }
        Err(any) => any.downcast::<Calls>().map_or(Ok(()), |calls| calls.call_back(py)),
    }
}
