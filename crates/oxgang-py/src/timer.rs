//! Limits and further tries of calls that run in threads.
//!
//! Nobody can end a thread. What can be done is to have its Python code raise, and to let its
//! future fail if that does not help. A *timer*, a thread of Python's making like the others,
//! sleeps until the next moment at which something is due.
//!
//! | a call | when | what happens |
//! |---|---|---|
//! | runs | its limit | its thread is told to raise `TaskTimeout` (*asked*) |
//! | asked | the grace after it | its future fails (*abandoned*), and another thread takes the place of its own, which ends when the call does |
//! | ends by itself | | what it was told and has not raised is taken back |
//! | raised what is worth another try | a pause later | it is queued again |
//!
//! The exception that a thread is told to raise is raised by the interpreter between two steps of
//! Python code, so it could be late and hit the next call. It cannot: that a call is over is
//! written down under its lock before any other Python code can run, and together with it what
//! is pending is taken back; who tells a thread to raise does so under the same lock, and looks
//! first. The lock is taken so that whoever waits for it lets go of the interpreter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oxgang_os::futex;
use pyo3::prelude::*;
use pyo3::sync::{MutexExt, PyOnceLock};

use crate::future::Future;
use crate::python::standard;
use crate::threads::Item;

/// Limits and further tries of calls in threads; checked and explained by `oxgang._options`.
#[pyclass(frozen, module = "oxgang._core")]
pub struct ThreadOptions {
    pub plan: Arc<Plan>,
}

pub struct Plan {
    pub timeout: Option<Duration>,
    grace: Duration,
    pub retries: u32,
    pub retry_on: Py<PyAny>,
}

#[pymethods]
impl ThreadOptions {
    #[new]
    #[pyo3(signature = (*, timeout, grace, retries, retry_on))]
    fn new(timeout: Option<f64>, grace: f64, retries: u32, retry_on: Py<PyAny>) -> Self {
        // checked by who makes it: neither negative nor beyond any clock
        let timeout = timeout.map(Duration::from_secs_f64);
        let grace = Duration::from_secs_f64(grace);
        Self { plan: Arc::new(Plan { timeout, grace, retries, retry_on }) }
    }
}

/// `oxgang._thread_limits`' objects.
struct Names {
    /// `PyThreadState_SetAsyncExc`, which runs no Python code when called.
    set: Py<PyAny>,
    timeout: Py<PyAny>,
    number: Py<PyAny>,
    tell: Py<PyAny>,
    give_up: Py<PyAny>,
    ident: Py<PyAny>,
}

fn names(py: Python<'_>) -> PyResult<&Names> {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_try_init(py, || {
        let module = py.import("oxgang._thread_limits")?;
        let of = |name: &str| -> PyResult<Py<PyAny>> { Ok(module.getattr(name)?.unbind()) };
        Ok(Names {
            set: of("set_exception")?,
            timeout: of("timeout")?,
            number: of("number")?,
            tell: of("tell")?,
            give_up: of("give_up")?,
            ident: of("get_ident")?,
        })
    })
}

type Key = (Instant, u64);

/// What is due at some moment.
enum Due {
    Limit(Arc<Run>),
    Grace(Arc<Run>),
    Again(Item),
}

#[derive(Default)]
struct Plans {
    due: BTreeMap<Key, Due>,
    next: u64,
}

/// One try of a call with a limit.
pub struct Run {
    /// What Python calls the thread, and the same for `set_exception`.
    ident: u64,
    thread: Py<PyAny>,
    future: Py<Future>,
    function: Py<PyAny>,
    plan: Arc<Plan>,
    state: Mutex<RunState>,
}

#[derive(Default)]
struct RunState {
    key: Option<Key>,
    over: bool,
    asked: bool,
    abandoned: bool,
}

/// How a try ended.
#[derive(PartialEq, Eq)]
pub enum Ended {
    /// As it would have without a limit.
    Freely,
    /// After it was told to raise.
    Asked,
    /// After its future had failed.
    Abandoned,
}

/// The moments at which something is due.
#[derive(Default)]
pub struct Timer {
    plans: Mutex<Plans>,
    word: AtomicU32,
}

impl Timer {
    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, at: Instant, due: Due) -> Key {
        let mut plans = self.plans();
        plans.next += 1;
        let key = (at, plans.next);
        plans.due.insert(key, due);
        let first = plans.due.first_key_value().is_some_and(|(one, _)| *one == key);
        drop(plans);
        if first {
            self.nudge();
        }
        key
    }

    /// Has the timer look again.
    pub fn nudge(&self) {
        self.word.fetch_add(1, Ordering::Release);
        futex::wake(&self.word, 1);
    }

    /// Queues a call again later.
    pub fn put_off(&self, item: Item, pause: Duration) {
        self.add(Instant::now() + pause, Due::Again(item));
    }

    /// Calls that wait for their next try, all of them.
    pub fn take_again(&self) -> Vec<Item> {
        let mut plans = self.plans();
        let again = |due: &Due| matches!(due, Due::Again(_));
        let keys: Vec<_> =
            plans.due.iter().filter(|(_, due)| again(due)).map(|(key, _)| *key).collect();
        let taken = keys.iter().filter_map(|key| plans.due.remove(key));
        taken.filter_map(|due| if let Due::Again(item) = due { Some(item) } else { None }).collect()
    }

    /// A call with a limit begins in the calling thread.
    pub fn begin(
        &self,
        future: &Bound<'_, Future>,
        function: &Py<PyAny>,
        plan: &Arc<Plan>,
        limit: Duration,
    ) -> PyResult<Arc<Run>> {
        let py = future.py();
        let names = names(py)?;
        let ident = names.ident.call0(py)?;
        let run = Arc::new(Run {
            ident: ident.extract(py)?,
            thread: names.number.call1(py, (ident,))?,
            future: future.clone().unbind(),
            function: function.clone_ref(py),
            plan: plan.clone(),
            state: Mutex::default(),
        });
        // a limit beyond the clock is none
        if let Some(at) = Instant::now().checked_add(limit) {
            let key = self.add(at, Due::Limit(run.clone()));
            let mut state = run.lock(py);
            if !state.asked {
                state.key = Some(key);
            }
        }
        Ok(run)
    }

    /// The call is over: right after it, before any other Python code runs in its thread.
    pub fn end(&self, py: Python<'_>, run: &Run) -> Ended {
        let mut state = run.lock(py);
        state.over = true;
        let key = state.key.take();
        let (asked, abandoned) = (state.asked, state.abandoned);
        drop(state);
        let taken_back = match asked {
            true => {
                names(py).and_then(|names| names.set.call1(py, (&run.thread, py.None()))).map(drop)
            }
            false => Ok(()),
        };
        let due = key.and_then(|key| self.plans().due.remove(&key));
        drop(due);
        if let Err(error) = taken_back {
            run.report(py, error);
        }
        match (abandoned, asked) {
            (true, _) => Ended::Abandoned,
            (false, true) => Ended::Asked,
            (false, false) => Ended::Freely,
        }
    }

    /// Waits until something is due, or a nudge, and does it. `over`: whether to return instead;
    /// `give_up` notes that a thread is given up, at a moment when its call cannot end. Returns calls
    /// whose pause is over.
    ///
    /// What goes wrong is reported, and harms nothing else that is due.
    pub fn turn(
        &self,
        py: Python<'_>,
        over: impl Fn() -> bool + Send + Sync,
        give_up: impl Fn(u64),
    ) -> Vec<Item> {
        let seen = self.word.load(Ordering::Acquire);
        let next = self.plans().due.keys().next().map(|(at, _)| *at);
        let left = next.map(|at| at.saturating_duration_since(Instant::now()));
        if left != Some(Duration::ZERO) && !over() {
            py.detach(|| futex::wait(&self.word, seen, left));
        }
        let mut again = Vec::new();
        let now = Instant::now();
        loop {
            let due = {
                let mut plans = self.plans();
                let first = plans.due.first_entry().filter(|entry| entry.key().0 <= now);
                first.map(std::collections::btree_map::OccupiedEntry::remove)
            };
            let (done, run) = match due {
                None => return again,
                Some(Due::Again(item)) => {
                    again.push(item);
                    continue;
                }
                Some(Due::Limit(run)) => (self.ask(py, &run), run),
                Some(Due::Grace(run)) => (run.abandon(py, &give_up), run),
            };
            if let Err(error) = done {
                run.report(py, error);
            }
        }
    }

    fn ask(&self, py: Python<'_>, run: &Arc<Run>) -> PyResult<()> {
        let names = names(py)?;
        let mut state = run.lock(py);
        if state.over {
            return Ok(());
        }
        state.asked = true;
        let told = names.set.call1(py, (&run.thread, &names.timeout));
        let at = Instant::now().checked_add(run.plan.grace);
        state.key = at.map(|at| self.add(at, Due::Grace(run.clone())));
        drop(state);
        told.map(drop)
    }
}

impl Run {
    fn lock<'a>(&'a self, py: Python<'_>) -> MutexGuard<'a, RunState> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// What Python calls the thread.
    pub fn ident(&self) -> u64 {
        self.ident
    }

    /// Its future fails, whatever else does.
    fn abandon(&self, py: Python<'_>, give_up: impl Fn(u64)) -> PyResult<()> {
        {
            let mut state = self.lock(py);
            if state.over {
                return Ok(());
            }
            state.abandoned = true;
            state.key = None;
            give_up(self.ident);
        }
        let facts = (
            &self.function,
            self.plan.timeout.map(|limit| limit.as_secs_f64()),
            self.plan.grace.as_secs_f64(),
            self.ident,
        );
        let error = names(py).and_then(|names| names.give_up.call1(py, facts));
        let error = error.unwrap_or_else(|error| error.into_value(py).into_any());
        let finished = Future::finish(self.future.bind(py), None, Some(error));
        finished.or_else(|error| {
            // whoever set it by hand meanwhile was first
            if standard(py)?.is_invalid_state(py, &error) { Ok(()) } else { Err(error) }
        })
    }

    /// Puts into the error of a call that was told to raise what it could not know.
    pub fn tell(&self, py: Python<'_>, error: &PyErr) {
        let limit = self.plan.timeout.map(|limit| limit.as_secs_f64());
        let facts = (error.value(py), error.traceback(py), &self.function, limit);
        if let Err(error) = names(py).and_then(|names| names.tell.call1(py, facts)) {
            self.report(py, error);
        }
    }

    /// What went wrong in looking after the limit, and must not harm the call.
    fn report(&self, py: Python<'_>, error: PyErr) {
        error.write_unraisable(py, Some(self.future.bind(py).as_any()));
    }
}
