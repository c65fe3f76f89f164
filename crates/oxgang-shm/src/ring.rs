//! A ring of frames from one producer to one consumer, in shared bytes.
//!
//! # Layout
//!
//! Two words, `tail` (written by the producer) and `head` (written by the consumer), each on
//! a cache line of its own, and `capacity` bytes of data. Both count bytes since the ring was
//! made and never wrap; the place of a byte is its count modulo the capacity. A frame is four
//! words and a payload padded to words, and never wraps around the end: what is left there
//! is skipped by a pad.
//!
//! | word | holds |
//! |---|---|
//! | 0 | state of the frame, see below |
//! | 1 | kind (low byte), length of the payload (high half) |
//! | 2 | id |
//! | 3 | aux |
//!
//! # States of a frame
//!
//! | state | meaning | moves to | by whom |
//! |---|---|---|---|
//! | `READY` | published, nobody's yet | claimed, `REVOKED` | consumer, producer |
//! | an incarnation | claimed by that incarnation | – | – |
//! | `REVOKED` | taken back before it was claimed | – | – |
//! | `PAD` | no frame: go on at the start | – | – |
//!
//! Claim and revoke are a compare-exchange of the same word, so one of them wins. A frame
//! exists only below `tail`: a producer that dies while writing leaves nothing behind. A frame
//! is *begun* when `head` has moved past it, and not before: a consumer that dies between its
//! claim and that store has not begun it, and its producer may send it elsewhere.
//!
//! # Orderings
//!
//! `tail`: store-release by the producer meets load-acquire by the consumer (the frame's words
//! and bytes are seen whole). `head`: store-release by the consumer meets load-acquire by the
//! producer (the consumer's reads of the frame are over before it is overwritten). The state
//! word's compare-exchange needs no more than atomicity, since it guards no other word.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::{Corrupt, Words};

/// State of a published frame that nobody has claimed.
pub const READY: u64 = 1;
/// State of a frame that its producer took back.
pub const REVOKED: u64 = 2;
/// State of the gap at the end of the data.
pub const PAD: u64 = 3;
/// Incarnations start here, so that one can never look like a state.
pub const FIRST_INCARNATION: u64 = 16;

/// Bytes of a frame's four words.
pub const FRAME_HEADER: usize = 32;

/// Where in the memory a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAt {
    /// Offset of the word that the producer writes.
    pub tail: usize,
    /// Offset of the word that the consumer writes.
    pub head: usize,
    /// Offset of the data.
    pub data: usize,
    /// Bytes of data, a multiple of 8.
    pub capacity: usize,
}

impl RingAt {
    fn place(&self, count: u64) -> usize {
        self.data + (count % self.capacity as u64) as usize
    }

    fn room_to_end(&self, count: u64) -> usize {
        self.capacity - (count % self.capacity as u64) as usize
    }

    /// The longest payload that always fits a ring that has been emptied.
    #[must_use]
    pub fn longest_payload(&self) -> usize {
        // a frame plus the pad before it must fit, wherever the ring stands
        self.capacity / 2 - FRAME_HEADER
    }
}

fn frame_size(payload: usize) -> usize {
    FRAME_HEADER + payload.next_multiple_of(8)
}

/// The ring has no room for the frame now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The writing end. Its own position is private: it is never read back from the memory.
#[derive(Debug)]
pub struct Producer<W> {
    words: W,
    at: RingAt,
    tail: u64,
    head_seen: u64,
}

impl<W: Words> Producer<W> {
    /// The writing end of a ring that is new: both positions are zero.
    pub fn new(words: W, at: RingAt) -> Self {
        Self { words, at, tail: 0, head_seen: 0 }
    }

    /// Publishes one frame; `parts` are written one after the other as its payload.
    ///
    /// Gives the frame's position, by which it can be revoked.
    ///
    /// # Errors
    /// [`Full`] if there is no room now: the outer error is for a corrupt ring.
    pub fn push(
        &mut self,
        kind: u8,
        id: u64,
        aux: u64,
        parts: &[&[u8]],
    ) -> Result<Result<u64, Full>, Corrupt> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let size = frame_size(length);
        let to_end = self.at.room_to_end(self.tail);
        let pad = if size > to_end { to_end } else { 0 };
        if self.tail + (pad + size) as u64 > self.head_seen + self.at.capacity as u64 {
            self.refresh_head()?;
            if self.tail + (pad + size) as u64 > self.head_seen + self.at.capacity as u64 {
                return Ok(Err(Full));
            }
        }
        if pad > 0 {
            self.words.store(self.at.place(self.tail), PAD, Relaxed);
        }
        let position = self.tail + pad as u64;
        let place = self.at.place(position);
        self.words.store(place, READY, Relaxed);
        self.words.store(place + 8, u64::from(kind) | (length as u64) << 32, Relaxed);
        self.words.store(place + 16, id, Relaxed);
        self.words.store(place + 24, aux, Relaxed);
        let mut to = place + FRAME_HEADER;
        for part in parts {
            self.words.write(to, part);
            to += part.len();
        }
        self.tail = position + size as u64;
        // sync: push(tail) -> peek(tail)
        self.words.store(self.at.tail, self.tail, Release);
        Ok(Ok(position))
    }

    /// Whether a frame with this payload would leave `reserve` bytes free after it.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn has_room(&mut self, payload: usize, reserve: usize) -> Result<bool, Corrupt> {
        let size = frame_size(payload);
        let to_end = self.at.room_to_end(self.tail);
        let pad = if size > to_end { to_end } else { 0 };
        let needed = pad + size + reserve;
        let free = |this: &Self| this.at.capacity - this.used_at_most();
        if free(self) < needed {
            self.refresh_head()?;
        }
        Ok(free(self) >= needed)
    }

    /// Takes back the frame at `position` if nobody has claimed it. `true`: it is ours again,
    /// and the consumer will pass over it.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn revoke(&mut self, position: u64) -> Result<bool, Corrupt> {
        if self.begun(position)? {
            return Ok(false);
        }
        // the frame is still in the ring: only this end can overwrite it, after reading a
        // head beyond it
        Ok(self.words.compare_exchange(self.at.place(position), READY, REVOKED).is_ok())
    }

    /// Whether the consumer has moved past the frame at `position`.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn begun(&mut self, position: u64) -> Result<bool, Corrupt> {
        if position >= self.head_seen {
            self.refresh_head()?;
        }
        Ok(position < self.head_seen)
    }

    /// Bytes that the consumer has not passed yet, by the newest look at its position.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn used(&mut self) -> Result<usize, Corrupt> {
        self.refresh_head()?;
        Ok((self.tail - self.head_seen) as usize)
    }

    /// The same by the last look: it may be less by now, never more.
    pub fn used_at_most(&self) -> usize {
        (self.tail - self.head_seen) as usize
    }

    fn refresh_head(&mut self) -> Result<(), Corrupt> {
        // sync: advance(head) -> push(head)
        let head = self.words.load(self.at.head, Acquire);
        if head < self.head_seen || head > self.tail {
            return Err(Corrupt("ring head outside of what was written"));
        }
        self.head_seen = head;
        Ok(())
    }
}

/// A frame that the consumer has found. Its numbers are a private, checked copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is; the meaning belongs to the channel.
    pub kind: u8,
    /// Of the task, mostly.
    pub id: u64,
    /// A second number.
    pub aux: u64,
    /// Bytes of payload.
    pub length: usize,
    /// Where it is: no other frame of this ring ever has that position.
    pub position: u64,
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer<W> {
    words: W,
    at: RingAt,
    head: u64,
    tail_seen: u64,
}

impl<W: Words> Consumer<W> {
    /// The reading end of a ring that is new.
    pub fn new(words: W, at: RingAt) -> Self {
        Self { words, at, head: 0, tail_seen: 0 }
    }

    /// The next frame, if one is published; it stays in the ring until [`advance`](Self::advance).
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn peek(&mut self) -> Result<Option<Frame>, Corrupt> {
        loop {
            if self.head == self.tail_seen {
                // sync: push(tail) -> peek(tail)
                let tail = self.words.load(self.at.tail, Acquire);
                if tail < self.tail_seen
                    || tail - self.head > self.at.capacity as u64
                    || !tail.is_multiple_of(8)
                {
                    return Err(Corrupt("ring tail outside of what can be"));
                }
                self.tail_seen = tail;
                if self.head == tail {
                    return Ok(None);
                }
            }
            let place = self.at.place(self.head);
            let to_end = self.at.room_to_end(self.head);
            if self.words.load(place, Relaxed) == PAD {
                let next = self.head + to_end as u64;
                if next > self.tail_seen {
                    return Err(Corrupt("pad beyond the tail"));
                }
                self.head = next;
                continue;
            }
            if to_end < FRAME_HEADER {
                return Err(Corrupt("frame header across the end"));
            }
            let head_word = self.words.load(place + 8, Relaxed);
            let length = (head_word >> 32) as usize;
            let size = frame_size(length);
            if size > to_end || self.head + size as u64 > self.tail_seen {
                return Err(Corrupt("frame longer than what was published"));
            }
            return Ok(Some(Frame {
                kind: head_word as u8,
                id: self.words.load(place + 16, Relaxed),
                aux: self.words.load(place + 24, Relaxed),
                length,
                position: self.head,
            }));
        }
    }

    /// Whether anything has been published beyond what was taken. One load.
    pub fn has_more(&self) -> bool {
        self.head != self.tail_seen || self.words.load(self.at.tail, Acquire) != self.tail_seen
    }

    /// Claims the frame for `incarnation`; `false` if its producer has taken it back.
    pub fn claim(&mut self, frame: &Frame, incarnation: u64) -> bool {
        let place = self.at.place(frame.position);
        self.words.compare_exchange(place, READY, incarnation).is_ok()
    }

    /// Copies the payload out, appending to `into`.
    pub fn read(&self, frame: &Frame, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + frame.length, 0);
        self.words.read(self.at.place(frame.position) + FRAME_HEADER, &mut into[start..]);
    }

    /// Moves past the frame: it is begun, and its bytes go back to the producer.
    pub fn advance(&mut self, frame: &Frame) {
        self.head = frame.position + frame_size(frame.length) as u64;
        // sync: advance(head) -> push(head)
        self.words.store(self.at.head, self.head, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::HeapWords;

    const AT: RingAt = RingAt { tail: 0, head: 8, data: 16, capacity: 256 };

    fn pair() -> (Arc<HeapWords>, Producer<Arc<HeapWords>>, Consumer<Arc<HeapWords>>) {
        let words = Arc::new(HeapWords::new(16 + 256));
        (words.clone(), Producer::new(words.clone(), AT), Consumer::new(words, AT))
    }

    fn pop(consumer: &mut Consumer<Arc<HeapWords>>) -> Option<(u64, Vec<u8>)> {
        let frame = consumer.peek().unwrap()?;
        let mut bytes = Vec::new();
        consumer.read(&frame, &mut bytes);
        let mine = consumer.claim(&frame, FIRST_INCARNATION);
        consumer.advance(&frame);
        mine.then_some((frame.id, bytes))
    }

    #[test]
    fn frames_of_every_length_come_out_as_they_went_in() {
        let (_, mut producer, mut consumer) = pair();
        for round in 0..500_u64 {
            let length = (round * 7 % 97) as usize;
            assert!(length <= AT.longest_payload());
            let bytes: Vec<u8> = (0..length).map(|i| (i as u64 + round) as u8).collect();
            let (left, right) = bytes.split_at(length / 3);
            producer.push(5, round, 0, &[left, right]).unwrap().unwrap();
            assert_eq!(pop(&mut consumer), Some((round, bytes)));
        }
        assert_eq!(consumer.peek().unwrap(), None);
    }

    #[test]
    fn a_full_ring_refuses_and_takes_again_after_one_is_gone() {
        let (_, mut producer, mut consumer) = pair();
        let mut sent = 0;
        while producer.push(1, sent, 0, &[&[0; 20]]).unwrap().is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 4);
        assert_eq!(pop(&mut consumer).unwrap().0, 0);
        assert!(producer.push(1, sent, 0, &[&[0; 20]]).unwrap().is_ok());
        assert_eq!(producer.push(1, 9, 0, &[&[0; 20]]).unwrap(), Err(Full));
        for expected in 1..=4 {
            assert_eq!(pop(&mut consumer).unwrap().0, expected);
        }
    }

    #[test]
    fn a_reserve_is_left() {
        let (_, mut producer, mut consumer) = pair();
        while producer.has_room(20, 64).unwrap() {
            producer.push(1, 0, 0, &[&[0; 20]]).unwrap().unwrap();
        }
        assert!(producer.push(2, 1, 0, &[]).unwrap().is_ok(), "the reserve is for this");
        while pop(&mut consumer).is_some() {}
        assert!(producer.has_room(20, 64).unwrap());
    }

    #[test]
    fn revoke_wins_before_the_claim_and_loses_after_it() {
        let (_, mut producer, mut consumer) = pair();
        let first = producer.push(1, 10, 0, &[]).unwrap().unwrap();
        let second = producer.push(1, 11, 0, &[]).unwrap().unwrap();
        let frame = consumer.peek().unwrap().unwrap();
        assert!(consumer.claim(&frame, FIRST_INCARNATION));
        assert!(!producer.revoke(first).unwrap());
        assert!(!producer.begun(first).unwrap(), "claimed is not begun");
        consumer.advance(&frame);
        assert!(producer.begun(first).unwrap());
        assert!(producer.revoke(second).unwrap());
        assert!(!producer.revoke(second).unwrap(), "only once");
        assert_eq!(pop(&mut consumer), None);
    }

    #[test]
    fn nonsense_in_memory_is_an_error_not_a_panic() {
        for (at, value) in [(0, 7_u64), (0, 1 << 40), (0, 8)] {
            let (words, _, mut consumer) = pair();
            words.store(at, value, Relaxed);
            assert!(consumer.peek().is_err(), "tail {value}");
        }
        let (words, mut producer, mut consumer) = pair();
        producer.push(1, 1, 0, &[&[1; 8]]).unwrap().unwrap();
        words.store(16 + 8, u64::MAX, Relaxed);
        assert!(consumer.peek().is_err(), "length beyond the tail");
        words.store(8, 1 << 50, Relaxed);
        assert!(producer.used().is_err(), "head beyond the tail");
    }
}
