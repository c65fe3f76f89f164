//! What a future and its pool share: the state, and what came of the call. See [`super`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use oxgang::pool::Waitable;
use oxgang::task::Told;
use oxgang::{Completion, Outcome, Pool, TaskId};
use oxgang_os::futex::{self, Woken};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::Future;
use crate::calls::Calls;
use crate::port::{Item, Mailbox};

pub const PENDING: u32 = 0;
pub const RUNNING: u32 = 1;
pub const CANCELLED: u32 = 2;
pub const NOTIFIED: u32 = 3;
pub const FINISHED: u32 = 4;
const STATE: u32 = 7;
const SLEEPER: u32 = 8;

pub const STATE_NAMES: [&str; 5] =
    ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"];

#[derive(Default)]
pub struct Inner {
    /// From a pool, not yet decoded.
    pub raw: Option<Arc<Outcome>>,
    pub result: Option<Py<PyAny>>,
    pub exception: Option<Py<PyAny>>,
    pub callbacks: Vec<Py<PyAny>>,
    /// Which part of what comes of many calls it is, in a pool of threads.
    pub part: Option<PartOf>,
    /// Whom to tell in an event loop.
    pub listeners: Vec<(Arc<Mailbox>, Item)>,
    pub condition: Option<Py<PyAny>>,
    pub waiters: Option<Py<PyList>>,
    /// There is a condition, and waiters have been told, or there was nothing to tell.
    pub told: bool,
    /// Itself, while a pool owes it a delivery.
    pub keep: Option<Py<Future>>,
    /// The pool counts it among those that its driver must look after.
    pub watched: bool,
}

/// A place among what comes of many calls.
pub struct PartOf {
    pub calls: Arc<Calls>,
    pub part: usize,
}

impl PartOf {
    /// Its future is done.
    pub fn settle(self, future: &Bound<'_, Future>) -> PyResult<()> {
        self.calls.settle(self.part, future)
    }
}

impl Inner {
    /// Tells event loops that it is done. Needs no interpreter.
    pub fn tell_listeners(&mut self) {
        for (mailbox, item) in self.listeners.drain(..) {
            mailbox.push(item);
        }
    }
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
    pub inner: Mutex<Inner>,
    pub source: OnceLock<Source>,
}

impl Cell {
    pub fn state(&self) -> u32 {
        self.word.load(Ordering::Acquire) & STATE
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to a new state and wakes sleepers. Called with `inner` locked.
    pub fn move_to(&self, state: u32) {
        let before = self.word.swap(state, Ordering::AcqRel);
        if before & SLEEPER != 0 {
            futex::wake(&self.word, u32::MAX);
        }
    }
}

pub fn is_done(state: u32) -> bool {
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

    fn complete(self: Arc<Self>, _part: usize, outcome: Outcome) -> Told {
        let mut inner = self.inner();
        // the user may have set it by hand: the first word counts
        if !self.done() {
            let cancelled = matches!(outcome, Outcome::Cancelled);
            inner.raw = (!cancelled).then(|| Arc::new(outcome));
            self.move_to(if cancelled { NOTIFIED } else { FINISHED });
            inner.tell_listeners();
        }
        match inner.keep {
            Some(_) => Told::ByDriver,
            None if inner.watched => Told::Already, // the other end was faster
            None => Told::Nobody,
        }
    }
}
