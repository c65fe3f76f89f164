//! Long bytes beside the messages of a lane: written once, looked at by who receives them.
//!
//! What the words say is in `oxgang_shm::queue::shelf`; here is what the kernel does. A slot is a
//! place of the region's file, with a terabyte of positions and as much memory as was written. A
//! sender takes hold of a free one, writes, and sends a message that names it. A receiver maps it
//! for itself alone, and by that mapping holds it ([`oxgang_os::hold`]): it is written again when
//! the last process that can look at it has let go or ended.
//!
//! | if | then |
//! |---|---|
//! | the bytes are fewer than [`WORTH_SLOT`], all slots are in use, no descriptor or memory is left, or there is no `/proc` | they go in line, through the ring |
//! | the receiver cannot hold or map the slot | it gets a copy of its own |
//!
//! # Memory
//!
//! Fresh pages cost five times a copy into warm ones, so slots that have become free keep memory,
//! all slots of a lane together so much; whoever sends or lets go sees to that.
//!
//! | a lane | keeps |
//! |---|---|
//! | that has carried fewer than [`STREAM`] parcels | [`KEPT_WARM`] |
//! | that has carried more | [`MOST_WARM`] |
//! | at which receivers have waited in vain for [`IDLE`] | [`KEPT_WARM`] |

use std::borrow::Cow;
use std::io::{Error, Result};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use oxgang_os::hold::Holder;
use oxgang_os::segment::{PrivateMapping, Segment};
use oxgang_shm::queue::shelf::{Holds, Parcel, Unnamed};
use oxgang_shm::queue::{Load, Shown, Size};
use oxgang_shm::sync::{Kernel, Rest, Who};

use crate::lane::{self, Lane};
use crate::region::Region;
use crate::sync::Wait;

/// Fewer bytes are faster in line: measured.
pub const WORTH_SLOT: usize = 1 << 18;
/// Where each part of a parcel begins: at a multiple of this.
pub const ALIGN: usize = 64;
/// Slots of a lane.
pub(crate) const SLOTS: u32 = 128;

/// Behind the longest rings of two lanes.
pub(crate) const FIRST_SLOT: u64 = 1 << 43;
pub(crate) const SLOT: u64 = 1 << 40;
pub(crate) const PAGE: u64 = 4096;
const MOST_WARM: u64 = 128 << 20;
pub(crate) const KEPT_WARM: u64 = 16 << 20;
const STREAM: u64 = 4;
/// A slot of a line that has so much keeps it when nobody looks any more.
const LITTLE: u64 = 16 << 20;
const IDLE: Duration = Duration::from_secs(1);
/// A slot that has so many times the memory that it needs gives back the rest.
const ROOMY: u64 = 4;

/// A message on its way out: parts in a row, and long bytes behind them, which go apart if that is
/// worth it.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// What goes in line.
    pub parts: &'a [&'a [u8]],
    /// What may go apart.
    pub apart: &'a [&'a [u8]],
}

impl<'a> From<&'a [&'a [u8]]> for Letter<'a> {
    fn from(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, apart: &[] }
    }
}

impl<'a> Letter<'a> {
    /// All of it in line.
    #[must_use]
    pub fn in_line(&self) -> Cow<'a, [&'a [u8]]> {
        if self.apart.is_empty() {
            return Cow::Borrowed(self.parts);
        }
        Cow::Owned([self.parts, self.apart].concat())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> usize {
        self.parts.iter().chain(self.apart).map(|part| part.len()).sum()
    }
}

/// Where parts of these lengths begin in a parcel, and how many bytes it has; `None` if more than
/// there can be memory.
pub fn places(lengths: impl IntoIterator<Item = usize>) -> Option<(Vec<usize>, usize)> {
    let (mut places, mut end) = (Vec::new(), 0_usize);
    for length in lengths {
        let from = end.checked_next_multiple_of(ALIGN)?;
        places.push(from);
        end = from.checked_add(length)?;
    }
    Some((places, end))
}

/// The same of parts that are there.
pub(crate) fn places_of(parts: &[&[u8]]) -> (Vec<usize>, u64) {
    let lengths = parts.iter().map(|part| part.len());
    // each part is less than half of what a word can count, and there are not so many
    places(lengths).map_or((Vec::new(), u64::MAX), |(places, bytes)| (places, bytes as u64))
}

/// Bytes that came apart from their message, as memory of this process alone: writable, and copied
/// page by page when written.
#[derive(Debug)]
pub struct Apart {
    mapping: Option<PrivateMapping>,
    home: Option<Home>,
}

/// Where they came from, which is told when nobody here looks at them any more.
#[derive(Debug)]
enum Home {
    Lane { region: Weak<Region>, number: usize, lanes: usize },
    Line { segment: Weak<Segment>, from: u64 },
}

impl Apart {
    /// From a slot of a line.
    pub(crate) fn of_line(mapping: PrivateMapping, segment: &Arc<Segment>, from: u64) -> Self {
        let home = Home::Line { segment: Arc::downgrade(segment), from };
        Self { mapping: Some(mapping), home: Some(home) }
    }

    /// A copy, which nobody else is to hear of.
    pub(crate) fn copied(mapping: PrivateMapping) -> Self {
        Self { mapping: Some(mapping), home: None }
    }

    /// Their memory.
    #[must_use]
    pub fn mapping(&self) -> &PrivateMapping {
        // there until it is dropped
        self.mapping.as_ref().expect("the mapping")
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // before the look at what is free now
        let bytes = self.mapping.take().map_or(0, |mapping| mapping.length() as u64);
        match self.home.take() {
            Some(Home::Lane { region, number, lanes }) => {
                let Some(region) = region.upgrade() else { return };
                if let Ok(lane) = lane::open(&region, number, lanes) {
                    tidy(&lane, kept(&lane));
                }
            }
            Some(Home::Line { segment, from }) if bytes > LITTLE => {
                let Some(segment) = segment.upgrade() else { return };
                // memory that stays is only memory that stays
                let _left = release_free(&segment, from, bytes);
            }
            _ => {}
        }
    }
}

/// What a receiver is shown of a message, and what came with it.
pub struct Came<'a> {
    shown: Shown<'a>,
    /// The bytes that came apart.
    pub apart: Option<Apart>,
}

impl Came<'_> {
    /// Bytes of the message, without those that came apart.
    #[must_use]
    pub fn length(&self) -> usize {
        self.shown.length
    }

    /// Copies its bytes from a place on.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        (self.shown.read)(at, into);
    }

    /// Copies all of it, in place of what is there.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn copy(&self, into: &mut Vec<u8>) -> Result<()> {
        self.shown.copy(into)
    }
}

/// What was shown, with what is on the shelf of its lane held and mapped.
pub(crate) fn unpack<'a>(lane: &Lane, shown: Shown<'a>) -> Result<Came<'a>> {
    let apart = shown.parcel.map(|parcel| look_at(lane, parcel)).transpose()?;
    Ok(Came { shown, apart })
}

fn look_at(lane: &Lane, parcel: Parcel) -> Result<Apart> {
    let (segment, place) = place(lane, parcel.slot)?;
    let bytes = usize::try_from(parcel.bytes).map_err(Error::other)?;
    if parcel.bytes > SLOT {
        return Err(Error::other("a parcel longer than its slot"));
    }
    let rings = lane.rings();
    let region = Arc::downgrade(rings.region());
    let home = Home::Lane { region, number: rings.number(), lanes: rings.lanes() };
    match held(segment, place, bytes) {
        Ok(mapping) => Ok(Apart { mapping: Some(mapping), home: Some(home) }),
        // there is no descriptor, or somebody is just looking whether the slot is free
        Err(_) => PrivateMapping::copy_of(segment, place, bytes).map(Apart::copied),
    }
}

fn release_free(segment: &Segment, from: u64, bytes: u64) -> Result<()> {
    let holder = Holder::of(segment, true)?;
    if holder.try_hold(from, SLOT)? {
        segment.release(from, bytes.next_multiple_of(PAGE))?;
    }
    Ok(())
}

/// What is in a slot, mapped and held.
pub(crate) fn held(segment: &Segment, from: u64, bytes: usize) -> Result<PrivateMapping> {
    let holder = Holder::of(segment, false)?;
    match holder.try_hold(from, SLOT)? {
        true => holder.map_private(from, bytes),
        false => Err(std::io::ErrorKind::WouldBlock.into()),
    }
}

fn place(lane: &Lane, slot: u32) -> Result<(&Segment, u64)> {
    let rings = lane.rings();
    let gone = || Error::other("the memory was given up");
    let (segment, start) = rings.region().segment().ok_or_else(gone)?;
    let number = rings.number() as u64 * u64::from(SLOTS) + u64::from(slot);
    Ok((segment, start + FIRST_SLOT + number * SLOT))
}

/// A parcel on the shelf, which nobody names yet. Held until this is dropped: not before the message
/// that names it has been sent.
pub(crate) struct Packed {
    pub parcel: Parcel,
    _holder: Holder,
}

/// Whether these bytes would go apart.
pub(crate) fn worth(lane: &Lane, apart: &[&[u8]]) -> bool {
    lane.shape().slots > 0 && apart.iter().map(|part| part.len()).sum::<usize>() >= WORTH_SLOT
}

/// What a letter will take whose long bytes go apart.
pub(crate) fn size(letter: Letter<'_>) -> Size {
    let (_, bytes) = places_of(letter.apart);
    let parcel = Some(Parcel { slot: 0, bytes });
    Load { parts: letter.parts, parcel }.size()
}

/// Writes the parts onto the shelf; `None` if they go in line.
pub(crate) fn pack(lane: &Lane, apart: &[&[u8]]) -> Option<Packed> {
    if !worth(lane, apart) {
        return None;
    }
    // whatever is missing, a descriptor or memory or the kernel's consent: in line is a way, too
    packed(lane, apart).ok().flatten()
}

fn packed(lane: &Lane, apart: &[&[u8]]) -> Result<Option<Packed>> {
    let (places, bytes) = places_of(apart);
    if bytes > SLOT {
        return Ok(None);
    }
    let holder = Alone::new(lane)?;
    let Some(Unnamed { slot, warm, .. }) = lane.hold_free(bytes, &holder)? else {
        return Ok(None);
    };
    let (segment, from) = place(lane, slot)?;
    let end = bytes.next_multiple_of(PAGE);
    if warm > ROOMY * end && warm > KEPT_WARM {
        segment.release(from + end, warm - end)?;
        lane.note_warm(slot, end);
    } else {
        lane.note_warm(slot, warm.max(end));
    }
    fill(segment, from, apart, &places)?;
    holder.holder.share(from, SLOT)?;
    tidy(lane, kept(lane));
    Ok(Some(Packed { parcel: Parcel { slot, bytes }, _holder: holder.holder }))
}

/// Writes the parts at their places in a slot that is held alone.
pub(crate) fn fill(segment: &Segment, from: u64, apart: &[&[u8]], places: &[usize]) -> Result<()> {
    reach(segment, from + SLOT)?;
    for (part, place) in apart.iter().zip(places) {
        segment.write_at(from + *place as u64, part)?;
    }
    Ok(())
}

/// Who holds slots of a lane alone.
struct Alone<'a> {
    lane: &'a Lane,
    holder: Holder,
}

impl<'a> Alone<'a> {
    fn new(lane: &'a Lane) -> Result<Self> {
        let (segment, _) = place(lane, 0)?;
        Ok(Self { lane, holder: Holder::of(segment, true)? })
    }
}

impl Holds for Alone<'_> {
    fn try_hold(&self, slot: u32) -> Result<bool> {
        self.holder.try_hold(place(self.lane, slot)?.1, SLOT)
    }
    fn let_go(&self, slot: u32) -> Result<()> {
        self.holder.let_go(place(self.lane, slot)?.1, SLOT)
    }
}

/// Makes the segment so long.
pub(crate) fn reach(segment: &Segment, end: u64) -> Result<()> {
    if segment.length()? < end
        && let Err(refused) = segment.grow(end)
        && segment.length()? < end
    {
        // and nobody else has made it longer meanwhile
        return Err(refused);
    }
    Ok(())
}

fn kept(lane: &Lane) -> u64 {
    if lane.parcels() < STREAM { KEPT_WARM } else { MOST_WARM }
}

/// Gives the memory of free slots back, but for so many bytes. Nothing waits for it, so what cannot
/// be done is left.
pub(crate) fn tidy(lane: &Lane, keep: u64) {
    let warm = || lane.unnamed().filter(|slot| slot.warm > 0);
    if warm().map(|slot| slot.warm).sum::<u64>() > keep {
        let _left = give_back(lane, warm().collect(), keep);
    }
}

fn give_back(lane: &Lane, warm: Vec<Unnamed>, keep: u64) -> Result<()> {
    let holder = Alone::new(lane)?;
    let mut kept = 0;
    for Unnamed { slot, warm, .. } in warm {
        if kept + warm <= keep {
            kept += warm;
        } else if let Some(Unnamed { warm, .. }) = lane.hold_if_free(slot, &holder)? {
            let (segment, from) = place(lane, slot)?;
            segment.release(from, warm)?;
            lane.note_warm(slot, 0);
            holder.let_go(slot)?;
        }
    }
    Ok(())
}

/// Sends a letter, once its long bytes are on the shelf, or in line.
pub(crate) fn loaded<T>(
    packed: Option<&Packed>,
    letter: Letter<'_>,
    send: impl FnOnce(Load<'_>) -> T,
) -> T {
    match packed {
        Some(packed) => send(Load { parts: letter.parts, parcel: Some(packed.parcel) }),
        None => send((&letter.in_line()[..]).into()),
    }
}

/// Since when receivers have waited at a lane in vain, in nanoseconds of the clock that never goes
/// back; 0: they have not; [`TIDY`]: so long that memory was given back.
#[derive(Debug, Default)]
pub(crate) struct Quiet(AtomicU64);

const TIDY: u64 = u64::MAX;

impl Quiet {
    /// A receiver has waited in vain, for a while.
    pub fn goes_on(&self, lane: &Lane) {
        let (since, now) = (self.0.load(Relaxed), oxgang_os::clock::now());
        if since == 0 {
            self.0.store(now, Relaxed);
        } else if since != TIDY && now.saturating_sub(since) >= IDLE.as_nanos() as u64 {
            self.0.store(TIDY, Relaxed);
            tidy(lane, KEPT_WARM);
        }
    }

    /// A receiver was woken.
    pub fn is_over(&self) {
        self.0.store(0, Relaxed);
    }
}

/// A receiver's wait, which gives memory back when it has lasted, be it in several parts.
pub(crate) struct Idle<'a> {
    pub wait: &'a Wait<'a>,
    pub lane: &'a Lane,
    pub quiet: &'a Quiet,
}

impl Kernel for Idle<'_> {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        let rest = self.wait.sleep(at, seen);
        match rest {
            Rest::Over => self.quiet.is_over(),
            Rest::Slice | Rest::Stop => self.quiet.goes_on(self.lane),
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
        self.wait.stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;

    #[test]
    fn a_letter_without_long_bytes_is_in_line_as_it_is() {
        let parts: &[&[u8]] = &[b"one", b"two"];
        let letter = Letter::from(parts);
        assert_eq!(letter.length(), 6);
        assert!(matches!(letter.in_line(), Cow::Borrowed(all) if std::ptr::eq(all, parts)));
        let letter = Letter { parts, apart: &[b"three"] };
        assert_eq!(letter.length(), 11);
        assert_eq!(*letter.in_line(), [&b"one"[..], b"two", b"three"]);
    }

    fn wait(queue: &Queue) -> Wait<'_> {
        Wait::steadfast(queue.words())
    }

    fn send(queue: &Queue, apart: &[&[u8]]) {
        let letter = Letter { parts: &[b"head"], apart };
        let sent = queue.send(&wait(queue), true, letter).unwrap();
        assert_eq!(sent, crate::lane::Sent::Yes);
    }

    /// What came in line, and what apart.
    fn receive(queue: &Queue) -> (Vec<u8>, Option<Apart>) {
        let (mut bytes, mut apart) = (Vec::new(), None);
        let got = queue.receive(&wait(queue), true, |came| {
            came.copy(&mut bytes)?;
            apart = came.apart;
            Ok(())
        });
        assert_eq!(got.unwrap(), crate::lane::Got::Message);
        (bytes, apart)
    }

    fn bytes_at(apart: &Apart, at: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        apart.mapping().read(at, &mut bytes);
        bytes
    }

    fn memory(queue: &Queue) -> u64 {
        queue.lane().rings().region().segment().unwrap().0.resident().unwrap()
    }

    /// With the first time, unless other tests fork meanwhile: their children hold what this process
    /// does until they execute.
    fn falls_below(queue: &Queue, most: u64, once: impl Fn()) {
        let low = (0..10_000).any(|_| {
            once();
            std::thread::yield_now();
            memory(queue) < most + (1 << 20)
        });
        assert!(low, "{}", memory(queue));
    }

    #[test]
    fn long_bytes_go_apart_and_each_begins_at_a_round_place() {
        let queue = Queue::create(0).unwrap();
        let (one, other) = (vec![1; WORTH_SLOT + 1], vec![2; 5]);
        send(&queue, &[&one, &other]);
        let (bytes, apart) = receive(&queue);
        let apart = apart.unwrap();
        assert_eq!(bytes, b"head");
        let (at, length) = places([one.len(), other.len()]).unwrap();
        assert_eq!(at, [0, WORTH_SLOT + ALIGN]);
        assert_eq!(apart.mapping().length(), length);
        assert!(bytes_at(&apart, 0, one.len()) == one);
        assert_eq!(bytes_at(&apart, at[1], 5), other);
        send(&queue, &[&other, &other]);
        let (bytes, apart) = receive(&queue);
        assert!(apart.is_none(), "short");
        assert_eq!(bytes, b"head\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02");
    }

    #[test]
    fn a_slot_is_written_again_when_nobody_looks_at_it() {
        let queue = Queue::create(0).unwrap();
        let message = |byte: u8| vec![byte; WORTH_SLOT];
        send(&queue, &[&message(1)]);
        let (_, first) = receive(&queue);
        let first = first.unwrap();
        for byte in 2..20 {
            send(&queue, &[&message(byte)]);
            let (_, apart) = receive(&queue);
            assert!(bytes_at(&apart.unwrap(), 0, WORTH_SLOT) == message(byte));
        }
        assert!(bytes_at(&first, 0, WORTH_SLOT) == message(1), "somebody looked at it");
        // two slots, or a few more if other tests fork meanwhile
        assert!(memory(&queue) < 9 * WORTH_SLOT as u64, "{}", memory(&queue));
    }

    #[test]
    fn what_finds_no_slot_goes_in_line() {
        let queue = Queue::create(0).unwrap();
        let count = SLOTS as usize + 3;
        for number in 0..count {
            send(&queue, &[&vec![number as u8; WORTH_SLOT]]);
        }
        let came: Vec<_> = (0..count).map(|_| receive(&queue)).collect();
        let apart = came.iter().filter(|(_, apart)| apart.is_some()).count();
        assert_eq!(apart, SLOTS as usize);
        for (number, (bytes, apart)) in came.iter().enumerate() {
            match apart {
                Some(apart) => assert_eq!(bytes_at(apart, 99, 1), [number as u8]),
                None => assert!(bytes[4..] == vec![number as u8; WORTH_SLOT]),
            }
        }
    }

    #[test]
    fn memory_goes_back_with_the_last_look_and_in_idle_times() {
        let queue = Queue::create(0).unwrap();
        let long = vec![3; MOST_WARM as usize / 4];
        let views: Vec<_> = (0..6)
            .map(|_| {
                send(&queue, &[&long]);
                receive(&queue).1
            })
            .collect();
        assert!(memory(&queue) > 5 * MOST_WARM / 4);
        drop(views);
        falls_below(&queue, MOST_WARM, || {
            send(&queue, &[&long[..WORTH_SLOT]]);
            receive(&queue);
        });
        falls_below(&queue, KEPT_WARM, || tidy(queue.lane(), KEPT_WARM));
        send(&queue, &[&long]);
        assert!(bytes_at(&receive(&queue).1.unwrap(), 0, long.len()) == long);
    }

    #[test]
    fn what_is_no_stream_keeps_little() {
        let queue = Queue::create(0).unwrap();
        falls_below(&queue, 0, || {
            send(&queue, &[&vec![3; 2 * KEPT_WARM as usize]]);
            assert!(memory(&queue) > 2 * KEPT_WARM);
            drop(receive(&queue));
        });
    }

    #[test]
    fn a_look_outlives_the_queue() {
        let queue = Queue::create(0).unwrap();
        send(&queue, &[&vec![4; WORTH_SLOT]]);
        let (_, apart) = receive(&queue);
        drop(queue);
        assert!(bytes_at(&apart.unwrap(), 0, WORTH_SLOT) == vec![4; WORTH_SLOT]);
    }
}
