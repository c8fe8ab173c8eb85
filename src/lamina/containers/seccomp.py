"""The seccomp filter of a container: our default, or one that a user wrote in Docker's format (pure).

Rules for editors: a call that any process may use goes to the theme it belongs to; a call that needs a capability goes
to `_BY_CAPABILITY`; a call with a condition on its arguments is a `Rule` of its own. Everything else fails with EPERM.

Not allowed here although some engines do: io_uring (its own door past the filter), sockets of AF_ALG and AF_VSOCK, and
socketcall, which would let 32-bit code open those sockets with arguments that a filter cannot see.

Source: moby profiles/seccomp (which calls, and the shape of a profile file); runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, JsonValue, from_strings, mapping, objects, parse_object, strings, text

MAX_PROFILE_BYTES = 1 << 20
_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_EPERM = 1
_ENOSYS = 38
# linux/sched.h: CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_CLONE_NAMESPACES = 0x7E020000
# linux/socket.h
_AF_ALG = 38
_AF_VSOCK = 40
# linux/personality.h: PER_LINUX, PER_LINUX32, UNAME26, both, and "tell me mine"
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": ("arm64", ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
    "riscv64": ("riscv64", ("SCMP_ARCH_RISCV64",)),
    "s390x": ("s390x", ("SCMP_ARCH_S390X", "SCMP_ARCH_S390")),
    "ppc64le": ("ppc64le", ("SCMP_ARCH_PPC64LE",)),
}
"""uname's machine → Go's name, and libseccomp's names of it and of the 32-bit ones it also runs."""

_PROCESSES = """
capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
getrlimit get_robust_list getrusage getsid get_thread_area gettid getuid getuid32 kill pidfd_open pidfd_send_signal
prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority
setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid
set_thread_area set_tid_address setuid setuid32 sigaltstack sigprocmask sigreturn sysinfo tgkill tkill ugetrlimit
uname uretprobe vfork
"""
_FILES = """
access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set
io_setup io_submit landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
linkat listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
mq_unlink name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64
setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee times
truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""
_WAITING = """
alarm clock_nanosleep clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv
futex_wake getitimer nanosleep _newselect pause poll ppoll ppoll_time64 pselect6 pselect6_time64 select setitimer
signalfd signalfd4 timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 wait4 waitid
waitpid
"""
_SOCKETS = """
accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
send sendmmsg sendmsg sendto setsockopt shutdown socketpair
"""
_MEMORY = """
brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
"""
_IPC = """
ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 msgctl
msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
_CLOCKS = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 gettimeofday
time
"""
_ANYBODY = (_PROCESSES, _FILES, _WAITING, _SOCKETS, _MEMORY, _IPC, _CLOCKS)

_BY_ARCHITECTURE = {
    "amd64": "arch_prctl modify_ldt",
    "arm64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "ppc64le": "sync_file_range2 swapcontext",
    "riscv64": "riscv_flush_icache riscv_hwprobe",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}
_ADMIN = """
bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie lsm_get_self_attr
lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd
setdomainname sethostname setns statmount syslog umount umount2 unshare
"""
_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": _ADMIN,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the filter: what happens to these calls when the condition on one argument holds."""

    names: tuple[str, ...]
    action: str = _ALLOW
    errno: int | None = None
    condition: tuple[int, str, int] | None = None
    """Position of the argument, operator without `SCMP_CMP_`, value."""

    def as_json(self) -> JsonObject:
        found: JsonObject = {"names": from_strings(self.names), "action": self.action}
        if self.errno is not None:
            found["errnoRet"] = self.errno
        if self.condition is not None:
            index, operator, value = self.condition
            # "masked equal" with valueTwo left out compares with zero: none of the bits of `value` may be set.
            found["args"] = [{"index": index, "value": value, "op": f"SCMP_CMP_{operator}"}]
        return found


@lru_cache(maxsize=32)
def default_filter(capabilities: frozenset[str], machine: str) -> JsonObject:
    """`linux.seccomp` of the runtime spec for a container with these capabilities. Shared: do not change it.

    An unknown machine gets the filter without an `architectures` list: the runtime then takes its own.
    """
    go_name, architectures = _ARCHITECTURES.get(machine, (machine, ()))
    found: JsonObject = {"defaultAction": _ERRNO, "defaultErrnoRet": _EPERM}
    if architectures:
        found["architectures"] = from_strings(architectures)
    found["syscalls"] = [rule.as_json() for rule in _rules(capabilities, go_name)]
    return found


def _rules(capabilities: frozenset[str], architecture: str) -> Iterator[Rule]:
    yield Rule(tuple(sorted(name for theme in _ANYBODY for name in theme.split())))
    if architecture in _BY_ARCHITECTURE:
        yield Rule(tuple(_BY_ARCHITECTURE[architecture].split()))
    for condition in ((0, "LT", _AF_ALG), (0, "EQ", _AF_ALG + 1), (0, "GT", _AF_VSOCK)):
        yield Rule(("socket",), condition=condition)
    for value in _PERSONALITIES:
        yield Rule(("personality",), condition=(0, "EQ", value))
    for capability, names in _BY_CAPABILITY.items():
        if capability in capabilities:
            yield Rule(tuple(names.split()))
    if "CAP_SYS_ADMIN" not in capabilities:
        flags_position = 1 if architecture == "s390x" else 0
        yield Rule(("clone",), condition=(flags_position, "MASKED_EQ", _CLONE_NAMESPACES))
        # The flags of clone3 are behind a pointer; ENOSYS makes the C library fall back to clone.
        yield Rule(("clone3",), action=_ERRNO, errno=_ENOSYS)
    # Musl falls back to the calls of its own kind: see the head of this file for why.
    yield Rule(("socketcall",), action=_ERRNO, errno=_ENOSYS)


def filter_of_profile(profile: str, capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> JsonObject:
    """`linux.seccomp` of a profile in Docker's JSON format; `kernel` is the running version.

    Raises:
        InvalidArgument: no JSON, or not of that format.
    """
    obj = parse_object(profile, what="Decoding seccomp profile failed: profile", max_bytes=MAX_PROFILE_BYTES)
    go_name, _ = _ARCHITECTURES.get(machine, (machine, ()))
    found: JsonObject = {"defaultAction": text(obj, "defaultAction")}
    if not found["defaultAction"]:
        raise InvalidArgument("Decoding seccomp profile failed: defaultAction is missing")
    for key in ("defaultErrnoRet", "listenerPath", "listenerMetadata", "flags"):
        if obj.get(key) is not None:
            found[key] = obj[key]
    architectures = _profile_architectures(obj, machine)
    if architectures:
        found["architectures"] = architectures
    found["syscalls"] = [
        _profile_call(call)
        for call in objects(obj, "syscalls")
        if _applies(call, frozenset(capabilities), go_name, kernel)
    ]
    return found


def _profile_architectures(obj: JsonObject, machine: str) -> list[JsonValue]:
    plain, mapped = strings(obj, "architectures"), objects(obj, "archMap")
    if plain and mapped:
        raise InvalidArgument("both 'architectures' and 'archMap' are specified in the seccomp profile, use only one")
    if plain:
        return from_strings(plain)
    native = _ARCHITECTURES.get(machine, ("", ("",)))[1][0]
    for entry in mapped:
        if text(entry, "architecture") == native:
            return from_strings([native, *strings(entry, "subArchitectures")])
    return []


def _profile_call(call: JsonObject) -> JsonObject:
    names = strings(call, "names")
    if call.get("name"):
        if names:
            raise InvalidArgument("both 'name' and 'names' are specified in the seccomp profile, use only one")
        names = [text(call, "name")]
    found: JsonObject = {"names": from_strings(names), "action": text(call, "action")}
    if call.get("errnoRet") is not None:
        found["errnoRet"] = call["errnoRet"]
    if objects(call, "args"):
        found["args"] = call["args"]
    return found


def _applies(call: JsonObject, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bool:
    wanted, unwanted = mapping(call, "includes"), mapping(call, "excludes")
    if strings(wanted, "arches") and architecture not in strings(wanted, "arches"):
        return False
    if architecture in strings(unwanted, "arches"):
        return False
    if not capabilities.issuperset(strings(wanted, "caps")) or capabilities.intersection(strings(unwanted, "caps")):
        return False
    least, below = text(wanted, "minKernel"), text(unwanted, "minKernel")
    return not (least and kernel < _version(least)) and not (below and kernel >= _version(below))


def _version(given: str) -> tuple[int, int]:
    major, _, minor = given.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise InvalidArgument(f"invalid kernel version {given[:40]!r} in the seccomp profile")
    return int(major), int(minor)
