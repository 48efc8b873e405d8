//! The system calls that std does not have.

use std::{
    fs,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::{
    cmsg_space,
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// A duplicate of a standard descriptor, which itself then is /dev/null.
pub(crate) fn replace_with_null(standard: impl AsFd) -> io::Result<OwnedFd> {
    let duplicate = standard.as_fd().try_clone_to_owned()?;
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    // SAFETY: both descriptors are open; the standard one is only replaced by another file.
    let outcome = unsafe { nix::libc::dup2(null.as_raw_fd(), standard.as_fd().as_raw_fd()) };
    Errno::result(outcome)?;
    Ok(duplicate)
}

/// A session of its own, and orphans of the container become its children.
pub(crate) fn leave_session() -> io::Result<()> {
    // Fails only for the leader of a group, which has left already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Blocks all signals (children get theirs unblocked by std) and makes the descriptor that
/// tells of dead children.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let duplicate = signals.as_fd().try_clone_to_owned()?;
    Ok(duplicate)
}

/// Throws away what a signal descriptor has to say.
pub(crate) fn drain(signals: &OwnedFd) {
    let mut buffer = [0u8; 512];
    while nix::unistd::read(signals, &mut buffer).is_ok_and(|read| read > 0) {}
}

/// The kernel shall rather kill anything else. Best effort: it needs a capability.
pub(crate) fn protect_from_oom() {
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
}

/// Limits with the kernel's numbers; what it does not know is left to the OCI runtime.
pub(crate) fn limits(named: &[(String, u64)]) -> Vec<(Resource, u64)> {
    let known = |(name, hard): &(String, u64)| {
        let resource = match name.as_str() {
            "RLIMIT_AS" => Resource::RLIMIT_AS,
            "RLIMIT_CORE" => Resource::RLIMIT_CORE,
            "RLIMIT_CPU" => Resource::RLIMIT_CPU,
            "RLIMIT_DATA" => Resource::RLIMIT_DATA,
            "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
            "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
            "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
            "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
            "RLIMIT_NICE" => Resource::RLIMIT_NICE,
            "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
            "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
            "RLIMIT_RSS" => Resource::RLIMIT_RSS,
            "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
            "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
            "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
            "RLIMIT_STACK" => Resource::RLIMIT_STACK,
            _ => return None,
        };
        Some((resource, *hard))
    };
    named.iter().filter_map(known).collect()
}

/// Between fork and exec: raises hard limits as far as this process may. Where it may not, the
/// OCI runtime says so.
pub(crate) fn raise_limits(limits: &[(Resource, u64)]) {
    for (resource, hard) in limits {
        if let Ok((soft, now)) = getrlimit(*resource)
            && now < *hard
        {
            let _ = setrlimit(*resource, soft, *hard);
        }
    }
}

/// Between fork and exec: a mount namespace in which `target` is not mounted. Mount events
/// of everything else still reach it.
pub(crate) fn hide_mount(parent: &Path, target: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        parent,
        None::<&str>,
        MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    match umount2(target, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The descriptor sent over a socket.
pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0u8; 4096];
    let mut control = cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut name)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(io::Error::other("the OCI runtime sent no terminal"))
}

/// Sets a terminal's size in characters.
pub(crate) fn set_size(terminal: &impl AsFd, width: u16, height: u16) {
    let size = nix::libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and the kernel only reads the structure.
    let _ = unsafe {
        nix::libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            nix::libc::TIOCSWINSZ,
            &raw const size,
        )
    };
}

pub(crate) fn set_nonblocking(descriptor: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A dead child, if there is one: its id, and its exit code with the signal that ended it.
pub(crate) fn reap(child: Option<i32>) -> Option<(i32, i32, Option<i32>)> {
    loop {
        let pid = Pid::from_raw(child.unwrap_or(-1));
        return match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Some((pid.as_raw(), code, None)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                Some((pid.as_raw(), 128 + signal as i32, Some(signal as i32)))
            }
            Ok(WaitStatus::StillAlive) | Err(_) => None,
            Ok(_) => continue,
        };
    }
}
