//! Where contents are cut. Both sides of a push must cut alike: a change here is a change of the
//! protocol.

use std::io::{self, Read};

use fastcdc::v2020::{Normalization, cut, select_masks};

/// Bytes: nothing is shorter but the end of a content, most are about as long, nothing is longer.
const MIN: usize = 16 << 10;
const AVERAGE: usize = 64 << 10;
/// The longest chunk, bytes.
pub const MAX: usize = 256 << 10;

/// Cuts contents. Keep it: its buffer is used again.
#[derive(Debug)]
pub struct Cutter {
    buffer: Vec<u8>,
    masks: (u64, u64),
}

impl Default for Cutter {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            masks: select_masks(AVERAGE, Normalization::Level1),
        }
    }
}

impl Cutter {
    /// Reads a content to its end, and calls `each` with each of its chunks; returns its length in
    /// bytes. An empty content has no chunk.
    pub fn cut(
        &mut self,
        mut content: impl Read,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        /// Read at a time, at the most.
        const WINDOW: usize = 4 * MAX;
        let mut total = 0;
        self.buffer.clear();
        loop {
            let wanted = WINDOW - self.buffer.len();
            let count = content
                .by_ref()
                .take(wanted as u64)
                .read_to_end(&mut self.buffer)?;
            let ended = count < wanted;
            total += count as u64;
            let mut at = 0;
            // Without the longest chunk's bytes in sight, a cut would depend on the window's end.
            while self.buffer.len() - at >= MAX || (ended && at < self.buffer.len()) {
                let end = at + self.length(&self.buffer[at..]);
                each(&self.buffer[at..end])?;
                at = end;
            }
            self.buffer.drain(..at);
            if ended {
                return Ok(total);
            }
        }
    }

    /// The length of the first chunk.
    fn length(&self, bytes: &[u8]) -> usize {
        let window = &bytes[..bytes.len().min(MAX)];
        let (small, large) = self.masks;
        cut(
            window,
            MIN,
            AVERAGE,
            MAX,
            small,
            large,
            small << 1,
            large << 1,
        )
        .1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same bytes on every machine and for ever.
    fn random(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks(content: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let total = Cutter::default().cut(content, |chunk| {
            found.push(chunk.to_vec());
            Ok(())
        });
        assert_eq!(total.unwrap(), content.len() as u64);
        found
    }

    /// Gives at most a few bytes at a time.
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0.len()).min(7001);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn chunks_make_the_content() {
        for length in [0, 1, MIN, MIN + 1, MAX, MAX + 1, 5 * MAX + 3, 3_000_000] {
            let content = random(length, 7);
            let cut = chunks(&content);
            assert_eq!(cut.concat(), content);
            assert!(cut.iter().all(|chunk| (1..=MAX).contains(&chunk.len())));
            let mut slowly = Vec::new();
            Cutter::default()
                .cut(Slow(&content), |chunk| {
                    slowly.push(chunk.to_vec());
                    Ok(())
                })
                .unwrap();
            assert_eq!(slowly, cut, "{length}");
        }
        assert_eq!(chunks(&vec![0; 3 * MAX]).len(), 3);
    }

    /// What is put in front moves the cuts along; only chunks near it are new.
    #[test]
    fn an_insertion_spares_the_rest() {
        let content = random(4_000_000, 3);
        let changed = [&random(1000, 4), content.as_slice()].concat();
        let (old, new) = (chunks(&content), chunks(&changed));
        let kept = new.iter().filter(|chunk| old.contains(chunk)).count();
        assert!(kept + 2 >= old.len(), "{kept} of {}", old.len());
    }

    /// Cuts that an earlier kra or kraud made are found by a later one.
    #[test]
    fn the_cuts_stay_what_they_are() {
        let lengths: Vec<usize> = chunks(&random(700_000, 1)).iter().map(Vec::len).collect();
        assert_eq!(
            lengths,
            [
                65856, 36180, 68588, 58570, 66883, 80636, 63701, 108_783, 41880, 62876, 46047
            ]
        );
    }
}
