//! `queue.Queue` and `LifoQueue`: items, and who waits for them, under the rule of
//! [`threading`](crate::threading).
//!
//! A queue begins *native*: its items are kept here. It becomes *plain*, for good, when somebody
//! asks for what only Python can show or do: `mutex`, a condition, `queue`, or a class with
//! `_put` and the like of its own. Then the items are in `queue`, everything is done with `mutex`
//! held (by [`plain`], and by `oxgang._plain_queue` where somebody has to wait), and here are left `maxsize`, `unfinished_tasks` and
//! `is_shutdown`. Who waits natively when that happens is called, and waits on over there.
//!
//! A queue that may be *shared* (`oxgang.Queue`) goes over, for good, into a queue between processes, when
//! it is sent to another process or this one forks; it is *moving* while its items are encoded, and who
//! uses it meanwhile waits until that is over. If an item cannot be encoded it stays native.
//!
//! An item that is put calls the one who has waited for one the longest; who is quicker may have it.

mod bells;
mod plain;
mod terms;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};

use oxgang::parking::{Call, Line};
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{BoundObject, PyTraverseError, PyVisit, intern};

use crate::threading::{Books, wait_until};
use bells::Bells;
use terms::{End, Patience, limit, names, nothing, raise};

// kinds, as `oxgang._queues` numbers them; 0: first in, first out; 3: as the class has it
/// Last in, first out.
const LIFO: u8 = 1;
/// Smallest first; always plain.
const PRIORITY: u8 = 2;
/// First in, first out; over there is a queue between processes.
const SHARED: u8 = 4;

#[derive(Default)]
struct Inside {
    items: VecDeque<Py<PyAny>>,
    /// 0 or less: no limit.
    most: i64,
    unfinished: i64,
    shut: bool,
    plain: bool,
    getters: Line,
    putters: Line,
    joiners: Line,
    /// Being moved over there; who wants to use it waits in this line.
    moving: bool,
    patient: Line,
    bells: Bells,
}

impl Inside {
    fn is_full(&self) -> bool {
        0 < self.most && self.most as usize <= self.items.len()
    }

    fn call_all(&mut self) -> Vec<Call> {
        let mut calls = self.getters.call_all();
        calls.append(&mut self.putters.call_all());
        calls.append(&mut self.joiners.call_all());
        calls.append(&mut self.patient.call_all());
        calls
    }
}

/// Items, unfinished tasks, whether it is shut down.
type Moving = (Py<PyList>, i64, bool);

/// What a plain queue shows.
#[derive(Default)]
struct Shown {
    mutex: Option<Py<PyAny>>,
    not_empty: Option<Py<PyAny>>,
    not_full: Option<Py<PyAny>>,
    all_tasks_done: Option<Py<PyAny>>,
    queue: Option<Py<PyAny>>,
}

/// Base of the queues of `oxgang.queue`.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
#[derive(Default)]
pub struct LocalQueue {
    books: Books<Inside>,
    kind: AtomicU8,
    /// As it was given.
    maxsize: Books<Option<Py<PyAny>>>,
    shown: Books<Shown>,
}

impl LocalQueue {
    fn pop(&self, inside: &mut Inside) -> Option<Py<PyAny>> {
        if self.kind.load(Ordering::Relaxed) == LIFO {
            inside.items.pop_back()
        } else {
            inside.items.pop_front()
        }
    }

    #[cold]
    fn take_there<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        Self::plainly(slf, "get", (false,)).or_else(|error| {
            let none = error.is_instance(py, names(py)?.empty.bind(py));
            if none { nothing(py) } else { Err(error) }
        })
    }

    /// Over there: by Python's hand with `mutex`, or in the queue between processes.
    #[cold]
    fn plainly<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        arguments: impl IntoPyObject<'py, Target = PyTuple, Error: Into<PyErr>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let arguments = arguments.into_pyobject(py).map_err(Into::into)?.into_bound();
        if slf.get().kind.load(Ordering::Relaxed) == SHARED {
            let Some(shared) = Self::shared(slf)? else {
                return slf.call_method1(name, arguments); // it stays here after all
            };
            return shared.call_method1(name, arguments);
        }
        let arguments = std::iter::once(slf.as_any().clone()).chain(arguments.iter());
        let arguments = PyTuple::new(py, arguments.collect::<Vec<_>>())?;
        names(py)?.plain.bind(py).getattr(name)?.call1(arguments)
    }

    /// The queue over there, once everything is there.
    fn shared<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, this) = (slf.py(), slf.get());
        let over = |inside: &mut Inside| (!inside.moving).then_some(());
        wait_until(py, &this.books, |inside| &mut inside.patient, None, over)?;
        if !this.books.open(py).plain {
            return Ok(None);
        }
        let found = this.shown.open(py).queue.as_ref().map(|one| one.clone_ref(py));
        Ok(found.map(|found| found.into_bound(py)))
    }

    #[cold]
    fn put_slowly(
        slf: &Bound<'_, Self>,
        item: Py<PyAny>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let patience = Patience::of(block, timeout)?;
        let mut item = Some(item);
        let put = |inside: &mut Inside| match () {
            () if inside.plain => Some(End::Plain),
            () if inside.shut => Some(End::Shut),
            () if inside.is_full() => None,
            () => {
                inside.items.extend(item.take());
                inside.unfinished += 1;
                inside.bells.ring();
                Some(End::Done((), inside.getters.call()))
            }
        };
        match patience.wait(py, &this.books, |inside| &mut inside.putters, put)? {
            Some(End::Done((), call)) => {
                drop(call);
                Ok(())
            }
            Some(End::Shut) => Err(raise(py, |names| &names.shut_down)),
            Some(End::Plain) => {
                let (block, left) = patience.left();
                Self::plainly(slf, "put", (item, block, left)).map(drop)
            }
            None => Err(raise(py, |names| &names.full)),
        }
    }

    #[cold]
    fn get_slowly<'py>(
        slf: &Bound<'py, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let patience = Patience::of(block, timeout)?;
        let get = |inside: &mut Inside| {
            if inside.plain {
                return Some(End::Plain);
            }
            match this.pop(inside) {
                Some(item) => Some(End::Done(item, inside.putters.call())),
                None => inside.shut.then_some(End::Shut),
            }
        };
        match patience.wait(py, &this.books, |inside| &mut inside.getters, get)? {
            Some(End::Done(item, call)) => {
                drop(call);
                Ok(item.into_bound(py))
            }
            Some(End::Shut) => Err(raise(py, |names| &names.shut_down)),
            Some(End::Plain) => {
                let (block, left) = patience.left();
                Self::plainly(slf, "get", (block, left))
            }
            None => Err(raise(py, |names| &names.empty)),
        }
    }

    /// One of the things shown; makes the queue plain.
    fn show<'py>(
        slf: &Bound<'py, Self>,
        which: impl Fn(&mut Shown) -> &mut Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if !this.books.open(py).plain {
            Self::plainly(slf, "open_up", ())?;
        }
        let found = which(&mut this.shown.open(py)).as_ref().map(|one| one.clone_ref(py));
        found.map(|found| found.into_bound(py)).ok_or_else(|| {
            PyAttributeError::new_err(
                "the queue has no such attribute yet: call super().__init__()",
            )
        })
    }

    fn replace(
        slf: &Bound<'_, Self>,
        value: Py<PyAny>,
        which: impl Fn(&mut Shown) -> &mut Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if !this.books.open(py).plain {
            Self::plainly(slf, "open_up", ())?;
        }
        let before = which(&mut this.shown.open(py)).replace(value);
        drop(before);
        Ok(())
    }
}

#[pymethods]
impl LocalQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    fn _open(&self, kind: u8) -> PyResult<()> {
        if kind > SHARED {
            return Err(PyValueError::new_err("no such kind of queue"));
        }
        self.kind.store(kind, Ordering::Relaxed);
        Ok(())
    }

    #[getter]
    fn _kind(&self) -> u8 {
        self.kind.load(Ordering::Relaxed)
    }

    /// Makes it plain: it shows these from now on. Gives its items, or ``None`` if it was plain.
    fn _give_over(
        slf: &Bound<'_, Self>,
        mutex: Py<PyAny>,
        not_empty: Py<PyAny>,
        not_full: Py<PyAny>,
        all_tasks_done: Py<PyAny>,
        queue: Option<Py<PyAny>>,
    ) -> PyResult<Option<Py<PyList>>> {
        let (py, this) = (slf.py(), slf.get());
        let (mutex, not_empty) = (Some(mutex), Some(not_empty));
        let (not_full, all_tasks_done) = (Some(not_full), Some(all_tasks_done));
        let mut shown = Shown { mutex, not_empty, not_full, all_tasks_done, queue };
        let (items, calls) = {
            let mut inside = this.books.open(py);
            if inside.plain {
                return Ok(None);
            }
            std::mem::swap(&mut *this.shown.open(py), &mut shown);
            inside.plain = true;
            (std::mem::take(&mut inside.items), inside.call_all())
        };
        drop((shown, calls));
        PyList::new(py, items).map(|items| Some(items.unbind()))
    }

    /// Begins to move it over there. Gives its items, how many tasks are unfinished, and whether it
    /// is shut down; ``None`` if it has been moved.
    fn _begin_move(slf: &Bound<'_, Self>, there: Py<PyAny>) -> PyResult<Option<Moving>> {
        let (py, this) = (slf.py(), slf.get());
        if this.kind.load(Ordering::Relaxed) != SHARED {
            return Err(PyValueError::new_err("this kind of queue stays in its process"));
        }
        let mut inside = this.books.open(py);
        if inside.plain {
            return Ok(None);
        }
        (inside.plain, inside.moving) = (true, true);
        let items = std::mem::take(&mut inside.items);
        let (unfinished, shut) = (inside.unfinished, inside.shut);
        let calls = inside.call_all();
        inside.bells.ring();
        drop(inside);
        drop(calls);
        let before = this.shown.open(py).queue.replace(there);
        drop(before);
        Ok(Some((PyList::new(py, items)?.unbind(), unfinished, shut)))
    }

    /// It has been moved; or it stays, with these items.
    fn _end_move(slf: &Bound<'_, Self>, back: Option<&Bound<'_, PyList>>) {
        let (py, this) = (slf.py(), slf.get());
        let items = back.map(|items| items.iter().map(Bound::unbind).collect());
        let mut inside = this.books.open(py);
        inside.moving = false;
        if let Some(items) = items {
            inside.plain = false;
            inside.items = items;
        }
        inside.bells.ring();
        let calls = inside.call_all();
        drop(inside);
        drop(calls);
    }

    /// The queue over there, or that it is being moved to.
    #[getter]
    fn _there(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let is_there = self.books.open(py).plain;
        let shown = self.shown.open(py);
        shown.queue.as_ref().filter(|_| is_there).map(|queue| queue.clone_ref(py))
    }

    /// A bell for an event loop: its number, and a descriptor to watch.
    fn _new_bell(&self, py: Python<'_>) -> PyResult<(u64, i32)> {
        self.books.open(py).bells.add()
    }

    /// Asks for one ring of the bell when there is an item. ``False``: there is one, or something
    /// else to look at.
    fn _ask(&self, py: Python<'_>, bell: u64) -> bool {
        let mut inside = self.books.open(py);
        let quiet = inside.items.is_empty() && !inside.shut && !inside.plain;
        if quiet {
            inside.bells.ask(bell);
        }
        quiet
    }

    /// Makes the bell quiet.
    fn _hush(&self, py: Python<'_>, bell: u64) {
        self.books.open(py).bells.hush(bell);
    }

    /// Takes the bell away.
    fn _drop_bell(&self, py: Python<'_>, bell: u64) {
        let gone = self.books.open(py).bells.remove(bell);
        drop(gone);
    }

    /// An item, or `NOTHING` if there is none now.
    fn _take<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let mut inside = this.books.open(py);
        if inside.plain {
            drop(inside);
            return Self::take_there(slf);
        }
        if let Some(item) = inside.items.pop_front() {
            if !inside.putters.is_empty() {
                let call = inside.putters.call();
                drop(inside);
                drop(call);
            }
            return Ok(item.into_bound(py));
        }
        let shut = inside.shut;
        drop(inside);
        if shut { Err(raise(py, |names| &names.shut_down)) } else { nothing(py) }
    }

    /// Puts an item into the queue; waits for room if there is none.
    ///
    /// Args:
    ///     item: Anything.
    ///     block: ``False``: does not wait.
    ///     timeout: Seconds to wait at most.
    ///
    /// Raises `Full` if there was no room, `ShutDown` if the queue was shut down, `ValueError` for
    /// a negative timeout.
    #[pyo3(signature = (item, block=None, timeout=None))]
    fn put(
        slf: &Bound<'_, Self>,
        item: Py<PyAny>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut inside = this.books.open(py);
        if inside.plain {
            drop(inside);
            return plain::put(slf, item, block, timeout);
        }
        if inside.shut {
            drop(inside);
            return Err(raise(py, |names| &names.shut_down));
        }
        if inside.most > 0 && (timeout.is_some() || inside.is_full()) {
            drop(inside);
            return Self::put_slowly(slf, item, block, timeout);
        }
        inside.items.push_back(item);
        inside.unfinished += 1;
        inside.bells.ring();
        if !inside.getters.is_empty() {
            let call = inside.getters.call();
            drop(inside);
            drop(call);
        }
        Ok(())
    }

    /// Takes an item out of the queue; waits for one if there is none.
    ///
    /// Args:
    ///     block: ``False``: does not wait.
    ///     timeout: Seconds to wait at most.
    ///
    /// Raises `Empty` if there was none, `ShutDown` if there is none and the queue was shut down,
    /// `ValueError` for a negative timeout.
    #[pyo3(signature = (block=None, timeout=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let mut inside = this.books.open(py);
        if inside.plain {
            drop(inside);
            return plain::get(slf, block, timeout);
        }
        if timeout.is_none()
            && let Some(item) = this.pop(&mut inside)
        {
            if !inside.putters.is_empty() {
                let call = inside.putters.call();
                drop(inside);
                drop(call);
            }
            return Ok(item.into_bound(py));
        }
        let shut = inside.shut && inside.items.is_empty();
        drop(inside);
        if shut {
            return Err(raise(py, |names| &names.shut_down));
        }
        Self::get_slowly(slf, block, timeout)
    }

    /// `put` without waiting.
    fn put_nowait<'py>(slf: &Bound<'py, Self>, item: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(intern!(slf.py(), "put"), (item, false))
    }

    /// `get` without waiting.
    fn get_nowait<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(intern!(slf.py(), "get"), (false,))
    }

    /// Says that one item that was taken out is done with.
    ///
    /// Raises `ValueError` if that was said more often than there were items.
    fn task_done(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut inside = this.books.open(py);
        if inside.plain {
            drop(inside);
            return Self::plainly(slf, "task_done", ()).map(drop);
        }
        if inside.unfinished <= 0 {
            drop(inside);
            return Err(PyValueError::new_err("task_done() called too many times"));
        }
        inside.unfinished -= 1;
        if inside.unfinished == 0 {
            let calls = inside.joiners.call_all();
            drop(inside);
            drop(calls);
        }
        Ok(())
    }

    /// Waits until all items that were put have been taken out and are done with.
    fn join(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let done = |inside: &mut Inside| match () {
            () if inside.plain => Some(End::Plain),
            () => (inside.unfinished == 0).then_some(End::Done((), None)),
        };
        match wait_until(py, &this.books, |inside| &mut inside.joiners, None, done)? {
            Some(End::Plain) => Self::plainly(slf, "join", ()).map(drop),
            _ => Ok(()),
        }
    }

    /// How many items there are now.
    fn qsize<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let inside = slf.get().books.open(slf.py());
        let count = (!inside.plain).then(|| inside.items.len());
        drop(inside);
        match count {
            Some(count) => Ok(count.into_pyobject(slf.py())?.into_any()),
            None => Self::plainly(slf, "qsize", ()),
        }
    }

    /// Whether there are none now.
    fn empty(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let inside = slf.get().books.open(slf.py());
        let count = (!inside.plain).then(|| inside.items.len());
        drop(inside);
        match count {
            Some(count) => Ok(count == 0),
            None => Self::plainly(slf, "empty", ())?.is_truthy(),
        }
    }

    /// Whether there is no room now.
    fn full(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let inside = slf.get().books.open(slf.py());
        let full = (!inside.plain).then(|| inside.is_full());
        drop(inside);
        match full {
            Some(full) => Ok(full),
            None => Self::plainly(slf, "full", ())?.is_truthy(),
        }
    }

    /// Lets `put` raise `ShutDown` from now on, and `get` when the queue is empty. Who waits is
    /// told too.
    ///
    /// Args:
    ///     immediate: Empties the queue, as if its items were done with.
    #[pyo3(signature = (immediate=false))]
    fn shutdown(slf: &Bound<'_, Self>, immediate: bool) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut inside = this.books.open(py);
        if inside.plain {
            drop(inside);
            return Self::plainly(slf, "shutdown", (immediate,)).map(drop);
        }
        inside.shut = true;
        let mut dropped = VecDeque::new();
        if immediate {
            dropped = std::mem::take(&mut inside.items);
            inside.unfinished = (inside.unfinished - dropped.len() as i64).max(0);
        }
        inside.bells.ring();
        let calls = inside.call_all();
        drop(inside);
        drop((dropped, calls));
        Ok(())
    }

    /// Items at most; 0 or less: no limit.
    #[getter]
    fn maxsize(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.maxsize.open(py).as_ref().map(|size| size.clone_ref(py))
    }

    #[setter]
    fn set_maxsize(&self, size: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = size.py();
        let most = limit(size)?;
        let before = self.maxsize.open(py).replace(size.clone().unbind());
        drop(before);
        let mut inside = self.books.open(py);
        inside.most = most;
        let calls = inside.putters.call_all();
        drop(inside);
        drop(calls);
        Ok(())
    }

    /// Items that were put and not yet done with.
    #[getter]
    fn unfinished_tasks(&self, py: Python<'_>) -> i64 {
        self.books.open(py).unfinished
    }

    #[setter]
    fn set_unfinished_tasks(&self, py: Python<'_>, count: i64) {
        self.books.open(py).unfinished = count;
    }

    /// Whether it was shut down.
    #[getter]
    fn is_shutdown(&self, py: Python<'_>) -> bool {
        self.books.open(py).shut
    }

    #[setter]
    fn set_is_shutdown(&self, py: Python<'_>, shut: bool) {
        self.books.open(py).shut = shut;
    }

    #[getter]
    fn mutex<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::show(slf, |shown| &mut shown.mutex)
    }

    #[setter]
    fn set_mutex(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        Self::replace(slf, value, |shown| &mut shown.mutex)
    }

    #[getter]
    fn not_empty<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::show(slf, |shown| &mut shown.not_empty)
    }

    #[setter]
    fn set_not_empty(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        Self::replace(slf, value, |shown| &mut shown.not_empty)
    }

    #[getter]
    fn not_full<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::show(slf, |shown| &mut shown.not_full)
    }

    #[setter]
    fn set_not_full(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        Self::replace(slf, value, |shown| &mut shown.not_full)
    }

    #[getter]
    fn all_tasks_done<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::show(slf, |shown| &mut shown.all_tasks_done)
    }

    #[setter]
    fn set_all_tasks_done(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        Self::replace(slf, value, |shown| &mut shown.all_tasks_done)
    }

    #[getter]
    fn queue<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::show(slf, |shown| &mut shown.queue)
    }

    #[setter]
    fn set_queue(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        Self::replace(slf, value, |shown| &mut shown.queue)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // never closed here: whoever has them open is attached, and the collector is not running
        if let Some(inside) = self.books.peek() {
            for item in &inside.items {
                visit.call(item)?;
            }
        }
        if let Some(shown) = self.shown.peek() {
            let Shown { mutex, not_empty, not_full, all_tasks_done, queue } = &*shown;
            for one in [mutex, not_empty, not_full, all_tasks_done, queue] {
                visit.call(one)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        let items = std::mem::take(&mut self.books.open(py).items);
        let shown = std::mem::take(&mut *self.shown.open(py));
        drop((items, shown));
    }
}
