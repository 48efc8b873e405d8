//! Contents as chunks that are found again, wherever they lie: what `kra push` sends instead of
//! layers.
//!
//! A layer's tar is two things: headers, which change with every build (times), and contents of
//! files, which mostly do not. Contents are cut where their bytes say so (FastCDC, 2020), each
//! file by itself, so that a chunk is the same in any tar and at any place. A [`recipe`] says how
//! a tar is put together from headers and chunks; a [`List`] says which chunks a layer has, and
//! where.
//!
//! It does no network and knows no layers. All of it blocks.

mod cutter;
mod list;
pub mod recipe;
pub mod tar;

use std::fmt;

pub use self::{
    cutter::{Cutter, MAX},
    list::{Builder as ListBuilder, List, Place, Prefix, Starts},
};

/// BLAKE3 of a chunk's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; Hash::LENGTH]);

impl Hash {
    /// Bytes.
    pub const LENGTH: usize = 32;

    /// The hash of a chunk.
    pub fn of(chunk: &[u8]) -> Self {
        Self(*blake3::hash(chunk).as_bytes())
    }

    /// A hash in the making.
    pub fn hasher() -> Hasher {
        Hasher(blake3::Hasher::new())
    }

    /// The hash of all that comes from a stream, and how many bytes that is.
    pub fn of_stream(mut stream: impl std::io::Read) -> std::io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        let length = std::io::copy(&mut stream, &mut hasher)?;
        Ok((Self(*hasher.finalize().as_bytes()), length))
    }

    /// As text.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What a list of hashes one after the other holds; `None` when its end is no whole one.
    pub fn many(bytes: &[u8]) -> Option<Vec<Self>> {
        let (whole, rest) = bytes.as_chunks::<{ Self::LENGTH }>();
        rest.is_empty()
            .then(|| whole.iter().copied().map(Self).collect())
    }

    /// Its first bytes: enough to tell the chunks of a few layers apart.
    pub fn prefix(&self) -> Prefix {
        let [a, b, c, d, e, f, ..] = self.0;
        Prefix([a, b, c, d, e, f])
    }
}

/// A hash of bytes that come one after the other.
#[derive(Debug, Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all.
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
