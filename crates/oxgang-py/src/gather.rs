//! Events, conditions and barriers between processes: `oxgang::sync` with Python's rules of
//! waiting, which are in [`sync`](crate::sync).

use oxgang::segment::Mapped;
use oxgang::sync::barrier::{Arrival, Enter, Passed};
use oxgang::sync::layout::{BARRIER, CONDITION, EVENT};
use oxgang::sync::{Barrier, Condition, Event, Place, Wait, Who, me};
use pyo3::exceptions::{PyAssertionError, PyRuntimeError};
use pyo3::prelude::*;

use crate::sync::{PyAddress, SharedLock, address_of, deaths, place, waiting};
use crate::wait;

fn too_many() -> PyErr {
    PyRuntimeError::new_err("too many wait for conditions and barriers of one process")
}

fn broken_barrier(py: Python<'_>, dead: Option<Who>) -> PyErr {
    let made = deaths(py).and_then(|deaths| deaths.broken.call1(py, (dead.map(Who::pid),)));
    made.map_or_else(|error| error, |error| PyErr::from_value(error.into_bound(py)))
}

/// A flag to wait for.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct SharedEvent {
    event: Event<Mapped>,
    place: Place,
}

#[pymethods]
impl SharedEvent {
    #[new]
    #[pyo3(signature = (address=None, inherited=None))]
    fn new(address: Option<PyAddress>, inherited: Option<i32>) -> PyResult<Self> {
        let (place, _) = place(EVENT, 0, address, inherited)?;
        Ok(Self { event: Event::new(place.words().clone(), place.at), place })
    }

    /// Whether it is set.
    fn is_set(&self) -> bool {
        self.event.is_set()
    }

    /// Sets it.
    fn set(&self) {
        self.event.set(&Wait::steadfast(self.place.words()));
    }

    /// Unsets it.
    fn clear(&self) {
        self.event.clear();
    }

    /// Waits until it is set; a time limit in seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        if self.event.is_set() {
            return Ok(true);
        }
        let deadline = wait::deadline(timeout)?;
        let (set, raised) = waiting(py, self.place.words(), deadline, |kernel| {
            self.event.wait(self.event.epoch(), kernel)
        });
        raised.map_or(Ok(set), Err)
    }

    fn _address(&self, inherit: bool) -> PyAddress {
        address_of(&self.place, inherit)
    }
}

/// Waiting until told, with a lock that the users bring.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct SharedCondition {
    condition: Condition<Mapped>,
    place: Place,
}

#[pymethods]
impl SharedCondition {
    #[new]
    #[pyo3(signature = (address=None, inherited=None))]
    fn new(address: Option<PyAddress>, inherited: Option<i32>) -> PyResult<Self> {
        let (place, _) = place(CONDITION, 0, address, inherited)?;
        let condition = Condition::new(place.words().clone(), place.at, place.slot, place.nodes());
        Ok(Self { condition, place })
    }

    /// Gives the lock back, waits until called, takes the lock again.
    fn wait(
        &self,
        lock: &Bound<'_, SharedLock>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let (py, held, me) = (lock.py(), lock.get(), me());
        if !held.is_mine() {
            return Err(PyAssertionError::new_err("must acquire() condition before using wait()"));
        }
        let deadline = wait::deadline(timeout)?;
        let depth = if held.recursive { held.lock.depth() } else { 1 };
        let words = self.place.words();
        let enter = || self.condition.enter(me, &Wait::steadfast(words));
        let node = self.place.find_room(enter).ok_or_else(too_many)?;
        let ((called, released), raised) = waiting(py, words, deadline, |kernel| {
            let released = held.lock.release(&Wait::steadfast(held.place.words()));
            (self.condition.wait(node, me, kernel), released)
        });
        let again = SharedLock::take_slowly(lock, true, None);
        // under the lock, so that nobody who calls meets a node that changes hands
        self.condition.leave(node);
        again?;
        if held.recursive {
            held.lock.set_depth(depth);
        }
        released.map_err(|_| held.refused())?;
        raised.map_or(Ok(called), Err)
    }

    /// Calls up to `n` of those who wait.
    fn notify(&self, py: Python<'_>, lock: &Bound<'_, SharedLock>, n: u64) -> PyResult<()> {
        if !lock.get().is_mine() {
            return Err(PyAssertionError::new_err("lock is not owned"));
        }
        let me = me();
        py.detach(|| self.condition.call(n, me, &Wait::steadfast(self.place.words())));
        Ok(())
    }

    /// How many wait.
    fn waiters(&self) -> usize {
        self.condition.waiters()
    }

    fn _address(&self, inherit: bool) -> PyAddress {
        address_of(&self.place, inherit)
    }
}

/// Waiting until a number of parties have come.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct SharedBarrier {
    barrier: Barrier<Mapped>,
    place: Place,
}

impl SharedBarrier {
    fn act(&self, py: Python<'_>, arrival: Arrival, action: &Bound<'_, PyAny>) -> PyResult<()> {
        let kernel = Wait::steadfast(self.place.words());
        if !action.is_none()
            && let Err(error) = action.call0()
        {
            self.barrier.abort(&kernel);
            return Err(error);
        }
        if self.barrier.open(&arrival, &kernel) { Ok(()) } else { Err(broken_barrier(py, None)) }
    }
}

#[pymethods]
impl SharedBarrier {
    #[new]
    #[pyo3(signature = (parties, address=None, inherited=None))]
    fn new(parties: u32, address: Option<PyAddress>, inherited: Option<i32>) -> PyResult<Self> {
        let (place, is_new) = place(BARRIER, parties.into(), address, inherited)?;
        let barrier = Barrier::new(place.words().clone(), place.at, place.slot, place.nodes());
        if is_new {
            barrier.set_up(parties.into());
        }
        Ok(Self { barrier, place })
    }

    /// Waits for the other parties; which in order this one was.
    fn wait(
        &self,
        py: Python<'_>,
        action: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u32> {
        let deadline = wait::deadline(timeout)?;
        let (me, words) = (me(), self.place.words());
        let (entered, raised) = waiting(py, words, deadline, |kernel| {
            let enter = || match self.barrier.enter(me, kernel) {
                Enter::Full => None,
                entered => Some(entered),
            };
            self.place.find_room(enter).unwrap_or(Enter::Full)
        });
        let arrival = match entered {
            Enter::Act(arrival) => {
                let acted = raised.map_or_else(
                    || self.act(py, arrival, action),
                    |error| {
                        self.barrier.abort(&Wait::steadfast(words));
                        Err(error)
                    },
                );
                self.barrier.leave(&arrival);
                return acted.map(|()| arrival.place);
            }
            Enter::Wait(arrival) => arrival,
            Enter::Broken => return Err(raised.unwrap_or_else(|| broken_barrier(py, None))),
            Enter::Stopped => {
                self.barrier.abort(&Wait::steadfast(words));
                return Err(raised.unwrap_or_else(|| broken_barrier(py, None)));
            }
            Enter::Full => return Err(too_many()),
        };
        let (passed, raised) =
            waiting(py, words, deadline, |kernel| self.barrier.wait(&arrival, kernel));
        self.barrier.leave(&arrival);
        match (raised, passed) {
            (Some(error), _) => Err(error),
            (None, Passed::Well) => Ok(arrival.place),
            (None, Passed::Broken(dead)) => Err(broken_barrier(py, dead)),
            (None, Passed::Stopped) => Err(broken_barrier(py, None)),
        }
    }

    /// Makes it as new.
    fn reset(&self, py: Python<'_>) {
        let me = me();
        py.detach(|| self.barrier.reset(me, &Wait::steadfast(self.place.words())));
    }

    /// Breaks it.
    fn abort(&self) {
        self.barrier.abort(&Wait::steadfast(self.place.words()));
    }

    #[getter]
    fn parties(&self) -> u64 {
        self.barrier.parties()
    }

    #[getter]
    fn n_waiting(&self) -> usize {
        self.barrier.waiting()
    }

    #[getter]
    fn broken(&self) -> bool {
        self.barrier.is_broken()
    }

    fn _address(&self, inherit: bool) -> PyAddress {
        address_of(&self.place, inherit)
    }
}
