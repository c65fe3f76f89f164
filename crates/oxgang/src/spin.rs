//! When to spin before sleeping.
//!
//! A wake-up across CPUs costs 15 µs and more, so a short spin pays where the answer comes
//! soon and a CPU is free, and is pure loss elsewhere. Three guards: a place among the pool's
//! spinners (no more than CPUs), a budget per wait that is longer than one wake-up (a shorter
//! one never wins), and a memory of misses that makes the next spins rarer.

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use oxgang_shm::Words;
use oxgang_shm::watch::Watch;

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
#[derive(Debug)]
pub struct OwnPlaces {
    taken: AtomicUsize,
    most: usize,
}

impl OwnPlaces {
    /// As many as there are CPUs; none where there is only one.
    #[must_use]
    pub fn new() -> Self {
        let cpus = oxgang_os::cpus::usable();
        Self { taken: AtomicUsize::new(0), most: if cpus > 1 { cpus } else { 0 } }
    }
}

impl Default for OwnPlaces {
    fn default() -> Self {
        Self::new()
    }
}

impl Places for OwnPlaces {
    fn take(&self) -> bool {
        let free = self.taken.load(Relaxed) < self.most;
        if free {
            self.taken.fetch_add(1, Relaxed);
        }
        free
    }
    fn leave(&self) {
        self.taken.fetch_sub(1, Relaxed);
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
