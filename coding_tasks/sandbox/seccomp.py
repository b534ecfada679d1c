"""The filter for system calls: what no coding agent needs, and what has let code out before.

A classic BPF program as seccomp(2) describes. Calls that are not named are allowed, because the
namespaces and the lack of capabilities confine them.
"""

import errno
import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL = 0x7FFF_0000, 0x8000_0000
_FAIL = 0x0005_0000
_X32 = 0x4000_0000
"""The bit of x86-64's second numbering of the same calls."""

_NAMESPACES = 0x7E02_0080
"""Every CLONE_NEW* flag."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16  # Linux's numbers, which Python lacks elsewhere
_FAMILIES = (_UNIX, _INET, _INET6, _NETLINK)
"""The only families of sockets. Without them are AF_VSOCK, AF_PACKET, AF_ALG and many more."""


@dataclass(frozen=True)
class _Machine:
    """How an architecture numbers its calls."""

    audit: int
    numbers: dict[str, int]


_REFUSED = (
    # Other processes, and the kernel's own machinery.
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "bpf"),
    *("perf_event_open", "add_key", "request_key", "keyctl", "personality"),
    # Mounts and namespaces.
    *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "fanotify_init"),
    *("name_to_handle_at", "open_by_handle_at", "lookup_dcookie", "quotactl", "quotactl_fd"),
    # The whole machine.
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot"),
    *("swapon", "swapoff", "acct", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex"),
    *("syslog", "vhangup"),
)

_SAME_EVERYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip
_X86_64 = _Machine(0xC000_003E, _SAME_EVERYWHERE | {
    "socket": 41, "clone": 56, "ioctl": 16, "ptrace": 101, "syslog": 103, "personality": 135,
    "vhangup": 153, "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163,
    "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
    "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
})  # fmt: skip
_AARCH64 = _Machine(0xC000_00B7, _SAME_EVERYWHERE | {
    "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51,
    "vhangup": 58, "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97,
    "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112,
    "syslog": 116, "ptrace": 117, "reboot": 142, "settimeofday": 170, "adjtimex": 171,
    "socket": 198, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220,
    "swapon": 224, "swapoff": 225, "perf_event_open": 241, "fanotify_init": 262,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273,
    "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
})  # fmt: skip
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def machines() -> tuple[str, ...]:
    """Return the machines for which there is a filter, as `platform.machine` calls them."""
    return tuple(_MACHINES)


def build(machine: str | None = None) -> bytes:
    """Return the compiled filter of a machine. Raises KeyError for other machines."""
    name = machine or platform.machine()
    target = _MACHINES[name]
    program = [_step(_LOAD, _ARCHITECTURE), *_unless_equal(target.audit, _KILL)]
    program.append(_step(_LOAD, _CALL_NUMBER))
    if name == "x86_64":
        program += [_step(_AT_LEAST, _X32, 0, 1), _fail(errno.ENOSYS)]
    for call in _REFUSED:
        program += [_step(_EQUAL, target.numbers[call], 0, 1), _fail(errno.EPERM)]
    # Its flags cannot be seen, so libraries are made to fall back on clone.
    program += [_step(_EQUAL, target.numbers["clone3"], 0, 1), _fail(errno.ENOSYS)]
    program += _when(
        target.numbers["clone"],
        [_argument(0), _step(_ANY_BIT, _NAMESPACES, 0, 1), _fail(errno.EPERM)],
    )
    program += _when(
        target.numbers["ioctl"],
        [_argument(1), *_if_any((_TIOCSTI, _TIOCLINUX), errno.EPERM)],
    )
    program += _when(target.numbers["socket"], [_argument(0), *_only(_FAMILIES)])
    program.append(_step(_RETURN, _ALLOW))
    return b"".join(program)


def _step(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)


def _fail(error: int) -> bytes:
    return _step(_RETURN, _FAIL | error)


def _argument(number: int) -> bytes:
    """Load the low half of an argument. The kernel ignores the high half of these."""
    return _step(_LOAD, _ARGUMENTS + 8 * number)


def _unless_equal(value: int, result: int) -> list[bytes]:
    return [_step(_EQUAL, value, 1, 0), _step(_RETURN, result)]


def _if_any(values: tuple[int, ...], error: int) -> list[bytes]:
    return [step for value in values for step in (_step(_EQUAL, value, 0, 1), _fail(error))]


def _only(values: tuple[int, ...]) -> list[bytes]:
    allow = _step(_RETURN, _ALLOW)
    allowed = [step for value in values for step in (_step(_EQUAL, value, 0, 1), allow)]
    return [*allowed, _fail(errno.EAFNOSUPPORT)]


def _when(call: int, steps: list[bytes]) -> list[bytes]:
    """Do the steps for one call. Calls that they don't decide are allowed."""
    return [_step(_EQUAL, call, 0, len(steps) + 1), *steps, _step(_RETURN, _ALLOW)]
