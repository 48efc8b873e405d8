//! Quota groups of a btrfs pool, as the kernel keeps them.
//!
//! Every dataset has a group 1/N over the groups of its subvolumes (0/ID), and every pool one
//! group 2/P over those. With simple quotas a block counts for the subvolume that wrote it
//! first, for as long as anything refers to it. What a dataset's limit means beyond that is
//! the business of `quota`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::ControlFlow,
    os::fd::AsFd,
    path::PathBuf,
};

use rustix::io::Errno;
use types::{Error, Result, error::ResultExt as _};

use super::{
    ioctl,
    search::{self, QGROUP_INFO, QGROUP_RELATION, QGROUP_STATUS, QUOTA_TREE, Range},
};

/// The number of a quota group: 16 bits of level, 48 bits of id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(pub(super) u64);

const ID_BITS: u32 = 48;
const ID_MASK: u64 = (1 << ID_BITS) - 1;

impl Group {
    pub(super) fn new(level: u64, id: u64) -> Self {
        Self(level << ID_BITS | (id & ID_MASK))
    }
    pub(super) fn level(self) -> u64 {
        self.0 >> ID_BITS
    }
    pub(super) fn id(self) -> u64 {
        self.0 & ID_MASK
    }
    /// The next of its level; never number 0.
    pub(super) fn next(self) -> Self {
        Self::new(self.level(), ((self.id() + 1) & ID_MASK).max(1))
    }
}

/// How a file system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Off,
    Full,
    Simple,
}

const INCONSISTENT: u64 = 1 << 2;

/// The state of the quotas of the file system of `any`.
pub(super) fn mode(any: impl AsFd) -> Result<Mode> {
    const ON: u64 = 1;
    const SIMPLE: u64 = 1 << 3;
    Ok(match status(any)? {
        flags if flags & ON == 0 => Mode::Off,
        flags if flags & SIMPLE != 0 => Mode::Simple,
        _ => Mode::Full,
    })
}

/// The flags of the quota tree; 0 without one.
fn status(any: impl AsFd) -> Result<u64> {
    let mut flags = 0;
    let range = Range::object(QUOTA_TREE, 0, QGROUP_STATUS);
    let found = search::search(any, range, |item| {
        flags = item.u64(16);
        ControlFlow::Break(())
    });
    match found {
        // There is no quota tree before quotas are switched on for the first time.
        Ok(()) | Err(Errno::NOENT) => Ok(flags),
        Err(error) => Err(Error::wrap("read the quota state", error)),
    }
}

/// Full quotas that a copy has put into disorder are counted anew.
pub(super) fn count_anew(any: impl AsFd) -> Result<()> {
    if status(&any)? & INCONSISTENT == 0 {
        return Ok(());
    }
    match ioctl::quota_rescan(any) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(Error::wrap("count the quota groups anew", error)),
    }
}

/// Switches quotas on where they are off: simple ones, or full ones on kernels without.
pub(super) fn enable(any: impl AsFd) -> Result<Mode> {
    match mode(&any)? {
        Mode::Off => {}
        on => return Ok(on),
    }
    match ioctl::quota_enable(&any, ioctl::QUOTA_SIMPLE) {
        Ok(()) => return Ok(Mode::Simple),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => {}
        Err(error) => return Err(Error::wrap("switch simple quotas on", error)),
    }
    tracing::warn!(
        "this kernel has no simple quotas of btrfs (Linux 6.7): full ones slow snapshots down"
    );
    ioctl::quota_enable(&any, ioctl::QUOTA_FULL).during(|| "switch quotas on")?;
    ioctl::quota_wait(&any).during(|| "wait for the first scan of quotas")?;
    Ok(Mode::Full)
}

/// All groups there are, with their bytes as of the last commit, and who is a member of whom.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) bytes: BTreeMap<Group, u64>,
    /// From member to its groups.
    pub(super) parents: BTreeMap<Group, BTreeSet<Group>>,
}

impl Groups {
    /// The members of `group`.
    pub(super) fn members(&self, group: Group) -> impl Iterator<Item = Group> + '_ {
        self.parents
            .iter()
            .filter(move |(_, parents)| parents.contains(&group))
            .map(|(member, _)| *member)
    }
}

/// Reads the whole quota tree.
pub(super) fn groups(any: impl AsFd) -> Result<Groups> {
    let mut groups = Groups::default();
    let range = Range {
        tree: QUOTA_TREE,
        from: (0, 0, 0),
        to: (u64::MAX, u32::MAX, u64::MAX),
        since: 0,
    };
    search::search(any, range, |item| {
        match item.kind {
            QGROUP_INFO => {
                groups.bytes.insert(Group(item.offset), item.u64(8));
            }
            // Each relation is there twice, once in each direction.
            QGROUP_RELATION if Group(item.object).level() < Group(item.offset).level() => {
                groups
                    .parents
                    .entry(Group(item.object))
                    .or_default()
                    .insert(Group(item.offset));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .during(|| "read the quota groups")?;
    Ok(groups)
}

/// Makes a group and a member of `parent`. True when it was not there before.
pub(super) fn create(any: impl AsFd, group: Group, parent: Option<Group>) -> Result<bool> {
    let created = match ioctl::group_create(&any, group.0, true) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(Error::wrap("make a quota group", error)),
    };
    if let Some(parent) = parent {
        match ioctl::group_assign(&any, group.0, parent.0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::wrap("assign a quota group", error)),
        }
    }
    Ok(created)
}

/// Removes a group; one that is not there is fine. False while something is charged to it.
pub(super) fn remove(any: impl AsFd, group: Group) -> Result<bool> {
    match ioctl::group_create(any, group.0, false) {
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(Error::wrap("remove a quota group", error)),
    }
}

/// Limits a group.
pub(super) fn limit(any: impl AsFd, group: Group, bytes: Option<u64>) -> Result<()> {
    ioctl::group_limit(any, group.0, bytes).during(|| "limit a quota group")
}

/// Where sysfs shows the groups of the file system `uuid`.
pub(super) fn sysfs(uuid: &[u8; 16]) -> PathBuf {
    PathBuf::from(format!("/sys/fs/btrfs/{}", uuid_text(uuid)))
}

/// What a group holds at this moment, in memory: what is charged and what writers have reserved.
/// The quota tree shows it only after the next commit.
pub(super) fn charged_now(uuid: &[u8; 16], group: Group) -> Option<u64> {
    let directory = sysfs(uuid).join(format!("qgroups/{}_{}", group.level(), group.id()));
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(directory.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    Some(read("referenced")? + read("rsv_data")?)
}

/// The usual text form.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_groups() {
        let group = Group::new(1, 0xabcdef);
        assert_eq!((group.level(), group.id()), (1, 0xabcdef));
        assert_eq!(group.next().id(), 0xabcdf0);
        assert_eq!(Group::new(1, ID_MASK).next(), Group::new(1, 1));
    }

    #[test]
    fn uuids() {
        let uuid: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(uuid_text(&uuid), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
