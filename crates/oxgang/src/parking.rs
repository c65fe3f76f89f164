//! How threads of one process wait for each other: in a line, each on a seat of its own.
//!
//! What is waited for (a unit, an item, a flag) is kept by the primitive, together with its
//! [`Line`], under one lock. Who has to wait takes a [`Seat`], puts it into the line, gives the lock
//! back and sits down. Who changes something that somebody may wait for takes a seat from the line
//! and calls it; the called one looks again, as one of many, and goes back to the front of the line
//! if somebody was quicker.
//!
//! # The seat's word
//!
//! | state | moved by | to |
//! |---|---|---|
//! | `WAITING` | its owner, about to sleep | `ASLEEP` |
//! | | a caller, with the lock | `CALLED` |
//! | | its owner, who goes | `GONE` |
//! | `ASLEEP` | a caller, with the lock | `CALLED | ASLEEP` |
//! | | its owner, whose sleep ended otherwise | `GONE`, or stays |
//! | `CALLED` | its owner, about to sleep | `CALLED | ASLEEP` |
//! | | its owner, who goes, and passes the call on | `GONE` |
//! | `CALLED`, asleep or not | the caller, when it has given back whatever it holds | `RUNG` |
//! | `RUNG` | its owner, who found nothing | `WAITING` |
//! | | its owner, who goes | `GONE` |
//!
//! Who is called does not stir before it is rung: a caller that is about to let go of what the
//! called one needs next (a lock, the interpreter) lets go first.
//!
//! A call that meets a seat that is `GONE`, or that was left in the line by the parent of a fork,
//! goes to the next in line: no call is ever spent on nobody.
//!
//! # Who holds the lock
//!
//! Nobody sleeps or wakes others with it, and sitting needs it not at all. So a program may keep
//! the rule that only threads which the fork of a process cannot catch in the middle take it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oxgang_os::futex::{self, Woken};

use crate::spin::Spinner;
use crate::{generation, spin};

const WAITING: u32 = 0;
const ASLEEP: u32 = 1;
const CALLED: u32 = 2;
const RUNG: u32 = 4;
const GONE: u32 = 8;

/// How often somebody has sat down, and so has let go of the interpreter.
static SAT_DOWN: AtomicU32 = AtomicU32::new(0);

/// Why somebody got up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rise {
    /// Called.
    Called,
    /// The deadline has passed.
    TimeUp,
    /// A signal came, or the slice is over: a look at signals is due.
    Look,
}

/// Where one thread waits, once.
#[derive(Debug)]
pub struct Seat {
    word: AtomicU32,
    born: u64,
}

impl Seat {
    /// One for this thread.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "a seat is shared from its first moment on")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { word: AtomicU32::new(WAITING), born: generation() })
    }

    /// Waits until rung, until the deadline, for a slice at most. The caller holds nothing.
    pub fn sit(&self, deadline: Option<Instant>, slice: Option<Duration>) -> Rise {
        let sat_down = SAT_DOWN.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if spin_for(|| self.is_rung()) {
            // who rang goes on with the interpreter until it sits down, or somebody else does
            spin::hand_over(|| SAT_DOWN.load(Ordering::Relaxed) != sat_down);
            return Rise::Called;
        }
        let until = slice.map(|slice| Instant::now() + slice);
        loop {
            let word = self.word.fetch_or(ASLEEP, Ordering::AcqRel) | ASLEEP;
            if word & RUNG != 0 {
                return Rise::Called;
            }
            let now = Instant::now();
            let left = |end: Option<Instant>| end.map(|end| end.saturating_duration_since(now));
            if left(deadline) == Some(Duration::ZERO) {
                return Rise::TimeUp;
            }
            if left(until) == Some(Duration::ZERO) {
                return Rise::Look;
            }
            let limit = [left(deadline), left(until)].into_iter().flatten().min();
            let woken = futex::park(&self.word, word, limit);
            if self.is_rung() {
                return Rise::Called;
            }
            if woken == Woken::Signal {
                return Rise::Look;
            }
        }
    }

    fn is_rung(&self) -> bool {
        self.word.load(Ordering::Acquire) & RUNG != 0
    }

    /// Whether it was called, and not taken up again since.
    #[must_use]
    pub fn is_called(&self) -> bool {
        self.word.load(Ordering::Acquire) & (CALLED | RUNG) != 0
    }

    /// Its owner goes. `true`: it had been called, and the call is the owner's to use or pass on.
    #[must_use]
    pub fn leave(&self) -> bool {
        self.word.swap(GONE, Ordering::AcqRel) & (CALLED | RUNG) != 0
    }

    /// Calls it, unless nobody sits there any more.
    fn call(&self) -> bool {
        let call = |word| (word < CALLED).then_some(word | CALLED);
        self.born == generation() // else its owner is in the process that forked this one
            && self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, call).is_ok()
    }

    fn ring(&self) {
        let ring = |word| (word & CALLED != 0).then_some(RUNG);
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, ring);
        if before.is_ok_and(|before| before & ASLEEP != 0) {
            futex::unpark(&self.word, 1);
        }
    }

    /// Whether somebody sits there, uncalled.
    fn is_taken(&self) -> bool {
        self.born == generation() && self.word.load(Ordering::Acquire) < CALLED
    }
}

/// Somebody has been called, and is rung when this is dropped: best without the lock.
#[derive(Debug)]
#[must_use]
pub struct Call(Arc<Seat>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// Those who wait, the longest waiting first.
#[derive(Debug, Default)]
pub struct Line(VecDeque<Arc<Seat>>);

impl Line {
    /// Takes a place at the end.
    pub fn join(&mut self, seat: &Arc<Seat>) {
        self.0.push_back(seat.clone());
    }

    /// Takes a place at the front: for who was rung in vain.
    pub fn rejoin(&mut self, seat: &Arc<Seat>) {
        seat.word.store(WAITING, Ordering::Release);
        self.0.push_front(seat.clone());
    }

    /// Gives the place up; whether it was still there.
    pub fn quit(&mut self, seat: &Arc<Seat>) -> bool {
        let place = self.0.iter().position(|one| Arc::ptr_eq(one, seat));
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// Calls the first.
    #[inline]
    pub fn call(&mut self) -> Option<Call> {
        while let Some(seat) = self.0.pop_front() {
            if seat.call() {
                return Some(Call(seat));
            }
        }
        None
    }

    /// Calls up to `count`, the first first.
    pub fn call_many(&mut self, count: usize) -> Vec<Call> {
        std::iter::from_fn(|| self.call()).take(count).collect()
    }

    /// Calls all.
    pub fn call_all(&mut self) -> Vec<Call> {
        self.call_many(usize::MAX)
    }

    /// Takes up to `count` out, uncalled, for another line.
    pub fn take(&mut self, count: usize) -> Vec<Arc<Seat>> {
        let next = || std::iter::from_fn(|| self.0.pop_front()).find(|seat| seat.is_taken());
        std::iter::from_fn(next).take(count).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all, who are in another process now.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Looks for a moment whether `found`, where a CPU is free for it and it has paid before.
fn spin_for(found: impl Fn() -> bool) -> bool {
    thread_local! {
        static SPINNER: std::cell::RefCell<Spinner> =
            std::cell::RefCell::new(Spinner::new(spin::budget_of_process()));
    }
    SPINNER.with_borrow_mut(|spinner| spinner.spin(spin::places(), found))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn soon(millis: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(millis))
    }

    #[test]
    fn time_passes_and_slices_end() {
        let seat = Seat::new();
        assert_eq!(seat.sit(soon(2), None), Rise::TimeUp);
        assert_eq!(seat.sit(soon(0), Some(LONG)), Rise::TimeUp, "over before it began");
        assert_eq!(seat.sit(None, Some(Duration::from_millis(2))), Rise::Look);
        assert!(!seat.leave());
    }

    #[test]
    fn the_first_in_line_is_called_first_and_once() {
        let (one, other) = (Seat::new(), Seat::new());
        let mut line = Line::default();
        line.join(&one);
        line.join(&other);
        assert!(line.call().is_some());
        assert_eq!((one.is_called(), other.is_called()), (true, false));
        assert_eq!(one.sit(None, None), Rise::Called);
        line.rejoin(&one);
        assert_eq!(line.len(), 2);
        assert!(line.call().is_some());
        assert_eq!((one.is_called(), other.is_called()), (true, false), "back at the front");
    }

    #[test]
    fn a_call_passes_those_who_have_gone() {
        let (gone, here) = (Seat::new(), Seat::new());
        let mut line = Line::default();
        line.join(&gone);
        line.join(&here);
        assert!(!gone.leave());
        assert!(line.call().is_some());
        assert!(here.is_called() && line.is_empty());
        assert!(line.call().is_none());
        assert!(here.leave(), "who goes after a call learns of it");
    }

    #[test]
    fn who_quits_is_not_called() {
        let (one, other) = (Seat::new(), Seat::new());
        let mut line = Line::default();
        line.join(&one);
        line.join(&other);
        assert!(line.quit(&one) && !line.quit(&one));
        assert_eq!(line.call_all().len(), 1);
        assert!(!one.is_called() && other.is_called());
    }

    /// Units that threads take and give: none is lost, and nobody sleeps beside a unit.
    #[test]
    fn no_call_is_lost_among_many() {
        struct Books {
            units: u32,
            line: Line,
        }
        let books = Mutex::new(Books { units: 2, line: Line::default() });
        let open = || books.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |limit: Duration| {
            let seat = Seat::new();
            let mut held = open();
            if held.units > 0 {
                held.units -= 1;
                return true;
            }
            held.line.join(&seat);
            drop(held);
            loop {
                let rise = seat.sit(Some(Instant::now() + limit), None);
                let mut held = open();
                let found = held.units > 0;
                if rise == Rise::Called && !found {
                    held.line.rejoin(&seat);
                    continue;
                }
                held.line.quit(&seat);
                let called = seat.leave();
                held.units -= u32::from(found);
                // the unit is gone or there is none: a call that came meanwhile is spent well
                // only on a unit
                let pass = if called && held.units > 0 { held.line.call() } else { None };
                drop(held);
                drop(pass);
                return found;
            }
        };
        let give = || {
            let mut held = open();
            held.units += 1;
            let call = held.line.call();
            drop(held);
            drop(call);
        };
        std::thread::scope(|scope| {
            for number in 0..6_u64 {
                scope.spawn(move || {
                    for turn in 0..3000_u64 {
                        let short = (turn + number) % 7 == 0;
                        let limit = if short { Duration::from_micros(turn % 50) } else { LONG };
                        if take(limit) {
                            give();
                        } else {
                            assert!(short, "nobody called for a minute");
                        }
                    }
                });
            }
        });
        let held = open();
        assert_eq!((held.units, held.line.len()), (2, 0));
    }
}
