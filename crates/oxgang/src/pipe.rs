//! Pipes: one or two lanes between two ends, each of which learns when nobody has the other.
//!
//! Messages go through shared memory; what the kernel alone can tell comes from a kernel's pipe per
//! lane. It says when nobody has the other end open any more, however they ended, and it is what
//! somebody who has to sleep sleeps on. While a receiver sleeps, or somebody watches the number
//! of the descriptor, it holds a token (see `oxgang_shm::queue::token`); otherwise no byte goes
//! through it.
//!
//! | | reads lane | writes lane |
//! |---|---|---|
//! | one-way: first end | 0 | – |
//! | second end | – | 0 |
//! | two-way: first end | 0 | 1 |
//! | second end | 1 | 0 |
//!
//! | who | learns that the other end is gone |
//! |---|---|
//! | a receiver | at once, when it has received all that was sent |
//! | a sender | when it begins to send; while it waits for room, when a slice of the wait is over |
//!
//! A lane is full when it holds [`LIMIT`] bytes or so. An empty one takes a message of any length.

use std::io::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxgang_os::event::{self, Look};
use oxgang_shm::queue::Shown;
use oxgang_shm::sync::{Kernel, Rest, Who};

use crate::lane::{self, Bell, Got, Lane, Patience, Sent};
use crate::region::{self, Region};
use crate::segment::Mapped;
use crate::shelf::{self, Came, Letter, Quiet};
use crate::spin::{Spinner, budget_of_process};
use crate::sync::{Wait, me};

/// From how many bytes on a lane is full, if anything is in it.
pub const LIMIT: usize = 1 << 20;

/// One end.
#[derive(Debug)]
pub struct End {
    region: Arc<Region>,
    lanes: usize,
    /// Which of the two ends.
    second: bool,
    reader: Option<Way>,
    writer: Option<Way>,
}

/// One direction of an end.
#[derive(Debug)]
struct Way {
    lane: Lane,
    fd: OwnedFd,
    spinner: Mutex<Spinner>,
    watched: AtomicBool,
    quiet: Quiet,
}

/// What an end consists of, for passing it on: where its memory is, the numbers of its descriptors
/// to read from and to write to, how many lanes there are, and whether it is the second end.
pub type Parts = (region::Address, Option<i32>, Option<i32>, usize, bool);

/// How receiving, sending, or looking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A message was received or sent; there is something to receive.
    Message,
    /// Nothing; the wait was stopped.
    Nothing,
    /// Nobody has the other end any more.
    Gone,
    /// This end is not made for that.
    NotThisWay,
}

impl Way {
    fn new(region: &Arc<Region>, lane: usize, lanes: usize, fd: OwnedFd) -> Result<Self> {
        let lane = lane::open(region, lane, lanes)?;
        let spinner = Mutex::new(Spinner::new(budget_of_process()));
        Ok(Self { lane, fd, spinner, watched: AtomicBool::new(false), quiet: Quiet::default() })
    }

    /// Before something is sent: whether nobody is there. Not asked if somebody rests and will be
    /// rung for: the answer comes from that.
    fn is_deserted(&self) -> Result<bool> {
        Ok(!self.lane.will_ring() && self.is_gone()?)
    }

    fn is_gone(&self) -> Result<bool> {
        let seen = event::look(self.fd.as_fd(), Some(Duration::ZERO))?;
        Ok(matches!(seen, Look::Seen { gone: true, .. }))
    }
}

/// Waiting for room, with a look at each slice whether anybody is there to make it.
struct Attended<'a> {
    wait: &'a Wait<'a>,
    way: &'a Way,
    gone: std::cell::Cell<bool>,
}

impl Kernel for Attended<'_> {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        let rest = self.wait.sleep(at, seen);
        if rest == Rest::Slice && self.way.is_gone().unwrap_or(true) {
            self.gone.set(true);
            return Rest::Stop;
        }
        rest
    }
    fn wake(&self, at: usize, all: bool) {
        self.wait.wake(at, all);
    }
    fn alive(&self, who: Who) -> bool {
        self.wait.alive(who)
    }
    fn stopped(&self) -> bool {
        self.gone.get() || self.wait.stopped()
    }
}

impl End {
    /// Both ends of a new pipe. Not `two_way`: the first one only receives, the second only sends.
    ///
    /// # Errors
    /// If there is no memory or descriptor for it.
    pub fn pair(two_way: bool) -> Result<(Self, Self)> {
        let lanes = 1 + usize::from(two_way);
        let region = lane::create(&vec![lane::shape(0, LIMIT); lanes])?;
        let (reader, writer) = event::pipe()?;
        let (back_reader, back_writer) = match two_way {
            true => event::pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
            false => (None, None),
        };
        let first = Self::of(region.clone(), Some(reader), back_writer, lanes, false)?;
        Ok((first, Self::of(region, back_reader, Some(writer), lanes, true)?))
    }

    /// The end that consists of these parts; the descriptors are this process's own by now.
    ///
    /// # Errors
    /// If its memory is not to be had any more.
    pub fn assemble(
        memory: region::Address,
        reader: Option<OwnedFd>,
        writer: Option<OwnedFd>,
        lanes: usize,
        second: bool,
    ) -> Result<Self> {
        if !(1..=2).contains(&lanes) {
            return Err(std::io::Error::other("a pipe has one lane or two"));
        }
        Self::of(Region::open(memory)?, reader, writer, lanes, second)
    }

    fn of(
        region: Arc<Region>,
        reader: Option<OwnedFd>,
        writer: Option<OwnedFd>,
        lanes: usize,
        second: bool,
    ) -> Result<Self> {
        let way = |fd: Option<OwnedFd>, lane: usize| {
            fd.map(|fd| Way::new(&region, lane.min(lanes - 1), lanes, fd)).transpose()
        };
        let reader = way(reader, usize::from(second))?;
        let writer = way(writer, usize::from(!second))?;
        Ok(Self { region, lanes, second, reader, writer })
    }

    /// What it consists of.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let number = |way: &Option<Way>| way.as_ref().map(|way| way.fd.as_raw_fd());
        let (reader, writer) = (number(&self.reader), number(&self.writer));
        (self.region.address(), reader, writer, self.lanes, self.second)
    }

    /// The memory that waits are made on.
    #[must_use]
    pub fn words(&self) -> Option<&Mapped> {
        self.reader.as_ref().or(self.writer.as_ref()).map(|way| way.lane.words().mapped())
    }

    /// Whether it can receive.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether it can send.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writer.is_some()
    }

    /// Sends one message, waiting for room as long as `kernel` waits.
    ///
    /// # Errors
    /// If there is no memory for it, or the pipe is corrupt.
    pub fn send(&self, kernel: &Wait<'_>, letter: Letter<'_>) -> Result<Heard> {
        let Some(way) = &self.writer else { return Ok(Heard::NotThisWay) };
        if way.is_deserted()? {
            return Ok(Heard::Gone);
        }
        let kernel = Attended { wait: kernel, way, gone: false.into() };
        // before there is room: while the other end receives what came before
        let packed = shelf::pack(&way.lane, letter.apart);
        let (me, bell) = (me(), Bell::Writer(way.fd.as_fd()));
        way.lane.herald(me, &kernel, &bell);
        let sent = shelf::loaded(packed.as_ref(), letter, |load| {
            way.lane.send_in_time(me, &kernel, load)
        })?;
        let seen = way.lane.announce(me, &kernel, &bell);
        Ok(match sent {
            Sent::Yes if seen => Heard::Message,
            Sent::Yes => Heard::Gone,
            _ if kernel.gone.get() => Heard::Gone,
            _ => Heard::Nothing,
        })
    }

    /// Sends the parts as one message if that needs no waiting at all, else `Nothing`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_now(&self, parts: &[&[u8]]) -> Result<Heard> {
        let Some(way) = &self.writer else { return Ok(Heard::NotThisWay) };
        if way.is_deserted()? {
            return Ok(Heard::Gone);
        }
        let (me, bell) = (me(), Bell::Writer(way.fd.as_fd()));
        let kernel = Wait::steadfast(way.lane.words().mapped());
        way.lane.herald(me, &kernel, &bell);
        let sent = way.lane.send(me, &kernel, Patience::None, true, parts.into())?;
        let seen = way.lane.announce(me, &kernel, &bell);
        Ok(match sent {
            Sent::Yes if seen => Heard::Message,
            Sent::Yes => Heard::Gone,
            _ => Heard::Nothing,
        })
    }

    /// Receives a message by `take`, as [`Core::receive`](lane::Core::receive), waiting for one as
    /// long as `kernel` waits.
    ///
    /// # Errors
    /// If there is no memory for it, the pipe is corrupt, or `take` fails.
    pub fn receive(
        &self,
        kernel: &Wait<'_>,
        mut take: impl FnMut(Came<'_>) -> Result<()>,
    ) -> Result<Heard> {
        let Some(way) = &self.reader else { return Ok(Heard::NotThisWay) };
        let me = me();
        let mut take = |shown: Shown<'_>| take(shelf::unpack(&way.lane, shown)?);
        loop {
            match way.lane.receive(me, kernel, Patience::Some, usize::MAX, &mut take)? {
                Got::Message => {
                    way.lane.denounce(me, kernel, &Bell::Reader(way.fd.as_fd()), false);
                    return Ok(Heard::Message);
                }
                Got::Busy => return Ok(Heard::Nothing),
                _ => {}
            }
            match self.wait(kernel)? {
                Heard::Message => {}
                other => return Ok(other),
            }
        }
    }

    /// Receives if that needs no waiting at all, and the message is not longer than `longest`;
    /// else `Nothing`. By `take`, as [`Core::receive`](lane::Core::receive).
    ///
    /// # Errors
    /// As [`receive`](Self::receive), or if `take` fails.
    #[inline]
    pub fn receive_now(
        &self,
        longest: usize,
        take: impl FnOnce(Came<'_>) -> Result<()>,
    ) -> Result<Heard> {
        let Some(way) = &self.reader else { return Ok(Heard::NotThisWay) };
        let (me, kernel) = (me(), Wait::steadfast(way.lane.words().mapped()));
        let take = |shown: Shown<'_>| take(shelf::unpack(&way.lane, shown)?);
        match way.lane.receive(me, &kernel, Patience::None, longest, take)? {
            Got::Message => {
                way.lane.denounce(me, &kernel, &Bell::Reader(way.fd.as_fd()), false);
                Ok(Heard::Message)
            }
            _ => Ok(Heard::Nothing),
        }
    }

    /// Waits until there is something to receive, or nobody is there to send it.
    ///
    /// # Errors
    /// If the descriptor is bad.
    pub fn wait(&self, kernel: &Wait<'_>) -> Result<Heard> {
        let Some(Way { lane, fd, spinner, quiet, .. }) = &self.reader else {
            return Ok(Heard::NotThisWay);
        };
        if lane.has_more() || lane::spin(lane, spinner, kernel, || lane.has_more()) {
            return Ok(Heard::Message);
        }
        let (me, bell) = (me(), Bell::Reader(fd.as_fd()));
        loop {
            lane.start_resting();
            let looked = if lane.has_more() { Ok(None) } else { kernel.look(fd.as_fd()).map(Some) };
            lane.stop_resting();
            let Some((rest, seen)) = looked? else { return Ok(Heard::Message) };
            let (readable, gone) = match seen {
                Look::Seen { readable, gone } => (readable, gone),
                _ => (false, false),
            };
            if readable || rest == Rest::Slice {
                lane.wake_up(me, kernel, &bell);
            }
            match rest {
                Rest::Over => quiet.is_over(),
                Rest::Slice | Rest::Stop => quiet.goes_on(lane),
            }
            // after the look: whoever is gone has sent before
            if lane.has_more() {
                return Ok(Heard::Message);
            }
            if gone && !readable {
                return Ok(Heard::Gone);
            }
            if rest == Rest::Stop {
                return Ok(Heard::Nothing);
            }
        }
    }

    /// Whether there is something to receive, or nobody to send it; now.
    ///
    /// # Errors
    /// If the descriptor is bad.
    pub fn look(&self) -> Result<Heard> {
        let Some(way) = &self.reader else { return Ok(Heard::NotThisWay) };
        if way.lane.has_more() {
            return Ok(Heard::Message);
        }
        // looked again after it: whoever is gone has sent before
        match way.is_gone()? {
            true if !way.lane.has_more() => Ok(Heard::Gone),
            true => Ok(Heard::Message),
            false => Ok(Heard::Nothing),
        }
    }

    /// The descriptor to look at: of an end that receives, from now on it is readable when there is
    /// something to receive, or nobody to send it. Nobody may fork meanwhile.
    pub fn watch_fd(&self) -> Option<BorrowedFd<'_>> {
        let Some(way) = &self.reader else {
            return self.writer.as_ref().map(|way| way.fd.as_fd());
        };
        if !way.watched.swap(true, Ordering::AcqRel) {
            way.lane.watch();
        }
        let kernel = Wait::steadfast(way.lane.words().mapped());
        way.lane.settle(me(), &kernel, &Bell::Reader(way.fd.as_fd()));
        Some(way.fd.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter<'a>(parts: &'a [&'a [u8]]) -> Letter<'a> {
        parts.into()
    }

    fn wait(end: &End) -> Wait<'_> {
        Wait::steadfast(end.words().unwrap())
    }

    #[test]
    fn messages_go_both_ways_and_the_end_comes_last() {
        let (one, other) = End::pair(true).unwrap();
        let mut into = Vec::new();
        for round in 0..100_u8 {
            assert_eq!(one.send(&wait(&one), letter(&[b"to", &[round]])).unwrap(), Heard::Message);
            assert_eq!(
                other.receive(&wait(&other), |came| came.copy(&mut into)).unwrap(),
                Heard::Message
            );
            assert_eq!(into, [b't', b'o', round]);
            assert_eq!(other.send(&wait(&other), letter(&[b"fro"])).unwrap(), Heard::Message);
            assert_eq!(
                one.receive(&wait(&one), |came| came.copy(&mut into)).unwrap(),
                Heard::Message
            );
        }
        assert_eq!(one.look().unwrap(), Heard::Nothing);
        other.send(&wait(&other), letter(&[b"last"])).unwrap();
        drop(other);
        assert_eq!(one.look().unwrap(), Heard::Message);
        assert_eq!(one.receive(&wait(&one), |came| came.copy(&mut into)).unwrap(), Heard::Message);
        assert_eq!(one.look().unwrap(), Heard::Gone);
        assert_eq!(one.receive(&wait(&one), |came| came.copy(&mut into)).unwrap(), Heard::Gone);
        assert_eq!(one.send(&wait(&one), letter(&[b"x"])).unwrap(), Heard::Gone);
    }

    #[test]
    fn the_descriptor_is_readable_when_there_is_something() {
        let (reader, writer) = End::pair(false).unwrap();
        assert_eq!(reader.send(&wait(&reader), letter(&[b"x"])).unwrap(), Heard::NotThisWay);
        let send = || assert_eq!(writer.send_now(&[b"x"]).unwrap(), Heard::Message);
        send();
        let fd = reader.watch_fd().unwrap();
        let readable = || {
            let now = Some(Duration::ZERO);
            matches!(event::look(fd, now).unwrap(), Look::Seen { readable: true, .. })
        };
        assert!(readable(), "it was there before anybody asked");
        send();
        let mut into = Vec::new();
        reader.receive(&wait(&reader), |came| came.copy(&mut into)).unwrap();
        assert!(readable(), "another one");
        reader.receive(&wait(&reader), |came| came.copy(&mut into)).unwrap();
        assert!(!readable());
        send();
        assert!(readable());
    }

    #[test]
    fn a_full_pipe_waits_for_its_receiver_and_not_for_ever() {
        let (reader, writer) = End::pair(false).unwrap();
        let message = vec![7; 100_000];
        let mut sent = 0;
        while writer.send_now(&[&message]).unwrap() == Heard::Message {
            sent += 1;
        }
        assert!(sent >= LIMIT / message.len() / 2, "{sent}");
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| writer.send(&wait(&writer), letter(&[&message])).unwrap());
            let mut into = Vec::new();
            for _ in 0..=sent {
                assert_eq!(
                    reader.receive(&wait(&reader), |came| came.copy(&mut into)).unwrap(),
                    Heard::Message
                );
                assert_eq!(into, message);
            }
            assert_eq!(blocked.join().unwrap(), Heard::Message);
        });
        let long = vec![8; 3 * LIMIT];
        assert_eq!(writer.send_now(&[&long]).unwrap(), Heard::Message, "it is empty");
        assert_eq!(writer.send_now(&[&long]).unwrap(), Heard::Nothing, "it is not");
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| writer.send(&wait(&writer), letter(&[&long])).unwrap());
            drop(reader);
            assert_eq!(blocked.join().unwrap(), Heard::Gone);
        });
    }
}
