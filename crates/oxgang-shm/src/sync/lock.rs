//! A lock that knows its owner: one word, and beside it how deep a recursion is and who died.
//!
//! | word | holds |
//! |---|---|
//! | 0 | owner and state |
//! | 8 | depth, of a recursive lock |
//! | 16 | whose death made it abandoned |
//!
//! # States of the owner word
//!
//! | state | word | moves to | by whom |
//! |---|---|---|---|
//! | free | 0 | held | anybody: `take` |
//! | held | name, `HELD` | held and awaited | who finds it held and will sleep |
//! | | | free | `release`; for a recursive lock only its owner |
//! | | | held by another, awaited | who finds the owner dead: `take` |
//! | held and awaited | name, `HELD`, `AWAITED` | free, one is woken | `release` |
//! | | | held by another, awaited | who finds the owner dead: `take` |
//! | | | abandoned, all are woken | the same, where deaths are to be told |
//! | abandoned | no name, `HELD` | held | `recover` |
//!
//! Who was woken, or has slept, takes the lock as *awaited*, since it cannot know whether others
//! sleep; that costs at most one wake-up too many.
//!
//! # Deaths
//!
//! Each row is one compare-exchange, so a death is before it or after it. Before: the word is as
//! if the dead had never come. After: it is held by a name that is dead, or free with a wake-up
//! not made, or awaited by nobody; the first is found by those who wait, the second by a
//! slice that ends, the third costs a wake-up. The depth is written by the owner alone, and
//! set to one by the next.
//!
//! # Orderings
//!
//! Taking acquires and releasing releases, by compare-exchange on the one word; sleeping compares
//! the same word again in the kernel. So there is nothing that a fence would order.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::{Kernel, Rest, Taken, Who, low};
use crate::Words;

const HELD: u64 = 1;
const AWAITED: u64 = 2;

/// Bytes that a lock takes up.
pub const LOCK_BYTES: usize = 24;

/// Looks at a held guard before the first sleep.
const GLANCES: u32 = if cfg!(loom) { 1 } else { 64 };

/// A lock at a place in shared memory.
#[derive(Debug, Clone)]
pub struct Lock<W> {
    words: W,
    at: usize,
    /// Only the thread that took it can give it back, so its end counts as its owner's death.
    by_thread: bool,
}

/// What a release was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReleased {
    /// Nobody holds it.
    Free,
    /// Somebody else does, and only the owner may.
    NotOwner,
}

impl<W: Words> Lock<W> {
    /// The lock at `at`; zeroed memory is a free one.
    pub fn new(words: W, at: usize) -> Self {
        Self { words, at, by_thread: false }
    }

    /// The recursive lock at `at`, which belongs to a thread and not to its process.
    pub fn recursive(words: W, at: usize) -> Self {
        Self { words, at, by_thread: true }
    }

    /// The memory that it lies in.
    pub fn words(&self) -> &W {
        &self.words
    }

    /// Takes it if it is free.
    #[inline]
    pub fn try_take(&self, me: Who) -> bool {
        self.words.compare_exchange(self.at, 0, me.with(HELD)).is_ok()
    }

    /// Takes it, sleeping while somebody else has it. `tell`: an owner's death makes it
    /// abandoned, instead of the caller's.
    pub fn take(&self, me: Who, kernel: &impl Kernel, tell: bool) -> Taken {
        self.take_or(me, kernel, tell, true)
    }

    /// Takes it if it is free or its owner is dead.
    pub fn take_now(&self, me: Who, kernel: &impl Kernel, tell: bool) -> Taken {
        self.take_or(me, kernel, tell, false)
    }

    fn take_or(&self, me: Who, kernel: &impl Kernel, tell: bool, mut wait: bool) -> Taken {
        let (mut slept, mut suspect) = (0, !wait);
        loop {
            let word = self.words.load(self.at, Acquire);
            let owner = Who::of(word);
            if word == 0 {
                if self.words.compare_exchange(self.at, 0, me.with(HELD | slept)).is_ok() {
                    return Taken::Yes;
                }
                continue;
            }
            if !owner.is_somebody() {
                return Taken::Abandoned;
            }
            if suspect {
                suspect = !wait;
                if !kernel.alive(if self.by_thread { owner } else { owner.process() }) {
                    if tell {
                        self.words.store(self.at + 16, owner.with(0), Relaxed);
                    }
                    let (heir, taken) = if tell {
                        (HELD, Taken::Abandoned)
                    } else {
                        (me.with(HELD | AWAITED), Taken::FromDead(owner))
                    };
                    if self.words.compare_exchange(self.at, word, heir).is_ok() {
                        if tell {
                            kernel.wake(self.at, true);
                        }
                        return taken;
                    }
                    continue;
                }
            }
            if !wait {
                if slept != 0 {
                    self.pass_on(kernel);
                }
                return Taken::No;
            }
            let awaited = word | AWAITED;
            if word != awaited && self.words.compare_exchange(self.at, word, awaited).is_err() {
                continue;
            }
            slept = AWAITED;
            match kernel.sleep(self.at, low(awaited)) {
                Rest::Over => {}
                Rest::Slice => suspect = true,
                // a last look: a short wait must find a dead owner too
                Rest::Stop => (wait, suspect) = (false, true),
            }
        }
    }

    /// What somebody who gives up leaves to the others that sleep: the wake-up that may have been
    /// its own, or the mark that somebody sleeps.
    fn pass_on(&self, kernel: &impl Kernel) {
        loop {
            let word = self.words.load(self.at, Relaxed);
            if word == 0 {
                return kernel.wake(self.at, false);
            }
            if word & AWAITED != 0
                || self.words.compare_exchange(self.at, word, word | AWAITED).is_ok()
            {
                return;
            }
        }
    }

    /// Takes it for the few steps that a guard is held. It cannot be stopped: guards are held for
    /// moments. Gives the dead holder that it was taken over from, if so.
    pub(crate) fn guard(&self, me: Who, kernel: &impl Kernel) -> Option<Who> {
        for _ in 0..GLANCES {
            if self.try_take(me) {
                return None;
            }
            kernel.pause();
        }
        loop {
            match self.take(me, kernel, false) {
                Taken::Yes => return None,
                Taken::FromDead(dead) => return Some(dead),
                Taken::No | Taken::Abandoned => {}
            }
        }
    }

    /// Gives a guard back.
    pub(crate) fn unguard(&self, kernel: &impl Kernel) {
        // a guard that is not held any more was taken over from us as dead: not ours to give back
        let _taken_over = self.release(kernel);
    }

    /// Gives it back, whoever took it.
    ///
    /// # Errors
    /// If nobody holds it.
    #[inline]
    pub fn release(&self, kernel: &impl Kernel) -> Result<(), NotReleased> {
        loop {
            let word = self.words.load(self.at, Relaxed);
            if !Who::of(word).is_somebody() {
                return Err(NotReleased::Free);
            }
            if self.words.compare_exchange(self.at, word, 0).is_ok() {
                if word & AWAITED != 0 {
                    kernel.wake(self.at, false);
                }
                return Ok(());
            }
        }
    }

    /// Takes it although it is abandoned, and so ends that state; or as [`take`](Self::take) if it
    /// is not.
    pub fn recover(&self, me: Who, kernel: &impl Kernel) -> Taken {
        loop {
            match self.take(me, kernel, true) {
                Taken::Abandoned => {
                    let abandoned = self.words.load(self.at, Relaxed);
                    if abandoned != 0
                        && !Who::of(abandoned).is_somebody()
                        && self
                            .words
                            .compare_exchange(self.at, abandoned, me.with(HELD | AWAITED))
                            .is_ok()
                    {
                        return Taken::Yes;
                    }
                }
                other => return other,
            }
        }
    }

    /// Who holds it.
    #[must_use]
    #[inline]
    pub fn owner(&self) -> Option<Who> {
        let owner = Who::of(self.words.load(self.at, Relaxed));
        owner.is_somebody().then_some(owner)
    }

    /// Whose death made it abandoned, the last time that it was.
    #[must_use]
    pub fn deceased(&self) -> Who {
        Who::of(self.words.load(self.at + 16, Relaxed))
    }

    /// Whether it is free. An abandoned lock is not.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.words.load(self.at, Relaxed) == 0
    }

    /// Recursive use: if `me` is the owner, goes one deeper; else as `take` did, with depth one.
    #[inline]
    pub fn deepen(&self, me: Who) -> bool {
        if self.owner() != Some(me) {
            return false;
        }
        let depth = self.depth();
        self.words.store(self.at + 8, depth + 1, Relaxed);
        true
    }

    /// Recursive use: the first level, right after it was taken.
    #[inline]
    pub fn begin(&self) {
        self.words.store(self.at + 8, 1, Relaxed);
    }

    /// Recursive use: how deep the owner is in.
    #[must_use]
    #[inline]
    pub fn depth(&self) -> u64 {
        self.words.load(self.at + 8, Relaxed)
    }

    /// Recursive use: sets the depth, for an owner that takes it again as deep as it was.
    pub fn set_depth(&self, depth: u64) {
        self.words.store(self.at + 8, depth, Relaxed);
    }

    /// Recursive use: up one level, and gives it back at the top.
    ///
    /// # Errors
    /// If `me` is not the owner.
    #[inline]
    pub fn ascend(&self, me: Who, kernel: &impl Kernel) -> Result<(), NotReleased> {
        if self.owner() != Some(me) {
            return Err(NotReleased::NotOwner);
        }
        match self.depth() {
            0 | 1 => self.release(kernel),
            deeper => {
                self.words.store(self.at + 8, deeper - 1, Relaxed);
                Ok(())
            }
        }
    }
}
