//! Waiting until a number of parties have come.
//!
//! | word | holds |
//! |---|---|
//! | 0 | guard: a [`Lock`], held while somebody arrives or the barrier is reset |
//! | 8 | bits 0–1 state, 2–31 epoch, 32–63 how the last epochs ended, the latest lowest: 1 badly |
//! | 16 | parties |
//!
//! # States
//!
//! | state | meaning | moves to | by whom |
//! |---|---|---|---|
//! | `FILLING` | parties arrive | `ACTING` | the last one to arrive |
//! | | | `BROKEN` | who gives up, aborts, or finds a dead party |
//! | | | next epoch, badly | reset, if anybody waits |
//! | `ACTING` | all are here, one of them runs the action | next epoch, well | it |
//! | | | `BROKEN` | it, or who finds it dead; abort |
//! | | | next epoch, badly | reset |
//! | `BROKEN` | nobody can wait here | next epoch, badly | reset |
//!
//! Every move is one compare-exchange of the word at 8, which everybody sleeps on. Who has arrived
//! has a node with the epoch and its place; the one that acts is `CALLED`, the others are
//! `WAITING`. Nodes of past epochs mean nothing; their users free them.
//!
//! # Deaths
//!
//! A party that dies while it waits will not be there in the next round, and nobody can know
//! whether what it was to do is done: the barrier breaks, as when a party gives up. That is found
//! by the parties that wait. The guard protects single steps only: a node appears, the word
//! moves; its heir has nothing to put right.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::lock::Lock;
use super::nodes::{BUSY, CALLED, Node, Nodes, Seen, WAITING};
use super::{Kernel, Rest, Who, low};
use crate::Words;

const STATE: usize = 8;
const PARTIES: usize = 16;

const FILLING: u64 = 0;
const ACTING: u64 = 1;
const BROKEN: u64 = 2;
const STATES: u64 = 3;

const EPOCHS: u64 = (1 << 30) - 1;
/// How many past epochs are remembered.
const REMEMBERED: u64 = 32;

/// Bytes that a barrier takes up.
pub const BARRIER_BYTES: usize = 24;

/// A barrier at a place in shared memory.
#[derive(Debug, Clone)]
pub struct Barrier<W> {
    words: W,
    at: usize,
    object: u32,
    guard: Lock<W>,
    nodes: Nodes<W>,
}

/// One who has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its node, to be given to [`Barrier::leave`].
    pub node: Node,
    /// How many came before.
    pub place: u32,
    epoch: u64,
}

/// What to do at the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enter {
    /// Wait for the others.
    Wait(Arrival),
    /// All are here: run the action, then [`Barrier::open`].
    Act(Arrival),
    /// The barrier is broken.
    Broken,
    /// Stopped before there was a place.
    Stopped,
    /// There is no node left.
    Full,
}

/// How a wait at the barrier ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// All came.
    Well,
    /// It broke, or was reset. A party's death is told.
    Broken(Option<Who>),
    /// The wait was stopped; the barrier is broken now.
    Stopped,
}

impl<W: Words + Clone> Barrier<W> {
    /// The barrier at `at`, which is the object with this number.
    pub fn new(words: W, at: usize, object: u32, nodes: Nodes<W>) -> Self {
        let guard = Lock::new(words.clone(), at);
        Self { words, at, object, guard, nodes }
    }

    /// Sets the number of parties of one that nobody else knows yet.
    pub fn set_up(&self, parties: u64) {
        self.words.store(self.at + PARTIES, parties, Release);
    }

    /// The number of parties.
    #[must_use]
    pub fn parties(&self) -> u64 {
        self.words.load(self.at + PARTIES, Relaxed)
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.word() & STATES == BROKEN
    }

    /// How many wait for the others.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let word = self.word();
        if word & STATES == FILLING { self.arrived(epoch_of(word)).count() } else { 0 }
    }

    /// Arrives; waits while a round is being ended.
    pub fn enter(&self, me: Who, kernel: &impl Kernel) -> Enter {
        loop {
            self.guard.guard(me, kernel);
            let word = self.word();
            let epoch = epoch_of(word);
            match word & STATES {
                FILLING => {}
                ACTING => {
                    self.guard.unguard(kernel);
                    match kernel.sleep(self.at + STATE, low(word)) {
                        Rest::Over => {}
                        Rest::Slice => drop(self.find_dead(epoch, kernel)),
                        Rest::Stop => return Enter::Stopped,
                    }
                    continue;
                }
                _ => {
                    self.guard.unguard(kernel);
                    return Enter::Broken;
                }
            }
            let place = self.arrived(epoch).count() as u32;
            let value = epoch << 32 | u64::from(place);
            let Some(node) = self.nodes.claim(me, self.object, value, WAITING, kernel) else {
                self.guard.unguard(kernel);
                return Enter::Full;
            };
            let arrival = Arrival { node, place, epoch };
            if u64::from(place) + 1 < self.parties() {
                self.guard.unguard(kernel);
                return Enter::Wait(arrival);
            }
            self.nodes.change(node, me.with(WAITING), me.with(CALLED));
            // broken meanwhile, by somebody who gave up: then there is nothing to do
            let acts = self.words.compare_exchange(self.at + STATE, word, word | ACTING).is_ok();
            self.guard.unguard(kernel);
            if acts {
                return Enter::Act(arrival);
            }
            self.leave(&arrival);
        }
    }

    /// Waits for the others.
    pub fn wait(&self, arrival: &Arrival, kernel: &impl Kernel) -> Passed {
        let mut dead = None;
        loop {
            let word = self.word();
            if let Some(well) = outcome(word, arrival.epoch) {
                return if well { Passed::Well } else { Passed::Broken(dead) };
            }
            match kernel.sleep(self.at + STATE, low(word)) {
                Rest::Over => {}
                Rest::Slice => dead = self.find_dead(arrival.epoch, kernel).or(dead),
                Rest::Stop => {
                    if self.give_up(arrival, kernel) {
                        return Passed::Stopped;
                    }
                }
            }
        }
    }

    /// Breaks the round that somebody leaves; `false` if it has ended, or all are here already and
    /// it will end in a moment.
    pub fn give_up(&self, arrival: &Arrival, kernel: &impl Kernel) -> bool {
        loop {
            let word = self.word();
            if outcome(word, arrival.epoch).is_some() || word & STATES == ACTING {
                return false;
            }
            if self.move_from(word, word & !STATES | BROKEN, kernel) {
                return true;
            }
        }
    }

    /// The action is done: lets all go on. `false`: it broke, or was reset, meanwhile.
    pub fn open(&self, arrival: &Arrival, kernel: &impl Kernel) -> bool {
        let word = self.word();
        epoch_of(word) == arrival.epoch
            && word & STATES == ACTING
            && self.move_from(word, next_epoch(word, 0), kernel)
    }

    /// Gives the node of an arrival back.
    pub fn leave(&self, arrival: &Arrival) {
        self.nodes.free(arrival.node);
    }

    /// Breaks it; who waits, and who comes, is told.
    pub fn abort(&self, kernel: &impl Kernel) {
        loop {
            let word = self.word();
            if word & STATES == BROKEN || self.move_from(word, word & !STATES | BROKEN, kernel) {
                return;
            }
        }
    }

    /// Makes it as new; who waits is told that it broke.
    pub fn reset(&self, me: Who, kernel: &impl Kernel) {
        self.guard.guard(me, kernel);
        loop {
            let word = self.word();
            let idle = word & STATES == FILLING && self.arrived(epoch_of(word)).next().is_none();
            if idle || self.move_from(word, next_epoch(word, 1), kernel) {
                break;
            }
        }
        self.guard.unguard(kernel);
    }

    fn word(&self) -> u64 {
        self.words.load(self.at + STATE, Acquire)
    }

    fn move_from(&self, from: u64, to: u64, kernel: &impl Kernel) -> bool {
        let moved = self.words.compare_exchange(self.at + STATE, from, to).is_ok();
        if moved {
            kernel.wake(self.at + STATE, true);
        }
        moved
    }

    fn arrived(&self, epoch: u64) -> impl Iterator<Item = Seen> + '_ {
        let here = move |seen: &Seen| matches!(seen.state(), WAITING | CALLED);
        self.nodes.of(self.object).filter(move |seen| here(seen) && seen.value >> 32 == epoch)
    }

    /// Frees the nodes of dead parties. The round that one of them is needed for breaks first, as it
    /// would if anybody else waited.
    pub(super) fn reclaim(&self, me: Who, kernel: &impl Kernel) {
        self.find_dead(epoch_of(self.word()), kernel);
        for seen in self.nodes.dead(self.object, kernel) {
            let word = self.word();
            let counts = epoch_of(word) == seen.value >> 32 && word & STATES != BROKEN;
            if !counts || seen.state() == BUSY {
                self.nodes.bury(&seen, me);
            }
        }
    }

    /// Breaks the round if somebody who is needed for its end is dead.
    fn find_dead(&self, epoch: u64, kernel: &impl Kernel) -> Option<Who> {
        let word = self.word();
        if epoch_of(word) != epoch || word & STATES == BROKEN {
            return None;
        }
        let acting = word & STATES == ACTING;
        let all: Vec<Seen> = self.arrived(epoch).collect();
        let dead = all.iter().find(|seen| {
            (!acting || seen.state() == CALLED) && !kernel.alive(seen.who().process())
        })?;
        self.move_from(word, word & !STATES | BROKEN, kernel).then(|| dead.who())
    }
}

fn epoch_of(word: u64) -> u64 {
    word >> 2 & EPOCHS
}

fn next_epoch(word: u64, badly: u64) -> u64 {
    let outcomes = (word >> 32 << 1 | badly) & u64::from(u32::MAX);
    outcomes << 32 | ((epoch_of(word) + 1) & EPOCHS) << 2 | FILLING
}

/// How an epoch ended; `None`: it has not.
fn outcome(word: u64, epoch: u64) -> Option<bool> {
    let ago = epoch_of(word).wrapping_sub(epoch) & EPOCHS;
    match ago {
        0 => (word & STATES == BROKEN).then_some(false),
        1..=REMEMBERED => Some(word >> 32 >> (ago - 1) & 1 == 0),
        // slept through more rounds than are remembered: others took its place in them
        _ => Some(true),
    }
}
