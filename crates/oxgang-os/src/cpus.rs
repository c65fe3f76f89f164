//! How many CPUs this process may use.

/// CPUs by affinity and cgroup quota, at least one.
#[must_use]
pub fn usable() -> usize {
    // the standard library reads both the affinity mask and the cgroup's quota
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
