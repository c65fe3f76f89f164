//! Blocks of bytes on their way from one process to others: written once, lent by number.
//!
//! A *store* belongs to the process that writes it. What it hands out ([`Stored`]) holds its block
//! until the last clone goes; whoever has sent a block's description keeps a clone until the
//! receiver can no longer look at it. The other side opens the same memory as [`Blocks`] and turns
//! descriptions into [`Received`].
//!
//! # A block's way
//!
//! | step | by | what holds the block |
//! |---|---|---|
//! | written | sender | the sender's `Stored` |
//! | described in a task's frame | owner | the task |
//! | mapped by the worker | worker | the task, until its answer |
//! | `KEEP` is published before the answer, if something still looks at it | worker | the owner's books of that worker |
//! | `RELEASE` is published when nothing does any more | worker | nobody: the block is free |
//! | described in an answer's frame | worker | the worker's list of what it lent |
//! | taken in, mapped, looked at | owner | the same |
//! | dropped; `FREED` is sent | owner | nobody |
//!
//! An answer may say of a block that came with its task that it is (part of) the result: the worker
//! has only looked at it, so there is nothing to copy ([`Attached::Back`](crate::task::Attached)). The
//! owner then looks at its own block, which it holds anyway.
//!
//! A worker that dies takes its own store along, whose memory lives on in the owner's mappings;
//! what it held of the owner's store is in the owner's books and freed with them.
//!
//! # Forks
//!
//! A mapping that a fork inherits goes on showing the block. Nobody counts those copies, so what
//! is mapped while its process forks is never given back ([`crate::forks`]): it lives as long as
//! the store.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use oxgang_os::Result;
use oxgang_os::event::WakeUp;
use oxgang_os::segment::{HUGE_PAGE, Mapping, PrivateMapping, Segment, huge_pages_on_advice};
use oxgang_shm::arena::{Arena, Block};

use crate::lock;

/// Shorter bytes are not looked for among what is stored: the search costs more than a copy.
const WORTH_SHARING: usize = 1 << 16;
/// Free memory that stays warm when the rest is given back to the kernel.
const KEPT_WARM: u64 = 16 << 20;

/// Extents of a growing segment, each mapped once when first needed and never moved.
#[derive(Debug, Default)]
struct Extents(BTreeMap<u64, Arc<Mapping>>);

impl Extents {
    fn of(&mut self, segment: &Segment, block: &Block) -> Result<Arc<Mapping>> {
        let length = block.extent_length as usize;
        match self.0.get(&block.extent) {
            Some(mapping) if mapping.length() == length => Ok(mapping.clone()),
            _ => {
                let mapping = Arc::new(segment.map(block.extent, length)?);
                self.0.insert(block.extent, mapping.clone());
                Ok(mapping)
            }
        }
    }
}

// -- writing ---------------------------------------------------------------------------

/// The writing side.
#[derive(Debug)]
pub struct Store {
    segment: Segment,
    books: Mutex<Books>,
    /// Bytes lent now, for a quick look.
    lent: AtomicU64,
    /// Something has come back since the last trim.
    slack: AtomicBool,
    /// The generation of the process that it belongs to. In a fork the books may be locked by a
    /// thread that is not there: nobody looks into them.
    born: u64,
}

#[derive(Debug)]
struct Books {
    arena: Arena,
    extents: Extents,
    /// No page from here on has been written yet (or it was given back to the kernel).
    fresh_from: u64,
    /// Long blocks by where their bytes came from and how many they are.
    shared: HashMap<(usize, usize), Weak<Stored>>,
}

/// A block and its bytes, until the last clone of the `Arc` goes.
#[derive(Debug)]
pub struct Stored {
    store: Arc<Store>,
    block: Block,
    /// Somebody unknown may look at it as long as the store lives.
    abandoned: AtomicBool,
}

impl Stored {
    /// What to tell the reader.
    #[must_use]
    pub fn block(&self) -> Block {
        self.block
    }

    /// Bytes in it.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.block.length
    }

    fn read(&self, at: usize, into: &mut [u8]) -> Result<()> {
        if at as u64 + into.len() as u64 > self.block.length {
            return Err(std::io::Error::other("the block is shorter than that"));
        }
        if self.store.is_the_parents() {
            return self.store.segment.read_exact_at(self.block.offset + at as u64, into);
        }
        let mapping = lock(&self.store.books).extents.of(&self.store.segment, &self.block)?;
        mapping.read((self.block.offset - self.block.extent) as usize + at, into);
        Ok(())
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if *self.abandoned.get_mut() || self.store.is_the_parents() {
            return;
        }
        let mut books = lock(&self.store.books);
        books.arena.take_back(self.block.offset);
        self.store.slack.store(true, Ordering::Relaxed);
        self.store.lent.store(books.arena.lent_bytes(), Ordering::Relaxed);
    }
}

impl Store {
    /// A store in `segment`, from `start` on.
    #[must_use]
    pub fn new(segment: Segment, start: u64) -> Arc<Self> {
        let books = Books {
            arena: Arena::new(start),
            extents: Extents::default(),
            fresh_from: start,
            shared: HashMap::new(),
        };
        let (lent, slack) = (AtomicU64::new(0), AtomicBool::new(false));
        let born = crate::generation();
        Arc::new(Self { segment, books: Mutex::new(books), lent, slack, born })
    }

    fn is_the_parents(&self) -> bool {
        self.born != crate::generation()
    }

    /// Puts the parts into a block, one after the other.
    ///
    /// # Errors
    /// If there is no memory for it; nothing is lent then.
    pub fn put(self: &Arc<Self>, parts: &[&[u8]]) -> Result<Arc<Stored>> {
        let length = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let (stored, mapping) = self.lend(length)?;
        let mut at = stored.block.offset;
        for part in parts {
            match &mapping {
                Some(mapping) => mapping.write((at - stored.block.extent) as usize, part),
                // fresh pages: half the cost of faulting them in one by one
                None => self.segment.write_at(at, part)?,
            }
            at += part.len() as u64;
        }
        Ok(Arc::new(stored))
    }

    /// Puts the bytes into a block, or finds the block that holds them already: bytes at the
    /// same place that have not changed since are stored once, however often they are sent.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn share(self: &Arc<Self>, bytes: &[u8]) -> Result<Arc<Stored>> {
        if bytes.len() < WORTH_SHARING {
            return self.put(&[bytes]);
        }
        let key = (bytes.as_ptr() as usize, bytes.len());
        let known = match self.is_the_parents() {
            true => None, // refused below
            false => lock(&self.books).shared.get(&key).and_then(Weak::upgrade),
        };
        if let Some(stored) = known {
            let mapping = lock(&self.books).extents.of(&self.segment, &stored.block)?;
            let at = stored.block.offset - stored.block.extent;
            if mapping.equals(at as usize, bytes) {
                return Ok(stored);
            }
        }
        let stored = self.put(&[bytes])?;
        let mut books = lock(&self.books);
        books.shared.retain(|_, stored| stored.strong_count() > 0);
        books.shared.insert(key, Arc::downgrade(&stored));
        Ok(stored)
    }

    /// A block, and its memory if that is warm.
    fn lend(self: &Arc<Self>, length: u64) -> Result<(Stored, Option<Arc<Mapping>>)> {
        if self.is_the_parents() {
            let why = "it belongs to the process that this one was forked from";
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why));
        }
        let mut books = lock(&self.books);
        let block = match books.arena.lend(length) {
            Some(block) => block,
            None => {
                let end = books.arena.grown_for(length);
                self.segment.grow(end)?;
                books.arena.grow(end);
                let block = books.arena.lend(length);
                block.ok_or_else(|| std::io::Error::other("the arena did not grow"))?
            }
        };
        self.lent.store(books.arena.lent_bytes(), Ordering::Relaxed);
        let stored = Stored { store: self.clone(), block, abandoned: AtomicBool::new(false) };
        let end = block.offset + block.length;
        let fresh = end > books.fresh_from;
        books.fresh_from = books.fresh_from.max(end);
        let huge = length >= HUGE_PAGE as u64 && huge_pages_on_advice();
        let mapping = if fresh && !huge {
            Ok(None)
        } else {
            books.extents.of(&self.segment, &block).map(Some)
        };
        drop(books); // before what is given back if there is no mapping
        Ok((stored, mapping?))
    }

    /// Bytes lent now.
    #[must_use]
    pub fn lent_bytes(&self) -> u64 {
        self.lent.load(Ordering::Relaxed)
    }

    /// Gives the memory of free ranges back to the kernel, but for a little; `false` if there was
    /// nothing worth it. For when nothing has happened for a while: used again, it costs a page
    /// fault per page.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn trim(&self) -> Result<bool> {
        let mut books = lock(&self.books);
        let mut kept = 0;
        let mut fresh_from = 0;
        let mut any = false;
        for (offset, length) in books.arena.free_ranges().collect::<Vec<_>>() {
            let written = books.fresh_from.saturating_sub(offset).min(length);
            let keep = written.min(KEPT_WARM - kept);
            kept += keep;
            if keep < written {
                self.segment.release(offset + keep, written - keep)?;
                any = true;
            }
            if keep > 0 {
                fresh_from = offset + keep;
            }
        }
        self.slack.store(false, Ordering::Relaxed);
        if any {
            // what lies below is partly fresh too: written through a mapping, it only costs more
            books.fresh_from = fresh_from.max(books.arena.lent_end());
        }
        Ok(any)
    }

    /// Whether [`trim`](Self::trim) would find something.
    #[must_use]
    pub fn has_slack(&self) -> bool {
        if !self.slack.load(Ordering::Relaxed) {
            return false;
        }
        let books = lock(&self.books);
        let written =
            |(offset, length): (u64, u64)| books.fresh_from.saturating_sub(offset).min(length);
        books.arena.free_ranges().map(written).sum::<u64>() > KEPT_WARM
    }
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

// -- reading ---------------------------------------------------------------------------

/// The reading side of a store.
#[derive(Debug)]
pub struct Blocks {
    segment: Segment,
    extents: Mutex<Extents>,
    /// As a store's.
    born: u64,
}

/// Offsets that are to be told to the writer: it may use those blocks again.
#[derive(Debug, Default)]
pub struct Returns {
    offsets: Mutex<Vec<u64>>,
    any: AtomicBool,
    /// Nobody looks by itself: whoever brings one rings.
    unattended: AtomicBool,
    bell: Option<Arc<WakeUp>>,
}

impl Returns {
    /// With a bell for times when nobody looks.
    pub(crate) fn with_bell(bell: Arc<WakeUp>) -> Arc<Self> {
        Arc::new(Self { bell: Some(bell), ..Self::default() })
    }

    fn push(&self, offset: u64) {
        lock(&self.offsets).push(offset);
        self.any.store(true, Ordering::SeqCst);
        if self.unattended.load(Ordering::SeqCst)
            && self.unattended.swap(false, Ordering::SeqCst)
            && let Some(bell) = &self.bell
        {
            bell.ring();
        }
    }

    /// Whether there is something. One load.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// From now on the bell is rung for the next one. `true`: there is something already.
    pub(crate) fn leave(&self) -> bool {
        self.unattended.store(true, Ordering::SeqCst);
        self.any.load(Ordering::SeqCst)
    }

    /// Takes what there is.
    pub(crate) fn take(&self) -> Vec<u64> {
        if !self.any() || !self.any.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut lock(&self.offsets))
    }
}

impl Blocks {
    /// Blocks of `segment`.
    #[must_use]
    pub fn new(segment: Segment) -> Arc<Self> {
        Arc::new(Self { segment, extents: Mutex::default(), born: crate::generation() })
    }

    /// The block that a description speaks of.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn find(&self, description: &[u8]) -> Result<Block> {
        Block::from_bytes(description, self.segment.length()?)
            .ok_or_else(|| std::io::Error::other("a block outside of its file"))
    }

    /// Copies a part of a block out.
    ///
    /// # Errors
    /// If the memory cannot be mapped, or the block is shorter than that.
    pub fn read(&self, block: &Block, at: usize, into: &mut [u8]) -> Result<()> {
        if at as u64 + into.len() as u64 > block.length {
            return Err(std::io::Error::other("the block is shorter than that"));
        }
        if self.born != crate::generation() {
            return self.segment.read_exact_at(block.offset + at as u64, into);
        }
        let mapping = lock(&self.extents).of(&self.segment, block)?;
        mapping.read((block.offset - block.extent) as usize + at, into);
        Ok(())
    }
}

/// A block of another process's store, as its reader holds it.
#[derive(Debug)]
pub struct Received {
    block: Block,
    home: Home,
    view: Mutex<Weak<View>>,
    forks: u64,
}

#[derive(Debug)]
enum Home {
    Theirs {
        blocks: Arc<Blocks>,
        returns: Arc<Returns>,
        /// The writer waits to hear that it is free.
        kept: AtomicBool,
    },
    /// This process's own store: the block has come back as it went. Held until this is dropped.
    Ours(Arc<Stored>),
}

impl Received {
    pub(crate) fn new(
        blocks: &Arc<Blocks>,
        block: Block,
        returns: &Arc<Returns>,
        kept: bool,
    ) -> Self {
        let (blocks, returns) = (blocks.clone(), returns.clone());
        Self::at(block, Home::Theirs { blocks, returns, kept: AtomicBool::new(kept) })
    }

    /// One of our own blocks, which has come back.
    pub(crate) fn back(stored: Arc<Stored>) -> Self {
        Self::at(stored.block, Home::Ours(stored))
    }

    fn at(block: Block, home: Home) -> Self {
        Self { block, home, view: Mutex::default(), forks: crate::forks() }
    }

    fn segment(&self) -> &Segment {
        match &self.home {
            Home::Theirs { blocks, .. } => &blocks.segment,
            Home::Ours(stored) => &stored.store.segment,
        }
    }

    /// Bytes in it.
    #[must_use]
    pub fn length(&self) -> usize {
        self.block.length as usize
    }

    /// Where it is in its store.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.block.offset
    }

    /// The writer has been told that it is still looked at.
    pub(crate) fn keep(&self) {
        if let Home::Theirs { kept, .. } = &self.home {
            kept.store(true, Ordering::Release);
        }
    }

    /// Copies a part of it out.
    ///
    /// # Errors
    /// If the memory cannot be mapped, or the block is shorter than that.
    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<()> {
        match &self.home {
            Home::Theirs { blocks, .. } => blocks.read(&self.block, at, into),
            Home::Ours(stored) => stored.read(at, into),
        }
    }

    /// Whether this range of memory is all of a view of it that nobody has written to. `false`
    /// also if that cannot be told.
    #[must_use]
    pub fn is_unwritten_at(&self, address: *const u8, length: usize) -> bool {
        lock(&self.view).upgrade().is_some_and(|view| {
            let start = view.mapping.address().as_ptr().cast_const();
            start == address
                && view.mapping.length() == length
                && view.mapping.is_unwritten().unwrap_or(false)
        })
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // after a fork somebody unknown may look at it too
        let alone = self.forks == crate::forks();
        match &mut self.home {
            Home::Theirs { returns, kept, .. } => {
                if *kept.get_mut() && alone {
                    returns.push(self.block.offset);
                }
            }
            Home::Ours(stored) => {
                if !alone {
                    stored.abandoned.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A block as memory of this process alone: readable, writable, copied page by page when written.
#[derive(Debug)]
pub struct View {
    // in this order: the mapping ends before the block is given back
    mapping: PrivateMapping,
    _received: Arc<Received>,
}

impl View {
    /// A view of the block.
    ///
    /// # Errors
    /// If there is no room for the mapping, or the block is empty.
    pub fn of(received: &Arc<Received>) -> Result<Arc<Self>> {
        let mapping = received.segment().map_private(received.block.offset, received.length())?;
        let view = Arc::new(Self { mapping, _received: received.clone() });
        *lock(&received.view) = Arc::downgrade(&view);
        Ok(view)
    }

    /// Its memory.
    #[must_use]
    pub fn mapping(&self) -> &PrivateMapping {
        &self.mapping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Arc<Store>, Arc<Blocks>) {
        let segment = Segment::create("test", 4096).unwrap();
        let other = Segment::adopt(segment.as_fd().try_clone_to_owned().unwrap()).unwrap();
        (Store::new(segment, 4096), Blocks::new(other))
    }

    fn content(blocks: &Blocks, stored: &Stored) -> Vec<u8> {
        let block = blocks.find(&stored.block().to_bytes()).unwrap();
        let mut back = vec![0; block.length as usize];
        blocks.read(&block, 0, &mut back).unwrap();
        back
    }

    #[test]
    fn blocks_cross_by_description() {
        let (store, blocks) = pair();
        for round in 0..6_usize {
            let big: Vec<u8> = (0..round * 700_000 + 5).map(|i| (i * 7 + round) as u8).collect();
            let stored = store.put(&[b"head", &big]).unwrap();
            let back = content(&blocks, &stored);
            assert_eq!(&back[..4], b"head");
            assert!(back[4..] == big[..]);
        }
        assert_eq!(store.lent_bytes(), 0, "dropped, so free");
        assert!(blocks.find(&[0xff; 32]).is_err());
    }

    #[test]
    fn equal_bytes_are_stored_once() {
        let (store, blocks) = pair();
        let mut bytes = vec![5; 300_000];
        let first = store.share(&bytes).unwrap();
        let again = store.share(&bytes).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        bytes[299_999] = 6;
        let changed = store.share(&bytes).unwrap();
        assert!(!Arc::ptr_eq(&first, &changed), "it has changed since");
        assert_eq!(content(&blocks, &first)[299_999], 5);
        assert_eq!(content(&blocks, &changed), bytes);
        let same_content = bytes.clone();
        assert!(!Arc::ptr_eq(&changed, &store.share(&same_content).unwrap()), "another place");
        drop((first, again, changed));
        assert_eq!(store.lent_bytes(), 0);
        assert_eq!(content(&blocks, &store.share(&bytes).unwrap()), bytes, "stored anew");
    }

    #[test]
    fn a_block_comes_home_when_its_last_reader_goes() {
        let (store, blocks) = pair();
        let returns = Arc::new(Returns::default());
        let stored = store.put(&[&[1; 5000]]).unwrap();
        let block = blocks.find(&stored.block().to_bytes()).unwrap();
        drop(Received::new(&blocks, block, &returns, false));
        assert!(returns.take().is_empty(), "the writer does not wait for it");
        let received = Received::new(&blocks, block, &returns, false);
        let received = Arc::new(received);
        assert_eq!(View::of(&received).unwrap().mapping().length(), 5000);
        received.keep();
        drop(received);
        assert_eq!(returns.take(), [stored.block().offset]);
        assert!(returns.take().is_empty(), "told once");
    }

    #[test]
    fn what_was_only_looked_at_can_come_back() {
        let (store, blocks) = pair();
        let stored = store.put(&[&[7; 49_152]]).unwrap();
        let block = blocks.find(&stored.block().to_bytes()).unwrap();
        let received = Arc::new(Received::new(&blocks, block, &Arc::default(), false));
        assert!(!received.is_unwritten_at(std::ptr::null(), 49_152), "there is no view");
        let view = View::of(&received).unwrap();
        let start = view.mapping().address().as_ptr();
        assert!(received.is_unwritten_at(start, 49_152));
        assert!(!received.is_unwritten_at(start, 4096), "not all of it");
        drop(view);
        assert!(!received.is_unwritten_at(start, 49_152), "whatever is there now");
        let back = Arc::new(Received::back(stored.clone()));
        let mut bytes = [0; 10];
        back.read(49_142, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 10]);
        assert!(back.read(49_143, &mut bytes).is_err());
        let view = View::of(&back).unwrap();
        drop((back, stored));
        assert_eq!(store.lent_bytes(), 49_152, "somebody looks at it");
        drop(view);
        assert_eq!(store.lent_bytes(), 0);
    }

    #[test]
    fn idle_memory_goes_back_to_the_kernel() {
        let (store, blocks) = pair();
        let size = 3 * KEPT_WARM as usize;
        let stored = store.put(&[&vec![1; size]]).unwrap();
        let small = store.put(&[b"still lent"]).unwrap();
        assert!(!store.has_slack() && !store.trim().unwrap());
        drop(stored);
        assert!(store.has_slack() && store.trim().unwrap());
        assert!(!store.has_slack(), "done");
        assert_eq!(content(&blocks, &small), b"still lent");
        let again = store.put(&[&vec![2; size]]).unwrap();
        assert!(content(&blocks, &again) == vec![2; size]);
    }
}
