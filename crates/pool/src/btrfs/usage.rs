//! What a dataset really refers to: a walk over the extents of its subvolumes.
//!
//! The quota groups say what is charged to a dataset. Three things make that differ from what
//! it refers to, and a [`Survey`] finds how much each is:
//! - *shared*: a clone refers to blocks that are charged to its origin;
//! - *lent*: an origin is charged for blocks that only its clones refer to;
//! - *waste*: an extent is kept whole while a part of it is referred to, so that a large file
//!   which is overwritten in small pieces takes more than its size.

use std::{
    fs::File,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use types::{Error, Result, error::ResultExt as _};

use super::{
    ioctl,
    search::{self, EXTENT_DATA, ROOT_ITEM, ROOT_TREE, Range},
};

/// One extent on the disk and how much of it is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    at: u64,
    bytes: u64,
    used: u64,
    /// The transaction that wrote it.
    written: u64,
}

/// What a subvolume, or several together, refer to. Each extent once.
#[derive(Debug, Default)]
struct Extents(Vec<Extent>);

impl Extents {
    /// The extents of the subvolume that `subvolume` is the root of; only those in parts of its
    /// tree that transaction `since` or a later one wrote.
    fn of(subvolume: &File, since: u64, cancel: &AtomicBool) -> Result<Self> {
        const FIRST_FILE: u64 = 256;
        let mut found = Vec::new();
        let range = Range {
            tree: 0,
            from: (FIRST_FILE, 0, 0),
            to: (u64::MAX, u32::MAX, u64::MAX),
            since,
        };
        let mut cancelled = false;
        search::search(subvolume, range, |item| {
            if item.kind != EXTENT_DATA {
                return ControlFlow::Continue(());
            }
            if cancel.load(Ordering::Relaxed) {
                cancelled = true;
                return ControlFlow::Break(());
            }
            found.extend(parse_extent(&item));
            ControlFlow::Continue(())
        })
        .during(|| "read the extents of a subvolume")?;
        if cancelled {
            return Err(Error::unavailable("the pool is being closed"));
        }
        Ok(Self(unique(found)))
    }

    /// Together with those of another subvolume.
    fn join(&mut self, other: &Self) {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(&other.0);
        self.0 = unique(all);
    }

    /// The bytes that the extents take on the disk.
    fn whole(&self) -> u64 {
        self.0.iter().map(|extent| extent.bytes).sum()
    }

    /// The bytes of them that are referred to.
    fn used(&self) -> u64 {
        self.0.iter().map(|extent| extent.used).sum()
    }

    /// The bytes of those that `since` or an earlier transaction wrote.
    fn until(&self, since: u64) -> u64 {
        self.0
            .iter()
            .filter(|extent| extent.written <= since)
            .map(|extent| extent.bytes)
            .sum()
    }
}

/// A `struct btrfs_file_extent_item`; holes and data inside of the tree are none.
fn parse_extent(item: &search::Item<'_>) -> Option<Extent> {
    const INLINE: u8 = 0;
    if item.u8(20) == INLINE {
        return None;
    }
    let (ram, at, bytes, used) = (item.u64(8), item.u64(21), item.u64(29), item.u64(45));
    if at == 0 {
        return None;
    }
    // A compressed extent takes less than what is referred to.
    let used = if ram == bytes || ram == 0 {
        used
    } else {
        (u128::from(used) * u128::from(bytes) / u128::from(ram)).min(u128::from(bytes)) as u64
    };
    Some(Extent {
        at,
        bytes,
        used,
        written: item.u64(0),
    })
}

/// Each extent once, with all that is referred to of it, but no more than there is.
fn unique(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    let mut kept: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match kept.last_mut() {
            Some(last) if last.at == extent.at => {
                last.used = last.used.saturating_add(extent.used).min(last.bytes);
                last.written = last.written.min(extent.written);
            }
            _ => kept.push(Extent {
                used: extent.used.min(extent.bytes),
                ..extent
            }),
        }
    }
    kept
}

/// The bytes of the tree of subvolume `id`: names, attributes and small files.
pub(super) fn tree_bytes(any: &File, id: u64) -> Result<u64> {
    const BYTES_USED: usize = 192;
    let mut bytes = 0;
    search::search(any, Range::object(ROOT_TREE, id, ROOT_ITEM), |item| {
        bytes = item.u64(BYTES_USED);
        ControlFlow::Break(())
    })
    .during(|| format!("look at subvolume {id}"))?;
    Ok(bytes)
}

/// What a survey found, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// What the live subvolume refers to, its tree included.
    pub(super) live: u64,
    /// Parts of extents that the live subvolume pins without referring to them.
    pub(super) waste: u64,
    /// Referred to, but charged to others.
    pub(super) shared: u64,
    /// Charged, but referred to by others alone.
    pub(super) lent: u64,
}

/// What a survey is asked for.
pub(super) struct Question<'a> {
    pub(super) live: &'a File,
    pub(super) snapshots: &'a [File],
    /// What is charged to the dataset's group.
    pub(super) charged: u64,
    /// For a clone: the transaction that made it.
    pub(super) copied: Option<u64>,
    /// Whether there are clones of it.
    pub(super) lends: bool,
    pub(super) cancel: &'a AtomicBool,
}

fn lineage(subvolume: &File) -> Result<ioctl::Subvolume> {
    ioctl::subvolume_info(subvolume).during(|| "look at a subvolume")
}

/// From which transaction on the tree of `this` can differ from all of those that were walked
/// already. What both of two subvolumes had when one was copied from the other, or both from a
/// third, and has not been written since, is the same in both.
fn not_walked(this: &ioctl::Subvolume, walked: &[ioctl::Subvolume]) -> u64 {
    let common = walked.iter().filter_map(|other| {
        let unchanged_until =
            |copied: u64, kept: &ioctl::Subvolume| (kept.changed.0 <= copied).then_some(copied);
        if other.parent == this.uuid {
            // All that is older than the copy is in the copy, unless the copy was written.
            unchanged_until(other.created.0, other)
        } else if this.parent == other.uuid {
            unchanged_until(this.created.0, other)
        } else if this.parent != NOBODY
            && this.parent == other.parent
            && other.created.0 <= this.created.0
        {
            unchanged_until(other.created.0, other)
        } else {
            None
        }
    });
    common.max().map_or(0, |transaction| transaction + 1)
}

const NOBODY: [u8; 16] = [0; 16];

/// Walks over a dataset. Only clones and origins need their snapshots looked at.
pub(super) fn survey(question: &Question<'_>) -> Result<Survey> {
    let tree = |subvolume: &File| -> Result<u64> {
        let id = ioctl::subvolume_info(subvolume)
            .during(|| "look at a subvolume")?
            .id;
        tree_bytes(subvolume, id)
    };
    let mut extents = Extents::of(question.live, 0, question.cancel)?;
    let live_tree = tree(question.live)?;
    let mut survey = Survey {
        live: extents.used() + live_tree,
        waste: extents.whole() - extents.used(),
        ..Survey::default()
    };
    if question.copied.is_none() && !question.lends {
        return Ok(survey);
    }
    let mut trees = live_tree;
    let mut walked = vec![lineage(question.live)?];
    let mut left = Vec::new();
    for snapshot in question.snapshots {
        left.push((lineage(snapshot)?, snapshot));
    }
    // What was copied from others after it or beside it comes after those, see `not_walked`.
    let last_copy = |of: &ioctl::Subvolume| {
        let copies = left.iter().filter(|(copy, _)| copy.parent == of.uuid);
        copies.map(|(copy, _)| copy.created.0).max()
    };
    let order: Vec<u64> = left
        .iter()
        .map(|(this, _)| last_copy(this).unwrap_or(0).max(this.created.0))
        .collect();
    let mut ordered: Vec<_> = order.into_iter().zip(left).collect();
    ordered.sort_by_key(|(order, _)| *order);
    for (_, (lineage, snapshot)) in ordered {
        let since = not_walked(&lineage, &walked);
        extents.join(&Extents::of(snapshot, since, question.cancel)?);
        trees += tree(snapshot)?;
        walked.push(lineage);
    }
    let foreign = question.copied.map_or(0, |since| extents.until(since));
    let own = extents.whole() - foreign;
    if question.copied.is_some() {
        // What is charged and not extents are blocks of trees; the rest of the live tree is
        // still that of the origin.
        let own_tree = question.charged.saturating_sub(own);
        survey.shared = foreign + live_tree.saturating_sub(own_tree);
    }
    if question.lends {
        survey.lent = question.charged.saturating_sub(own + trees);
    }
    Ok(survey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(at: u64, bytes: u64, used: u64, written: u64) -> Extent {
        Extent {
            at,
            bytes,
            used,
            written,
        }
    }

    #[test]
    fn extents_count_once() {
        let live = Extents(unique(vec![
            extent(8, 100, 30, 5),
            extent(4, 10, 10, 7),
            extent(8, 100, 20, 5),
        ]));
        assert_eq!((live.whole(), live.used()), (110, 60));
        assert_eq!(live.until(5), 100);
        let mut both = Extents(unique(vec![extent(4, 10, 10, 7), extent(9, 1, 1, 9)]));
        both.join(&live);
        assert_eq!(both.whole(), 111);
    }

    fn subvolume(uuid: u8, parent: u8, created: u64, changed: u64) -> ioctl::Subvolume {
        ioctl::Subvolume {
            id: 0,
            generation: 0,
            uuid: [uuid; 16],
            parent: [parent; 16],
            changed: (changed, std::time::Duration::ZERO),
            created: (created, std::time::Duration::ZERO),
        }
    }

    #[test]
    fn only_what_can_differ_is_walked() {
        let first = subvolume(1, 9, 10, 8);
        let second = subvolume(2, 9, 20, 18);
        assert_eq!(not_walked(&first, &[]), 0);
        // The second snapshot of the same: what is older than the first is in the first.
        assert_eq!(not_walked(&second, std::slice::from_ref(&first)), 11);
        // Not the other way round: what the first has may be gone in the second.
        assert_eq!(not_walked(&first, std::slice::from_ref(&second)), 0);
        // The origin of both, as it went on.
        let origin = subvolume(9, 0, 5, 30);
        assert_eq!(not_walked(&origin, &[first, second]), 21);
        assert_eq!(not_walked(&second, std::slice::from_ref(&origin)), 0);
        // A copy that was written tells nothing of its origin; one that was not, all.
        let written = subvolume(3, 9, 20, 25);
        assert_eq!(not_walked(&origin, std::slice::from_ref(&written)), 0);
        // Two that come from nothing have nothing in common.
        assert_eq!(
            not_walked(&subvolume(5, 0, 5, 5), &[subvolume(4, 0, 4, 4)]),
            0
        );
    }

    #[test]
    fn never_more_than_there_is() {
        // Two reflinks of the whole.
        let extents = Extents(unique(vec![extent(4, 10, 10, 7), extent(4, 10, 10, 7)]));
        assert_eq!((extents.whole(), extents.used()), (10, 10));
    }
}
