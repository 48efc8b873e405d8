//! What a daemon could leave behind in the kernel, counted before and after.
//!
//! Tests run in parallel and beside other daemons, so only things that carry a test's own directory are
//! counted: mounts below it, processes that name it, loop devices backed by files in it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Everything that belongs to one directory at one moment. Equal to `Leaks::default()` when nothing does.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leaks {
    /// Mount points below the directory.
    pub mounts: Vec<PathBuf>,
    /// Processes whose command line names the directory, as `pid command`.
    pub processes: Vec<String>,
    /// Loop devices whose backing file is below it.
    pub loops: Vec<PathBuf>,
}

impl Leaks {
    /// Counts now.
    pub fn of(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            mounts: mounts_below(directory)?,
            processes: processes_naming(directory)?,
            loops: loops_below(directory),
        })
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mount in &self.mounts {
            writeln!(f, "mount {}", mount.display())?;
        }
        for process in &self.processes {
            writeln!(f, "process {process}")?;
        }
        for device in &self.loops {
            writeln!(f, "loop device {}", device.display())?;
        }
        Ok(())
    }
}

fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(directory))
        .collect())
}

fn processes_naming(directory: &Path) -> io::Result<Vec<String>> {
    let needle = directory.as_os_str().as_encoded_bytes();
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process may end between the listing and the look at it.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if pid != own && line.windows(needle.len()).any(|part| part == needle) {
            let text = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("{pid} {}", text.trim_end()));
        }
    }
    Ok(found)
}

fn loops_below(directory: &Path) -> Vec<PathBuf> {
    // Without the loop module there is no such directory, and so no loop device either.
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    devices
        .flatten()
        .filter(|device| {
            fs::read_to_string(device.path().join("loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim_end()).starts_with(directory))
        })
        .map(|device| Path::new("/dev").join(device.file_name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_a_process_and_then_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Leaks::of(directory.path()).unwrap().is_empty());
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let mut child = std::process::Command::new("tail")
            .arg("-f")
            .arg(&file)
            .spawn()
            .unwrap();
        let seen = crate::wait_until(std::time::Duration::from_secs(5), || {
            Leaks::of(directory.path()).unwrap().processes.len() == 1
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen);
        assert!(Leaks::of(directory.path()).unwrap().is_empty());
    }
}
