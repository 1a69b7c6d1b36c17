"""A filter of system calls for the process that runs student code: no new process, no
program, no socket, no signal, no look into another process, no memory outside its own
account. It needs no rights, and so also works where bubblewrap does not, as inside most
containers. Linux on x86-64 and AArch64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# name: (number on x86-64, number on AArch64); None where there is no such call
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "process_madvise": (440, 440),
    "mq_open": (240, 180),
    "open_by_handle_at": (304, 265),
}
ABSENT = {"clone3": (435, 435)}  # the C library then takes clone, which is looked at
CLONE = (56, 220)
# name: (numbers, argument, values that are refused there); None stands for all but 0
REFUSED_WITH = {
    "prlimit64": ((302, 261), 0, None),  # of another process; 0 is the process itself
    # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: signals by a file
    "fcntl": ((72, 25), 1, (8, 10, 15, 1024, 1026)),
    "ioctl": ((16, 29), 1, (0x8901, 0x8902, 0x5412)),  # FIOSETOWN, SIOCSPGRP, TIOCSTI
    "prctl": ((157, 167), 0, (1, 4)),  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
CLONE_THREAD = 0x00010000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000


def program(machine: str) -> bytes:
    "The filter, as instructions of classic BPF."
    which, architecture = MACHINES[machine]
    code: list[tuple[int, int, int, int]] = [
        (LOAD, 0, 0, 4),  # the architecture
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number of the call
    ]
    if machine == "x86_64":  # the same calls under the numbers of the x32 interface
        code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]
    for refused, number in ((REFUSED, errno.EPERM), (ABSENT, errno.ENOSYS)):
        for numbers in refused.values():
            if numbers[which] is not None:
                code += [(EQUAL, 0, 1, numbers[which]), (RETURN, 0, 0, REFUSE | number)]
    for numbers, argument, values in REFUSED_WITH.values():
        look = [(LOAD, 0, 0, 16 + 8 * argument)]  # the lower half of it
        if values is None:
            look += [(EQUAL, 1, 0, 0), (RETURN, 0, 0, REFUSE | errno.EPERM)]
        for value in values or ():
            look += [(EQUAL, 0, 1, value), (RETURN, 0, 0, REFUSE | errno.EPERM)]
        look += [(RETURN, 0, 0, ALLOW)]
        code += [(EQUAL, 0, len(look), numbers[which]), *look]
    code += [
        (EQUAL, 0, 3, CLONE[which]),
        (LOAD, 0, 0, 16),  # its flags: a thread may be made, a process may not
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in code)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def available() -> bool:
    return (
        sys.platform == "linux"
        and platform.machine() in MACHINES
        and ctypes.sizeof(ctypes.c_void_p) == 8
    )


def refuse() -> bool:
    "From now on the calls fail in this process; False where there is no such filter."
    if not available():
        return False
    code = program(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    told = _Program(len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        return False
    return prctl(22, 2, ctypes.byref(told), 0, 0) == 0  # PR_SET_SECCOMP, filter


def hide_memory() -> None:
    "Nobody but root may look into this process's memory, environment and files."
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def drop_rights() -> None:
    "Also root has no rights over other processes from now on."
    if sys.platform == "linux":
        head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
        ctypes.CDLL(None).capset(head, (ctypes.c_uint32 * 6)())


def adopt_orphans() -> None:
    "Processes whose parent ends become children of this one, so that it can end them."
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
