//! `ResultLine`, the results to come of an iterator, oldest first; and `ResultIterator`, which
//! gives them one by one without a step of Python for each.
//!
//! As long as the oldest is done and some may still be taken, `next` is a few steps of Rust. For
//! everything else there is the subclass's `_next`: when the input is to be read on, when the oldest
//! is to be waited for, and at the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyIndexError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};

use crate::future::Future;

#[derive(Default)]
struct Line {
    futures: VecDeque<Py<Future>>,
    /// So many may be taken before somebody looks at the window again.
    left: usize,
    /// What is left of the last chunk.
    rest: Option<Py<PyIterator>>,
}

#[derive(Default, Clone)]
struct Shared(Arc<Mutex<Line>>);

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // held by somebody: it is alive, then
        let Ok(line) = self.0.try_lock() else { return Ok(()) };
        line.futures.iter().try_for_each(|future| visit.call(future))?;
        line.rest.as_ref().map_or(Ok(()), |rest| visit.call(rest))
    }

    fn clear(&self) {
        let line = self.0.try_lock().map(|mut line| std::mem::take(&mut *line));
        drop(line); // not under the lock: an object's end may run anything
    }
}

/// The futures, for those who look after the window. See `oxgang._flow`.
#[pyclass(frozen, module = "oxgang._core")]
pub struct ResultLine {
    shared: Shared,
}

#[pymethods]
impl ResultLine {
    fn __len__(&self) -> usize {
        self.shared.line().futures.len()
    }

    fn __getitem__(&self, py: Python<'_>, index: isize) -> PyResult<Py<Future>> {
        let line = self.shared.line();
        let length = line.futures.len();
        let index = if index < 0 { length.checked_add_signed(index) } else { Some(index as usize) };
        let future = index.and_then(|index| line.futures.get(index));
        future
            .map(|future| future.clone_ref(py))
            .ok_or_else(|| PyIndexError::new_err("no such future"))
    }

    /// The newest first.
    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let futures: Vec<_> =
            self.shared.line().futures.iter().rev().map(|future| future.clone_ref(py)).collect();
        PyList::new(py, futures)?.try_iter()
    }

    /// More are submitted.
    fn extend(&self, futures: Vec<Py<Future>>) {
        self.shared.line().futures.extend(futures);
    }

    /// Takes the oldest out.
    fn popleft(&self) -> PyResult<Py<Future>> {
        let mut line = self.shared.line();
        line.left = line.left.saturating_sub(1);
        line.futures.pop_front().ok_or_else(|| PyIndexError::new_err("no future is left"))
    }

    /// So many may be taken from now on before anybody asks again.
    fn allow(&self, count: usize) {
        self.shared.line().left = count;
    }

    /// How many still may.
    fn allowed(&self) -> usize {
        self.shared.line().left
    }

    /// Whether something is left of the last chunk.
    fn in_chunk(&self, py: Python<'_>) -> PyResult<bool> {
        let rest = self.shared.line().rest.as_ref().map(|rest| rest.clone_ref(py));
        let Some(rest) = rest else { return Ok(false) };
        // of a list's iterator it is no guess
        Ok(rest.call_method0(py, intern!(py, "__length_hint__"))?.extract::<usize>(py)? > 0)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.shared.traverse(&visit)
    }

    fn __clear__(&self) {
        self.shared.clear();
    }
}

/// Base of `IMapIterator`.
#[pyclass(subclass, weakref, frozen, module = "oxgang._core")]
pub struct ResultIterator {
    shared: Shared,
    chunked: bool,
}

#[pymethods]
impl ResultIterator {
    #[new]
    #[pyo3(signature = (chunked, *_args, **_kwargs))]
    fn new(chunked: bool, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { shared: Shared::default(), chunked }
    }

    /// The line that it takes from.
    fn _results(&self) -> ResultLine {
        ResultLine { shared: self.shared.clone() }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        loop {
            if this.chunked
                && let Some(item) = this.of_the_chunk(py)?
            {
                return Ok(item);
            }
            let Some(future) = this.oldest(py) else {
                return slf.call_method0(intern!(py, "_next"));
            };
            match Future::result(&future, None) {
                Ok(value) if this.chunked => {
                    let rest = value.bind(py).try_iter()?.unbind();
                    let before = this.shared.line().rest.replace(rest);
                    drop(before);
                }
                Ok(value) => return Ok(value.into_bound(py)),
                Err(error) => {
                    slf.call_method1(intern!(py, "_failed"), (error.value(py),))?;
                    return Err(error);
                }
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.shared.traverse(&visit)
    }

    fn __clear__(&self) {
        self.shared.clear();
    }
}

impl ResultIterator {
    /// The next item of the chunk, if there is one.
    fn of_the_chunk<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let rest = self.shared.line().rest.as_ref().map(|rest| rest.clone_ref(py));
        let Some(rest) = rest else { return Ok(None) };
        if let Some(item) = rest.bind(py).clone().next() {
            return item.map(Some);
        }
        let spent = self.shared.line().rest.take();
        drop(spent);
        Ok(None)
    }

    /// The oldest future, taken out, if it is done and may be taken without asking.
    fn oldest<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Future>> {
        let mut line = self.shared.line();
        if line.left == 0 || !line.futures.front()?.get().is_done() {
            return None;
        }
        line.left -= 1;
        line.futures.pop_front().map(|future| future.into_bound(py))
    }
}
