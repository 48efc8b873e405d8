//! Maps of sparse files: where the stored bytes go.

use std::io;

use super::{Segment, bad, header::number};

/// How many segments one file may have: far above any real file, far below harm.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

fn invalid() -> io::Error {
    bad("archive/tar: invalid tar header: bad map of a sparse file")
}

/// Adds the segments of an old GNU header or extension block: pairs of 12-byte numbers.
pub(super) fn add_gnu(segments: &mut Vec<Segment>, fields: &[u8]) -> io::Result<()> {
    for pair in fields.chunks_exact(24) {
        // An empty field ends the list.
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        let get =
            |field: &[u8]| number(field).and_then(|n| u64::try_from(n).map_err(|_| invalid()));
        segments.push(Segment {
            offset: get(&pair[..12])?,
            length: get(&pair[12..])?,
        });
        if segments.len() > MAX_SEGMENTS {
            return Err(invalid());
        }
    }
    Ok(())
}

/// Segments from a flat list of offsets and lengths.
pub(super) fn from_pairs(numbers: &[u64]) -> io::Result<Vec<Segment>> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
        return Err(invalid());
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Segment {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Fails unless the segments are in order, apart from each other, within `real_size`, and
/// together `stored` bytes.
pub(super) fn check(segments: &[Segment], real_size: u64, stored: u64) -> io::Result<()> {
    let (mut end, mut total) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(invalid());
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or_else(invalid)?;
        // Cannot overflow: the segments do not overlap and end below 2^64.
        total += segment.length;
    }
    if end > real_size || total != stored {
        Err(invalid())
    } else {
        Ok(())
    }
}
