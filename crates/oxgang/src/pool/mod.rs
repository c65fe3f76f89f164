//! The owner's side of a pool.
//!
//! Who does the work of sending and taking in? Whoever is there: a thread that submits sends,
//! a thread that waits for a result takes in (it *leads*), and the *driver* does both while
//! nobody waits, besides what only it does: noticing deaths, starting and ending workers, and
//! handing completions to those who asked to be told. The driver is a thread of the caller's
//! making that calls [`Pool::turn`] until it says that all is over; a pool starts no thread.
//!
//! One lock guards the books (`core`). It is held for moments, never while waiting, and never
//! while calling out, except to [`Completion`]s, which must not block.

mod core;
mod driving;
mod held;
mod life;
mod oversee;
#[cfg(test)]
mod played;
mod sending;

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oxgang_os::event::WakeUp;
use oxgang_os::futex::{self, Woken};
use oxgang_os::segment::Segment;
use oxgang_os::{Result, cpus};
use oxgang_shm::watch::{self, WATCH_BYTES, Watch};

use self::core::Core;
pub use self::core::Counters;
use crate::limits::TaskOptions;
use crate::segment::Mapped;
use crate::spin::{self, Spinner};
use crate::starter::{Invitation, Starter};
use crate::store::Store;
use crate::supervisor::{Event, Incarnation, Phase};
use crate::task::{Callable, Completion, JoinHandle, Late, Outcome, Payload, Task, TaskId};

/// Waits are cut into slices of this length: a signal may come in the moment between the last
/// look and the sleep, and interrupts nothing then.
const SLICE: Duration = Duration::from_millis(200);

/// What a pool is to be.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Workers at most.
    pub max_workers: usize,
    /// Start all of them with the first task, not one by one as they are needed.
    pub eager: bool,
    /// Tasks that a worker may run before it is replaced.
    pub tasks_per_worker: Option<u64>,
    /// What every worker is sent first.
    pub setup: Vec<u8>,
    /// Bytes of unfinished calls that may be held for the workers. See [`Pool::is_full`].
    pub room: u64,
}

/// Why a task was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The pool has been closed.
    Closed,
    /// The pool cannot go on; why.
    Broken(Arc<str>),
    /// This process is a fork of the one that made the pool.
    Forked,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// It is done.
    Done,
    /// Time is up.
    TimeUp,
    /// Look for signals and call again.
    Signal,
    /// This process is a fork of the one that made the pool: it will never be done.
    Forked,
}

/// Something to wait for that a [`Completion`] completes.
pub trait Waitable {
    /// Whether it is done.
    fn done(&self) -> bool;

    /// Sleeps until it may be done, for `limit` at most.
    fn park(&self, limit: Duration) -> Woken;
}

/// What the driver has to do after a turn.
pub struct Turn {
    /// Completions that asked to be told.
    pub attention: Vec<Arc<dyn Completion>>,
    /// A task whose payload is to be made now, and of what; [`Pool::encoded`] takes it.
    pub late: Option<(TaskId, Late)>,
    /// All is over: the driver ends.
    pub finished: bool,
}

/// A worker, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// Which life of which seat.
    pub incarnation: Incarnation,
    /// Its process, once known.
    pub pid: Option<i32>,
    /// Whether it takes tasks.
    pub ready: bool,
    /// Tasks that it has now.
    pub tasks: usize,
}

/// A pool of worker processes. See the module.
pub struct Pool {
    core: Mutex<Core>,
    store: Arc<Store>,
    starter: Box<dyn Starter>,
    segment: Segment,
    watch: Watch<Mapped>,
    watch_words: Mapped,
    wake: Arc<WakeUp>,
    leading: AtomicBool,
    eager: bool,
    max_workers: usize,
    generation: u64,
}

/// The books, locked. What is done with is dropped after they are unlocked: a completion may
/// be the last to hold what its owner does not want dropped just anywhere (in Python, an object
/// whose end runs code, which may want this very pool).
struct Locked<'a>(Option<MutexGuard<'a, Core>>);

impl Deref for Locked<'_> {
    type Target = Core;
    fn deref(&self) -> &Core {
        self.0.as_ref().expect("held until dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        self.0.as_mut().expect("held until dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let spent = self.0.as_mut().map(|core| {
            (std::mem::take(&mut core.spent), std::mem::take(&mut core.spent_payloads))
        });
        self.0 = None;
        drop(spent);
    }
}

impl Pool {
    /// A pool; nothing is started before the first task.
    ///
    /// # Errors
    /// If there is no memory or descriptor for it.
    pub fn new(options: PoolOptions, starter: Box<dyn Starter>) -> Result<Self> {
        let segment = Segment::create("oxgang pool", WATCH_BYTES as u64)?;
        let watch_words = Mapped::new(segment.map(0, WATCH_BYTES)?);
        let watch = Watch::new(watch_words.clone());
        let cpus = cpus::usable() as u64;
        watch.set_spin_limit(if cpus > 1 { cpus } else { 0 });
        let same = Segment::adopt(segment.as_fd().try_clone_to_owned()?)?;
        let store = Store::new(same, WATCH_BYTES as u64);
        let wake = Arc::new(WakeUp::new()?);
        let PoolOptions { max_workers, eager, tasks_per_worker, setup, room } = options;
        let core = Core::new(
            max_workers,
            tasks_per_worker,
            setup,
            room,
            store.clone(),
            wake.clone(),
            watch.clone(),
        );
        Ok(Self {
            core: Mutex::new(core),
            store,
            starter,
            segment,
            watch,
            watch_words,
            wake,
            leading: AtomicBool::new(false),
            eager,
            max_workers,
            generation: crate::generation(),
        })
    }

    fn core(&self) -> Locked<'_> {
        // a panic while it was held is a bug; the books are still the best there is
        Locked(Some(self.core.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Whether this process is a fork of the one that made the pool.
    #[must_use]
    pub fn forked(&self) -> bool {
        self.generation != crate::generation()
    }

    /// Where long bytes of its calls are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The next free task id.
    #[must_use]
    pub fn next_task() -> TaskId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands in a task.
    ///
    /// # Errors
    /// If the pool takes none; the completion is not called then.
    pub fn submit(&self, task: Task) -> std::result::Result<(), Refused> {
        self.submit_all(std::iter::once(task))
    }

    /// Hands in a task for a Rust program, which waits by the handle.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn spawn(
        &self,
        callable: &Arc<Callable>,
        payload: Vec<u8>,
    ) -> std::result::Result<(TaskId, Arc<JoinHandle>), Refused> {
        self.spawn_with(None, callable, payload)
    }

    /// [`spawn`](Self::spawn) with limits, or further tries.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn spawn_with(
        &self,
        options: Option<Arc<TaskOptions>>,
        callable: &Arc<Callable>,
        payload: Vec<u8>,
    ) -> std::result::Result<(TaskId, Arc<JoinHandle>), Refused> {
        let (id, handle) = (Self::next_task(), JoinHandle::new());
        let completion = handle.clone();
        self.watch_one_more();
        let submitted =
            self.submit(Task::new(id, callable.clone(), payload, completion).with_options(options));
        if submitted.is_err() {
            self.watch_one_less();
        }
        submitted.map(|()| (id, handle))
    }

    /// Hands in tasks, all of them or none.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_all(
        &self,
        tasks: impl Iterator<Item = Task>,
    ) -> std::result::Result<(), Refused> {
        if self.forked() {
            return Err(Refused::Forked);
        }
        let mut core = self.core();
        if let Some(why) = &core.broken {
            return Err(Refused::Broken(why.clone()));
        }
        if core.supervisor.phase() > Phase::Open {
            return Err(Refused::Closed);
        }
        if core.counters.submitted == 0 && self.eager {
            self.want_all(&mut core);
        }
        let before = core.queue.len();
        for task in tasks {
            core.queue(task);
        }
        let added = core.queue.len() - before;
        core.counters.submitted += added as u64;
        core.turn_after_submit(added);
        self.follow_up(core);
        Ok(())
    }

    /// Starts all workers now, not with the first tasks.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn start_all(&self) -> std::result::Result<(), Refused> {
        if self.forked() {
            return Err(Refused::Forked);
        }
        let mut core = self.core();
        if core.supervisor.phase() == Phase::Open {
            self.want_all(&mut core);
        }
        self.follow_up(core);
        match self.broken() {
            Some(why) => Err(Refused::Broken(why)),
            None => Ok(()),
        }
    }

    fn want_all(&self, core: &mut Core) {
        for _ in 0..self.max_workers {
            core.handle(Event::Wanted);
        }
    }

    /// What a turn left to do that must not be done under the lock.
    fn follow_up(&self, mut core: Locked<'_>) {
        let starts = std::mem::take(&mut core.starts);
        let attention = core.needs_driver();
        drop(core);
        if attention {
            self.wake.ring();
        }
        if !starts.is_empty() {
            self.start(starts);
        }
    }

    fn start(&self, starts: Vec<(usize, Incarnation)>) {
        for (_, one) in starts {
            let prepared = {
                let mut core = self.core();
                if !core.supervisor.still_wants(one) {
                    // the pool has ended since the instruction; nobody would tell this worker
                    core.handle(Event::Exited(one));
                    continue;
                }
                core.prepare(one)
            };
            let started = prepared.and_then(|channel| {
                self.starter.start(Invitation {
                    incarnation: one,
                    channel: channel.as_fd(),
                    pool: self.segment.as_fd(),
                    wake: self.wake.as_fd(),
                })
            });
            let mut core = self.core();
            match started {
                Ok(Some(process)) => core.started(one, process),
                Ok(None) => {}
                Err(error) => core.start_refused(one, format!("no worker can be started: {error}")),
            }
            core.turn();
        }
        // there may be more processes to look after, and notices of a starter that was replaced
        self.wake.ring();
    }

    /// Whether unfinished calls hold as many bytes as they may. Who wants to hand in more than
    /// short ones then should do it by [`Payload::late`]: nothing is refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.forked() && self.core().is_full()
    }

    /// Bytes of unfinished calls, and of blocks that workers still look at.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        if self.forked() { 0 } else { self.core().held_bytes() }
    }

    /// The payload that a [`Turn`] asked for; or what becomes of the task, if it cannot be made.
    pub fn encoded(&self, id: TaskId, made: std::result::Result<Payload, Outcome>) {
        if self.forked() {
            return;
        }
        let mut core = self.core();
        core.encoded(id, made);
        core.turn();
        self.follow_up(core);
        self.wake_leader(); // it may wait for this very task, which has failed
    }

    /// Takes a task back if it has not begun. Its completion is told.
    pub fn cancel(&self, id: TaskId) -> bool {
        self.cancelling(|core| core.cancel(id))
    }

    /// The same with many, sorted by their ids; whether there were any.
    pub fn cancel_these(&self, ids: &[TaskId]) -> bool {
        self.cancelling(|core| core.cancel_these(ids))
    }

    fn cancelling(&self, cancel: impl FnOnce(&mut Core) -> bool) -> bool {
        if self.forked() {
            return false;
        }
        let mut core = self.core();
        core.turn();
        let cancelled = cancel(&mut core);
        core.turn();
        self.follow_up(core);
        if cancelled {
            self.wake_leader();
        }
        cancelled
    }

    /// Ends a task: takes it back if it has not begun, and otherwise ends the worker that runs
    /// it, and nothing else. Its completion is told at once: `Cancelled`, or `Crashed` with the
    /// cause `Terminated`. `false`: it is done, and what became of it stands.
    pub fn terminate(&self, id: TaskId) -> bool {
        if self.forked() {
            return false;
        }
        let mut core = self.core();
        let terminated = core.terminate(id);
        core.turn();
        self.follow_up(core);
        if terminated {
            self.wake.ring(); // there is a process whose end is to be seen
            self.wake_leader();
        }
        terminated
    }

    /// Whether a worker has begun the task. `false` also for a task that is done.
    pub fn has_begun(&self, id: TaskId) -> bool {
        !self.forked() && self.core().lives.iter_mut().any(|life| life.has_begun(id) == Some(true))
    }

    /// Takes no more tasks; what has been handed in is still done, unless `cancel`, which
    /// takes back what has not begun.
    pub fn close(&self, cancel: bool) {
        if self.forked() {
            return;
        }
        let mut core = self.core();
        core.handle(Event::Close);
        if cancel {
            core.turn();
            core.cancel_all();
        }
        core.turn();
        self.follow_up(core);
        self.wake.ring();
        self.wake_leader();
    }

    /// Ends all workers at once; tasks that are left fail for this reason.
    pub fn kill(&self, why: &str) {
        if self.forked() {
            return;
        }
        let mut core = self.core();
        core.turn();
        core.break_down(why.into());
        core.handle(Event::Kill);
        self.follow_up(core);
        self.wake.ring();
        self.wake_leader();
    }

    /// Gives the pool up, since its driver cannot go on: as [`kill`](Self::kill), and gives what
    /// the driver would have had to hand on.
    pub fn give_up(&self, why: &str) -> Vec<Arc<dyn Completion>> {
        self.kill(why);
        std::mem::take(&mut self.core().attention)
    }

    /// Sends a signal to every worker.
    pub fn signal(&self, number: i32) {
        if !self.forked() {
            for life in &self.core().lives {
                if let Some(process) = &life.process {
                    // a worker that has just ended needs no signal
                    let _gone = process.signal(number);
                }
            }
        }
    }

    /// Takes in what has come, if nobody else is at it.
    pub fn poke(&self) {
        if self.forked() {
            return;
        }
        let Ok(core) = self.core.try_lock() else { return };
        let mut core = Locked(Some(core));
        if core.has_answers() {
            core.turn();
            self.follow_up(core);
        }
    }

    /// One more unfinished task whose completion the driver must hand on.
    pub fn watch_one_more(&self) {
        if self.forked() {
            return;
        }
        let mut core = self.core();
        core.watched += 1;
        core.turn();
        self.follow_up(core);
    }

    /// One less: whoever asked for it looks by itself from now on.
    pub fn watch_one_less(&self) {
        if self.forked() {
            return;
        }
        let mut core = self.core();
        core.watched -= 1;
        core.turn();
        self.follow_up(core);
    }

    /// Waits until `what` is done, until `deadline`, or until a signal may have come.
    pub fn wait(&self, what: &dyn Waitable, deadline: Option<Instant>) -> Waited {
        loop {
            if what.done() {
                return Waited::Done;
            }
            if self.forked() {
                return Waited::Forked;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.poke();
                return if what.done() { Waited::Done } else { Waited::TimeUp };
            }
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            let woken = if self.leading.swap(true, Ordering::Acquire) {
                // somebody leads already; the driver serves everybody else
                self.watch_one_more();
                let woken = if what.done() { Woken::Maybe } else { what.park(slice) };
                self.watch_one_less();
                woken
            } else {
                let woken = self.lead(what, slice);
                self.leading.store(false, Ordering::Release);
                woken
            };
            if woken != Woken::Maybe && !what.done() {
                let up = deadline.is_some_and(|at| Instant::now() >= at);
                return if up { Waited::TimeUp } else { Waited::Signal };
            }
        }
    }

    fn lead(&self, what: &dyn Waitable, slice: Duration) -> Woken {
        thread_local! {
            static SPINNER: std::cell::RefCell<Spinner> =
                std::cell::RefCell::new(Spinner::new(spin::budget()));
        }
        let look = || {
            self.take_turn();
            what.done()
        };
        self.watch.lead();
        let until = Instant::now() + slice;
        let woken = loop {
            if look() || SPINNER.with_borrow_mut(|s| s.spin(&self.watch, look)) {
                break Woken::Maybe;
            }
            let bell = self.watch.park();
            if look() {
                break Woken::Maybe;
            }
            let left = until.saturating_duration_since(Instant::now());
            let word = self.watch_words.futex_word(watch::AT_BELL);
            let woken = futex::wait(word, bell as u32, Some(left));
            self.watch.lead();
            if woken != Woken::Maybe {
                self.take_turn();
                break woken;
            }
        };
        self.watch.leave();
        self.take_turn();
        woken
    }

    /// Has who leads look again whether what it waits for is done, which no worker's answer tells it.
    pub fn nudge(&self) {
        if !self.forked() {
            self.wake_leader();
        }
    }

    /// Wakes the leader for what no worker's answer told it: a lost task, a broken pool.
    fn wake_leader(&self) {
        self.watch.nudge();
        futex::wake(self.watch_words.futex_word(watch::AT_BELL), 1);
    }

    fn take_turn(&self) {
        let mut core = self.core();
        core.turn();
        if !core.needs_driver() && core.starts.is_empty() {
            return;
        }
        // starting a worker calls out, and callbacks are the driver's: leave both to it
        drop(core);
        self.wake.ring();
    }

    /// What has been counted; nothing in a fork, whose pool this is not.
    #[must_use]
    pub fn counters(&self) -> Counters {
        if self.forked() { Counters::default() } else { self.core().counters }
    }

    /// The workers as they are now; none in a fork.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerState> {
        if self.forked() {
            return Vec::new();
        }
        let core = self.core();
        let state = |life: &life::Life| WorkerState {
            incarnation: life.incarnation,
            pid: life.pid(),
            ready: life.ready,
            tasks: life.sent.len(),
        };
        core.lives.iter().map(state).collect()
    }

    /// Why the pool cannot go on, if so.
    #[must_use]
    pub fn broken(&self) -> Option<Arc<str>> {
        if self.forked() { None } else { self.core().broken.clone() }
    }
}
