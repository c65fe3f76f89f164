//! Objects as messages of queues and pipes, and back.
//!
//! | first byte | then |
//! |---|---|
//! | `PLAIN` | a plain value, as `codec` writes it |
//! | `PICKLED` | a pickle |
//! | `APART` | seven bytes of nothing; number of buffers, length of the message below, length of each buffer, as words; a message of one of the kinds above; the buffers |
//! | `RAW` | bytes that somebody sent as such: a pickle, if an object is asked for |
//! | `BYTES` | seven bytes of nothing, and a long `bytes` |
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
const BYTES: u8 = 4;
/// What comes before the bytes of such a message.
const BEFORE_BYTES: [u8; 8] = [BYTES, 0, 0, 0, 0, 0, 0, 0];
/// Shorter ones are like any other value.
const LONG_BYTES: usize = 1 << 12;

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
    Long(Bound<'py, PyBytes>),
    Bytes(Lent, std::ops::Range<usize>),
}

impl<'py> Message<'py> {
    /// Of any object.
    pub fn of(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast_exact::<PyBytes>()
            && bytes.as_bytes().len() >= LONG_BYTES
        {
            return Ok(Self::with(Body::Long(bytes.clone()), Vec::new()));
        }
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
            Body::Long(bytes) => vec![&BEFORE_BYTES, bytes.as_bytes()],
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
    if message.first() == Some(&BYTES) {
        let bytes = message.get(BEFORE_BYTES.len()..).ok_or_else(torn)?;
        return Ok(PyBytes::new(py, bytes).into_any());
    }
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
        _ => to_pickle(&to_value(py, message)?),
    }
}

fn to_pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    Ok(names(py)?.dumps_back.bind(py).call1((value,))?.cast_into()?)
}

/// What has been received: an object already, or its message, in a buffer.
pub struct Received<'py, 'a> {
    py: Python<'py>,
    pub buffer: &'a mut Vec<u8>,
    bytes: Option<Bound<'py, PyBytes>>,
}

impl<'py, 'a> Received<'py, 'a> {
    pub fn new(py: Python<'py>, buffer: &'a mut Vec<u8>) -> Self {
        Self { py, buffer, bytes: None }
    }

    /// Copies a message of so many bytes by `read`, with a lock of the queue's held: no code of
    /// Python's may run. Long bytes are copied to where they stay, since to make a `bytes` runs none.
    pub fn take(&mut self, length: usize, read: &dyn Fn(usize, &mut [u8])) -> std::io::Result<()> {
        let mut first = [0];
        if length >= LONG_BYTES {
            read(0, &mut first);
        }
        if first[0] == BYTES {
            let length = length - BEFORE_BYTES.len();
            let made = PyBytes::new_with(self.py, length, |into| {
                read(BEFORE_BYTES.len(), into);
                Ok(())
            });
            self.bytes = Some(made.map_err(std::io::Error::other)?);
            return Ok(());
        }
        if self.buffer.capacity() < length {
            self.buffer.clear();
            self.buffer.try_reserve(length).map_err(std::io::Error::other)?;
        }
        // what is there is written over, not emptied before
        self.buffer.resize(length, 0);
        read(0, self.buffer);
        Ok(())
    }

    /// The object.
    pub fn value(self) -> PyResult<Bound<'py, PyAny>> {
        match self.bytes {
            Some(bytes) => Ok(bytes.into_any()),
            None => to_value(self.py, self.buffer),
        }
    }

    /// Its bytes, as [`to_bytes`].
    pub fn bytes(self) -> PyResult<Bound<'py, PyBytes>> {
        match self.bytes {
            Some(bytes) => to_pickle(&bytes.into_any()),
            None => to_bytes(self.py, self.buffer),
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
