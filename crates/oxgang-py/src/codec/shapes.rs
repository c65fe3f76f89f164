//! Instances of plain classes, as who receives them rebuilds them.
//!
//! An instance begins with its *shape*: parts that end with a zero byte each: module and name of its
//! class, then the names of its attributes. If the class goes by value the first part is empty, and
//! sixteen bytes, its definition's number, stand in the second's place. Shapes repeat, so each is
//! taken apart once.
//!
//! Whether the class is plain here too is looked at again: a module may be another version, or changed,
//! in this process. If it is not, the instance is rebuilt as pickle would.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use oxgang::lock;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMappingProxy, PyString, PyTuple, PyType};

use super::classes::{Id, find, is_plain, state_of};
use super::torn;
use crate::python::names;
use crate::raw;

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

/// Shapes, and definitions, that are remembered.
const MOST: usize = 1 << 10;

/// What instances with the same class and the same attributes have in common.
pub struct Shape {
    class: Reference,
    attributes: Vec<Py<PyString>>,
    /// The state of the class in which it was seen to be plain; 0: in none so far.
    plain: AtomicU32,
}

enum Reference {
    Named(Py<PyString>, Py<PyString>),
    Sent(Id),
}

type Shapes = HashMap<Box<[u8]>, Arc<Shape>, ByBytes>;
type Definitions = HashMap<Id, Py<PyType>, ByBytes>;

static SHAPES: LazyLock<Mutex<Shapes>> = LazyLock::new(Mutex::default);
static DEFINITIONS: LazyLock<Mutex<Definitions>> = LazyLock::new(Mutex::default);

/// The shape that is written so.
pub fn of(py: Python<'_>, written: &[u8]) -> PyResult<Arc<Shape>> {
    // locked for moments only: what is made or dropped may run anything
    let known = lock(&SHAPES).get(written).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let shape = Arc::new(Shape::parse(py, written)?);
    let outdated = {
        let mut shapes = lock(&SHAPES);
        let outdated = (shapes.len() >= MOST).then(|| std::mem::take(&mut *shapes));
        (outdated, shapes.insert(written.into(), shape.clone()))
    };
    drop(outdated);
    Ok(shape)
}

/// The class that a definition is of.
pub fn defined<'py>(py: Python<'py>, id: Id, bytes: &[u8]) -> PyResult<Bound<'py, PyType>> {
    let known = lock(&DEFINITIONS).get(&id).map(|class| class.clone_ref(py));
    if let Some(known) = known {
        return Ok(known.into_bound(py));
    }
    let loaded = names(py)?.load_callable.bind(py).call1((PyBytes::new(py, bytes),))?;
    let class = loaded.cast_into::<PyType>()?;
    let outdated = {
        let mut known = lock(&DEFINITIONS);
        let outdated = (known.len() >= MOST).then(|| std::mem::take(&mut *known));
        (outdated, known.insert(id, class.clone().unbind()))
    };
    drop(outdated);
    Ok(class)
}

impl Shape {
    fn parse(py: Python<'_>, written: &[u8]) -> PyResult<Self> {
        let text = |part: &[u8]| -> PyResult<Py<PyString>> {
            let text = std::str::from_utf8(part).map_err(|_| torn())?;
            Ok(PyString::intern(py, text).unbind())
        };
        let (class, rest) = match written.split_first() {
            Some((0, rest)) => {
                let (id, rest) = rest.split_first_chunk().ok_or_else(torn)?;
                (Reference::Sent(*id), rest)
            }
            _ => {
                let (module, rest) = part(written)?;
                let (name, rest) = part(rest)?;
                (Reference::Named(text(module)?, text(name)?), rest)
            }
        };
        let (mut rest, mut attributes) = (rest, Vec::new());
        while !rest.is_empty() {
            let (name, others) = part(rest)?;
            attributes.push(text(name)?);
            rest = others;
        }
        Ok(Self { class, attributes, plain: AtomicU32::new(0) })
    }

    /// The definition that the message must have.
    pub fn definition(&self) -> Option<&Id> {
        match &self.class {
            Reference::Sent(id) => Some(id),
            Reference::Named(..) => None,
        }
    }

    /// The class by its name, as pickle finds it.
    pub fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Reference::Named(module, name) = &self.class else { return Err(torn()) };
        if let Some(class) = find(py, module, name) {
            return Ok(class);
        }
        py.import(module.bind(py))?.getattr(name.bind(py))
    }

    /// An instance; `next` gives the values of its attributes, one after the other.
    pub fn build<'py>(
        &self,
        class: &Bound<'py, PyAny>,
        mut next: impl FnMut() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        if let Ok(class) = class.cast::<PyType>()
            && self.fits(class)?
        {
            let instance = raw::new_instance(class)?;
            for name in &self.attributes {
                raw::set_own_attribute(&instance, name.bind(py), &next()?)?;
            }
            return Ok(instance);
        }
        let state = PyDict::new(py);
        for name in &self.attributes {
            state.set_item(name, next()?)?;
        }
        names(py)?.rebuild.bind(py).call1((class, state))
    }

    /// Whether instances of the class can be made without asking it.
    fn fits(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let Some(state) = state_of(class) else { return Ok(false) };
        if state == self.plain.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let fits = is_plain(class)?
            && raw::is_made_by_object(class)
            && !self.attributes.iter().any(|name| is_computed(class, name).unwrap_or(true));
        if fits && raw::type_state(class) == Some(state) {
            self.plain.store(state, Ordering::Relaxed);
        }
        Ok(fits)
    }
}

/// Whether the class, and not the instance's dict, decides what becomes of an attribute.
fn is_computed(class: &Bound<'_, PyType>, name: &Py<PyString>) -> PyResult<bool> {
    for base in class.getattr("__mro__")?.cast_into::<PyTuple>()?.iter() {
        let own = base.getattr("__dict__")?.cast_into::<PyMappingProxy>()?;
        if own.contains(name)? {
            let kind = own.get_item(name)?.get_type();
            return Ok(kind.hasattr("__set__")? || kind.hasattr("__delete__")?);
        }
    }
    Ok(false)
}

/// What comes before the next zero byte, and after it.
fn part(bytes: &[u8]) -> PyResult<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(torn)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}
