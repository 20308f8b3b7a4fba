"""The system calls that a cage refuses, as seccomp filters for Linux on x86-64.

Honest training code needs none of them. They make things that outlive a run or reach past the
cage's walls: kernel keyrings, IPC objects, sockets of every family, other processes' limits and
priorities, tracing, namespaces, mounts, kernel modules, io_uring. A refused call fails with EPERM.

`cage_filter` is for everything inside; `run_filter` comes on top of it in each run, for what the
program that starts the runs has to do itself when it cleans up after them.

References:
    Linux, Documentation/userspace-api/seccomp_filter.rst; linux/filter.h; linux/audit.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

REFUSED = {
    "socket": 41, "socketpair": 53, "shmget": 29, "shmat": 30, "semget": 64, "msgget": 68,
    "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250, "ptrace": 101,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_getfd": 438,
    "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144,
    "sched_setaffinity": 203, "sched_setattr": 314, "ioprio_set": 251, "migrate_pages": 256,
    "move_pages": 279, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166,
    "pivot_root": 155, "chroot": 161, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsmount": 432, "mount_setattr": 442, "bpf": 321, "perf_event_open": 298,
    "userfaultfd": 323, "io_uring_setup": 425, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169,
    "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "syslog": 103,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "personality": 135, "vhangup": 153,
    "iopl": 172, "ioperm": 173, "fanotify_init": 300, "landlock_create_ruleset": 444,
}  # fmt: skip
"""Name -> number of the calls that are refused whatever their arguments."""

CHANGES = {
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93,
    "lchown": 94, "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261,
    "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "setxattrat": 463,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "removexattrat": 466,
    "file_setattr": 469,
}  # fmt: skip
"""Name -> number of the calls that change what a file is beside its content."""

PRLIMIT64 = 302
"""Allowed on the calling process (pid 0), which is how limits are read; refused on others."""
FCNTL, WRITE_HINTS = 72, (1036, 1038)
"""The kernel remembers a write hint with a file that is only read, for as long as it knows it."""

_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000  # numbers of the x32 interface start here
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in seccomp_data
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000

Program = list[tuple[int, int, int, int]]


def cage_filter() -> bytes:
    """The filter of a whole cage."""
    hints: Program = []
    for hint in WRITE_HINTS:
        hints += [(_JUMP_EQUAL, 0, 1, hint), (_RETURN, 0, 0, _REFUSE)]
    return _encoded(
        [
            *_refused(REFUSED.values()),
            *((_JUMP_EQUAL, 0, 4, PRLIMIT64), (_LOAD, 0, 0, _FIRST_ARGUMENT)),
            *((_JUMP_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)),
            *((_JUMP_EQUAL, 0, len(hints) + 2, FCNTL), (_LOAD, 0, 0, _SECOND_ARGUMENT)),
            *(*hints, (_RETURN, 0, 0, _ALLOW)),
        ]
    )


def run_filter() -> bytes:
    """What a run is refused beside what the whole cage is."""
    return _encoded(_refused(CHANGES.values()))


def _refused(numbers: Iterable[int]) -> Program:
    found: Program = []
    for number in sorted(numbers):
        found += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    return found


def _encoded(rules: Program) -> bytes:
    """The filter as the kernel reads it: 8 bytes per instruction of classic BPF."""
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
        *rules,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
