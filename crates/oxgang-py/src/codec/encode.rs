//! Values to bytes.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

use oxgang::wire::MOST_ATTACHED;
use oxgang::{Foreign, Payload};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

use super::classes::{self, Class, Mains};
use super::{DEEPEST, LONGEST, PLAIN};
use crate::raw::{self, is_shared};

const MOST: usize = 1 << 20;
/// Longer bytes are not copied on their way to the other process's memory.
const WORTH_LEAVING: usize = 1 << 12;
/// Shorter texts and bytes are repeated: to refer to them would cost as much.
const WORTH_REMEMBERING: usize = 128;
/// Items of a list or dict are held by it and, while they are looked at, by the iterator.
const HELD_TWICE: isize = 2;

/// Values as bytes, and what could not be copied to stand among them.
#[derive(Default)]
pub struct Encoded<'py> {
    bytes: Vec<u8>,
    left: Vec<(usize, Bound<'py, PyBytes>)>,
    /// Long bytes and bytearrays that go apart, in blocks of their own.
    pub apart: Vec<Bound<'py, PyAny>>,
}

impl Encoded<'_> {
    /// Whether it holds no more than a call's few bytes.
    pub fn is_short(&self) -> bool {
        self.bytes.len() < WORTH_LEAVING && self.left.is_empty() && self.apart.is_empty()
    }

    /// The bytes in their parts, without what goes apart.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.left.len() + 1);
        let mut from = 0;
        for (at, bytes) in &self.left {
            parts.extend([&self.bytes[from..*at], bytes.as_bytes()]);
            from = *at;
        }
        parts.push(&self.bytes[from..]);
        parts
    }

    /// The bytes, if they are few and all there is.
    pub fn short(&self) -> Option<&[u8]> {
        self.is_short().then_some(&self.bytes)
    }

    /// The bytes as a payload, without what goes apart.
    pub fn into_payload(self) -> Payload {
        let foreign = |bytes| -> Foreign { Box::new(PyBackedBytes::from(bytes)) };
        let left = self.left.into_iter().map(|(at, bytes)| (at, foreign(bytes)));
        Payload::spliced(self.bytes, left.collect())
    }
}

/// The values, one after the other; `None` if one is not plain. An error: an interruption of the
/// thread, which is nobody's fault here.
pub fn encode<'py, const N: usize>(
    values: [&Bound<'py, PyAny>; N],
    mains: Mains,
) -> PyResult<Option<Encoded<'py>>> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(PLAIN);
    let into = Encoded { bytes, ..Encoded::default() };
    let (seen, numbers) = (HashSet::default(), HashMap::default());
    let (classes, shapes, error) = (Vec::new(), 0, None);
    let mut encoder = Encoder { into, room: MOST, seen, numbers, mains, classes, shapes, error };
    let all = values.iter().all(|value| encoder.put(value, DEEPEST, false));
    match encoder.error {
        None => Ok(all.then_some(encoder.into)),
        Some(error) => Err(error),
    }
}

/// Addresses are spread well enough by one multiplication.
#[derive(Default)]
struct AddressHasher(u64);

impl std::hash::Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }
    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

type ByAddress = BuildHasherDefault<AddressHasher>;

struct Encoder<'py> {
    into: Encoded<'py>,
    room: usize,
    /// Lists and dicts that may come again, by address.
    seen: HashSet<usize, ByAddress>,
    /// Numbers of what was remembered, by address.
    numbers: HashMap<usize, u32, ByAddress>,
    mains: Mains,
    /// Classes of which there are instances, by address. While values are written no code of
    /// Python's runs but what makes a definition: what was seen of a class holds.
    classes: Vec<Known>,
    /// How many different shapes are written.
    shapes: u32,
    /// What ended it.
    error: Option<PyErr>,
}

/// A class of which there are instances.
struct Known {
    address: usize,
    class: Arc<Class>,
    /// Where its last shape is written, and the number of that.
    shape: Option<(Range<usize>, u32)>,
}

impl<'py> Encoder<'py> {
    /// `shared`: the value may come again.
    fn put(&mut self, value: &Bound<'py, PyAny>, depth: u32, shared: bool) -> bool {
        if self.room == 0 || depth == 0 {
            return false;
        }
        self.room -= 1;
        if value.is_none() {
            self.tag(b'N')
        } else if let Ok(value) = value.cast_exact::<PyInt>() {
            let Ok(number) = value.extract::<i64>() else { return false };
            if let Ok(small) = i8::try_from(number) {
                self.into.bytes.extend_from_slice(&[b'j', small as u8]);
                return true;
            }
            self.number(b'i', number.to_le_bytes())
        } else if let Ok(text) = value.cast_exact::<PyString>() {
            // a lone surrogate has no UTF-8
            let Ok(bytes) = text.to_str() else { return false };
            let long = bytes.len() > WORTH_REMEMBERING && shared;
            if bytes.len() > LONGEST {
                return false;
            }
            long && self.refer(value) || {
                self.count(b's', bytes.len());
                self.into.bytes.extend_from_slice(bytes.as_bytes());
                !long || self.remember(value)
            }
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            shared && self.refer(value) || {
                self.count(b'(', tuple.len());
                // a tuple's items are looked at without being held
                tuple.iter_borrowed().all(|item| {
                    let item = item.as_any();
                    self.put(item, depth - 1, is_shared(item, 1))
                }) && (!shared || self.remember(value))
            }
        } else if let Ok(value) = value.cast_exact::<PyFloat>() {
            self.number(b'f', value.value().to_le_bytes())
        } else if let Ok(value) = value.cast_exact::<PyBool>() {
            self.tag(if value.is_true() { b'T' } else { b'F' })
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            let length = bytes.as_bytes().len();
            if length > WORTH_REMEMBERING && shared && self.refer(value) {
                return true;
            }
            let apart = length > LONGEST && self.apart(b'B', value);
            if !apart {
                if u32::try_from(length).is_err() {
                    return false;
                }
                self.count(b'b', length);
                if length < WORTH_LEAVING {
                    self.into.bytes.extend_from_slice(bytes.as_bytes());
                } else {
                    self.into.left.push((self.into.bytes.len(), bytes.clone()));
                }
            }
            length <= WORTH_REMEMBERING || !shared || self.remember(value)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            if list.len() > self.room || !self.is_first(value, shared) {
                return false;
            }
            self.count(b'[', list.len());
            list.iter().all(|item| self.put(&item, depth - 1, is_shared(&item, HELD_TWICE)))
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            if dict.len() > self.room || !self.is_first(value, shared) {
                return false;
            }
            self.count(b'{', dict.len());
            dict.iter().all(|(key, item)| {
                self.put(&key, depth - 1, is_shared(&key, HELD_TWICE))
                    && self.put(&item, depth - 1, is_shared(&item, HELD_TWICE))
            })
        } else if let Ok(bytes) = value.cast_exact::<PyByteArray>() {
            bytes.len() > LONGEST && self.is_first(value, shared) && self.apart(b'Y', value)
        } else {
            self.instance(value, depth, shared)
        }
    }

    fn instance(&mut self, value: &Bound<'py, PyAny>, depth: u32, shared: bool) -> bool {
        let Some(known) = self.known(value) else { return false };
        let Ok(dict) = raw::instance_dict(value) else { return false };
        if dict.len() > self.room || !self.is_first(value, shared) {
            return false;
        }
        self.count(b'O', 0);
        let from = self.into.bytes.len();
        self.into.bytes.extend_from_slice(&self.classes[known].class.reference);
        let mut values = Vec::with_capacity(dict.len());
        for (name, value) in dict.iter() {
            let Ok(name) = name.cast_exact::<PyString>() else { return false };
            let Ok(name) = name.to_str() else { return false };
            // what pickle asks for may stand in an instance's dict, too
            if name.starts_with("__") || name.is_empty() || name.contains('\0') {
                return false;
            }
            self.into.bytes.extend_from_slice(name.as_bytes());
            self.into.bytes.push(0);
            values.push(value);
        }
        let length = self.into.bytes.len() - from;
        if length > LONGEST {
            return false;
        }
        self.into.bytes[from - 4..from].copy_from_slice(&(length as u32).to_le_bytes());
        self.shorten(known, from);
        values.iter().all(|value| self.put(value, depth - 1, is_shared(value, HELD_TWICE)))
    }

    /// If the shape that was written last, from there on, is the same as that class's before, it is
    /// referred to.
    fn shorten(&mut self, known: usize, from: usize) {
        let bytes = &mut self.into.bytes;
        let last = &mut self.classes[known].shape;
        match last {
            Some((place, number)) if bytes[place.clone()] == bytes[from..] => {
                let number = *number;
                bytes.truncate(from - 5);
                self.count(b'o', number as usize);
            }
            _ => {
                *last = Some((from..bytes.len(), self.shapes));
                self.shapes += 1;
            }
        }
    }

    /// Which of the known classes that of an instance is, if it is plain; its definition comes
    /// first, if it needs one.
    fn known(&mut self, value: &Bound<'py, PyAny>) -> Option<usize> {
        let class = value.get_type();
        let address = class.as_ptr() as usize;
        if let Some(known) = self.classes.iter().position(|known| known.address == address) {
            return Some(known);
        }
        let class = classes::of(&class, self.mains).unwrap_or_else(|error| {
            self.error = Some(error);
            None
        })?;
        if let Some((id, definition)) = class.definition() {
            self.tag(b'K');
            self.into.bytes.extend_from_slice(id);
            self.into.bytes.extend_from_slice(&(definition.len() as u32).to_le_bytes());
            self.into.bytes.extend_from_slice(definition);
        }
        self.classes.push(Known { address, class, shape: None });
        Some(self.classes.len() - 1)
    }

    fn tag(&mut self, tag: u8) -> bool {
        self.into.bytes.push(tag);
        true
    }

    fn number(&mut self, tag: u8, bytes: [u8; 8]) -> bool {
        self.into.bytes.push(tag);
        self.into.bytes.extend_from_slice(&bytes);
        true
    }

    fn count(&mut self, tag: u8, count: usize) {
        self.into.bytes.push(tag);
        self.into.bytes.extend_from_slice(&(count as u32).to_le_bytes());
    }

    /// `false`: as much as may has gone apart already.
    fn apart(&mut self, tag: u8, value: &Bound<'py, PyAny>) -> bool {
        let room = self.into.apart.len() < MOST_ATTACHED;
        if room {
            self.count(tag, self.into.apart.len());
            self.into.apart.push(value.clone());
        }
        room
    }

    fn is_first(&mut self, value: &Bound<'py, PyAny>, shared: bool) -> bool {
        !shared || self.seen.insert(value.as_ptr() as usize)
    }

    /// Refers to the value if it has come before; else what follows is to be remembered.
    fn refer(&mut self, value: &Bound<'py, PyAny>) -> bool {
        match self.numbers.get(&(value.as_ptr() as usize)) {
            Some(&number) => {
                self.count(b'r', number as usize);
                true
            }
            None => {
                self.tag(b'M');
                false
            }
        }
    }

    fn remember(&mut self, value: &Bound<'py, PyAny>) -> bool {
        let number = self.numbers.len() as u32;
        // a tuple that holds itself (through C alone) would have run out of depth
        self.numbers.insert(value.as_ptr() as usize, number);
        true
    }
}
