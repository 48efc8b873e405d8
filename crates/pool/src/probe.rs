//! What a device or file holds before a pool is put onto it.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use types::{Error, Result, error::ResultExt as _};

/// The head of a btrfs file system as a device shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BtrfsHead {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    /// How many devices the file system has.
    pub(crate) devices: u64,
    pub(crate) label: String,
}

/// The head of the btrfs on a device or in a file; `None` when there is none.
pub(crate) fn btrfs_head(path: &Path) -> Result<Option<BtrfsHead>> {
    const AT: u64 = 64 << 10;
    let mut block = [0u8; 4096];
    let file = File::open(path).during(|| format!("open {}", path.display()))?;
    match file.read_exact_at(&mut block, AT) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Error::wrap(format!("read {}", path.display()), error)),
    }
    Ok(parse_btrfs_head(&block))
}

/// Offsets as in `struct btrfs_super_block`.
fn parse_btrfs_head(block: &[u8; 4096]) -> Option<BtrfsHead> {
    if &block[0x40..0x48] != b"_BHRfS_M" {
        return None;
    }
    let number =
        |at: usize| -> Option<u64> { Some(u64::from_le_bytes(block[at..at + 8].try_into().ok()?)) };
    let label = &block[0x12b..0x12b + 256];
    let end = label.iter().position(|b| *b == 0).unwrap_or(label.len());
    Some(BtrfsHead {
        uuid: block[0x20..0x30].try_into().ok()?,
        generation: number(0x48)?,
        devices: number(0x88)?,
        label: String::from_utf8_lossy(&label[..end]).into_owned(),
    })
}

/// Block devices of this machine that bear a part of the btrfs `uuid`.
pub(crate) fn btrfs_devices(uuid: [u8; 16]) -> Vec<(PathBuf, BtrfsHead)> {
    let Ok(entries) = std::fs::read_dir("/sys/class/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let path = Path::new("/dev").join(entry.file_name());
            let head = btrfs_head(&path).ok()??;
            (head.uuid == uuid).then_some((path, head))
        })
        .collect()
}

/// Refuses a device that is none, that is in use, or that holds anything.
pub(crate) fn check_free_device(path: &Path) -> Result<()> {
    check_unused_device(path)?;
    if let Some(what) = content(path)? {
        return Err(Error::conflict(format!(
            "{device} holds {what}: if it is not needed, wipe it with: wipefs --all {device}",
            device = path.display()
        )));
    }
    Ok(())
}

/// Refuses a path that is no block device, or one that is mounted or held.
pub(crate) fn check_unused_device(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::not_found(format!("there is no device {}", path.display()))
        }
        _ => Error::wrap(format!("look at {}", path.display()), error),
    })?;
    if !metadata.file_type().is_block_device() {
        return Err(Error::invalid(format!(
            "{} is not a block device",
            path.display()
        )));
    }
    let exclusive = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
        .open(path);
    match exclusive {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(Error::conflict(format!(
            "{} is in use: it is mounted, or a part of something",
            path.display()
        ))),
        Err(error) => Err(Error::wrap(format!("open {}", path.display()), error)),
    }
}

/// What `blkid` finds on a device: a file system, a partition table, a member of a RAID...
pub(crate) fn content(path: &Path) -> Result<Option<String>> {
    let output = Command::new("blkid")
        .args(["--probe", "--output", "export", "--"])
        .arg(path)
        .output()
        .during(|| "run blkid")?;
    const NOTHING: i32 = 2;
    const AMBIGUOUS: i32 = 8;
    match output.status.code() {
        Some(0) => Ok(Some(describe(&String::from_utf8_lossy(&output.stdout)))),
        Some(NOTHING) => Ok(None),
        Some(AMBIGUOUS) => Ok(Some("several things at once".into())),
        _ => Err(Error::system(format!(
            "look at {} with blkid: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

fn describe(export: &str) -> String {
    let value = |key: &str| {
        export
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    match (value("TYPE"), value("PTTYPE")) {
        (Some(kind), _) => match value("LABEL") {
            Some(label) => format!("{kind} (label {label})"),
            None => kind.to_owned(),
        },
        (None, Some(table)) => format!("a partition table ({table})"),
        (None, None) => "something".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions() {
        assert_eq!(describe("DEVNAME=/dev/x\nTYPE=ext4\n"), "ext4");
        assert_eq!(describe("TYPE=btrfs\nLABEL=a b\n"), "btrfs (label a b)");
        assert_eq!(describe("PTTYPE=gpt\n"), "a partition table (gpt)");
        assert_eq!(describe(""), "something");
    }

    #[test]
    fn no_btrfs_in_zeros_nor_in_a_short_file() {
        assert_eq!(parse_btrfs_head(&[0; 4096]), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"short").unwrap();
        assert_eq!(btrfs_head(file.path()).unwrap(), None);
    }

    #[test]
    fn a_file_is_no_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check_free_device(file.path()).unwrap_err();
        assert_eq!(error.kind, types::error::Kind::InvalidParameter);
        let error = check_free_device(Path::new("/dev/there-is-none")).unwrap_err();
        assert_eq!(error.kind, types::error::Kind::NotFound);
    }
}
