//! `await future`: what a task is given to wait for.
//!
//! | state of a waiter | left by | to | |
//! |---|---|---|---|
//! | pending | the mailbox is emptied | done | its callbacks are called at once |
//! | | `cancel` (by the task that awaits) | cancelled | its callbacks are called soon; the call is cancelled, or terminated |
//! | done, cancelled | – | | what comes later is ignored |
//!
//! All of it happens in the loop's thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use oxgang::lock;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::future::Future;
use crate::port::{Item, LoopPort, loops, port_of, running};

/// The iterator of an `await`.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Awaiting {
    future: Py<Future>,
    port: Py<LoopPort>,
    terminate: bool,
    waiter: PyOnceLock<Py<Waiter>>,
}

impl Awaiting {
    /// What `__await__` gives.
    pub fn begin(future: &Bound<'_, Future>, terminate: bool) -> PyResult<Py<PyAny>> {
        let py = future.py();
        let Some(running) = running(py)? else {
            let elsewhere = py.import("oxgang._loops")?.getattr("elsewhere")?;
            return Ok(elsewhere.call1((future, terminate))?.unbind());
        };
        let awaiting = Self {
            future: future.clone().unbind(),
            port: port_of(&running)?.unbind(),
            terminate,
            waiter: PyOnceLock::new(),
        };
        Ok(Py::new(py, awaiting)?.into_any())
    }
}

#[pymethods]
impl Awaiting {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        let future = self.future.bind(py);
        if let Some(waiter) = self.waiter.get(py) {
            waiter.get().raise_if_cancelled(py)?;
        }
        if future.get().is_done() {
            let result = Future::result(future, None).map_err(|error| translated(py, error))?;
            return Err(PyStopIteration::new_err((result,)));
        }
        if self.waiter.get(py).is_some() {
            let text = "an oxgang future was resumed before it was done; await it in one task";
            return Err(PyRuntimeError::new_err(text));
        }
        let waiter = Waiter {
            port: self.port.clone_ref(py),
            source: self.future.clone_ref(py),
            terminate: self.terminate,
            blocking: AtomicBool::new(true),
            state: Mutex::default(),
        };
        let waiter = Bound::new(py, waiter)?;
        LoopPort::listen(self.port.bind(py), future, Item::Waiter(waiter.clone().unbind()))?;
        let _first = self.waiter.set(py, waiter.clone().unbind());
        Ok(waiter)
    }
}

/// A call that was cancelled cancels who awaits it, as asyncio knows that.
fn translated(py: Python<'_>, error: PyErr) -> PyErr {
    let Ok(standard) = crate::python::standard(py) else { return error };
    if error.is_instance(py, standard.cancelled_error(py).get_type(py).as_any())
        && let Ok(loops) = loops(py)
        && let Ok(cancelled) = loops.cancelled.bind(py).call0()
    {
        return PyErr::from_value(cancelled);
    }
    error
}

/// A future to await that is terminated if the wait is cancelled.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Terminating {
    future: Py<Future>,
}

impl Terminating {
    pub fn new(future: &Bound<'_, Future>) -> Self {
        Self { future: future.clone().unbind() }
    }
}

#[pymethods]
impl Terminating {
    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Awaiting::begin(self.future.bind(py), true)
    }
}

#[derive(Default)]
enum Waits {
    #[default]
    Pending,
    Done,
    /// With the message that was given.
    Cancelled(Option<Py<PyAny>>),
}

#[derive(Default)]
struct WaiterState {
    waits: Waits,
    /// Callbacks and their contexts.
    callbacks: Vec<(Py<PyAny>, Option<Py<PyAny>>)>,
}

/// What a task waits for, as asyncio wants it: a future of the task's own loop.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct Waiter {
    port: Py<LoopPort>,
    source: Py<Future>,
    terminate: bool,
    blocking: AtomicBool,
    state: Mutex<WaiterState>,
}

#[pymethods]
impl Waiter {
    #[getter(_asyncio_future_blocking)]
    fn get_blocking(&self) -> bool {
        self.blocking.load(Ordering::Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Ordering::Relaxed);
    }

    fn get_loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.port.get().get_loop(py).map(Bound::unbind)
    }

    fn done(&self) -> bool {
        !matches!(lock(&self.state).waits, Waits::Pending)
    }

    fn cancelled(&self) -> bool {
        matches!(lock(&self.state).waits, Waits::Cancelled(_))
    }

    /// Nothing: who awaits asks the future itself.
    fn result(&self, py: Python<'_>) -> PyResult<()> {
        self.raise_if_cancelled(py)?;
        if !self.done() {
            let error = loops(py)?.invalid.bind(py).call1(("Result is not set.",))?;
            return Err(PyErr::from_value(error));
        }
        Ok(())
    }

    fn exception(&self, py: Python<'_>) -> PyResult<()> {
        self.result(py)
    }

    #[pyo3(signature = (r#fn, /, *, context=None))]
    fn add_done_callback(
        slf: &Bound<'_, Self>,
        r#fn: Py<PyAny>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let mut state = lock(&slf.get().state);
        if matches!(state.waits, Waits::Pending) {
            state.callbacks.push((r#fn, context));
            return Ok(());
        }
        drop(state);
        slf.get().call_soon(slf, &r#fn, context.as_ref())
    }

    fn remove_done_callback(&self, r#fn: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = r#fn.py();
        let callbacks = std::mem::take(&mut lock(&self.state).callbacks);
        let before = callbacks.len();
        let mut kept = Vec::new();
        for (callback, context) in callbacks {
            if !callback.bind(py).eq(r#fn)? {
                kept.push((callback, context));
            }
        }
        let removed = before - kept.len();
        lock(&self.state).callbacks.append(&mut kept);
        Ok(removed)
    }

    /// Whoever awaits is cancelled; and so is the call, as far as it can be.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let callbacks = {
            let mut state = lock(&this.state);
            if !matches!(state.waits, Waits::Pending) {
                return Ok(false);
            }
            state.waits = Waits::Cancelled(msg);
            std::mem::take(&mut state.callbacks)
        };
        let source = this.source.bind(py);
        // by its name, since futures of coroutines have a way of their own; a call in a thread cannot
        // be terminated: it is cancelled if it has not begun
        if !this.terminate || source.call_method0(intern!(py, "terminate")).is_err() {
            Future::cancel(source)?;
        }
        for (callback, context) in callbacks {
            this.call_soon(slf, &callback, context.as_ref())?;
        }
        Ok(true)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.port)?;
        visit.call(&self.source)?;
        if let Ok(state) = self.state.try_lock() {
            for (callback, context) in &state.callbacks {
                visit.call(callback)?;
                visit.call(context)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let callbacks = std::mem::take(&mut lock(&self.state).callbacks);
        drop(callbacks);
    }
}

impl Waiter {
    fn raise_if_cancelled(&self, py: Python<'_>) -> PyResult<()> {
        let message = match &lock(&self.state).waits {
            Waits::Cancelled(message) => message.as_ref().map(|message| message.clone_ref(py)),
            _ => return Ok(()),
        };
        let cancelled = loops(py)?.cancelled.bind(py);
        let error = match message {
            Some(message) if !message.is_none(py) => cancelled.call1((message,))?,
            _ => cancelled.call0()?,
        };
        Err(PyErr::from_value(error))
    }

    fn call_soon(
        &self,
        slf: &Bound<'_, Self>,
        callback: &Py<PyAny>,
        context: Option<&Py<PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let Some(owner) = self.port.get().get_loop(py) else { return Ok(()) };
        let options = PyDict::new(py);
        options.set_item(intern!(py, "context"), context)?;
        owner.call_method(intern!(py, "call_soon"), (callback, slf), Some(&options))?;
        Ok(())
    }

    /// The future is done: whoever awaits goes on, now.
    pub fn fire(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let callbacks = {
            let mut state = lock(&self.state);
            if !matches!(state.waits, Waits::Pending) {
                return Ok(());
            }
            state.waits = Waits::Done;
            std::mem::take(&mut state.callbacks)
        };
        for (callback, context) in callbacks {
            match context {
                Some(context) => {
                    context.call_method1(py, intern!(py, "run"), (callback, slf))?;
                }
                None => {
                    callback.call1(py, (slf,))?;
                }
            }
        }
        Ok(())
    }
}
