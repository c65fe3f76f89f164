//! A descriptor that is readable while there is something to receive.
//!
//! Descriptors cost system calls, so this is done only while somebody *watches*, having asked for the
//! descriptor's number. Then the descriptor holds a *token*, a byte or more, while the queue
//! holds a message (or is shut).
//!
//! | state | meaning |
//! |---|---|
//! | 0 | no byte is there |
//! | 1 | a byte is there |
//! | 2 | who was about to put one there, or take it, may have died at it |
//!
//! Whoever sends or receives looks at the token after it has committed. If the state is not what the
//! queue asks for, it takes the token's lock, puts the state in doubt, looks at the queue again, and
//! makes it so. The last of several looks at what all of them have committed. From state 2 a byte is
//! put there once more, or all are taken. Senders only put it there and receivers only take it: an
//! end of a pipe can do no more.
//!
//! For those who watch, a sender puts the token there *before* it commits, too. One that dies in
//! between leaves a descriptor that is readable too early; the other way round a message would lie
//! there unseen. The next one who looks in vain settles that.
//!
//! # Resting
//!
//! Our own receivers may sleep on the descriptor too, to hear of its end. That needs no more than a
//! bell: a sender who sees somebody *rest* puts a byte there, unless the word *rung* says that one is
//! there or coming; who has slept takes the bytes, sets *rung* to 0, fences, and looks. No lock: the
//! sleeper may run before the sender has come back from waking it. In this order, since a sender who
//! still finds *rung* set has committed what the look will see; the other way round its byte could be
//! taken and *rung* stay set, and nobody would ring again.
//!
//! | who | what it costs who rests |
//! |---|---|
//! | a sender dies with *rung* set and nothing put there | a slice |
//! | a receiver dies with the bytes taken and *rung* set | a slice |
//! | of several receivers at one end, one takes the bytes before another has seen them | that one a slice, if there is a message for it too |
//!
//! While somebody watches, the token does it all.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::layout::{RESTING, RUNG, SPINNER, TOKEN, TOKEN_LOCK, WATCHERS};
use super::{Queue, Rings};
use crate::Words;
use crate::sync::lock::Lock;
use crate::sync::{Kernel, Who};

const NONE: u64 = 0;
const THERE: u64 = 1;
const UNSURE: u64 = 2;

/// The descriptor.
pub trait Doorbell {
    /// Makes it readable; `false` if nobody is there to see it.
    fn ring(&self) -> bool;

    /// Makes it unreadable, however often it was rung.
    fn clear(&self);
}

impl<W: Words + Clone, R: Rings> Queue<W, R> {
    /// Whether anybody watches the descriptor.
    #[inline]
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.words.load(self.at + WATCHERS, Relaxed) != 0
    }

    /// From now on senders keep the descriptor readable while there is something to receive. What is
    /// there already is the caller's to look at, or to [`settle`](Self::settle).
    pub fn watch(&self) {
        self.words.fetch_add(self.at + WATCHERS, 1);
        // sync: fence in call -> fence here: the caller sees the message, or its sender the watcher
        self.words.fence();
    }

    /// The caller is about to sleep on the descriptor, unless a look after this finds something.
    pub fn start_resting(&self) {
        self.words.fetch_add(self.at + RESTING, 1);
        // sync: fence in call -> fence here: the caller sees the message, or its sender the caller
        self.words.fence();
    }

    /// It sleeps no more.
    pub fn stop_resting(&self) {
        self.words.fetch_add(self.at + RESTING, u64::MAX);
    }

    /// It was woken by the descriptor: takes what woke it, and is to look again.
    pub fn wake_up(&self, me: Who, kernel: &impl Kernel, doorbell: &impl Doorbell) {
        if self.is_watched() {
            self.denounce(me, kernel, doorbell, true);
            return;
        }
        doorbell.clear();
        self.words.store(self.at + RUNG, 0, Relaxed);
        // sync: fence in call -> fence here: the caller sees the message, or its sender that rung is 0
        self.words.fence();
    }

    /// Whether a sender will have to ring.
    #[must_use]
    pub fn will_ring(&self) -> bool {
        self.words.load(self.at + RESTING, Relaxed) != 0
            && self.words.load(self.at + RUNG, Relaxed) == 0
            && !self.is_watched()
    }

    /// Senders, before they send: puts the token there if somebody watches.
    #[inline]
    pub fn herald(&self, me: Who, kernel: &impl Kernel, doorbell: &impl Doorbell) {
        if self.is_watched() && self.words.load(self.at + TOKEN, Acquire) != THERE {
            self.settle_as(me, kernel, doorbell, || Some(THERE), false);
        }
    }

    /// Senders, after they have sent: puts the token there if somebody watches or rests. `false`:
    /// nobody was there to see it.
    #[inline]
    pub fn announce(&self, me: Who, kernel: &impl Kernel, doorbell: &impl Doorbell) -> bool {
        if self.is_watched() {
            if self.words.load(self.at + TOKEN, Acquire) == THERE || !self.has_more() {
                return true;
            }
            let wanted = || self.has_more().then_some(THERE);
            return self.settle_as(me, kernel, doorbell, wanted, false);
        }
        if self.words.load(self.at + RESTING, Relaxed) == 0
            || self.words.compare_exchange(self.at + RUNG, 0, 1).is_err()
        {
            return true;
        }
        doorbell.ring()
    }

    /// Receivers, after they have received or looked in vain: takes the token if nothing is there.
    /// `seen`: the descriptor is readable, whatever the state says.
    pub fn denounce(&self, me: Who, kernel: &impl Kernel, doorbell: &impl Doorbell, seen: bool) {
        let state = self.words.load(self.at + TOKEN, Acquire);
        if (state != NONE || seen) && !self.has_more() {
            self.settle_as(me, kernel, doorbell, || (!self.has_more()).then_some(NONE), seen);
        }
    }

    /// Makes the descriptor true, whatever has been there.
    pub fn settle(&self, me: Who, kernel: &impl Kernel, doorbell: &impl Doorbell) {
        let wanted = || Some(if self.has_more() { THERE } else { NONE });
        self.settle_as(me, kernel, doorbell, wanted, true);
    }

    fn settle_as(
        &self,
        me: Who,
        kernel: &impl Kernel,
        doorbell: &impl Doorbell,
        wanted: impl Fn() -> Option<u64>,
        doubted: bool,
    ) -> bool {
        let lock = Lock::new(self.words.clone(), self.at + TOKEN_LOCK);
        lock.guard(me, kernel);
        let state = if doubted { UNSURE } else { self.words.load(self.at + TOKEN, Acquire) };
        self.words.store(self.at + TOKEN, UNSURE, Release);
        // sync: fence in call -> fence here: either this look sees what was committed, or who
        // committed sees that the token is in doubt
        self.words.fence();
        let wanted = wanted().unwrap_or(state);
        let mut seen = true;
        if state != wanted {
            if wanted == THERE {
                seen = doorbell.ring();
            } else {
                doorbell.clear();
            }
        }
        self.words.store(self.at + TOKEN, wanted, Release);
        lock.unguard(kernel);
        seen
    }

    /// Asks for the place of the one who may spin, until `end` by a clock that all processes share;
    /// `now` by the same clock. A place that somebody died on is free again when its time is over.
    pub fn start_spinning(&self, now: u64, end: u64) -> bool {
        let taken = self.words.load(self.at + SPINNER, Relaxed);
        taken <= now && self.words.compare_exchange(self.at + SPINNER, taken, end).is_ok()
    }

    /// Gives the place back.
    pub fn stop_spinning(&self) {
        self.words.store(self.at + SPINNER, 0, Relaxed);
    }
}
