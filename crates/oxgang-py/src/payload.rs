//! Calls, results and errors as payloads, and back.
//!
//! | payload | first byte | then |
//! |---|---|---|
//! | call | `PLAIN` | positional arguments, keyword arguments (`None`: there are none) |
//! | | `PICKLED` | a pickle of both |
//! | result | `PLAIN` / `PICKLED` | the value |
//! | failure | `PLAIN` | what `dump_error` made: pickle, class, text, traceback |

use std::sync::Arc;

use oxgang::store::{Received, Store, Stored};
use oxgang::worker::Worker;
use oxgang::{Body, Outcome, Payload};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyTuple};

use crate::codec::{self, PICKLED, PLAIN};
use crate::future::Source;
use crate::python::{names, standard};
use crate::raw::{Buffer, Lent};

/// Shorter blocks are copied by who receives them: a mapping and its page faults cost more.
const WORTH_MAPPING: usize = 1 << 18;
/// Copies from here on are made without the interpreter.
const LONG_COPY: usize = 1 << 18;

/// A call's arguments. What is long is in the store already.
pub fn of_call(
    store: &Arc<Store>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Payload> {
    let py = args.py();
    let mut bytes = Vec::with_capacity(64);
    let mut apart = Vec::new();
    bytes.push(PLAIN);
    let plain = codec::encode(args.as_any(), &mut bytes, &mut apart)
        && match kwargs.filter(|kwargs| !kwargs.is_empty()) {
            // the dict is the call's own, so what it holds may be held by others, not it
            Some(kwargs) => codec::encode(kwargs.as_any(), &mut bytes, &mut apart),
            None => codec::encode(py.None().bind(py), &mut bytes, &mut apart),
        };
    if plain {
        return settled(py, store, bytes.into(), &apart);
    }
    pickled(store, &names(py)?.dump_call, (args, kwargs).into_pyobject(py)?.as_any())
}

/// A pickle of the value, by `dump`: bytes, or bytes and what goes apart.
fn pickled(store: &Arc<Store>, dump: &Py<PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let py = value.py();
    let dumped = dump.bind(py).call1((value,))?;
    let (pickle, apart) = match dumped.cast_into::<PyBytes>() {
        Ok(pickle) => (pickle, Vec::new()),
        Err(both) => {
            let both = both.into_inner().cast_into::<PyTuple>()?;
            let pickle = both.get_item(0)?.cast_into::<PyBytes>()?;
            (pickle, both.get_item(1)?.cast_into::<PyList>()?.iter().collect())
        }
    };
    // the pickle stays where it is until it is copied into shared memory
    let payload = Payload::new(vec![PICKLED], PyBackedBytes::from(pickle));
    settled(py, store, payload, &apart)
}

/// Puts into the store what is long, and what goes apart.
fn settled(
    py: Python<'_>,
    store: &Arc<Store>,
    mut payload: Payload,
    apart: &[Bound<'_, PyAny>],
) -> PyResult<Payload> {
    let lent = apart.iter().map(Lent::of).collect::<PyResult<Vec<_>>>()?;
    let put = |mut payload: Payload| -> std::io::Result<Payload> {
        if !lent.is_empty() {
            let stored = lent.iter().map(|lent| store.share(lent.as_ref()));
            payload = payload.with(stored.collect::<std::io::Result<Vec<Arc<Stored>>>>()?);
        }
        payload.settle(store)?;
        Ok(payload)
    };
    let length = payload.length() + lent.iter().map(|lent| lent.as_ref().len()).sum::<usize>();
    let done = if length < LONG_COPY { put(payload) } else { py.detach(|| put(payload)) };
    payload = done.map_err(|error| {
        let text = format!("no shared memory for {length} bytes: {error}");
        pyo3::exceptions::PyMemoryError::new_err(text)
    })?;
    Ok(payload)
}

/// A call's arguments, in the worker.
pub fn to_call<'py>(
    py: Python<'py>,
    worker: &mut Worker,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let mut kind = [0];
    worker.read_payload(0, &mut kind).map_err(PyOSError::new_err)?;
    let (args, kwargs) = match kind {
        [PLAIN] => {
            worker.fetch_payload().map_err(PyOSError::new_err)?;
            let bytes = worker.inline_payload().unwrap_or_default();
            let (args, rest) = codec::decode(py, &bytes[1..], worker.attached())?;
            (args, codec::decode(py, rest, worker.attached())?.0)
        }
        [PICKLED] => {
            let pickle = match worker.inline_payload() {
                Some(bytes) => PyBytes::new(py, &bytes[1..]),
                None => PyBytes::new_with(py, worker.payload_length() - 1, |into| {
                    worker.read_payload(1, into).map_err(PyOSError::new_err)
                })?,
            };
            let both = loads(py, pickle, worker.attached())?.cast_into::<PyTuple>()?;
            (both.get_item(0)?, both.get_item(1)?)
        }
        _ => return Err(PyException::new_err("a call in an unknown encoding")),
    };
    let kwargs = if kwargs.is_none() { None } else { Some(kwargs.cast_into::<PyDict>()?) };
    Ok((args.cast_into::<PyTuple>()?, kwargs))
}

/// A result.
pub fn of_value(store: &Arc<Store>, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let py = value.py();
    let (mut bytes, mut apart) = (Vec::with_capacity(32), Vec::new());
    bytes.push(PLAIN);
    if codec::encode(value, &mut bytes, &mut apart) {
        return settled(py, store, bytes.into(), &apart);
    }
    pickled(store, &names(py)?.dump_result, value)
}

fn to_value<'py>(py: Python<'py>, body: &Body) -> PyResult<Bound<'py, PyAny>> {
    let mut kind = [0];
    body.read(0, &mut kind).map_err(PyOSError::new_err)?;
    match (kind, body.inline()) {
        ([PLAIN], Some(bytes)) => Ok(codec::decode(py, &bytes[1..], body.attached())?.0),
        ([PLAIN], None) => {
            let bytes = body.to_vec().map_err(PyOSError::new_err)?;
            Ok(codec::decode(py, &bytes[1..], body.attached())?.0)
        }
        ([PICKLED], Some(bytes)) => loads(py, PyBytes::new(py, &bytes[1..]), body.attached()),
        ([PICKLED], None) => {
            // read from a copy of our own: nobody can change it while it is looked at
            let pickle = PyBytes::new_with(py, body.length() - 1, |into| {
                body.read(1, into).map_err(PyOSError::new_err)
            })?;
            loads(py, pickle, body.attached())
        }
        _ => Err(PyException::new_err("a value in an unknown encoding")),
    }
}

fn loads<'py>(
    py: Python<'py>,
    pickle: Bound<'py, PyBytes>,
    apart: &[Arc<Received>],
) -> PyResult<Bound<'py, PyAny>> {
    let loads = names(py)?.loads.bind(py);
    if apart.is_empty() {
        return loads.call1((pickle,));
    }
    let buffers = PyList::empty(py);
    for received in apart {
        if received.length() >= WORTH_MAPPING {
            buffers.append(Bound::new(py, Buffer::of(received)?)?)?;
        } else {
            let copy = PyByteArray::new_with(py, received.length(), |into| {
                received.read(0, into).map_err(PyOSError::new_err)
            })?;
            buffers.append(copy)?;
        }
    }
    let options = PyDict::new(py);
    options.set_item(pyo3::intern!(py, "buffers"), buffers)?;
    loads.call((pickle,), Some(&options))
}

/// What was raised. `decoding`: while the call's own data was being rebuilt.
pub fn of_error(py: Python<'_>, error: PyErr, decoding: bool) -> PyResult<Payload> {
    let error = if decoding {
        let what = "the task's function or arguments";
        names(py)?.payload_error.call1(py, (what, error.into_value(py)))?
    } else {
        error.into_value(py).into_any()
    };
    let parts = names(py)?.dump_error.call1(py, (error,))?;
    let (mut bytes, mut apart) = (vec![PLAIN], Vec::new());
    // a tuple of bytes and texts; a text that is no valid Unicode is left out by dump_error
    if codec::encode(parts.bind(py), &mut bytes, &mut apart) && apart.is_empty() {
        return Ok(bytes.into());
    }
    let pickle = names(py)?.dumps_back.bind(py).call1((parts,))?.cast_into::<PyBytes>()?;
    Ok(Payload::new(vec![PICKLED], PyBackedBytes::from(pickle)))
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
            Ok(value) => return Ok(Ok(value.unbind())),
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
            let facts = (crash.task, crash.pid, crash.exit.code(), function);
            names(py)?.crash_error.call1(py, facts)
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
