//! How fast a group reads and writes.

use std::path::Path;

use super::files;
use crate::error::Result;

/// Limits on block devices, each for reading and for writing. Without a value there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoLimits {
    /// Major and minor numbers of whole disks.
    pub devices: Vec<(u32, u32)>,
    /// Bytes per second.
    pub bytes: Option<u64>,
    /// Operations per second.
    pub operations: Option<u64>,
}

impl IoLimits {
    fn is_none(&self) -> bool {
        self.bytes.is_none() && self.operations.is_none()
    }

    /// The devices that a file of limits names (`254:0 …`).
    fn named(text: &str) -> Vec<String> {
        let number = |line: &str| line.split_whitespace().next().map(str::to_owned);
        text.lines().filter_map(number).collect()
    }

    fn wanted(&self) -> Vec<String> {
        let name = |(major, minor): &(u32, u32)| format!("{major}:{minor}");
        self.devices.iter().map(name).collect()
    }

    /// Sets exactly these limits (Documentation/admin-guide/cgroup-v1/blkio-controller). Version 1
    /// does not count what is below a group: each group in it gets them for itself.
    pub(super) fn apply_v1(&self, directory: &Path) -> Result<()> {
        self.apply_one_v1(directory)?;
        let Ok(entries) = std::fs::read_dir(directory) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            // A group may end meanwhile.
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Err(error) = self.apply_one_v1(&entry.path())
                && entry.path().exists()
            {
                return Err(error);
            }
        }
        Ok(())
    }

    fn apply_one_v1(&self, directory: &Path) -> Result<()> {
        for (file, limit) in [
            ("blkio.throttle.read_bps_device", self.bytes),
            ("blkio.throttle.write_bps_device", self.bytes),
            ("blkio.throttle.read_iops_device", self.operations),
            ("blkio.throttle.write_iops_device", self.operations),
        ] {
            let path = directory.join(file);
            let wanted = if limit.is_some() {
                self.wanted()
            } else {
                Vec::new()
            };
            for device in Self::named(&files::text(&path)?) {
                if !wanted.contains(&device) {
                    files::write(&path, &format!("{device} 0"))?;
                }
            }
            for device in wanted {
                files::write(&path, &format!("{device} {}", limit.unwrap_or(0)))?;
            }
        }
        Ok(())
    }

    /// The same (`io.max` of Documentation/admin-guide/cgroup-v2).
    pub(super) fn apply_v2(&self, directory: &Path) -> Result<()> {
        let path = directory.join("io.max");
        let wanted = if self.is_none() {
            Vec::new()
        } else {
            self.wanted()
        };
        for device in Self::named(&files::text(&path)?) {
            if !wanted.contains(&device) {
                files::write(
                    &path,
                    &format!("{device} rbps=max wbps=max riops=max wiops=max"),
                )?;
            }
        }
        let text = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |n| n.to_string());
        let (bytes, operations) = (text(self.bytes), text(self.operations));
        for device in wanted {
            let line =
                format!("{device} rbps={bytes} wbps={bytes} riops={operations} wiops={operations}");
            files::write(&path, &line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_is_wanted_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let limits = IoLimits {
            devices: vec![(254, 0)],
            bytes: Some(1000),
            operations: None,
        };
        limits.apply_v2(dir.path()).unwrap();
        assert_eq!(
            read("io.max"),
            "254:0 rbps=1000 wbps=1000 riops=max wiops=max"
        );
        limits.apply_v1(dir.path()).unwrap();
        assert_eq!(read("blkio.throttle.write_bps_device"), "254:0 1000");
        assert_eq!(read("blkio.throttle.write_iops_device"), "");
        // A plain file keeps the last write: that which takes back.
        IoLimits::default().apply_v2(dir.path()).unwrap();
        assert_eq!(
            read("io.max"),
            "254:0 rbps=max wbps=max riops=max wiops=max"
        );
        IoLimits::default().apply_v1(dir.path()).unwrap();
        assert_eq!(read("blkio.throttle.read_bps_device"), "254:0 0");
    }
}
