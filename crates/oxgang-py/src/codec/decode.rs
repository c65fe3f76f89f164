//! Bytes to values.

use std::sync::Arc;

use oxgang::store::Received;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyList, PyString, PyTuple, PyType,
};

use super::classes::Id;
use super::shapes::{self, Shape};
use super::{DEEPEST, LONGEST, torn};

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
    let (remembered, recent) = (Vec::new(), Vec::new());
    let (definitions, shapes) = (Vec::new(), Vec::new());
    let mut decoder = Decoder { py, apart, remembered, recent, definitions, shapes };
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
    /// Shapes, and their classes.
    shapes: Vec<(Arc<Shape>, Bound<'py, PyAny>)>,
}

const RECENT: usize = 256;
/// Longer texts are rarely keys.
const LONGEST_KEY: usize = 32;

fn counted(input: &mut impl Input) -> PyResult<usize> {
    let count = four(input)?;
    // a value takes a byte at least: a count beyond what is there is nonsense
    if count <= input.left() { Ok(count) } else { Err(torn()) }
}

fn four(input: &mut impl Input) -> PyResult<usize> {
    let bytes = input.take(4)?.first_chunk().ok_or_else(torn)?;
    Ok(u32::from_le_bytes(*bytes) as usize)
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
                let block = self.apart.get(four(input)?).ok_or_else(torn)?;
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
                let value = self.remembered.get(four(input)?);
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
                self.shapes.push((shape.clone(), class.clone()));
                shape.build(&class, || self.get(input, depth - 1))?
            }
            b'o' => {
                let known = self.shapes.get(four(input)?);
                let (shape, class) = known.ok_or_else(torn)?.clone();
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
