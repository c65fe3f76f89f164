//! Calls that others run, many at once: begun, and told to their futures when they have returned.
//!
//! What has nothing special about it takes no step of Python here; see `oxgang.asyncio._hosts`.

use pyo3::exceptions::{PyIndexError, PyKeyError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};

use super::Future;
use crate::python::standard;

/// Takes the pairs out of `news`: the number of a call, and what that has returned. The call goes out
/// of `calls`, where it is by its number, and `begun`, where it is by its future, which gets the
/// value; whoever has set that by hand was first. A number that is not known is of a call that was
/// given up. What is left, which are no pairs.
#[pyfunction]
pub fn settle<'py>(
    news: &Bound<'py, PyList>,
    calls: &Bound<'py, PyDict>,
    begun: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyList>> {
    let py = news.py();
    let left = PyList::empty(py);
    for item in news {
        let Some((number, value)) = pair(&item)? else {
            left.append(item)?;
            continue;
        };
        let Some(call) = calls.get_item(&number)? else { continue };
        calls.del_item(&number)?;
        let future = call.getattr(intern!(py, "future"))?;
        match begun.del_item(&future) {
            Err(error) if !error.is_instance_of::<PyKeyError>(py) => return Err(error),
            _ => {}
        }
        match Future::finish(future.cast::<Future>()?, Some(value.unbind()), None) {
            Err(error) if !standard(py)?.is_invalid_state(py, &error) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(left)
}

fn pair<'py>(item: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let parts = item.cast::<PyTuple>()?;
    if parts.len() != 2 {
        return Ok(None);
    }
    Ok(Some((parts.get_item(0)?, parts.get_item(1)?)))
}

/// Begins calls from the head of `line`, `most` at most, as long as they are plain ones that begin
/// for the first time, of a function that is among `functions`. Each goes into `calls`, by its
/// number out of `numbers`, and `begun`, by its future; and what is to be done into `orders`. Those
/// that were cancelled are dropped. How many have begun.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "all of them are the books of one host")]
pub fn launch(
    line: &Bound<'_, PyAny>,
    most: usize,
    functions: &Bound<'_, PyAny>,
    calls: &Bound<'_, PyDict>,
    begun: &Bound<'_, PyDict>,
    orders: &Bound<'_, PyList>,
    numbers: &Bound<'_, PyIterator>,
    now: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let py = line.py();
    let (mut count, mut known) = (0, None::<Bound<'_, PyAny>>);
    while count < most {
        let Ok(call) = line.get_item(0) else { break };
        let function = call.getattr(intern!(py, "plain"))?;
        if function.is_none() || !call.getattr(intern!(py, "number"))?.is_none() {
            break;
        }
        // they are few, and mostly the same one
        if !known.as_ref().is_some_and(|known| known.is(&function)) {
            if !functions.contains(&function)? {
                break;
            }
            known = Some(function.clone());
        }
        // somebody may cancel the line meanwhile, or take this one
        match line.call_method0(intern!(py, "popleft")) {
            Ok(next) if next.is(&call) => {}
            Ok(next) => {
                line.call_method1(intern!(py, "appendleft"), (next,))?;
                break;
            }
            Err(error) if error.is_instance_of::<PyIndexError>(py) => break,
            Err(error) => return Err(error),
        }
        let future = call.getattr(intern!(py, "future"))?.cast_into::<Future>()?;
        if !Future::set_running_or_notify_cancel(&future)? {
            continue;
        }
        let number = numbers.clone().next().ok_or_else(|| PyIndexError::new_err("no number"))??;
        call.setattr(intern!(py, "number"), &number)?;
        call.setattr(intern!(py, "began"), now)?;
        begun.set_item(&future, &call)?;
        calls.set_item(&number, &call)?;
        orders.append((number, function, call.getattr(intern!(py, "args"))?))?;
        count += 1;
    }
    Ok(count)
}
