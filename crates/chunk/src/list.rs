//! Which chunks a tree of files has, and where they lie in it.

use std::io::{self, Read, Write};

use crate::Hash;

/// The start of a hash. Two different chunks of some layers have the same one once in millions of
/// pushes; then the tar that is put together has the wrong digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(pub [u8; Prefix::LENGTH]);

impl Prefix {
    /// Bytes.
    pub const LENGTH: usize = 6;

    /// What a list of prefixes one after the other holds; `None` when its end is no whole one.
    pub fn many(bytes: &[u8]) -> Option<Vec<Self>> {
        let (whole, rest) = bytes.as_chunks::<{ Self::LENGTH }>();
        rest.is_empty()
            .then(|| whole.iter().copied().map(Self).collect())
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Below the tree's root.
    pub path: &'a [u8],
    /// Bytes from the file's start.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: Hash,
    file: u32,
    offset: u64,
    length: u32,
}

/// The chunks of a tree, in the order of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    paths: Vec<Box<[u8]>>,
    entries: Vec<Entry>,
    /// Numbers of entries, by hash.
    sorted: Vec<u32>,
}

/// The first bytes of a stored list; the digit is the version, of the cuts too.
const MAGIC: &[u8; 8] = b"krlist1\n";

impl List {
    /// A list of the chunks that `fill` adds.
    pub fn build(fill: impl FnOnce(&mut Builder) -> io::Result<()>) -> io::Result<Self> {
        let mut builder = Builder(Self::default());
        fill(&mut builder)?;
        Ok(builder.0.sort())
    }

    fn sort(mut self) -> Self {
        self.sorted = (0..self.entries.len() as u32).collect();
        self.sorted
            .sort_unstable_by_key(|number| self.entries[*number as usize].hash);
        self
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        let paths: usize = self.paths.iter().map(|path| path.len() + 16).sum();
        paths + self.entries.len() * (size_of::<Entry>() + 4)
    }

    /// The place of the chunk with this number.
    pub fn place(&self, number: usize) -> Option<Place<'_>> {
        let entry = self.entries.get(number)?;
        Some(Place {
            path: self.paths.get(entry.file as usize)?,
            offset: entry.offset,
            length: entry.length,
        })
    }

    /// The number of a chunk.
    pub fn find(&self, hash: &Hash) -> Option<usize> {
        let at = self
            .sorted
            .binary_search_by_key(hash, |number| self.entries[*number as usize].hash)
            .ok()?;
        Some(self.sorted[at] as usize)
    }

    /// The starts of the hashes, sorted.
    pub fn starts(&self) -> Starts {
        let start = |number: &u32| self.entries[*number as usize].hash.prefix();
        Starts(self.sorted.iter().map(start).collect())
    }

    /// The starts of the hashes, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.entries.iter().map(|entry| entry.hash.prefix())
    }

    /// Stores it.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(MAGIC)?;
        to.write_all(&(self.paths.len() as u32).to_le_bytes())?;
        to.write_all(&(self.entries.len() as u32).to_le_bytes())?;
        for path in &self.paths {
            to.write_all(&(path.len() as u32).to_le_bytes())?;
            to.write_all(path)?;
        }
        for entry in &self.entries {
            to.write_all(&entry.hash.0)?;
            to.write_all(&entry.file.to_le_bytes())?;
            to.write_all(&entry.offset.to_le_bytes())?;
            to.write_all(&entry.length.to_le_bytes())?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] stored.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is none, or of another version.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        /// A path is no longer (`PATH_MAX`), and neither are many of them.
        const LONGEST: u32 = 1 << 16;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no list of chunks");
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(bad());
        }
        let mut word = [0; 4];
        let mut number = |from: &mut dyn Read| -> io::Result<u32> {
            from.read_exact(&mut word)?;
            Ok(u32::from_le_bytes(word))
        };
        let (paths, entries) = (number(from)?, number(from)?);
        let mut list = Self::default();
        for _ in 0..paths {
            let length = number(from)?;
            if length > LONGEST {
                return Err(bad());
            }
            let mut path = vec![0; length as usize];
            from.read_exact(&mut path)?;
            list.paths.push(path.into());
        }
        for _ in 0..entries {
            let mut hash = [0; Hash::LENGTH];
            from.read_exact(&mut hash)?;
            let file = number(from)?;
            let mut offset = [0; 8];
            from.read_exact(&mut offset)?;
            let length = number(from)?;
            if file >= paths {
                return Err(bad());
            }
            list.entries.push(Entry {
                hash: Hash(hash),
                file,
                offset: u64::from_le_bytes(offset),
                length,
            });
        }
        Ok(list.sort())
    }
}

/// What a list has, in little memory: enough to say that a chunk is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starts(Box<[Prefix]>);

impl Starts {
    /// Whether the list may have a chunk; false is certain.
    pub fn may_have(&self, hash: &Hash) -> bool {
        self.0.binary_search(&hash.prefix()).is_ok()
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// A list in the making.
#[derive(Debug)]
pub struct Builder(List);

impl Builder {
    /// The next file; its chunks follow.
    pub fn file(&mut self, path: &[u8]) {
        self.0.paths.push(path.into());
    }

    /// A chunk of the last file.
    pub fn chunk(&mut self, hash: Hash, offset: u64, length: u32) {
        if let Some(file) = self.0.paths.len().checked_sub(1) {
            self.0.entries.push(Entry {
                hash,
                file: file as u32,
                offset,
                length,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> List {
        List::build(|builder| {
            builder.file(b"a");
            builder.chunk(Hash::of(b"one"), 0, 3);
            builder.chunk(Hash::of(b"two"), 3, 3);
            builder.file(b"dir/b");
            builder.chunk(Hash::of(b"three"), 0, 5);
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn chunks_are_found() {
        let list = sample();
        let place = |text: &[u8]| list.place(list.find(&Hash::of(text))?);
        let two = place(b"two").unwrap();
        assert_eq!((two.path, two.offset, two.length), (&b"a"[..], 3, 3));
        assert_eq!(place(b"three").unwrap().path, b"dir/b");
        assert!(place(b"four").is_none());
        let starts = list.starts();
        assert!(starts.may_have(&Hash::of(b"two")) && !starts.may_have(&Hash::of(b"four")));
        assert_eq!(list.prefixes().count(), 3);
        assert_eq!(list.place(3), None);
    }

    #[test]
    fn stored_and_read() {
        let mut stored = Vec::new();
        sample().write(&mut stored).unwrap();
        assert_eq!(List::read(&mut stored.as_slice()).unwrap(), sample());
        for end in 0..stored.len() {
            assert!(List::read(&mut &stored[..end]).is_err());
        }
        stored[6] = b'9';
        assert!(List::read(&mut stored.as_slice()).is_err());
    }

    #[test]
    fn lists_of_hashes() {
        let two = [Hash::of(b"a"), Hash::of(b"b")];
        let bytes: Vec<u8> = two.iter().flat_map(|hash| hash.0).collect();
        assert_eq!(Hash::many(&bytes).unwrap(), two);
        assert!(Hash::many(&bytes[1..]).is_none());
        let prefixes: Vec<u8> = two.iter().flat_map(|hash| hash.prefix().0).collect();
        assert_eq!(Prefix::many(&prefixes).unwrap()[1], two[1].prefix());
        assert!(Prefix::many(&prefixes[..7]).is_none());
    }
}
