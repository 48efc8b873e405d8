//! Reading the trees of btrfs (`BTRFS_IOC_TREE_SEARCH_V2`).

use std::{ops::ControlFlow, os::fd::AsFd};

use rustix::{
    io::Errno,
    ioctl::{self, Opcode, opcode},
};

/// The tree that names all trees.
pub(super) const ROOT_TREE: u64 = 1;
/// The tree of the quota groups.
pub(super) const QUOTA_TREE: u64 = 8;

pub(super) const EXTENT_DATA: u32 = 108;
pub(super) const ROOT_ITEM: u32 = 132;
pub(super) const ROOT_REF: u32 = 156;
pub(super) const QGROUP_STATUS: u32 = 240;
pub(super) const QGROUP_INFO: u32 = 242;
pub(super) const QGROUP_LIMIT: u32 = 244;
pub(super) const QGROUP_RELATION: u32 = 246;
pub(super) const ORPHAN_ITEM: u32 = 48;
/// The object that subvolumes in removal hang on.
pub(super) const ORPHAN_OBJECT: u64 = -5i64 as u64;

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SearchKey {
    tree: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused64: [u64; 4],
}

const BUFFER: usize = 512 << 10;

/// `struct btrfs_ioctl_search_args_v2` with its buffer.
#[repr(C)]
struct Args {
    key: SearchKey,
    size: u64,
    buffer: [u8; BUFFER],
}

/// The opcode counts only the head of the structure.
const TREE_SEARCH_V2: Opcode = opcode::read_write::<[u64; 14]>(0x94, 17);
const _: () = assert!(size_of::<SearchKey>() + 8 == size_of::<[u64; 14]>());

/// What is looked for: all items between two keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) tree: u64,
    /// (object, type, offset), both included.
    pub(super) from: (u64, u32, u64),
    pub(super) to: (u64, u32, u64),
    /// Only leaves that this transaction or a later one wrote.
    pub(super) since: u64,
}

impl Range {
    /// All items of one object and type.
    pub(super) fn object(tree: u64, object: u64, kind: u32) -> Self {
        Self {
            tree,
            from: (object, kind, 0),
            to: (object, kind, u64::MAX),
            since: 0,
        }
    }
}

/// One item of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) object: u64,
    pub(super) kind: u32,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
}

impl Item<'_> {
    /// The little-endian number at `at`, or 0 beyond the end.
    pub(super) fn u64(&self, at: usize) -> u64 {
        number(self.data, at)
    }
    pub(super) fn u8(&self, at: usize) -> u8 {
        self.data.get(at).copied().unwrap_or(0)
    }
}

fn number(data: &[u8], at: usize) -> u64 {
    data.get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Reads a whole range, item by item. `any` is a file of the file system, or of the subvolume
/// for tree 0.
pub(super) fn search(
    any: impl AsFd,
    range: Range,
    mut each: impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let mut args = Box::<Args>::new_uninit();
    // SAFETY: all bytes zero is a valid `Args`: integers and an array of bytes.
    let mut args = unsafe {
        args.as_mut_ptr().write_bytes(0, 1);
        args.assume_init()
    };
    args.key = SearchKey {
        tree: range.tree,
        min_objectid: range.from.0,
        max_objectid: range.to.0,
        min_offset: range.from.2,
        max_offset: range.to.2,
        min_transid: range.since,
        max_transid: u64::MAX,
        min_type: range.from.1,
        max_type: range.to.1,
        nr_items: 0,
        unused: 0,
        unused64: [0; 4],
    };
    loop {
        args.key.nr_items = u32::MAX;
        args.size = BUFFER as u64;
        // SAFETY: the opcode is that of `struct btrfs_ioctl_search_args_v2`, whose layout
        // `Args` has; `size` says how many bytes the kernel may write behind the head.
        unsafe { ioctl::ioctl(&any, ioctl::Updater::<TREE_SEARCH_V2, Args>::new(&mut args)) }?;
        let Some(last) = each_item(&args, &mut each) else {
            return Ok(());
        };
        let Some(next) = after(last) else {
            return Ok(());
        };
        if next > range.to {
            return Ok(());
        }
        (
            args.key.min_objectid,
            args.key.min_type,
            args.key.min_offset,
        ) = next;
    }
}

/// Gives all items of the buffer to `each` and their last key back; `None` ends the search.
fn each_item(
    args: &Args,
    each: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> Option<(u64, u32, u64)> {
    const HEADER: usize = 32;
    let mut at = 0;
    let mut last = None;
    for _ in 0..args.key.nr_items {
        let header = args.buffer.get(at..at + HEADER)?;
        let (object, offset) = (number(header, 8), number(header, 16));
        let tail = number(header, 24);
        let (kind, length) = (tail as u32, (tail >> 32) as usize);
        let data = args.buffer.get(at + HEADER..at + HEADER + length)?;
        at += HEADER + length;
        let item = Item {
            object,
            kind,
            offset,
            data,
        };
        if each(item).is_break() {
            return None;
        }
        last = Some((object, kind, offset));
    }
    last
}

/// The key that follows.
fn after((object, kind, offset): (u64, u32, u64)) -> Option<(u64, u32, u64)> {
    if let Some(offset) = offset.checked_add(1) {
        return Some((object, kind, offset));
    }
    // Types are bytes on the disk.
    if kind < 255 {
        return Some((object, kind + 1, 0));
    }
    object.checked_add(1).map(|object| (object, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_each_other() {
        assert_eq!(after((1, 2, 3)), Some((1, 2, 4)));
        assert_eq!(after((1, 2, u64::MAX)), Some((1, 3, 0)));
        assert_eq!(after((1, 255, u64::MAX)), Some((2, 0, 0)));
        assert_eq!(after((u64::MAX, 255, u64::MAX)), None);
    }
}
