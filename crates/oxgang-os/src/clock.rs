//! The monotonic clock as a number that processes can compare.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock: the same in every process of this machine.
#[must_use]
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // since the machine's start: not negative, and not beyond 584 years
    (now.tv_sec as u64).saturating_mul(1_000_000_000) + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_does_not_go_back() {
        let (one, other) = (super::now(), super::now());
        assert!(0 < one && one <= other);
    }
}
