"""The first program inside gVisor or a container. It runs with the standard library only.

It reads what to run from its standard input: a length in `LENGTH_DIGITS` digits, then fields of
that many bytes together, with a NUL between them. The rest of the input belongs to the command. It
imports as little as it can, because imports take most of its time in gVisor.
"""

import ctypes
import os
import struct
import sys

_CLONE_NEWUSER = 0x1000_0000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_PR_CAPBSET_DROP, _MOST_CAPABILITIES = 24, 64
_INSTRUCTION = 8
"""Bytes of an instruction of a filter."""
LENGTH_DIGITS = 8
"""Digits of the length that comes before the fields."""
_SIGPIPE, _SIGXFSZ = 13, 25
"""Signals that Python ignores, which programs would inherit."""
_MISSING = 127
"""A shell's exit status for a command that it cannot start."""
_BY_SIGNAL = 128
"""A shell adds this to the number of the signal that ended a command."""
_CHUNK = 65_536


def main() -> None:
    """Become the command, or start it and serve its door. Exit as a shell would if that fails."""
    uid, port, path, compiled, count, *rest = _read(int(_read(LENGTH_DIGITS))).split(b"\0")
    environment = dict(variable.split(b"=", 1) for variable in rest[: int(count)])
    command = rest[int(count) :]
    if int(uid):
        _become(int(uid))
    _filter(bytes.fromhex(compiled.decode()))
    if int(port):
        _open_door(int(port), path)
    for ignored in (_SIGPIPE, _SIGXFSZ):
        ctypes.CDLL(None).signal(ignored, None)  # the default
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{os.fsdecode(command[0])}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_MISSING)


def _read(size: int) -> bytes:
    """Return exactly `size` bytes, and leave the rest of the input to the command."""
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit("the launcher was given too little")
    return data


def _become(uid: int) -> None:
    """Become an ordinary user for good, in a user namespace where root's files are this user's."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWUSER))
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(f"{uid} 0 1")
    for capability in range(_MOST_CAPABILITIES):  # those that the kernel lacks fail
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def _filter(compiled: bytes) -> None:
    """Install the filter for system calls, for this process and all that follow."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(compiled, len(compiled))
    program = struct.pack("@HP", len(compiled) // _INSTRUCTION, ctypes.addressof(code))
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _open_door(port: int, path: bytes) -> None:
    """Fork. The child returns; the parent passes on connections and exits with the child."""
    import asyncio
    import socket

    listening = socket.create_server(("127.0.0.1", port), backlog=128)
    child = os.fork()
    if child == 0:
        listening.close()
        return

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_unix_connection(os.fsdecode(path))
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, requests), copy(answers, writer))
        requests.close()
        writer.close()

    async def serve() -> None:
        await asyncio.start_server(connect, sock=listening)
        waiting = asyncio.get_running_loop().run_in_executor(None, os.waitpid, child, 0)
        status = os.waitstatus_to_exitcode((await waiting)[1])
        # At once: asyncio would cancel open connections, and write that to the command's output.
        os._exit(status if status >= 0 else _BY_SIGNAL - status)

    os.close(0)
    asyncio.run(serve())


if __name__ == "__main__":
    main()
