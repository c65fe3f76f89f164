//! A count that can be waited for, and what each process holds of it.
//!
//! | word | holds |
//! |---|---|
//! | 0 | guard: a [`Lock`], held while any of the others is written |
//! | 8 | count, above one bit: somebody sleeps |
//! | 16 | journal: the word at 8 as it will be |
//! | 24 | journal: 0, or `COMMITTED` with a node's number and its value as it will be |
//! | 32 | not 0: units are signals, nobody holds them |
//!
//! What a process holds is the value of its node (see [`nodes`](super::nodes)), so that its units
//! come back when it dies. A unit taken changes the count and the node, together:
//!
//! | step under the guard | a death after it |
//! |---|---|
//! | guard taken | the heir finds no journal: nothing has happened |
//! | journal: count to be | the same |
//! | journal: node, value to be, `COMMITTED` | the heir carries it out; so it has happened |
//! | count, then node | the heir does both again |
//! | journal emptied | it has happened |
//! | guard given back | it has happened; a wake-up may be missing, and slices end |
//!
//! # Signals
//!
//! Not everybody who takes a unit holds something. Where some take and others give, as between
//! consumers and producers, the units are messages, and giving back what a dead consumer took
//! would invent one. So the first process that gives a unit without holding any marks the
//! semaphore as one of signals, for good: nothing is counted for anybody from then on, and
//! nothing comes back.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::lock::Lock;
use super::nodes::{BUSY, Node, Nodes};
use super::{Kernel, Rest, Taken, Who, low};
use crate::Words;

const COUNT: usize = 8;
const JOURNAL_COUNT: usize = 16;
const JOURNAL_NODE: usize = 24;
const SIGNALS: usize = 32;

const AWAITED: u64 = 1;
const UNIT: u64 = 2;
const COMMITTED: u64 = 1 << 63;
const MOST_HELD: u64 = u32::MAX as u64;

/// Bytes that a semaphore takes up.
pub const SEMAPHORE_BYTES: usize = 40;

/// The largest count.
pub const MOST: u64 = i32::MAX as u64;

/// A semaphore at a place in shared memory.
#[derive(Debug, Clone)]
pub struct Semaphore<W> {
    words: W,
    at: usize,
    object: u32,
    guard: Lock<W>,
    nodes: Nodes<W>,
}

/// A unit too many was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl<W: Words + Clone> Semaphore<W> {
    /// The semaphore at `at`, which is the object with this number.
    pub fn new(words: W, at: usize, object: u32, nodes: Nodes<W>) -> Self {
        let guard = Lock::new(words.clone(), at);
        Self { words, at, object, guard, nodes }
    }

    /// Sets the first count of one that nobody else knows yet.
    pub fn set_up(&self, count: u64) {
        self.words.store(self.at + COUNT, count * UNIT, Release);
    }

    /// The count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.load(self.at + COUNT, Relaxed) / UNIT
    }

    /// The node that says what `me`'s process holds. `None`: the table is full, and what it takes
    /// is not counted for it.
    pub fn holding(&self, me: Who, kernel: &impl Kernel) -> Option<Node> {
        self.enter(me, kernel);
        let process = me.process();
        let known = self.nodes.of(self.object).find(|seen| seen.tag == process.with(BUSY));
        let node = match known {
            Some(seen) => Some(seen.node),
            None => self.nodes.claim(process, self.object, 0, BUSY, kernel),
        };
        self.guard.unguard(kernel);
        node
    }

    /// How many units a node's process holds.
    #[must_use]
    pub fn held(&self, node: Node) -> u64 {
        self.nodes.value(node)
    }

    /// Takes a unit if there is one and nobody is at it. `None`: somebody is.
    #[inline]
    pub fn take_quickly(&self, me: Who, hold: Option<Node>, kernel: &impl Kernel) -> Option<bool> {
        if !self.guard.try_take(me) {
            return None;
        }
        self.finish_begun();
        let word = self.count_word();
        if word >= UNIT {
            self.take_unit(word - UNIT, hold);
        }
        self.guard.unguard(kernel);
        Some(word >= UNIT)
    }

    /// Under the guard: the count becomes `rest`, and `hold` gets a unit.
    fn take_unit(&self, rest: u64, hold: Option<Node>) {
        match hold.filter(|_| !self.are_signals()) {
            Some(node) => self.commit(rest, node, (self.nodes.value(node) + 1).min(MOST_HELD)),
            None => self.words.store(self.at + COUNT, rest, Relaxed),
        }
    }

    /// Takes a unit; `wait`: sleeping while there is none. `hold`: the caller's node.
    pub fn take(&self, me: Who, hold: Option<Node>, kernel: &impl Kernel, mut wait: bool) -> Taken {
        let (mut slept, mut suspect, mut from) = (0, !wait, None);
        loop {
            let dead = if suspect { self.dead_holders(kernel) } else { Vec::new() };
            suspect = false;
            self.enter(me, kernel);
            for (node, tag) in dead {
                from = self.take_back(node, tag).or(from);
            }
            let word = self.count_word();
            if word >= UNIT {
                let rest = (word - UNIT) | slept;
                self.take_unit(rest, hold);
                self.guard.unguard(kernel);
                // of several units given at once, only one wakes; so it wakes the next
                if (slept != 0 || from.is_some()) && rest >= UNIT {
                    kernel.wake(self.at + COUNT, false);
                }
                return from.map_or(Taken::Yes, Taken::FromDead);
            }
            if !wait {
                self.guard.unguard(kernel);
                if slept != 0 {
                    // a wake-up that was meant for this one goes on to the next
                    kernel.wake(self.at + COUNT, false);
                }
                return Taken::No;
            }
            self.words.store(self.at + COUNT, AWAITED, Relaxed);
            self.guard.unguard(kernel);
            slept = AWAITED;
            match kernel.sleep(self.at + COUNT, low(AWAITED)) {
                Rest::Over => {}
                Rest::Slice => suspect = true,
                // a last look: a short wait must find dead holders too
                Rest::Stop => (wait, suspect) = (false, true),
            }
        }
    }

    /// Gives a unit. `hold`: the caller's node.
    ///
    /// # Errors
    /// If the count is at its end, `most`.
    pub fn give(
        &self,
        me: Who,
        hold: Option<Node>,
        most: u64,
        kernel: &impl Kernel,
    ) -> Result<(), TooMany> {
        self.guard.guard(me, kernel);
        self.give_guarded(hold, most, kernel)
    }

    /// Gives a unit if nobody is at it. `None`: somebody is.
    #[inline]
    pub fn give_quickly(
        &self,
        me: Who,
        hold: Option<Node>,
        most: u64,
        kernel: &impl Kernel,
    ) -> Option<Result<(), TooMany>> {
        self.guard.try_take(me).then(|| self.give_guarded(hold, most, kernel))
    }

    fn give_guarded(
        &self,
        hold: Option<Node>,
        most: u64,
        kernel: &impl Kernel,
    ) -> Result<(), TooMany> {
        self.finish_begun();
        let word = self.count_word();
        if word / UNIT >= most {
            self.guard.unguard(kernel);
            return Err(TooMany);
        }
        let more = (word + UNIT) & !AWAITED;
        match hold.filter(|_| !self.are_signals()) {
            Some(node) => match self.nodes.value(node) {
                0 => {
                    self.words.store(self.at + SIGNALS, 1, Relaxed);
                    self.words.store(self.at + COUNT, more, Relaxed);
                }
                held => self.commit(more, node, held - 1),
            },
            None => self.words.store(self.at + COUNT, more, Relaxed),
        }
        self.guard.unguard(kernel);
        if word & AWAITED != 0 {
            kernel.wake(self.at + COUNT, false);
        }
        Ok(())
    }

    /// Whether units are signals.
    #[must_use]
    pub fn are_signals(&self) -> bool {
        self.words.load(self.at + SIGNALS, Relaxed) != 0
    }

    fn count_word(&self) -> u64 {
        self.words.load(self.at + COUNT, Relaxed)
    }

    /// Takes the guard, and ends what a dead holder began.
    fn enter(&self, me: Who, kernel: &impl Kernel) {
        self.guard.guard(me, kernel);
        self.finish_begun();
    }

    fn finish_begun(&self) {
        if self.words.load(self.at + JOURNAL_NODE, Acquire) != 0 {
            self.carry_out();
        }
    }

    fn commit(&self, count_word: u64, node: Node, held: u64) {
        self.words.store(self.at + JOURNAL_COUNT, count_word, Relaxed);
        let entry = COMMITTED | u64::from(node.0) << 32 | held;
        self.words.store(self.at + JOURNAL_NODE, entry, Release);
        self.carry_out();
    }

    fn carry_out(&self) {
        let entry = self.words.load(self.at + JOURNAL_NODE, Relaxed);
        let count_word = self.words.load(self.at + JOURNAL_COUNT, Relaxed);
        let node = Node(((entry & !COMMITTED) >> 32) as u32);
        self.words.store(self.at + COUNT, count_word, Relaxed);
        if self.nodes.is_in(node) {
            self.nodes.set_value(node, entry & MOST_HELD);
        }
        self.words.store(self.at + JOURNAL_NODE, 0, Release);
    }

    /// Gives back what dead processes held, and frees their nodes; unless somebody is at it.
    pub(super) fn reclaim(&self, me: Who, kernel: &impl Kernel) {
        let dead = self.dead_holders(kernel);
        if dead.is_empty() || self.guard.take_now(me, kernel, false) == Taken::No {
            return;
        }
        self.finish_begun();
        let back = dead.into_iter().filter_map(|(node, tag)| self.take_back(node, tag)).count();
        self.guard.unguard(kernel);
        if back > 0 {
            kernel.wake(self.at + COUNT, false);
        }
    }

    /// Nodes whose process is dead. Asking takes time, so not under the guard.
    fn dead_holders(&self, kernel: &impl Kernel) -> Vec<(Node, u64)> {
        let holders = self.nodes.of(self.object);
        let dead = holders.filter(|seen| seen.state() == BUSY && !kernel.alive(seen.who()));
        dead.map(|seen| (seen.node, seen.tag)).collect()
    }

    /// Under the guard: gives what a dead process held, and frees its node.
    fn take_back(&self, node: Node, tag: u64) -> Option<Who> {
        if self.nodes.tag(node) != tag {
            return None; // somebody else was first
        }
        let held = self.nodes.value(node);
        let comes_back = held != 0 && !self.are_signals();
        if comes_back {
            self.commit(self.count_word() + held * UNIT, node, 0);
        }
        self.nodes.free(node);
        comes_back.then(|| Who::of(tag))
    }
}
