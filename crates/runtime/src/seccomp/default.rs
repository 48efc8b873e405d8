//! The profile for containers that ask for none: the system calls that docker documents as
//! allowed by default, and those that come with a capability.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

/// Harmless in any container.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
    listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
    removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall
    socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo
    tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
    truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
    vmsplice wait4 waitid waitpid write writev";

/// Of single architectures.
#[cfg(target_arch = "aarch64")]
const OWN: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";
#[cfg(target_arch = "riscv64")]
const OWN: &str = "riscv_flush_icache riscv_hwprobe";
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
const OWN: &str = "";

/// What comes with a capability.
const WITH_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
];

/// All `CLONE_NEW*` flags but the time namespace's, which `clone` cannot take (linux/sched.h).
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// `AF_VSOCK`: it would reach the hypervisor.
const VSOCK: u64 = 40;
/// What `personality` may be asked for: default, `UNAME26`, `SHORT_INODE` and both, or nothing.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const EPERM: u32 = 1;
/// Answered to `clone3`, whose flags cannot be looked at: C libraries then use `clone`.
const ENOSYS: u32 = 38;

/// The default profile for a container with these capabilities.
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let mut names: Vec<String> = words(ALLOWED).chain(words(OWN)).collect();
    for (capability, calls) in WITH_CAPABILITY {
        if capabilities.contains(&capability) {
            names.extend(words(calls));
        }
    }
    if capabilities.contains(&Capability::Perfmon) {
        names.push("perf_event_open".into());
    }
    names.sort();
    names.dedup();
    let mut rules = vec![
        rule(names, None),
        rule(
            words("socket").collect(),
            argument(VSOCK, LinuxSeccompOperator::ScmpCmpNe),
        ),
    ];
    rules.extend(PERSONALITIES.map(|value| {
        rule(
            words("personality").collect(),
            argument(value, LinuxSeccompOperator::ScmpCmpEq),
        )
    }));
    if !capabilities.contains(&Capability::SysAdmin) {
        rules.push(rule(
            words("clone").collect(),
            argument(NEW_NAMESPACES, LinuxSeccompOperator::ScmpCmpMaskedEq),
        ));
        let mut refused = rule(words("clone3").collect(), None);
        refused
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(ENOSYS));
        rules.push(refused);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    profile
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_ascii_whitespace().map(str::to_owned)
}

fn rule(names: Vec<String>, argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names)
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_args(argument.map(|argument| vec![argument]));
    rule
}

/// A condition on the first argument.
fn argument(value: u64, operator: LinuxSeccompOperator) -> Option<LinuxSeccompArg> {
    LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .op(operator)
        .build()
        .ok()
}

fn architectures() -> Vec<Arch> {
    match super::native() {
        Some(Arch::ScmpArchX86_64) => {
            vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
        }
        Some(Arch::ScmpArchAarch64) => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        Some(Arch::ScmpArchS390x) => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        Some(other) => vec![other],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_open_calls() {
        let allowed = |capabilities: &[Capability], name: &str| {
            let profile = default_profile(&capabilities.iter().copied().collect());
            profile.syscalls().iter().flatten().any(|rule| {
                rule.args().is_none()
                    && rule.errno_ret().is_none()
                    && rule.names().iter().any(|other| other == name)
            })
        };
        assert!(
            allowed(&[], "read")
                && !allowed(&[], "mount")
                && !allowed(&[], "clone")
                && !allowed(&[], "io_uring_setup")
        );
        assert!(
            allowed(&[Capability::SysAdmin], "mount") && allowed(&[Capability::SysAdmin], "clone3")
        );
        assert!(allowed(&[Capability::SysTime], "clock_settime"));
    }
}
