//! ctypes objects in shared memory, each access under a lock: what `sharedctypes` is made of.
//!
//! Taking the lock, the access itself, and giving the lock back are one call from Python.

use pyo3::intern;
use pyo3::prelude::*;

use crate::sync::SharedLock;

/// A ctypes object and its lock.
struct Guarded {
    object: Py<PyAny>,
    lock: Py<PyAny>,
    /// The same, if its own acquire and release are those of the lock itself.
    plain: Option<Py<SharedLock>>,
}

impl Guarded {
    fn new(object: Py<PyAny>, lock: &Bound<'_, PyAny>, is_plain: bool) -> PyResult<Self> {
        let plain = if is_plain { Some(lock.cast::<SharedLock>()?.clone().unbind()) } else { None };
        Ok(Self { object, lock: lock.clone().unbind(), plain })
    }

    fn locked<'py, T>(
        &self,
        py: Python<'py>,
        work: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<T>,
    ) -> PyResult<T> {
        let object = self.object.bind(py);
        let Some(lock) = &self.plain else {
            let lock = self.lock.bind(py);
            lock.call_method0(intern!(py, "acquire"))?;
            let result = work(object);
            lock.call_method0(intern!(py, "release"))?;
            return result;
        };
        if !lock.get().take_quickly() {
            SharedLock::take_slowly(lock.bind(py), true, None)?;
        }
        let result = work(object);
        lock.get().give()?;
        result
    }
}

/// A ctypes array with a lock around each access.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct SharedItems(Guarded);

#[pymethods]
impl SharedItems {
    #[new]
    fn new(obj: Py<PyAny>, lock: &Bound<'_, PyAny>, plain: bool) -> PyResult<Self> {
        Guarded::new(obj, lock, plain).map(Self)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.0.object.bind(py).len()
    }

    fn __getitem__(&self, py: Python<'_>, i: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.0.locked(py, |object| object.get_item(i).map(Bound::unbind))
    }

    fn __setitem__(
        &self,
        py: Python<'_>,
        i: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.0.locked(py, |object| object.set_item(i, value))
    }

    #[getter]
    fn _obj(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.object.clone_ref(py)
    }

    #[getter]
    fn _lock(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.lock.clone_ref(py)
    }

    /// The object itself.
    fn get_obj(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.object.clone_ref(py)
    }

    /// Its lock.
    fn get_lock(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.lock.clone_ref(py)
    }
}

/// A ctypes value with a lock around each access.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct SharedNumber(Guarded);

#[pymethods]
impl SharedNumber {
    #[new]
    fn new(obj: Py<PyAny>, lock: &Bound<'_, PyAny>, plain: bool) -> PyResult<Self> {
        Guarded::new(obj, lock, plain).map(Self)
    }

    #[getter]
    fn get_value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.locked(py, |object| object.getattr(intern!(py, "value")).map(Bound::unbind))
    }

    #[setter]
    fn set_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.locked(py, |object| object.setattr(intern!(py, "value"), value))
    }

    #[getter]
    fn _obj(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.object.clone_ref(py)
    }

    #[getter]
    fn _lock(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.lock.clone_ref(py)
    }

    /// The object itself.
    fn get_obj(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.object.clone_ref(py)
    }

    /// Its lock.
    fn get_lock(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.lock.clone_ref(py)
    }
}
