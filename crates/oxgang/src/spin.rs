//! When to spin before sleeping.
//!
//! A wake-up across CPUs costs 15 µs and more, so a short spin pays where the answer comes
//! soon and a CPU is free, and is pure loss elsewhere. Three guards: a place among the pool's
//! spinners (no more than CPUs), a budget per wait that is longer than one wake-up (a shorter
//! one never wins), and a memory of misses that makes the next spins rarer.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use oxgang_shm::Words;
use oxgang_shm::watch::Watch;

use crate::generation;

/// Rounds of looking between two readings of the clock.
const ROUNDS: u32 = 32;
/// After many misses in a row one wait in this many still tries.
const RAREST: u32 = 64;

/// The budget, read once; zero also where there is only one CPU.
#[must_use]
pub fn budget_of_process() -> Duration {
    static BUDGET: OnceLock<Duration> = OnceLock::new();
    *BUDGET.get_or_init(|| if oxgang_os::cpus::usable() > 1 { budget() } else { Duration::ZERO })
}

/// The memory of one waiting thread.
#[derive(Debug, Clone)]
pub struct Spinner {
    budget: Duration,
    misses: u32,
    skipped: u32,
}

/// The budget: `OXGANG_SPIN` in microseconds, 40 if it is not set; 0 never spins.
#[must_use]
pub fn budget() -> Duration {
    let set = std::env::var("OXGANG_SPIN").ok().and_then(|text| text.parse().ok());
    Duration::from_micros(set.unwrap_or(40))
}

/// Who hands out places to spin.
pub trait Places {
    /// Asks for one; pair with [`leave`](Self::leave).
    fn take(&self) -> bool;
    /// Gives it back.
    fn leave(&self);
}

impl<W: Words> Places for Watch<W> {
    fn take(&self) -> bool {
        self.start_spinning()
    }
    fn leave(&self) {
        self.stop_spinning();
    }
}

/// Places of this process's threads alone.
///
/// Those that a fork has copied are not taken: their threads are not in the child.
#[derive(Debug)]
pub struct OwnPlaces {
    /// The lower half: how many are taken, in the generation that is the upper half.
    word: AtomicU64,
    most: u32,
}

const TAKEN: u64 = u32::MAX as u64;

/// The places of all threads of this process, whatever they wait for: as many as there are CPUs;
/// none where there is only one.
#[must_use]
pub fn places() -> &'static OwnPlaces {
    static PLACES: OnceLock<OwnPlaces> = OnceLock::new();
    PLACES.get_or_init(|| {
        let cpus = u32::try_from(oxgang_os::cpus::usable()).unwrap_or(u32::MAX);
        OwnPlaces::new(if cpus > 1 { cpus } else { 0 })
    })
}

impl OwnPlaces {
    fn new(most: u32) -> Self {
        Self { word: AtomicU64::new(0), most }
    }

    fn take_in(&self, generation: u64) -> bool {
        let generation = generation << 32;
        let take = |word: u64| {
            let taken = if word & !TAKEN == generation { word & TAKEN } else { 0 };
            (taken < u64::from(self.most)).then_some(generation | (taken + 1))
        };
        self.word.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

impl Places for OwnPlaces {
    fn take(&self) -> bool {
        self.take_in(generation())
    }
    fn leave(&self) {
        self.word.fetch_sub(1, Relaxed);
    }
}

/// Two threads hand something to each other that only one can hold: the interpreter. Who sees the
/// other's news while it spins, and then finds that still held, sleeps in its lock, and is late by
/// a wake-up. So it looks, for a moment, whether the other has let go (`over`).
pub fn hand_over(over: impl Fn() -> bool) {
    const MOMENT: Duration = Duration::from_micros(3);
    if over() || budget_of_process().is_zero() {
        return;
    }
    let start = Instant::now();
    while !over() && start.elapsed() < MOMENT {
        std::hint::spin_loop();
    }
}

impl Spinner {
    /// One that spins for `budget` at most.
    #[must_use]
    pub fn new(budget: Duration) -> Self {
        Self { budget, misses: 0, skipped: 0 }
    }

    /// Looks until `found` or the budget is spent; `true` if it was found.
    pub fn spin(&mut self, places: &impl Places, mut found: impl FnMut() -> bool) -> bool {
        if self.budget.is_zero() || self.sits_out() || !places.take() {
            return found();
        }
        let start = Instant::now();
        let won = loop {
            if (0..ROUNDS).any(|_| {
                std::hint::spin_loop();
                found()
            }) {
                break true;
            }
            if start.elapsed() >= self.budget {
                break false;
            }
        };
        places.leave();
        self.misses = if won { 0 } else { self.misses + 1 };
        won
    }

    /// For who looks by itself, and does other things in between: until when to look again before
    /// sleeping; `None`: sleep now. Tell [`looked`](Self::looked) how it went.
    pub fn patience(&mut self) -> Option<Instant> {
        if self.budget.is_zero() || self.sits_out() {
            return None;
        }
        Some(Instant::now() + self.budget)
    }

    /// Whether what was waited for came in that time.
    pub fn looked(&mut self, won: bool) {
        self.misses = if won { 0 } else { self.misses + 1 };
    }

    fn sits_out(&mut self) -> bool {
        let rarity = (1_u32 << self.misses.saturating_sub(2).min(16)).min(RAREST);
        self.skipped += 1;
        if self.skipped < rarity {
            return true;
        }
        self.skipped = 0;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_spin_than_there_are_places() {
        let places = OwnPlaces::new(2);
        assert!(places.take_in(7) && places.take_in(7));
        assert!(!places.take_in(7));
        places.leave();
        assert!(places.take_in(7) && !places.take_in(7));
        assert!(!OwnPlaces::new(0).take());
    }

    #[test]
    fn places_of_threads_that_a_fork_has_left_behind_are_free() {
        let places = OwnPlaces::new(2);
        assert!(places.take_in(0) && places.take_in(0));
        assert!(places.take_in(1) && places.take_in(1) && !places.take_in(1));
        places.leave();
        assert!(places.take_in(1));
    }

    #[test]
    fn all_threads_of_a_process_share_its_places() {
        let elsewhere = std::thread::spawn(places).join().expect("it only asks");
        assert!(std::ptr::eq(places(), elsewhere));
        assert!(places().most as usize <= oxgang_os::cpus::usable());
    }
}
