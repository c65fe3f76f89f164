//! A peer that writes anything at any moment, driven by a string of bytes: for property tests
//! (`tests/hostile.rs`) and for fuzzers (`fuzz/`), which need no more than the bytes.
//!
//! Whatever it writes, the sound end gets what it asked for or `Corrupt`, never panics, never
//! reads beyond its ring, and never goes round in circles.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use oxgang_shm::arena::{Arena, Block};
use oxgang_shm::channel::{OwnerEnd, Shape, WorkerEnd};
use oxgang_shm::line::{self, DOZES, End, Found};
use oxgang_shm::ring::{Consumer, FIRST_INCARNATION, Full, PAD, Producer, READY, REVOKED, RingAt};
use oxgang_shm::{HeapWords, Words};

const AT: RingAt = RingAt { tail: 0, head: 8, data: 16, capacity: 256 };
const RING_BYTES: usize = 16 + 256;

/// The bytes that say what happens next.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        for byte in &mut bytes {
            *byte = self.byte().unwrap_or(0);
        }
        u64::from_le_bytes(bytes)
    }

    /// A value that might do harm: mostly one that is nearly right.
    fn value(&mut self) -> u64 {
        let small = |byte: Option<u8>| u64::from(byte.unwrap_or(0));
        match self.byte().unwrap_or(0) % 8 {
            0 => READY,
            1 => REVOKED,
            2 => PAD,
            3 => small(self.byte()) * 8,
            4 => small(self.byte()) << 32 | small(self.byte()),
            5 => u64::MAX - small(self.byte()),
            6 => small(self.byte()),
            _ => self.word(),
        }
    }

    /// The peer writes a few words.
    fn scribble(&mut self, words: &impl Words, places: &[usize]) {
        for _ in 0..self.byte().unwrap_or(0) % 8 {
            let place = places[usize::from(self.byte().unwrap_or(0)) % places.len()];
            words.store(place, self.value(), Relaxed);
        }
    }
}

fn all(bytes: usize) -> Vec<usize> {
    (0..bytes).step_by(8).collect()
}

/// A consumer, whose producer is the stranger.
pub fn consumer(data: &[u8]) {
    let mut script = Script(data);
    let words = Arc::new(HeapWords::new(RING_BYTES));
    let mut consumer = Consumer::new(words.clone(), AT);
    let places = all(RING_BYTES);
    let mut sound = Producer::new(words.clone(), AT);
    // it was sound for a while: the ring stands anywhere, and may hold frames to be spoilt
    for _ in 0..script.byte().unwrap_or(0) % 16 {
        let length = usize::from(script.byte().unwrap_or(0)) % (AT.longest_payload() + 1);
        if sound.push(1, 7, 9, &[&vec![1; length]]) != Ok(Err(Full))
            && script.byte().unwrap_or(0) % 4 > 0
            && let Ok(Some(frame)) = consumer.peek()
        {
            consumer.advance(&frame);
        }
    }
    let mut taken = 0;
    while !script.0.is_empty() {
        script.scribble(&words, &places);
        consumer.has_more();
        match consumer.peek() {
            Err(_) => return, // the channel is given up
            Ok(None) => {}
            Ok(Some(frame)) => {
                assert!(frame.length <= AT.capacity, "longer than its ring");
                script.scribble(&words, &places);
                consumer.claim(&frame, FIRST_INCARNATION);
                let mut into = vec![1];
                consumer.read(&frame, &mut into);
                assert_eq!(into.len(), 1 + frame.length);
                consumer.advance(&frame);
                taken += 1;
            }
        }
    }
    assert!(taken <= data.len() + 16, "frames out of nothing");
}

/// A producer, whose consumer is the stranger.
pub fn producer(data: &[u8]) {
    let mut script = Script(data);
    let words = Arc::new(HeapWords::new(RING_BYTES));
    let mut producer = Producer::new(words.clone(), AT);
    let places = all(RING_BYTES);
    let mut sent = vec![0];
    while let Some(what) = script.byte() {
        script.scribble(&words, &places);
        let length = usize::from(script.byte().unwrap_or(0)) % (AT.longest_payload() + 1);
        let position = sent[usize::from(what) % sent.len()];
        let done = match what % 5 {
            0 | 1 => producer
                .push(what, 7, 9, &[&vec![what; length]])
                .map(|pushed| sent.extend(pushed.ok())),
            2 => producer.revoke(position).map(|_| ()),
            3 => producer.begun(position).and_then(|_| producer.has_room(length, 64)).map(|_| ()),
            _ => producer.used().map(|used| assert!(used <= AT.capacity)),
        };
        if done.is_err() {
            return;
        }
    }
}

const SHAPE: Shape = Shape { requests: 4096, responses: 4096 };

/// The places of a channel where it matters what is there: header, positions, first frames.
fn channel_places() -> Vec<usize> {
    let header = [0, 8, 16, 24, 128, 256, 384, 512, 640, 648];
    let frames = (4096..4096 + 160).chain(8192..8192 + 160).step_by(8);
    header.into_iter().chain(frames).collect()
}

/// A worker, whose owner is the stranger.
pub fn worker(data: &[u8]) {
    let mut script = Script(data);
    let words = Arc::new(HeapWords::new(SHAPE.bytes()));
    let mut owner = OwnerEnd::create(words.clone(), SHAPE, FIRST_INCARNATION);
    let places = channel_places();
    for id in 0..3 {
        owner.requests.push(1, id, id, &[&[id as u8; 20]]).unwrap().unwrap();
    }
    script.scribble(&words, &places);
    let Ok(mut worker) = WorkerEnd::open(words.clone()) else { return };
    let mut payload = Vec::new();
    while !script.0.is_empty() {
        script.scribble(&words, &places);
        let Ok(request) = worker.take(&mut payload) else { return };
        assert!(payload.len() <= worker.shape().requests as usize);
        worker.prepare_sleep();
        worker.wake();
        script.scribble(&words, &places);
        let id = request.map_or(1, |request| request.id);
        if worker.publish(2, id, 0, &[&payload]).is_err() || worker.responses_pile_up().is_err() {
            return;
        }
    }
}

/// An owner, whose worker is the stranger.
pub fn owner(data: &[u8]) {
    let mut script = Script(data);
    let words = Arc::new(HeapWords::new(SHAPE.bytes()));
    let mut owner = OwnerEnd::create(words.clone(), SHAPE, FIRST_INCARNATION);
    let places = channel_places();
    let mut sent = Vec::new();
    if let Ok(mut worker) = WorkerEnd::open(words.clone()) {
        // some sound answers, to be spoilt
        for id in 0..3 {
            worker.publish(1, id, 0, &[&[id as u8; 20]]).unwrap().unwrap();
        }
    }
    while let Some(what) = script.byte() {
        script.scribble(&words, &places);
        owner.ring_needed();
        let pushed = owner.requests.push(1, 7, 0, &[&vec![what; usize::from(what)]]);
        let Ok(pushed) = pushed else { return };
        sent.extend(pushed.ok());
        script.scribble(&words, &places);
        match owner.responses.peek() {
            Err(_) => return,
            Ok(None) => {}
            Ok(Some(frame)) => {
                let mut body = Vec::new();
                owner.responses.read(&frame, &mut body);
                assert_eq!(body.len(), frame.length);
                owner.responses.advance(&frame);
            }
        }
        let position = sent.get(usize::from(what) % sent.len().max(1)).copied().unwrap_or(0);
        if owner.requests.revoke(position).is_err() || owner.requests.begun(position).is_err() {
            return;
        }
    }
}

/// Descriptions of blocks: whatever is accepted is inside of its extent, and that of its file.
pub fn block(data: &[u8]) {
    let mut script = Script(data);
    let file = script.value();
    let mut bytes = Vec::new();
    for _ in 0..4 {
        bytes.extend(script.value().to_le_bytes());
    }
    bytes.extend_from_slice(&script.0[..script.0.len().min(2)]);
    let mut arena = Arena::new(4096);
    assert!(!arena.take_back(script.value()), "a made-up offset");
    let Some(block) = Block::from_bytes(&bytes, file) else { return };
    let (start, end) =
        (u128::from(block.offset), u128::from(block.offset) + u128::from(block.length));
    let extent_end = u128::from(block.extent) + u128::from(block.extent_length);
    assert!(start >= u128::from(block.extent) && end <= extent_end);
    assert!(extent_end <= u128::from(file) && block.extent_length > 0);
}

/// Either side of a line, whose other side is the stranger.
pub fn line(data: &[u8]) {
    const RING: usize = 4096;
    let mut script = Script(data);
    let words = Arc::new(HeapWords::new(line::bytes(RING)));
    let header = [0, 8, 128, 256, 384, 512, 640, 768];
    let frames = (4096..4096 + 160).chain(8192..8192 + 160).step_by(8);
    let places: Vec<usize> = header.into_iter().chain(frames).collect();
    let mut answerer = End::create(words.clone(), RING);
    let Ok(mut asker) = End::open(words.clone()) else { return };
    // it was sound for a while, and left something to be spoilt
    for end in [&mut asker, &mut answerer] {
        end.begin();
        end.say(&[7; 20], 0).unwrap();
    }
    script.scribble(&words, &places);
    let opened = End::open(words.clone());
    let asks = script.byte().unwrap_or(0) % 2 == 0;
    let Ok(mut end) = (if asks { opened } else { Ok(answerer) }) else { return };
    let mut heard = Vec::new();
    while let Some(what) = script.byte() {
        script.scribble(&words, &places);
        match end.hear(&mut heard) {
            Err(_) => return, // the line is given up
            Ok(Found::Message(_)) => heard.clear(),
            Ok(Found::Nothing | Found::Part(_)) => {}
        }
        assert!(heard.len() <= RING * data.len(), "bytes out of nothing");
        end.prepare_sleep(DOZES);
        end.wake();
        end.wake_needed();
        if what % 2 == 0 {
            end.begin();
        }
        script.scribble(&words, &places);
        if end.has_room().is_err() || end.say(&vec![what; usize::from(what) * 9], 0).is_err() {
            return;
        }
    }
}
