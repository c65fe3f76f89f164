//! Where picklers write to, so that what is long is not copied before it goes into shared memory.

use std::sync::Mutex;

use oxgang::task::Foreign;
use oxgang::{Payload, lock};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyFunction, PyNotImplemented, PyType};

use crate::codec::PICKLED;

/// Shorter bytes are copied, which is cheaper than to hold on to them.
const WORTH_HOLDING: usize = 1 << 14;

/// A pickle in pieces: what was copied, and what is still where the pickler had it.
#[derive(Default)]
struct Written {
    /// With the byte before it that says what it is.
    head: Vec<u8>,
    inserts: Vec<(usize, PyBackedBytes)>,
    inserted: usize,
}

impl Written {
    fn length(&self) -> usize {
        self.head.len().saturating_sub(1) + self.inserted
    }

    fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.inserts.len() + 1);
        let mut from = 1.min(self.head.len());
        for (at, insert) in &self.inserts {
            parts.extend([&self.head[from..*at], insert]);
            from = *at;
        }
        parts.push(&self.head[from..]);
        parts
    }

    fn into_payload(self) -> Payload {
        if self.inserts.is_empty() {
            return self.head.into();
        }
        let inserts = self.inserts.into_iter().map(|(at, bytes)| (at, Box::new(bytes) as Foreign));
        Payload::spliced(self.head, inserts.collect())
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, self.length(), |into| {
            let mut at = 0;
            for part in self.parts() {
                into[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            Ok(())
        })
    }
}

/// A file for picklers, to be used again after each pickle.
#[pyclass(frozen, module = "oxgang._core")]
#[derive(Default)]
pub struct Sink {
    written: Mutex<Written>,
}

#[pymethods]
impl Sink {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes in: long ones by reference, which nobody can change, others by copy.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut written = lock(&self.written);
        if written.head.is_empty() {
            written.head.push(PICKLED);
        }
        let Ok(bytes) = data.cast_exact::<PyBytes>() else {
            // a view of something that only lives for this call
            let buffer = PyBuffer::<u8>::get(data)?;
            let at = written.head.len();
            written.head.resize(at + buffer.len_bytes(), 0);
            buffer.copy_to_slice(data.py(), &mut written.head[at..])?;
            return Ok(buffer.len_bytes());
        };
        let length = bytes.as_bytes().len();
        if length < WORTH_HOLDING {
            written.head.extend_from_slice(bytes.as_bytes());
        } else {
            let at = written.head.len();
            written.inserts.push((at, PyBackedBytes::from(bytes.clone())));
            written.inserted += length;
        }
        Ok(length)
    }

    /// What was written, and nothing is from now on.
    pub fn take(&self) -> Pickle {
        Pickle { written: Mutex::new(std::mem::take(&mut *lock(&self.written))) }
    }

    /// The same, as bytes.
    pub fn take_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let written = std::mem::take(&mut *lock(&self.written));
        written.to_bytes(py)
    }
}

pyo3::create_exception!(
    _core,
    NeedsValue,
    PyException,
    "A function or class of `__main__` was met, whose name means nothing elsewhere."
);

/// A `reducer_override` that raises `NeedsValue` at functions and classes of `__main__`. Asked for
/// every object that is pickled, so it is not Python's.
#[pyfunction]
pub fn stop_at_main<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyNotImplemented>> {
    let py = object.py();
    if (object.is_instance_of::<PyType>() || object.is_instance_of::<PyFunction>())
        && object.getattr(intern!(py, "__module__"))?.eq(intern!(py, "__main__"))?
    {
        return Err(NeedsValue::new_err(()));
    }
    Ok(PyNotImplemented::get(py).to_owned())
}

impl Sink {
    /// What was written, as a payload.
    pub fn take_payload(&self) -> Payload {
        std::mem::take(&mut *lock(&self.written)).into_payload()
    }
}

/// A pickle on its way into a payload.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Pickle {
    written: Mutex<Written>,
}

#[pymethods]
impl Pickle {
    fn __len__(&self) -> usize {
        self.length()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        lock(&self.written).to_bytes(py)
    }
}

impl Pickle {
    /// The payload; this is empty afterwards.
    pub fn take_payload(&self) -> Payload {
        std::mem::take(&mut *lock(&self.written)).into_payload()
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        lock(&self.written).length()
    }
}
