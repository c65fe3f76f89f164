//! Calls from one thread to a thread of another process, one at a time: `oxgang_shm::line` with the
//! kernel's help.
//!
//! # Coming to be
//!
//! | step | by | if it goes wrong |
//! |---|---|---|
//! | the two have a connected socket, and trust each other | – | – |
//! | makes the memory; sends it, the page of places, and a handle of itself | answerer | the socket closes |
//! | opens them; sends a handle of itself | asker | the socket closes |
//!
//! Each step is waited for [`GREETING`] at most.
//!
//! # Who is alive
//!
//! A thread that goes, or a process that ends, closes the socket; but a fork may hold it open. So
//! each side also has a handle of the other's process (a pidfd, which the other sent of itself: it
//! cannot mean another process). Who sleeps, sleeps on both: the bell that wakes it is a byte in the
//! socket. Before that it dozes on a word of the shared memory, which is quicker to wake from and
//! hears of no death, for [`DOZE`] at most. Idle lines cost nothing.
//!
//! # Forks
//!
//! A line belongs to the process that made its end. A child has copies of the descriptors, which it
//! closes; its parent's line goes on.

mod shelf;

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use oxgang_os::Result;
use oxgang_os::bell::Bell;
use oxgang_os::event::wait_readable;
use oxgang_os::futex::{self, Woken};
use oxgang_os::link::Message;
use oxgang_os::process::{self, Process};
use oxgang_os::segment::Segment;
use oxgang_shm::Corrupt;
use oxgang_shm::line::{self, DOZES, End, Found, SLEEPS, Wake};
use oxgang_shm::watch::{WATCH_BYTES, Watch};

use self::shelf::Shelf;
use crate::segment::Mapped;
use crate::shelf::{Apart, Letter};
use crate::spin::{Spinner, budget_of_process};

/// Bytes of each ring.
const RING: usize = 128 << 10;
/// How long the other side may take to take a line up.
pub const GREETING: Duration = Duration::from_secs(30);
/// For how long nobody hears of a death, at most.
const DOZE: Duration = Duration::from_millis(5);
/// How often somebody is asked whether to give up, where signals can come unseen.
const SLICE: Duration = Duration::from_millis(100);
const HELLO: &[u8] = b"oxgang line 1";

/// Places to spin at, shared by one answering process and all who ask it.
#[derive(Debug)]
pub struct Places {
    segment: Segment,
    watch: Watch<Mapped>,
}

impl Places {
    /// As many as there are CPUs; none where there is one.
    ///
    /// # Errors
    /// If there is no memory or descriptor for it.
    pub fn new() -> Result<Self> {
        let segment = Segment::create("oxgang places", WATCH_BYTES as u64)?;
        let watch = Watch::new(Mapped::new(segment.map(0, WATCH_BYTES)?));
        let cpus = oxgang_os::cpus::usable();
        watch.set_spin_limit(if cpus > 1 { cpus as u64 } else { 0 });
        Ok(Self { segment, watch })
    }
}

/// Why there is no message.
#[derive(Debug)]
pub enum Trouble {
    /// The other side is gone.
    Gone,
    /// Who was asked whether to give up, did.
    Stopped,
    /// The line cannot be used any more.
    Broken(std::io::Error),
}

impl From<Corrupt> for Trouble {
    fn from(error: Corrupt) -> Self {
        Self::Broken(std::io::Error::other(error))
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Who is asked whether to give up.
pub struct Patience<'a> {
    give_up: &'a dyn Fn() -> bool,
    /// Whether to ask also when no signal is known to have come.
    sliced: bool,
}

impl<'a> Patience<'a> {
    /// `sliced`: a signal may come right before a sleep, and is for this thread; so it sleeps in
    /// slices, and asks after each.
    pub fn new(sliced: bool, give_up: &'a dyn Fn() -> bool) -> Self {
        Self { give_up, sliced }
    }
}

/// One side of a line.
#[derive(Debug)]
pub struct Line {
    end: End<Mapped>,
    words: Mapped,
    bell: Arc<Bell>,
    peer: Process,
    watch: Watch<Mapped>,
    spinner: Spinner,
    born: u64,
    shelf: Shelf,
    /// A question is open.
    open: bool,
}

impl Line {
    /// Makes a line over a connected Unix socket in which nothing is unread: the answerer's side.
    ///
    /// # Errors
    /// If there is no memory or descriptor for it, or the other side does not take it up.
    pub fn offer(socket: OwnedFd, places: &Places) -> Result<Self> {
        let segment = Segment::create("oxgang line", line::bytes(RING) as u64)?;
        let words = Mapped::new(segment.map(0, line::bytes(RING))?);
        let end = End::create(words.clone(), RING);
        let bell = Bell::adopt(socket);
        let me = myself()?;
        bell.greet(&hello(), &[segment.as_fd(), places.segment.as_fd(), me.as_fd()])?;
        let mut greeting = greeted(&bell)?;
        let peer = peer_of(&mut greeting)?;
        let shelf = Shelf::new(Arc::new(segment), 0);
        Ok(Self::new((end, words, shelf), bell, peer, places.watch.clone()))
    }

    /// Takes up the line that the other side offers: the asker's side.
    ///
    /// # Errors
    /// If it offers none, or what it offers cannot be mapped.
    pub fn take_up(socket: OwnedFd) -> Result<Self> {
        let bell = Bell::adopt(socket);
        let mut greeting = greeted(&bell)?;
        let peer = peer_of(&mut greeting)?;
        let mut segments = greeting.fds.into_iter().map(Segment::adopt);
        let mut next = || segments.next().unwrap_or_else(|| Err(no_line("it sent no memory")));
        let (memory, places) = (next()?, next()?);
        let length = usize::try_from(memory.length()?).map_err(std::io::Error::other)?;
        let words = Mapped::new(memory.map(0, length)?);
        let end = End::open(words.clone()).map_err(std::io::Error::other)?;
        let watch = Watch::new(Mapped::new(places.map(0, WATCH_BYTES)?));
        bell.greet(&hello(), &[myself()?.as_fd()])?;
        let shelf = Shelf::new(Arc::new(memory), 1);
        Ok(Self::new((end, words, shelf), bell, peer, watch))
    }

    fn new(
        (end, words, shelf): (End<Mapped>, Mapped, Shelf),
        bell: Bell,
        peer: Process,
        watch: Watch<Mapped>,
    ) -> Self {
        let spinner = Spinner::new(budget_of_process());
        let (bell, born) = (Arc::new(bell), crate::generation());
        Self { end, words, bell, peer, watch, spinner, born, shelf, open: false }
    }

    /// The other side's process.
    #[must_use]
    pub fn peer(&self) -> i32 {
        self.peer.pid
    }

    /// Whether the other side, which is gone, went with its process. A process that ends closes its
    /// sockets a moment earlier, so this waits for `limit` at most.
    #[must_use]
    pub fn went_with_process(&self, limit: Duration) -> bool {
        let ended = wait_readable(&[self.peer.as_fd()], Some(limit)).is_ok_and(|ended| ended[0]);
        if ended {
            self.watch.forget_spinners(); // it may have been one
        }
        ended
    }

    /// By which another thread ends it while it is in use: [`Bell::hang_up`].
    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Whether the next question can be asked: none is open, and no fork lies between.
    #[must_use]
    pub fn usable(&self) -> bool {
        !self.open && self.born == crate::generation()
    }

    /// Asks; the answer comes behind what is in `into`. What came apart from it is in the slot
    /// that this gives: to be looked at before the next question.
    ///
    /// # Errors
    /// If there is no answer. What the question led to is not known then, and the line is done for.
    pub fn ask(
        &mut self,
        question: Letter<'_>,
        into: &mut Vec<u8>,
        patience: &Patience<'_>,
    ) -> std::result::Result<Option<u32>, Trouble> {
        if !self.usable() {
            return Err(Trouble::Broken(std::io::Error::other(
                "the line has an open question, or is another process's",
            )));
        }
        self.open = true;
        self.say(question, patience)?;
        let slot = self.listen(into, patience)?;
        self.open = false;
        Ok(slot)
    }

    /// Says something: the answer, if this is the answerer's side.
    ///
    /// # Errors
    /// If it was not said whole.
    pub fn say(
        &mut self,
        message: Letter<'_>,
        patience: &Patience<'_>,
    ) -> std::result::Result<(), Trouble> {
        let packed = self.shelf.pack(message.apart);
        let (tag, message) = match &packed {
            Some(packed) => (u64::from(packed.slot) + 1, in_one(message.parts)),
            None if message.apart.is_empty() => (0, in_one(message.parts)),
            None => (0, Cow::Owned(message.in_line().concat())),
        };
        self.end.begin();
        let mut at = 0;
        loop {
            let (count, done) = self.end.say(&message[at..], tag)?;
            at += count;
            if count > 0 || done {
                self.rouse(self.end.wake_needed());
            }
            if done {
                return Ok(());
            }
            if count == 0 {
                self.rest(patience, |end| end.has_room().unwrap_or(true))?;
            }
        }
    }

    /// Waits for what the other side says: the next question, if this is the answerer's side. What
    /// came apart from it is in the slot that this gives: to be looked at before the answer.
    ///
    /// # Errors
    /// If nothing comes.
    pub fn listen(
        &mut self,
        into: &mut Vec<u8>,
        patience: &Patience<'_>,
    ) -> std::result::Result<Option<u32>, Trouble> {
        loop {
            match self.end.hear(into)? {
                Found::Message(0) => return Ok(None),
                Found::Message(tag) => {
                    let slot = u32::try_from(tag - 1).map_err(std::io::Error::other)?;
                    return Ok(Some(slot));
                }
                Found::Part(wake) => self.rouse(wake),
                Found::Nothing => self.rest(patience, |end| end.has_more())?,
            }
        }
    }

    /// So many bytes that the other side has put into a slot.
    ///
    /// # Errors
    /// If there is no such slot, or neither room for a mapping nor memory for a copy.
    pub fn look(&mut self, slot: u32, bytes: usize) -> Result<Apart> {
        self.shelf.look(slot, bytes)
    }

    fn rouse(&self, wake: Wake) {
        match wake {
            Wake::Not => {}
            Wake::Word => {
                futex::wake(self.words.futex_word(self.end.other_word()), 1);
            }
            Wake::Bell => self.bell.ring(),
        }
    }

    /// Waits until `ready`, or until that cannot come to be.
    fn rest(
        &mut self,
        patience: &Patience<'_>,
        ready: impl Fn(&mut End<Mapped>) -> bool,
    ) -> std::result::Result<(), Trouble> {
        if self.spinner.spin(&self.watch, || ready(&mut self.end)) {
            return Ok(());
        }
        let mut how = DOZES;
        loop {
            self.end.prepare_sleep(how);
            let slept = if ready(&mut self.end) {
                Ok(Slept::Woken)
            } else if how == DOZES {
                Ok(self.doze())
            } else {
                self.sleep(patience.sliced.then_some(SLICE))
            };
            self.end.wake();
            let slept = slept?;
            // what was said before the end counts
            if ready(&mut self.end) {
                return Ok(());
            }
            match slept {
                Slept::Woken => {}
                Slept::LongEnough => how = SLEEPS,
                Slept::Interrupted => {
                    if (patience.give_up)() {
                        return Err(Trouble::Stopped);
                    }
                }
                Slept::Alone => return Err(Trouble::Gone),
            }
        }
    }

    fn doze(&self) -> Slept {
        let word = self.words.futex_word(self.end.own_word());
        match futex::wait(word, DOZES as u32, Some(DOZE)) {
            Woken::Maybe => Slept::Woken,
            Woken::TimeUp => Slept::LongEnough,
            Woken::Signal => Slept::Interrupted,
        }
    }

    fn sleep(&self, limit: Option<Duration>) -> Result<Slept> {
        let woken = wait_readable(&[self.bell.as_fd(), self.peer.as_fd()], limit)?;
        Ok(match (woken[0], woken[1]) {
            (_, true) => Slept::Alone,
            (true, _) if !self.bell.clear() => Slept::Alone,
            (true, _) => Slept::Woken,
            (false, false) => Slept::Interrupted,
        })
    }
}

/// Why a sleep is over.
enum Slept {
    /// Somebody woke this side, or need not have.
    Woken,
    /// The doze is over.
    LongEnough,
    /// A signal came, or may have come unseen.
    Interrupted,
    /// The other side is gone.
    Alone,
}

fn in_one<'a>(parts: &[&'a [u8]]) -> Cow<'a, [u8]> {
    match parts {
        [one] => Cow::Borrowed(one),
        _ => Cow::Owned(parts.concat()),
    }
}

fn myself() -> Result<Process> {
    let (pid, _) = process::own_numbers();
    Process::open(pid.cast_signed())
}

fn hello() -> Vec<u8> {
    let (pid, _) = process::own_numbers();
    [HELLO, &pid.to_le_bytes()].concat()
}

fn no_line(why: &str) -> std::io::Error {
    std::io::Error::other(format!("the other side offers no line: {why}"))
}

fn greeted(bell: &Bell) -> Result<Message> {
    if wait_readable(&[bell.as_fd()], Some(GREETING))? != [true] {
        return Err(no_line("it says nothing"));
    }
    bell.greeted()?.ok_or_else(|| no_line("it has hung up"))
}

/// The handle of itself that the other side sent last.
fn peer_of(greeting: &mut Message) -> Result<Process> {
    let rest = greeting.bytes.strip_prefix(HELLO).and_then(<[u8]>::first_chunk);
    let pid = rest.map(|pid| i32::from_le_bytes(*pid));
    let (Some(pid), Some(fd)) = (pid, greeting.fds.pop()) else {
        return Err(no_line("it speaks another version"));
    };
    Ok(Process::adopt(pid, fd))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use oxgang_shm::Words;

    use super::*;
    use crate::shelf::{SLOTS, WORTH_SLOT};

    fn pair() -> (Line, Line) {
        let (one, other) = oxgang_os::link::Link::pair().unwrap();
        let places = Places::new().unwrap();
        std::thread::scope(|scope| {
            let offered = scope.spawn(|| Line::offer(one.into_fd(), &places).unwrap());
            let asker = Line::take_up(other.into_fd()).unwrap();
            (asker, offered.join().unwrap())
        })
    }

    fn letter<'a>(parts: &'a [&'a [u8]]) -> Letter<'a> {
        parts.into()
    }

    const STEADFAST: Patience<'static> = Patience { give_up: &|| false, sliced: false };

    #[test]
    fn questions_are_answered_however_long() {
        let (mut asker, mut answerer) = pair();
        assert_eq!(asker.peer(), std::process::id().cast_signed());
        let server = std::thread::spawn(move || {
            let mut heard = Vec::new();
            while answerer.listen(&mut heard, &STEADFAST).is_ok() {
                heard.reverse();
                answerer.say(letter(&[&heard]), &STEADFAST).unwrap();
                heard.clear();
            }
        });
        for length in [0, 1, 100, RING / 4, RING, 10 * RING + 3] {
            let question: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut answer = Vec::new();
            let (one, other) = question.split_at(length / 2);
            asker.ask(letter(&[one, other]), &mut answer, &STEADFAST).unwrap();
            answer.reverse();
            assert_eq!(answer, question);
        }
        drop(asker);
        server.join().unwrap();
    }

    #[test]
    fn an_answer_that_came_before_the_end_counts() {
        let (mut asker, mut answerer) = pair();
        asker.open = true;
        asker.say(letter(&[b"question"]), &STEADFAST).unwrap();
        answerer.listen(&mut Vec::new(), &STEADFAST).unwrap();
        answerer.say(letter(&[b"answer"]), &STEADFAST).unwrap();
        drop(answerer);
        let mut answer = Vec::new();
        assert_eq!(asker.listen(&mut answer, &STEADFAST).unwrap(), None);
        assert_eq!(answer, b"answer");
        let none = asker.listen(&mut answer, &STEADFAST);
        assert!(matches!(none, Err(Trouble::Gone)));
        assert!(!asker.usable());
    }

    #[test]
    fn a_death_between_the_answer_and_its_wake_loses_nothing() {
        let (mut asker, mut answerer) = pair();
        let waiting = std::thread::spawn(move || {
            let mut answer = Vec::new();
            asker.ask(letter(&[b"question"]), &mut answer, &STEADFAST).map(|slot| (slot, answer))
        });
        answerer.listen(&mut Vec::new(), &STEADFAST).unwrap();
        while answerer.words.load(answerer.end.other_word(), Relaxed) != SLEEPS {
            std::thread::yield_now();
        }
        answerer.end.begin();
        answerer.end.say(b"answer", 0).unwrap();
        drop(answerer);
        assert_eq!(waiting.join().unwrap().unwrap(), (None, b"answer".to_vec()));
    }

    #[test]
    fn a_wait_can_be_given_up_and_the_line_is_done_for() {
        let (mut asker, _answerer) = pair();
        let given_up = asker.ask(letter(&[b"?"]), &mut Vec::new(), &Patience::new(true, &|| true));
        assert!(matches!(given_up, Err(Trouble::Stopped)));
        assert!(!asker.usable());
        let again = asker.ask(letter(&[b"?"]), &mut Vec::new(), &STEADFAST);
        assert!(matches!(again, Err(Trouble::Broken(_))));
    }

    #[test]
    fn who_waits_is_told_when_somebody_hangs_up() {
        let (mut asker, mut answerer) = pair();
        let bell = answerer.bell();
        let waiting = std::thread::spawn(move || {
            matches!(answerer.listen(&mut Vec::new(), &STEADFAST), Err(Trouble::Gone))
        });
        bell.hang_up();
        assert!(waiting.join().unwrap());
        let gone = asker.ask(letter(&[b"?"]), &mut Vec::new(), &STEADFAST);
        assert!(matches!(gone, Err(Trouble::Gone)));
    }

    #[test]
    fn long_bytes_go_apart_and_stay_as_long_as_somebody_looks() {
        let (mut asker, mut answerer) = pair();
        let server = std::thread::spawn(move || {
            let (mut heard, mut kept) = (Vec::new(), Vec::new());
            while let Ok(slot) = answerer.listen(&mut heard, &STEADFAST) {
                let came = answerer.look(slot.unwrap(), WORTH_SLOT).unwrap();
                let mut all = vec![0; WORTH_SLOT];
                came.mapping().read(0, &mut all);
                if kept.len() < 3 {
                    kept.push(came); // by the fourth a slot has to be used again
                }
                answerer.say(Letter { parts: &[&heard], apart: &[&all] }, &STEADFAST).unwrap();
                heard.clear();
            }
            let mut byte = [0];
            let first = kept.iter().map(|came| {
                came.mapping().read(WORTH_SLOT - 1, &mut byte);
                byte[0]
            });
            (
                first.collect::<Vec<_>>(),
                answerer.shelf.warm[1].iter().filter(|warm| **warm > 0).count(),
            )
        });
        for number in 0..9_u8 {
            let (long, mut answer) = (vec![number; WORTH_SLOT], Vec::new());
            let letter = Letter { parts: &[b"x", &[number]], apart: &[&long] };
            let slot = asker.ask(letter, &mut answer, &STEADFAST).unwrap();
            assert_eq!(answer, [b'x', number]);
            let mut all = vec![9; WORTH_SLOT];
            asker.look(slot.unwrap(), WORTH_SLOT).unwrap().mapping().read(0, &mut all);
            assert!(all == long);
        }
        assert!(asker.look(SLOTS, 1).is_err(), "there is no such slot");
        drop(asker);
        let (first, used) = server.join().unwrap();
        assert_eq!(first, [0, 1, 2]);
        // four, or a few more if other tests fork meanwhile
        assert!((4..9).contains(&used), "{used}");
    }
}
