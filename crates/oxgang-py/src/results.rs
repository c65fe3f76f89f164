//! `ResultLine`, what is to come of the calls of an iterator; and `ResultIterator`, which gives the
//! results one by one without a step of Python for each.
//!
//! As long as some may still be taken, and the next is there or comes in a moment, `next` is a few steps
//! of Rust. For everything else there is the subclass's `_next`: when the input is to be read on, when
//! the next takes longer, and at the end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oxgang::lock;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};

use crate::calls::{Calls, Part, Wanted};
use crate::wait;

/// Nobody need look at what the workers have to do within so short a time; as `oxgang._flow.GLANCE_S`.
const A_MOMENT: Duration = Duration::from_millis(2);

/// Calls that are submitted and not yet taken, for those who look after the window. See
/// `oxgang._flow`.
#[pyclass(frozen, module = "oxgang._core")]
pub struct ResultLine {
    /// Nobody else's but the pool's.
    pub calls: Arc<Calls>,
}

#[pymethods]
impl ResultLine {
    /// How many are submitted and not taken.
    fn __len__(&self) -> PyResult<usize> {
        Ok(self.calls.books_here()?.length())
    }

    /// How many are not done.
    fn busy(&self, enough: usize) -> PyResult<usize> {
        Ok(self.calls.books_here()?.waiting().min(enough))
    }

    /// Waits until the next can be taken, or there is none and will be none; `False`: not within
    /// so many seconds.
    #[pyo3(signature = (seconds=None))]
    fn wait(&self, py: Python<'_>, seconds: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        drop(self.calls.books_here()?);
        self.calls.wait(py, Wanted::Next, wait::deadline(seconds)?)
    }

    /// No more will be submitted.
    fn end(&self) -> PyResult<()> {
        drop(self.calls.books_here()?);
        self.calls.end();
        Ok(())
    }

    /// So many may be taken from now on before anybody asks again.
    fn allow(&self, count: usize) -> PyResult<()> {
        self.calls.books_here()?.allowed = count;
        Ok(())
    }

    /// How many still may.
    fn allowed(&self) -> PyResult<usize> {
        Ok(self.calls.books_here()?.allowed)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.calls.traverse(&visit)
    }

    fn __clear__(&self) {
        self.calls.clear();
    }
}

/// Base of `IMapIterator`.
#[pyclass(subclass, weakref, frozen, module = "oxgang._core")]
pub struct ResultIterator {
    line: Py<ResultLine>,
    chunked: bool,
    /// What is left of the last chunk.
    rest: Mutex<Option<Py<PyIterator>>>,
}

#[pymethods]
impl ResultIterator {
    #[new]
    #[pyo3(signature = (line, chunked, *_args, **_kwargs))]
    fn new(
        line: Py<ResultLine>,
        chunked: bool,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> Self {
        Self { line, chunked, rest: Mutex::default() }
    }

    /// Whether something is left of the last chunk.
    fn _in_chunk(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(rest) = self.rest_of_chunk(py) else { return Ok(false) };
        // of a list's iterator it is no guess
        Ok(rest.call_method0(intern!(py, "__length_hint__"))?.extract::<usize>()? > 0)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let calls = &this.line.get().calls;
        loop {
            if this.chunked
                && let Some(item) = this.of_the_chunk(py)?
            {
                return Ok(item);
            }
            let Some(part) = take_allowed(py, calls)? else {
                return slf.call_method0(intern!(py, "_next"));
            };
            match calls.open(py, &part) {
                Ok(Ok(value)) if this.chunked => {
                    let rest = value.bind(py).try_iter()?.unbind();
                    let before = lock(&this.rest).replace(rest);
                    drop(before);
                }
                Ok(Ok(value)) => return Ok(value.into_bound(py)),
                Ok(Err(error)) => {
                    slf.call_method1(intern!(py, "_failed"), (&error,))?;
                    return Err(PyErr::from_value(error.into_bound(py)));
                }
                Err(interruption) => {
                    calls.put_back(part);
                    calls.books().allowed += 1;
                    return Err(interruption);
                }
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.line)?;
        // held by somebody: it is alive, then
        let Ok(rest) = self.rest.try_lock() else { return Ok(()) };
        rest.as_ref().map_or(Ok(()), |rest| visit.call(rest))
    }

    fn __clear__(&self) {
        let rest = self.rest.try_lock().map(|mut rest| rest.take());
        drop(rest);
    }
}

impl ResultIterator {
    fn rest_of_chunk<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyIterator>> {
        lock(&self.rest).as_ref().map(|rest| rest.bind(py).clone())
    }

    /// The next item of the chunk, if there is one.
    fn of_the_chunk<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(mut rest) = self.rest_of_chunk(py) else { return Ok(None) };
        if let Some(item) = rest.next() {
            return item.map(Some);
        }
        let spent = lock(&self.rest).take();
        drop(spent);
        Ok(None)
    }
}

/// The next part, if it may be taken without asking, and has come or comes in a moment.
fn take_allowed(py: Python<'_>, calls: &Calls) -> PyResult<Option<Part>> {
    let take = || {
        let mut books = calls.books_here()?;
        if books.allowed == 0 {
            return Ok((None, false));
        }
        let part = books.take();
        books.allowed -= usize::from(part.is_some());
        PyResult::Ok((part, true))
    };
    let (part, allowed) = take()?;
    if part.is_some() || !allowed {
        return Ok(part);
    }
    calls.wait(py, Wanted::Next, Instant::now().checked_add(A_MOMENT))?;
    Ok(take()?.0)
}
