//! Plain values as bytes, without pickle: `None`, `bool`, `int`, `float`, `str`, `bytes`, and
//! small tuples, lists and dicts of them.
//!
//! Only what comes back exactly as pickle would bring it: exact built-in types, never a
//! subclass; each list or dict once (pickle keeps two mentions of one list one list, and knows
//! cycles), in bounded depth and number. Everything else is pickle's.
//!
//! Long bytes and bytearrays do not stand among the others: they go apart, and only their place in
//! the list of what went apart is encoded.
//!
//! A payload's first byte says which: [`PLAIN`] or [`PICKLED`].

use std::sync::Arc;

use oxgang::store::Received;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

/// The payload is in this module's encoding.
pub const PLAIN: u8 = 0;
/// The payload is a pickle.
pub const PICKLED: u8 = 1;

const DEEPEST: u32 = 8;
const MOST: usize = 256;
/// Longer strings go to pickle, which copies them as fast; longer bytes go apart.
const LONGEST: usize = 1 << 16;

/// Appends the value, and to `apart` what goes apart; `false` if it is not plain (what was appended
/// is then to be dropped).
pub fn encode<'py>(
    value: &Bound<'py, PyAny>,
    into: &mut Vec<u8>,
    apart: &mut Vec<Bound<'py, PyAny>>,
) -> bool {
    Encoder { into, apart, room: MOST, seen: Vec::new() }.put(value, DEEPEST)
}

struct Encoder<'a, 'py> {
    into: &'a mut Vec<u8>,
    apart: &'a mut Vec<Bound<'py, PyAny>>,
    room: usize,
    /// Lists and dicts so far, by address.
    seen: Vec<usize>,
}

impl<'py> Encoder<'_, 'py> {
    fn put(&mut self, value: &Bound<'py, PyAny>, depth: u32) -> bool {
        if self.room == 0 || depth == 0 {
            return false;
        }
        self.room -= 1;
        if value.is_none() {
            self.into.push(b'N');
        } else if let Ok(value) = value.cast_exact::<PyInt>() {
            let Ok(number) = value.extract::<i64>() else { return false };
            if let Ok(small) = i8::try_from(number) {
                self.into.extend_from_slice(&[b'j', small as u8]);
            } else {
                self.into.push(b'i');
                self.into.extend_from_slice(&number.to_le_bytes());
            }
        } else if let Ok(value) = value.cast_exact::<PyString>() {
            // a lone surrogate has no UTF-8
            return value.to_str().is_ok_and(|text| self.put_bytes(b's', text.as_bytes()));
        } else if let Ok(value) = value.cast_exact::<PyTuple>() {
            put_count(b'(', value.len(), self.into);
            return value.iter_borrowed().all(|item| self.put(&item, depth - 1));
        } else if let Ok(value) = value.cast_exact::<PyFloat>() {
            self.into.push(b'f');
            self.into.extend_from_slice(&value.value().to_le_bytes());
        } else if let Ok(value) = value.cast_exact::<PyBool>() {
            self.into.push(if value.is_true() { b'T' } else { b'F' });
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            if bytes.as_bytes().len() > LONGEST {
                self.put_apart(b'B', value);
            } else {
                return self.put_bytes(b'b', bytes.as_bytes());
            }
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            if list.len() > self.room || !self.is_first(value) {
                return false;
            }
            put_count(b'[', list.len(), self.into);
            return list.iter().all(|item| self.put(&item, depth - 1));
        } else if let Ok(bytes) = value.cast_exact::<PyByteArray>() {
            if bytes.len() <= LONGEST || !self.is_first(value) {
                return false;
            }
            self.put_apart(b'Y', value);
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            if dict.len() > self.room || !self.is_first(value) {
                return false;
            }
            put_count(b'{', dict.len(), self.into);
            return dict
                .iter()
                .all(|(key, item)| self.put(&key, depth - 1) && self.put(&item, depth - 1));
        } else {
            return false;
        }
        true
    }

    fn is_first(&mut self, value: &Bound<'_, PyAny>) -> bool {
        let address = value.as_ptr() as usize;
        let first = !self.seen.contains(&address);
        self.seen.push(address);
        first
    }

    fn put_apart(&mut self, tag: u8, value: &Bound<'py, PyAny>) {
        put_count(tag, self.apart.len(), self.into);
        self.apart.push(value.clone());
    }

    fn put_bytes(&mut self, tag: u8, bytes: &[u8]) -> bool {
        if bytes.len() > LONGEST {
            return false;
        }
        put_count(tag, bytes.len(), self.into);
        self.into.extend_from_slice(bytes);
        true
    }
}

fn put_count(tag: u8, count: usize, into: &mut Vec<u8>) {
    into.push(tag);
    into.extend_from_slice(&(count as u32).to_le_bytes());
}

/// Reads one value; gives what is left of the bytes too.
pub fn decode<'py, 'b>(
    py: Python<'py>,
    bytes: &'b [u8],
    apart: &[Arc<Received>],
) -> PyResult<(Bound<'py, PyAny>, &'b [u8])> {
    Decoder { py, apart }.get(bytes, DEEPEST + 1)
}

struct Decoder<'py, 'a> {
    py: Python<'py>,
    apart: &'a [Arc<Received>],
}

fn torn() -> PyErr {
    PyValueError::new_err("the encoded value is torn")
}

fn take(bytes: &[u8], count: usize) -> PyResult<(&[u8], &[u8])> {
    bytes.split_at_checked(count).ok_or_else(torn)
}

fn counted(bytes: &[u8]) -> PyResult<(usize, &[u8])> {
    let (count, rest) = take(bytes, 4)?;
    let count = u32::from_le_bytes(count.try_into().map_err(|_| torn())?) as usize;
    // a value takes a byte at least: a count beyond what is there is nonsense
    if count > rest.len() { Err(torn()) } else { Ok((count, rest)) }
}

impl<'py> Decoder<'py, '_> {
    fn get<'b>(&self, bytes: &'b [u8], depth: u32) -> PyResult<(Bound<'py, PyAny>, &'b [u8])> {
        let py = self.py;
        let (&tag, rest) = bytes.split_first().ok_or_else(torn)?;
        if depth == 0 {
            return Err(torn());
        }
        Ok(match tag {
            b'N' => (py.None().into_bound(py), rest),
            b'T' => (PyBool::new(py, true).to_owned().into_any(), rest),
            b'F' => (PyBool::new(py, false).to_owned().into_any(), rest),
            b'j' => {
                let (byte, rest) = take(rest, 1)?;
                ((byte[0] as i8).into_pyobject(py)?.into_any(), rest)
            }
            b'i' => {
                let (number, rest) = take(rest, 8)?;
                let number = i64::from_le_bytes(number.try_into().map_err(|_| torn())?);
                (number.into_pyobject(py)?.into_any(), rest)
            }
            b'f' => {
                let (number, rest) = take(rest, 8)?;
                let number = f64::from_le_bytes(number.try_into().map_err(|_| torn())?);
                (PyFloat::new(py, number).into_any(), rest)
            }
            b's' => {
                let (count, rest) = counted(rest)?;
                let (text, rest) = take(rest, count)?;
                let text = std::str::from_utf8(text).map_err(|_| torn())?;
                (PyString::new(py, text).into_any(), rest)
            }
            b'b' => {
                let (count, rest) = counted(rest)?;
                let (content, rest) = take(rest, count)?;
                (PyBytes::new(py, content).into_any(), rest)
            }
            b'B' | b'Y' => {
                let (index, rest) = take(rest, 4)?;
                let index = u32::from_le_bytes(index.try_into().map_err(|_| torn())?) as usize;
                let block = self.apart.get(index).ok_or_else(torn)?;
                let fill = |into: &mut [u8]| block.read(0, into).map_err(PyOSError::new_err);
                let value = if tag == b'B' {
                    PyBytes::new_with(py, block.length(), fill)?.into_any()
                } else {
                    PyByteArray::new_with(py, block.length(), fill)?.into_any()
                };
                (value, rest)
            }
            b'(' | b'[' => {
                let (count, mut rest) = counted(rest)?;
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    let (item, left) = self.get(rest, depth - 1)?;
                    items.push(item);
                    rest = left;
                }
                let whole = if tag == b'(' {
                    PyTuple::new(py, items)?.into_any()
                } else {
                    PyList::new(py, items)?.into_any()
                };
                (whole, rest)
            }
            b'{' => {
                let (count, mut rest) = counted(rest)?;
                let dict = PyDict::new(py);
                for _ in 0..count {
                    let (key, left) = self.get(rest, depth - 1)?;
                    let (item, left) = self.get(left, depth - 1)?;
                    dict.set_item(key, item)?;
                    rest = left;
                }
                (dict.into_any(), rest)
            }
            _ => return Err(torn()),
        })
    }
}
