//! Picklers that wait for an object: to make one costs more than to pickle with it.
//!
//! Nearly everything is pickled at the first attempt. What comes after an attempt that failed is
//! `oxgang._pickling.dump_otherwise`'s.

use std::sync::Mutex;

use oxgang::{Payload, lock};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::python::names;
use crate::reducers::{Sizes, sizes};
use crate::sink::{Pickle, Sink};

/// A pickler that has made more is let go, with its buffer.
const SMALL: usize = 1 << 16;
/// Picklers that wait, at most.
const IDLE: usize = 16;

/// What is pickled for whom, as `oxgang._pickling` counts them.
#[derive(Clone, Copy)]
pub enum Kind {
    ToWorker,
    /// The same, and long buffers may go apart.
    Call,
    Back,
    /// The same, and long buffers may go apart.
    Result,
}

struct Pickler {
    dump: Py<PyAny>,
    clear_memo: Py<PyAny>,
    sink: Py<Sink>,
    left_out: Py<PyList>,
    /// Of the tables that it knows.
    sizes: Sizes,
}

static WAITING: [Mutex<Vec<Pickler>>; 4] = [const { Mutex::new(Vec::new()) }; 4];

impl Kind {
    fn of(number: usize) -> PyResult<Self> {
        let kinds = [Self::ToWorker, Self::Call, Self::Back, Self::Result];
        let kind = kinds.get(number).copied();
        kind.ok_or_else(|| PyValueError::new_err(format!("no kind of pickle: {number}")))
    }

    fn pickler(self, py: Python<'_>) -> PyResult<Pickler> {
        let sizes = sizes(py)?;
        loop {
            // in a statement of its own: whoever drops one must not have the lock
            let idle = lock(&WAITING[self as usize]).pop();
            match idle {
                Some(idle) if idle.sizes == sizes => return Ok(idle),
                Some(outdated) => drop(outdated),
                None => break,
            }
        }
        let made = names(py)?.new_pickler.call1(py, (self as usize,))?;
        let (dump, clear_memo, sink, left_out) = made.extract(py)?;
        Ok(Pickler { dump, clear_memo, sink, left_out, sizes })
    }

    fn keep(self, pickler: Pickler) {
        let mut idle = lock(&WAITING[self as usize]);
        let one_too_many = if idle.len() < IDLE {
            idle.push(pickler);
            None
        } else {
            Some(pickler)
        };
        drop(idle);
        drop(one_too_many);
    }

    /// The first attempt: gives what was written to `take`, and what is left out of it.
    fn attempt<'py, T>(
        self,
        value: &Bound<'py, PyAny>,
        take: impl FnOnce(&Sink) -> PyResult<(usize, T)>,
    ) -> PyResult<(T, Vec<Bound<'py, PyAny>>)> {
        let py = value.py();
        let pickler = self.pickler(py)?;
        pickler.dump.bind(py).call1((value,))?;
        let apart: Vec<_> = pickler.left_out.bind(py).iter().collect();
        let (length, taken) = take(pickler.sink.get())?;
        if apart.is_empty() && length <= SMALL {
            pickler.clear_memo.bind(py).call0()?;
            self.keep(pickler);
        }
        Ok((taken, apart))
    }
}

/// The value's pickle, and what goes apart.
pub fn dumped<'py>(
    kind: Kind,
    value: &Bound<'py, PyAny>,
) -> PyResult<(Payload, Vec<Bound<'py, PyAny>>)> {
    let py = value.py();
    let first = kind.attempt(value, |sink| {
        let payload = sink.take_payload();
        Ok((payload.length(), payload))
    });
    let failure = match first {
        Err(failure) if failure.is_instance_of::<PyException>(py) => failure,
        done => return done,
    };
    let otherwise = names(py)?.dump_otherwise.bind(py);
    match otherwise.call1((kind as usize, failure, value))?.cast_into::<Pickle>() {
        Ok(pickle) => Ok((pickle.get().take_payload(), Vec::new())),
        Err(both) => {
            let both = both.into_inner().cast_into::<PyTuple>()?;
            let pickle = both.get_item(0)?.cast_into::<Pickle>()?;
            let apart = both.get_item(1)?.cast_into::<PyList>()?;
            Ok((pickle.get().take_payload(), apart.iter().collect()))
        }
    }
}

/// The pickle of an object, at the first attempt: `bytes`; or, if buffers may go apart, a `Pickle`,
/// and with it a list of the buffers if some do.
#[pyfunction]
pub fn dump<'py>(kind: usize, obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let (py, kind) = (obj.py(), Kind::of(kind)?);
    if matches!(kind, Kind::ToWorker | Kind::Back) {
        let (bytes, _) = kind.attempt(obj, |sink| {
            let bytes: Bound<'py, PyBytes> = sink.take_bytes(py)?;
            Ok((bytes.as_bytes().len(), bytes))
        })?;
        return Ok(bytes.into_any());
    }
    let (pickle, apart) = kind.attempt(obj, |sink| {
        let pickle = sink.take();
        Ok((pickle.length(), Bound::new(py, pickle)?))
    })?;
    if apart.is_empty() {
        return Ok(pickle.into_any());
    }
    Ok((pickle, apart).into_pyobject(py)?.into_any())
}
