//! Where a queue's words are, and how a side's record is read and committed.
//!
//! | offset | holds |
//! |---|---|
//! | 0 | most messages (0: any number), limit in bytes (0: none), bytes of the first ring, rings, slots |
//! | 128 | senders: lock, turn, two records |
//! | 256 | receivers: the same |
//! | 384 | bells of those who wait for a message, for room, for the end; each with its sleepers |
//! | 512 | done, shut, slack |
//! | 640 | token: lock, state, watchers; when whoever spins will have stopped; who rests, rung |
//! | 768 | for each ring, one more than the number of the move that entered it |
//! | 896 | the shelf, if there is one: see [`shelf`](super::shelf) |
//!
//! A record is three words: ring (8 bits) and bytes that went through it since it was entered, number
//! of moves, number of messages. Readers of the other side's record read the turn, the record, and the
//! turn again: while the turn stands, nobody writes the record that it names.

use std::io::{Error, Result};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::shelf::{MOST_SLOTS, head_bytes};
use super::{Queue, Rings};
use crate::{Corrupt, Words};

const MOST: usize = 0;
const LIMIT: usize = 8;
const FIRST: usize = 16;
const COUNT_OF_RINGS: usize = 24;
const SLOTS: usize = 32;

pub(super) const TAIL: usize = 128;
pub(super) const HEAD: usize = 256;
const TURN: usize = 24;
const RECORDS: usize = 32;
const RECORD_BYTES: usize = 24;

pub(super) const GET_BELL: usize = 384;
pub(super) const PUT_BELL: usize = 400;
pub(super) const END_BELL: usize = 416;

pub(super) const DONE: usize = 512;
pub(super) const SHUT: usize = 520;
pub(super) const SLACK: usize = 528;

pub(super) const TOKEN_LOCK: usize = 640;
pub(super) const TOKEN: usize = 664;
pub(super) const WATCHERS: usize = 672;
pub(super) const SPINNER: usize = 680;
pub(super) const RESTING: usize = 688;
pub(super) const RUNG: usize = 696;

const ENTERED: usize = 768;
const MOST_RINGS: u32 = 16;

/// Bytes of a queue's head without slots.
pub const HEAD_BYTES: usize = ENTERED + MOST_RINGS as usize * 8;

/// Rings from this number on are not kept warm: their memory goes back when they are empty.
pub const LONG: u32 = 5;

/// Rings from this number on are entered for a backlog only after a moment's wait: new memory costs
/// more than the time in which receivers may make room.
pub(super) const DEAR: u32 = 3;

pub(super) const FRAME: usize = 8;
pub(super) const KIND_BITS: u32 = 8;
pub(super) const MESSAGE: u64 = 1;
pub(super) const PAD: u64 = 2;
pub(super) const MOVED: u64 = 3;
/// A message with a parcel, which its first word names.
pub(super) const WITH_PARCEL: u64 = 4;
pub(super) const NAME: usize = 8;

pub(super) fn frame(kind: u64, number: usize) -> u64 {
    kind | (number as u64) << KIND_BITS
}

pub(super) fn frame_size(length: usize) -> usize {
    FRAME + length.next_multiple_of(8)
}

/// What a queue is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The most messages at a time; 0: any number.
    pub most: u64,
    /// Where it stops to grow, in bytes, unless it is empty; 0: nowhere.
    pub limit: usize,
    /// Bytes of the first ring: a power of two.
    pub first: usize,
    /// How many rings, 16 at most.
    pub rings: u32,
    /// How many slots for long bytes.
    pub slots: u32,
}

impl Shape {
    /// Bytes of the ring with this number.
    #[must_use]
    pub fn bytes(&self, number: u32) -> usize {
        self.first << (2 * number)
    }

    /// Bytes of all rings before it.
    #[must_use]
    pub fn bytes_before(&self, number: u32) -> usize {
        self.first * (((1_usize << (2 * number)) - 1) / 3)
    }

    pub(super) fn write<W: Words>(&self, words: &W, at: usize) {
        words.store(at + MOST, self.most, Relaxed);
        words.store(at + LIMIT, self.limit as u64, Relaxed);
        words.store(at + COUNT_OF_RINGS, self.rings.into(), Relaxed);
        words.store(at + SLOTS, self.slots.into(), Relaxed);
        words.store(at + ENTERED, 1, Relaxed);
        words.store(at + FIRST, self.first as u64, Release);
    }

    pub(super) fn read<W: Words>(words: &W, at: usize) -> Result<Self> {
        let number = |word: usize| words.load(at + word, Acquire);
        let (first, rings, slots) = (number(FIRST), number(COUNT_OF_RINGS), number(SLOTS));
        let whole = first.is_power_of_two()
            && (64..=1 << 24).contains(&first)
            && (1..=u64::from(MOST_RINGS)).contains(&rings)
            && slots <= u64::from(MOST_SLOTS)
            && at + head_bytes(slots as u32) <= words.len();
        let limit = usize::try_from(number(LIMIT));
        match limit {
            Ok(limit) if whole => {
                let (first, rings, slots) = (first as usize, rings as u32, slots as u32);
                Ok(Self { most: number(MOST), limit, first, rings, slots })
            }
            _ => Err(Error::other(Corrupt("no queue, or one of another version of oxgang"))),
        }
    }
}

/// What a side has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// The ring that it is in.
    pub ring: u32,
    /// Bytes that it has passed there.
    pub bytes: u64,
    /// Moves from ring to ring.
    pub moves: u64,
    /// Messages.
    pub count: u64,
}

const RING_SHIFT: u32 = 56;

impl Record {
    /// Where in its ring the side is.
    pub fn place(&self, capacity: usize) -> usize {
        self.bytes as usize & (capacity - 1)
    }

    pub fn further(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.wrapping_add(bytes), ..self }
    }

    pub fn moved(self, ring: u32) -> Self {
        Self { ring, bytes: 0, moves: self.moves.wrapping_add(1), ..self }
    }
}

impl<W: Words + Clone, R: Rings> Queue<W, R> {
    fn record(&self, side: usize, turn: u64) -> (u64, u64, u64) {
        let at = self.at + side + RECORDS + (turn & 1) as usize * RECORD_BYTES;
        // acquired, so that the second look at the turn is not made before
        let word = |number: usize| self.words.load(at + number * 8, Acquire);
        (word(0), word(1), word(2))
    }

    fn checked(&self, (place, moves, count): (u64, u64, u64)) -> Result<Record> {
        let ring = (place >> RING_SHIFT) as u32;
        let bytes = place & ((1 << RING_SHIFT) - 1);
        if ring >= self.shape.rings || !bytes.is_multiple_of(8) {
            return Err(Error::other(Corrupt("a place outside of the rings")));
        }
        Ok(Record { ring, bytes, moves, count })
    }

    /// A side's record, under its lock.
    pub(super) fn own(&self, side: usize) -> Result<Record> {
        let turn = self.words.load(self.at + side + TURN, Relaxed);
        self.checked(self.record(side, turn))
    }

    /// A side's record as it is at some moment of this call.
    pub(super) fn look(&self, side: usize) -> Result<Record> {
        loop {
            // sync: commit(turn) -> look(turn)
            let turn = self.words.load(self.at + side + TURN, Acquire);
            let record = self.record(side, turn);
            if self.words.load(self.at + side + TURN, Relaxed) == turn {
                return self.checked(record);
            }
        }
    }

    /// The turn of a side: it changes with every commit.
    pub(super) fn turn(&self, side: usize) -> u64 {
        self.words.load(self.at + side + TURN, Acquire)
    }

    /// Under the side's lock: from now on this is its record.
    pub(super) fn commit(&self, side: usize, record: &Record) {
        let turn = self.words.load(self.at + side + TURN, Relaxed).wrapping_add(1);
        let at = self.at + side + RECORDS + (turn & 1) as usize * RECORD_BYTES;
        let place = u64::from(record.ring) << RING_SHIFT | record.bytes;
        for (number, word) in [place, record.moves, record.count].into_iter().enumerate() {
            // released, so that who sees it sees the turn before it too
            self.words.store(at + number * 8, word, Release);
        }
        // sync: commit(turn) -> look(turn); what was written or read before is over
        self.words.store(self.at + side + TURN, turn, Release);
    }

    pub(super) fn entered_at(&self, number: u32) -> usize {
        self.at + ENTERED + number as usize * 8
    }
}
