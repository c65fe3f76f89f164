//! `oxgang.threading`'s primitives, and how Python threads wait for each other: `oxgang::parking`
//! with Python's rules.
//!
//! What a primitive keeps stands under a mutex. **Only a thread that is attached to the
//! interpreter takes it, for moments, and neither runs Python code, nor drops a Python object, nor
//! detaches while it holds it.** From this follows all the rest:
//!
//! - a fork, which an attached thread makes while it holds none, never copies a mutex that is
//!   locked (on free-threaded builds a fork stops the other threads where they detach);
//! - neither the garbage collector, nor a destructor, nor a signal handler can meet a mutex that its
//!   own thread holds, so all operations may be entered again from them;
//! - nothing is guarded by the interpreter's lock, which a free-threaded build has not.
//!
//! Seats of threads that a fork has left behind are passed over by their generation.
//!
//! Whoever waits is detached, and is called by a store and a futex, which need no interpreter. In
//! the main thread signals are looked at when one comes and, since one that came just before a sleep
//! cannot end it, after every slice.

mod barrier;
mod condition;
mod event;
mod rlock;
mod semaphore;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use barrier::ThreadBarrier;
pub use condition::ThreadCondition;
pub use event::ThreadEvent;
use oxgang::parking::{Call, Line, Rise, Seat};
use oxgang::sync::me;
use pyo3::prelude::*;
pub use rlock::RLock;
pub use semaphore::ThreadSemaphore;

const SLICE: Duration = Duration::from_millis(200);

/// What is kept under a mutex, by the rule above.
#[derive(Default)]
pub struct Books<S>(Mutex<S>);

impl<S> Books<S> {
    /// Opens them; `_py` shows that this thread is attached.
    #[inline]
    pub fn open(&self, _py: Python<'_>) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the garbage collector, which finds them closed; see the rule.
    pub fn peek(&self) -> Option<MutexGuard<'_, S>> {
        self.0.try_lock().ok()
    }
}

/// Sits until called (`true`) or until the deadline; an error is what a signal handler raised.
pub fn sit(py: Python<'_>, seat: &Seat, deadline: Option<Instant>) -> PyResult<bool> {
    sit_after(py, None, seat, deadline)
}

/// The same after ringing somebody, who then finds the interpreter free.
pub fn sit_after(
    py: Python<'_>,
    mut call: Option<Call>,
    seat: &Seat,
    deadline: Option<Instant>,
) -> PyResult<bool> {
    let own = me();
    let slice = (own.tid() == own.pid()).then_some(SLICE);
    loop {
        let call = call.take();
        let rise = py.detach(|| {
            drop(call);
            seat.sit(deadline, slice)
        });
        match rise {
            Rise::Called => return Ok(true),
            Rise::TimeUp => return Ok(false),
            Rise::Look => py.check_signals()?,
        }
    }
}

/// Waits until `attempt` gives something; it is tried with the books open, at first and whenever
/// called. `None`: the deadline has passed.
///
/// A call that a waiter cannot use, since an error or time ends its wait, is passed on.
pub fn wait_until<S, T>(
    py: Python<'_>,
    books: &Books<S>,
    line: impl Fn(&mut S) -> &mut Line,
    deadline: Option<Instant>,
    mut attempt: impl FnMut(&mut S) -> Option<T>,
) -> PyResult<Option<T>> {
    let seat = Seat::new();
    {
        let mut open = books.open(py);
        if let Some(found) = attempt(&mut open) {
            return Ok(Some(found));
        }
        line(&mut open).join(&seat);
    }
    loop {
        let rise = sit(py, &seat, deadline);
        let mut open = books.open(py);
        let found = if rise.is_ok() { attempt(&mut open) } else { None };
        if found.is_none() && matches!(rise, Ok(true)) {
            line(&mut open).rejoin(&seat);
            continue;
        }
        line(&mut open).quit(&seat);
        let spare = seat.leave() && found.is_none();
        let call = if spare { line(&mut open).call() } else { None };
        drop(open);
        drop(call);
        return rise.map(|_| found);
    }
}

/// `<threading.Event at 0x...: state>`: the standard form, with one name before the dot.
fn describe(slf: &Bound<'_, PyAny>, state: &str) -> PyResult<String> {
    let class = slf.get_type();
    let module = class.module()?;
    let module = module.to_str()?;
    let module = module.rsplit('.').next().unwrap_or(module);
    let (name, address) = (class.qualname()?, slf.as_ptr() as usize);
    Ok(format!("<{module}.{name} at {address:#x}: {state}>"))
}
