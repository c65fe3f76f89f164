//! The queue and the loop of a thread executor; see [`pool`] for who submits.
//!
//! Threads are Python's own (`threading.Thread` with [`ThreadQueue::run`] as its target), so
//! that everything that looks at threads sees them; what they wait on is a futex, and the
//! interpreter is free meanwhile.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oxgang::limits::{TaskOptions, Tries};
use oxgang::pool::{Waitable, Waited};
use oxgang::spin::{self, Spinner};
use oxgang_os::futex::{self, Woken};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::future::Future;
use crate::timer::{Ended, Plan, Timer};

pub mod pool;

/// A signal may come in the moment between the last look and the sleep.
const SLICE: Duration = Duration::from_millis(200);
/// Tasks in a row, and time, before other threads get a chance at the interpreter: a task that runs
/// no Python code never gives it up by itself.
const IN_A_ROW: u32 = 64;
const TURN: Duration = Duration::from_micros(500);

/// Threads that wait for a result, and so have let go.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Threads of pools that run tasks or are about to let go.
static WORKING: AtomicUsize = AtomicUsize::new(0);

/// Waits for what no process pool completes.
pub fn wait(what: &impl Waitable, deadline: Option<Instant>) -> Waited {
    WAITING.fetch_add(1, Ordering::Relaxed);
    let waited = wait_for(what, deadline);
    WAITING.fetch_sub(1, Ordering::Relaxed);
    if waited == Waited::Done {
        spin::hand_over(|| WORKING.load(Ordering::Relaxed) == 0);
    }
    waited
}

fn wait_for(what: &impl Waitable, deadline: Option<Instant>) -> Waited {
    if spin_for(|| what.done()) {
        return Waited::Done;
    }
    loop {
        if what.done() {
            return Waited::Done;
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Waited::TimeUp;
        }
        let woken = what.park(left.map_or(SLICE, |left| left.min(SLICE)));
        if woken != Woken::Maybe && !what.done() {
            let up = deadline.is_some_and(|at| Instant::now() >= at);
            return if up { Waited::TimeUp } else { Waited::Signal };
        }
    }
}

fn spin_for(found: impl Fn() -> bool) -> bool {
    thread_local! {
        static SPINNER: RefCell<Spinner> = RefCell::new(Spinner::new(spin::budget_of_process()));
    }
    SPINNER.with_borrow_mut(|spinner| spinner.spin(spin::places(), found))
}

pub struct Item {
    future: Py<Future>,
    function: Py<PyAny>,
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
    plan: Option<Arc<Plan>>,
    /// The context to run it in: a copy of its submitter's.
    context: Option<Py<PyAny>>,
    /// What its tries so far have raised.
    errors: u32,
    last_error: Option<Py<PyAny>>,
}

impl Item {
    /// Its last failure stands: it has begun, so it cannot be cancelled.
    fn fail(self, py: Python<'_>) -> PyResult<()> {
        let Self { future, function, args, kwargs, context, last_error, .. } = self;
        // gone before anybody learns of it, as after any other call
        drop((function, args, kwargs, context));
        Future::finish(future.bind(py), None, last_error)
    }
}

#[derive(Default)]
struct Books {
    queue: VecDeque<Item>,
    /// Calls that wait for their next try.
    later: usize,
    /// At most.
    most: usize,
    threads: usize,
    /// Threads that were ever started.
    started: u64,
    /// Threads that wait for work.
    idle: usize,
    closed: bool,
    broken: bool,
    /// What fails now fails for good.
    last_tries: bool,
    /// Threads that were given up and have not ended, by what Python calls them.
    abandoned: Vec<u64>,
    /// There is a thread that looks after limits.
    timed: bool,
}

impl Books {
    /// How many threads are to be started for what is queued, which are counted from now on, and
    /// how many of those that wait are to be woken.
    fn call_for_threads(&mut self) -> (usize, usize) {
        let unserved = self.queue.len().saturating_sub(self.idle);
        let fresh = unserved.min(self.most.saturating_sub(self.threads));
        self.count_in(fresh);
        (fresh, self.idle.min(self.queue.len()))
    }

    /// How many threads are to be started until there are all, which are counted from now on.
    fn call_for_all(&mut self) -> usize {
        let missing = self.most.saturating_sub(self.threads);
        self.count_in(missing);
        missing
    }

    fn count_in(&mut self, threads: usize) {
        self.threads += threads;
        self.started += threads as u64;
    }

    /// They could not be started after all.
    fn count_out(&mut self, threads: usize) {
        self.threads -= threads;
        self.started -= threads as u64;
    }

    /// Nothing is left to do, and nothing will come.
    fn over(&self) -> bool {
        self.closed && self.queue.is_empty() && self.later == 0
    }
}

/// What the threads share; it knows nothing of the executor, which may be garbage long before
/// its last task is done.
#[derive(Default)]
struct Shared {
    books: Mutex<Books>,
    /// Moved on with every change that a waiting thread should see.
    word: AtomicU32,
    /// Threads that sleep on it, or are about to.
    asleep: AtomicU32,
    /// Calls that threads have answered, by a result or by an error.
    answered: AtomicU64,
    timer: Timer,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out all that no thread has, and sees to it that nothing comes back.
    fn take_all(&self, books: &mut Books) -> Vec<Item> {
        books.last_tries = true;
        let again = self.timer.take_again();
        books.later -= again.len();
        books.queue.drain(..).chain(again).collect()
    }

    /// Has a call tried again after a pause; gives it back if there is to be no further try.
    fn put_off(&self, item: Item, pause: Duration) -> Option<Item> {
        let mut books = self.books();
        if books.last_tries {
            return Some(item);
        }
        books.later += 1;
        // still under the lock: who takes everything out finds it in one place or the other
        self.timer.put_off(item, pause);
        None
    }

    fn nudge(&self, count: u32) {
        // sequentially consistent with the count in `wait`: one of the two sees the other
        self.word.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            futex::wake(&self.word, count);
        }
    }

    fn wait(&self) {
        let seen = self.word.load(Ordering::Acquire);
        let ready = || {
            let books = self.books();
            !books.queue.is_empty() || books.over()
        };
        if ready() || spin_for(|| self.word.load(Ordering::Acquire) != seen) {
            spin::hand_over(|| WAITING.load(Ordering::Relaxed) > 0);
        } else {
            self.asleep.fetch_add(1, Ordering::SeqCst);
            // a nudge in between has moved the word on, and the wait returns at once
            futex::wait(&self.word, seen, None);
            self.asleep.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The queue without its executor: for threads, and for who closes it.
#[pyclass(frozen, module = "oxgang._core")]
pub struct ThreadQueue {
    shared: Arc<Shared>,
}

#[pymethods]
impl ThreadQueue {
    /// A thread's life: tasks until the queue is closed and empty.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        self.serve(py).inspect_err(|_| {
            self.shared.books().threads -= 1;
            self.shared.timer.nudge();
        })
    }

    /// No more tasks. What is queued is still done; `cancel`: it is given back instead.
    fn close(&self, py: Python<'_>, cancel: bool) -> PyResult<()> {
        let items = {
            let mut books = self.shared.books();
            books.closed = true;
            if cancel { self.shared.take_all(&mut books) } else { Vec::new() }
        };
        self.shared.nudge(u32::MAX);
        self.shared.timer.nudge();
        for item in items {
            if item.last_error.is_some() {
                item.fail(py)?;
            } else {
                item.future.bind(py).call_method0("cancel")?;
            }
        }
        Ok(())
    }

    /// The life of the thread that looks after limits: until there is nothing more to look
    /// after. `start()` starts another thread.
    fn time(&self, py: Python<'_>, start: &Bound<'_, PyAny>) -> PyResult<()> {
        let shared = &self.shared;
        loop {
            let over = || {
                let books = shared.books();
                books.over() && books.threads == 0 || books.closed && books.broken
            };
            if over() {
                return Ok(());
            }
            let give_up = |thread| {
                let mut books = shared.books();
                books.threads -= 1;
                books.abandoned.push(thread);
            };
            let mut again = shared.timer.turn(py, over, give_up);
            let (fresh, wake) = {
                let mut books = shared.books();
                books.later -= again.len();
                if !books.last_tries {
                    again.drain(..).rev().for_each(|item| books.queue.push_front(item));
                }
                books.call_for_threads()
            };
            if wake > 0 {
                shared.nudge(wake as u32);
            }
            for item in again {
                if let Err(error) = item.fail(py) {
                    error.write_unraisable(py, None); // the others are to be told all the same
                }
            }
            for _ in 0..fresh {
                if let Err(error) = start.call0() {
                    error.write_unraisable(py, None); // the next turn tries again
                }
            }
        }
    }

    /// Gives up: futures that are left get this exception, later submits are refused.
    fn give_up(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let items = {
            let mut books = self.shared.books();
            books.broken = true;
            self.shared.take_all(&mut books)
        };
        for item in items {
            let future = item.future.bind(py);
            if item.errors > 0 || Future::set_running_or_notify_cancel(future)? {
                Future::finish(future, None, Some(error.clone().unbind()))?;
            }
        }
        Ok(())
    }

    /// A thread could not be started after all.
    fn thread_lost(&self) {
        self.shared.books().count_out(1);
    }

    /// Threads that were given up and have not ended.
    fn abandoned(&self) -> Vec<u64> {
        self.shared.books().abandoned.clone()
    }

    /// Threads that were started, and calls that were answered.
    fn counters(&self) -> std::collections::HashMap<&'static str, u64> {
        let started = self.shared.books().started;
        [("started", started), ("answered", self.shared.answered.load(Ordering::Relaxed))].into()
    }

    /// Tasks that wait for a thread.
    fn qsize(&self) -> usize {
        self.shared.books().queue.len()
    }
}

impl ThreadQueue {
    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        let shared = &self.shared;
        let (mut in_a_row, mut since) = (0, Instant::now());
        let _working = Working::begin();
        loop {
            let item = shared.books().queue.pop_front();
            let Some(item) = item else {
                {
                    let mut books = shared.books();
                    if books.over() {
                        books.threads -= 1;
                        drop(books);
                        shared.timer.nudge();
                        return Ok(());
                    }
                    books.idle += 1;
                }
                py.detach(|| Working::pause(|| shared.wait()));
                shared.books().idle -= 1;
                (in_a_row, since) = (0, Instant::now());
                continue;
            };
            if !run_item(py, shared, item)? {
                return Ok(()); // another has taken its place meanwhile
            }
            in_a_row += 1;
            if in_a_row >= IN_A_ROW {
                in_a_row = 0;
                if since.elapsed() >= TURN {
                    py.detach(std::thread::yield_now);
                    since = Instant::now();
                }
            }
        }
    }
}

/// A place among the working threads.
struct Working;

impl Working {
    fn begin() -> Self {
        WORKING.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// Called when the interpreter has been let go: not a moment before that is true.
    fn pause(wait: impl FnOnce()) {
        WORKING.fetch_sub(1, Ordering::Relaxed);
        wait();
        WORKING.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        WORKING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a call; `false`: so long that this thread has been given up.
fn run_item(py: Python<'_>, shared: &Shared, item: Item) -> PyResult<bool> {
    let Item { future, function, args, kwargs, plan, context, errors, last_error } = item;
    let future = future.bind(py);
    if errors == 0 && !Future::set_running_or_notify_cancel(future)? {
        return Ok(true);
    }
    drop(last_error);
    let timeout = plan.as_ref().and_then(|plan| Some((plan, plan.timeout?)));
    let run = timeout.map(|(plan, limit)| shared.timer.begin(future, &function, plan, limit));
    let run = match run.transpose() {
        Ok(run) => run,
        Err(error) => {
            // without its limit it does not begin
            Future::finish(future, None, Some(error.into_value(py).into_any()))?;
            return Ok(true);
        }
    };
    let result = call(py, &function, &args, kwargs.as_ref(), context.as_ref());
    if let Some(run) = run {
        match (shared.timer.end(py, &run), &result) {
            (Ended::Abandoned, _) => {
                let thread = run.ident();
                shared.books().abandoned.retain(|one| *one != thread);
                return Ok(false);
            }
            (Ended::Asked, Err(error)) => run.tell(py, error),
            _ => {}
        }
    }
    if let (Err(error), Some(plan)) = (&result, &plan)
        && let Some(pause) = pause(py, plan, error, errors + 1)
    {
        let last_error = Some(error.clone_ref(py).into_value(py).into_any());
        let (future, plan) = (future.clone().unbind(), Some(plan.clone()));
        let errors = errors + 1;
        let again = Item { future, function, args, kwargs, plan, context, errors, last_error };
        if let Some(last) = shared.put_off(again, pause) {
            shared.answered.fetch_add(1, Ordering::Relaxed);
            last.fail(py)?;
        }
        return Ok(true);
    }
    // gone before anybody learns of the result, as the standard pool promises
    drop((function, args, kwargs, context));
    shared.answered.fetch_add(1, Ordering::Relaxed);
    match result {
        Ok(value) => Future::finish(future, Some(value.unbind()), None)?,
        Err(error) => Future::finish(future, None, Some(error.into_value(py).into_any()))?,
    }
    Ok(true)
}

fn call<'py>(
    py: Python<'py>,
    function: &Py<PyAny>,
    args: &Py<PyTuple>,
    kwargs: Option<&Py<PyDict>>,
    context: Option<&Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kwargs = kwargs.map(|kwargs| kwargs.bind(py));
    let Some(context) = context else {
        return function.bind(py).call(args.bind(py), kwargs);
    };
    let args = args.bind(py);
    let all = std::iter::once(function.bind(py).clone()).chain(args.iter());
    let all = PyTuple::new(py, all.collect::<Vec<_>>())?;
    context.bind(py).getattr(intern!(py, "run"))?.call(all, kwargs)
}

/// How long until the next try of a call that has raised this, if it gets one.
fn pause(py: Python<'_>, plan: &Plan, error: &PyErr, errors: u32) -> Option<Duration> {
    if errors > plan.retries || !error.matches(py, &plan.retry_on).unwrap_or(false) {
        return None;
    }
    let options = TaskOptions { retries: plan.retries, ..TaskOptions::default() };
    let chance = RandomState::new().hash_one(errors);
    Tries { deaths: Vec::new(), errors }.pause(&options, None, chance)
}
