//! The ioctls of btrfs, as linux/btrfs.h defines them, with safe signatures.
//!
//! Nothing here knows about pools or datasets.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    time::Duration,
};

use rustix::{
    io::Errno,
    ioctl::{self, Opcode, opcode},
};

const MAGIC: u8 = 0x94;

const VOL_NAME_MAX: usize = 255;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    /// Bytes of, and pointer to, a `struct btrfs_qgroup_inherit`.
    size: u64,
    inherit: u64,
    unused: [u64; 2],
    name: [u8; 4040],
}

/// `struct btrfs_qgroup_limit`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct QgroupLimit {
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}

/// `struct btrfs_qgroup_inherit` with room for one group.
#[repr(C)]
struct QgroupInherit {
    flags: u64,
    num_qgroups: u64,
    num_ref_copies: u64,
    num_excl_copies: u64,
    limit: QgroupLimit,
    qgroup: u64,
}

#[repr(C)]
struct QgroupLimitArgs {
    qgroup: u64,
    limit: QgroupLimit,
}

#[repr(C)]
struct QgroupAssignArgs {
    assign: u64,
    source: u64,
    target: u64,
}

#[repr(C)]
struct QgroupCreateArgs {
    create: u64,
    qgroup: u64,
}

#[repr(C)]
struct QuotaCtlArgs {
    command: u64,
    status: u64,
}

#[repr(C)]
struct SendArgs {
    fd: i64,
    clone_sources_count: u64,
    clone_sources: u64,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    sec: u64,
    nsec: u32,
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct SubvolInfoArgs {
    treeid: u64,
    name: [u8; VOL_NAME_MAX + 1],
    parent_id: u64,
    dirid: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    ctransid: u64,
    otransid: u64,
    stransid: u64,
    rtransid: u64,
    times: [Timespec; 4],
    reserved: [u64; 8],
}

/// `struct btrfs_ioctl_ino_path_args`.
#[repr(C)]
struct InoPathArgs {
    inode: u64,
    size: u64,
    reserved: [u64; 4],
    /// Pointer to the buffer for the answer.
    buffer: u64,
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfoArgs {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    nodesize: u32,
    sectorsize: u32,
    clone_alignment: u32,
    csum_type: u16,
    csum_size: u16,
    flags: u64,
    generation: u64,
    metadata_uuid: [u8; 16],
    reserved: [u8; 944],
}

/// `struct btrfs_ioctl_dev_info_args`.
#[repr(C)]
struct DevInfoArgs {
    devid: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}

/// `struct btrfs_ioctl_get_dev_stats`.
#[repr(C)]
struct DevStatsArgs {
    devid: u64,
    nr_items: u64,
    flags: u64,
    values: [u64; 5],
    unused: [u64; 121],
}

const SPACE_SLOTS: usize = 32;

/// `struct btrfs_ioctl_space_args` with room for all profiles there are.
#[repr(C)]
struct SpaceArgs {
    slots: u64,
    total: u64,
    spaces: [Space; SPACE_SLOTS],
}

/// What one kind of block groups holds, in bytes of content (one copy).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Space {
    pub(super) flags: u64,
    pub(super) total: u64,
    pub(super) used: u64,
}

const RESIZE: Opcode = opcode::write::<VolArgs>(MAGIC, 3);
const SCAN_DEV: Opcode = opcode::write::<VolArgs>(MAGIC, 4);
const FORGET_DEV: Opcode = opcode::write::<VolArgs>(MAGIC, 5);
const ADD_DEV: Opcode = opcode::write::<VolArgs>(MAGIC, 10);
const SPACE_INFO: Opcode = opcode::read_write::<[u64; 2]>(MAGIC, 20);
const SNAP_CREATE_V2: Opcode = opcode::write::<VolArgsV2>(MAGIC, 23);
const SUBVOL_CREATE_V2: Opcode = opcode::write::<VolArgsV2>(MAGIC, 24);
const SUBVOL_SETFLAGS: Opcode = opcode::write::<u64>(MAGIC, 26);
const INO_PATHS: Opcode = opcode::read_write::<InoPathArgs>(MAGIC, 35);
const DEV_INFO: Opcode = opcode::read_write::<DevInfoArgs>(MAGIC, 30);
const FS_INFO: Opcode = opcode::read::<FsInfoArgs>(MAGIC, 31);
const SEND: Opcode = opcode::write::<SendArgs>(MAGIC, 38);
const QUOTA_CTL: Opcode = opcode::read_write::<QuotaCtlArgs>(MAGIC, 40);
const QGROUP_ASSIGN: Opcode = opcode::write::<QgroupAssignArgs>(MAGIC, 41);
const QGROUP_CREATE: Opcode = opcode::write::<QgroupCreateArgs>(MAGIC, 42);
const QGROUP_LIMIT: Opcode = opcode::read::<QgroupLimitArgs>(MAGIC, 43);
const QUOTA_RESCAN: Opcode = opcode::write::<[u64; 8]>(MAGIC, 44);
const QUOTA_RESCAN_WAIT: Opcode = opcode::none(MAGIC, 46);
const GET_FSLABEL: Opcode = opcode::read::<[u8; LABEL_SIZE]>(MAGIC, 49);
const SET_FSLABEL: Opcode = opcode::write::<[u8; LABEL_SIZE]>(MAGIC, 50);
const GET_DEV_STATS: Opcode = opcode::read_write::<DevStatsArgs>(MAGIC, 52);
const GET_SUBVOL_INFO: Opcode = opcode::read::<SubvolInfoArgs>(MAGIC, 60);
const SNAP_DESTROY_V2: Opcode = opcode::write::<VolArgsV2>(MAGIC, 63);

/// `BTRFS_LABEL_SIZE`, with the NUL at the end.
const LABEL_SIZE: usize = 256;
const FLAG_RDONLY: u64 = 1 << 1;
const FLAG_QGROUP_INHERIT: u64 = 1 << 2;
const FLAG_SPEC_BY_ID: u64 = 1 << 4;
const SEND_NO_FILE_DATA: u64 = 1;
const LIMIT_MAX_RFER: u64 = 1;

/// Simple quotas (`BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`).
pub(super) const QUOTA_SIMPLE: u64 = 4;
/// Full quota groups (`BTRFS_QUOTA_CTL_ENABLE`).
pub(super) const QUOTA_FULL: u64 = 1;

type Io<T> = Result<T, Errno>;

/// Calls `$op` on `$fd` with a pointer to `$value`.
macro_rules! call {
    ($op:expr, $type:ty, $fd:expr, $value:expr) => {
        // SAFETY: the opcode `$op` is defined above together with the structure it works on,
        // whose layout is that of linux/btrfs.h, and `$value` is such a structure. What it
        // points to, if anything, outlives the call.
        unsafe { ioctl::ioctl($fd, ioctl::Updater::<{ $op }, $type>::new(&mut $value)) }
    };
}

fn name<const N: usize>(text: &OsStr) -> Io<[u8; N]> {
    let bytes = text.as_bytes();
    if bytes.len() >= N || bytes.contains(&0) {
        return Err(Errno::NAMETOOLONG);
    }
    let mut name = [0; N];
    name[..bytes.len()].copy_from_slice(bytes);
    Ok(name)
}

fn args_v2(text: &OsStr) -> Io<VolArgsV2> {
    Ok(VolArgsV2 {
        fd: 0,
        transid: 0,
        flags: 0,
        size: 0,
        inherit: 0,
        unused: [0; 2],
        name: name(text)?,
    })
}

fn inherit(group: u64) -> QgroupInherit {
    QgroupInherit {
        flags: 0,
        num_qgroups: 1,
        num_ref_copies: 0,
        num_excl_copies: 0,
        limit: QgroupLimit::default(),
        qgroup: group,
    }
}

/// Makes an empty subvolume `text` in `parent`, its group a member of `group`.
pub(super) fn subvolume_create(parent: impl AsFd, text: &OsStr, group: Option<u64>) -> Io<()> {
    let mut args = args_v2(text)?;
    let groups = group.map(inherit);
    if let Some(groups) = &groups {
        args.flags |= FLAG_QGROUP_INHERIT;
        args.size = size_of::<QgroupInherit>() as u64;
        args.inherit = std::ptr::from_ref(groups) as u64;
    }
    call!(SUBVOL_CREATE_V2, VolArgsV2, parent, args)
}

/// Makes a snapshot `text` in `parent` of the subvolume `source`, its group a member of `group`.
pub(super) fn snapshot_create(
    parent: impl AsFd,
    text: &OsStr,
    source: impl AsFd,
    group: Option<u64>,
    read_only: bool,
) -> Io<()> {
    let mut args = args_v2(text)?;
    args.fd = source.as_fd().as_raw_fd().into();
    if read_only {
        args.flags |= FLAG_RDONLY;
    }
    let groups = group.map(inherit);
    if let Some(groups) = &groups {
        args.flags |= FLAG_QGROUP_INHERIT;
        args.size = size_of::<QgroupInherit>() as u64;
        args.inherit = std::ptr::from_ref(groups) as u64;
    }
    call!(SNAP_CREATE_V2, VolArgsV2, parent, args)
}

/// Removes the subvolume `text` in `parent`.
pub(super) fn subvolume_destroy(parent: impl AsFd, text: &OsStr) -> Io<()> {
    let mut args = args_v2(text)?;
    call!(SNAP_DESTROY_V2, VolArgsV2, parent, args)
}

/// Removes the subvolume with this id, wherever it is on the file system of `any`.
pub(super) fn subvolume_destroy_id(any: impl AsFd, id: u64) -> Io<()> {
    let mut args = args_v2(OsStr::new(""))?;
    args.flags = FLAG_SPEC_BY_ID;
    args.name[..8].copy_from_slice(&id.to_ne_bytes());
    call!(SNAP_DESTROY_V2, VolArgsV2, any, args)
}

/// What there is to know about a subvolume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subvolume {
    pub(super) id: u64,
    pub(super) generation: u64,
    pub(super) uuid: [u8; 16],
    /// Of what it is a snapshot; zero for none.
    pub(super) parent: [u8; 16],
    /// The transaction and the time of its last change.
    pub(super) changed: (u64, Duration),
    /// The transaction that made it, and when.
    pub(super) created: (u64, Duration),
}

/// About the subvolume that `any` lies in.
pub(super) fn subvolume_info(any: impl AsFd) -> Io<Subvolume> {
    let mut args = SubvolInfoArgs {
        treeid: 0,
        name: [0; VOL_NAME_MAX + 1],
        parent_id: 0,
        dirid: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        ctransid: 0,
        otransid: 0,
        stransid: 0,
        rtransid: 0,
        times: [Timespec { sec: 0, nsec: 0 }; 4],
        reserved: [0; 8],
    };
    call!(GET_SUBVOL_INFO, SubvolInfoArgs, any, args)?;
    Ok(Subvolume {
        id: args.treeid,
        generation: args.generation,
        uuid: args.uuid,
        parent: args.parent_uuid,
        changed: (args.ctransid, since_epoch(args.times[0])),
        created: (args.otransid, since_epoch(args.times[1])),
    })
}

fn since_epoch(time: Timespec) -> Duration {
    Duration::new(time.sec, time.nsec.min(999_999_999))
}

/// Makes a subvolume read-only.
pub(super) fn subvolume_freeze(subvolume: impl AsFd) -> Io<()> {
    let mut flags = FLAG_RDONLY;
    call!(SUBVOL_SETFLAGS, u64, subvolume, flags)
}

/// Commits the running transaction and waits for it. Other than syncfs it does not write out
/// all that anybody has dirty.
///
/// To set the label, here to what it is, is the call that does nothing besides. The one made for
/// this, `BTRFS_IOC_START_SYNC`, leaves the commit to a kernel thread that misses the request
/// when it is about to go to sleep: then the caller hangs until the periodic commit, half a
/// minute later.
pub(super) fn commit(any: impl AsFd) -> Io<()> {
    let mut label = [0u8; LABEL_SIZE];
    call!(GET_FSLABEL, [u8; LABEL_SIZE], &any, label)?;
    call!(SET_FSLABEL, [u8; LABEL_SIZE], &any, label)
}

/// Switches quotas on.
pub(super) fn quota_enable(any: impl AsFd, command: u64) -> Io<()> {
    let mut args = QuotaCtlArgs { command, status: 0 };
    call!(QUOTA_CTL, QuotaCtlArgs, any, args)
}

/// Lets full quotas be counted anew, in the background.
pub(super) fn quota_rescan(any: impl AsFd) -> Io<()> {
    // Flags, progress and reserved: all zero.
    let mut args = [0u64; 8];
    call!(QUOTA_RESCAN, [u64; 8], any, args)
}

/// Waits for the scan that full quotas begin with.
pub(super) fn quota_wait(any: impl AsFd) -> Io<()> {
    // SAFETY: BTRFS_IOC_QUOTA_RESCAN_WAIT takes no argument.
    unsafe { ioctl::ioctl(any, ioctl::NoArg::<QUOTA_RESCAN_WAIT>::new()) }
}

/// Makes or removes a quota group.
pub(super) fn group_create(any: impl AsFd, group: u64, create: bool) -> Io<()> {
    let mut args = QgroupCreateArgs {
        create: create.into(),
        qgroup: group,
    };
    call!(QGROUP_CREATE, QgroupCreateArgs, any, args)
}

/// Makes `source` a member of `target`.
pub(super) fn group_assign(any: impl AsFd, source: u64, target: u64) -> Io<()> {
    let mut args = QgroupAssignArgs {
        assign: 1,
        source,
        target,
    };
    // A positive result says that a rescan would be needed, which is not so for groups that
    // begin empty.
    call!(QGROUP_ASSIGN, QgroupAssignArgs, any, args)
}

/// Limits the bytes of a group; `None` lifts the limit.
pub(super) fn group_limit(any: impl AsFd, group: u64, bytes: Option<u64>) -> Io<()> {
    const LIFT: u64 = u64::MAX;
    let mut args = QgroupLimitArgs {
        qgroup: group,
        limit: QgroupLimit {
            flags: LIMIT_MAX_RFER,
            max_rfer: bytes.unwrap_or(LIFT),
            ..QgroupLimit::default()
        },
    };
    call!(QGROUP_LIMIT, QgroupLimitArgs, any, args)
}

fn vol_args(text: &OsStr) -> Io<VolArgs> {
    Ok(VolArgs {
        fd: 0,
        name: name(text)?,
    })
}

/// Resizes a device: `devid:max` and the like.
pub(super) fn resize(any: impl AsFd, how: &str) -> Io<()> {
    let mut args = vol_args(OsStr::new(how))?;
    call!(RESIZE, VolArgs, any, args)
}

/// Adds a device, which loses what it holds.
pub(super) fn device_add(any: impl AsFd, device: &OsStr) -> Io<()> {
    let mut args = vol_args(device)?;
    call!(ADD_DEV, VolArgs, any, args)
}

/// Tells the kernel about a device (on `/dev/btrfs-control`), as udev does where there is one.
pub(super) fn device_scan(control: impl AsFd, device: &OsStr) -> Io<()> {
    let mut args = vol_args(device)?;
    call!(SCAN_DEV, VolArgs, control, args)
}

/// Makes the kernel forget an unmounted device (on `/dev/btrfs-control`).
pub(super) fn device_forget(control: impl AsFd, device: &OsStr) -> Io<()> {
    let mut args = vol_args(device)?;
    call!(FORGET_DEV, VolArgs, control, args)
}

/// A mounted file system.
#[derive(Debug, Clone)]
pub(super) struct FileSystem {
    pub(super) max_device: u64,
    pub(super) uuid: [u8; 16],
}

/// About the file system of `any`.
pub(super) fn file_system(any: impl AsFd) -> Io<FileSystem> {
    let mut args = FsInfoArgs {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        nodesize: 0,
        sectorsize: 0,
        clone_alignment: 0,
        csum_type: 0,
        csum_size: 0,
        flags: 0,
        generation: 0,
        metadata_uuid: [0; 16],
        reserved: [0; 944],
    };
    call!(FS_INFO, FsInfoArgs, any, args)?;
    Ok(FileSystem {
        max_device: args.max_id,
        uuid: args.fsid,
    })
}

/// One device of a file system.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) id: u64,
    pub(super) bytes: u64,
    /// Empty when it is missing.
    pub(super) path: PathBuf,
}

/// All devices of the file system of `any`.
pub(super) fn devices(any: impl AsFd) -> Io<Vec<Device>> {
    let fs = file_system(&any)?;
    let mut found = Vec::new();
    for devid in 1..=fs.max_device {
        let mut args = DevInfoArgs {
            devid,
            uuid: [0; 16],
            bytes_used: 0,
            total_bytes: 0,
            unused: [0; 379],
            path: [0; 1024],
        };
        match call!(DEV_INFO, DevInfoArgs, &any, args) {
            Ok(()) => found.push(Device {
                id: devid,
                bytes: args.total_bytes,
                path: path_of(&args.path),
            }),
            Err(Errno::NODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    let length = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    PathBuf::from(OsStr::from_bytes(&bytes[..length]))
}

/// How often a device failed: writes, reads, flushes, corrupt blocks and wrong generations.
pub(super) fn device_errors(any: impl AsFd, devid: u64) -> Io<u64> {
    let mut args = DevStatsArgs {
        devid,
        nr_items: 5,
        flags: 0,
        values: [0; 5],
        unused: [0; 121],
    };
    call!(GET_DEV_STATS, DevStatsArgs, any, args)?;
    Ok(args.values.iter().sum())
}

/// What all kinds of block groups hold.
pub(super) fn spaces(any: impl AsFd) -> Io<Vec<Space>> {
    let mut args = SpaceArgs {
        slots: SPACE_SLOTS as u64,
        total: 0,
        spaces: [Space::default(); SPACE_SLOTS],
    };
    call!(SPACE_INFO, SpaceArgs, any, args)?;
    let count = usize::try_from(args.total).map_or(SPACE_SLOTS, |n| n.min(SPACE_SLOTS));
    Ok(args.spaces[..count].to_vec())
}

/// Writes the difference of the read-only `subvolume` to its read-only `parent` into `out`,
/// without file data, in the format of `btrfs send` version 1.
pub(super) fn send(subvolume: impl AsFd, parent: u64, out: &OwnedFd) -> Io<()> {
    let sources = [parent];
    let mut args = SendArgs {
        fd: out.as_raw_fd().into(),
        clone_sources_count: 1,
        clone_sources: sources.as_ptr() as u64,
        parent_root: parent,
        flags: SEND_NO_FILE_DATA,
        version: 0,
        reserved: [0; 28],
    };
    call!(SEND, SendArgs, subvolume, args)
}

/// All paths of an inode in the subvolume of `subvolume`, relative to its root; not those that
/// do not fit into 64 KiB.
pub(super) fn inode_paths(subvolume: impl AsFd, inode: u64) -> Io<Vec<Vec<u8>>> {
    const SIZE: usize = 64 << 10;
    // `struct btrfs_data_container`: four counters of 32 bits, then the offsets of the paths,
    // counted from there.
    const HEAD: usize = 16;
    let mut buffer = vec![0u64; SIZE / 8];
    let mut args = InoPathArgs {
        inode,
        size: SIZE as u64,
        reserved: [0; 4],
        buffer: buffer.as_mut_ptr() as u64,
    };
    call!(INO_PATHS, InoPathArgs, subvolume, args)?;
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let count = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    let paths = buffer[HEAD / 8..].iter().take(count).filter_map(|offset| {
        let start = HEAD.checked_add(usize::try_from(*offset).ok()?)?;
        let rest = bytes.get(start..)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        Some(rest[..length].to_vec())
    });
    Ok(paths.collect())
}
