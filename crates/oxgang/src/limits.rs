//! What a task may take, and what becomes of one that takes more. Pure: times and sizes come in,
//! what to do comes out; no clock, no process. The pool's driver carries it out, and sleeps
//! until the moment that is given in between.
//!
//! # A task with limits, from its begin on
//!
//! | stage | when | next | what to do |
//! |---|---|---|---|
//! | running | the time limit, and the worker can be asked | asked | `Ask`: the task shall raise |
//! | | the time limit, and it never can | ending | `End` |
//! | | the time limit, and it cannot just now | the same | nothing; after the grace, `End` |
//! | asked | the grace after it | ending | `End` |
//! | running, asked | it is time to look at its memory | the same | `Measure` |
//! | | more memory than the limit | ending | `End` |
//! | ending | – | – | nothing: the worker is on its way out |
//!
//! A worker cannot be asked before the task has quite begun, nor once its answer is being made: it
//! is looked at again after pauses that double, so a task that was about to end does.
//!
//! `End` ends the worker, not the wait: it writes down its stacks and dies, or is killed if it
//! does not within [`LAST_WORDS`]. A task that has not begun is not here; it cannot be over its
//! limit earlier than [`TaskOptions::first_look`] from any moment at which it has not begun, so
//! that is when to look whether it has. An answer that comes before the worker's death counts.
//!
//! # Another try
//!
//! A task that was lost with its worker may be run again, up to `retries` times, whoever's fault
//! it was: each death goes into its history, and after the last one it fails for good, with all
//! of them. Deaths by its own limits count only if asked for, and a task that somebody ended on
//! purpose is never run again. An error that the worker finds worth it counts as a try too.
//! Before each further try comes a pause that doubles, from [`FIRST_PAUSE`] to
//! [`LONGEST_PAUSE`], less up to half of it by chance, so that what failed together does not
//! come back together.

use std::sync::Arc;
use std::time::Duration;

use oxgang_os::process::Exit;

use crate::task::Callable;

/// Nanoseconds of the monotonic clock.
pub type Moment = u64;
/// A moment that never comes.
pub const NEVER: Moment = u64::MAX;

/// How long a worker that is to end may take to write down its stacks.
pub const LAST_WORDS: Duration = Duration::from_millis(250);
/// Before the second try.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Between later tries, at most.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A process that does nothing but fill fresh memory is slower than this, in bytes per
/// nanosecond; so the way that is left to the limit says how soon it can be reached.
const FILLING: u64 = 4;
const SOONEST_LOOK: Duration = Duration::from_millis(2);
const LATEST_LOOK: Duration = Duration::from_millis(250);
/// Before a worker that could not be asked is looked at again; the first of its pauses.
const FIRST_RETRY: u64 = 500_000;

/// What a task may take, and what is done for it. None of it costs a task that has none.
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long after that, once it has been asked to stop.
    pub grace: Duration,
    /// How many bytes of memory its worker may have while it runs.
    pub memory: Option<u64>,
    /// Tries after the first.
    pub retries: u32,
    /// Whether a death by its time limit is worth another try.
    pub retry_timeouts: bool,
    /// Whether a death by its memory limit is.
    pub retry_memory: bool,
    /// By what the worker tells which errors are; `None`: none is.
    pub retry_on: Option<Arc<Callable>>,
}

impl TaskOptions {
    /// Whether there is anything to do for a task with these.
    #[must_use]
    pub fn asks_for_something(&self) -> bool {
        self.timeout.is_some() || self.memory.is_some() || self.retries > 0
    }

    /// How long after a moment at which the task has not begun it must be looked at again.
    #[must_use]
    pub fn first_look(&self) -> Option<Duration> {
        let memory = self.memory.map(|limit| until_look(limit, 0));
        [self.timeout, memory].into_iter().flatten().min()
    }
}

fn until_look(limit: u64, used: u64) -> Duration {
    let soonest = Duration::from_nanos(limit.saturating_sub(used) / FILLING);
    soonest.clamp(SOONEST_LOOK, LATEST_LOOK)
}

fn after(moment: Moment, pause: Duration) -> Moment {
    moment.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(NEVER))
}

/// Why a task's worker ended while it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// By itself, or by somebody else. How many processes the kernel has killed for want of
    /// memory at that time; `None`: not known, or it did not die by its signal.
    Died(Option<u64>),
    /// The task ran longer than this.
    TimeUp(Duration),
    /// The worker had more memory than this, namely.
    Memory(u64, u64),
    /// Somebody asked for it.
    Terminated,
}

/// How a worker was lost, as much as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The worker's process number.
    pub pid: i32,
    /// How the process ended.
    pub exit: Exit,
    /// How long the task had run; `None`: nobody looked, since it has no options.
    pub ran: Option<Duration>,
    /// Why.
    pub cause: Cause,
    /// What the worker wrote down of its stacks, if it was asked to.
    pub stack: String,
    /// The most memory that it ever had, if that was looked at.
    pub peak: Option<u64>,
}

/// The tries of a task so far.
#[derive(Debug, Default, Clone)]
pub struct Tries {
    /// How its workers died.
    pub deaths: Vec<Death>,
    /// How often it raised what is worth another try.
    pub errors: u32,
}

impl Tries {
    /// Whether and after how long it is run again, after a try that ended by this death, or by an
    /// error (`None`), and has been counted. `chance` is any number.
    #[must_use]
    pub fn pause(
        &self,
        options: &TaskOptions,
        death: Option<&Cause>,
        chance: u64,
    ) -> Option<Duration> {
        let worth_it = match death {
            None | Some(Cause::Died(_)) => true,
            Some(Cause::TimeUp(_)) => options.retry_timeouts,
            Some(Cause::Memory(..)) => options.retry_memory,
            Some(Cause::Terminated) => false,
        };
        let tries =
            self.errors.saturating_add(u32::try_from(self.deaths.len()).unwrap_or(u32::MAX));
        if !worth_it || tries > options.retries {
            return None;
        }
        let doublings = tries.saturating_sub(1).min(16);
        let whole = LONGEST_PAUSE.min(FIRST_PAUSE * (1 << doublings));
        let nanoseconds = whole.as_nanos() as u64;
        Some(Duration::from_nanos(nanoseconds - chance % (nanoseconds / 2)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Asked,
    Ending,
}

/// What to do about a task that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then.
    Wait(Moment),
    /// Have it raise.
    Ask,
    /// See how much memory its worker has, and tell by [`Limits::measured`].
    Measure,
    /// End its worker.
    End(Cause),
}

/// Whether a worker can have its task raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// It can.
    Now,
    /// The task has not quite begun, or has all but ended, or its worker is not known yet.
    NotNow,
    /// It has not learnt how to.
    Never,
}

/// Where a task with limits is.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    stage: Stage,
    /// How long to wait until asking is tried again, in nanoseconds.
    retry: u64,
    /// When to look at its memory.
    look: Moment,
    /// What it was seen to have beyond its limit.
    over: Option<u64>,
}

impl Limits {
    /// Of a task that has just begun, or will.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: Stage::Running, retry: FIRST_RETRY, look: 0, over: None }
    }

    /// What to do now about a task that began then. Call again until it says `Wait`.
    pub fn step(
        &mut self,
        options: &TaskOptions,
        began: Moment,
        now: Moment,
        asking: Asking,
    ) -> Step {
        if self.stage == Stage::Ending {
            return Step::Wait(NEVER);
        }
        if let (Some(limit), Some(used)) = (options.memory, self.over) {
            self.stage = Stage::Ending;
            return Step::End(Cause::Memory(limit, used));
        }
        let mut wait = NEVER;
        if let Some(limit) = options.timeout {
            let soft = after(began, limit);
            let hard = after(soft, options.grace);
            let due = if self.stage == Stage::Asked { hard } else { soft };
            if now < due {
                wait = due;
            } else if self.stage == Stage::Running && asking == Asking::Now {
                self.stage = Stage::Asked;
                return Step::Ask;
            } else if self.stage == Stage::Running && asking == Asking::NotNow && now < hard {
                wait = hard.min(now.saturating_add(self.retry));
                self.retry = self.retry.saturating_mul(2);
            } else {
                self.stage = Stage::Ending;
                return Step::End(Cause::TimeUp(limit));
            }
        }
        if let Some(limit) = options.memory {
            if self.look == 0 {
                self.look = after(began, until_look(limit, 0));
            }
            if now >= self.look {
                self.look = after(now, LATEST_LOOK); // should nobody tell
                return Step::Measure;
            }
            wait = wait.min(self.look);
        }
        Step::Wait(wait)
    }

    /// Its worker has so much memory now.
    pub fn measured(&mut self, options: &TaskOptions, used: u64, now: Moment) {
        let Some(limit) = options.memory else { return };
        if used > limit {
            self.over = Some(used);
        } else {
            self.look = after(now, until_look(limit, used));
        }
    }

    /// Whether its worker is on its way out for it.
    #[must_use]
    pub fn ending(&self) -> bool {
        self.stage == Stage::Ending
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn timed(timeout: u64, grace: u64) -> TaskOptions {
        TaskOptions {
            timeout: Some(Duration::from_secs(timeout)),
            grace: Duration::from_secs(grace),
            ..TaskOptions::default()
        }
    }

    #[test]
    fn a_time_limit_asks_then_ends() {
        let (options, began) = (timed(3, 1), 10 * SECOND);
        let mut limits = Limits::new();
        let mut step = |now| limits.step(&options, began, now, Asking::Now);
        assert_eq!(step(began), Step::Wait(13 * SECOND));
        assert_eq!(step(13 * SECOND - 1), Step::Wait(13 * SECOND));
        assert_eq!(step(13 * SECOND), Step::Ask);
        assert_eq!(step(13 * SECOND), Step::Wait(14 * SECOND));
        assert_eq!(step(15 * SECOND), Step::End(Cause::TimeUp(Duration::from_secs(3))));
        assert_eq!(step(99 * SECOND), Step::Wait(NEVER));
    }

    #[test]
    fn a_worker_that_cannot_be_asked_has_no_grace() {
        let mut limits = Limits::new();
        let step = limits.step(&timed(3, 1), 0, 3 * SECOND, Asking::Never);
        assert_eq!(step, Step::End(Cause::TimeUp(Duration::from_secs(3))));
    }

    #[test]
    fn who_cannot_be_asked_just_now_has_its_grace() {
        let (options, began) = (timed(3, 1), 10 * SECOND);
        let (mut limits, mut now, mut looks) = (Limits::new(), 13 * SECOND, 0);
        while now < 14 * SECOND {
            let Step::Wait(next) = limits.step(&options, began, now, Asking::NotNow) else {
                panic!("ended in its grace");
            };
            assert!(next > now && next <= 14 * SECOND, "{next}");
            (now, looks) = (next, looks + 1);
        }
        assert!(looks < 16, "the pauses double: {looks}");
        let mut asked = limits;
        assert_eq!(asked.step(&options, began, now - 1, Asking::Now), Step::Ask);
        let end = Step::End(Cause::TimeUp(Duration::from_secs(3)));
        assert_eq!(limits.step(&options, began, now, Asking::NotNow), end);
    }

    #[test]
    fn memory_is_looked_at_more_often_near_the_limit() {
        let limit = 1 << 30;
        let options = TaskOptions { memory: Some(limit), ..TaskOptions::default() };
        let mut limits = Limits::new();
        let Step::Wait(first) = limits.step(&options, 0, 0, Asking::Now) else {
            panic!("too early")
        };
        assert_eq!(first, LATEST_LOOK.as_nanos() as u64);
        assert_eq!(limits.step(&options, 0, first, Asking::Now), Step::Measure);
        limits.measured(&options, limit - (40 << 20), first);
        let soon = first + 40 * (1 << 20) / FILLING;
        assert_eq!(limits.step(&options, 0, first, Asking::Now), Step::Wait(soon));
        assert_eq!(limits.step(&options, 0, soon, Asking::Now), Step::Measure);
        limits.measured(&options, limit + 1, soon);
        let end = Step::End(Cause::Memory(limit, limit + 1));
        assert_eq!(limits.step(&options, 0, soon, Asking::Now), end);
        assert_eq!(limits.step(&options, 0, NEVER, Asking::Now), Step::Wait(NEVER));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let options = TaskOptions { retries: 9, ..TaskOptions::default() };
        let mut tries = Tries::default();
        let mut before = Duration::ZERO;
        for _ in 0..9 {
            tries.errors += 1;
            let pause = tries.pause(&options, None, 0).unwrap();
            assert!(pause == before * 2 || pause == FIRST_PAUSE || pause == LONGEST_PAUSE);
            before = pause;
        }
        assert_eq!(before, LONGEST_PAUSE);
        tries.errors += 1;
        assert_eq!(tries.pause(&options, None, 0), None, "for good");
    }

    fn options() -> impl Strategy<Value = TaskOptions> {
        let some = prop::option::of;
        let times = (some(0..5000_u64), 0..3000_u64, some(1..2_000_000_000_u64));
        (times, 0..5_u32, any::<bool>(), any::<bool>()).prop_map(
            |(times, retries, time, memory)| TaskOptions {
                timeout: times.0.map(Duration::from_millis),
                grace: Duration::from_millis(times.1),
                memory: times.2,
                retries,
                retry_timeouts: time,
                retry_memory: memory,
                retry_on: None,
            },
        )
    }

    proptest! {
        /// Driven as the driver does it, whatever the limits, the memory and the delays:
        /// *asked at most once, and not before its time*; *ended at most once, and only for a
        /// limit that it has passed*; *the grace is given to who was asked*; *every wait ends
        /// later than it begins*; *memory beyond the limit is noticed with the next measure*;
        /// *who is over its time and its grace is ended at the next look*.
        #[test]
        fn limits_hold(
            options in options(),
            began in 0..SECOND,
            asking in prop::sample::select(vec![Asking::Now, Asking::NotNow, Asking::Never]),
            used in prop::collection::vec(0..3_000_000_000_u64, 60),
            late in prop::collection::vec(0..50_000_000_u64, 60),
        ) {
            let (mut limits, mut now) = (Limits::new(), began);
            let (mut asked, mut ended, mut most) = (None, None, 0);
            let limit = options.timeout.map(|limit| limit.as_nanos() as u64);
            let grace = options.grace.as_nanos() as u64;
            for (used, late) in used.into_iter().zip(late) {
                let mut steps = 0;
                let wait = loop {
                    steps += 1;
                    prop_assert!(steps < 6, "no end of steps");
                    match limits.step(&options, began, now, asking) {
                        Step::Wait(until) => break until,
                        Step::Ask => {
                            prop_assert!(asked.is_none() && ended.is_none() && asking == Asking::Now);
                            prop_assert!(limit.is_some_and(|limit| now >= began + limit));
                            asked = Some(now);
                        }
                        Step::Measure => {
                            prop_assert!(options.memory.is_some() && ended.is_none());
                            limits.measured(&options, used, now);
                            most = most.max(used);
                        }
                        Step::End(cause) => {
                            prop_assert!(ended.is_none());
                            ended = Some(now);
                            match cause {
                                Cause::TimeUp(_) if asking != Asking::Never => {
                                    prop_assert_eq!(asked.is_some(), asking == Asking::Now);
                                    prop_assert!(now >= began + limit.unwrap() + grace);
                                }
                                Cause::TimeUp(_) => {
                                    prop_assert!(now >= began + limit.unwrap());
                                }
                                Cause::Memory(limit, used) => {
                                    prop_assert!(used > limit && used == most);
                                    prop_assert_eq!(Some(limit), options.memory);
                                }
                                _ => prop_assert!(false, "neither limit"),
                            }
                        }
                    }
                };
                prop_assert_eq!(limits.ending(), ended.is_some());
                prop_assert!(wait > now, "a wait that is over at once");
                if ended.is_none() {
                    let over_memory = options.memory.is_some_and(|limit| most > limit);
                    let over_time = limit.is_some_and(|limit| now >= began + limit + grace);
                    prop_assert!(!over_memory && !over_time);
                } else {
                    prop_assert_eq!(wait, NEVER);
                }
                if wait == NEVER {
                    break;
                }
                now = wait + late;
            }
        }

        /// *No task is tried more often than asked for*; *a poison task ends with every death in
        /// its history*; *who was ended on purpose is not tried again*; *the pause is within its
        /// bounds*.
        #[test]
        fn tries_end(
            options in options(),
            ends in prop::collection::vec((0..5_u8, any::<u64>()), 20),
        ) {
            let mut tries = Tries::default();
            let mut runs = 0;
            for (end, chance) in ends {
                runs += 1;
                let cause = match end {
                    0 => None,
                    1 => Some(Cause::Died(None)),
                    2 => Some(Cause::TimeUp(Duration::ZERO)),
                    3 => Some(Cause::Memory(1, 2)),
                    _ => Some(Cause::Terminated),
                };
                match &cause {
                    None => tries.errors += 1,
                    Some(cause) => tries.deaths.push(Death {
                        pid: 1,
                        exit: Exit::Signal(9),
                        ran: None,
                        cause: cause.clone(),
                        stack: String::new(),
                        peak: None,
                    }),
                }
                let Some(pause) = tries.pause(&options, cause.as_ref(), chance) else {
                    let on_purpose = cause == Some(Cause::Terminated);
                    let unwanted = matches!(cause, Some(Cause::TimeUp(_) | Cause::Memory(..)));
                    prop_assert!(runs == options.retries + 1 || on_purpose || unwanted);
                    break;
                };
                prop_assert_ne!(&cause, &Some(Cause::Terminated));
                prop_assert!(runs <= options.retries);
                prop_assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE);
            }
            prop_assert!(runs <= options.retries + 1);
            prop_assert_eq!(tries.deaths.len() as u32 + tries.errors, runs);
        }
    }
}
