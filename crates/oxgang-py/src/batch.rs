//! `Batch`: what will come of calls that are all handed in, and their results taken together, or one
//! by one in their order.

use std::sync::Arc;
use std::time::Instant;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::calls::{Calls, Wanted};
use crate::wait;

/// The results to come of many calls.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Batch {
    /// Nobody else's but the pool's.
    pub calls: Arc<Calls>,
}

#[pymethods]
impl Batch {
    /// Whether all are done.
    fn done(&self) -> bool {
        self.calls.has(Wanted::All)
    }

    /// Waits until all are done, for so many seconds at most; raises `TimeoutError`.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.calls.wait_or_raise(py, Wanted::All, wait::deadline(timeout)?)
    }

    /// All values, and the first error in the order of the calls: to be taken once, by one thread,
    /// when all are done. `chunked`: each value is a list of values.
    fn take<'py>(
        &self,
        py: Python<'py>,
        chunked: bool,
    ) -> PyResult<(Bound<'py, PyList>, Option<Py<PyAny>>)> {
        let parts = self.calls.take_all();
        let (values, mut first) = (PyList::empty(py), None);
        let add = |part| -> PyResult<()> {
            match self.calls.open(py, part)? {
                Ok(value) if chunked => {
                    values.as_sequence().in_place_concat(value.bind(py).cast()?)?;
                }
                Ok(value) => values.append(value)?,
                Err(error) => drop(first.get_or_insert(error)),
            }
            Ok(())
        };
        match parts.iter().try_for_each(add) {
            Ok(()) => Ok((values, first)),
            Err(interruption) => {
                self.calls.put_all_back(parts);
                Err(interruption)
            }
        }
    }

    /// Calls `fn` when all are done; at once if they are.
    fn add_done_callback(&self, py: Python<'_>, r#fn: Py<PyAny>) -> PyResult<()> {
        self.calls.when_all(py, r#fn)
    }

    /// An iterator of the values, in the order of the calls, which raises a call's error in its
    /// place; `TimeoutError` so many seconds from now. One thread at a time.
    #[pyo3(signature = (timeout=None))]
    fn results(slf: Py<Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<BatchResults> {
        Ok(BatchResults { batch: slf, deadline: wait::deadline(timeout)? })
    }

    /// Takes back what has not begun, in a pool of processes.
    fn cancel(&self, py: Python<'_>) {
        self.calls.cancel(py);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.calls.traverse(&visit)
    }

    fn __clear__(&self) {
        self.calls.clear();
    }
}

/// What is left of a batch's values.
#[pyclass(frozen, module = "oxgang._core")]
pub struct BatchResults {
    batch: Py<Batch>,
    deadline: Option<Instant>,
}

#[pymethods]
impl BatchResults {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let calls = &self.batch.get().calls;
        let part = loop {
            if let Some(part) = calls.books().take() {
                break part;
            }
            calls.wait_or_raise(py, Wanted::Next, self.deadline)?;
            if calls.books().is_over() {
                return Ok(None);
            }
        };
        match calls.open(py, &part) {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(error)) => Err(PyErr::from_value(error.into_bound(py))),
            Err(interruption) => {
                calls.put_back(part);
                Err(interruption)
            }
        }
    }
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.batch)
    }
}
