//! Memory that lets its user do so many steps and no more: every load, store and word of a copy is
//! one. The user dies by a panic.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oxgang_shm::{HeapWords, Words};

/// What one who has died panics with.
struct Died;

/// Memory for one who dies.
#[derive(Clone)]
pub struct Mortal {
    memory: Arc<HeapWords>,
    steps_left: Arc<AtomicUsize>,
}

impl Mortal {
    fn step(&self) {
        if self.steps_left.fetch_sub(1, Ordering::Relaxed) == 0 {
            panic_any(Died);
        }
    }
}

impl Words for Mortal {
    fn len(&self) -> usize {
        self.memory.len()
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.step();
        self.memory.load(at, order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.step();
        self.memory.store(at, value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.step();
        self.memory.compare_exchange(at, current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.step();
        self.memory.fetch_add(at, by)
    }
    fn fence(&self) {
        self.memory.fence();
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        for (index, word) in bytes.chunks(8).enumerate() {
            self.step();
            self.memory.write(at + index * 8, word);
        }
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        for (index, word) in into.chunks_mut(8).enumerate() {
            self.step();
            self.memory.read(at + index * 8, word);
        }
    }
}

/// Lets `live` do so many steps; `false` if it came to its natural end within them.
pub fn after(steps: usize, memory: Arc<HeapWords>, live: impl FnOnce(Mortal)) -> bool {
    let mortal = Mortal { memory, steps_left: Arc::new(AtomicUsize::new(steps)) };
    match catch_unwind(AssertUnwindSafe(|| live(mortal))) {
        Ok(()) => false,
        Err(cause) if cause.is::<Died>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

/// Deaths are nothing to print.
pub fn quietly() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Died>() {
            eprintln!("{info}");
        }
    }));
}
