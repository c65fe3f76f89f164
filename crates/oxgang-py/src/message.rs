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
//! copy between, and from there into an object of the receiver's own. If they are long enough they
//! come apart ([`oxgang::shelf`]): then the message ends before them, and the receiver's buffers are
//! where they are already.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use oxgang::Payload;
use oxgang::shelf::{self, Apart, Came};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyTuple};

use crate::codec::{self, Block, Encoded, Mains, PICKLED, PLAIN};
use crate::payload::lend;
use crate::picklers::{Kind, dumped};
use crate::python::names;
use crate::raw::{self, Buffer, Lent};

const APART: u8 = 2;
const RAW: u8 = 3;
const BYTES: u8 = 4;
/// What comes before the bytes of such a message.
const BEFORE_BYTES: [u8; 8] = [BYTES, 0, 0, 0, 0, 0, 0, 0];
/// Shorter ones are like any other value.
const LONG_BYTES: usize = 1 << 12;

/// Copies from here on are made without the interpreter.
pub const LONG: usize = 1 << 18;
/// Shorter buffers are copied, so that they do not keep all that came with them.
const WORTH_LOOKING: usize = 1 << 16;
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
        match Self::plain([value])? {
            Some(message) => Ok(message),
            None => Self::pickled(value),
        }
    }

    /// Of several, as a tuple.
    pub fn of_several<const N: usize>(
        py: Python<'py>,
        values: [&Bound<'py, PyAny>; N],
    ) -> PyResult<Self> {
        match Self::plain(values)? {
            Some(message) => Ok(message),
            None => Self::pickled(PyTuple::new(py, values)?.as_any()),
        }
    }

    fn plain<const N: usize>(values: [&Bound<'py, PyAny>; N]) -> PyResult<Option<Self>> {
        let Some(encoded) = codec::encode(values, Mains::ByName)? else { return Ok(None) };
        let lent = lend(&encoded.apart)?;
        Ok(Some(Self::with(Body::Plain(encoded), lent)))
    }

    fn pickled(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (pickle, apart) = dumped(Kind::Result, value)?;
        Ok(Self::with(Body::Pickle(pickle), lend(&apart)?))
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
            Body::Long(_) => vec![&BEFORE_BYTES],
            Body::Bytes(..) => vec![&[RAW]],
        }
    }

    /// All of it, if that is short and in one piece.
    pub fn short(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Plain(encoded) => encoded.short(),
            _ => None,
        }
    }

    /// What goes in line.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(3);
        if !self.table.is_empty() {
            parts.push(&self.table[..]);
        }
        parts.extend(self.body_parts());
        parts
    }

    /// What comes behind it, or goes apart.
    pub fn apart(&self) -> Vec<&[u8]> {
        match &self.body {
            Body::Long(bytes) => vec![bytes.as_bytes()],
            Body::Bytes(bytes, part) => vec![&bytes.as_ref()[part.clone()]],
            _ => self.lent.iter().map(Lent::as_ref).collect(),
        }
    }
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

/// Bytes that went apart: where they came with the message, or in what came apart from it.
enum Piece<'a> {
    Near(&'a [u8]),
    Far(&'a Arc<Apart>, Range<usize>),
}

impl Piece<'_> {
    /// As memory of the receiver's own.
    fn to_buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Near(bytes) => Ok(PyByteArray::new(py, bytes).into_any()),
            Self::Far(apart, part) if part.len() >= WORTH_LOOKING => {
                Ok(Bound::new(py, Buffer::part_of(apart, part.clone()))?.into_any())
            }
            Self::Far(..) => {
                Ok(PyByteArray::new_with(py, self.length(), |into| Ok(self.copy(into)?))?
                    .into_any())
            }
        }
    }
}

impl codec::Block for Piece<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Near(bytes) => bytes.len(),
            Self::Far(_, part) => part.len(),
        }
    }
    fn copy(&self, into: &mut [u8]) -> std::io::Result<()> {
        match self {
            Self::Near(bytes) => into.copy_from_slice(bytes),
            Self::Far(apart, part) => apart.mapping().read(part.start, into),
        }
        Ok(())
    }
}

/// The message within, and its buffers.
fn taken_apart<'a>(
    bytes: &'a [u8],
    apart: Option<&'a Arc<Apart>>,
) -> PyResult<(&'a [u8], Vec<Piece<'a>>)> {
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
    let lengths = (0..count).map(|number| word(table, 3 + number));
    let Some(apart) = apart else {
        let pieces = lengths.map(|length| Ok(Piece::Near(take(length?)?)));
        return Ok((body, pieces.collect::<PyResult<_>>()?));
    };
    let lengths = lengths.collect::<PyResult<Vec<_>>>()?;
    let (places, end) = shelf::places(lengths.iter().copied()).ok_or_else(torn)?;
    if end != apart.mapping().length() {
        return Err(torn());
    }
    let parts = places.into_iter().zip(lengths).map(|(from, length)| from..from + length);
    Ok((body, parts.map(|part| Piece::Far(apart, part)).collect()))
}

/// How many bytes came apart from a message, if some did.
pub fn length_apart(message: &[u8]) -> PyResult<usize> {
    if message.first() != Some(&APART) {
        return Err(torn());
    }
    let count = word(message, 1)?;
    let lengths = (0..count).map(|number| word(message, 3 + number));
    let lengths = lengths.collect::<PyResult<Vec<_>>>()?;
    Ok(shelf::places(lengths).ok_or_else(torn)?.1)
}

/// The several objects that a message is.
pub fn to_several<'py, const N: usize>(
    py: Python<'py>,
    message: &[u8],
    apart: Option<&Arc<Apart>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let (body, buffers) = taken_apart(message, apart)?;
    match body.split_first() {
        Some((&PLAIN, mut rest)) => {
            PyTuple::new(py, codec::decode::<_, N>(py, &mut rest, &buffers)?)
        }
        Some((&PICKLED, rest)) => Ok(unpickled(PyBytes::new(py, rest), &buffers)?.cast_into()?),
        _ => Err(PyOSError::new_err("a message in an unknown encoding")),
    }
}

/// All that came apart, as `bytes`.
fn all_of<'py>(py: Python<'py>, apart: &Apart) -> PyResult<Bound<'py, PyBytes>> {
    raw::bytes_of(py, apart, 0..apart.mapping().length())
}

/// The object that a message is; `apart`: what came apart from it.
fn to_value<'py>(
    py: Python<'py>,
    message: &[u8],
    apart: Option<&Arc<Apart>>,
) -> PyResult<Bound<'py, PyAny>> {
    if message.first() == Some(&BYTES) {
        return Ok(match apart {
            Some(apart) => all_of(py, apart)?.into_any(),
            None => {
                let bytes = message.get(BEFORE_BYTES.len()..).ok_or_else(torn)?;
                PyBytes::new(py, bytes).into_any()
            }
        });
    }
    let (body, buffers) = taken_apart(message, apart)?;
    let (kind, mut rest) = body.split_first().ok_or_else(torn)?;
    if *kind == PLAIN {
        let [value] = codec::decode(py, &mut rest, &buffers)?;
        return Ok(value);
    }
    let pickle = match (*kind, apart) {
        // read from a copy of our own: nobody can change it while it is looked at
        (RAW, Some(apart)) => all_of(py, apart)?,
        _ => PyBytes::new(py, rest),
    };
    unpickled(pickle, &buffers)
}

fn unpickled<'py>(
    pickle: Bound<'py, PyBytes>,
    buffers: &[Piece<'_>],
) -> PyResult<Bound<'py, PyAny>> {
    let py = pickle.py();
    let loads = names(py)?.loads.bind(py);
    if buffers.is_empty() {
        return loads.call1((pickle,));
    }
    let owned = PyList::empty(py);
    for buffer in buffers {
        owned.append(buffer.to_buffer(py)?)?;
    }
    let options = PyDict::new(py);
    options.set_item(pyo3::intern!(py, "buffers"), owned)?;
    loads.call((pickle,), Some(&options))
}

/// The bytes that a message is: those that were sent as such, or else a pickle of the object.
fn to_bytes<'py>(
    py: Python<'py>,
    message: &[u8],
    apart: Option<&Arc<Apart>>,
) -> PyResult<Bound<'py, PyBytes>> {
    match (message.split_first(), apart) {
        (Some((&RAW, _)), Some(apart)) => all_of(py, apart),
        (Some((&(RAW | PICKLED), rest)), _) => Ok(PyBytes::new(py, rest)),
        _ => to_pickle(&to_value(py, message, apart)?),
    }
}

fn to_pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    Ok(names(py)?.dumps_back.bind(py).call1((value,))?.cast_into()?)
}

/// What has been received: an object already, or its message, in a buffer.
pub struct Received<'py, 'a> {
    py: Python<'py>,
    pub message: Taken<'a>,
    bytes: Option<Bound<'py, PyBytes>>,
}

/// A message as it was taken out.
pub struct Taken<'a> {
    buffer: &'a mut Vec<u8>,
    apart: Option<Arc<Apart>>,
}

impl Taken<'_> {
    /// Takes a message out.
    pub fn take(&mut self, came: Came<'_>) -> std::io::Result<()> {
        came.copy(self.buffer)?;
        self.apart = came.apart.map(Arc::new);
        Ok(())
    }
}

impl<'py, 'a> Received<'py, 'a> {
    pub fn new(py: Python<'py>, buffer: &'a mut Vec<u8>) -> Self {
        Self { py, message: Taken { buffer, apart: None }, bytes: None }
    }

    /// Takes a message out with a lock of the queue's held: no code of Python's may run. Long bytes
    /// are copied to where they stay, since to make a `bytes` runs none.
    pub fn take(&mut self, came: Came<'_>) -> std::io::Result<()> {
        let mut first = [0];
        if came.length() >= LONG_BYTES {
            came.read(0, &mut first);
        }
        if first[0] == BYTES {
            let length = came.length() - BEFORE_BYTES.len();
            let made = PyBytes::new_with(self.py, length, |into| {
                came.read(BEFORE_BYTES.len(), into);
                Ok(())
            });
            self.bytes = Some(made.map_err(std::io::Error::other)?);
            return Ok(());
        }
        self.message.take(came)
    }

    /// The object.
    pub fn value(self) -> PyResult<Bound<'py, PyAny>> {
        match self.bytes {
            Some(bytes) => Ok(bytes.into_any()),
            None => to_value(self.py, self.message.buffer, self.message.apart.as_ref()),
        }
    }

    /// Its bytes, as [`to_bytes`].
    pub fn bytes(self) -> PyResult<Bound<'py, PyBytes>> {
        match self.bytes {
            Some(bytes) => to_pickle(&bytes.into_any()),
            None => to_bytes(self.py, self.message.buffer, self.message.apart.as_ref()),
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
