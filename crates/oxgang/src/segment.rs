//! Where the two leaves meet: shared structures over mapped memory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use oxgang_os::Result;
use oxgang_os::segment::{Mapping, Segment};
use oxgang_shm::arena::{Arena, Block};
use oxgang_shm::words::Words;

/// Mapped memory as words.
#[derive(Debug, Clone)]
pub struct Mapped(Arc<Mapping>);

impl Mapped {
    /// The words of a mapping.
    #[must_use]
    pub fn new(mapping: Mapping) -> Self {
        Self(Arc::new(mapping))
    }

    /// What a futex waits on for the word at `at`.
    #[must_use]
    pub fn futex_word(&self, at: usize) -> &AtomicU32 {
        self.0.futex_word(at)
    }
}

impl Words for Mapped {
    fn len(&self) -> usize {
        self.0.length()
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0.word(at).load(order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0.word(at).store(value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> std::result::Result<u64, u64> {
        self.0.word(at).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.0.word(at).fetch_add(by, Ordering::AcqRel)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.write(at, bytes);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        self.0.read(at, into);
    }
}

/// Extents of a growing segment, each mapped once when first needed and never moved.
#[derive(Debug)]
struct Extents {
    segment: Segment,
    mapped: BTreeMap<u64, Mapping>,
}

impl Extents {
    fn of(&mut self, block: &Block) -> Result<&Mapping> {
        let known = self.mapped.get(&block.extent).map(Mapping::length);
        if known != Some(block.extent_length as usize) {
            let mapping = self.segment.map(block.extent, block.extent_length as usize)?;
            self.mapped.insert(block.extent, mapping);
        }
        self.mapped.get(&block.extent).ok_or_else(|| std::io::Error::other("extent not mapped"))
    }
}

/// The writing side of an arena: books, file and mappings.
#[derive(Debug)]
pub struct BlockWriter {
    books: Arena,
    extents: Extents,
}

impl BlockWriter {
    /// An arena in `segment`, beginning at `start`.
    #[must_use]
    pub fn new(segment: Segment, start: u64) -> Self {
        Self { books: Arena::new(start), extents: Extents { segment, mapped: BTreeMap::new() } }
    }

    /// Puts the parts into a block, one after the other.
    ///
    /// # Errors
    /// If there is no memory for it; nothing is lent then.
    pub fn put(&mut self, parts: &[&[u8]]) -> Result<Block> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let (block, is_new) = match self.books.lend(length as u64) {
            Some(block) => (block, false),
            None => {
                let end = self.books.grown_for(length as u64);
                self.extents.segment.grow(end)?;
                self.books.grow(end);
                let block = self.books.lend(length as u64);
                (block.ok_or_else(|| std::io::Error::other("arena did not grow"))?, true)
            }
        };
        let written = self.fill(&block, parts, is_new);
        if written.is_err() {
            self.books.take_back(block.offset);
        }
        written.map(|()| block)
    }

    fn fill(&mut self, block: &Block, parts: &[&[u8]], is_new: bool) -> Result<()> {
        let mut at = block.offset;
        for part in parts {
            if is_new {
                // fresh pages: half the cost of faulting them in one by one
                self.extents.segment.write_at(at, part)?;
            } else {
                self.extents.of(block)?.write((at - block.extent) as usize, part);
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// The reader is done with the block at `offset`; `false` if none is lent there.
    pub fn take_back(&mut self, offset: u64) -> bool {
        self.books.take_back(offset)
    }

    /// Bytes lent now.
    #[must_use]
    pub fn lent_bytes(&self) -> u64 {
        self.books.lent_bytes()
    }
}

impl AsFd for BlockWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.extents.segment.as_fd()
    }
}

/// The reading side of an arena.
#[derive(Debug)]
pub struct BlockReader {
    extents: Extents,
}

impl BlockReader {
    /// Blocks of `segment`.
    #[must_use]
    pub fn new(segment: Segment) -> Self {
        Self { extents: Extents { segment, mapped: BTreeMap::new() } }
    }

    /// Copies a block out, by its description from a frame, appending to `into`.
    ///
    /// # Errors
    /// If the description makes no sense, or the memory cannot be mapped.
    pub fn read(&mut self, description: &[u8], into: &mut Vec<u8>) -> Result<Block> {
        let block = Block::from_bytes(description, self.extents.segment.length()?)
            .ok_or_else(|| std::io::Error::other("a block outside of its file"))?;
        let start = into.len();
        into.resize(start + block.length as usize, 0);
        let mapping = self.extents.of(&block)?;
        mapping.read((block.offset - block.extent) as usize, &mut into[start..]);
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cross_by_description() {
        let segment = Segment::create("test", 4096).unwrap();
        let other = Segment::adopt(segment.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let (mut writer, mut reader) = (BlockWriter::new(segment, 4096), BlockReader::new(other));
        for round in 0..6_usize {
            let big: Vec<u8> = (0..round * 700_000 + 5).map(|i| (i * 7 + round) as u8).collect();
            let block = writer.put(&[b"head", &big]).unwrap();
            let mut back = Vec::new();
            reader.read(&block.to_bytes(), &mut back).unwrap();
            assert_eq!(&back[..4], b"head");
            assert!(back[4..] == big[..]);
            assert!(writer.take_back(block.offset));
        }
        assert_eq!(writer.lent_bytes(), 0);
        assert!(reader.read(&[0xff; 32], &mut Vec::new()).is_err());
    }
}
