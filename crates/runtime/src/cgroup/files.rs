//! Reading and writing the small files of control groups.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// A file's text; empty when it does not exist (the controller is off, or the group is gone).
pub(super) fn text(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error)
            if is_gone(&error)
                || error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) =>
        {
            Ok(String::new())
        }
        Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
    }
}

/// A file with one number; 0 when it does not exist, `None` for `max`.
pub(super) fn number(path: &Path) -> Result<Option<u64>> {
    let text = text(path)?;
    Ok(if text.trim() == "max" {
        None
    } else {
        Some(text.trim().parse().unwrap_or(0))
    })
}

/// The number in the line `name N`.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    fields(text)
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// All lines `name N`.
pub(super) fn fields(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(Error::io(format!("write {value:?} to {}", path.display())))
}

/// Adds the processes of a group and of those nested in it.
pub(super) fn collect_pids(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let text = text(&directory.join("cgroup.procs"))?;
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    for nested in nested(directory)? {
        collect_pids(&nested, pids)?;
    }
    Ok(())
}

/// Removes an emptied group and those nested in it; it need not exist. The kernel keeps a
/// group busy for a moment after its last process has gone.
pub(super) fn remove_group(directory: &Path, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                // Rarely there is anything nested: it is looked for only now.
                let nested = nested(directory)?;
                for group in &nested {
                    remove_group(group, patience)?;
                }
                if nested.is_empty() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Err(error) => {
                return Err(Error::io(format!(
                    "remove the control group {}",
                    directory.display()
                ))(error));
            }
        }
    }
}

fn nested(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("list {}", directory.display()))(error)),
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

/// The group was removed, before or after its file was opened.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}
