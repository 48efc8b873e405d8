//! The calls that have no safe wrapper: children that live for a few system calls, and
//! `mount_setattr`.

use std::{
    ffi::c_void,
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::libc;
use types::IdRange;

/// `MOUNT_ATTR_IDMAP` of `linux/mount.h`.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// `MOUNT_ATTR_NODEV` of `linux/mount.h`.
const MOUNT_ATTR_NODEV: u64 = 4;

/// Makes owners on a detached mount be seen through a user namespace, and its device nodes mere
/// files (mount_setattr(2)).
pub(crate) fn map_mount(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP | MOUNT_ATTR_NODEV,
        userns: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
        ..MountAttr::default()
    };
    // SAFETY: both descriptors are open, the path is a C string, and the structure outlives the
    // call with its true size.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes files of this thread, for good, those of a namespace's root; capabilities stay.
pub(crate) fn become_root_of(ids: IdRange) -> io::Result<()> {
    // Else capabilities that concern files would go with the id 0 (capabilities(7)).
    rustix::thread::set_capabilities_secure_bits(
        rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP,
    )?;
    // SAFETY: both concern the calling thread alone, and give the id from before.
    unsafe {
        libc::setfsgid(ids.first);
        libc::setfsuid(ids.first);
        // A second call tells whether the first one worked; the id of all ones changes nothing.
        let now = (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX));
        if now != (ids.first as i32, ids.first as i32) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
    }
    Ok(())
}

/// A child that waits until its standing order, a pipe, is closed.
struct Child(libc::pid_t);

impl Drop for Child {
    fn drop(&mut self) {
        reap(self.0);
    }
}

fn reap(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: waits for our own child, which says nothing to others (its exit signal is none).
    while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Makes a user namespace in which the ids from 0 on are those of `ids` outside.
///
/// A process has to be in it while the ids are written: a child does that.
pub(crate) fn new_user_namespace(ids: IdRange) -> io::Result<OwnedFd> {
    let (mut told, tell) = io::pipe()?;
    let (go, hold) = io::pipe()?;
    let (tell_fd, go_fd, hold_fd) = (tell.as_raw_fd(), go.as_raw_fd(), hold.as_raw_fd());
    // SAFETY: a fork without exit signal. The child shares no memory with us and makes nothing
    // but system calls (no allocation, no lock) before it ends.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: as above; all descriptors are open in the child, too.
        unsafe {
            // Else its end of the pipe would keep it waiting for itself.
            libc::close(hold_fd);
            let entered = libc::unshare(libc::CLONE_NEWUSER);
            let word = if entered == 0 {
                0
            } else {
                *libc::__errno_location()
            };
            libc::write(
                tell_fd,
                (&raw const word).cast::<c_void>(),
                size_of::<i32>(),
            );
            let mut byte = 0_u8;
            libc::read(go_fd, (&raw mut byte).cast::<c_void>(), 1);
            libc::_exit(0);
        }
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let child = Child(pid as libc::pid_t);
    let made = || -> io::Result<OwnedFd> {
        drop(tell);
        let mut word = [0; size_of::<i32>()];
        io::Read::read_exact(&mut told, &mut word)?;
        match i32::from_ne_bytes(word) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let of = |name: &str| format!("/proc/{pid}/{name}");
        let line = format!("0 {} {}", ids.first, ids.count);
        fs::write(of("uid_map"), &line)?;
        fs::write(of("gid_map"), &line)?;
        Ok(fs::File::open(of("ns/user"))?.into())
    };
    let made = made();
    drop(hold);
    drop(child);
    made
}

/// What the child of [`new_network`] gets and gives.
struct Order {
    namespace: i32,
    /// A descriptor, or an error number below zero.
    outcome: i32,
}

/// Makes a network namespace that belongs to a user namespace.
///
/// A thread cannot enter a user namespace, so a child does. It shares memory and descriptors
/// with us, as with vfork(2), and the calling thread waits for it: no page table is copied.
pub(crate) fn new_network(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    extern "C" fn child(order: *mut c_void) -> libc::c_int {
        let order = order.cast::<Order>();
        // SAFETY: the parent's thread, which owns the order, stands still. Nothing but system
        // calls is made, with constants and the order's numbers.
        unsafe {
            let failed = |order: *mut Order| {
                (*order).outcome = -*libc::__errno_location();
                0
            };
            if libc::setns((*order).namespace, libc::CLONE_NEWUSER) != 0
                || libc::unshare(libc::CLONE_NEWNET) != 0
            {
                return failed(order);
            }
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            match libc::open(c"/proc/self/ns/net".as_ptr(), flags) {
                fd if fd >= 0 => (*order).outcome = fd,
                _ => return failed(order),
            }
        }
        0
    }

    let mut order = Order {
        namespace: namespace.as_raw_fd(),
        outcome: -libc::ENOSYS,
    };
    let mut stack = vec![0_u128; 4096];
    // SAFETY: the stack grows down from its aligned end, is large enough for a few calls, and
    // lives until the child has ended, as does the order: CLONE_VFORK holds this thread until
    // then. No signal handler runs in the child.
    let pid = unsafe {
        let (mut all, mut before) = std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
        let top = stack.as_mut_ptr().add(stack.len());
        let pid = libc::clone(child, top.cast(), flags, (&raw mut order).cast());
        let errno = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if pid < 0 {
            return Err(errno);
        }
        pid
    };
    reap(pid);
    drop(stack);
    // SAFETY: the child wrote it; the compiler does not see that.
    match unsafe { (&raw const order.outcome).read_volatile() } {
        // SAFETY: the child opened it for us in the table that we share.
        fd if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}
