//! `RLock`: a lock that its thread may take again.
//!
//! The owner is a word that threads race for; who wins it need not have waited. Those who wait are
//! in a line, and each release calls the first, who then races too. A thread that a condition has
//! told to go on waits in this line, not in the condition's: it is woken once, when the lock is
//! free, and not twice.
//!
//! A release stores the owner and then looks whether somebody waits; who is to wait says so and
//! then looks at the owner once more. Both in the one order of sequential consistency, so one of
//! the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use oxgang::parking::{Call, Line, Seat};
use pyo3::exceptions::{PyDeprecationWarning, PyOverflowError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Books, sit};
use crate::raw::thread_ident;
use crate::wait;

/// A lock that its thread may take again; as `threading.RLock`.
#[pyclass(subclass, frozen, weakref, module = "oxgang.threading")]
#[derive(Default)]
pub struct RLock {
    /// What `threading.get_ident` gives for the thread that has it; 0: nobody.
    owner: AtomicU64,
    /// How often; the owner's alone.
    depth: AtomicU64,
    /// Seats in the line.
    waiting: AtomicU32,
    line: Books<Line>,
}

impl RLock {
    pub fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == thread_ident()
    }

    #[inline]
    fn take_quickly(&self) -> bool {
        let me = thread_ident();
        if self.owner.load(Ordering::Relaxed) == me {
            self.depth.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.win(me)
    }

    #[inline]
    fn win(&self, me: u64) -> bool {
        let won = self.owner.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if won {
            self.depth.store(1, Ordering::Relaxed);
        }
        won
    }

    /// Waits for it; `Ok(false)`: time is up. `steadfast`: without a look at signals.
    #[cold]
    fn take_slowly(
        &self,
        py: Python<'_>,
        deadline: Option<Instant>,
        steadfast: bool,
    ) -> PyResult<bool> {
        let (me, seat) = (thread_ident(), Seat::new());
        let mut line = self.line.open(py);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if self.win(me) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Ok(true);
        }
        line.join(&seat);
        drop(line);
        loop {
            let rise = if steadfast {
                py.detach(|| seat.sit(None, None));
                Ok(seat.is_called())
            } else {
                sit(py, &seat, deadline)
            };
            if steadfast && !seat.is_called() {
                continue; // a signal: its handler runs when the lock is back
            }
            let mut line = self.line.open(py);
            if matches!(rise, Ok(true)) {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                if self.win(me) {
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                    return Ok(true);
                }
                line.rejoin(&seat);
                continue;
            }
            if line.quit(&seat) {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            let won = rise.is_ok() && self.win(me);
            drop(line);
            if seat.leave() && !won {
                drop(self.call_next(py));
            }
            return rise.map(|_| won);
        }
    }

    /// Calls the next who waits.
    #[cold]
    fn call_next(&self, py: Python<'_>) -> Option<Call> {
        let mut line = self.line.open(py);
        let before = line.len();
        let call = line.call();
        self.waiting.fetch_sub((before - line.len()) as u32, Ordering::SeqCst);
        call
    }

    #[inline]
    fn free(&self, py: Python<'_>) -> Option<Call> {
        self.owner.store(0, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 { self.call_next(py) } else { None }
    }

    #[inline]
    fn give(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_mine() {
            return Err(not_mine());
        }
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            drop(self.free(py));
        }
        Ok(())
    }

    /// Gives it back altogether, for a while; how often it was held, and who is next.
    pub fn let_go(&self, py: Python<'_>) -> (u64, Option<Call>) {
        let depth = self.depth.swap(0, Ordering::Relaxed);
        (depth, self.free(py))
    }

    /// Takes it back as often as it was held. Nothing keeps it from that.
    pub fn take_back(&self, py: Python<'_>, depth: u64) {
        if !self.win(thread_ident()) {
            // a steadfast wait gives up for nothing
            let taken = self.take_slowly(py, None, true);
            debug_assert!(matches!(taken, Ok(true)));
        }
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// Those who were told to go on when it is free. The caller holds it.
    pub fn queue(&self, py: Python<'_>, seats: &[Arc<Seat>]) {
        let mut line = self.line.open(py);
        for seat in seats {
            line.join(seat);
        }
        self.waiting.fetch_add(seats.len() as u32, Ordering::SeqCst);
    }

    /// One who was told does not wait any more.
    pub fn unqueue(&self, py: Python<'_>, seat: &Arc<Seat>) {
        if self.line.open(py).quit(seat) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn not_mine() -> PyErr {
    PyRuntimeError::new_err("cannot release un-acquired lock")
}

/// When an `acquire` with these arguments is over; `Ok(None)` inside: it does not wait at all.
fn limits(
    blocking: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Option<Instant>>> {
    let blocking = blocking.map_or(Ok(true), |blocking| blocking.is_truthy())?;
    let seconds = timeout.map_or(Ok(-1.0), |timeout| timeout.extract::<f64>())?;
    if !blocking {
        if seconds != -1.0 {
            return Err(PyValueError::new_err("can't specify a timeout for a non-blocking call"));
        }
        return Ok(None);
    }
    if seconds < 0.0 && seconds != -1.0 {
        return Err(PyValueError::new_err("timeout value must be a non-negative number"));
    }
    if seconds > MOST_S {
        return Err(PyOverflowError::new_err("timeout value is too large"));
    }
    if seconds == -1.0 { Ok(Some(None)) } else { wait::deadline(timeout).map(Some) }
}

/// `threading.TIMEOUT_MAX`: what fits into nanoseconds of 64 bits.
const MOST_S: f64 = 9_223_372_036.0;

#[pymethods]
impl RLock {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        if !args.is_empty() || kwargs.is_some() {
            let text = c"Passing arguments to RLock is deprecated and will be removed in 3.15";
            PyErr::warn(args.py(), &args.py().get_type::<PyDeprecationWarning>(), text, 1)?;
        }
        Ok(Self::default())
    }

    /// Takes it; waits until it is free, unless this thread has it already.
    ///
    /// Args:
    ///     blocking: ``False``: does not wait.
    ///     timeout: Seconds to wait at most; -1: no limit.
    ///
    /// Returns ``False`` if it did not get it. Raises `ValueError` for a timeout that is negative
    /// or comes without waiting, `OverflowError` for one beyond `TIMEOUT_MAX`.
    #[pyo3(signature = (blocking=None, timeout=None))]
    fn acquire(
        &self,
        py: Python<'_>,
        blocking: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        if blocking.is_none() && timeout.is_none() {
            return Ok(self.take_quickly() || self.take_slowly(py, None, false)?);
        }
        let limits = limits(blocking, timeout)?;
        if self.take_quickly() {
            return Ok(true);
        }
        limits.map_or(Ok(false), |deadline| self.take_slowly(py, deadline, false))
    }

    /// Gives it back, once. Raises `RuntimeError` if this thread does not have it.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.give(py)
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.take_quickly() || self.take_slowly(py, None, false)?)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.give(py)
    }

    fn _is_owned(&self) -> bool {
        self.is_mine()
    }

    fn _recursion_count(&self) -> u64 {
        if self.is_mine() { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    fn _release_save(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        if !self.is_mine() {
            return Err(not_mine());
        }
        Ok((self.let_go(py).0, thread_ident()))
    }

    fn _acquire_restore(&self, py: Python<'_>, state: (u64, u64)) {
        self.take_back(py, state.0);
        self.owner.store(state.1, Ordering::Relaxed);
    }

    fn _at_fork_reinit(&self, py: Python<'_>) {
        self.line.open(py).clear();
        self.waiting.store(0, Ordering::SeqCst);
        self.depth.store(0, Ordering::Relaxed);
        self.owner.store(0, Ordering::SeqCst);
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (lock, class) = (slf.get(), slf.get_type());
        let owner = lock.owner.load(Ordering::Relaxed);
        let depth = if owner == 0 { 0 } else { lock.depth.load(Ordering::Relaxed) };
        let state = if owner == 0 { "unlocked" } else { "locked" };
        let (name, address) = (class.fully_qualified_name()?, slf.as_ptr() as usize);
        Ok(format!("<{state} {name} object owner={owner} count={depth} at {address:#x}>"))
    }
}
