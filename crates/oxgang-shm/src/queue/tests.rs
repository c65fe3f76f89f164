//! The queue on the heap, in one process.

use std::sync::Arc;

use proptest::prelude::*;

use super::shelf::head_bytes;
use super::*;
use crate::HeapWords;

/// Rings in one piece of heap each.
#[derive(Debug, Clone)]
pub struct HeapRings(Vec<Arc<HeapWords>>);

impl HeapRings {
    fn new(shape: &Shape) -> Self {
        Self((0..shape.rings).map(|number| Arc::new(HeapWords::new(shape.bytes(number)))).collect())
    }
}

impl Rings for HeapRings {
    type Memory = Arc<HeapWords>;
    fn ring(&self, number: u32) -> Result<Arc<HeapWords>> {
        self.0.get(number as usize).cloned().ok_or_else(|| Error::other("no such ring"))
    }
    fn release(&self, number: u32) {
        let ring = &self.0[number as usize];
        ring.write(0, &vec![0xee; ring.len()]);
    }
}

struct Alone;

impl Kernel for Alone {
    fn sleep(&self, _at: usize, _seen: u32) -> Rest {
        Rest::Stop
    }
    fn wake(&self, _at: usize, _all: bool) {}
    fn alive(&self, _who: Who) -> bool {
        true
    }
}

const ME: fn() -> Who = || Who::new(7, 1, 7);

fn queue(shape: Shape) -> Queue<Arc<HeapWords>, HeapRings> {
    let words = Arc::new(HeapWords::new(HEAD_BYTES));
    Queue::<_, HeapRings>::create(&words, 0, shape);
    Queue::open(words, 0, HeapRings::new(&shape)).unwrap()
}

fn shape(most: u64, limit: usize) -> Shape {
    Shape { most, limit, first: 64, rings: 7, slots: 0 }
}

fn put(queue: &Queue<Arc<HeapWords>, HeapRings>, bytes: &[u8]) -> Sent {
    let (one, other) = bytes.split_at(bytes.len() / 3);
    queue.send(ME(), &Alone, Patience::None, true, (&[one, other][..]).into()).unwrap()
}

fn get(queue: &Queue<Arc<HeapWords>, HeapRings>) -> Option<Vec<u8>> {
    let mut into = vec![1, 2, 3];
    let take = |shown: Shown<'_>| shown.copy(&mut into);
    match queue.receive(ME(), &Alone, Patience::None, usize::MAX, take).unwrap() {
        Got::Message => Some(into),
        _ => None,
    }
}

fn size(in_ring: usize) -> Size {
    Size { in_ring, on_shelf: 0 }
}

fn bytes_of(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + number) as u8).collect()
}

proptest! {
    /// Whatever is sent comes out, in order, whichever rings it went through, and the count is
    /// right all the time.
    #[test]
    fn what_goes_in_comes_out(steps in prop::collection::vec((any::<bool>(), 0_usize..9000), 1..200)) {
        let queue = queue(shape(0, 0));
        let mut model = std::collections::VecDeque::new();
        for (number, (is_put, length)) in steps.into_iter().enumerate() {
            let length = if length % 3 == 0 { length } else { length % 50 };
            if is_put {
                let bytes = bytes_of(number, length);
                prop_assert!(queue.may_send(size(length)));
                prop_assert_eq!(put(&queue, &bytes), Sent::Yes);
                model.push_back(bytes);
            } else {
                prop_assert_eq!(get(&queue), model.pop_front());
            }
            prop_assert_eq!(queue.count(), model.len() as u64);
        }
        while let Some(bytes) = model.pop_front() {
            prop_assert_eq!(get(&queue), Some(bytes));
        }
        prop_assert_eq!(get(&queue), None);
        prop_assert!(queue.own(HEAD).unwrap().ring < LONG, "a long ring was left");
        prop_assert_eq!(queue.slack(), 0);
    }

    /// A queue with limits refuses, and takes again; a look says so beforehand.
    #[test]
    fn limits_hold(most in 0_u64..5, lengths in prop::collection::vec(0_usize..400, 1..200)) {
        let queue = queue(shape(most, 256));
        let mut model = std::collections::VecDeque::new();
        for (number, length) in lengths.into_iter().enumerate() {
            let bytes = bytes_of(number, length);
            let may = queue.may_send(size(length));
            let sent = put(&queue, &bytes);
            prop_assert_eq!(sent == Sent::Yes, may);
            if sent == Sent::Yes {
                model.push_back(bytes);
                prop_assert!(most == 0 || model.len() as u64 <= most);
            } else {
                prop_assert_eq!(sent, Sent::Full);
                prop_assert!(!model.is_empty(), "an empty queue takes anything");
                for _ in 0..=number % 3 {
                    prop_assert_eq!(get(&queue), model.pop_front());
                }
            }
        }
    }
}

#[test]
fn rings_in_use_are_left_alone_however_full_it_gets() {
    let queue = queue(Shape { rings: 3, ..shape(0, 0) });
    let (mut sent, mut received) = (0, 0);
    for round in 0..200 {
        while put(&queue, &bytes_of(sent, sent % 30)) == Sent::Yes {
            sent += 1;
        }
        assert!(sent > received, "it holds some");
        for _ in 0..(round % 25 + 1).min(sent - received) {
            assert_eq!(get(&queue), Some(bytes_of(received, received % 30)));
            received += 1;
        }
    }
    assert!(sent > 1000, "{sent}");
}

#[test]
fn a_backlog_enters_a_long_ring_only_if_told() {
    let queue = queue(shape(0, 0));
    let send = |grow, length| {
        queue
            .send(ME(), &Alone, Patience::None, grow, (&[&vec![1; length][..]][..]).into())
            .unwrap()
    };
    while send(false, 40) == Sent::Yes {}
    assert!(queue.count() > 4, "it has left the first ring");
    assert!(!queue.may_send_here(size(40)) && queue.may_send(size(40)));
    assert_eq!(send(false, 40), Sent::Tight);
    assert_eq!(send(false, 9000), Sent::Yes, "too long for where it is");
    let before = queue.count();
    get(&queue);
    assert_eq!(send(true, 40), Sent::Yes);
    assert_eq!(queue.count(), before);
}

#[test]
fn what_is_unfinished_is_a_difference() {
    let queue = queue(shape(0, 0));
    assert!(queue.task_done(&Alone).is_err());
    for number in 0..3 {
        put(&queue, &[number]);
    }
    assert_eq!(get(&queue), Some(vec![0]));
    assert_eq!((queue.count(), queue.unfinished()), (2, 3));
    queue.task_done(&Alone).unwrap();
    assert!(!queue.wait_finished(&Alone));
    queue.task_done(&Alone).unwrap();
    queue.task_done(&Alone).unwrap();
    assert!(queue.wait_finished(&Alone));
    assert!(queue.task_done(&Alone).is_err());
}

#[test]
fn a_queue_that_is_shut_is_emptied_or_not() {
    for at_once in [false, true] {
        let queue = queue(shape(0, 0));
        for number in 0..3 {
            put(&queue, &[number]);
        }
        assert_eq!(get(&queue), Some(vec![0]));
        queue.shut(at_once, &Alone);
        queue.shut(false, &Alone);
        assert_eq!(put(&queue, &[9]), Sent::Shut);
        let mut into = Vec::new();
        let mut receive = || {
            queue
                .receive(ME(), &Alone, Patience::None, usize::MAX, |shown| shown.copy(&mut into))
                .unwrap()
        };
        if at_once {
            assert_eq!(queue.count(), 0);
            assert_eq!(queue.unfinished(), 1, "the one that was received");
        } else {
            assert_eq!((receive(), receive()), (Got::Message, Got::Message));
        }
        assert_eq!(receive(), Got::Shut);
    }
}

struct Bytes(std::cell::Cell<usize>);

impl super::token::Doorbell for Bytes {
    fn ring(&self) -> bool {
        self.0.set(self.0.get() + 1);
        true
    }
    fn clear(&self) {
        self.0.set(0);
    }
}

#[test]
fn the_token_follows_the_queue() {
    let (queue, bell) = (queue(shape(0, 0)), Bytes(std::cell::Cell::new(0)));
    let send = || {
        queue.herald(ME(), &Alone, &bell);
        put(&queue, b"x");
        assert!(queue.announce(ME(), &Alone, &bell));
    };
    let receive = || {
        get(&queue);
        queue.denounce(ME(), &Alone, &bell, false);
    };
    send();
    assert_eq!(bell.0.get(), 0, "nobody watches");
    queue.watch();
    queue.settle(ME(), &Alone, &bell);
    assert_eq!(bell.0.get(), 1);
    send();
    assert_eq!(bell.0.get(), 1, "one byte is enough");
    receive();
    assert_eq!(bell.0.get(), 1);
    receive();
    assert_eq!(bell.0.get(), 0);
    queue.herald(ME(), &Alone, &bell);
    assert_eq!(bell.0.get(), 1);
    receive();
    assert_eq!(bell.0.get(), 0, "it did not come");
    queue.shut(false, &Alone);
    queue.settle(ME(), &Alone, &bell);
    assert_eq!(bell.0.get(), 1, "that it is shut is something to receive");
}

#[test]
fn a_token_is_put_for_who_rests() {
    let (queue, bell) = (queue(shape(0, 0)), Bytes(std::cell::Cell::new(0)));
    let send = || {
        queue.herald(ME(), &Alone, &bell);
        put(&queue, b"x");
        assert!(queue.announce(ME(), &Alone, &bell));
    };
    send();
    assert_eq!(bell.0.get(), 0, "nobody rests");
    queue.start_resting();
    assert!(queue.will_ring());
    send();
    assert_eq!(bell.0.get(), 1);
    assert!(!queue.will_ring(), "it is there");
    send();
    assert_eq!(bell.0.get(), 1, "once is enough");
    queue.stop_resting();
    queue.wake_up(ME(), &Alone, &bell);
    assert_eq!(bell.0.get(), 0);
    send();
    assert_eq!(bell.0.get(), 0, "nobody rests");
    queue.watch();
    queue.settle(ME(), &Alone, &bell);
    queue.wake_up(ME(), &Alone, &bell);
    assert_eq!(bell.0.get(), 1, "there is something, and somebody watches");
}

/// A doorbell that somebody sends by, right before or right after it is cleared.
struct Meanwhile<'a> {
    bytes: &'a Bytes,
    before: bool,
    send: &'a dyn Fn(),
}

impl super::token::Doorbell for Meanwhile<'_> {
    fn ring(&self) -> bool {
        super::token::Doorbell::ring(self.bytes)
    }
    fn clear(&self) {
        if self.before {
            (self.send)();
        }
        super::token::Doorbell::clear(self.bytes);
        if !self.before {
            (self.send)();
        }
    }
}

#[test]
fn who_takes_the_bytes_leaves_no_sender_thinking_that_they_are_there() {
    for before in [true, false] {
        let (queue, bytes) = (queue(shape(0, 0)), Bytes(std::cell::Cell::new(0)));
        let send = || {
            put(&queue, b"x");
            assert!(queue.announce(ME(), &Alone, &bytes));
        };
        queue.start_resting(); // another receiver, who stays there
        queue.start_resting();
        send();
        queue.stop_resting();
        queue.wake_up(ME(), &Alone, &Meanwhile { bytes: &bytes, before, send: &send });
        for _ in 0..2 {
            get(&queue);
        }
        assert!(queue.will_ring(), "nothing is there");
        send();
        assert_eq!(bytes.0.get(), 1);
    }
}

#[test]
fn a_place_to_spin_is_free_again_in_time() {
    let queue = queue(shape(0, 0));
    assert!(queue.start_spinning(100, 140));
    assert!(!queue.start_spinning(120, 160));
    assert!(queue.start_spinning(140, 180), "whoever had it is gone");
    queue.stop_spinning();
    assert!(queue.start_spinning(141, 181));
}

fn with_shelf(slots: u32, shape: Shape) -> Queue<Arc<HeapWords>, HeapRings> {
    let (words, shape) = (Arc::new(HeapWords::new(head_bytes(slots))), Shape { slots, ..shape });
    Queue::<_, HeapRings>::create(&words, 0, shape);
    Queue::open(words, 0, HeapRings::new(&shape)).unwrap()
}

fn put_parcel(queue: &Queue<Arc<HeapWords>, HeapRings>, slot: u32, bytes: u64) -> Sent {
    let load = Load { parts: &[b"line"], parcel: Some(Parcel { slot, bytes }) };
    assert_eq!(load.size(), Size { in_ring: 12, on_shelf: bytes });
    let may = queue.may_send(load.size());
    let sent = queue.send(ME(), &Alone, Patience::None, true, load).unwrap();
    assert_eq!(sent == Sent::Yes, may, "a look says so beforehand");
    sent
}

#[test]
fn parcels_count_as_if_they_were_in_the_ring() {
    let queue = with_shelf(3, shape(0, 256));
    assert_eq!(put_parcel(&queue, 0, 1000), Sent::Yes, "it is empty");
    assert_eq!(put_parcel(&queue, 1, 1), Sent::Full);
    assert_eq!(put(&queue, b"short"), Sent::Full);
    assert_eq!(get(&queue), Some(b"line".to_vec()));
    assert_eq!(put_parcel(&queue, 1, 100), Sent::Yes);
    assert_eq!(put_parcel(&queue, 0, 100), Sent::Yes);
    assert_eq!(put_parcel(&queue, 2, 100), Sent::Full);
    let named: Vec<_> = queue.unnamed().map(|slot| slot.slot).collect();
    assert_eq!(named, [2]);
    assert_eq!(queue.parcels(), 3);
}

#[test]
fn nonsense_on_the_shelf_is_an_error_and_not_a_panic() {
    let slots = 2;
    for word in (HEAD_BYTES..head_bytes(slots)).step_by(8) {
        for value in [1, 7, 1 << 40, u64::MAX] {
            let queue = with_shelf(slots, shape(0, 256));
            assert_eq!(put_parcel(&queue, 1, 9), Sent::Yes);
            queue.words().store(word, value, Relaxed);
            let load = Load { parts: &[], parcel: Some(Parcel { slot: 0, bytes: 1 }) };
            let _any = queue.send(ME(), &Alone, Patience::None, true, load);
            assert!(queue.unnamed().count() <= slots as usize);
            assert_eq!(get(&queue), Some(b"line".to_vec()));
        }
    }
    for name in [2, 0xffff, 1, u64::MAX] {
        let queue = with_shelf(slots, shape(0, 0));
        put_parcel(&queue, 1, 9);
        // no slot of that number, or nothing in it
        queue.rings().0[0].store(8, name, Relaxed);
        let got = queue.receive(ME(), &Alone, Patience::None, usize::MAX, |_| Ok(()));
        assert!(got.is_err(), "{name}");
    }
}

#[test]
fn nonsense_is_an_error_and_not_a_panic() {
    let words = Arc::new(HeapWords::new(HEAD_BYTES));
    let rings = HeapRings::new(&shape(0, 0));
    assert!(Queue::open(words.clone(), 0, rings.clone()).is_err(), "nothing there");
    Queue::<_, HeapRings>::create(&words, 0, shape(0, 0));
    for word in (0..HEAD_BYTES).step_by(8) {
        for value in [1, 7, 1 << 20, 1 << 56, 1 << 60, u64::MAX] {
            let words = Arc::new(HeapWords::new(HEAD_BYTES));
            Queue::<_, HeapRings>::create(&words, 0, shape(0, 0));
            if word >= 64 && words.load(word, Relaxed) == 0 && word != TAIL && word != HEAD {
                let queue = Queue::open(words.clone(), 0, rings.clone()).unwrap();
                put(&queue, b"one");
                words.store(word, value, Relaxed);
                let mut into = Vec::new();
                for _ in 0..3 {
                    let _any =
                        queue.send(ME(), &Alone, Patience::None, true, (&[&b"two"[..]][..]).into());
                    let _any = queue.receive(ME(), &Alone, Patience::None, usize::MAX, |shown| {
                        shown.copy(&mut into)
                    });
                }
            }
        }
    }
    let ring = &rings.0[0];
    for value in [0, 2, 3, 0xff01, 1 << 40 | 1, u64::MAX] {
        let words = Arc::new(HeapWords::new(HEAD_BYTES));
        Queue::<_, HeapRings>::create(&words, 0, shape(0, 0));
        let queue = Queue::open(words, 0, rings.clone()).unwrap();
        put(&queue, b"one");
        ring.store(0, value, Relaxed);
        let mut into = Vec::new();
        assert!(
            queue
                .receive(ME(), &Alone, Patience::None, usize::MAX, |shown| shown.copy(&mut into))
                .is_err(),
            "{value}"
        );
    }
}
