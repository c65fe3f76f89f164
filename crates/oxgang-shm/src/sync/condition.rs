//! Waiting until told, under a lock that the users bring.
//!
//! | word | holds |
//! |---|---|
//! | 0 | the next ticket |
//! | 8 | 0, or the name of who is calling |
//! | 16 | tickets below this one are meant by that call |
//!
//! Who waits has a node with its ticket (see [`nodes`](super::nodes)) and sleeps on it. Entering
//! and calling happen under the users' lock, so that lock is the guard of these words. Giving up
//! and being called are both a compare-exchange from `WAITING`: one of them wins.
//!
//! # Deaths
//!
//! | who dies | when | what the others do |
//! |---|---|---|
//! | a waiter | `WAITING` | nothing; it may be called, then see below |
//! | | `CALLED`, or `BUSY` | a waiter whose slice ends takes the call for its own |
//! | a caller | between its name and the last call | waiters with a ticket below the limit call themselves when their slice ends; the next caller calls all of those first |
//! | an heir of a call | anywhere | leaves a node `BUSY` or `CALLED`: as above |
//!
//! So a call is never lost. It may be made twice: a condition's waiters look again at what they
//! waited for, as ever.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::nodes::{BUSY, CALLED, Node, Nodes, Seen, WAITING};
use super::{Kernel, Rest, Who, low};
use crate::Words;

const TICKET: usize = 0;
const CALLER: usize = 8;
const LIMIT: usize = 16;

const CALLING: u64 = 1;

/// Bytes that a condition takes up.
pub const CONDITION_BYTES: usize = 24;

/// A condition at a place in shared memory.
#[derive(Debug, Clone)]
pub struct Condition<W> {
    words: W,
    at: usize,
    object: u32,
    nodes: Nodes<W>,
}

impl<W: Words> Condition<W> {
    /// The condition at `at`, which is the object with this number.
    pub fn new(words: W, at: usize, object: u32, nodes: Nodes<W>) -> Self {
        Self { words, at, object, nodes }
    }

    /// With the lock held: takes a place among those who wait. `None`: there is none left.
    pub fn enter(&self, me: Who, kernel: &impl Kernel) -> Option<Node> {
        self.finish_call(kernel);
        let ticket = self.words.load(self.at + TICKET, Relaxed);
        self.words.store(self.at + TICKET, ticket + 1, Relaxed);
        self.nodes.claim(me, self.object, ticket, WAITING, kernel)
    }

    /// Without the lock: sleeps until called; `false`: stopped before. The node stays the
    /// caller's until it [`leave`](Self::leave)s.
    pub fn wait(&self, node: Node, me: Who, kernel: &impl Kernel) -> bool {
        loop {
            let tag = self.nodes.tag(node);
            if tag != me.with(WAITING) {
                return true;
            }
            match kernel.sleep(self.nodes.at(node), low(tag)) {
                Rest::Over => {}
                Rest::Slice => {
                    if self.inherit(node, me, kernel) {
                        return true;
                    }
                }
                Rest::Stop => {
                    return !self.nodes.change(node, me.with(WAITING), me.with(BUSY));
                }
            }
        }
    }

    /// Gives the place back; the call, if there was one, has done its work then.
    pub fn leave(&self, node: Node) {
        self.nodes.free(node);
    }

    /// With the lock held: calls up to `most` of those who wait, the longest waiting first.
    pub fn call(&self, most: u64, me: Who, kernel: &impl Kernel) {
        self.finish_call(kernel);
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        let limit = self.words.load(self.at + TICKET, Relaxed);
        self.words.store(self.at + LIMIT, limit, Relaxed);
        self.words.store(self.at + CALLER, me.with(CALLING), Release);
        waiting.sort_by_key(|seen| seen.value);
        let mut left = most;
        for seen in waiting {
            if left == 0 {
                break;
            }
            left -= u64::from(self.call_one(&seen, kernel));
        }
        self.words.store(self.at + CALLER, 0, Release);
    }

    /// How many wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> Vec<Seen> {
        self.nodes.of(self.object).filter(|seen| seen.state() == WAITING).collect()
    }

    fn call_one(&self, seen: &Seen, kernel: &impl Kernel) -> bool {
        let called = self.nodes.change(seen.node, seen.tag, seen.who().with(CALLED));
        if called {
            kernel.wake(self.nodes.at(seen.node), true);
        }
        called
    }

    /// With the lock held: who called before and is still there has died at it.
    fn finish_call(&self, kernel: &impl Kernel) {
        if self.words.load(self.at + CALLER, Acquire) == 0 {
            return;
        }
        let limit = self.words.load(self.at + LIMIT, Relaxed);
        for seen in self.waiting() {
            if seen.value < limit {
                self.call_one(&seen, kernel);
            }
        }
        self.words.store(self.at + CALLER, 0, Release);
    }

    /// Frees the nodes of the dead, but for calls that a waiter will take for its own.
    pub(super) fn reclaim(&self, me: Who, kernel: &impl Kernel) {
        let dead = self.nodes.dead(self.object, kernel);
        let (waiting, called): (Vec<_>, Vec<_>) =
            dead.into_iter().partition(|seen| seen.state() == WAITING);
        waiting.iter().for_each(|seen| self.nodes.bury(seen, me));
        // who enters from here on came after those calls
        if self.waiting().is_empty() {
            called.iter().for_each(|seen| self.nodes.bury(seen, me));
        }
    }

    /// Whether the dead have left a call for this waiter.
    fn inherit(&self, node: Node, me: Who, kernel: &impl Kernel) -> bool {
        let caller = Who::of(self.words.load(self.at + CALLER, Acquire));
        if caller.is_somebody()
            && self.nodes.value(node) < self.words.load(self.at + LIMIT, Relaxed)
            && !kernel.alive(caller.process())
        {
            let _called_meanwhile = self.nodes.change(node, me.with(WAITING), me.with(CALLED));
            return true;
        }
        let called = |seen: &Seen| matches!(seen.state(), CALLED | BUSY) && seen.node != node;
        let all: Vec<Seen> = self.nodes.of(self.object).filter(called).collect();
        for seen in all {
            if kernel.alive(seen.who().process())
                || !self.nodes.change(seen.node, seen.tag, me.with(BUSY))
            {
                continue;
            }
            // the call is ours now: we go on, or, if we were called as well, another does
            if !self.nodes.change(node, me.with(WAITING), me.with(CALLED)) {
                let next = self.waiting().into_iter().min_by_key(|seen| seen.value);
                if let Some(next) = next {
                    self.call_one(&next, kernel);
                }
            }
            self.nodes.free(seen.node);
            return true;
        }
        false
    }
}
