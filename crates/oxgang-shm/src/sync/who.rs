//! A thread of a process in one word, beside two bits of state.
//!
//! | bits | hold |
//! |---|---|
//! | 0–1 | state, by whoever uses the word |
//! | 2–23 | thread, as the kernel numbers it; 0: the process as such |
//! | 24–45 | process |
//! | 46–63 | when the process started, in the kernel's ticks, the low 18 bits; 0: not known |
//!
//! The kernel's process numbers have at most 22 bits. A number is given away again only after all
//! others were, and 18 bits of hundredths of a second come round after 43 minutes: taking a
//! stranger for a dead owner's process needs both to meet in the same hundredth. Even then nothing
//! is damaged; the stranger is waited for as if it were the owner.

use std::fmt;

const NUMBER: u64 = (1 << 22) - 1;
const START: u64 = (1 << 18) - 1;

/// The bits of a word that are not part of a name.
pub const STATE: u64 = 3;

/// A thread of a process, or a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Who(u64);

impl Who {
    /// A thread of the process with this number, which started at this tick.
    #[must_use]
    pub fn new(process: u32, start: u64, thread: u32) -> Self {
        let start = match start {
            0 => 0,
            // 0 says that it is not known
            known => (known & START).max(1),
        };
        let (process, thread) = (u64::from(process) & NUMBER, u64::from(thread) & NUMBER);
        Self(start << 46 | process << 24 | thread << 2)
    }

    /// The name in a word, without the word's state.
    #[must_use]
    pub fn of(word: u64) -> Self {
        Self(word & !STATE)
    }

    /// A word with this name and a state.
    #[must_use]
    pub fn with(self, state: u64) -> u64 {
        self.0 | state
    }

    /// The process, whichever thread.
    #[must_use]
    pub fn process(self) -> Self {
        Self(self.0 & !(NUMBER << 2 | STATE))
    }

    /// Whether both are threads of one process, or it itself.
    #[must_use]
    pub fn same_process(self, other: Self) -> bool {
        self.process() == other.process()
    }

    /// The process's number.
    #[must_use]
    pub fn pid(self) -> u32 {
        (self.0 >> 24 & NUMBER) as u32
    }

    /// The thread's number; 0 if a process is meant.
    #[must_use]
    pub fn tid(self) -> u32 {
        (self.0 >> 2 & NUMBER) as u32
    }

    /// What is known of the tick at which the process started; 0: nothing.
    #[must_use]
    pub fn start(self) -> u64 {
        self.0 >> 46
    }

    /// Whether this is what is known of a process that started at `tick`.
    #[must_use]
    pub fn started_at(self, tick: u64) -> bool {
        self.start() == 0 || Self::new(0, tick, 0).start() == self.start()
    }

    /// Whether anybody is named at all.
    #[must_use]
    pub fn is_somebody(self) -> bool {
        self.pid() != 0
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Who({}.{} @{})", self.pid(), self.tid(), self.start())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_lost(pid in 1_u32..1 << 22, start in 1_u64..1 << 50, tid in 0_u32..1 << 22) {
            let who = Who::new(pid, start, tid);
            prop_assert_eq!((who.pid(), who.tid()), (pid, tid));
            prop_assert!(who.started_at(start));
            prop_assert!(who.start() != 0);
            for state in 0..4 {
                prop_assert_eq!(Who::of(who.with(state)), who);
            }
            prop_assert_eq!(who.process(), Who::new(pid, start, 0));
            prop_assert!(Who::new(pid, 0, tid).started_at(start), "nothing known against it");
        }
    }

    #[test]
    fn another_start_is_another_process() {
        let who = Who::new(7, 1000, 7);
        assert!(!who.started_at(1001));
        assert!(!who.same_process(Who::new(7, 1001, 7)));
        assert!(!Who::of(0).is_somebody());
    }
}
