//! The one door to shared memory: atomic words by offset, and a byte window beside them.
//!
//! Loom's atomics are not plain words, and a dying process is easiest to play by counting
//! its steps; so the protocols never hold a reference into memory, they ask for each step
//! by offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A run of memory that others may be using at the same time.
///
/// Word offsets are in bytes and multiples of 8. An offset outside of the memory is a bug
/// of the caller, and panics: offsets that come from the memory itself are checked before.
pub trait Words {
    /// Size in bytes.
    fn len(&self) -> usize;

    /// Whether there is no memory at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a word.
    fn load(&self, at: usize, order: Ordering) -> u64;

    /// Writes a word.
    fn store(&self, at: usize, value: u64, order: Ordering);

    /// Replaces `current` by `new` (acquire and release), or says what was there instead.
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64>;

    /// Adds to a word (acquire and release), giving what was there before.
    fn fetch_add(&self, at: usize, by: u64) -> u64;

    /// A sequentially consistent fence: a store before it is seen by whoever stores and
    /// fences before loading. Waking and falling asleep rest on it.
    fn fence(&self);

    /// Copies bytes in. Nobody else may be promised these bytes yet.
    fn write(&self, at: usize, bytes: &[u8]);

    /// Copies bytes out.
    fn read(&self, at: usize, into: &mut [u8]);
}

impl<W: Words + ?Sized> Words for Arc<W> {
    fn len(&self) -> usize {
        (**self).len()
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        (**self).load(at, order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        (**self).store(at, value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        (**self).compare_exchange(at, current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        (**self).fetch_add(at, by)
    }
    fn fence(&self) {
        (**self).fence();
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        (**self).write(at, bytes);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        (**self).read(at, into);
    }
}

/// Memory of this process alone: for tests, and for protocols between threads.
#[derive(Debug)]
pub struct HeapWords(Vec<AtomicU64>);

impl HeapWords {
    /// Zeroed memory of `bytes`, rounded up to whole words.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self((0..bytes.div_ceil(8)).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8), "word offset {at} is not a multiple of 8");
        &self.0[at / 8]
    }
}

impl Words for HeapWords {
    fn len(&self) -> usize {
        self.0.len() * 8
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.word(at).load(order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.word(at).store(value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.word(at).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.word(at).fetch_add(by, Ordering::AcqRel)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        write_by_words(
            at,
            bytes,
            |at, value| self.word(at).store(value, Ordering::Relaxed),
            |at| self.word(at).load(Ordering::Relaxed),
        );
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        read_by_words(at, into, |at| self.word(at).load(Ordering::Relaxed));
    }
}

/// Writes bytes through word-sized stores, for memories that have nothing smaller.
pub fn write_by_words(
    at: usize,
    bytes: &[u8],
    store: impl Fn(usize, u64),
    load: impl Fn(usize) -> u64,
) {
    let mut done = 0;
    while done < bytes.len() {
        let word = (at + done) / 8 * 8;
        let from = (at + done) - word;
        let count = (8 - from).min(bytes.len() - done);
        let mut value = if count == 8 { [0; 8] } else { load(word).to_le_bytes() };
        value[from..from + count].copy_from_slice(&bytes[done..done + count]);
        store(word, u64::from_le_bytes(value));
        done += count;
    }
}

/// Reads bytes through word-sized loads.
pub fn read_by_words(at: usize, into: &mut [u8], load: impl Fn(usize) -> u64) {
    let mut done = 0;
    while done < into.len() {
        let word = (at + done) / 8 * 8;
        let from = (at + done) - word;
        let count = (8 - from).min(into.len() - done);
        let value = load(word).to_le_bytes();
        into[done..done + count].copy_from_slice(&value[from..from + count]);
        done += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_at_any_offset() {
        let words = HeapWords::new(64);
        for at in 0..20 {
            let bytes: Vec<u8> = (0..23).map(|i| i + at as u8).collect();
            words.write(at, &bytes);
            let mut back = vec![0; 23];
            words.read(at, &mut back);
            assert_eq!(back, bytes);
        }
    }
}
