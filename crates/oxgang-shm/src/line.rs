//! A line between two that talk in turns: one asks, the other answers, and so on.
//!
//! Two rings of frames, one each way, and a word for each side that says that it sleeps. A line is
//! made for two threads of two processes and goes with either of them; nothing in it is ever
//! repaired.
//!
//! # A message
//!
//! A message of any length is one frame or several: all but the last are [`PART`]s, at most a
//! quarter of the ring each, so that one side writes while the other reads. It exists when its last
//! frame is published. Every message has the number of its turn, which both sides count: an answer
//! to another question cannot be taken for this one's.
//!
//! # A turn, step by step, and what a death after each step means
//!
//! | step | by | if its doer has died then | if the other has died then |
//! |---|---|---|---|
//! | a part is published | asker | no question: nothing happens | the asker hears of it while it waits for room or for the answer |
//! | the last part is published | asker | the question is answered, to nobody | as above: whether it was done is not known |
//! | wake the answerer, if it sleeps | asker | the answerer hears of the death, looks, and answers to nobody | – |
//! | the question is read | answerer | the asker hears of it | the answerer hears of it when it next waits |
//! | the answer is published, part by part | answerer | if the last part is there the answer counts; if not, not | as above |
//! | wake the asker, if it sleeps | answerer | the asker hears of the death, looks, and has its answer | – |
//!
//! Who hears of a death looks into the ring once more before it believes that nothing came.
//! Death itself is the kernel's to tell, not this module's.
//!
//! # Falling asleep and waking
//!
//! | a side's word | it | and is woken by |
//! |---|---|---|
//! | 0 | is awake | nothing |
//! | [`DOZES`] | waits on the word itself, for a moment | the word's becoming 0, and a call of the kernel |
//! | [`SLEEPS`] | waits for whatever else may happen too | the bell |
//!
//! A side stores how it sleeps, fences, and looks once more for what it waits for: a frame, or
//! room. The other publishes a frame, or makes room for one that was announced, fences, and wakes
//! it by what it reads in the word. With the two fences one of them sees the other, also when the
//! sleeper goes from one sleep to the other: it looks in between.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::ring::{Consumer, Full, Producer, RingAt};
use crate::{Corrupt, Words};

/// "oxgangli" and the layout's version.
const MAGIC: u64 = 0x6f78_6761_6e6c_6901;
const AT_MAGIC: usize = 0;
const AT_SHAPE: usize = 8;
const AT_ASLEEP: [usize; 2] = [640, 768];
const AT_DATA: usize = 4096;
const AWAKE: u64 = 0;
/// A side waits on its word.
pub const DOZES: u64 = 1;
/// A side waits for its bell.
pub const SLEEPS: u64 = 2;

/// Kind of a frame that the rest of its message follows.
pub const PART: u8 = 1;
/// Kind of a message's last frame.
pub const LAST: u8 = 2;

/// Bytes of memory of a line whose rings have `ring` bytes each, a multiple of 4096.
#[must_use]
pub const fn bytes(ring: usize) -> usize {
    AT_DATA + 2 * ring
}

/// Which side of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that asks.
    Asker,
    /// The one that answers.
    Answerer,
}

/// What was found in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing more, so far.
    Nothing,
    /// A part of a message, and there may be more now; there is room for it again, for which the
    /// other side must be woken like this.
    Part(Wake),
    /// A message, whole, with the number that was sent along.
    Message(u64),
}

/// How the other side is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Not at all: it is awake.
    Not,
    /// It waits on its word, which has been changed.
    Word,
    /// By its bell.
    Bell,
}

/// One side of a line.
#[derive(Debug)]
pub struct End<W> {
    words: W,
    side: Side,
    out: Producer<W>,
    back: Consumer<W>,
    ring: usize,
    /// Messages begun by this side, and taken in whole.
    said: u64,
    heard: u64,
}

impl<W: Words + Clone> End<W> {
    /// Makes a line in zeroed memory; the answerer's end.
    ///
    /// # Panics
    /// If the memory is smaller than the line, or `ring` is no multiple of 4096.
    pub fn create(words: W, ring: usize) -> Self {
        assert!(ring > 0 && ring.is_multiple_of(4096) && words.len() >= bytes(ring));
        words.store(AT_SHAPE, ring as u64, Relaxed);
        words.store(AT_MAGIC, MAGIC, Release);
        Self::new(words, ring, Side::Answerer)
    }

    /// Opens the line that the other side made; the asker's end.
    ///
    /// # Errors
    /// If the memory holds no line of this version.
    pub fn open(words: W) -> Result<Self, Corrupt> {
        if words.len() < AT_DATA || words.load(AT_MAGIC, Acquire) != MAGIC {
            return Err(Corrupt("no line here, or another version's"));
        }
        let ring = words.load(AT_SHAPE, Relaxed) as usize;
        if ring == 0 || !ring.is_multiple_of(4096) || ring > (words.len() - AT_DATA) / 2 {
            return Err(Corrupt("line longer than its memory"));
        }
        Ok(Self::new(words, ring, Side::Asker))
    }

    fn new(words: W, ring: usize, side: Side) -> Self {
        let asked = RingAt { tail: 128, head: 256, data: AT_DATA, capacity: ring };
        let answered = RingAt { tail: 384, head: 512, data: AT_DATA + ring, capacity: ring };
        let (out, back) = match side {
            Side::Asker => (asked, answered),
            Side::Answerer => (answered, asked),
        };
        let (out, back) = (Producer::new(words.clone(), out), Consumer::new(words.clone(), back));
        Self { words, side, out, back, ring, said: 0, heard: 0 }
    }

    /// Begins a message.
    pub fn begin(&mut self) {
        self.said += 1;
    }

    /// Publishes the next part of the message, of which `rest` is left, if there is room for it: how
    /// much that was, and whether that was all. Zero bytes and not all: there is no room now. `tag`
    /// is a number that goes along with the last part.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn say(&mut self, rest: &[u8], tag: u64) -> Result<(usize, bool), Corrupt> {
        let longest = self.ring / 4;
        let count = rest.len().min(longest);
        let kind = if count == rest.len() { LAST } else { PART };
        Ok(match self.out.push(kind, self.said, tag, &[&rest[..count]])? {
            Ok(_) => (count, kind == LAST),
            Err(Full) => (0, false),
        })
    }

    /// Whether there may be room for a part. To be asked before sleeping for want of it.
    ///
    /// # Errors
    /// If the ring is corrupt.
    pub fn has_room(&mut self) -> Result<bool, Corrupt> {
        self.out.has_room(self.ring / 4, 0)
    }

    /// Takes in the next frame, if there is one, behind what is in `into`.
    ///
    /// # Errors
    /// If the ring is corrupt, or what came belongs to another turn.
    pub fn hear(&mut self, into: &mut Vec<u8>) -> Result<Found, Corrupt> {
        let Some(frame) = self.back.peek()? else { return Ok(Found::Nothing) };
        if frame.id != self.heard + 1 {
            return Err(Corrupt("a message of another turn"));
        }
        let (part, last) = (frame.kind == PART, frame.kind == LAST);
        if !part && !last {
            return Err(Corrupt("a frame of an unknown kind"));
        }
        into.try_reserve(frame.length).map_err(|_| Corrupt("a message too long for this side"))?;
        self.back.read(&frame, into);
        self.back.advance(&frame);
        if last {
            self.heard += 1;
            return Ok(Found::Message(frame.aux));
        }
        Ok(Found::Part(self.wake_needed()))
    }

    /// Whether a frame waits. One load.
    pub fn has_more(&self) -> bool {
        self.back.has_more()
    }

    /// To be called after a publish: whether and how the other side must be woken.
    pub fn wake_needed(&self) -> Wake {
        // sync: fence here -> fence in prepare_sleep
        self.words.fence();
        let word = self.other_word();
        match self.words.load(word, Relaxed) {
            DOZES if self.words.compare_exchange(word, DOZES, AWAKE).is_ok() => Wake::Word,
            SLEEPS => Wake::Bell,
            // what it was and is no more: it looks once more before it sleeps again
            _ => Wake::Not,
        }
    }

    /// Announces sleep: [`DOZES`] or [`SLEEPS`]. Look once more after this; then sleep, or not; then
    /// [`wake`](Self::wake).
    pub fn prepare_sleep(&self, how: u64) {
        self.words.store(self.own_word(), how, Relaxed);
        // sync: fence in wake_needed -> fence here
        self.words.fence();
    }

    /// Ends the sleep that was announced.
    pub fn wake(&self) {
        self.words.store(self.own_word(), AWAKE, Relaxed);
    }

    /// Where the word is that this side dozes on.
    pub fn own_word(&self) -> usize {
        AT_ASLEEP[usize::from(self.side == Side::Answerer)]
    }

    /// Where the other side's is.
    pub fn other_word(&self) -> usize {
        AT_ASLEEP[usize::from(self.side == Side::Asker)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::HeapWords;

    const RING: usize = 4096;
    type Heap = End<Arc<HeapWords>>;

    fn line() -> (Heap, Heap) {
        let words = Arc::new(HeapWords::new(bytes(RING)));
        let answerer = End::create(words.clone(), RING);
        (End::open(words).unwrap(), answerer)
    }

    /// Sends a message, the other side reading whenever there is no room.
    fn send(from: &mut Heap, to: &mut Heap, message: &[u8]) -> Vec<u8> {
        let (mut at, mut heard) = (0, Vec::new());
        from.begin();
        loop {
            let (count, done) = from.say(&message[at..], 7).unwrap();
            at += count;
            if done {
                break;
            }
            if count == 0 {
                assert!(!from.has_room().unwrap());
                assert!(matches!(to.hear(&mut heard).unwrap(), Found::Part(_)));
            }
        }
        while to.hear(&mut heard).unwrap() != Found::Message(7) {
            assert!(to.has_more());
        }
        assert!(!to.has_more());
        heard
    }

    #[test]
    fn messages_of_any_length_take_turns() {
        let (mut asker, mut answerer) = line();
        for length in [0, 1, 7, 8, 1000, 1024, 1025, 2048, 4096, 5000, 100_000] {
            let question: Vec<u8> = (0..length).map(|i| i as u8).collect();
            assert_eq!(send(&mut asker, &mut answerer, &question), question);
            let answer: Vec<u8> = question.iter().rev().copied().collect();
            assert_eq!(send(&mut answerer, &mut asker, &answer), answer);
        }
    }

    #[test]
    fn a_sleeper_is_woken_by_a_message_and_by_room() {
        let (mut asker, mut answerer) = line();
        asker.begin();
        assert_eq!(asker.wake_needed(), Wake::Not);
        answerer.prepare_sleep(SLEEPS);
        asker.say(&[1; 3000], 0).unwrap();
        assert_eq!(asker.wake_needed(), Wake::Bell);
        assert_eq!(asker.wake_needed(), Wake::Bell, "until it has woken");
        answerer.wake();
        assert_eq!(asker.wake_needed(), Wake::Not);
        while asker.say(&[1; 3000], 0).unwrap().0 > 0 {}
        asker.prepare_sleep(DOZES);
        let mut heard = Vec::new();
        assert_eq!(answerer.hear(&mut heard).unwrap(), Found::Part(Wake::Word));
        assert_eq!(answerer.hear(&mut heard).unwrap(), Found::Part(Wake::Not), "once is enough");
    }

    #[test]
    fn another_turns_message_is_refused() {
        let (mut asker, mut answerer) = line();
        asker.begin();
        asker.begin();
        asker.say(b"x", 0).unwrap();
        assert!(answerer.hear(&mut Vec::new()).is_err());
    }

    #[test]
    fn strangers_are_refused() {
        let words = Arc::new(HeapWords::new(bytes(RING)));
        assert!(End::open(words.clone()).is_err(), "zeroes");
        drop(End::create(words.clone(), RING));
        for shape in [0, 1, 2 * RING as u64, u64::MAX] {
            words.store(AT_SHAPE, shape, Relaxed);
            assert!(End::open(words.clone()).is_err(), "shape {shape}");
        }
    }
}
