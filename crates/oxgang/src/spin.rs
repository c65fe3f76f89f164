//! When to spin before sleeping.
//!
//! A wake-up across CPUs costs 15 µs and more, so a short spin pays where the answer comes
//! soon and a CPU is free, and is pure loss elsewhere. Three guards: a place among the pool's
//! spinners (no more than CPUs), a budget per wait that is longer than one wake-up (a shorter
//! one never wins), and a memory of misses that makes the next spins rarer.

use std::time::{Duration, Instant};

use oxgang_shm::Words;
use oxgang_shm::watch::Watch;

/// Rounds of looking between two readings of the clock.
const ROUNDS: u32 = 32;
/// After many misses in a row one wait in this many still tries.
const RAREST: u32 = 64;

#[derive(Debug, Clone)]
pub(crate) struct Spinner {
    budget: Duration,
    misses: u32,
    skipped: u32,
}

/// The budget: `OXGANG_SPIN` in microseconds, 40 if it is not set; 0 never spins.
pub(crate) fn budget() -> Duration {
    let set = std::env::var("OXGANG_SPIN").ok().and_then(|text| text.parse().ok());
    Duration::from_micros(set.unwrap_or(40))
}

impl Spinner {
    pub fn new(budget: Duration) -> Self {
        Self { budget, misses: 0, skipped: 0 }
    }

    /// Looks until `found` or the budget is spent; `true` if it was found.
    pub fn spin<W: Words>(&mut self, watch: &Watch<W>, mut found: impl FnMut() -> bool) -> bool {
        if self.budget.is_zero() || self.sits_out() || !watch.start_spinning() {
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
        watch.stop_spinning();
        self.misses = if won { 0 } else { self.misses + 1 };
        won
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
