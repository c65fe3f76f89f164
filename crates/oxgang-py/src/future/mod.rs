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
//! The standard `wait` and `as_completed` take the conditions of all their futures and then rely on
//! it that no state changes: those that are not done are counted, and each of them is to be told of
//! once. So where there is a condition, `_state` shows that the future is done from the moment on
//! when its waiters are told, which is done once and with the condition held, and not before.
//!
//! The lock inside is held for moments and never across a call into Python.

use std::sync::Arc;
use std::time::Instant;

use oxgang::Pool;
use oxgang::pool::Waitable;
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use self::cell::{CANCELLED, FINISHED, NOTIFIED, PENDING, RUNNING, STATE_NAMES, is_done};
pub use self::cell::{Cell, PartOf, Source};
use self::telling::{call_back, deliver, run_callbacks};
use crate::awaiting::{Awaiting, Terminating};
use crate::port::{self, Item, Mailbox};
use crate::python::standard;
use crate::{payload, wait};

mod cell;
pub mod settling;
pub mod telling;

/// Done, cancelled, result, exception: what asyncio reads from Python 3.14 on.
type Snapshot = (bool, bool, Option<Py<PyAny>>, Option<Py<PyAny>>);

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
    pub fn cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
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
            let mut inner = cell.inner();
            match cell.state() {
                PENDING => {
                    cell.move_to(CANCELLED);
                    inner.tell_listeners();
                }
                state => return Ok(state == CANCELLED || state == NOTIFIED),
            }
        }
        deliver(slf)?;
        Ok(true)
    }

    /// End the call, also if it runs: its worker is ended, and nothing else. ``False`` if it is
    /// finished, or was cancelled.
    pub fn terminate(slf: &Bound<'_, Self>) -> PyResult<bool> {
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
    pub fn result(
        slf: &Bound<'_, Self>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
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
        if port::take_over(slf, r#fn.bind(slf.py()))? {
            return Ok(()); // asyncio's: told in its loop
        }
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

    /// Forget a callback, as often as it was added; how often that was. (As asyncio's futures.)
    fn remove_done_callback(&self, r#fn: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = r#fn.py();
        let callbacks = std::mem::take(&mut self.cell.inner().callbacks);
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        for callback in callbacks {
            // may run anything, so without the lock
            let same = callback.bind(py).eq(r#fn)?;
            if same {
                removed.push(callback)
            } else {
                kept.push(callback)
            };
        }
        let mut inner = self.cell.inner();
        kept.append(&mut inner.callbacks);
        inner.callbacks = kept;
        let forgotten = inner.listeners.iter_mut().filter_map(|(_, item)| item.forget(r#fn));
        let forgotten: Vec<Item> = forgotten.collect();
        drop(inner);
        Ok(removed.len() + forgotten.len())
    }

    /// Waits in the running event loop; the result. If the wait is cancelled, so is the call, if
    /// it has not begun.
    fn __await__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Awaiting::begin(slf, false)
    }

    /// What can be awaited like this future; but if that wait is cancelled, the call is
    /// terminated, also if it runs.
    fn terminating(slf: &Bound<'_, Self>) -> Terminating {
        Terminating::new(slf)
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
        if self.running(py) {
            return STATE_NAMES[RUNNING as usize];
        }
        let inner = self.cell.inner();
        let told = inner.told || inner.condition.is_none();
        STATE_NAMES[match self.cell.state() {
            FINISHED if !told => RUNNING,
            NOTIFIED if !told => CANCELLED,
            state => state,
        } as usize]
    }

    #[setter(_state)]
    fn set_attribute_state(&self, name: &str) -> PyResult<()> {
        let state = STATE_NAMES.iter().position(|one| *one == name);
        let state = state.ok_or_else(|| PyValueError::new_err(format!("no such state: {name}")))?;
        let mut inner = self.cell.inner();
        self.cell.move_to(state as u32);
        if is_done(state as u32) {
            inner.tell_listeners();
        }
        inner.told = matches!(state as u32, FINISHED | NOTIFIED);
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
            if inner.condition.is_none() {
                inner.told = matches!(cell.state(), FINISHED | NOTIFIED);
            }
            inner.condition.get_or_insert(fresh).clone_ref(py)
        };
        Self::flag(slf)?;
        Ok(condition)
    }

    #[getter(_waiters)]
    fn get_attribute_waiters(&self, py: Python<'_>) -> Py<PyList> {
        // before the lock is taken: making one can run the garbage collector, and so anything
        let fresh = PyList::empty(py).unbind();
        self.cell.inner().waiters.get_or_insert(fresh).clone_ref(py)
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
            // those of a pool's are the pool's
            if self.cell.source.get().is_none() {
                for (_, item) in &inner.listeners {
                    item.traverse(&visit)?;
                }
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
            std::mem::take(&mut inner.listeners),
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
            inner.keep.get_or_insert_with(|| slf.clone().unbind());
            if std::mem::replace(&mut inner.watched, true) {
                return Ok(());
            }
        }
        let pool = &source.pool;
        slf.py().detach(|| pool.watch_one_more());
        Ok(())
    }

    /// An event loop is to be told when it is done; gives the item back if it is already. Who
    /// listens must look after the pool, or have its driver do so.
    pub fn listen(slf: &Bound<'_, Self>, mailbox: &Arc<Mailbox>, item: Item) -> Option<Item> {
        let cell = &slf.get().cell;
        slf.get().look();
        {
            let mut inner = cell.inner();
            if cell.done() {
                return Some(item);
            }
            inner.listeners.push((mailbox.clone(), item));
        }
        None
    }

    /// The pool that completes it.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.cell.source.get().map(|source| &source.pool)
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
        wait::with_signals(py, || match cell.source.get() {
            Some(source) => source.pool.wait(&**cell, deadline),
            None => crate::threads::wait(&**cell, deadline),
        })
    }

    /// Makes objects of a pool's bytes. An interruption leaves the bytes for the next try; of
    /// two threads that decode at once, the first one's objects count.
    fn decode(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let cell = &slf.get().cell;
        let Some(raw) = cell.inner().raw.clone() else { return Ok(()) };
        let function = cell.source.get().map(|source| &source.function);
        let decoded = payload::open(py, &raw, function)?;
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
            inner.tell_listeners();
            if inner.callbacks.is_empty() && inner.condition.is_none() {
                let part = inner.part.take();
                drop(inner);
                return part.map_or(Ok(()), |part| part.settle(slf));
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

/// The cell of a future that the pool's user may have subclassed.
pub fn cell_of(future: &Bound<'_, PyAny>) -> PyResult<Arc<Cell>> {
    let future = future.cast::<Future>().map_err(|_| {
        PyTypeError::new_err("the executor's future class must derive from oxgang's Future")
    })?;
    Ok(future.get().cell.clone())
}
