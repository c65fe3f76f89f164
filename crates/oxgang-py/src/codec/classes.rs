//! Classes whose instances are written without pickle, as who sends them sees them.
//!
//! What pickle does with an instance is known beforehand if neither its class nor anybody else has a
//! say in it: it names the class, and writes the instance's dict; who reads it makes an object
//! without calling `__init__`, and fills its dict. Such a class is *plain*: a class statement's, with
//! a dict and no slots, that defines none of the methods that pickle asks for ([`HOOKS`]), inherits
//! none but `object`'s, and is in no dispatch table. That is looked at once per class. The interpreter
//! numbers the states of classes, and gives a class another number, or none, when it or one of its
//! bases is changed: what was seen holds for that number.
//!
//! A class is written as its module and its name, if it can be found by them just now. One of
//! `__main__` means nothing to a worker by its name: it goes *by value*, as a definition that stands
//! in every message, for who gets it may not have seen it yet, but is made once and read once. It holds
//! as long as what it was made of is what it was (`oxgang._pickling.dump_class`).

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use oxgang::lock;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyMappingProxy, PyModule, PyString, PyTuple, PyType};

use crate::python::names;
use crate::raw;
use crate::reducers::{self, Sizes};

/// What a class may define that pickle asks for, or that changes what it sees.
const HOOKS: [&str; 10] = [
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__setstate__",
    "__getnewargs_ex__",
    "__getnewargs__",
    "__new__",
    "__class__",
    "__getattr__",
    "__getattribute__",
];
/// An object without anything, and one pointer.
const BARE: usize = 2 * WORD;
const WORD: usize = size_of::<usize>();
/// Classes that are remembered.
const MOST: usize = 1 << 10;
/// A longer definition is pickle's.
const LONGEST_DEFINITION: usize = 1 << 14;

/// How classes of `__main__` are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mains {
    /// For who has the same `__main__`, or is to say that it has not.
    ByName,
    /// For a worker.
    ByValue,
}

/// Which definition it is, among those of all processes.
pub type Id = [u8; 16];

/// A class as it is written.
pub struct Class {
    /// What an instance begins with: see `shapes`.
    pub reference: Vec<u8>,
    found: Found,
}

enum Found {
    /// By module and name.
    Named(Py<PyString>, Py<PyString>),
    /// By what stands in the message.
    Sent { id: Id, definition: Vec<u8>, watched: Vec<Watched> },
    /// Not at all: it is pickle's.
    No,
}

/// What a definition was made of.
enum Watched {
    Global(Py<PyDict>, Py<PyAny>, Py<PyAny>),
    Cell(Py<PyAny>, Py<PyAny>),
    Class(Py<PyType>, u32),
}

#[derive(Default)]
struct Books {
    /// Of the dispatch tables, when the classes were looked at.
    sizes: Sizes,
    by_state: HashMap<(u32, Mains), Arc<Class>>,
}

static BOOKS: LazyLock<Mutex<Books>> = LazyLock::new(Mutex::default);

/// How instances of this class are written just now; `None`: by pickle.
pub fn of(class: &Bound<'_, PyType>, mains: Mains) -> PyResult<Option<Arc<Class>>> {
    let Some(state) = state_of(class) else { return Ok(None) };
    let sizes = reducers::sizes(class.py())?;
    let (known, outdated) = {
        // for a moment: what is dropped or made may run anything, and come back here
        let mut books = lock(&BOOKS);
        let outdated = (books.sizes != sizes).then(|| {
            books.sizes = sizes;
            std::mem::take(&mut books.by_state)
        });
        (books.by_state.get(&(state, mains)).cloned(), outdated)
    };
    drop(outdated);
    if let Some(known) = known
        && let Some(holds) = known.holds(class)
    {
        return Ok(holds.then_some(known));
    }
    let made = Arc::new(Class::new(class, mains)?);
    // who looks at a class may leave notes in it, as `copyreg` does
    let Some(state) = state_of(class) else { return Ok(None) };
    let outdated = {
        let mut books = lock(&BOOKS);
        let outdated = (books.by_state.len() >= MOST).then(|| std::mem::take(&mut books.by_state));
        (outdated, books.by_state.insert((state, mains), made.clone()))
    };
    drop(outdated);
    Ok(made.holds(class).unwrap_or(false).then_some(made))
}

/// The number of the state that a class is in; `None`: it has none, and gets none.
pub fn state_of(class: &Bound<'_, PyType>) -> Option<u32> {
    raw::type_state(class).or_else(|| {
        // to look something up gives it one
        class.getattr(intern!(class.py(), "__reduce_ex__")).ok()?;
        raw::type_state(class)
    })
}

impl Class {
    fn new(class: &Bound<'_, PyType>, mains: Mains) -> PyResult<Self> {
        let made = is_plain(class).and_then(|plain| match plain {
            true => Self::plain(class, mains),
            false => Ok(None),
        });
        let made = made.or_else(|error| {
            // what cannot be told of a class, pickle tells; but Ctrl-C is not the class's
            let told = error.is_instance_of::<PyException>(class.py());
            if told { Ok(None) } else { Err(error) }
        });
        Ok(made?.unwrap_or(Self { reference: Vec::new(), found: Found::No }))
    }

    fn plain(class: &Bound<'_, PyType>, mains: Mains) -> PyResult<Option<Self>> {
        let py = class.py();
        let module = class.getattr(intern!(py, "__module__"))?.cast_into_exact::<PyString>()?;
        let name = class.getattr(intern!(py, "__qualname__"))?.cast_into_exact::<PyString>()?;
        let (module_text, name_text) = (module.to_str()?, name.to_str()?);
        if module_text == "__main__" && mains == Mains::ByValue {
            return Self::by_value(class);
        }
        // another name of `__main__`, which is one process's affair; or what is no global
        let elsewhere = module_text == "__mp_main__" || name_text.contains('.');
        if elsewhere || [module_text, name_text].iter().any(|text| text.contains('\0')) {
            return Ok(None);
        }
        let reference = format!("{module_text}\0{name_text}\0").into_bytes();
        Ok(Some(Self { reference, found: Found::Named(module.unbind(), name.unbind()) }))
    }

    fn by_value(class: &Bound<'_, PyType>) -> PyResult<Option<Self>> {
        type Parts<'py> = (Bound<'py, PyBytes>, Vec<(Py<PyAny>, Py<PyAny>, Py<PyAny>)>);
        let py = class.py();
        let made: Option<Parts<'_>> = names(py)?.dump_class.call1(py, (class,))?.extract(py)?;
        let Some((definition, watched)) = made else { return Ok(None) };
        if definition.as_bytes().len() > LONGEST_DEFINITION {
            return Ok(None);
        }
        let watched = watched.into_iter().map(|(holder, name, value)| {
            let holder = holder.into_bound(py);
            Ok(match holder.cast_into::<PyDict>() {
                Ok(globals) => Some(Watched::Global(globals.unbind(), name, value)),
                Err(holder) => match holder.into_inner().cast_into::<PyType>() {
                    Ok(class) => state_of(&class).map(|at| Watched::Class(class.unbind(), at)),
                    Err(cell) => Some(Watched::Cell(cell.into_inner().unbind(), value)),
                },
            })
        });
        let Some(watched) = watched.collect::<PyResult<Option<Vec<_>>>>()? else { return Ok(None) };
        let id = new_id();
        let reference = [&[0], &id[..]].concat();
        let definition = definition.as_bytes().to_vec();
        Ok(Some(Self { reference, found: Found::Sent { id, definition, watched } }))
    }

    /// Whether the class can be written so just now; `None`: not any more.
    fn holds(&self, class: &Bound<'_, PyType>) -> Option<bool> {
        let py = class.py();
        match &self.found {
            Found::No => Some(false),
            Found::Named(module, name) => {
                let found = find(py, module, name);
                Some(found.is_some_and(|found| found.is(class)))
            }
            Found::Sent { watched, .. } => watched.iter().all(|one| one.holds(py)).then_some(true),
        }
    }

    /// What must stand in a message before the first reference.
    pub fn definition(&self) -> Option<(&Id, &[u8])> {
        match &self.found {
            Found::Sent { id, definition, .. } => Some((id, definition)),
            _ => None,
        }
    }
}

impl Watched {
    fn holds(&self, py: Python<'_>) -> bool {
        match self {
            Self::Global(globals, name, value) => {
                let now = globals.bind(py).get_item(name).ok().flatten();
                now.is_some_and(|now| now.is(value))
            }
            Self::Cell(cell, value) => {
                let now = cell.bind(py).getattr(intern!(py, "cell_contents"));
                now.is_ok_and(|now| now.is(value))
            }
            Self::Class(class, state) => raw::type_state(class.bind(py)) == Some(*state),
        }
    }
}

/// What a module that is loaded has under a name. Runs no code of Python's.
pub fn find<'py>(
    py: Python<'py>,
    module: &Py<PyString>,
    name: &Py<PyString>,
) -> Option<Bound<'py, PyAny>> {
    let module = modules(py).ok()?.get_item(module).ok()??;
    let module = module.cast_exact::<PyModule>().ok()?;
    module.dict().get_item(name).ok()?
}

fn modules(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || {
        py.import("sys")?.getattr("modules")?.cast_into().map(Bound::unbind).map_err(PyErr::from)
    });
    Ok(modules?.bind(py))
}

/// Whether pickle asks nobody about instances of a class.
pub fn is_plain(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let usual = raw::is_heap_type(class) && has_usual_metaclass(class)? && has_usual_layout(class)?;
    if !usual {
        return Ok(false);
    }
    let (common, extra) = reducers::tables(py)?;
    if common.contains(class)? || extra.is_some_and(|extra| extra.contains(class).unwrap_or(true)) {
        return Ok(false);
    }
    let bases = class.getattr(intern!(py, "__mro__"))?.cast_into::<PyTuple>()?;
    let object = py.get_type::<PyAny>();
    for base in bases.iter() {
        if !base.is(&object) && !lets_pickle_be(&base)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_usual_metaclass(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let (py, meta) = (class.py(), class.get_type());
    if meta.is(py.get_type::<PyType>()) {
        return Ok(true);
    }
    static ABSTRACT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(meta.is(ABSTRACT.import(py, "abc", "ABCMeta")?))
}

/// Nothing but a dict, and maybe weak references: what there is besides, pickle would refuse.
fn has_usual_layout(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let number = |name| class.getattr(name)?.extract::<isize>();
    let dict = number(intern!(py, "__dictoffset__"))?;
    let weak = number(intern!(py, "__weakrefoffset__"))?;
    let size = number(intern!(py, "__basicsize__"))?;
    // where they are not positive the interpreter keeps them in front of the object
    let most = BARE + WORD * (usize::from(dict > 0) + usize::from(weak > 0));
    let fixed = number(intern!(py, "__itemsize__"))? == 0;
    Ok(dict != 0 && fixed && usize::try_from(size).is_ok_and(|size| size <= most))
}

/// Whether a class itself, without its bases, defines nothing that pickle asks for.
fn lets_pickle_be(base: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = base.py();
    let own = base.getattr(intern!(py, "__dict__"))?.cast_into::<PyMappingProxy>()?;
    for hook in HOOKS {
        if own.contains(hook)? {
            return Ok(false);
        }
    }
    if own.contains("__slots__")? && own.get_item("__slots__")?.len()? > 0 {
        return Ok(false);
    }
    if own.contains("__dict__")? {
        let usual = own.get_item("__dict__")?.get_type().name()? == "getset_descriptor";
        return Ok(usual);
    }
    Ok(true)
}

/// Not to be guessed at, since forks of a process go on counting where it was.
fn new_id() -> Id {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut id = Id::default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    id[..8].copy_from_slice(&RandomState::new().hash_one((process, count)).to_le_bytes());
    id[8..].copy_from_slice(&(u64::from(process) << 32 | count & 0xffff_ffff).to_le_bytes());
    id
}
