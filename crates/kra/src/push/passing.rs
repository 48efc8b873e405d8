//! Images that come from an engine as a stream, which is read once: layers are sent on while they
//! come by.
//!
//! Newer engines name a layer by the digest of its tar: it is known at its beginning whether it is
//! wanted. Where only the digest of something compressed is known, or none, the layer lies in a
//! temporary file until its digest is.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Seek as _, Write},
    path::Path,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
};

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use types::Digest;

use super::{
    archive::{DOCUMENT, Source, clean, decompressed},
    layer::Push,
    view::View,
};
use crate::exit::{Failure, Outcome};

/// Bytes of all documents together, at the most.
const DOCUMENTS: u64 = 4 * DOCUMENT;

/// What to do with what comes by.
pub(super) struct Passing<'a> {
    pub(super) push: &'a Push,
    pub(super) view: &'a View,
    /// Layers that kraud has.
    pub(super) known: &'a HashSet<Digest>,
    /// Layers that it has not. Those that were sent leave it.
    pub(super) missing: HashSet<Digest>,
}

/// What has come by.
pub(super) struct Passed {
    /// What the images are.
    pub(super) source: Source,
    /// Layers that were sent, and how many bytes that took.
    pub(super) sent: HashMap<Digest, u64>,
}

/// Where bytes go that nobody but a hash has seen yet.
struct Hashed<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The digest that the name of a file in an archive says.
fn named(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    let hex = match path.parent()? {
        blobs if blobs == Path::new("blobs/sha256") => name,
        // As podman has it.
        _ => name.strip_suffix(".tar")?,
    };
    format!("sha256:{hex}").parse().ok()
}

impl Passing<'_> {
    /// Reads the archive to its end. Blocks; `handle` is where what is sent runs.
    pub(super) fn read(mut self, archive: impl Read, handle: &Handle) -> Outcome<Passed> {
        let reading = |error| Failure::io("reading images from the engine", error);
        let mut documents = HashMap::new();
        let mut bytes = 0;
        let mut sent = HashMap::new();
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(reading)? {
            let mut entry = entry.map_err(reading)?;
            let (path, size) = (clean(&entry.path().map_err(reading)?), entry.size());
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let digest = named(&path);
            if digest
                .as_ref()
                .is_some_and(|digest| self.known.contains(digest))
            {
                continue;
            }
            if let Some(layer) = digest.filter(|digest| self.missing.contains(digest)) {
                let took = self.send(&layer, size, &mut entry, handle)?;
                sent.insert(layer, took);
                continue;
            }
            let mut head = [0];
            let count = entry.read(&mut head).map_err(reading)?;
            let mut content = io::Cursor::new(head).take(count as u64).chain(entry);
            if matches!(head, [b'{' | b'[']) && size <= DOCUMENT {
                let mut document = Vec::new();
                content.read_to_end(&mut document).map_err(reading)?;
                // A tar may begin like one.
                let digest = Digest::of(&document);
                if self.missing.contains(&digest) {
                    let took = self.send(&digest, size, document.as_slice(), handle)?;
                    sent.insert(digest, took);
                    continue;
                }
                // What does not fit is not what says what the images are: statements about them.
                if bytes + size <= DOCUMENTS {
                    bytes += size;
                    documents.insert(path, document.into());
                }
            } else if !self.missing.is_empty() {
                let Some((layer, length, file)) = self.put_aside(content).map_err(reading)? else {
                    continue;
                };
                let took = self.send(&layer, length, file, handle)?;
                sent.insert(layer, took);
            }
        }
        Ok(Passed {
            source: Source::Documents(Arc::new(documents)),
            sent,
        })
    }

    /// What may be a layer, by its digest; `None` when that is not wanted.
    fn put_aside(&self, content: impl Read) -> io::Result<Option<(Digest, u64, std::fs::File)>> {
        let mut to = Hashed {
            to: tempfile::tempfile()?,
            hasher: Sha256::new(),
        };
        let length = io::copy(&mut decompressed(content)?, &mut to)?;
        let digest = Digest::from_sha256(to.hasher.finalize().into());
        let mut file = to.to;
        file.rewind()?;
        Ok(self
            .missing
            .contains(&digest)
            .then_some((digest, length, file)))
    }

    /// Sends a layer, and returns how many bytes that took.
    fn send(
        &mut self,
        layer: &Digest,
        length: u64,
        tar: impl Read,
        handle: &Handle,
    ) -> Outcome<u64> {
        let push = Push {
            sent: Arc::new(AtomicU64::new(0)),
            ..self.push.clone()
        };
        let bar = self.view.layer(layer, length, push.sent.clone());
        let (feed, sending) = {
            let _inside = handle.enter();
            push.begin(layer)
        };
        let moving = bar.clone();
        let read = feed.read(tar, &move |bytes| moving.moved(bytes));
        let done = handle.block_on(sending.end(read));
        bar.end(done.as_ref().ok().copied());
        done?;
        self.missing.remove(layer);
        Ok(push.sent.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_layers() {
        let hex = "ab".repeat(32);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        for path in [format!("blobs/sha256/{hex}"), format!("{hex}.tar")] {
            assert_eq!(named(Path::new(&path)), Some(digest.clone()), "{path}");
        }
        for path in [
            format!("{hex}/layer.tar"),
            format!("{hex}.json"),
            "x".into(),
        ] {
            assert_eq!(named(Path::new(&path)), None, "{path}");
        }
    }
}
