//! Where Python's memory and descriptors meet Rust's.
//!
//! Safety: the one file of this crate with unsafe code. Descriptors come from Python as numbers
//! ([`adopt`]); a thread is asked what Python calls it ([`thread_ident`]), and for its
//! context ([`copy_context`]); coroutines are stepped ([`step`]); classes are asked for their state, and
//! instances of plain ones made and filled ([`new_instance`]); bytes of Python objects are looked at
//! while they are copied ([`Lent`]), reference counts while
//! objects are encoded ([`is_shared`]); mapped
//! blocks are shown to Python through the buffer protocol ([`Buffer`]).

#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::raw::c_int;
use std::sync::Arc;

use oxgang::region::Region;
use oxgang::shelf::Apart;
use oxgang::store::{Received, View};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyOSError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

/// Takes a descriptor over from Python.
pub fn adopt(fd: i32) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(PyOSError::new_err(format!("not a descriptor: {fd}")));
    }
    // SAFETY: the caller in Python hands over a descriptor that it has just duplicated or
    // received for this purpose, and does not use or close it afterwards.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What `threading.get_ident` gives.
#[inline]
pub fn thread_ident() -> u64 {
    // SAFETY: needs neither the interpreter nor a thread state, and has no arguments.
    unsafe { ffi::PyThread_get_thread_ident() as u64 }
}

/// A copy of the context of this thread, as `contextvars.copy_context` makes it.
pub fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the interpreter is attached, and what comes back is a new reference, or null with an
    // error set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// What a coroutine does in one step.
pub enum Stepped<'py> {
    /// It waits for this.
    Waits(Bound<'py, PyAny>),
    /// It is over.
    Returned(Bound<'py, PyAny>),
}

/// Sends a value to a coroutine, as `await` does it; an error is what it raises.
pub fn step<'py>(
    coroutine: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Stepped<'py>> {
    let (py, mut found) = (coroutine.py(), std::ptr::null_mut());
    // SAFETY: both objects live, since they are borrowed, and the interpreter is attached. `found`
    // is written: a new reference, or null together with an error that is set.
    unsafe {
        let how = ffi::PyIter_Send(coroutine.as_ptr(), value.as_ptr(), &raw mut found);
        let found = Bound::from_owned_ptr_or_err(py, found)?;
        match how {
            ffi::PySendResult::PYGEN_NEXT => Ok(Stepped::Waits(found)),
            _ => Ok(Stepped::Returned(found)),
        }
    }
}

/// Whether others hold the object than `holders` that the caller knows of.
pub fn is_shared(object: &Bound<'_, PyAny>, holders: isize) -> bool {
    // SAFETY: the object lives, since it is borrowed, and the interpreter is attached.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) > holders as ffi::Py_ssize_t }
}

/// The number of the state that a class is in: another one, or none, as soon as anything about it
/// or its bases is changed; never that of another class.
pub fn type_state(class: &Bound<'_, PyType>) -> Option<u32> {
    // SAFETY: the class lives, since it is borrowed, and the interpreter is attached, under which
    // the number is written.
    let state = unsafe { (*class.as_type_ptr()).tp_version_tag };
    (state != 0).then_some(state)
}

/// Whether the class was made while the program ran, by a class statement for one.
pub fn is_heap_type(class: &Bound<'_, PyType>) -> bool {
    // SAFETY: the class lives, since it is borrowed.
    unsafe { ffi::PyType_HasFeature(class.as_type_ptr(), ffi::Py_TPFLAGS_HEAPTYPE) != 0 }
}

/// Whether instances of the class are made by `object.__new__`.
pub fn is_made_by_object(class: &Bound<'_, PyType>) -> bool {
    // SAFETY: both classes live, and the function is only looked at.
    let (own, usual) = unsafe { ((*class.as_type_ptr()).tp_new, ffi::PyBaseObject_Type.tp_new) };
    matches!((own, usual), (Some(own), Some(usual)) if std::ptr::fn_addr_eq(own, usual))
}

/// `object.__new__(class)`.
///
/// # Panics
/// If the class makes its instances in another way.
pub fn new_instance<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    assert!(is_made_by_object(class), "object.__new__ knows nothing of such instances");
    let (py, nothing) = (class.py(), PyTuple::empty(class.py()));
    // SAFETY: the class's own `tp_new`, which is `object`'s (checked), with an empty tuple and no
    // keywords; a new reference comes back, or null and an error that is set.
    unsafe {
        let make = ffi::PyBaseObject_Type.tp_new.expect("checked above");
        let made = make(class.as_type_ptr(), nothing.as_ptr(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, made)
    }
}

/// The dict of an instance, whatever its class has to say about `__dict__`.
pub fn instance_dict<'py>(instance: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = instance.py();
    // SAFETY: the instance lives, and the interpreter is attached; a new reference comes back, or
    // null and an error that is set: also for what has no dict.
    let dict = unsafe {
        let dict = ffi::PyObject_GenericGetDict(instance.as_ptr(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, dict)?
    };
    Ok(dict.cast_into()?)
}

/// `object.__setattr__(instance, name, value)`.
pub fn set_own_attribute(
    instance: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    // SAFETY: all three live, and the interpreter is attached; -1 says that an error is set.
    let set =
        unsafe { ffi::PyObject_GenericSetAttr(instance.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(PyErr::fetch(instance.py())) }
}

/// The bytes of a Python object, as long as this lives: the object can neither move nor resize
/// them meanwhile.
pub struct Lent(PyBuffer<u8>);

impl Lent {
    /// The bytes of an object that exports them in one piece.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the bytes are not in one piece"));
        }
        Ok(Self(buffer))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[]; // an empty exporter may have no address
        }
        // SAFETY: the exporter vouches for the range while the buffer is held. What nobody vouches
        // for is that no other thread, or process that has the memory too, writes it meanwhile: a
        // data race, which only the program can rule out, as with every reader of a Python buffer.
        // Here the bytes are copied and compared, so that a race costs the copy its sense and no
        // more: no value of a byte is invalid, and nothing is decided by what was read before.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }
}

/// Fills a view in: `length` bytes of `owner`, which the view keeps alive; writable, or locked.
///
/// # Safety
/// `view` is to be filled, and the bytes are there as long as `owner` lives.
unsafe fn show<T>(
    owner: &Bound<'_, T>,
    view: *mut ffi::Py_buffer,
    address: *mut u8,
    length: usize,
    locked: bool,
    flags: c_int,
) -> PyResult<()> {
    let locked = c_int::from(locked);
    let length = ffi::Py_ssize_t::try_from(length)?;
    // SAFETY: as the caller vouches.
    let filled = unsafe {
        ffi::PyBuffer_FillInfo(view, owner.as_ptr(), address.cast(), length, locked, flags)
    };
    if filled == 0 { Ok(()) } else { Err(PyErr::fetch(owner.py())) }
}

/// Bytes that came from another process, as memory of this one: writable, and private from the
/// first write on. Go back to their sender when nothing looks at them any more.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Buffer {
    memory: Memory,
    part: Range<usize>,
}

/// What keeps a buffer's memory.
enum Memory {
    Block(Arc<View>),
    Parcel(Arc<Apart>),
}

impl Buffer {
    /// The block's memory, mapped.
    pub fn of(received: &Arc<Received>) -> PyResult<Self> {
        let view = View::of(received).map_err(PyOSError::new_err)?;
        let part = 0..view.mapping().length();
        Ok(Self { memory: Memory::Block(view), part })
    }

    /// A part of what came apart from a message.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn part_of(apart: &Arc<Apart>, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= apart.mapping().length(), "no such part");
        Self { memory: Memory::Parcel(apart.clone()), part }
    }

    fn address(&self) -> *mut u8 {
        let mapping = match &self.memory {
            Memory::Block(view) => view.mapping(),
            Memory::Parcel(apart) => apart.mapping(),
        };
        mapping.address().as_ptr().wrapping_add(self.part.start)
    }
}

/// Bytes with a copy of a part of what came apart from a message.
///
/// # Panics
/// If there is no such part.
pub fn bytes_of<'py>(
    py: Python<'py>,
    apart: &Apart,
    part: Range<usize>,
) -> PyResult<Bound<'py, PyBytes>> {
    assert!(part.start <= part.end && part.end <= apart.mapping().length(), "no such part");
    let from = apart.mapping().address().as_ptr().wrapping_add(part.start);
    let length = ffi::Py_ssize_t::try_from(part.len())?;
    // SAFETY: the part is inside of the mapping (checked), which lives as long as `apart`; a new
    // reference to a `bytes`, or null and an error that is set.
    let bytes = unsafe {
        let made = ffi::PyBytes_FromStringAndSize(from.cast(), length);
        Bound::from_owned_ptr_or_err(py, made)?
    };
    Ok(bytes.cast_into()?)
}

#[pymethods]
impl Buffer {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let (address, length) = (slf.get().address(), slf.get().part.len());
        // SAFETY: `view` is the interpreter's; the memory is mapped, writable and so long as long
        // as this object lives: the part was checked. Rust holds no reference into it.
        unsafe { show(&slf, view, address, length, false, flags) }
    }

    fn __len__(&self) -> usize {
        self.part.len()
    }
}

/// Memory that several processes use at once; see `oxgang.shared`.
#[pyclass(frozen, module = "oxgang._core")]
pub struct SharedRegion {
    region: Arc<Region>,
    /// Nobody may write it by way of this object.
    locked: bool,
}

#[pymethods]
impl SharedRegion {
    /// A new one of so many zero bytes.
    #[new]
    fn new(length: usize) -> PyResult<Self> {
        Region::create(length).map(|region| Self { region, locked: false }).map_err(|error| {
            let text = format!("no shared memory for {length} bytes: {error}");
            pyo3::exceptions::PyMemoryError::new_err(text)
        })
    }

    /// The one that process `pid` has open as `fd`; a handle of it has arrived.
    #[staticmethod]
    fn arrived(pid: u32, fd: i32, key: (u64, u64)) -> PyResult<Self> {
        let region = Region::open((pid, fd, key))?;
        region.arrive();
        Ok(Self { region, locked: false })
    }

    /// The same memory, to be read. (numpy asks the object that has the memory whether an array may
    /// be made writable, not the memoryview that it was made of.)
    fn locked(&self) -> Self {
        Self { region: self.region.clone(), locked: true }
    }

    #[getter]
    fn key(&self) -> (u64, u64) {
        self.region.key()
    }

    /// Where it is in this process.
    #[getter]
    fn address(&self) -> usize {
        self.region.data().map_or(0, |data| data.address().as_ptr() as usize)
    }

    /// A handle is being sent: what to say of where it is.
    fn send(&self) -> (u32, i32, (u64, u64)) {
        self.region.send()
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let Self { region, locked } = slf.get();
        let locked = *locked;
        let address = region.data().map_or(std::ptr::NonNull::dangling(), |data| data.address());
        // SAFETY: `view` is the interpreter's; the memory is mapped, writable and so long as long
        // as this object lives. Rust holds no reference into it; that others write it too is what
        // it is for.
        unsafe { show(&slf, view, address.as_ptr(), region.length(), locked, flags) }
    }

    fn __len__(&self) -> usize {
        self.region.length()
    }
}

/// The bytes of an object that allows nobody to change them, shown as if it did: for a pickler,
/// which writes down whether they may be changed, and reads them.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Unlocked {
    lent: Lent,
}

#[pymethods]
impl Unlocked {
    #[new]
    fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { lent: Lent::of(object)? })
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let bytes = slf.get().lent.as_ref();
        // SAFETY: `view` is the interpreter's; the memory stays where it is as long as this object
        // lives. It is never written: the only user is `oxgang._pickling`, which hands this to
        // picklers and to nobody else.
        unsafe { show(&slf, view, bytes.as_ptr().cast_mut(), bytes.len(), false, flags) }
    }
}
