//! Where the objects of a segment lie.
//!
//! | offset | holds |
//! |---|---|
//! | 0 | `MAGIC`, with the version of this layout |
//! | 8 | serial number that its creator drew, so that no other segment is taken for it |
//! | 16 | high mark of the nodes |
//! | 24 | how many handles that the maker sent have arrived; see `oxgang::sync` |
//! | 32 | number of the process that made it |
//! | 128 | slots, of 64 bytes; the first one is number 1 |
//! | behind | nodes |
//!
//! A primitive lies at the start of its slot; the last two words are a number that its users need,
//! which never changes, and its kind.
//!
//! Which slots are taken is known to the creator alone, in memory of its own. Nobody else makes
//! objects in a segment, so there is no shared list that a death could tear.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::nodes::{NODE_BYTES, Nodes};
use crate::{Corrupt, Words};

const MAGIC: u64 = 0x6f78_6c6f_636b_0001; // "oxlock", version 1
const SERIAL: usize = 8;
const MARK: usize = 16;
const ARRIVED: usize = 24;
const MAKER: usize = 32;
const CONSTANT: usize = 48;
const KIND: usize = 56;
const SLOTS_AT: usize = 128;

/// What a slot may hold: its kind.
pub const LOCK: u64 = 1;
/// A [`Semaphore`](super::semaphore::Semaphore).
pub const SEMAPHORE: u64 = 2;
/// An [`Event`](super::event::Event).
pub const EVENT: u64 = 3;
/// A [`Condition`](super::condition::Condition).
pub const CONDITION: u64 = 4;
/// A [`Barrier`](super::barrier::Barrier).
pub const BARRIER: u64 = 5;

/// Bytes of a slot. Any primitive fits.
pub const SLOT_BYTES: usize = 64;
/// Slots of a segment.
pub const SLOTS: u32 = 510;
/// Nodes of a segment.
pub const NODES: u32 = 2048;
/// Bytes of a segment.
pub const SEGMENT_BYTES: usize =
    (SLOTS_AT + SLOTS as usize * SLOT_BYTES + NODES as usize * NODE_BYTES).next_multiple_of(4096);

/// Makes zeroed memory a segment of process `maker`.
pub fn create<W: Words>(words: &W, serial: u64, maker: u32) {
    words.store(SERIAL, serial, Relaxed);
    words.store(MAKER, maker.into(), Relaxed);
    words.store(0, MAGIC, Release);
}

/// Checks that this memory is the segment with this serial number.
///
/// # Errors
/// If it is another one, or none, or of another version.
pub fn check<W: Words>(words: &W, serial: u64) -> Result<(), Corrupt> {
    if words.len() < SEGMENT_BYTES || words.load(0, Acquire) != MAGIC {
        return Err(Corrupt("not a segment of locks, or one of another version of oxgang"));
    }
    if words.load(SERIAL, Relaxed) != serial {
        return Err(Corrupt("a segment of locks, but another one"));
    }
    Ok(())
}

/// A handle has arrived that process `sender` sent.
pub fn note_arrival<W: Words>(words: &W, sender: u32) {
    if words.load(MAKER, Relaxed) == u64::from(sender) {
        words.fetch_add(ARRIVED, 1);
    }
}

/// How many handles have arrived that the maker sent.
pub fn arrivals<W: Words>(words: &W) -> u64 {
    words.load(ARRIVED, Acquire)
}

/// Empties a slot that nobody uses, and writes down what it will hold.
pub fn set_up<W: Words>(words: &W, at: usize, kind: u64, constant: u64) {
    for word in (0..SLOT_BYTES).step_by(8) {
        words.store(at + word, 0, Relaxed);
    }
    words.store(at + CONSTANT, constant, Relaxed);
    words.store(at + KIND, kind, Release);
}

/// The constant of a slot of this kind.
///
/// # Errors
/// If something else is there.
pub fn constant<W: Words>(words: &W, at: usize, kind: u64) -> Result<u64, Corrupt> {
    if words.load(at + KIND, Acquire) != kind {
        return Err(Corrupt("the slot holds something else than what was sent"));
    }
    Ok(words.load(at + CONSTANT, Relaxed))
}

/// The kind of what a slot holds.
pub fn kind<W: Words>(words: &W, at: usize) -> u64 {
    words.load(at + KIND, Acquire)
}

/// Where slot `number` lies; `None`: there is no such slot.
#[must_use]
pub fn slot(number: u32) -> Option<usize> {
    (1..=SLOTS).contains(&number).then(|| SLOTS_AT + (number as usize - 1) * SLOT_BYTES)
}

/// The table of nodes.
pub fn nodes<W: Words>(words: W) -> Nodes<W> {
    Nodes::new(words, MARK, SLOTS_AT + SLOTS as usize * SLOT_BYTES, NODES)
}
