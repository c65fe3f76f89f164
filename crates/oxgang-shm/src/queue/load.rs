//! What senders put into one message, and what receivers are shown of it.

use std::io::{Error, Result};

use super::layout::NAME;
use super::shelf::Parcel;

/// What goes into one message: parts, one after the other, and long bytes that are on the shelf
/// already.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The parts.
    pub parts: &'a [&'a [u8]],
    /// Who sends it holds the slot until it is sent.
    pub parcel: Option<Parcel>,
}

impl<'a> From<&'a [&'a [u8]]> for Load<'a> {
    fn from(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, parcel: None }
    }
}

impl Load<'_> {
    /// How much room it takes.
    #[must_use]
    pub fn size(&self) -> Size {
        let name = if self.parcel.is_some() { NAME } else { 0 };
        let in_ring = name + self.parts.iter().map(|part| part.len()).sum::<usize>();
        Size { in_ring, on_shelf: self.parcel.map_or(0, |parcel| parcel.bytes) }
    }
}

/// How much room a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes in a ring.
    pub in_ring: usize,
    /// Bytes of its parcel.
    pub on_shelf: u64,
}

/// What of a message a receiver is shown: how long it is, what copies a part of it, and what it names.
pub struct Shown<'a> {
    /// Its length, without the parcel.
    pub length: usize,
    /// Copies the bytes from a place on.
    pub read: &'a dyn Fn(usize, &mut [u8]),
    /// Long bytes that are on the shelf, there until the message is taken.
    pub parcel: Option<Parcel>,
}

impl Shown<'_> {
    /// Copies all of it, in place of what is there.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn copy(&self, into: &mut Vec<u8>) -> Result<()> {
        if into.capacity() < self.length {
            // nothing of what is there is worth a copy
            into.clear();
            into.try_reserve(self.length).map_err(Error::other)?;
        }
        // what is there is written over, not emptied before
        into.resize(self.length, 0);
        (self.read)(0, into);
        Ok(())
    }
}
