//! Where the two leaves meet: shared structures over mapped memory. (Blocks are in `store`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use oxgang_os::segment::Mapping;
use oxgang_shm::words::Words;

/// Mapped memory as words.
#[derive(Debug, Clone)]
pub struct Mapped(Arc<Mapping>);

impl Mapped {
    /// The words of a mapping.
    #[must_use]
    pub fn new(mapping: Mapping) -> Self {
        Self(Arc::new(mapping))
    }

    /// The mapping itself.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.0
    }

    /// What a futex waits on for the word at `at`.
    #[must_use]
    pub fn futex_word(&self, at: usize) -> &AtomicU32 {
        self.0.futex_word(at)
    }
}

impl Words for Mapped {
    fn len(&self) -> usize {
        self.0.length()
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0.word(at).load(order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0.word(at).store(value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> std::result::Result<u64, u64> {
        self.0.word(at).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.0.word(at).fetch_add(by, Ordering::AcqRel)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.write(at, bytes);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        self.0.read(at, into);
    }
}
