//! Objects as messages of queues and pipes, and back.
//!
//! | first byte | then |
//! |---|---|
//! | `PLAIN` | a plain value, as `codec` writes it |
//! | `PICKLED` | a pickle |
//! | `APART` | seven bytes of nothing; number of buffers, length of the message below, length of each buffer, as words; a message of one of the kinds above; the buffers |
//! | `RAW` | bytes that somebody sent as such: a pickle, if an object is asked for |
//!
//! Long bytes, and the buffers of a pickle, go from the object into the queue's memory without a
//! copy between, and from there into an object of the receiver's own.

use std::cell::Cell;

use oxgang::Payload;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList};

use crate::codec::{self, Encoded, PICKLED, PLAIN};
use crate::payload::{dumped, lend};
use crate::python::names;
use crate::raw::Lent;

const APART: u8 = 2;
const RAW: u8 = 3;

/// Copies from here on are made without the interpreter.
pub const LONG: usize = 1 << 18;
/// A buffer for received messages that is longer is not kept.
const KEPT: usize = 1 << 20;

/// An object, ready to be sent.
pub struct Message<'py> {
    table: Vec<u8>,
    body: Body<'py>,
    lent: Vec<Lent>,
}

enum Body<'py> {
    Plain(Encoded<'py>),
    Pickle(Payload),
    Bytes(Lent, std::ops::Range<usize>),
}

impl<'py> Message<'py> {
    /// Of any object.
    pub fn of(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Some(encoded) = codec::encode([value]) {
            let lent = lend(&encoded.apart)?;
            return Ok(Self::with(Body::Plain(encoded), lent));
        }
        let (pickle, apart) = dumped(&names(value.py())?.dump_result, value)?;
        Ok(Self::with(Body::Pickle(pickle.get().take_payload()), lend(&apart)?))
    }

    /// Of a part of an object's bytes, as they are.
    pub fn of_bytes(bytes: Lent, part: std::ops::Range<usize>) -> Self {
        Self::with(Body::Bytes(bytes, part), Vec::new())
    }

    fn with(body: Body<'py>, lent: Vec<Lent>) -> Self {
        let mut message = Self { table: Vec::new(), body, lent };
        if !message.lent.is_empty() {
            let length: usize = message.body_parts().iter().map(|part| part.len()).sum();
            let lengths = message.lent.iter().map(|lent| lent.as_ref().len());
            let words = [message.lent.len(), length].into_iter().chain(lengths);
            let words = words.flat_map(|word| (word as u64).to_le_bytes());
            message.table = [APART, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(words).collect();
        }
        message
    }

    fn body_parts(&self) -> Vec<&[u8]> {
        match &self.body {
            // their first byte is the kind
            Body::Plain(encoded) => encoded.parts(),
            Body::Pickle(pickle) => pickle.parts(),
            Body::Bytes(bytes, part) => vec![&[RAW], &bytes.as_ref()[part.clone()]],
        }
    }

    /// All of it, if that is short and in one piece.
    pub fn short(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Plain(encoded) => encoded.short(),
            _ => None,
        }
    }

    /// All of it, in parts.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(3 + self.lent.len());
        if !self.table.is_empty() {
            parts.push(&self.table[..]);
        }
        parts.extend(self.body_parts());
        parts.extend(self.lent.iter().map(Lent::as_ref));
        parts
    }
}

/// What a message's parts come to.
pub fn length_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// What the memory's refusal of a message means.
pub fn no_memory(error: &std::io::Error, length: usize) -> PyErr {
    match error.kind() {
        std::io::ErrorKind::Other => PyOSError::new_err(error.to_string()),
        _ => PyMemoryError::new_err(format!("no shared memory for {length} bytes: {error}")),
    }
}

fn torn() -> PyErr {
    PyValueError::new_err("the message is torn")
}

fn word(bytes: &[u8], number: usize) -> PyResult<usize> {
    let word = bytes.get(number * 8..).and_then(|rest| rest.first_chunk());
    let word = word.map(|word| u64::from_le_bytes(*word)).ok_or_else(torn)?;
    usize::try_from(word).map_err(|_| torn())
}

/// The message within, and its buffers.
fn taken_apart(bytes: &[u8]) -> PyResult<(&[u8], Vec<&[u8]>)> {
    if bytes.first() != Some(&APART) {
        return Ok((bytes, Vec::new()));
    }
    let count = word(bytes, 1)?;
    let end = count.checked_add(3).and_then(|words| words.checked_mul(8));
    let table_and_rest = end.and_then(|end| bytes.split_at_checked(end));
    let (table, mut rest) = table_and_rest.ok_or_else(torn)?;
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length).ok_or_else(torn)?;
        rest = left;
        Ok::<_, PyErr>(taken)
    };
    let body = take(word(table, 2)?)?;
    let buffers = (0..count).map(|number| take(word(table, 3 + number)?));
    Ok((body, buffers.collect::<PyResult<_>>()?))
}

/// The object that a message is.
pub fn to_value<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let (body, buffers) = taken_apart(message)?;
    let (kind, mut rest) = body.split_first().ok_or_else(torn)?;
    if *kind == PLAIN {
        let [value] = codec::decode(py, &mut rest, &buffers)?;
        return Ok(value);
    }
    let loads = names(py)?.loads.bind(py);
    let pickle = PyBytes::new(py, rest);
    if buffers.is_empty() {
        return loads.call1((pickle,));
    }
    let owned = PyList::empty(py);
    for buffer in buffers {
        owned.append(PyByteArray::new(py, buffer))?;
    }
    let options = PyDict::new(py);
    options.set_item(pyo3::intern!(py, "buffers"), owned)?;
    loads.call((pickle,), Some(&options))
}

/// The bytes that a message is: those that were sent as such, or else a pickle of the object.
pub fn to_bytes<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    match message.split_first() {
        Some((&(RAW | PICKLED), rest)) => Ok(PyBytes::new(py, rest)),
        _ => {
            let value = to_value(py, message)?;
            Ok(names(py)?.dumps_back.bind(py).call1((value,))?.cast_into()?)
        }
    }
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends this thread's buffer for a message. What uses it may run Python code: who needs one
/// meanwhile gets another.
pub fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = BUFFER.take();
    let result = work(&mut buffer);
    if buffer.capacity() <= KEPT {
        BUFFER.set(buffer);
    }
    result
}
