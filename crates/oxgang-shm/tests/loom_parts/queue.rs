//! Queues: all interleavings of a few senders and receivers. Sleeps have no slices here, so a
//! wake-up that is lost is a deadlock, which loom reports.

use std::collections::BTreeMap;
use std::io::Result;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use oxgang_shm::Words;
use oxgang_shm::queue::shelf::{Holds, Parcel, head_bytes};
use oxgang_shm::queue::token::Doorbell;
use oxgang_shm::queue::{Got, HEAD_BYTES, Load, Patience, Queue, Rings, Sent, Shape};
use oxgang_shm::sync::{Kernel, Rest, Who};

use super::{LoomWords, Shared};

/// What is slept on: the locks of senders, of receivers and of the token, and the bells.
const BEDS: [usize; 5] = [128, 256, 384, 400, 640];
const RING: usize = 64;

struct Memory {
    head: Shared,
    ring: Shared,
    asleep: Mutex<()>,
    beds: BTreeMap<usize, Condvar>,
    /// Bytes in the descriptor.
    bytes: AtomicU64,
}

#[derive(Clone)]
struct Model(Arc<Memory>);

impl Kernel for Model {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        let asleep = self.0.asleep.lock().unwrap();
        // as the kernel does it: the look at the word and the sleep are one step
        if self.0.head.load(at, std::sync::atomic::Ordering::SeqCst) as u32 == seen {
            drop(self.0.beds[&at].wait(asleep).unwrap());
        }
        Rest::Over
    }
    fn wake(&self, at: usize, all: bool) {
        drop(self.0.asleep.lock().unwrap());
        if all {
            self.0.beds[&at].notify_all();
        } else {
            self.0.beds[&at].notify_one();
        }
    }
    fn alive(&self, _who: Who) -> bool {
        true
    }
    fn pause(&self) {
        thread::yield_now();
    }
}

impl Doorbell for Model {
    fn ring(&self) -> bool {
        self.0.bytes.fetch_add(1, Ordering::SeqCst);
        true
    }
    fn clear(&self) {
        self.0.bytes.store(0, Ordering::SeqCst);
    }
}

struct One(Shared);

impl Rings for One {
    type Memory = Shared;
    fn ring(&self, _number: u32) -> Result<Shared> {
        Ok(self.0.clone())
    }
    fn release(&self, _number: u32) {}
}

impl Model {
    fn new(most: u64, fences: bool) -> Self {
        let words = |bytes: usize| Shared(LoomWords::new((0..bytes).step_by(8), fences));
        let (head, ring) = (words(HEAD_BYTES), words(RING));
        let shape = Shape { most, limit: 0, first: RING, rings: 1, slots: 0 };
        Queue::<_, One>::create(&head, 0, shape);
        let beds = BEDS.into_iter().map(|at| (at, Condvar::new())).collect();
        let (asleep, bytes) = (Mutex::new(()), AtomicU64::new(0));
        Self(Arc::new(Memory { head, ring, asleep, beds, bytes }))
    }

    fn queue(&self) -> Queue<Shared, One> {
        Queue::open(self.0.head.clone(), 0, One(self.0.ring.clone())).unwrap()
    }

    fn send(&self, number: u32) {
        let message = [number as u8; 8];
        let sent = self.queue().send_in_time(who(number), self, (&[&message[..]][..]).into());
        assert_eq!(sent.unwrap(), Sent::Yes);
    }

    fn receive(&self, me: u32) -> u8 {
        let mut into = Vec::new();
        let got = self.queue().receive_in_time(who(me), self, |shown| shown.copy(&mut into));
        assert_eq!(got.unwrap(), Got::Message);
        assert_eq!(into, [into[0]; 8], "whole");
        into[0]
    }
}

fn who(number: u32) -> Who {
    Who::new(7, 1, number)
}

fn check(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

fn one_to_one(most: u64, fences: bool) {
    check(2, move || {
        let model = Model::new(most, fences);
        let other = model.clone();
        let sender = thread::spawn(move || (1..=2).for_each(|number| other.send(number)));
        assert_eq!([model.receive(9), model.receive(9)], [1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn messages_come_in_order_and_nobody_sleeps_on() {
    one_to_one(0, true);
}

#[test]
fn who_waits_for_room_gets_it() {
    one_to_one(1, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_a_message_is_slept_through() {
    one_to_one(0, false);
}

#[test]
fn two_senders_do_not_mix() {
    check(2, || {
        let model = Model::new(0, true);
        let senders = [1, 2].map(|number| {
            let model = model.clone();
            thread::spawn(move || model.send(number))
        });
        let mut both = [model.receive(9), model.receive(9)];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn two_receivers_get_one_each() {
    check(2, || {
        let model = Model::new(0, true);
        let receivers = [8, 9].map(|me| {
            let model = model.clone();
            thread::spawn(move || model.receive(me))
        });
        model.send(1);
        model.send(2);
        let mut both = receivers.map(|receiver| receiver.join().unwrap());
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    });
}

#[test]
fn the_descriptor_is_true_when_all_is_quiet() {
    check(2, || {
        let model = Model::new(0, true);
        let queue = model.queue();
        queue.watch();
        queue.settle(who(9), &model, &model);
        let other = model.clone();
        let sender = thread::spawn(move || {
            let queue = other.queue();
            queue.herald(who(1), &other, &other);
            other.send(1);
            queue.announce(who(1), &other, &other);
        });
        let mut into = Vec::new();
        let got = queue
            .receive(who(9), &model, Patience::Some, 64, |shown| shown.copy(&mut into))
            .unwrap();
        queue.denounce(who(9), &model, &model, false);
        sender.join().unwrap();
        let there = model.0.bytes.load(Ordering::SeqCst) > 0;
        assert_eq!(there, got == Got::Nothing);
    });
}

/// One slot, and who holds it: 0: nobody; 100: a sender, alone; otherwise so many receivers. Each
/// look is one step, as the kernel's.
#[derive(Clone)]
struct Slot {
    model: Model,
    bytes: Arc<[AtomicU64; 2]>,
    held: Arc<AtomicU64>,
}

const ALONE: u64 = 100;

impl Holds for Slot {
    fn try_hold(&self, _slot: u32) -> Result<bool> {
        Ok(self.held.compare_exchange(0, ALONE, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }
    fn let_go(&self, _slot: u32) -> Result<()> {
        // from alone to nobody, or one of several less
        let alone = self.held.compare_exchange(ALONE, 0, Ordering::AcqRel, Ordering::Acquire);
        if alone.is_err() {
            self.held.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }
}

impl Slot {
    fn new() -> Self {
        let words = |bytes: usize| Shared(LoomWords::new((0..bytes).step_by(8), true));
        let (head, ring) = (words(head_bytes(1)), words(RING));
        let shape = Shape { most: 0, limit: 0, first: RING, rings: 1, slots: 1 };
        Queue::<_, One>::create(&head, 0, shape);
        let beds = BEDS.into_iter().map(|at| (at, Condvar::new())).collect();
        let (asleep, bytes) = (Mutex::new(()), AtomicU64::new(0));
        let model = Model(Arc::new(Memory { head, ring, asleep, beds, bytes }));
        let bytes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        Self { model, bytes, held: Arc::new(AtomicU64::new(0)) }
    }

    /// Sends a number, in the slot if that is free, and else in line.
    fn send(&self, number: u64) {
        let queue = self.model.queue();
        let free = queue.hold_free(2, self).unwrap();
        if free.is_some() {
            self.bytes.iter().for_each(|byte| byte.store(number, Ordering::Relaxed));
            self.held.store(1, Ordering::Release);
        }
        let line = [number as u8];
        let load =
            Load { parts: &[&line], parcel: free.map(|free| Parcel { slot: free.slot, bytes: 2 }) };
        let sent = queue.send_in_time(who(number as u32), &self.model, load);
        assert_eq!(sent.unwrap(), Sent::Yes);
        if free.is_some() {
            self.let_go(0).unwrap();
        }
    }

    fn look(&self) -> [u64; 2] {
        [self.bytes[0].load(Ordering::Relaxed), self.bytes[1].load(Ordering::Relaxed)]
    }

    /// Receives one, looks at it once more after it was received, and lets go.
    fn receive(&self) -> u64 {
        let (mut number, mut looks) = (0, false);
        let got = self.model.queue().receive_in_time(who(9), &self.model, |shown| {
            let mut line = [0];
            (shown.read)(0, &mut line);
            number = u64::from(line[0]);
            if shown.parcel.is_some() {
                let beside = |held| (held != ALONE).then_some(held + 1);
                let held = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, beside);
                looks = held.is_ok();
                if !looks {
                    assert_eq!(self.look(), [number; 2], "copied before it is received");
                }
            }
            Ok(())
        });
        assert_eq!(got.unwrap(), Got::Message);
        if looks {
            assert_eq!(self.look(), [number; 2], "as long as it is held");
            self.let_go(0).unwrap();
        }
        number
    }
}

#[test]
fn a_slot_is_written_by_one_when_nobody_looks() {
    check(2, || {
        let slot = Slot::new();
        let other = slot.clone();
        let sender = thread::spawn(move || (1..=2).for_each(|number| other.send(number)));
        assert_eq!([slot.receive(), slot.receive()], [1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn senders_take_turns_at_a_slot() {
    check(2, || {
        let slot = Slot::new();
        let senders = [1, 2].map(|number| {
            let slot = slot.clone();
            thread::spawn(move || slot.send(number))
        });
        let mut both = [slot.receive(), slot.receive()];
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    });
}
