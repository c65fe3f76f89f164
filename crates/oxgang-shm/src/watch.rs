//! Whom a worker wakes when it has published: the owner's side of falling asleep.
//!
//! One small page per pool, mapped by the owner and all its workers. In the owner two kinds
//! of threads take in responses: a *leader*, which is any thread that waits for a result and
//! does the work itself, so that an answer costs one wake-up and not two; and the *driver*,
//! the pool's own thread, which looks after everything while nobody waits.
//!
//! | leader word | meaning | a publish then |
//! |---|---|---|
//! | `NOBODY` | nobody waits for a result | looks at the driver word |
//! | `ACTIVE` | a leader is awake and will look again before it leaves or sleeps | wakes nobody |
//! | `PARKED` | the leader sleeps on the bell | moves the bell on and wakes it |
//!
//! | driver word | a publish wakes the driver |
//! |---|---|
//! | `IDLE` | only if responses pile up |
//! | `REFILL` | also when the worker has run out of requests |
//! | `ALL` | always: a callback or a second waiter depends on it |
//!
//! Moves of the leader word are the leader's alone: `NOBODY` → `ACTIVE` → (`PARKED` → `ACTIVE`)*
//! → `NOBODY`, and after each of the moves away from `ACTIVE` it looks once more, behind a
//! fence. A publish fences before it reads. So either the publisher sees the new word, or the
//! leader's second look sees what was published; `tests/loom.rs` tries all orders. A change of
//! the driver word follows the same rule: set, fence, look.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::Words;

/// Bytes of the page.
pub const WATCH_BYTES: usize = 4096;
/// Word that the leader waits on.
pub const AT_BELL: usize = 128;
const AT_LEADER: usize = 256;
const AT_DRIVER: usize = 384;
const AT_SPINNERS: usize = 512;
const AT_SPIN_LIMIT: usize = 520;

const NOBODY: u64 = 0;
const ACTIVE: u64 = 1;
const PARKED: u64 = 2;

/// How much the driver wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Interest {
    /// Nothing waits on it.
    Idle = 0,
    /// More requests wait to be sent.
    Refill = 1,
    /// Every completion matters.
    All = 2,
}

/// Whom to wake after a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Somebody is looking, or will in time.
    Nobody,
    /// The thread that waits on [`AT_BELL`]; the bell has been moved on.
    Leader,
    /// The pool's own thread.
    Driver,
}

/// The page, from either side.
#[derive(Debug, Clone)]
pub struct Watch<W> {
    words: W,
}

impl<W: Words> Watch<W> {
    /// The page at the start of `words`.
    ///
    /// # Panics
    /// If the memory is smaller than a page.
    pub fn new(words: W) -> Self {
        assert!(words.len() >= WATCH_BYTES);
        Self { words }
    }

    /// Worker: whom to wake, after a publish, or after it has made room for requests that no
    /// publish tells of. `dry`: there are no more requests; `piled_up`: responses take more than half
    /// of their room.
    pub fn after_publish(&self, dry: bool, piled_up: bool) -> Wake {
        // sync: fence here -> fence in park, leave, set_interest
        self.words.fence();
        match self.words.load(AT_LEADER, Relaxed) {
            ACTIVE => return Wake::Nobody,
            PARKED => {
                self.words.fetch_add(AT_BELL, 1);
                return Wake::Leader;
            }
            _ => {}
        }
        let interest = self.words.load(AT_DRIVER, Relaxed);
        let wanted = piled_up
            || interest == Interest::All as u64
            || (interest == Interest::Refill as u64 && dry);
        if wanted { Wake::Driver } else { Wake::Nobody }
    }

    /// Leader: from now on, and until it parks or leaves, it looks by itself.
    pub fn lead(&self) {
        self.words.store(AT_LEADER, ACTIVE, Release);
    }

    /// Leader: announces sleep and gives what the bell shows. Look once more, then wait on
    /// [`AT_BELL`] while it shows that, then [`lead`](Self::lead) again.
    pub fn park(&self) -> u64 {
        let bell = self.words.load(AT_BELL, Acquire);
        self.words.store(AT_LEADER, PARKED, Relaxed);
        // sync: fence in after_publish -> fence here
        self.words.fence();
        bell
    }

    /// Leader: gives up the lead. Look once more after this.
    pub fn leave(&self) {
        self.words.store(AT_LEADER, NOBODY, Relaxed);
        // sync: fence in after_publish -> fence here
        self.words.fence();
    }

    /// Moves the bell on, so that a leader that is about to wait does not. The owner's own
    /// way to wake its leader.
    pub fn nudge(&self) {
        self.words.fetch_add(AT_BELL, 1);
    }

    /// Owner: what the driver wants to hear. Look once more after raising it.
    pub fn set_interest(&self, interest: Interest) {
        self.words.store(AT_DRIVER, interest as u64, Relaxed);
        // sync: fence in after_publish -> fence here
        self.words.fence();
    }

    /// Owner: how many may spin at a time, over all processes of the pool.
    pub fn set_spin_limit(&self, limit: u64) {
        self.words.store(AT_SPIN_LIMIT, limit, Relaxed);
    }

    /// Asks for a place among the spinners; pair with [`stop_spinning`](Self::stop_spinning).
    pub fn start_spinning(&self) -> bool {
        if self.words.load(AT_SPINNERS, Relaxed) >= self.words.load(AT_SPIN_LIMIT, Relaxed) {
            return false;
        }
        self.words.fetch_add(AT_SPINNERS, 1);
        true
    }

    /// Gives the place back.
    pub fn stop_spinning(&self) {
        // never below zero: a count that was started anew must not wrap
        let mut count = self.words.load(AT_SPINNERS, Relaxed);
        while count > 0 {
            match self.words.compare_exchange(AT_SPINNERS, count, count - 1) {
                Ok(_) => return,
                Err(other) => count = other,
            }
        }
    }

    /// Owner, after a worker's death: it may have died spinning. The count starts anew, which
    /// costs at worst a few spinners too many for a moment.
    pub fn forget_spinners(&self) {
        self.words.store(AT_SPINNERS, 0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeapWords;

    #[test]
    fn the_table_of_the_module() {
        let watch = Watch::new(HeapWords::new(WATCH_BYTES));
        assert_eq!(watch.after_publish(true, false), Wake::Nobody);
        assert_eq!(watch.after_publish(true, true), Wake::Driver);
        watch.set_interest(Interest::Refill);
        assert_eq!(watch.after_publish(false, false), Wake::Nobody);
        assert_eq!(watch.after_publish(true, false), Wake::Driver);
        watch.set_interest(Interest::All);
        assert_eq!(watch.after_publish(false, false), Wake::Driver);
        watch.lead();
        assert_eq!(watch.after_publish(true, true), Wake::Nobody);
        let bell = watch.park();
        assert_eq!(watch.after_publish(false, false), Wake::Leader);
        watch.lead();
        assert_ne!(watch.park(), bell);
        watch.leave();
        assert_eq!(watch.after_publish(false, false), Wake::Driver);
    }

    #[test]
    fn spinners_are_bounded() {
        let watch = Watch::new(HeapWords::new(WATCH_BYTES));
        assert!(!watch.start_spinning(), "none allowed");
        watch.set_spin_limit(1);
        assert!(watch.start_spinning());
        assert!(!watch.start_spinning());
        watch.stop_spinning();
        assert!(watch.start_spinning());
    }
}
