"""The filter for system calls, run by an interpreter of its few instructions.

The interpreter can run the filter of another architecture too. `test_escapes` uses the kernel's.
"""

import errno
import socket
import struct

import pytest

from coding_tasks.sandbox import seccomp

ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
NUMBERS = {
    "x86_64": {"audit": 0xC000_003E, "read": 0, "socket": 41, "clone": 56, "ioctl": 16},
    "aarch64": {"audit": 0xC000_00B7, "read": 63, "socket": 198, "clone": 220, "ioctl": 29},
}


def decide(program: bytes, audit: int, call: int, *arguments: int) -> int:
    """Return what the kernel would do: the value of the return that is reached."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", call, audit, 0, *padded)
    steps = [program[at : at + 8] for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        code, when_true, when_false, value = struct.unpack("=HBBI", steps[at])
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += when_true if accumulator == value else when_false
            case 0x35:
                at += when_true if accumulator >= value else when_false
            case 0x45:
                at += when_true if accumulator & value else when_false
            case 0x06:
                return value


def fails_with(error: int) -> int:
    return 0x0005_0000 | error


@pytest.fixture(params=seccomp.machines())
def machine(request) -> str:
    return request.param


@pytest.fixture
def judge(machine):
    program = seccomp.build(machine)
    audit = NUMBERS[machine]["audit"]
    return lambda call, *arguments: decide(program, audit, call, *arguments)


def test_the_program_is_short_enough_for_the_kernel(machine):
    assert len(seccomp.build(machine)) % 8 == 0
    assert len(seccomp.build(machine)) // 8 < 4_096


def test_ordinary_calls_are_allowed(machine, judge):
    assert judge(NUMBERS[machine]["read"]) == ALLOW
    assert judge(NUMBERS[machine]["ioctl"], 0, 0x5401) == ALLOW


def test_calls_of_another_architecture_end_the_process(machine):
    for audit in (0x4000_0003, 0x4000_0028, 0):
        assert decide(seccomp.build(machine), audit, NUMBERS[machine]["read"]) == KILL


def test_every_refused_call_fails(machine, judge):
    numbers = seccomp._MACHINES[machine].numbers
    for name in seccomp._REFUSED:
        assert judge(numbers[name]) == fails_with(errno.EPERM), name
    assert judge(numbers["clone3"]) == fails_with(errno.ENOSYS)


def test_no_two_calls_have_one_number(machine):
    numbers = seccomp._MACHINES[machine].numbers
    assert len({*numbers.values()}) == len(numbers)


@pytest.mark.parametrize("family", [socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG, 0, 99])
def test_other_families_of_sockets_are_unknown(machine, judge, family):
    assert judge(NUMBERS[machine]["socket"], family) == fails_with(errno.EAFNOSUPPORT)
    # The kernel reads an int, so a high half must not hide the family.
    assert judge(NUMBERS[machine]["socket"], family | 1 << 32) == fails_with(errno.EAFNOSUPPORT)


@pytest.mark.parametrize(
    "family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
)
def test_usual_families_of_sockets_are_allowed(machine, judge, family):
    assert judge(NUMBERS[machine]["socket"], family) == ALLOW


def test_threads_and_processes_can_be_made_but_no_namespaces(machine, judge):
    clone = NUMBERS[machine]["clone"]
    assert judge(clone, 0x003D_0F00) == ALLOW  # as pthread_create does
    assert judge(clone, 17) == ALLOW
    for flag in (
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ):
        assert judge(clone, flag | 17) == fails_with(errno.EPERM)


@pytest.mark.parametrize("request_", [0x5412, 0x541C])
def test_nothing_can_be_typed_into_a_terminal(machine, judge, request_):
    assert judge(NUMBERS[machine]["ioctl"], 0, request_) == fails_with(errno.EPERM)


def test_the_second_numbering_of_calls_is_unknown():
    program = seccomp.build("x86_64")
    audit = NUMBERS["x86_64"]["audit"]
    assert decide(program, audit, 0x4000_0000 | 101) == fails_with(errno.ENOSYS)


def test_another_machine_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.build("riscv64")
