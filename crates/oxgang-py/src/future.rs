//! `Future`: state and waiting in Rust, the standard class as a second base.
//!
//! # State
//!
//! One word holds the state and a bit for "somebody sleeps on it"; it is the futex too.
//!
//! | state | left by | to |
//! |---|---|---|
//! | `PENDING` | `set_running_or_notify_cancel` | `RUNNING` |
//! | | `cancel`, the pool | `CANCELLED` (own futures), `NOTIFIED` |
//! | | `set_result`, `set_exception`, the pool | `FINISHED` |
//! | `RUNNING` | the same three | `FINISHED` |
//! | `CANCELLED` | `set_running_or_notify_cancel` | `NOTIFIED` |
//!
//! A pool completes a future from any thread, without the interpreter: the answer is kept as
//! bytes and becomes an object when somebody asks. Who must be told in Python (callbacks, and
//! the standard `wait` and `as_completed` through `_condition` and `_waiters`) is *flagged*;
//! the pool's driver thread then delivers. A flagged future that is not done keeps itself
//! alive, since nobody else may.
//!
//! The lock inside is held for moments and never across a call into Python.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use oxgang::pool::{Waitable, Waited};
use oxgang::{Completion, Outcome, Pool, TaskId};
use oxgang_os::futex::{self, Woken};
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::python::standard;
use crate::{payload, wait};

/// Done, cancelled, result, exception: what asyncio reads from Python 3.14 on.
type Snapshot = (bool, bool, Option<Py<PyAny>>, Option<Py<PyAny>>);

const PENDING: u32 = 0;
const RUNNING: u32 = 1;
const CANCELLED: u32 = 2;
const NOTIFIED: u32 = 3;
const FINISHED: u32 = 4;
const STATE: u32 = 7;
const SLEEPER: u32 = 8;

const STATE_NAMES: [&str; 5] =
    ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"];

#[derive(Default)]
struct Inner {
    /// From a pool, not yet decoded.
    raw: Option<Arc<Outcome>>,
    result: Option<Py<PyAny>>,
    exception: Option<Py<PyAny>>,
    callbacks: Vec<Py<PyAny>>,
    condition: Option<Py<PyAny>>,
    waiters: Option<Py<PyList>>,
    /// Itself, while a pool owes it a delivery.
    keep: Option<Py<Future>>,
}

/// Where a pool's future comes from.
pub struct Source {
    pub pool: Arc<Pool>,
    pub task: TaskId,
    /// What it runs, for error messages: a function or class, else its name. Nothing that
    /// holds the caller's data: that must be free when the call is done.
    pub function: Py<PyAny>,
}

/// What a future and its pool share.
#[derive(Default)]
pub struct Cell {
    word: AtomicU32,
    inner: Mutex<Inner>,
    source: OnceLock<Source>,
}

impl Cell {
    fn state(&self) -> u32 {
        self.word.load(Ordering::Acquire) & STATE
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to a new state and wakes sleepers. Called with `inner` locked.
    fn move_to(&self, state: u32) {
        let before = self.word.swap(state, Ordering::AcqRel);
        if before & SLEEPER != 0 {
            futex::wake(&self.word, u32::MAX);
        }
    }
}

fn is_done(state: u32) -> bool {
    matches!(state, CANCELLED | NOTIFIED | FINISHED)
}

impl Waitable for Cell {
    fn done(&self) -> bool {
        is_done(self.state())
    }

    fn park(&self, limit: Duration) -> Woken {
        let before = self.word.fetch_or(SLEEPER, Ordering::AcqRel);
        if is_done(before & STATE) {
            self.word.fetch_and(!SLEEPER, Ordering::AcqRel);
            return Woken::Maybe;
        }
        futex::wait(&self.word, before | SLEEPER, Some(limit))
    }
}

impl Completion for Cell {
    fn wanted(&self) -> bool {
        !self.done()
    }

    fn complete(self: Arc<Self>, outcome: Outcome) -> bool {
        let mut inner = self.inner();
        if self.done() {
            return false; // the user set it by hand: the first word counts
        }
        let cancelled = matches!(outcome, Outcome::Cancelled);
        inner.raw = (!cancelled).then(|| Arc::new(outcome));
        self.move_to(if cancelled { NOTIFIED } else { FINISHED });
        inner.keep.is_some()
    }
}

/// The state of an asynchronous call; `oxgang.concurrent.futures.Future` derives from it.
#[pyclass(subclass, weakref, frozen, module = "oxgang._core")]
pub struct Future {
    pub cell: Arc<Cell>,
}

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>) -> Self {
        Self { cell: Arc::default() }
    }

    /// Cancel the call if it has not begun. ``False`` if it runs or is finished.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let cell = slf.get().cell.clone();
        match cell.state() {
            RUNNING | FINISHED => return Ok(false),
            CANCELLED | NOTIFIED => return Ok(true),
            _ => {}
        }
        if let Some(source) = cell.source.get() {
            let pool = &source.pool;
            let cancelled = slf.py().detach(|| pool.cancel(source.task));
            let cancelled = cancelled || matches!(cell.state(), CANCELLED | NOTIFIED);
            if cancelled {
                deliver(slf)?;
            }
            return Ok(cancelled);
        }
        {
            let _inner = cell.inner();
            match cell.state() {
                PENDING => cell.move_to(CANCELLED),
                state => return Ok(state == CANCELLED || state == NOTIFIED),
            }
        }
        deliver(slf)?;
        Ok(true)
    }

    /// End the call, also if it runs: its worker is ended, and nothing else. ``False`` if it is
    /// finished, or was cancelled.
    fn terminate(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let cell = slf.get().cell.clone();
        if cell.done() {
            return Ok(false);
        }
        let Some(source) = cell.source.get() else {
            return if Self::cancel(slf)? || cell.done() { Ok(true) } else { Err(cannot_end()) };
        };
        let ended = slf.py().detach(|| source.pool.terminate(source.task));
        if ended {
            deliver(slf)?;
        }
        Ok(ended)
    }

    /// Whether the call was cancelled.
    fn cancelled(&self) -> bool {
        self.look();
        matches!(self.cell.state(), CANCELLED | NOTIFIED)
    }

    /// Whether the call is being executed right now.
    fn running(&self, py: Python<'_>) -> bool {
        self.look();
        match (self.cell.state(), self.cell.source.get()) {
            (RUNNING, _) => true,
            (PENDING, Some(source)) => {
                let pool = &source.pool;
                py.detach(|| pool.has_begun(source.task))
            }
            _ => false,
        }
    }

    /// Whether the call was cancelled or finished.
    fn done(&self) -> bool {
        self.look();
        self.cell.done()
    }

    /// The call's result; waits for it, for `timeout` seconds at most.
    #[pyo3(signature = (timeout=None))]
    fn result(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        Self::settle(slf, timeout)?;
        let inner = slf.get().cell.inner();
        match (&inner.exception, &inner.result) {
            (None, Some(result)) => Ok(result.clone_ref(py)),
            (None, None) => Ok(py.None()),
            (Some(exception), _) => {
                let exception = exception.clone_ref(py);
                drop(inner);
                Err(PyErr::from_value(exception.into_bound(py)))
            }
        }
    }

    /// The exception that the call raised, or ``None``; waits like ``result``.
    #[pyo3(signature = (timeout=None))]
    fn exception(
        slf: &Bound<'_, Self>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        Self::settle(slf, timeout)?;
        Ok(slf.get().cell.inner().exception.as_ref().map(|one| one.clone_ref(slf.py())))
    }

    /// Call ``fn(future)`` when it is done; at once if it is.
    fn add_done_callback(slf: &Bound<'_, Self>, r#fn: Py<PyAny>) -> PyResult<()> {
        let cell = &slf.get().cell;
        {
            let mut inner = cell.inner();
            if !cell.done() {
                inner.callbacks.push(r#fn);
                drop(inner);
                return Self::flag(slf);
            }
        }
        call_back(slf, &r#fn)
    }

    /// For executors: the call starts now. ``False`` if it was cancelled.
    pub fn set_running_or_notify_cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let cell = &slf.get().cell;
        {
            let _inner = cell.inner();
            match cell.state() {
                PENDING => {
                    cell.move_to(RUNNING);
                    return Ok(true);
                }
                CANCELLED => cell.move_to(NOTIFIED),
                state => {
                    drop(_inner);
                    let name = STATE_NAMES[state as usize];
                    standard(slf.py())?.log_critical(slf.as_any(), name)?;
                    return Err(PyRuntimeError::new_err("Future in unexpected state"));
                }
            }
        }
        deliver(slf)?;
        Ok(false)
    }

    /// For executors and tests: the call returned this.
    fn set_result(slf: &Bound<'_, Self>, result: Py<PyAny>) -> PyResult<()> {
        Self::finish(slf, Some(result), None)
    }

    /// For executors and tests: the call raised this.
    fn set_exception(slf: &Bound<'_, Self>, exception: Py<PyAny>) -> PyResult<()> {
        Self::finish(slf, None, Some(exception))
    }

    fn _get_snapshot(slf: &Bound<'_, Self>) -> PyResult<Snapshot> {
        let py = slf.py();
        let this = slf.get();
        this.look();
        let state = this.cell.state();
        if !is_done(state) {
            return Ok((false, false, None, None));
        }
        if state != FINISHED {
            return Ok((true, true, None, None));
        }
        Self::decode(slf)?;
        let inner = this.cell.inner();
        let one = |object: &Option<Py<PyAny>>| object.as_ref().map(|o| o.clone_ref(py));
        Ok((true, false, one(&inner.result), one(&inner.exception)))
    }

    fn _invoke_callbacks(slf: &Bound<'_, Self>) -> PyResult<()> {
        run_callbacks(slf)
    }

    #[getter(_state)]
    fn get_attribute_state(&self, py: Python<'_>) -> &'static str {
        if self.running(py) { STATE_NAMES[1] } else { STATE_NAMES[self.cell.state() as usize] }
    }

    #[setter(_state)]
    fn set_attribute_state(&self, name: &str) -> PyResult<()> {
        let state = STATE_NAMES.iter().position(|one| *one == name);
        let state = state.ok_or_else(|| PyValueError::new_err(format!("no such state: {name}")))?;
        let _inner = self.cell.inner();
        self.cell.move_to(state as u32);
        Ok(())
    }

    #[getter(_result)]
    fn get_attribute_result(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Self::decode(slf)?;
        Ok(slf.get().cell.inner().result.as_ref().map(|one| one.clone_ref(slf.py())))
    }

    #[setter(_result)]
    fn set_attribute_result(&self, result: Option<Py<PyAny>>) {
        let before = std::mem::replace(&mut self.cell.inner().result, result);
        drop(before);
    }

    #[getter(_exception)]
    fn get_attribute_exception(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Self::decode(slf)?;
        Ok(slf.get().cell.inner().exception.as_ref().map(|one| one.clone_ref(slf.py())))
    }

    #[setter(_exception)]
    fn set_attribute_exception(&self, exception: Option<Py<PyAny>>) {
        let before = std::mem::replace(&mut self.cell.inner().exception, exception);
        drop(before);
    }

    #[getter(_done_callbacks)]
    fn get_done_callbacks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let callbacks: Vec<_> =
            self.cell.inner().callbacks.iter().map(|one| one.clone_ref(py)).collect();
        PyList::new(py, callbacks)
    }

    /// What the standard `wait` and `as_completed` hold while they look.
    #[getter(_condition)]
    fn get_attribute_condition(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let cell = &slf.get().cell;
        let known = cell.inner().condition.as_ref().map(|one| one.clone_ref(py));
        if let Some(condition) = known {
            return Ok(condition);
        }
        let fresh = standard(py)?.condition.call0(py)?;
        let condition = {
            let mut inner = cell.inner();
            inner.condition.get_or_insert(fresh).clone_ref(py)
        };
        Self::flag(slf)?;
        Ok(condition)
    }

    #[getter(_waiters)]
    fn get_attribute_waiters(&self, py: Python<'_>) -> Py<PyList> {
        let mut inner = self.cell.inner();
        inner.waiters.get_or_insert_with(|| PyList::empty(py).unbind()).clone_ref(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let this = slf.get();
        let state = match this.get_attribute_state(py) {
            "CANCELLED_AND_NOTIFIED" => "cancelled".to_owned(),
            state => state.to_lowercase(),
        };
        let class = slf.get_type().name()?;
        let at = slf.as_ptr() as usize;
        if this.cell.state() != FINISHED {
            return Ok(format!("<{class} at {at:#x} state={state}>"));
        }
        Self::decode(slf)?;
        let inner = this.cell.inner();
        let (how, object) = match (&inner.exception, &inner.result) {
            (Some(exception), _) => ("raised", exception.clone_ref(py)),
            (None, Some(result)) => ("returned", result.clone_ref(py)),
            (None, None) => ("returned", py.None()),
        };
        drop(inner);
        let kind = object.bind(py).get_type().name()?.to_string();
        Ok(format!("<{class} at {at:#x} state={state} {how} {kind}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // never blocks in here; what is locked just now is in use, and so no garbage.
        // `keep` is not visited: it is the pool's reference, not one of the cycle
        if let Ok(inner) = self.cell.inner.try_lock() {
            visit.call(&inner.result)?;
            visit.call(&inner.exception)?;
            visit.call(&inner.condition)?;
            visit.call(&inner.waiters)?;
            for callback in &inner.callbacks {
                visit.call(callback)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let mut inner = self.cell.inner();
        let garbage = (
            inner.result.take(),
            inner.exception.take(),
            inner.condition.take(),
            inner.waiters.take(),
            std::mem::take(&mut inner.callbacks),
        );
        drop(inner);
        drop(garbage);
    }
}

impl Future {
    /// Ties a fresh future to the task that will complete it.
    pub fn bind(&self, source: Source) {
        let fresh = self.cell.source.set(source).is_ok();
        debug_assert!(fresh, "a future belongs to one task");
    }

    /// Whether it is done, without taking in anything.
    pub fn is_done(&self) -> bool {
        self.cell.done()
    }

    /// Takes in answers that have come, so that what is said of the state is true now.
    fn look(&self) {
        if !self.cell.done()
            && let Some(source) = self.cell.source.get()
        {
            source.pool.poke();
        }
    }

    /// A pool's future that is not done: its pool must deliver.
    fn flag(slf: &Bound<'_, Self>) -> PyResult<()> {
        let cell = &slf.get().cell;
        let Some(source) = cell.source.get() else { return Ok(()) };
        {
            let mut inner = cell.inner();
            if cell.done() {
                drop(inner);
                return deliver(slf); // it became done meanwhile, and nobody was to be told
            }
            if inner.keep.is_some() {
                return Ok(());
            }
            inner.keep = Some(slf.clone().unbind());
        }
        let pool = &source.pool;
        slf.py().detach(|| pool.watch_one_more());
        Ok(())
    }

    /// Waits until it is done, raises if it was cancelled, and decodes.
    fn settle(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let cell = &slf.get().cell;
        if !cell.done() {
            Self::wait(py, cell, wait::deadline(timeout)?)?;
        }
        match cell.state() {
            // only a pool's answers come as bytes
            FINISHED if cell.source.get().is_none() => Ok(()),
            FINISHED => Self::decode(slf),
            _ => Err(standard(py)?.cancelled_error(py)),
        }
    }

    fn wait(py: Python<'_>, cell: &Arc<Cell>, deadline: Option<Instant>) -> PyResult<()> {
        loop {
            let waited = py.detach(|| match cell.source.get() {
                Some(source) => source.pool.wait(&**cell, deadline),
                None => crate::threads::wait(cell, deadline),
            });
            match waited {
                Waited::Done => return Ok(()),
                Waited::TimeUp => return Err(standard(py)?.timeout_error(py)),
                Waited::Signal => py.check_signals()?,
                Waited::Forked => {
                    return Err(PyRuntimeError::new_err(
                        "this future belongs to the process that this one was forked from; \
                         wait for it there",
                    ));
                }
            }
        }
    }

    /// Makes objects of a pool's bytes. An interruption leaves the bytes for the next try; of
    /// two threads that decode at once, the first one's objects count.
    fn decode(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let cell = &slf.get().cell;
        let Some(raw) = cell.inner().raw.clone() else { return Ok(()) };
        let decoded = payload::open(py, &raw, cell.source.get())?;
        drop(raw);
        let mut inner = cell.inner();
        let used = inner.raw.take();
        if used.is_some() {
            match decoded {
                Ok(result) => inner.result = Some(result),
                Err(exception) => inner.exception = Some(exception),
            }
        }
        drop(inner);
        drop(used);
        Ok(())
    }

    pub fn finish(
        slf: &Bound<'_, Self>,
        result: Option<Py<PyAny>>,
        exception: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let exception = exception.map(|one| instance(py, one)).transpose()?;
        let cell = &slf.get().cell;
        {
            let mut inner = cell.inner();
            let state = cell.state();
            if is_done(state) {
                drop(inner);
                let name = STATE_NAMES[state as usize];
                return Err(standard(py)?.invalid_state(slf.as_any(), name));
            }
            inner.result = result;
            inner.exception = exception;
            cell.move_to(FINISHED);
            if inner.callbacks.is_empty() && inner.condition.is_none() {
                return Ok(());
            }
        }
        deliver(slf)
    }
}

fn cannot_end() -> PyErr {
    PyRuntimeError::new_err(
        "this call runs in a thread, which cannot be ended from outside; let it run in a process, \
         or give it a limit (task_timeout=), which raises TaskTimeout in its Python code",
    )
}

/// An exception class stands for an instance of it, as in a `raise`.
fn instance(py: Python<'_>, exception: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let bound = exception.bind(py);
    if bound.is_none() || bound.is_instance_of::<PyBaseException>() {
        return Ok(exception);
    }
    match bound.cast::<PyType>() {
        Ok(class) if class.is_subclass_of::<PyBaseException>()? => Ok(class.call0()?.unbind()),
        // the standard class takes anything here
        _ => Ok(exception),
    }
}

/// Tells everybody in Python who wants to know. Each is told once, whoever comes first.
pub fn deliver(slf: &Bound<'_, Future>) -> PyResult<()> {
    let py = slf.py();
    let cell = &slf.get().cell;
    let (condition, keep) = {
        let mut inner = cell.inner();
        (inner.condition.as_ref().map(|one| one.clone_ref(py)), inner.keep.take())
    };
    if let Some(condition) = condition {
        let condition = condition.bind(py);
        condition.call_method0(intern!(py, "acquire"))?;
        let told = tell_waiters(slf);
        condition.call_method0(intern!(py, "notify_all"))?;
        condition.call_method0(intern!(py, "release"))?;
        told?;
    }
    drop(keep);
    run_callbacks(slf)
}

fn tell_waiters(slf: &Bound<'_, Future>) -> PyResult<()> {
    let py = slf.py();
    let cell = &slf.get().cell;
    let waiters = cell.inner().waiters.as_ref().map(|list| list.clone_ref(py));
    let (Some(waiters), state) = (waiters, cell.state()) else { return Ok(()) };
    let method = match state {
        FINISHED => {
            Future::decode(slf)?;
            if cell.inner().exception.is_some() { "add_exception" } else { "add_result" }
        }
        NOTIFIED => "add_cancelled",
        _ => return Ok(()), // cancelled, but its executor has not said so yet
    };
    // each waiter is told once: a delivery takes them along
    let list = waiters.bind(py);
    let all: Vec<_> = list.iter().collect();
    for waiter in all {
        waiter.call_method1(method, (slf,))?;
    }
    Ok(())
}

fn run_callbacks(slf: &Bound<'_, Future>) -> PyResult<()> {
    let callbacks = std::mem::take(&mut slf.get().cell.inner().callbacks);
    for callback in callbacks {
        call_back(slf, &callback)?;
    }
    Ok(())
}

fn call_back(slf: &Bound<'_, Future>, callback: &Py<PyAny>) -> PyResult<()> {
    let py = slf.py();
    match callback.call1(py, (slf,)) {
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
            standard(py)?.log_callback_failure(slf.as_any(), error)
        }
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Called by the driver for a completion that asked for it.
pub fn deliver_completion(py: Python<'_>, completion: Arc<dyn Completion>) -> PyResult<()> {
    let any: Arc<dyn std::any::Any + Send + Sync> = completion;
    let Ok(cell) = any.downcast::<Cell>() else { return Ok(()) };
    let keep = cell.inner().keep.take();
    match keep {
        Some(future) => deliver(future.bind(py)),
        None => Ok(()), // somebody else was faster
    }
}

/// The cell of a future that the pool's user may have subclassed.
pub fn cell_of(future: &Bound<'_, PyAny>) -> PyResult<Arc<Cell>> {
    let future = future.cast::<Future>().map_err(|_| {
        PyTypeError::new_err("the executor's future class must derive from oxgang's Future")
    })?;
    Ok(future.get().cell.clone())
}
