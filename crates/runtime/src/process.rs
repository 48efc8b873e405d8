//! Processes, safe against the reuse of their numbers.

use std::{fs, io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim::proto::Started;

/// When a process started: field 22 of /proc/PID/stat, in clock ticks since boot.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether `started` still runs (a zombie does not).
pub fn is_alive(started: Started) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", started.pid)) else {
        return false;
    };
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_ascii_whitespace();
    let zombie = matches!(fields.next(), Some("Z" | "X"));
    !zombie && fields.nth(18).and_then(|field| field.parse().ok()) == Some(started.start_time)
}

/// A handle of exactly the process `started`; `None` when it is gone.
pub fn open(started: Started) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(started.pid) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // The handle is taken first: if the number was reused before that, the times differ.
        Ok(handle) if start_time(started.pid) == Some(started.start_time) => Ok(Some(handle)),
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a signal; false when the process is gone.
pub fn signal(started: Started, number: i32) -> io::Result<bool> {
    let Some(handle) = open(started)? else {
        return Ok(false);
    };
    if !(1..=64).contains(&number) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no signal {number}"),
        ));
    }
    // SAFETY: the number is a signal's; those that the C library keeps for itself are only
    // sent to another process here, never given a handler in this one.
    let signal = unsafe { Signal::from_raw_unchecked(number) };
    match pidfd_send_signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = Started {
            pid,
            start_time: start_time(pid).unwrap(),
        };
        assert!(is_alive(started));
        assert!(open(started).unwrap().is_some());
        let reused = Started {
            start_time: started.start_time + 1,
            ..started
        };
        assert!(!is_alive(reused));
        assert!(!signal(reused, 9).unwrap());
    }
}
