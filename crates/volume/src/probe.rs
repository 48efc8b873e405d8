//! What a device holds, told by its superblock.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use types::{Result, error::ResultExt as _};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Only zeros where file systems have their superblocks.
    Nothing,
    /// `clean`: it was unmounted or frozen, and knows of no errors.
    Ext4 {
        clean: bool,
    },
    Xfs,
    Other,
}

/// As much as ext4, xfs, btrfs, partition tables and LVM put at the beginning.
const LOOKED_AT: usize = 68 << 10;

/// Looks at the beginning of a device or image.
pub(crate) fn probe(path: &Path) -> Result<Holds> {
    let file = File::open(path).during(|| format!("opening {}", path.display()))?;
    let mut bytes = vec![0; LOOKED_AT];
    let mut filled = 0;
    while filled < bytes.len() {
        match file
            .read_at(&mut bytes[filled..], filled as u64)
            .during(|| format!("reading {}", path.display()))?
        {
            0 => break,
            count => filled += count,
        }
    }
    Ok(judge(&bytes))
}

/// Offsets as in the kernel's Documentation/filesystems/ext4/super.rst and xfs.
fn judge(bytes: &[u8]) -> Holds {
    const SUPER: usize = 1024;
    let word = |at: usize| u16::from_le_bytes([bytes[SUPER + at], bytes[SUPER + at + 1]]);
    let long = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
    if bytes.starts_with(b"XFSB") {
        return Holds::Xfs;
    }
    if word(0x38) == 0xEF53 {
        const VALID: u16 = 1;
        const ERRORS: u16 = 2;
        const NEEDS_RECOVERY: u32 = 4;
        let state = word(0x3A);
        let clean = state & VALID != 0 && state & ERRORS == 0 && long(0x60) & NEEDS_RECOVERY == 0;
        return Holds::Ext4 { clean };
    }
    if bytes.iter().all(|byte| *byte == 0) {
        Holds::Nothing
    } else {
        Holds::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks() {
        let mut bytes = vec![0; LOOKED_AT];
        assert_eq!(judge(&bytes), Holds::Nothing);
        bytes[LOOKED_AT - 1] = 1;
        assert_eq!(judge(&bytes), Holds::Other);
        bytes[1024 + 0x38..1024 + 0x3C].copy_from_slice(&[0x53, 0xEF, 1, 0]);
        assert_eq!(judge(&bytes), Holds::Ext4 { clean: true });
        bytes[1024 + 0x60] = 4;
        assert_eq!(judge(&bytes), Holds::Ext4 { clean: false });
        bytes[..4].copy_from_slice(b"XFSB");
        assert_eq!(judge(&bytes), Holds::Xfs);
    }
}
