//! A flag that can be waited for: one word, no owner.
//!
//! | bits | hold |
//! |---|---|
//! | 0 | set |
//! | 1 | somebody sleeps |
//! | 2–31 | epoch: how often it went from unset to set |
//!
//! Who waits goes on when it is set, or when the epoch is another than at the beginning: a set
//! that is cleared at once is not missed. Each change is one compare-exchange. A setter that dies
//! before it wakes has set; the sleepers see it when their slice ends.

use std::sync::atomic::Ordering::Acquire;

use super::{Kernel, Rest, low};
use crate::Words;

const SET: u64 = 1;
const AWAITED: u64 = 2;
const EPOCH: u64 = 4;
const ALL: u64 = u32::MAX as u64;

/// An event at a place in shared memory.
#[derive(Debug, Clone)]
pub struct Event<W> {
    words: W,
    at: usize,
}

impl<W: Words> Event<W> {
    /// The event at `at`; zeroed memory is an unset one.
    pub fn new(words: W, at: usize) -> Self {
        Self { words, at }
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.words.load(self.at, Acquire) & SET != 0
    }

    /// Sets it and wakes all who wait.
    pub fn set(&self, kernel: &impl Kernel) {
        loop {
            let word = self.words.load(self.at, Acquire);
            if word & SET != 0 {
                return;
            }
            let set = (((word + EPOCH) & ALL) | SET) & !AWAITED;
            if self.words.compare_exchange(self.at, word, set).is_ok() {
                if word & AWAITED != 0 {
                    kernel.wake(self.at, true);
                }
                return;
            }
        }
    }

    /// Unsets it.
    pub fn clear(&self) {
        loop {
            let word = self.words.load(self.at, Acquire);
            if word & SET == 0 || self.words.compare_exchange(self.at, word, word & !SET).is_ok() {
                return;
            }
        }
    }

    /// The epoch: what a wait begins with.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.words.load(self.at, Acquire) / EPOCH
    }

    /// Waits until it is set, or has been since `epoch`; `false` if the wait was stopped before.
    pub fn wait(&self, epoch: u64, kernel: &impl Kernel) -> bool {
        loop {
            let word = self.words.load(self.at, Acquire);
            if word & SET != 0 || word / EPOCH != epoch {
                return true;
            }
            let awaited = word | AWAITED;
            if word != awaited && self.words.compare_exchange(self.at, word, awaited).is_err() {
                continue;
            }
            if kernel.sleep(self.at, low(awaited)) == Rest::Stop {
                let word = self.words.load(self.at, Acquire);
                return word & SET != 0 || word / EPOCH != epoch;
            }
        }
    }
}
