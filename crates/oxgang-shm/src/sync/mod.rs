//! Locks, semaphores, events, conditions and barriers that survive their users.
//!
//! Processes share these words, and any process may be killed between any two of its steps.
//! What makes that bearable is the same in all of them:
//!
//! 1. **Who holds is in the word that says that it is held.** Taking a lock and writing down the
//!    owner is one compare-exchange, so there is no moment in which a lock is held by nobody
//!    known. The owner is a [`Who`]: thread, process, and when that process started, so that a
//!    process number that is given away again does not keep a dead owner alive.
//! 2. **Every change is one word, or it is written down before it is made.** Where two words must
//!    change together (a semaphore's count and what the process holds of it) they change under a
//!    guard, and a journal says beforehand what both will be. Who takes the guard over from a dead
//!    holder carries the journal out once more; doing it twice does no harm.
//! 3. **No wake-up is trusted.** Whoever is woken may die before it passes on what it was woken
//!    for, and whoever was to wake others may die before it does. So each sleep is a slice: when it
//!    is over the sleeper looks again, also whether those that it depends on are still alive. A
//!    death is therefore noticed by those who wait, within a slice, and by nobody else: there is
//!    no watcher that could itself die.
//! 4. **Recovery is adoption.** What a dead process held is taken over by one compare-exchange from
//!    its name to that of the heir. An heir that dies in turn leaves what any dead process leaves.
//!
//! Sleeping, waking and asking for life are a [`Kernel`]'s, so the same loops run on futexes, under
//! loom, and in tests that kill at every step.
//!
//! | module | holds | words |
//! |---|---|---|
//! | [`who`] | a thread of a process, in one word | – |
//! | [`lock`] | owner word, with or without recursion; also the guard of the others | 3 |
//! | [`nodes`] | who waits for, or holds, what: a table beside the objects | 3 each |
//! | [`semaphore`] | a count, and what each process holds of it | 5 |
//! | [`event`] | a flag with an epoch | 1 |
//! | [`condition`] | tickets of those who wait | 3 |
//! | [`barrier`] | an epoch with a state and the outcomes of past epochs | 3 |
//! | [`reclaim`] | what is done when the nodes run out | – |
//! | [`layout`] | where all this lies in a segment | – |

pub mod barrier;
pub mod condition;
pub mod event;
pub mod layout;
pub mod lock;
pub mod nodes;
pub mod reclaim;
pub mod semaphore;
pub mod who;

pub use who::Who;

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Woken, or the word had changed, or for no reason: look again.
    Over,
    /// A slice of the wait is over: look again, and whether the others are alive.
    Slice,
    /// Time is up, or a signal came: give up.
    Stop,
}

/// What the protocols ask of the kernel.
pub trait Kernel {
    /// Sleeps while the low half of the word at `at` shows `seen`, a slice at most.
    fn sleep(&self, at: usize, seen: u32) -> Rest;

    /// Wakes one of those who sleep on the word at `at`, or all of them.
    fn wake(&self, at: usize, all: bool);

    /// Whether `who` may still do something: its process (for a thread: this very thread) lives.
    /// Says yes if in doubt.
    fn alive(&self, who: Who) -> bool;

    /// A guard is held by somebody who will be done in a moment.
    fn pause(&self) {
        std::hint::spin_loop();
    }

    /// Whether a sleep has ended by [`Rest::Stop`]: the caller does not want it any more.
    fn stopped(&self) -> bool {
        false
    }
}

impl<K: Kernel + ?Sized> Kernel for &K {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        (**self).sleep(at, seen)
    }
    fn wake(&self, at: usize, all: bool) {
        (**self).wake(at, all);
    }
    fn alive(&self, who: Who) -> bool {
        (**self).alive(who)
    }
    fn pause(&self) {
        (**self).pause();
    }
    fn stopped(&self) -> bool {
        (**self).stopped()
    }
}

/// How an attempt to take something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is the caller's.
    Yes,
    /// It is the caller's, and somebody died holding it.
    FromDead(Who),
    /// It is nobody's: its owner died, and its users want to know. See [`lock::Lock::recover`].
    Abandoned,
    /// Somebody else's still; the wait was stopped, or there was none.
    No,
}

/// The half of a word that a futex compares.
#[must_use]
pub fn low(word: u64) -> u32 {
    word as u32
}
