//! What the owner of a task with limits must know while it runs, and how it interrupts it: six
//! words of the channel, beside the rings.
//!
//! The rings say *that* a task has begun; a limit must know *when*, and who interrupts must be
//! sure that it is still that very task. A task is named by its frame's position, which no other
//! frame of this channel ever has, not even the same task's when it is run again.
//!
//! | word | written by | holds |
//! |---|---|---|
//! | `RUNNING` | worker | position + 1 of the task that runs, 0: none that is overseen |
//! | `BEGAN` | worker | when it began, in nanoseconds of the monotonic clock |
//! | `SKILLS` | worker | what can be asked of it, see [`SOFT`] and [`DUMP`] |
//! | `PID` | worker | its process number, for people: it may run before its owner is told of it |
//! | `INTERRUPT` | owner | position + 1 of the task that shall be interrupted |
//! | `LIMIT` | owner | the limit that it passed, in nanoseconds, for the message |
//!
//! # Moves, and what a death after each means
//!
//! | step | by | a death after it |
//! |---|---|---|
//! | `RUNNING` = 0, fence, `BEGAN` = now | worker | the frame is begun: lost; the owner takes the time at which it saw that |
//! | `RUNNING` = position + 1 | worker | lost, with an exact time |
//! | `LIMIT`, then `INTERRUPT` = position + 1, then a signal | owner | – |
//! | the signal's handler compares `INTERRUPT` with what runs | worker | lost |
//! | `RUNNING` = 0, when the answer is encoded | worker | lost, as long as it is not published |
//!
//! Nothing here decides what is lost or done: that stays with the rings. So a torn or invented
//! `BEGAN` can only move a deadline, and the owner bounds it by when it sent the task and when it
//! saw it begun.
//!
//! # Orderings
//!
//! `BEGAN` is read between two looks at `RUNNING`, and written between two stores of it with a
//! fence behind the first: if the owner has read a later task's time, its second look sees that
//! `RUNNING` has moved on. `INTERRUPT` is released after `LIMIT`. The handler runs on the thread
//! that runs the task, so between its comparison and what it does about it nothing else can
//! begin: a signal that comes late finds another task, or none, and does nothing.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::Words;

const AT_RUNNING: usize = 768;
const AT_BEGAN: usize = 776;
const AT_SKILLS: usize = 784;
const AT_PID: usize = 792;
const AT_INTERRUPT: usize = 896;
const AT_LIMIT: usize = 904;

/// The words' offsets, for models of the memory.
pub const WORDS: [usize; 6] = [AT_RUNNING, AT_BEGAN, AT_SKILLS, AT_PID, AT_INTERRUPT, AT_LIMIT];

/// Skill: a signal makes the task raise, if it gets to run its language's code.
pub const SOFT: u64 = 1;
/// Skill: a signal makes the process write down its stacks, and end.
pub const DUMP: u64 = 2;

/// The words, from either side.
#[derive(Debug, Clone)]
pub struct Oversight<W> {
    words: W,
}

impl<W: Words> Oversight<W> {
    /// Of the channel at the start of `words`.
    pub fn new(words: W) -> Self {
        Self { words }
    }

    // -- worker --------------------------------------------------------------------------

    /// Says which process this is.
    pub fn set_pid(&self, pid: u32) {
        self.words.store(AT_PID, u64::from(pid), Release);
    }

    /// Says what can be asked of this worker.
    pub fn set_skills(&self, skills: u64) {
        self.words.store(AT_SKILLS, skills, Release);
    }

    /// The task at `position` begins now.
    pub fn begin(&self, position: u64, now: u64) {
        self.words.store(AT_RUNNING, 0, Relaxed);
        // sync: fence here -> fence in began
        self.words.fence();
        self.words.store(AT_BEGAN, now, Relaxed);
        // sync: begin(running) -> began(running)
        self.words.store(AT_RUNNING, position + 1, Release);
    }

    /// It can be interrupted no more.
    pub fn end(&self) {
        self.words.store(AT_RUNNING, 0, Release);
    }

    /// Whether the owner wants the task at `position` interrupted: the limit that it passed.
    pub fn interrupted(&self, position: u64) -> Option<u64> {
        // sync: interrupt(interrupt) -> interrupted(interrupt)
        let asked = self.words.load(AT_INTERRUPT, Acquire) == position + 1;
        asked.then(|| self.words.load(AT_LIMIT, Relaxed))
    }

    // -- owner ---------------------------------------------------------------------------

    /// The process number that the worker gives itself.
    pub fn pid(&self) -> Option<i32> {
        i32::try_from(self.words.load(AT_PID, Acquire)).ok().filter(|pid| *pid != 0)
    }

    /// What can be asked of the worker.
    pub fn skills(&self) -> u64 {
        self.words.load(AT_SKILLS, Acquire)
    }

    /// When the task at `position` began, by the worker's word; `None` if it does not run.
    pub fn began(&self, position: u64) -> Option<u64> {
        // sync: begin(running) -> began(running)
        if self.words.load(AT_RUNNING, Acquire) != position + 1 {
            return None;
        }
        let began = self.words.load(AT_BEGAN, Relaxed);
        // sync: fence in begin -> fence here
        self.words.fence();
        (self.words.load(AT_RUNNING, Relaxed) == position + 1).then_some(began)
    }

    /// Asks that the task at `position` be interrupted; a signal must follow.
    pub fn interrupt(&self, position: u64, limit: u64) {
        self.words.store(AT_LIMIT, limit, Relaxed);
        // sync: interrupt(interrupt) -> interrupted(interrupt)
        self.words.store(AT_INTERRUPT, position + 1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeapWords;

    #[test]
    fn an_interrupt_is_for_one_task() {
        let page = Oversight::new(HeapWords::new(4096));
        assert_eq!((page.began(0), page.interrupted(0)), (None, None), "zeroes are no task");
        page.begin(0, 77);
        assert_eq!((page.began(0), page.began(40)), (Some(77), None));
        page.interrupt(0, 5);
        assert_eq!((page.interrupted(0), page.interrupted(40)), (Some(5), None));
        page.end();
        assert_eq!(page.began(0), None);
        page.begin(40, 88);
        assert_eq!((page.interrupted(40), page.began(0)), (None, None));
    }
}
