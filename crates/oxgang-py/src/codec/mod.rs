//! Plain values as bytes, without pickle: `None`, `bool`, `int`, `float`, `str`, `bytes`, tuples,
//! lists and dicts of them, and instances of plain classes ([`classes`]). Three to ten times as fast.
//!
//! Only what comes back exactly as pickle would bring it: exact built-in types, never a
//! subclass, in bounded depth and number; everything else is pickle's. What is mentioned twice
//! stays one object, as with pickle: a tuple or a long text is referred to, and a list, dict or
//! instance that comes twice (or holds itself) makes the whole pickle's. Whether something can come
//! twice is seen by its reference count, so that most is not remembered at all.
//!
//! | tag | then |
//! |---|---|
//! | `N` `T` `F` | nothing: `None`, `True`, `False` |
//! | `j` `i` `f` | one byte, eight bytes, eight bytes: an int, an int, a float |
//! | `s` `b` | length, that many bytes: text, bytes |
//! | `(` `[` `{` | count, that many values (for a dict, twice as many) |
//! | `B` `Y` | place: bytes or a bytearray that went apart, and where in the list of those |
//! | `M` | a value, which is to be remembered: the decoder numbers them when they are whole |
//! | `r` | number: the value that was remembered under it |
//! | `O` | length, that many bytes: an instance's shape ([`shapes`]), then its attributes' values |
//! | `K` | sixteen bytes; length, that many bytes: the definition of a class; then a value |
//!
//! A payload's first byte says which: [`PLAIN`] or [`PICKLED`].

mod classes;
mod shapes;

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use oxgang::store::Received;
use oxgang::wire::MOST_ATTACHED;
use oxgang::{Foreign, Payload};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType,
};

pub use self::classes::Mains;
use self::classes::{Class, Id};
use crate::raw::{self, is_shared};

/// The payload is in this module's encoding.
pub const PLAIN: u8 = 0;
/// The payload is a pickle.
pub const PICKLED: u8 = 1;

const DEEPEST: u32 = 8;
const MOST: usize = 1 << 20;
/// Longer texts go to pickle, which copies them as fast; longer bytes go apart, as many as may.
const LONGEST: usize = 1 << 16;
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
    let (classes, error) = (Vec::new(), None);
    let mut encoder = Encoder { into, room: MOST, seen, numbers, mains, classes, error };
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

/// Bytes that come from processes of the same program, eight at a time.
#[derive(Default)]
struct BytesHasher(u64);

impl std::hash::Hasher for BytesHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

type ByBytes = BuildHasherDefault<BytesHasher>;

struct Encoder<'py> {
    into: Encoded<'py>,
    room: usize,
    /// Lists and dicts that may come again, by address.
    seen: HashSet<usize, ByAddress>,
    /// Numbers of what was remembered, by address.
    numbers: HashMap<usize, u32, ByAddress>,
    mains: Mains,
    /// Classes of which there are instances, by address. While values are written no code of
    /// Python's runs: what was seen of a class holds.
    classes: Vec<(usize, Arc<Class>)>,
    /// What ended it.
    error: Option<PyErr>,
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
        let Some(class) = self.class_of(value) else { return false };
        let Ok(dict) = raw::instance_dict(value) else { return false };
        if dict.len() > self.room || !self.is_first(value, shared) {
            return false;
        }
        self.count(b'O', 0);
        let from = self.into.bytes.len();
        self.into.bytes.extend_from_slice(&class.reference);
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
        values.iter().all(|value| self.put(value, depth - 1, is_shared(value, HELD_TWICE)))
    }

    /// The class of an instance, if it is plain; its definition comes first, if it needs one.
    fn class_of(&mut self, value: &Bound<'py, PyAny>) -> Option<Arc<Class>> {
        let class = value.get_type();
        let address = class.as_ptr() as usize;
        if let Some((_, known)) = self.classes.iter().find(|(one, _)| *one == address) {
            return Some(known.clone());
        }
        let known = classes::of(&class, self.mains).unwrap_or_else(|error| {
            self.error = Some(error);
            None
        })?;
        if let Some((id, definition)) = known.definition() {
            self.tag(b'K');
            self.into.bytes.extend_from_slice(id);
            self.into.bytes.extend_from_slice(&(definition.len() as u32).to_le_bytes());
            self.into.bytes.extend_from_slice(definition);
        }
        self.classes.push((address, known.clone()));
        Some(known)
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

// -- decoding --------------------------------------------------------------------------

fn torn() -> PyErr {
    PyValueError::new_err("the encoded value is torn")
}

/// Where encoded bytes come from, one after the other.
pub trait Input {
    /// How many are left.
    fn left(&self) -> usize;

    /// The next ones; [`LONGEST`] at most are asked for.
    fn take(&mut self, count: usize) -> PyResult<&[u8]>;

    /// The next ones, copied.
    fn fill(&mut self, into: &mut [u8]) -> PyResult<()>;
}

/// Bytes at hand.
impl Input for &[u8] {
    fn left(&self) -> usize {
        self.len()
    }

    fn take(&mut self, count: usize) -> PyResult<&[u8]> {
        let (taken, rest) = self.split_at_checked(count).ok_or_else(torn)?;
        *self = rest;
        Ok(taken)
    }

    fn fill(&mut self, into: &mut [u8]) -> PyResult<()> {
        into.copy_from_slice(self.take(into.len())?);
        Ok(())
    }
}

/// Bytes elsewhere, read piece by piece: what is looked at is a copy, that nobody else can change.
pub struct Far<'a> {
    read: &'a dyn Fn(usize, &mut [u8]) -> std::io::Result<()>,
    /// Behind the piece.
    at: usize,
    length: usize,
    piece: Vec<u8>,
    used: usize,
}

impl<'a> Far<'a> {
    /// `length` bytes, by what reads them.
    pub fn new(length: usize, read: &'a dyn Fn(usize, &mut [u8]) -> std::io::Result<()>) -> Self {
        Self { read, at: 0, length, piece: Vec::new(), used: 0 }
    }
}

impl Input for Far<'_> {
    fn left(&self) -> usize {
        self.length - self.at + self.piece.len() - self.used
    }

    fn take(&mut self, count: usize) -> PyResult<&[u8]> {
        if count > self.left() {
            return Err(torn());
        }
        if count > self.piece.len() - self.used {
            self.piece.drain(..self.used);
            self.used = 0;
            let have = self.piece.len();
            let more = (2 * LONGEST - have).min(self.length - self.at);
            self.piece.resize(have + more, 0);
            (self.read)(self.at, &mut self.piece[have..])?;
            self.at += more;
        }
        let taken = self.piece.get(self.used..self.used + count).ok_or_else(torn)?;
        self.used += count;
        Ok(taken)
    }

    fn fill(&mut self, into: &mut [u8]) -> PyResult<()> {
        if into.len() > self.left() {
            return Err(torn());
        }
        let near = (self.piece.len() - self.used).min(into.len());
        let (first, rest) = into.split_at_mut(near);
        first.copy_from_slice(&self.piece[self.used..self.used + near]);
        self.used += near;
        (self.read)(self.at, rest)?;
        self.at += rest.len();
        Ok(())
    }
}

/// Bytes that went apart.
pub trait Block {
    /// How many.
    fn length(&self) -> usize;

    /// Copies them out.
    fn copy(&self, into: &mut [u8]) -> std::io::Result<()>;
}

impl Block for Arc<Received> {
    fn length(&self) -> usize {
        Received::length(self)
    }
    fn copy(&self, into: &mut [u8]) -> std::io::Result<()> {
        self.read(0, into)
    }
}

impl Block for &[u8] {
    fn length(&self) -> usize {
        self.len()
    }
    fn copy(&self, into: &mut [u8]) -> std::io::Result<()> {
        into.copy_from_slice(self);
        Ok(())
    }
}

/// Reads the values; the first byte has been taken.
pub fn decode<'py, B: Block, const N: usize>(
    py: Python<'py>,
    input: &mut impl Input,
    apart: &[B],
) -> PyResult<[Bound<'py, PyAny>; N]> {
    let (remembered, recent, definitions) = (Vec::new(), Vec::new(), Vec::new());
    let mut decoder = Decoder { py, apart, remembered, recent, definitions };
    let mut values = Vec::with_capacity(N);
    for _ in 0..N {
        values.push(decoder.get(input, DEEPEST + 1)?);
    }
    values.try_into().map_err(|_| torn())
}

struct Decoder<'py, 'a, B> {
    py: Python<'py>,
    apart: &'a [B],
    remembered: Vec<Bound<'py, PyAny>>,
    /// Short texts that have come lately, by a hash: many dicts have the same keys.
    recent: Vec<Option<Bound<'py, PyString>>>,
    /// Classes that came by value.
    definitions: Vec<(Id, Bound<'py, PyType>)>,
}

const RECENT: usize = 256;
/// Longer texts are rarely keys.
const LONGEST_KEY: usize = 32;

fn counted(input: &mut impl Input) -> PyResult<usize> {
    let count = input.take(4)?.first_chunk().map(|count| u32::from_le_bytes(*count) as usize);
    // a value takes a byte at least: a count beyond what is there is nonsense
    count.filter(|count| *count <= input.left()).ok_or_else(torn)
}

fn eight(input: &mut impl Input) -> PyResult<[u8; 8]> {
    input.take(8)?.first_chunk().copied().ok_or_else(torn)
}

impl<'py, B: Block> Decoder<'py, '_, B> {
    fn get(&mut self, input: &mut impl Input, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        let tag = input.take(1)?[0];
        if depth == 0 {
            return Err(torn());
        }
        if tag != b'M' {
            return self.tagged(tag, input, depth);
        }
        let tag = input.take(1)?[0];
        let value = self.tagged(tag, input, depth)?;
        self.remembered.push(value.clone());
        Ok(value)
    }

    fn tagged(
        &mut self,
        tag: u8,
        input: &mut impl Input,
        depth: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        Ok(match tag {
            b'N' => py.None().into_bound(py),
            b'T' => PyBool::new(py, true).to_owned().into_any(),
            b'F' => PyBool::new(py, false).to_owned().into_any(),
            b'j' => (input.take(1)?[0] as i8).into_pyobject(py)?.into_any(),
            b'i' => i64::from_le_bytes(eight(input)?).into_pyobject(py)?.into_any(),
            b'f' => PyFloat::new(py, f64::from_le_bytes(eight(input)?)).into_any(),
            b's' => {
                let count = counted(input)?;
                self.text(input.take(count.min(LONGEST + 1))?)?.into_any()
            }
            b'b' => {
                let count = counted(input)?;
                PyBytes::new_with(py, count, |into| input.fill(into))?.into_any()
            }
            b'B' | b'Y' => {
                let index = input.take(4)?.first_chunk().map(|index| u32::from_le_bytes(*index));
                let block = index.and_then(|index| self.apart.get(index as usize));
                let block = block.ok_or_else(torn)?;
                let fill = |into: &mut [u8]| block.copy(into).map_err(PyOSError::new_err);
                if tag == b'B' {
                    PyBytes::new_with(py, block.length(), fill)?.into_any()
                } else {
                    PyByteArray::new_with(py, block.length(), fill)?.into_any()
                }
            }
            b'(' | b'[' => {
                let count = counted(input)?;
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.get(input, depth - 1)?);
                }
                if tag == b'(' {
                    PyTuple::new(py, items)?.into_any()
                } else {
                    PyList::new(py, items)?.into_any()
                }
            }
            b'{' => {
                let dict = PyDict::new(py);
                for _ in 0..counted(input)? {
                    let key = self.get(input, depth - 1)?;
                    dict.set_item(key, self.get(input, depth - 1)?)?;
                }
                dict.into_any()
            }
            b'r' => {
                let number = input.take(4)?.first_chunk().map(|number| u32::from_le_bytes(*number));
                let value = number.and_then(|number| self.remembered.get(number as usize));
                value.ok_or_else(torn)?.clone()
            }
            b'O' => {
                let count = counted(input)?;
                let shape = shapes::of(py, input.take(count.min(LONGEST + 1))?)?;
                let class = match shape.definition() {
                    Some(id) => {
                        let known = self.definitions.iter().find(|(one, _)| one == id);
                        known.ok_or_else(torn)?.1.clone().into_any()
                    }
                    None => shape.class(py)?,
                };
                shape.build(&class, || self.get(input, depth - 1))?
            }
            b'K' => {
                let id = *input.take(size_of::<Id>())?.first_chunk().ok_or_else(torn)?;
                let count = counted(input)?;
                let class = shapes::defined(py, id, input.take(count.min(LONGEST + 1))?)?;
                self.definitions.push((id, class));
                self.get(input, depth)?
            }
            _ => return Err(torn()),
        })
    }

    fn text(&mut self, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
        let text = std::str::from_utf8(bytes).map_err(|_| torn())?;
        if bytes.len() > LONGEST_KEY {
            return Ok(PyString::new(self.py, text));
        }
        if self.recent.is_empty() {
            self.recent.resize(RECENT, None);
        }
        let hash = bytes
            .iter()
            .fold(0_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        let place = &mut self.recent[(hash ^ hash >> 16) as usize % RECENT];
        match place {
            Some(known) if known.to_str().is_ok_and(|known| known == text) => Ok(known.clone()),
            _ => Ok(place.insert(PyString::new(self.py, text)).clone()),
        }
    }
}
