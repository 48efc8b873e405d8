//! `kraud-shim DIRECTORY`: supervises one process, a container's first or an exec session's.
//!
//! It starts the process through the OCI runtime, owns its standard streams or terminal,
//! writes the log, serves any number of clients on a unix socket, and records the exit
//! status before anybody is told. It lives in a session of its own, ignores every signal
//! that can be ignored, and ends only after its process has ended and its clients have
//! their output: the daemon may come and go.
//!
//! One thread and one `poll` loop ([`supervisor`]); no runtime, few buffers.

mod client;
mod input;
mod jsonlog;
mod spawn;
mod supervisor;
mod sys;
mod time;

use std::{
    env, fs,
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    process::ExitCode,
};

use shim::proto::{Config, Report, files};

use crate::supervisor::Supervisor;

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("kraud-shim is started by kraud: kraud-shim DIRECTORY");
        return ExitCode::from(2);
    };
    // Before any file of ours is opened: 0 and 1 are taken over, then point to /dev/null.
    let (listener, report) = match take_over() {
        Ok(taken) => taken,
        Err(error) => {
            eprintln!("kraud-shim: take over the descriptors: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(directory, listener, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn take_over() -> io::Result<(UnixListener, fs::File)> {
    let listener = UnixListener::from(sys::replace_with_null(io::stdin())?);
    let report = fs::File::from(sys::replace_with_null(io::stdout())?);
    listener.set_nonblocking(true)?;
    Ok((listener, report))
}

fn run(directory: PathBuf, listener: UnixListener, mut report: fs::File) -> io::Result<()> {
    let prepared = prepare(&directory).and_then(|(config, signals)| {
        spawn::start(&config, &directory).map(|child| (config, signals, child))
    });
    let (config, signals, child) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return tell(&mut report, &Report::Failed(error.to_string())),
    };
    Supervisor::new(config, directory, listener, signals, child).run(report)
}

fn prepare(directory: &std::path::Path) -> io::Result<(Config, OwnedFd)> {
    sys::leave_session()?;
    let signals = sys::block_signals()?;
    let config = serde_json::from_slice(&fs::read(directory.join(files::CONFIG))?)?;
    Ok((config, signals))
}

/// Writes the report; its pipe is closed when `report` is dropped.
fn tell(report: &mut fs::File, message: &Report) -> io::Result<()> {
    report.write_all(&serde_json::to_vec(message)?)
}
