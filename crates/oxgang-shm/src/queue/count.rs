//! How many messages there are, which of them are done, and that no more shall come.
//!
//! | word | holds | moves |
//! |---|---|---|
//! | done | how many were reported done | +1, never beyond what was sent |
//! | shut | 0; 1: nothing more is sent; 2: nor received | upwards only |
//!
//! What is *unfinished* is a difference: messages sent, less those done. So a message and its being
//! unfinished are one commit. In a queue that is shut and not received from any more, what was
//! left in it counts as done: the difference is then to those received. Each change is one
//! compare-exchange, so a death is before it or after it; a wake-up that it leaves out is made up
//! for by slices.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::layout::{DONE, END_BELL, GET_BELL, HEAD, PUT_BELL, SHUT, TAIL};
use super::{Queue, Rings};
use crate::Words;
use crate::sync::{Kernel, Rest};

/// More were reported done than were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl<W: Words + Clone, R: Rings> Queue<W, R> {
    /// How many messages were sent and not yet received; none if nothing is to be received.
    #[must_use]
    pub fn count(&self) -> u64 {
        if self.shut_now() == Some(true) {
            return 0;
        }
        loop {
            let turn = self.turn(HEAD);
            let (Ok(tail), Ok(head)) = (self.look(TAIL), self.look(HEAD)) else { return 0 };
            if self.turn(HEAD) == turn {
                return tail.count.saturating_sub(head.count);
            }
        }
    }

    /// How many messages there can be; `None`: any number.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        (self.shape().most != 0).then_some(self.shape().most)
    }

    /// How many messages were sent and not reported done.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        let done = self.words.load(self.at + DONE, Acquire);
        let side = if self.shut_now() == Some(true) { HEAD } else { TAIL };
        self.look(side).map_or(0, |record| record.count).saturating_sub(done)
    }

    /// One message more is done.
    ///
    /// # Errors
    /// If all are.
    pub fn task_done(&self, kernel: &impl Kernel) -> Result<(), TooMany> {
        loop {
            let done = self.words.load(self.at + DONE, Acquire);
            if self.unfinished() == 0 {
                return Err(TooMany);
            }
            if self.words.compare_exchange(self.at + DONE, done, done + 1).is_ok() {
                break;
            }
        }
        if self.unfinished() == 0 {
            self.call(END_BELL, kernel, true);
        }
        Ok(())
    }

    /// Waits until nothing is unfinished; `false`: the wait was stopped before.
    pub fn wait_finished(&self, kernel: &impl Kernel) -> bool {
        while self.unfinished() != 0 {
            if self.rest(END_BELL, kernel, || self.unfinished() == 0) == Rest::Stop {
                return self.unfinished() == 0;
            }
        }
        true
    }

    /// Nothing more is sent. `at_once`: nor received.
    pub fn shut(&self, at_once: bool, kernel: &impl Kernel) {
        let wanted = 1 + u64::from(at_once);
        loop {
            let now = self.words.load(self.at + SHUT, Relaxed);
            if now >= wanted || self.words.compare_exchange(self.at + SHUT, now, wanted).is_ok() {
                break;
            }
        }
        for bell in [GET_BELL, PUT_BELL, END_BELL] {
            self.call(bell, kernel, true);
        }
    }

    /// Whether it is shut.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.shut_now().is_some()
    }

    /// Whether it is shut, and `true`: for those who receive too.
    pub(super) fn shut_now(&self) -> Option<bool> {
        match self.words.load(self.at + SHUT, Acquire) {
            0 => None,
            more => Some(more > 1),
        }
    }
}
