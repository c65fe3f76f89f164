//! Locks and semaphores between processes, and how their kin waits: `oxgang::sync` with Python's rules of waiting.
//!
//! What needs no waiting is tried with the interpreter held; all else without it. Signals are
//! looked at when one comes and, in the main thread, after every slice, since one that came just
//! before a sleep cannot end it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use oxgang::segment::Mapped;
use oxgang::sync::layout::{LOCK, SEMAPHORE};
use oxgang::sync::{Address, Lock, MOST, Node, Place, Semaphore, Taken, Wait, Who, Why, me};
use pyo3::exceptions::{PyAssertionError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::wait::{self, may_block};

/// `(serial, slot, pid, fd)`; see [`Address`].
pub type PyAddress = (u64, u32, u32, i32);

/// `(pid, thread, identity of a lock)`; see [`oxgang::sync::Link`].
type PyLink = (u32, u32, (u64, u32));

const RECURSIVE: u64 = 1;
const TELLS: u64 = 2;
const OWNED: u64 = 1 << 32;

const RELEASED_TOO_OFTEN: &str = "semaphore or lock released too many times";

/// A place that is new, or that of an address.
pub fn place(
    kind: u64,
    constant: u64,
    address: Option<PyAddress>,
    inherited: Option<i32>,
) -> PyResult<(Place, bool)> {
    let Some((serial, slot, pid, fd)) = address else {
        return Ok((Place::make(kind, constant)?, true));
    };
    let address = Address { serial, slot, pid, fd };
    let place = Place::attach(address, kind, inherited).map_err(|error| {
        PyOSError::new_err(format!(
            "a lock, semaphore or the like did not arrive: process {pid}, which sent it, has ended \
             or let go of it ({error}); keep it there until it is in use here"
        ))
    })?;
    Ok((place, false))
}

pub fn address_of(place: &Place, inherit: bool) -> PyAddress {
    let address = if inherit { place.show() } else { place.send() };
    (address.serial, address.slot, address.pid, address.fd)
}

/// Waits without the interpreter. Gives what the wait gave, and what a signal handler raised.
pub fn waiting<T: Send>(
    py: Python<'_>,
    words: &Mapped,
    deadline: Option<Instant>,
    work: impl FnOnce(&Wait<'_>) -> T + Send,
) -> (T, Option<PyErr>) {
    waiting_in(py, words, deadline, false, work)
}

/// The same for messages, which mostly come by a wake-up: in long slices.
pub fn waiting_long<T: Send>(
    py: Python<'_>,
    words: &Mapped,
    deadline: Option<Instant>,
    work: impl FnOnce(&Wait<'_>) -> T + Send,
) -> (T, Option<PyErr>) {
    waiting_in(py, words, deadline, true, work)
}

fn waiting_in<T: Send>(
    py: Python<'_>,
    words: &Mapped,
    deadline: Option<Instant>,
    long: bool,
    work: impl FnOnce(&Wait<'_>) -> T + Send,
) -> (T, Option<PyErr>) {
    let own = me();
    let in_main = own.tid() == own.pid();
    py.detach(|| {
        let raised = Cell::new(None);
        let give_up = |why: Why| {
            if why == Why::Slice && !in_main {
                return false;
            }
            wait::interrupted(&raised)
        };
        let result = {
            let wait = Wait::new(words, deadline, &give_up);
            work(&if long { wait.in_long_slices() } else { wait })
        };
        (result, raised.into_inner())
    })
}

/// What Python says about deaths.
pub struct Deaths {
    log: Py<PyAny>,
    error: Py<PyAny>,
    pub broken: Py<PyAny>,
}

pub fn deaths(py: Python<'_>) -> PyResult<&Deaths> {
    static DEATHS: PyOnceLock<Deaths> = PyOnceLock::new();
    DEATHS.get_or_try_init(py, || {
        let module = py.import("oxgang.multiprocessing._deaths")?;
        let of = |name: &str| -> PyResult<Py<PyAny>> { Ok(module.getattr(name)?.unbind()) };
        Ok(Deaths { log: of("log")?, error: of("owner_died")?, broken: of("broken_barrier")? })
    })
}

fn log_death(py: Python<'_>, object: &Bound<'_, PyAny>, dead: Who) -> PyResult<()> {
    deaths(py)?.log.call1(py, (object, dead.pid()))?;
    Ok(())
}

/// A lock, recursive or not, that outlives its owner.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct SharedLock {
    pub lock: Lock<Mapped>,
    pub place: Place,
    pub recursive: bool,
    tells: bool,
}

impl SharedLock {
    /// What a release raises.
    pub fn refused(&self) -> PyErr {
        if self.recursive {
            PyAssertionError::new_err("attempt to release recursive lock not owned by thread")
        } else {
            PyValueError::new_err(RELEASED_TOO_OFTEN)
        }
    }

    /// Whether this thread holds it.
    pub fn is_mine(&self) -> bool {
        self.lock.owner() == Some(me())
    }

    /// Takes it if that needs no waiting.
    #[inline]
    pub fn take_quickly(&self) -> bool {
        let me = me();
        if !self.recursive {
            return self.lock.try_take(me);
        }
        // looked at first: a compare-exchange that fails costs more than a load
        if self.lock.deepen(me) {
            return true;
        }
        let taken = self.lock.try_take(me);
        if taken {
            self.lock.begin();
        }
        taken
    }

    /// Gives it back.
    #[inline]
    pub fn give(&self) -> PyResult<()> {
        let kernel = Wait::steadfast(self.place.words());
        let given = if self.recursive {
            self.lock.ascend(me(), &kernel)
        } else {
            self.lock.release(&kernel)
        };
        given.map_err(|_| self.refused())
    }

    /// Takes it for somebody who has to wait.
    #[cold]
    pub fn take_slowly(
        slf: &Bound<'_, Self>,
        wait: bool,
        deadline: Option<Instant>,
    ) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let (taken, raised) = waiting(py, this.place.words(), deadline, |kernel| {
            if wait {
                this.lock.take(me(), kernel, this.tells)
            } else {
                this.lock.take_now(me(), kernel, this.tells)
            }
        });
        Self::after(slf, taken, raised)
    }

    fn after(slf: &Bound<'_, Self>, taken: Taken, raised: Option<PyErr>) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let dead = match taken {
            Taken::No => return raised.map_or(Ok(false), Err),
            Taken::Abandoned => {
                let pid = this.lock.deceased().pid();
                let error = deaths(py)?.error.call1(py, (slf, pid))?;
                return Err(PyErr::from_value(error.into_bound(py)));
            }
            Taken::FromDead(dead) => Some(dead),
            Taken::Yes => None,
        };
        if this.recursive {
            this.lock.begin();
        }
        let logged = dead.map_or(Ok(()), |dead| log_death(py, slf.as_any(), dead));
        match raised.map_or(logged, Err) {
            Ok(()) => Ok(true),
            Err(error) => {
                this.give()?;
                Err(error)
            }
        }
    }
}

#[pymethods]
impl SharedLock {
    #[new]
    #[pyo3(signature = (recursive, tells, address=None, inherited=None))]
    fn new(
        recursive: bool,
        tells: bool,
        address: Option<PyAddress>,
        inherited: Option<i32>,
    ) -> PyResult<Self> {
        let constant = (u64::from(recursive) * RECURSIVE) | (u64::from(tells) * TELLS);
        let (place, _) = place(LOCK, constant, address, inherited)?;
        let (recursive, tells) = (place.constant & RECURSIVE != 0, place.constant & TELLS != 0);
        let (words, at) = (place.words().clone(), place.at);
        let lock = if recursive { Lock::recursive(words, at) } else { Lock::new(words, at) };
        Ok(Self { lock, place, recursive, tells })
    }

    /// Takes it; `block=False`, or a time limit in seconds.
    #[pyo3(signature = (block=None, timeout=None))]
    fn acquire(
        slf: &Bound<'_, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        if slf.get().take_quickly() {
            return Ok(true);
        }
        let block = may_block(block)?;
        let deadline = if block { wait::deadline(timeout)? } else { None };
        Self::take_slowly(slf, block, deadline)
    }

    /// Gives it back.
    fn release(&self) -> PyResult<()> {
        self.give()
    }

    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<bool> {
        if slf.get().take_quickly() {
            return Ok(true);
        }
        Self::take_slowly(slf, true, None)
    }

    fn __exit__(
        &self,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.give()
    }

    /// Takes it although its owner died.
    #[pyo3(signature = (timeout=None))]
    fn recover(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let this = slf.get();
        let deadline = wait::deadline(timeout)?;
        let (taken, raised) = waiting(slf.py(), this.place.words(), deadline, |kernel| {
            this.lock.recover(me(), kernel)
        });
        Self::after(slf, taken, raised)
    }

    fn _is_mine(&self) -> bool {
        self.is_mine()
    }

    /// How often this process has taken it.
    fn _count(&self) -> u64 {
        match self.lock.owner() {
            Some(owner) if owner.same_process(me()) => {
                if self.recursive {
                    self.lock.depth()
                } else {
                    1
                }
            }
            _ => 0,
        }
    }

    fn _is_zero(&self) -> bool {
        !self.lock.is_free()
    }

    fn _get_value(&self) -> u64 {
        self.lock.is_free().into()
    }

    /// `(pid, thread)` of who holds it.
    fn _owner(&self) -> Option<(u32, u32)> {
        self.lock.owner().map(|owner| (owner.pid(), owner.tid()))
    }

    fn _address(&self, inherit: bool) -> PyAddress {
        address_of(&self.place, inherit)
    }

    /// Debugging: says that this thread waits for it.
    fn _announce(&self) -> Option<u32> {
        self.place.announce().map(|node| node.0)
    }

    /// Debugging: it waits no more.
    fn _retract(&self, node: u32) {
        self.place.retract(Node(node));
    }

    /// Debugging: the deadlock that this thread is in if it waits for it, as
    /// `[(pid, thread, lock), ...]`, each holding its lock and waiting for the next one's.
    fn _circle(&self) -> Option<Vec<PyLink>> {
        let links = self.place.circle()?;
        Some(links.into_iter().map(|link| (link.who.pid(), link.who.tid(), link.lock)).collect())
    }

    /// Debugging: notes that `then` is taken while it is held; whether that is new.
    fn _precedes(&self, then: &Self) -> bool {
        self.place.precedes(&then.place)
    }

    /// Debugging: the process that took `last`, or what led there, while it held this one.
    fn _leads_to(&self, last: &Self) -> Option<u32> {
        self.place.leads_to(&last.place).map(Who::pid)
    }

    fn _identity(&self) -> (u64, u32) {
        self.place.identity()
    }
}

/// A semaphore whose units come back when their holder dies.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct SharedSemaphore {
    semaphore: Semaphore<Mapped>,
    place: Place,
    most: u64,
    owned: bool,
    /// Fork generation above, number of our node plus one below; 0 below: not asked yet; all
    /// ones below: there is none.
    hold: AtomicU64,
}

const NO_NODE: u64 = u32::MAX as u64;

impl SharedSemaphore {
    fn hold(&self) -> Option<Node> {
        if !self.owned {
            return None;
        }
        let generation = oxgang::generation() << 32;
        let known = self.hold.load(Ordering::Relaxed);
        let number = if known >> 32 == generation >> 32 && known & NO_NODE != 0 {
            known & NO_NODE
        } else {
            let kernel = Wait::steadfast(self.place.words());
            let node = self.place.find_room(|| self.semaphore.holding(me(), &kernel));
            let number = node.map_or(NO_NODE, |node| u64::from(node.0) + 1);
            self.hold.store(generation | number, Ordering::Relaxed);
            number
        };
        (number != NO_NODE).then(|| Node((number - 1) as u32))
    }

    fn take_slowly(slf: &Bound<'_, Self>, wait: bool, deadline: Option<Instant>) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let hold = this.hold();
        let (taken, raised) = waiting(py, this.place.words(), deadline, |kernel| {
            this.semaphore.take(me(), hold, kernel, wait)
        });
        let logged = match taken {
            Taken::No | Taken::Abandoned => return raised.map_or(Ok(false), Err),
            Taken::Yes => Ok(()),
            Taken::FromDead(dead) => log_death(py, slf.as_any(), dead),
        };
        match raised.map_or(logged, Err) {
            Ok(()) => Ok(true),
            Err(error) => {
                this.give(py)?;
                Err(error)
            }
        }
    }

    fn take(slf: &Bound<'_, Self>) -> bool {
        let this = slf.get();
        let kernel = Wait::steadfast(this.place.words());
        this.semaphore.take_quickly(me(), this.hold(), &kernel) == Some(true)
    }

    fn give(&self, py: Python<'_>) -> PyResult<()> {
        let hold = self.hold();
        let (given, raised) = waiting(py, self.place.words(), None, |kernel| {
            self.semaphore.give(me(), hold, self.most, kernel)
        });
        given.map_err(|_| PyValueError::new_err(RELEASED_TOO_OFTEN))?;
        raised.map_or(Ok(()), Err)
    }
}

#[pymethods]
impl SharedSemaphore {
    #[new]
    #[pyo3(signature = (value, most, owned, address=None, inherited=None))]
    fn new(
        value: i64,
        most: i64,
        owned: bool,
        address: Option<PyAddress>,
        inherited: Option<i32>,
    ) -> PyResult<Self> {
        let number = |number: i64| u64::try_from(number).ok().filter(|number| *number <= MOST);
        let (Some(value), Some(most)) = (number(value), number(most)) else {
            return Err(PyValueError::new_err(format!(
                "the value of a semaphore is a number from 0 to {MOST}"
            )));
        };
        let constant = most | (u64::from(owned) * OWNED);
        let (place, is_new) = place(SEMAPHORE, constant, address, inherited)?;
        let (most, owned) = (place.constant & (OWNED - 1), place.constant & OWNED != 0);
        let semaphore = Semaphore::new(place.words().clone(), place.at, place.slot, place.nodes());
        if is_new {
            semaphore.set_up(value);
        }
        Ok(Self { semaphore, place, most, owned, hold: AtomicU64::new(0) })
    }

    /// Takes a unit; `block=False`, or a time limit in seconds.
    #[pyo3(signature = (block=None, timeout=None))]
    fn acquire(
        slf: &Bound<'_, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        if Self::take(slf) {
            return Ok(true);
        }
        let block = may_block(block)?;
        let deadline = if block { wait::deadline(timeout)? } else { None };
        Self::take_slowly(slf, block, deadline)
    }

    /// Gives a unit.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let kernel = Wait::steadfast(self.place.words());
        match self.semaphore.give_quickly(me(), self.hold(), self.most, &kernel) {
            Some(given) => given.map_err(|_| PyValueError::new_err(RELEASED_TOO_OFTEN)),
            None => self.give(py),
        }
    }

    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<bool> {
        if Self::take(slf) { Ok(true) } else { Self::take_slowly(slf, true, None) }
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.release(py)
    }

    #[getter]
    fn maxvalue(&self) -> u64 {
        self.most
    }

    fn _get_value(&self) -> u64 {
        self.semaphore.count()
    }

    fn _is_zero(&self) -> bool {
        self.semaphore.count() == 0
    }

    /// How many units this process holds, as far as they are counted.
    fn _count(&self) -> u64 {
        self.hold().map_or(0, |node| self.semaphore.held(node))
    }

    fn _address(&self, inherit: bool) -> PyAddress {
        address_of(&self.place, inherit)
    }

    fn _identity(&self) -> (u64, u32) {
        self.place.identity()
    }
}
