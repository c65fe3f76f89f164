//! Who waits for what, and who holds how much of what: a table of nodes beside the objects.
//!
//! | word | holds |
//! |---|---|
//! | 0 | tag: name of the user, and a state; 0: free |
//! | 8 | object: number of the slot that the node belongs to; 0: none yet |
//! | 16 | value: a ticket, an epoch and index, or a count |
//!
//! # States of a node
//!
//! | state | meaning | moves to | by whom |
//! |---|---|---|---|
//! | free | nobody's | `BUSY` | anybody: `claim`, which is one compare-exchange |
//! | `BUSY` | being filled; filled: what a process holds of a semaphore | `WAITING` | its user |
//! | | | free | its user; for a dead one, its heir |
//! | `WAITING` | somebody sleeps | `CALLED` | who wakes it; its user, who inherits a call |
//! | | | `BUSY` | its user, giving up: from then on it cannot be called |
//! | | | free | its user, giving up where it cannot be called |
//! | `CALLED` | called, and not yet gone on | free | its user; for a dead one, its heir |
//! | `CALLED` or `BUSY` of a dead user | a call that is to be passed on | `BUSY`, the heir's | its heir |
//!
//! The object is written after the value and erased before the tag, so a node that names an object
//! is whole. A user that dies leaves a node with a dead name: if it names an object, that object's
//! users find it; if not, it is swept when the table is full. If that gives no room either, nodes of
//! all objects are taken back from the dead, by the rules of each: see [`reclaim`](super::reclaim).
//!
//! The head of the table has one word: how many nodes were ever in use at once, so that a look
//! through the table is as long as it must be. It only grows.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::who::STATE;
use super::{Kernel, Who};
use crate::Words;

/// Somebody sleeps.
pub const WAITING: u64 = 1;
/// Called by who wakes, and not yet gone on.
pub const CALLED: u64 = 2;
/// Being filled; or a holding.
pub const BUSY: u64 = 3;

/// Bytes of a node.
pub const NODE_BYTES: usize = 24;

/// A node by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub u32);

/// A node as it was seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Which.
    pub node: Node,
    /// Name and state.
    pub tag: u64,
    /// Ticket, epoch, or count.
    pub value: u64,
}

impl Seen {
    /// Whose.
    #[must_use]
    pub fn who(&self) -> Who {
        Who::of(self.tag)
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.tag & STATE
    }
}

/// The table.
#[derive(Debug, Clone)]
pub struct Nodes<W> {
    words: W,
    /// Where the word with the high mark is.
    mark: usize,
    first: usize,
    count: u32,
}

impl<W: Words> Nodes<W> {
    /// The table of `count` nodes from `first`, its high mark at `mark`.
    pub fn new(words: W, mark: usize, first: usize, count: u32) -> Self {
        Self { words, mark, first, count }
    }

    /// Where the tag of a node is: what its user sleeps on.
    #[must_use]
    pub fn at(&self, node: Node) -> usize {
        self.first + node.0 as usize * NODE_BYTES
    }

    /// Whether there is such a node: numbers that come from shared memory may be nonsense.
    #[must_use]
    pub fn is_in(&self, node: Node) -> bool {
        node.0 < self.count
    }

    /// A node for `who`, belonging to `object`, in `state`. `None`: all are taken.
    pub fn claim(
        &self,
        who: Who,
        object: u32,
        value: u64,
        state: u64,
        kernel: &impl Kernel,
    ) -> Option<Node> {
        let node = self.claim_free(who).or_else(|| {
            self.sweep(kernel);
            self.claim_free(who)
        })?;
        let at = self.at(node);
        self.words.store(at + 16, value, Relaxed);
        self.words.store(at + 8, object.into(), Release);
        if state != BUSY {
            self.words.store(at, who.with(state), Release);
        }
        Some(node)
    }

    fn claim_free(&self, who: Who) -> Option<Node> {
        for number in 0..self.count {
            let at = self.at(Node(number));
            if self.words.load(at, Relaxed) != 0 {
                continue;
            }
            // the mark goes up first: a node beyond it would never be looked at
            let mark = u64::from(number) + 1;
            let mut high = self.words.load(self.mark, Relaxed);
            while high < mark {
                match self.words.compare_exchange(self.mark, high, mark) {
                    Ok(_) => break,
                    Err(other) => high = other,
                }
            }
            if self.words.compare_exchange(at, 0, who.with(BUSY)).is_ok() {
                return Some(Node(number));
            }
        }
        None
    }

    /// Frees what dead users claimed and never filled, or never erased.
    fn sweep(&self, kernel: &impl Kernel) {
        for number in 0..self.high() {
            let node = Node(number);
            let tag = self.words.load(self.at(node), Acquire);
            let object = self.words.load(self.at(node) + 8, Acquire);
            if tag != 0 && object == 0 && !kernel.alive(Who::of(tag)) {
                // lost to another sweeper, or to a new user: fine
                let _lost = self.words.compare_exchange(self.at(node), tag, 0);
            }
        }
    }

    /// Gives a node back.
    pub fn free(&self, node: Node) {
        self.words.store(self.at(node) + 8, 0, Relaxed);
        self.words.store(self.at(node), 0, Release);
    }

    /// Moves a node from one tag to another, if it still has the first.
    pub fn change(&self, node: Node, from: u64, to: u64) -> bool {
        self.words.compare_exchange(self.at(node), from, to).is_ok()
    }

    /// Name and state of a node now.
    #[must_use]
    pub fn tag(&self, node: Node) -> u64 {
        self.words.load(self.at(node), Acquire)
    }

    /// The value of a node now.
    #[must_use]
    pub fn value(&self, node: Node) -> u64 {
        self.words.load(self.at(node) + 16, Relaxed)
    }

    /// Sets the value of a node that the caller owns, or guards.
    pub fn set_value(&self, node: Node, value: u64) {
        self.words.store(self.at(node) + 16, value, Relaxed);
    }

    fn high(&self) -> u32 {
        // what a stranger wrote there may be nonsense
        u32::try_from(self.words.load(self.mark, Acquire)).unwrap_or(u32::MAX).min(self.count)
    }

    /// The nodes that belong to `object`.
    pub fn of(&self, object: u32) -> impl Iterator<Item = Seen> + '_ {
        (0..self.high()).filter_map(move |number| self.see(Node(number), object))
    }

    /// All nodes that belong to an object, with that.
    pub fn all(&self) -> impl Iterator<Item = (u32, Seen)> + '_ {
        (0..self.high()).filter_map(|number| {
            let node = Node(number);
            let object = u32::try_from(self.object(node)).ok().filter(|object| *object != 0)?;
            Some((object, self.see(node, object)?))
        })
    }

    fn object(&self, node: Node) -> u64 {
        self.words.load(self.at(node) + 8, Acquire)
    }

    fn see(&self, node: Node, object: u32) -> Option<Seen> {
        let belongs = || self.object(node) == u64::from(object);
        if !belongs() {
            return None;
        }
        let tag = self.tag(node);
        let value = self.words.load(self.at(node) + 16, Acquire);
        // the same node still: it may have been freed and claimed for another object meanwhile
        let same = tag != 0 && belongs() && self.tag(node) == tag;
        same.then_some(Seen { node, tag, value })
    }

    /// Nodes of an object whose user's process is dead.
    pub(super) fn dead(&self, object: u32, kernel: &impl Kernel) -> Vec<Seen> {
        self.of(object).filter(|seen| !kernel.alive(seen.who().process())).collect()
    }

    /// Frees the node of a dead user, unless somebody else is at that.
    pub(super) fn bury(&self, seen: &Seen, me: Who) {
        if self.change(seen.node, seen.tag, me.with(BUSY)) {
            self.free(seen.node);
        }
    }

    /// Frees all nodes of an object that nobody else can know.
    pub fn forget(&self, object: u32) {
        let all: Vec<Node> = self.of(object).map(|seen| seen.node).collect();
        for node in all {
            self.free(node);
        }
    }
}
