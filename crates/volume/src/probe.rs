//! What a device holds, told by its superblock.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use types::{Result, error::ResultExt as _};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Only zeros where file systems have their superblocks.
    Nothing,
    /// `clean`: it was unmounted or frozen, and knows of no errors. Sizes are in bytes.
    Ext4 {
        clean: bool,
        bytes: u64,
    },
    Xfs {
        bytes: u64,
    },
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
        let block = bytes[4..8]
            .iter()
            .fold(0u64, |all, one| all << 8 | u64::from(*one));
        let blocks = bytes[8..16]
            .iter()
            .fold(0u64, |all, one| all << 8 | u64::from(*one));
        return Holds::Xfs {
            bytes: block.saturating_mul(blocks),
        };
    }
    if word(0x38) == 0xEF53 {
        const VALID: u16 = 1;
        const ERRORS: u16 = 2;
        const NEEDS_RECOVERY: u32 = 4;
        let state = word(0x3A);
        let clean = state & VALID != 0 && state & ERRORS == 0 && long(0x60) & NEEDS_RECOVERY == 0;
        const SIXTY_FOUR_BITS: u32 = 0x80;
        let high = if long(0x60) & SIXTY_FOUR_BITS != 0 {
            u64::from(long(0x150)) << 32
        } else {
            0
        };
        let blocks = u64::from(long(4)) | high;
        return Holds::Ext4 {
            clean,
            bytes: blocks.saturating_mul(1024u64.checked_shl(long(0x18)).unwrap_or(0)),
        };
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
        bytes[1024 + 4] = 100;
        bytes[1024 + 0x18] = 2;
        let (clean, size) = (true, 100 * 4096);
        assert_eq!(judge(&bytes), Holds::Ext4 { clean, bytes: size });
        bytes[1024 + 0x60] = 4;
        let clean = false;
        assert_eq!(judge(&bytes), Holds::Ext4 { clean, bytes: size });
        bytes[..16].copy_from_slice(b"XFSB\0\0\x10\0\0\0\0\0\0\0\0\x02");
        assert_eq!(judge(&bytes), Holds::Xfs { bytes: 8192 });
    }
}
