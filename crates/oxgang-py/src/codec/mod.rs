//! Plain values as bytes, without pickle: `None`, `bool`, `int`, `float`, `str`, `bytes`, tuples,
//! lists and dicts of them, and instances of plain classes ([`classes`]). Three to ten times as fast.
//!
//! Only what comes back exactly as pickle would bring it: exact built-in types, never a
//! subclass, in bounded depth and number; everything else is pickle's. What is mentioned twice
//! stays one object, as with pickle: a tuple or a long text is referred to, and a list, dict or
//! instance that comes twice (or holds itself) makes the whole pickle's. Whether something can come
//! twice is seen by its reference count, so that most is not remembered at all.
//!
//! | tag | then |
//! |---|---|
//! | `N` `T` `F` | nothing: `None`, `True`, `False` |
//! | `j` `i` `f` | one byte, eight bytes, eight bytes: an int, an int, a float |
//! | `s` `b` | length, that many bytes: text, bytes |
//! | `(` `[` `{` | count, that many values (for a dict, twice as many) |
//! | `B` `Y` | place: bytes or a bytearray that went apart, and where in the list of those |
//! | `M` | a value, which is to be remembered: the decoder numbers them when they are whole |
//! | `r` | number: the value that was remembered under it |
//! | `O` | length, that many bytes: an instance's shape ([`shapes`]), then its attributes' values |
//! | `o` | number: an instance of a shape that came before, then its attributes' values |
//! | `K` | sixteen bytes; length, that many bytes: the definition of a class; then a value |
//!
//! A payload's first byte says which: [`PLAIN`] or [`PICKLED`].

mod classes;
mod decode;
mod encode;
mod shapes;

use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

pub use self::classes::Mains;
pub use self::decode::{Block, Far, Input, decode};
pub use self::encode::{Encoded, encode};

/// The payload is in this module's encoding.
pub const PLAIN: u8 = 0;
/// The payload is a pickle.
pub const PICKLED: u8 = 1;

const DEEPEST: u32 = 8;
/// Longer texts go to pickle, which copies them as fast; longer bytes go apart, as many as may.
const LONGEST: usize = 1 << 16;

fn torn() -> PyErr {
    PyValueError::new_err("the encoded value is torn")
}
