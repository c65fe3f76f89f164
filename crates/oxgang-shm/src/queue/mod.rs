//! Messages from many senders to many receivers, whole and in order, through rings of bytes.
//!
//! Senders exclude each other by one lock, receivers by another; both are robust
//! ([`Lock`](crate::sync::lock::Lock)), so any of them may be killed at any instruction. A sender and
//! a receiver never wait for each other but for room or for a message.
//!
//! | module | holds |
//! |---|---|
//! | [`layout`] | where the words are; a side's *record* and how it is committed |
//! | this one | sending and receiving, waiting for either, growing and shrinking |
//! | [`count`] | how many there are, which are done, and that no more shall come |
//! | [`shelf`] | long bytes apart from the rings, which a receiver looks at where they are |
//! | [`token`] | a descriptor that is readable while there is something to receive |
//!
//! # Records
//!
//! What a side has done is one record: in which ring it is and how far, how many moves from ring
//! to ring led there, how many messages went through. A side has two places for it and a *turn*
//! that says which of them counts. A change is written into the other place and committed by one
//! store of the turn. So the three numbers change together, and a holder that dies has committed,
//! or nothing has happened; there is no journal and nothing to repair.
//!
//! | step of a sender, under its lock | a death after it |
//! |---|---|
//! | lock taken | the heir finds the record as it was |
//! | frame, pad, marker, note of a ring entered | the same: what lies beyond the tail does not exist |
//! | the other record | the same |
//! | turn | the message is there; whoever sleeps finds it when a slice of the sleep ends |
//! | lock given back, sleeper woken | sent |
//!
//! A receiver copies the frame first and commits then: one that dies before leaves the message to
//! the next, one that dies after has received it.
//!
//! # Rings
//!
//! A queue has up to [`Shape::rings`] rings, each four times as long as the one before it; the memory
//! of those that were never needed does not exist. A sender whose message does not fit into the
//! ring leaves a marker there, goes on in another one that is not in use, and the receivers
//! follow when they come to the marker. When a receiver has emptied a long ring ([`LONG`]), it leads
//! both sides back into the first, under both locks, and gives the memory back.
//!
//! A ring is *in use* from the move that entered it until the receivers have made the next one.
//! Both are numbered: ring k is in use if it was entered by a move that the senders have made,
//! and not left by one that the receivers have.
//!
//! # Frames
//!
//! One word (kind, and length above 8 bits), then the bytes, to a multiple of 8. A frame
//! never wraps: what is left at the end of a ring is skipped by a pad. A word of each ring
//! stays free for the marker. The frame of a message with a parcel has a word more, which names it.
//!
//! # Waiting
//!
//! Who waits for a message (or for room) reads a *bell*, counts itself among the sleepers, fences,
//! looks once more, and sleeps while the bell shows what it read. Who has sent (or received)
//! fences, and moves the bell on and wakes one sleeper if there is any. One of the two fences
//! comes first: either the sleeper sees the message or the sender the sleeper. Somebody who dies
//! asleep stays in the count, which costs a wake-up in vain for each message; somebody who is
//! woken and dies before it takes the message costs the next one a slice.

pub mod count;
pub mod layout;
mod load;
pub mod shelf;
pub mod token;

#[cfg(test)]
mod tests;

use std::io::{Error, Result};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::sync::lock::Lock;
use crate::sync::{Kernel, Rest, Taken, Who, low};
use crate::{Corrupt, Words};
use layout::{
    DEAR, FRAME, GET_BELL, HEAD, KIND_BITS, MESSAGE, MOVED, NAME, PAD, PUT_BELL, Record, SLACK,
    TAIL, WITH_PARCEL, frame, frame_size,
};
pub use layout::{HEAD_BYTES, LONG, Shape};
pub use load::{Load, Shown, Size};
use shelf::Parcel;

/// The rings of a queue.
pub trait Rings {
    /// Their memory.
    type Memory: Words;

    /// The ring with this number.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn ring(&self, number: u32) -> Result<Self::Memory>;

    /// Nobody needs what is in the ring with this number: its memory may go back.
    fn release(&self, number: u32);
}

/// A queue: its head, and its rings.
#[derive(Debug)]
pub struct Queue<W, R> {
    words: W,
    at: usize,
    shape: Shape,
    rings: R,
    tail: Lock<W>,
    head: Lock<W>,
}

/// How an attempt to send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the queue.
    Yes,
    /// There is no room.
    Full,
    /// There is none but in a longer ring, and that was not wanted yet.
    Tight,
    /// The queue is shut down.
    Shut,
    /// Others were sending all the time; the wait was stopped.
    Busy,
}

/// How an attempt to receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// A message.
    Message,
    /// There is one that is longer than asked for. It stays.
    Long,
    /// There is none.
    Nothing,
    /// There is none, and none will come.
    Shut,
    /// Others were receiving all the time; the wait was stopped.
    Busy,
}

/// Whom to exclude: the lock is taken now or not at all, or waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Only if nobody has it.
    None,
    /// As long as the kernel's wait lasts.
    Some,
}

/// A message's frame.
struct Frame<M> {
    ring: M,
    place: usize,
    /// Of the message, with the word that names its parcel.
    length: usize,
    parcel: Option<Parcel>,
}

fn nonsense() -> Error {
    Error::other(Corrupt("a frame that no sender writes"))
}

impl<W: Words + Clone, R: Rings> Queue<W, R> {
    /// The queue whose head is at `at` in `words`.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(words: W, at: usize, rings: R) -> Result<Self> {
        let shape = Shape::read(&words, at)?;
        let lock = |side: usize| Lock::new(words.clone(), at + side);
        let (tail, head) = (lock(TAIL), lock(HEAD));
        Ok(Self { words, at, shape, rings, tail, head })
    }

    /// Makes zeroed memory at `at` a queue without messages.
    pub fn create(words: &W, at: usize, shape: Shape) {
        shape.write(words, at);
    }

    /// How it was made.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The memory that its head is in.
    #[must_use]
    pub fn words(&self) -> &W {
        &self.words
    }

    /// Its rings.
    #[must_use]
    pub fn rings(&self) -> &R {
        &self.rings
    }

    fn enter(&self, lock: &Lock<W>, me: Who, kernel: &impl Kernel, patience: Patience) -> bool {
        if lock.try_take(me) {
            return true;
        }
        if patience == Patience::None {
            return false;
        }
        let taken = matches!(lock.take(me, kernel, false), Taken::Yes | Taken::FromDead(_));
        if taken && kernel.stopped() {
            // stopped by a signal, perhaps: then a message must not be received any more
            self.leave(lock, kernel);
            return false;
        }
        taken
    }

    fn leave(&self, lock: &Lock<W>, kernel: &impl Kernel) {
        // one that is not held any more was taken over from us as dead: not ours to give back
        let _taken_over = lock.release(kernel);
    }

    // -- sending ---------------------------------------------------------------------------

    /// Sends one message if there is room. Not `grow`: not by entering a longer ring
    /// because of a backlog, which is the dearest way to send.
    ///
    /// # Errors
    /// If there is no memory, or the queue is corrupt.
    pub fn send(
        &self,
        me: Who,
        kernel: &impl Kernel,
        patience: Patience,
        grow: bool,
        load: Load<'_>,
    ) -> Result<Sent> {
        if !self.enter(&self.tail, me, kernel, patience) {
            return Ok(Sent::Busy);
        }
        let sent = self.send_locked(load, grow);
        self.leave(&self.tail, kernel);
        if let Ok(Sent::Yes) = sent {
            self.call(GET_BELL, kernel, false);
        }
        sent
    }

    /// Sends, waiting for room as long as the kernel's wait lasts.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_in_time(&self, me: Who, kernel: &impl Kernel, load: Load<'_>) -> Result<Sent> {
        loop {
            match self.send(me, kernel, Patience::Some, true, load)? {
                Sent::Full => {}
                other => return Ok(other),
            }
            if self.rest(PUT_BELL, kernel, || self.may_send(load.size())) == Rest::Stop {
                return Ok(Sent::Full);
            }
        }
    }

    fn send_locked(&self, load: Load<'_>, grow: bool) -> Result<Sent> {
        if self.is_shut() {
            return Ok(Sent::Shut);
        }
        let (tail, head) = (self.own(TAIL)?, self.look(HEAD)?);
        let waiting = tail.count.wrapping_sub(head.count);
        if self.shape.most != 0 && waiting >= self.shape.most {
            return Ok(Sent::Full);
        }
        let Size { in_ring: length, on_shelf } = load.size();
        let size = frame_size(length);
        let ring = self.rings.ring(tail.ring)?;
        let capacity = self.shape.bytes(tail.ring);
        let (place, to_end) = (tail.place(capacity), capacity - tail.place(capacity));
        let pad = if size > to_end { to_end } else { 0 };
        let used = self.used(&tail, &head, capacity)?;
        if waiting > 0 && self.is_over(used + size, capacity, on_shelf, &head) {
            return Ok(Sent::Full);
        }
        let fits = pad + size + FRAME <= capacity - used;
        let (next, ring, place) = if fits {
            if pad > 0 {
                ring.store(place, frame(PAD, 0), Relaxed);
            }
            (tail.further((pad + size) as u64), ring, (place + pad) % capacity)
        } else {
            let Some(number) = self.free_ring(&tail, &head, size) else { return Ok(Sent::Full) };
            if !grow && number >= DEAR && number > tail.ring && size + FRAME <= capacity {
                return Ok(Sent::Tight);
            }
            let entered = self.rings.ring(number)?;
            self.words.store(self.entered_at(number), tail.moves.wrapping_add(2), Relaxed);
            ring.store(place, frame(MOVED, number as usize), Relaxed);
            (tail.moved(number).further(size as u64), entered, 0)
        };
        let mut to = place + FRAME;
        let kind = match load.parcel {
            Some(parcel) => {
                ring.store(to, parcel.to_word(), Relaxed);
                to += NAME;
                self.name(parcel, &tail);
                WITH_PARCEL
            }
            None => MESSAGE,
        };
        ring.store(place, frame(kind, length), Relaxed);
        for part in load.parts {
            ring.write(to, part);
            to += part.len();
        }
        self.commit(TAIL, &Record { count: tail.count.wrapping_add(1), ..next });
        Ok(Sent::Yes)
    }

    /// Where to go on with a frame that does not fit: a ring that is not in use, long enough that
    /// the next frames fit too.
    fn free_ring(&self, tail: &Record, head: &Record, size: usize) -> Option<u32> {
        let capacity = self.shape.bytes(tail.ring);
        let grown = if size + FRAME > capacity { 0 } else { capacity + 1 };
        let none_wait = tail.count == head.count;
        let possible = |number: &u32| {
            let bytes = self.shape.bytes(*number);
            let allowed = self.shape.limit == 0 || bytes <= self.shape.limit || none_wait;
            bytes >= size + FRAME && allowed && !self.in_use(*number, tail, head)
        };
        let all = 0..self.shape.rings;
        let roomy = |number: &u32| self.shape.bytes(*number) >= (2 * size).max(grown);
        let wished = all.clone().filter(&possible).find(roomy);
        // of a backlog that has filled them all, what is left; in an empty queue, what fits
        wished.or_else(|| all.filter(possible).find(|_| none_wait || self.shape.limit == 0))
    }

    /// Bytes of the senders' ring that are not the senders'.
    fn used(&self, tail: &Record, head: &Record, capacity: usize) -> Result<usize> {
        // the receivers have yet to come here: nothing is theirs to free
        let from = if head.moves == tail.moves { head.bytes } else { 0 };
        let used = tail.bytes.wrapping_sub(from);
        match usize::try_from(used) {
            Ok(used) if used <= capacity => Ok(used),
            _ => Err(Error::other(Corrupt("more in a ring than it can hold"))),
        }
    }

    /// Whether so many bytes are more than a lane may have in a ring of this capacity, with so many
    /// of a parcel. One message alone may be longer than the limit, and the ring that it took longer
    /// still.
    fn is_over(&self, bytes: usize, capacity: usize, parcel: u64, head: &Record) -> bool {
        let limit = self.shape.limit;
        if limit == 0 {
            return false;
        }
        let on_shelf = self.on_the_shelf(head).saturating_add(parcel);
        capacity > limit && bytes > limit
            || on_shelf > 0 && on_shelf.saturating_add(bytes as u64) > limit as u64
    }

    fn in_use(&self, number: u32, tail: &Record, head: &Record) -> bool {
        // one more than the move that entered it; 0: never
        let entered = self.words.load(self.entered_at(number), Relaxed);
        entered > head.moves && entered <= tail.moves.wrapping_add(1)
    }

    /// Whether a message of this size could be sent, by a look without a lock.
    #[must_use]
    pub fn may_send(&self, size: Size) -> bool {
        self.may(size, true)
    }

    /// The same without entering a longer ring for it.
    #[must_use]
    pub fn may_send_here(&self, size: Size) -> bool {
        self.may(size, false)
    }

    fn may(&self, Size { in_ring: length, on_shelf }: Size, grow: bool) -> bool {
        let (Ok(head), Ok(tail)) = (self.look(HEAD), self.look(TAIL)) else { return true };
        if self.is_shut() {
            return true;
        }
        let waiting = tail.count.saturating_sub(head.count);
        if self.shape.most != 0 && waiting >= self.shape.most {
            return false;
        }
        let (size, capacity) = (frame_size(length), self.shape.bytes(tail.ring));
        let to_end = capacity - tail.place(capacity);
        let needed = size + FRAME + if size > to_end { to_end } else { 0 };
        match self.used(&tail, &head, capacity) {
            Ok(used) if waiting > 0 && self.is_over(used + size, capacity, on_shelf, &head) => {
                false
            }
            Ok(used) if needed > capacity - used => {
                grow && self.free_ring(&tail, &head, size).is_some()
            }
            _ => true,
        }
    }

    // -- receiving -------------------------------------------------------------------------

    /// Receives the next message by `take`, if there is one of at most `longest` bytes. `take` is
    /// called with the receivers' lock held, so it must be quick and must not come back here. If
    /// it fails, the message stays. What a parcel holds is to be held, or copied, by `take`: it is
    /// somebody else's afterwards.
    ///
    /// # Errors
    /// If the queue is corrupt, or `take` fails.
    pub fn receive(
        &self,
        me: Who,
        kernel: &impl Kernel,
        patience: Patience,
        longest: usize,
        take: impl FnOnce(Shown<'_>) -> Result<()>,
    ) -> Result<Got> {
        if !self.enter(&self.head, me, kernel, patience) {
            return Ok(Got::Busy);
        }
        let got = self.receive_locked(longest, take, me, kernel);
        self.leave(&self.head, kernel);
        if let Ok(Got::Message) = got {
            // of those who wait for bytes, any may fit now; of those who wait for one place, one
            self.call(PUT_BELL, kernel, self.shape.limit != 0);
        }
        got
    }

    /// Receives, waiting for a message as long as the kernel's wait lasts.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_in_time(
        &self,
        me: Who,
        kernel: &impl Kernel,
        mut take: impl FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<Got> {
        loop {
            match self.receive(me, kernel, Patience::Some, usize::MAX, &mut take)? {
                Got::Nothing => {}
                other => return Ok(other),
            }
            if self.rest(GET_BELL, kernel, || self.has_more()) == Rest::Stop {
                return Ok(Got::Nothing);
            }
        }
    }

    fn receive_locked(
        &self,
        longest: usize,
        take: impl FnOnce(Shown<'_>) -> Result<()>,
        me: Who,
        kernel: &impl Kernel,
    ) -> Result<Got> {
        let shut = self.shut_now();
        let (mut head, mut tail) = (self.own(HEAD)?, self.look(TAIL)?);
        if head.count == tail.count && shut == Some(false) {
            // who was sending when it was shut is done when the lock is free
            self.tail.guard(me, kernel);
            tail = self.look(TAIL)?;
            self.tail.unguard(kernel);
        }
        if head.count == tail.count || shut == Some(true) {
            return Ok(if shut.is_some() { Got::Shut } else { Got::Nothing });
        }
        let from = head.ring;
        let Frame { ring, place, length, parcel } = self.next_frame(&mut head, &tail)?;
        let name = if parcel.is_some() { NAME } else { 0 };
        let (start, rest) = (place + FRAME + name, length - name);
        if rest > longest {
            return Ok(Got::Long);
        }
        let read = |at: usize, into: &mut [u8]| {
            assert!(at <= rest && into.len() <= rest - at, "read beyond the message");
            ring.read(start + at, into);
        };
        take(Shown { length: rest, read: &read, parcel })?;
        head = head.further(frame_size(length) as u64);
        head.count = head.count.wrapping_add(1);
        if from != head.ring && from >= LONG {
            self.note_slack(from);
        }
        self.commit(HEAD, &head);
        if head.count == tail.count && (head.ring >= LONG || self.slack() != 0) {
            self.settle_down(me, kernel)?;
        }
        Ok(Got::Message)
    }

    /// The next frame at or behind `head`, which is brought to it.
    fn next_frame(&self, head: &mut Record, tail: &Record) -> Result<Frame<R::Memory>> {
        // a pad and a marker in each of them, at most
        for _ in 0..=2 * self.shape.rings {
            let ring = self.rings.ring(head.ring)?;
            let capacity = self.shape.bytes(head.ring);
            let place = head.place(capacity);
            let room = match head.moves == tail.moves {
                true => tail.bytes.wrapping_sub(head.bytes).min(capacity as u64) as usize,
                false => capacity,
            };
            if room < FRAME {
                return Err(Error::other(Corrupt("a message is counted that is not there")));
            }
            let word = ring.load(place, Relaxed);
            let length = usize::try_from(word >> KIND_BITS).unwrap_or(usize::MAX);
            match word & ((1 << KIND_BITS) - 1) {
                PAD if capacity - place <= room => {
                    *head = head.further((capacity - place) as u64);
                }
                MOVED if head.moves < tail.moves && length < self.shape.rings as usize => {
                    *head = head.moved(length as u32);
                }
                kind @ (MESSAGE | WITH_PARCEL)
                    if length <= capacity - FRAME
                        && frame_size(length) <= room.min(capacity - place) =>
                {
                    if kind == MESSAGE {
                        return Ok(Frame { ring, place, length, parcel: None });
                    }
                    if length < NAME {
                        break;
                    }
                    let name = ring.load(place + FRAME, Relaxed);
                    let parcel = Parcel::from_word(name, self.shape.slots);
                    let parcel = Some(parcel.ok_or_else(nonsense)?);
                    return Ok(Frame { ring, place, length, parcel });
                }
                _ => break,
            }
        }
        Err(nonsense())
    }

    /// Brings an empty queue back into its first ring, and gives memory back. Under the head's
    /// lock. Not done if somebody is sending: then the queue is not empty, or soon is not.
    fn settle_down(&self, me: Who, kernel: &impl Kernel) -> Result<()> {
        if !self.tail.try_take(me) {
            return Ok(());
        }
        let done = self.settle_down_locked();
        self.leave(&self.tail, kernel);
        done
    }

    fn settle_down_locked(&self) -> Result<()> {
        let (head, tail) = (self.own(HEAD)?, self.own(TAIL)?);
        if head.ring >= LONG && head.count == tail.count && head.moves == tail.moves {
            let place = tail.place(self.shape.bytes(tail.ring));
            self.words.store(self.entered_at(0), tail.moves.wrapping_add(2), Relaxed);
            self.rings.ring(tail.ring)?.store(place, frame(MOVED, 0), Relaxed);
            // by itself the tail's move is a sender's; the head would follow by the marker
            self.commit(TAIL, &tail.moved(0));
            self.note_slack(tail.ring);
            self.commit(HEAD, &head.moved(0));
        }
        let (head, tail) = (self.own(HEAD)?, self.own(TAIL)?);
        let mut left = 0;
        for number in LONG..self.shape.rings {
            if self.slack() & 1 << number == 0 {
                continue;
            }
            if self.in_use(number, &tail, &head) {
                left |= 1 << number;
            } else {
                self.rings.release(number);
            }
        }
        self.words.store(self.at + SLACK, left, Relaxed);
        Ok(())
    }

    /// Rings that were left and may hold memory. Written by receivers alone.
    fn slack(&self) -> u64 {
        self.words.load(self.at + SLACK, Relaxed)
    }

    fn note_slack(&self, number: u32) {
        self.words.store(self.at + SLACK, self.slack() | 1 << number, Relaxed);
    }

    /// Whether [`receive`](Self::receive) would find something, be it that nothing will come: by a
    /// look without a lock.
    #[must_use]
    pub fn has_more(&self) -> bool {
        // turns first: most looks find nothing, and find it quickly
        self.count() != 0 || self.is_shut()
    }

    // -- waiting ---------------------------------------------------------------------------

    /// Sleeps on a bell unless `ready`; the caller looks again after that.
    fn rest(&self, bell: usize, kernel: &impl Kernel, ready: impl Fn() -> bool) -> Rest {
        let (bell, sleepers) = (self.at + bell, self.at + bell + 8);
        let seen = self.words.load(bell, Acquire);
        self.words.fetch_add(sleepers, 1);
        // sync: fence in call -> fence here
        self.words.fence();
        let rest = if ready() { Rest::Over } else { kernel.sleep(bell, low(seen)) };
        self.words.fetch_add(sleepers, u64::MAX);
        rest
    }

    /// Wakes one who sleeps on a bell, or all.
    fn call(&self, bell: usize, kernel: &impl Kernel, all: bool) {
        let (bell, sleepers) = (self.at + bell, self.at + bell + 8);
        // sync: fence here -> fence in rest
        self.words.fence();
        if self.words.load(sleepers, Relaxed) != 0 {
            self.words.fetch_add(bell, 1);
            kernel.wake(bell, all);
        }
    }

    /// Waits until there is something to receive; `false`: the wait was stopped before.
    pub fn wait_for_more(&self, kernel: &impl Kernel) -> bool {
        while !self.has_more() {
            if self.rest(GET_BELL, kernel, || self.has_more()) == Rest::Stop {
                return self.has_more();
            }
        }
        true
    }

    /// Waits until a message of this size could be sent without entering a longer ring; `false`:
    /// the wait was stopped before.
    pub fn wait_for_room_here(&self, size: Size, kernel: &impl Kernel) -> bool {
        while !self.may_send_here(size) {
            if self.rest(PUT_BELL, kernel, || self.may_send_here(size)) == Rest::Stop {
                return self.may_send_here(size);
            }
        }
        true
    }
}
