//! Long bytes of messages, apart from the rings: a shelf of slots.
//!
//! A *slot* is a place of the queue's file with no end to it, so that any bytes fit. Bytes on their
//! way in a slot are a *parcel*; the message in the ring names the slot and how many they are. Who
//! receives looks at them where they are, for as long as it likes. A slot is free when no message
//! in the queue names it and nobody *holds* it: holding is the kernel's affair (a lock on a part
//! of the file, which goes with the last descriptor and the last mapping of the holder, however it
//! ends), and being named is two numbers. So there are no books of who looks at what, and nothing
//! to repair.
//!
//! | word of a slot | holds | written by |
//! |---|---|---|
//! | number | one more than the count of messages before the one that names it; 0: none ever did | senders, under their lock |
//! | bytes | how many are its parcel | the same |
//! | warm | up to where it may have memory | who holds it alone |
//!
//! Two more words: *last*, the highest number of all, and *count*, how many parcels there were.
//!
//! | step | by | a death after it |
//! |---|---|---|
//! | holds a free slot alone | sender, without a lock of the queue's | the kernel lets go: it is free as before |
//! | looks once more whether it is free | the same | the same |
//! | writes *warm*, then the bytes | the same | the same; the next one writes over them |
//! | holds it beside others | sender | the kernel lets go: it is free as before |
//! | *bytes*, *number*, *last*, *count* | sender, under its lock | it passes for named until the next message has been received, in whose place it stood |
//! | the message, committed | the same | sent; the number keeps the slot |
//! | lets go | sender | – |
//! | holds it beside others, and looks at it | receiver, under its lock, before the commit | the kernel lets go; the message is there |
//! | the message, received | the same | the kernel lets go: it is free |
//! | has looked enough | receiver | – |
//!
//! A receiver that cannot hold a slot copies the bytes before it commits. That is always right, also
//! if it cannot because a sender has just taken hold of the slot: that sender has yet to look once
//! more, and finds it named.
//!
//! A sender that is about to send holds its slot beside others: whoever receives may be quicker than
//! it is in letting go.
//!
//! sync: the kernel's lock is the order between a sender that lets go and the next that takes hold: what
//! the first has stored the second sees.

use std::io::Result;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::layout::{HEAD, HEAD_BYTES, Record};
use super::{Queue, Rings};
use crate::Words;

const LAST: usize = HEAD_BYTES;
const COUNT: usize = LAST + 8;
const FIRST: usize = COUNT + 8;
const SLOT_BYTES: usize = 24;
const NUMBER: usize = 0;
const BYTES: usize = 8;
const WARM: usize = 16;

/// The most slots.
pub const MOST_SLOTS: u32 = 1 << 12;
const SLOT_BITS: u32 = 12;

/// Bytes of a queue's head with so many slots.
#[must_use]
pub const fn head_bytes(slots: u32) -> usize {
    if slots == 0 { HEAD_BYTES } else { FIRST + slots as usize * SLOT_BYTES }
}

/// Bytes that go apart from their message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel {
    /// The slot that they are in.
    pub slot: u32,
    /// How many: at least one.
    pub bytes: u64,
}

impl Parcel {
    pub(super) fn to_word(self) -> u64 {
        u64::from(self.slot) | self.bytes << SLOT_BITS
    }

    /// What a word says, if that is a parcel in one of so many slots.
    pub(super) fn from_word(word: u64, slots: u32) -> Option<Self> {
        let slot = (word & u64::from(MOST_SLOTS - 1)) as u32;
        let bytes = word >> SLOT_BITS;
        (slot < slots && bytes > 0).then_some(Self { slot, bytes })
    }
}

/// How many slots that nobody names are found held before one is taken that never was.
const TRIES: usize = 24;

/// Who asks the kernel for slots.
pub trait Holds {
    /// Holds a slot alone, if nobody holds it.
    ///
    /// # Errors
    /// If the kernel refuses to answer.
    fn try_hold(&self, slot: u32) -> Result<bool>;

    /// Holds it no more.
    ///
    /// # Errors
    /// As [`try_hold`](Self::try_hold).
    fn let_go(&self, slot: u32) -> Result<()>;
}

/// A slot that no message names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unnamed {
    /// Which one.
    pub slot: u32,
    /// Up to where it may have memory.
    pub warm: u64,
    /// Whether any message ever named it: if not, nobody looks at it.
    pub used: bool,
}

impl Unnamed {
    /// The order in which to try slots for so many bytes: the smallest of those that are warm
    /// enough, then the warmest; those that were never used come last.
    #[must_use]
    pub fn rank(&self, bytes: u64) -> (u64, u64) {
        if self.warm >= bytes { (0, self.warm) } else { (1, u64::MAX - self.warm) }
    }
}

/// Holds the first free one of these slots, for so many bytes: `hold` says whether it could.
///
/// # Errors
/// As `hold`.
pub fn first_free<T>(
    mut slots: Vec<Unnamed>,
    bytes: u64,
    mut hold: impl FnMut(Unnamed) -> Result<Option<T>>,
) -> Result<Option<T>> {
    slots.sort_by_key(|slot| slot.rank(bytes));
    let mut tried = 0;
    for found in slots {
        tried += usize::from(found.used);
        if !found.used || tried <= TRIES {
            let held = hold(found)?;
            if held.is_some() {
                return Ok(held);
            }
        }
    }
    Ok(None)
}

impl<W: Words + Clone, R: Rings> Queue<W, R> {
    fn slot_at(&self, slot: u32) -> usize {
        assert!(slot < self.shape().slots, "no slot {slot}");
        self.at + FIRST + slot as usize * SLOT_BYTES
    }

    /// The slots that no message in the queue names. Somebody may hold them.
    pub fn unnamed(&self) -> impl Iterator<Item = Unnamed> + '_ {
        let received = self.look(HEAD).map(|head| head.count);
        let slots = if received.is_ok() { self.shape().slots } else { 0 };
        let received = received.unwrap_or(0);
        (0..slots).filter_map(move |slot| self.slot(slot, received))
    }

    /// Holds a free slot for so many bytes; `None` if there is none, or most are held.
    ///
    /// # Errors
    /// As `holds`.
    pub fn hold_free(&self, bytes: u64, holds: &impl Holds) -> Result<Option<Unnamed>> {
        first_free(self.unnamed().collect(), bytes, |found| self.hold_if_free(found.slot, holds))
    }

    /// Holds a slot if it is free: the slot as it is from then on.
    ///
    /// # Errors
    /// As `holds`.
    pub fn hold_if_free(&self, slot: u32, holds: &impl Holds) -> Result<Option<Unnamed>> {
        if !holds.try_hold(slot)? {
            return Ok(None);
        }
        let received = self.look(HEAD)?.count;
        let found = self.slot(slot, received);
        if found.is_none() {
            // another sender was quicker, and has sent already
            holds.let_go(slot)?;
        }
        Ok(found)
    }

    /// A slot, unless a message in the queue names it, of which so many were received.
    fn slot(&self, slot: u32, received: u64) -> Option<Unnamed> {
        let at = self.slot_at(slot);
        let number = self.words.load(at + NUMBER, Acquire);
        let warm = self.words.load(at + WARM, Relaxed);
        (number <= received).then_some(Unnamed { slot, warm, used: number > 0 })
    }

    /// How many parcels there were so far, or nearly so.
    #[must_use]
    pub fn parcels(&self) -> u64 {
        if self.shape().slots == 0 { 0 } else { self.words.load(self.at + COUNT, Relaxed) }
    }

    /// Up to where the slot may have memory from now on. For who holds it alone, before it writes
    /// there, or after it has given memory back.
    pub fn note_warm(&self, slot: u32, bytes: u64) {
        self.words.store(self.slot_at(slot) + WARM, bytes, Relaxed);
    }

    /// Under the senders' lock: the message that comes next names the parcel.
    pub(super) fn name(&self, parcel: Parcel, tail: &Record) {
        let (at, number) = (self.slot_at(parcel.slot), tail.count.wrapping_add(1));
        self.words.store(at + BYTES, parcel.bytes, Relaxed);
        self.words.store(at + NUMBER, number, Release);
        self.words.store(self.at + LAST, number, Release);
        self.words.store(self.at + COUNT, self.parcels().wrapping_add(1), Relaxed);
    }

    /// Bytes of parcels that messages in the queue name.
    pub(super) fn on_the_shelf(&self, head: &Record) -> u64 {
        let slots = self.shape().slots;
        if slots == 0 || self.words.load(self.at + LAST, Acquire) <= head.count {
            return 0;
        }
        let named = (0..slots).filter_map(|slot| {
            let at = self.slot_at(slot);
            let number = self.words.load(at + NUMBER, Acquire);
            (number > head.count).then(|| self.words.load(at + BYTES, Relaxed))
        });
        named.fold(0, u64::saturating_add)
    }
}
