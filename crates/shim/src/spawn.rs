//! Starting the process through the OCI runtime.

use std::{
    fs,
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{net::UnixListener, process::CommandExt as _},
    },
    path::Path,
    process::{Command, Stdio},
};

use shim::proto::{Config, Stdin, files};

use crate::{input::Input, sys};

/// The OCI runtime on its way, and the streams that the process will have.
#[derive(Debug)]
pub(crate) struct Child {
    /// The OCI runtime's process id.
    pub(crate) runtime: i32,
    pub(crate) input: Input,
    pub(crate) stdout: Option<fs::File>,
    pub(crate) stderr: Option<fs::File>,
    /// Where a terminal will be handed over.
    pub(crate) console: Option<UnixListener>,
}

pub(crate) fn start(config: &Config, directory: &Path) -> io::Result<Child> {
    let (program, arguments) = config
        .argv
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut child = Child {
        runtime: 0,
        input: Input::new(None),
        stdout: None,
        stderr: None,
        console: None,
    };
    if config.tty {
        command.stderr(fs::File::create(directory.join(files::RUNTIME_STDERR))?);
        std::env::set_current_dir(directory)?;
        let console = UnixListener::bind(files::CONSOLE)?;
        std::env::set_current_dir("/")?;
        console.set_nonblocking(true)?;
        child.console = Some(console);
    } else {
        let (read, write) = pipe(config)?;
        command.stdout(write);
        child.stdout = Some(nonblocking(read.into())?.into());
        let (read, write) = pipe(config)?;
        command.stderr(write);
        child.stderr = Some(nonblocking(read.into())?.into());
        if config.stdin != Stdin::None {
            let (read, write) = pipe(config)?;
            command.stdin(read);
            child.input = Input::new(Some(nonblocking(write.into())?));
        }
    }
    if let Some(target) = config.hide_mount.clone() {
        let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
        // SAFETY: the hook makes system calls only, on strings made before the fork.
        unsafe { command.pre_exec(move || sys::hide_mount(&parent, &target)) };
    }
    let limits = sys::limits(&config.limits);
    if !limits.is_empty() {
        // SAFETY: the hook makes system calls only, on numbers made before the fork.
        unsafe {
            command.pre_exec(move || {
                sys::raise_limits(&limits);
                Ok(())
            })
        };
    }
    let spawned = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("start {program}: {error}")))?;
    child.runtime = spawned.id().cast_signed();
    Ok(child)
}

/// A pipe that the process can open again by its name under /proc.
fn pipe(config: &Config) -> io::Result<(io::PipeReader, io::PipeWriter)> {
    let (read, write) = io::pipe()?;
    if let Some((user, group)) = config.owner {
        std::os::unix::fs::fchown(&read, Some(user), Some(group))?;
    }
    Ok((read, write))
}

fn nonblocking(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    sys::set_nonblocking(&descriptor)?;
    Ok(descriptor)
}

/// What a failed OCI runtime had to say: the last error of its log, else what it printed.
pub(crate) fn failure(directory: &Path, stderr: Option<&mut fs::File>, code: i32) -> String {
    let log = fs::read_to_string(directory.join(files::RUNTIME_LOG)).unwrap_or_default();
    let errors = log
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = errors.filter(|entry| {
        entry["level"]
            .as_str()
            .is_none_or(|level| matches!(level, "error" | "fatal"))
    });
    if let Some(words) = errors.find_map(|entry| Some(entry["msg"].as_str()?.to_owned())) {
        return words;
    }
    let mut printed = Vec::new();
    match stderr {
        // The pipe ends, or has nothing more for now.
        Some(pipe) => drop(pipe.take(8192).read_to_end(&mut printed)),
        None => printed = fs::read(directory.join(files::RUNTIME_STDERR)).unwrap_or_default(),
    }
    let printed = String::from_utf8_lossy(&printed);
    match printed.trim() {
        "" => format!("the OCI runtime failed with status {code}"),
        words => words.to_owned(),
    }
}
