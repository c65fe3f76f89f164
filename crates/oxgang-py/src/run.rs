//! `Run`: a call's coroutine, as the task has it that runs it.
//!
//! To the task it is the coroutine itself: `send`, `throw` and `close` go through to that, and so do
//! attributes. But who wants to know what becomes of the call is told in the very step that ends
//! it; a done callback would be told one turn of the loop later, and cost a handle.
//!
//! | the coroutine | is told | the task's end |
//! |---|---|---|
//! | returns | the value | the same |
//! | returns although its task is to be cancelled | a `CancelledError` | cancelled, by asyncio's rule |
//! | raises | the error | the same |
//! | raises `KeyboardInterrupt` or `SystemExit` | the error | nothing: they would end the loop |
//! | is closed | nothing: the loop is gone | |
//!
//! Runs have a *desk* in common, which begins them and notes what becomes of them. A call that has
//! nothing special about it costs no step of Python there: one that is begun with plain
//! arguments, and one that returns a short plain value while no other is watched or abandoned, and
//! which is neither the first nor the last of those that news are to be sent of.
//!
//! All of it happens in the loop's thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use oxgang::lock;
use pyo3::exceptions::{
    PyException, PyKeyboardInterrupt, PyStopIteration, PySystemExit, PyTypeError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PySet, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::port::loops;
use crate::raw::{self, Stepped};

/// Longer strings are pickled.
const SHORT: usize = 1 << 12;

/// Where the runs of a loop begin, and what becomes of them is noted.
#[pyclass(frozen, module = "oxgang._core")]
pub struct RunDesk {
    /// Key -> run.
    running: Py<PyDict>,
    /// Those that have a limit or were asked to end, and those that go on although they were.
    watched: Py<PyDict>,
    abandoned: Py<PySet>,
    /// Of values that were returned, a pair each; somebody sends them when there are some.
    news: Option<Py<PyList>>,
    /// Called with a run, whether it returned, and its value or its error.
    over: Py<PyAny>,
}

#[pymethods]
impl RunDesk {
    #[new]
    fn new(
        running: Py<PyDict>,
        watched: Py<PyDict>,
        abandoned: Py<PySet>,
        news: Option<Py<PyList>>,
        over: Py<PyAny>,
    ) -> Self {
        Self { running, watched, abandoned, news, over }
    }

    /// Begins a call of an `async def` without a limit; `make_task` makes the task. `False`: it
    /// takes other arguments.
    fn begin<'py>(
        slf: &Bound<'py, Self>,
        make_task: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<bool> {
        let py = slf.py();
        let coroutine = match function.call1(args) {
            Ok(coroutine) => coroutine.unbind(), // nothing of it has run yet
            Err(error) if error.is_instance_of::<PyTypeError>(py) => return Ok(false),
            Err(error) => return Err(error),
        };
        let desk = slf.clone().unbind();
        let run = Run::new(key.clone().unbind(), function.clone().unbind(), coroutine, desk);
        let run = Bound::new(py, run)?;
        slf.get().running.bind(py).set_item(key, &run)?;
        match make_task.call1((&run,)) {
            Ok(task) => run.get().set_task(task.unbind()),
            // a factory's error is the call's
            Err(error) if error.is_instance_of::<PyException>(py) => {
                run.get().close(py)?;
                slf.get().over.call1(py, (&run, false, error.into_value(py)))?;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.running)?;
        visit.call(&self.watched)?;
        visit.call(&self.abandoned)?;
        visit.call(&self.news)?;
        visit.call(&self.over)
    }
}

impl RunDesk {
    /// Notes what a run has returned, if there is nothing special about that.
    fn note(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let Some(news) = &self.news else { return Ok(false) };
        let (running, news) = (self.running.bind(py), news.bind(py));
        let special = news.is_empty()
            || running.len() < 2
            || !self.watched.bind(py).is_empty()
            || !self.abandoned.bind(py).is_empty();
        if special || !is_short(value)? {
            return Ok(false);
        }
        running.del_item(key)?;
        news.append((key, value))?;
        Ok(true)
    }
}

/// Whether values are short and of the kinds that need no pickle.
#[pyfunction]
pub fn are_plain(values: &Bound<'_, PyTuple>) -> PyResult<bool> {
    for value in values {
        if !is_short(&value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_short(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let plain = value.is_none()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyFloat>();
    let long = value.is_exact_instance_of::<PyString>() || value.is_exact_instance_of::<PyBytes>();
    Ok(plain || (long && value.len()? <= SHORT))
}

/// One call that runs in a task; see `oxgang.asyncio._runs`.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct Run {
    /// What its user knows it by.
    #[pyo3(get)]
    key: Py<PyAny>,
    /// What was called.
    #[pyo3(get)]
    function: Py<PyAny>,
    coroutine: Py<PyAny>,
    desk: Py<RunDesk>,
    task: Mutex<Option<Py<PyAny>>>,
    over: AtomicBool,
}

impl Run {
    /// What became of a step: what it waits for, or the end.
    fn stepped<'py>(
        slf: &Bound<'py, Self>,
        stepped: PyResult<Stepped<'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match stepped {
            Ok(Stepped::Waits(waiter)) => Ok(waiter),
            Ok(Stepped::Returned(value)) => Err(Self::returned(slf, value)?),
            Err(error) => Err(Self::raised(slf, error)?),
        }
    }

    fn returned(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<PyErr> {
        let py = slf.py();
        if Self::must_cancel(slf)? {
            let cancelled = loops(py)?.cancelled.bind(py).call0()?;
            Self::tell(slf, false, &cancelled)?;
        } else {
            Self::tell(slf, true, &value)?;
        }
        Ok(PyStopIteration::new_err((value.unbind(),)))
    }

    fn raised(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<PyErr> {
        let py = slf.py();
        let error = error.into_value(py).into_bound(py); // with its traceback
        Self::tell(slf, false, error.as_any())?;
        let ends_loops =
            error.is_instance_of::<PyKeyboardInterrupt>() || error.is_instance_of::<PySystemExit>();
        Ok(if ends_loops {
            PyStopIteration::new_err((py.None(),))
        } else {
            PyErr::from_value(error.into_any())
        })
    }

    fn tell(slf: &Bound<'_, Self>, done: bool, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        let (py, desk) = (slf.py(), this.desk.get());
        let told = match done && desk.note(py, this.key.bind(py), value)? {
            true => Ok(()),
            false => desk.over.call1(py, (slf, done, value)).map(drop),
        };
        this.over.store(true, Ordering::Relaxed);
        let task = lock(&this.task).take(); // it has this
        drop(task);
        told
    }

    /// Whether its task was told to be cancelled and has not yet raised that.
    fn must_cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let Some(task) = Self::task(slf)? else { return Ok(false) };
        match task.getattr_opt(intern!(slf.py(), "_must_cancel"))? {
            Some(must) => must.is_truthy(),
            None => Ok(false),
        }
    }
}

#[pymethods]
impl Run {
    #[new]
    fn new(key: Py<PyAny>, function: Py<PyAny>, coroutine: Py<PyAny>, desk: Py<RunDesk>) -> Self {
        let (task, over) = (Mutex::default(), AtomicBool::new(false));
        Self { key, function, coroutine, desk, task, over }
    }

    /// The task that runs it; while that is being made, and runs eagerly, the current one. None
    /// when it is over.
    #[getter]
    fn task<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let known = lock(&slf.get().task).as_ref().map(|task| task.clone_ref(py).into_bound(py));
        if known.is_some() || slf.get().over.load(Ordering::Relaxed) {
            return Ok(known);
        }
        let current = loops(py)?.current_task.bind(py).call0()?;
        Ok((!current.is_none()).then_some(current))
    }

    #[setter]
    fn set_task(&self, task: Py<PyAny>) {
        if !self.over.load(Ordering::Relaxed) {
            *lock(&self.task) = Some(task);
        }
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = slf.get().coroutine.bind(slf.py());
        Self::stepped(slf, raw::step(coroutine, slf.py().None().bind(slf.py())))
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Self::stepped(slf, raw::step(slf.get().coroutine.bind(slf.py()), value))
    }

    #[pyo3(signature = (*error))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        error: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let thrown = slf.get().coroutine.bind(py).call_method1(intern!(py, "throw"), error);
        let stepped = match thrown {
            Ok(waiter) => Ok(Stepped::Waits(waiter)),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                error.value(py).getattr(intern!(py, "value")).map(Stepped::Returned)
            }
            Err(error) => Err(error),
        };
        Self::stepped(slf, stepped)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.coroutine.bind(py).call_method0(intern!(py, "close")).map(drop)
    }

    /// As the coroutine has it: its name, where it is, what it waits for.
    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine.bind(name.py()).getattr(name)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.key)?;
        visit.call(&self.function)?;
        visit.call(&self.coroutine)?;
        visit.call(&self.desk)?;
        // never blocks in here; what is locked just now is in use, and so no garbage
        self.task.try_lock().map_or(Ok(()), |task| visit.call(&*task))
    }

    fn __clear__(&self) {
        let task = lock(&self.task).take();
        drop(task);
    }
}
