//! Calls, results and errors as payloads, and back.
//!
//! | payload | first byte | then |
//! |---|---|---|
//! | call | `PLAIN` | positional arguments, keyword arguments (`None`: there are none) |
//! | | `PICKLED` | a pickle of both |
//! | result | `PLAIN` / `PICKLED` | the value |
//! | failure | `PLAIN` | what `dump_error` made: pickle, class, text, traceback |

use oxgang::{Outcome, Payload};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::codec::{self, PICKLED, PLAIN};
use crate::future::Source;
use crate::limits;
use crate::python::{names, standard};

/// A call's arguments.
pub fn of_call(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Payload> {
    let py = args.py();
    let mut bytes = Vec::with_capacity(64);
    bytes.push(PLAIN);
    let plain = codec::encode(args.as_any(), &mut bytes)
        && match kwargs.filter(|kwargs| !kwargs.is_empty()) {
            // the dict is the call's own, so what it holds may be held by others, not it
            Some(kwargs) => codec::encode(kwargs.as_any(), &mut bytes),
            None => codec::encode(py.None().bind(py), &mut bytes),
        };
    if plain {
        return Ok(bytes.into());
    }
    let pickle = names(py)?.dumps.call1(py, ((args, kwargs),))?;
    // the pickle stays where it is until it is copied into shared memory
    Ok(Payload::new(vec![PICKLED], pickle.extract::<PyBackedBytes>(py)?))
}

fn pickled(dumps: &Py<PyAny>, value: &Bound<'_, PyAny>, mut into: Vec<u8>) -> PyResult<Vec<u8>> {
    let py = value.py();
    let pickle = dumps.call1(py, (value,))?;
    let pickle = pickle.bind(py).cast::<PyBytes>()?.as_bytes();
    into.clear();
    into.reserve_exact(1 + pickle.len());
    into.push(PICKLED);
    into.extend_from_slice(pickle);
    Ok(into)
}

/// A call's arguments, in the worker.
pub fn to_call<'py>(
    py: Python<'py>,
    payload: &[u8],
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let (args, kwargs) = match payload.split_first() {
        Some((&PLAIN, rest)) => {
            let (args, rest) = codec::decode(py, rest)?;
            (args, codec::decode(py, rest)?.0)
        }
        Some((&PICKLED, pickle)) => {
            let both = loads(py, pickle)?.into_bound(py).cast_into::<PyTuple>()?;
            (both.get_item(0)?, both.get_item(1)?)
        }
        _ => return Err(PyException::new_err("a call in an unknown encoding")),
    };
    let kwargs = if kwargs.is_none() { None } else { Some(kwargs.cast_into::<PyDict>()?) };
    Ok((args.cast_into::<PyTuple>()?, kwargs))
}

/// A result.
pub fn of_value(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    bytes.push(PLAIN);
    if codec::encode(value, &mut bytes) {
        return Ok(bytes);
    }
    pickled(&names(value.py())?.dumps_back, value, bytes)
}

fn to_value(py: Python<'_>, payload: &[u8]) -> PyResult<Py<PyAny>> {
    match payload.split_first() {
        Some((&PLAIN, rest)) => Ok(codec::decode(py, rest)?.0.unbind()),
        Some((&PICKLED, pickle)) => loads(py, pickle),
        _ => Err(PyException::new_err("a value in an unknown encoding")),
    }
}

fn loads(py: Python<'_>, pickle: &[u8]) -> PyResult<Py<PyAny>> {
    names(py)?.loads.call1(py, (PyBytes::new(py, pickle),))
}

/// What was raised. `decoding`: while the call's own data was being rebuilt.
pub fn of_error(py: Python<'_>, error: PyErr, decoding: bool) -> PyResult<Vec<u8>> {
    let error = if decoding {
        let what = "the task's function or arguments";
        names(py)?.payload_error.call1(py, (what, error.into_value(py)))?
    } else {
        error.into_value(py).into_any()
    };
    let parts = names(py)?.dump_error.call1(py, (error,))?;
    let mut bytes = vec![PLAIN];
    // a tuple of bytes and texts; a text that is no valid Unicode is left out by dump_error
    if !codec::encode(parts.bind(py), &mut bytes) {
        return pickled(&names(py)?.dumps_back, parts.bind(py), bytes);
    }
    Ok(bytes)
}

/// An outcome as the future's result or exception. The outer error: an interruption of the
/// thread that asked, which must not be taken for the task's own.
pub fn open(
    py: Python<'_>,
    outcome: &Outcome,
    source: Option<&Source>,
) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
    let opened = match outcome {
        Outcome::Result(payload) => match to_value(py, payload) {
            Ok(value) => return Ok(Ok(value)),
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => return Err(error),
            Err(error) => {
                names(py)?.payload_error.call1(py, ("the task's result", error.into_value(py)))
            }
        },
        Outcome::Failure(payload) => {
            to_value(py, payload).and_then(|parts| names(py)?.load_error.call1(py, (parts,)))
        }
        Outcome::Crashed(crash) => {
            let function = source.map(|source| source.function.clone_ref(py));
            limits::error_of(py, crash, function)
        }
        Outcome::Broken(why) => names(py)?.broken_error.call1(py, (&**why,)),
        Outcome::Cancelled => Err(standard(py)?.cancelled_error(py)),
    };
    match opened {
        Ok(exception) => Ok(Err(exception)),
        Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error),
        Err(error) => Ok(Err(error.into_value(py).into_any())),
    }
}
