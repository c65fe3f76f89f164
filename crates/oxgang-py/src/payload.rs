//! Calls, results and errors as payloads, and back.
//!
//! | payload | first byte | then |
//! |---|---|---|
//! | call | `PLAIN` | positional arguments, keyword arguments (`None`: there are none) |
//! | | `PICKLED` | a pickle of both |
//! | result | `PLAIN` / `PICKLED` | the value |
//! | failure | `PLAIN` / `PICKLED` | what `dump_error` made: pickle, class, text, traceback |

use std::sync::Arc;

use oxgang::store::{Received, Store};
use oxgang::task::Attached;
use oxgang::worker::Worker;
use oxgang::{Body, Outcome, Payload, Pool};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyTuple};

use crate::codec::{self, Encoded, Far, Input, Mains, PICKLED, PLAIN};
use crate::limits;
use crate::picklers::{Kind, dumped};
use crate::python::{names, standard};
use crate::raw::{Buffer, Lent};

/// Shorter blocks are copied by who receives them: a mapping and its page faults cost more.
const WORTH_MAPPING: usize = 1 << 18;
/// Shorter pickles go with the frame, so there is nothing to put into the store.
const WORTH_SETTLING: usize = 1 << 12;
/// Copies from here on are made without the interpreter.
const LONG_COPY: usize = 1 << 18;

/// Arguments that become a payload when there is room for it.
pub struct LateCall {
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
}

/// A call's arguments, or why they are no payload yet.
pub enum Call {
    Ready(Payload),
    Late(LateCall),
}

/// A call's arguments for the pool. If that holds as many bytes as it may, what is not short is
/// made later.
pub fn of_call(
    pool: &Pool,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Call> {
    let encoded = plain(args, kwargs)?;
    if !encoded.as_ref().is_some_and(Encoded::is_short) && pool.is_full() {
        let (args, kwargs) = (args.clone().unbind(), kwargs.map(|dict| dict.clone().unbind()));
        return Ok(Call::Late(LateCall { args, kwargs }));
    }
    made(pool.store(), encoded, args, kwargs).map(Call::Ready)
}

/// The payload that was to be made later.
pub fn of_late_call(py: Python<'_>, store: &Arc<Store>, late: &LateCall) -> PyResult<Payload> {
    let (args, kwargs) = (late.args.bind(py), late.kwargs.as_ref().map(|dict| dict.bind(py)));
    made(store, plain(args, kwargs)?, args, kwargs)
}

fn made(
    store: &Arc<Store>,
    encoded: Option<Encoded<'_>>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Payload> {
    let (py, to) = (args.py(), To { store, came: &[] });
    match encoded {
        Some(encoded) => settled_plain(py, to, encoded),
        None => pickled(to, Kind::Call, (args, kwargs).into_pyobject(py)?.as_any()),
    }
}

/// Both as plain bytes, and what goes apart; `None` if that cannot be.
fn plain<'py>(
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Encoded<'py>>> {
    let none = args.py().None().into_bound(args.py());
    let kwargs = kwargs.filter(|kwargs| !kwargs.is_empty()).map_or(&none, |dict| dict.as_any());
    codec::encode([args.as_any(), kwargs], Mains::ByValue)
}

/// A pickle of the value.
fn pickled(to: To<'_>, kind: Kind, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let py = value.py();
    let (payload, apart) = dumped(kind, value)?;
    if apart.is_empty() && payload.length() < WORTH_SETTLING {
        return Ok(payload);
    }
    settled(py, to, payload, &lend(&apart)?)
}

fn settled_plain(py: Python<'_>, to: To<'_>, encoded: Encoded<'_>) -> PyResult<Payload> {
    if encoded.is_short() {
        return Ok(encoded.into_payload());
    }
    let lent = lend(&encoded.apart)?;
    settled(py, to, encoded.into_payload(), &lent)
}

pub fn lend(apart: &[Bound<'_, PyAny>]) -> PyResult<Vec<Lent>> {
    apart.iter().map(Lent::of).collect()
}

/// Where a payload is put.
#[derive(Clone, Copy)]
struct To<'a> {
    store: &'a Arc<Store>,
    /// What came from where it goes: what it looks at, and has not changed, need not be sent.
    came: &'a [Arc<Received>],
}

impl To<'_> {
    fn attach(&self, lent: &Lent) -> std::io::Result<Attached> {
        let bytes = lent.as_ref();
        let same = self.came.iter().find(|came| came.is_unwritten_at(bytes.as_ptr(), bytes.len()));
        match same {
            Some(came) => Ok(Attached::Back(came.offset())),
            None => self.store.share(bytes).map(Attached::Stored),
        }
    }
}

/// Puts into the store what is long, and what goes apart.
fn settled(py: Python<'_>, to: To<'_>, payload: Payload, lent: &[Lent]) -> PyResult<Payload> {
    let length = payload.length() + lent.iter().map(|lent| lent.as_ref().len()).sum::<usize>();
    let put = || -> std::io::Result<Payload> {
        let attached = lent.iter().map(|lent| to.attach(lent));
        let mut payload = payload.with(attached.collect::<std::io::Result<_>>()?);
        payload.settle(to.store)?;
        Ok(payload)
    };
    let done = if length < LONG_COPY { put() } else { py.detach(put) };
    done.map_err(|error| {
        let text = format!("no shared memory for {length} bytes: {error}");
        pyo3::exceptions::PyMemoryError::new_err(text)
    })
}

/// A call's arguments, in the worker.
pub fn to_call<'py>(
    py: Python<'py>,
    worker: &Worker,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let source = Arrived {
        length: worker.payload_length(),
        inline: worker.inline_payload(),
        read: &|at, into| worker.read_payload(at, into),
        attached: worker.attached(),
    };
    let (args, kwargs) = match source.kind()? {
        PLAIN => source.decode::<2>(py)?.into(),
        _ => {
            let both = source.unpickle(py)?.cast_into::<PyTuple>()?;
            (both.get_item(0)?, both.get_item(1)?)
        }
    };
    let kwargs = if kwargs.is_none() { None } else { Some(kwargs.cast_into::<PyDict>()?) };
    Ok((args.cast_into::<PyTuple>()?, kwargs))
}

/// The result of the worker's task.
pub fn of_value(worker: &Worker, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let (py, to) = (value.py(), To { store: worker.store(), came: worker.attached() });
    if let Some(encoded) = codec::encode([value], Mains::ByName)? {
        return settled_plain(py, to, encoded);
    }
    pickled(to, Kind::Result, value)
}

fn to_value<'py>(py: Python<'py>, body: &Body) -> PyResult<Bound<'py, PyAny>> {
    let source = Arrived {
        length: body.length(),
        inline: body.inline(),
        read: &|at, into| body.read(at, into),
        attached: body.attached(),
    };
    match source.kind()? {
        PLAIN => {
            let [value] = source.decode(py)?;
            Ok(value)
        }
        _ => source.unpickle(py),
    }
}

/// A payload that has arrived.
struct Arrived<'a> {
    length: usize,
    inline: Option<&'a [u8]>,
    read: &'a dyn Fn(usize, &mut [u8]) -> std::io::Result<()>,
    attached: &'a [Arc<Received>],
}

impl Arrived<'_> {
    fn kind(&self) -> PyResult<u8> {
        let mut kind = [0];
        (self.read)(0, &mut kind)?;
        Ok(kind[0])
    }

    fn decode<'py, const N: usize>(&self, py: Python<'py>) -> PyResult<[Bound<'py, PyAny>; N]> {
        if let Some(mut bytes) = self.inline {
            bytes.take(1)?;
            return codec::decode(py, &mut bytes, self.attached);
        }
        let mut bytes = Far::new(self.length, self.read);
        bytes.take(1)?;
        codec::decode(py, &mut bytes, self.attached)
    }

    fn unpickle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.kind()? != PICKLED {
            return Err(PyException::new_err("a payload in an unknown encoding"));
        }
        let pickle = match self.inline {
            Some(bytes) => PyBytes::new(py, &bytes[1..]),
            // read from a copy of our own: nobody can change it while it is looked at
            None => PyBytes::new_with(py, self.length - 1, |into| Ok((self.read)(1, into)?))?,
        };
        let loads = names(py)?.loads.bind(py);
        if self.attached.is_empty() {
            return loads.call1((pickle,));
        }
        let buffers = PyList::empty(py);
        for received in self.attached {
            buffers.append(look_at(py, received)?)?;
        }
        let options = PyDict::new(py);
        options.set_item(pyo3::intern!(py, "buffers"), buffers)?;
        loads.call((pickle,), Some(&options))
    }
}

/// A block's bytes as memory of this process's own.
fn look_at<'py>(py: Python<'py>, received: &Arc<Received>) -> PyResult<Bound<'py, PyAny>> {
    if received.length() >= WORTH_MAPPING {
        return Ok(Bound::new(py, Buffer::of(received)?)?.into_any());
    }
    let copy = PyByteArray::new_with(py, received.length(), |into| Ok(received.read(0, into)?))?;
    Ok(copy.into_any())
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
    // a tuple of bytes and texts; a text that is no valid Unicode is left out by dump_error
    if let Some(encoded) = codec::encode([parts.bind(py)], Mains::ByName)?
        && encoded.apart.is_empty()
    {
        return Ok(encoded.into_payload());
    }
    let pickle = names(py)?.dumps_back.bind(py).call1((parts,))?.cast_into::<PyBytes>()?;
    Ok(Payload::new(vec![PICKLED], PyBackedBytes::from(pickle)))
}

/// An outcome as the future's result or exception. The outer error: an interruption of the
/// thread that asked, which must not be taken for the task's own.
pub fn open(
    py: Python<'_>,
    outcome: &Outcome,
    function: Option<&Py<PyAny>>,
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
            limits::error_of(py, crash, function.map(|function| function.clone_ref(py)))
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
