"""Real system calls that fail: a child process asks its parent before each one that concerns a folder.

The kernel stops the calls that a seccomp filter names, whoever makes them: Python, torch or Rust. The
parent lets each go on, has it fail with an error, or kills the child before it is carried out.
"""

import ctypes
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

import pytest

from faults_support import started

GO_ON, KILL = 0, -signal.SIGKILL
"""What may become of a call; or it fails with an error's number."""

CALLS: dict[int, tuple[str, str]] = {
    1: ("write", "descriptor"),
    18: ("pwrite64", "descriptor"),
    20: ("writev", "descriptor"),
    296: ("pwritev", "descriptor"),
    40: ("sendfile", "descriptor"),
    326: ("copy_file_range", "- - descriptor"),
    77: ("ftruncate", "descriptor"),
    285: ("fallocate", "descriptor"),
    74: ("fsync", "descriptor"),
    75: ("fdatasync", "descriptor"),
    91: ("fchmod", "descriptor"),
    2: ("open", "name"),
    76: ("truncate", "name"),
    82: ("rename", "name name"),
    83: ("mkdir", "name"),
    84: ("rmdir", "name"),
    87: ("unlink", "name"),
    86: ("link", "- name"),
    88: ("symlink", "- name"),
    90: ("chmod", "name"),
    257: ("openat", "folder name"),
    264: ("renameat", "folder name folder name"),
    316: ("renameat2", "folder name folder name"),
    258: ("mkdirat", "folder name"),
    263: ("unlinkat", "folder name"),
    265: ("linkat", "- - folder name"),
    266: ("symlinkat", "- folder name"),
    268: ("fchmodat", "folder name"),
    280: ("utimensat", "folder name"),
}
"""What changes something on a disk, by its number on x86-64, and which of its arguments tell where."""
READS: dict[int, tuple[str, str]] = {
    0: ("read", "descriptor"),
    17: ("pread64", "descriptor"),
    19: ("readv", "descriptor"),
    9: ("mmap", "- - - - descriptor"),
    5: ("fstat", "descriptor"),
    217: ("getdents64", "descriptor"),
    2: ("open", "name"),
    4: ("stat", "name"),
    6: ("lstat", "name"),
    21: ("access", "name"),
    89: ("readlink", "name"),
    257: ("openat", "folder name"),
    262: ("newfstatat", "folder name"),
    332: ("statx", "folder name"),
    269: ("faccessat", "folder name"),
    439: ("faccessat2", "folder name"),
    267: ("readlinkat", "folder name"),
}
"""What looks at a disk."""
FLAGS = {"open": 1, "openat": 2}
"""Which argument tells whether a call that opens a file may change it."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

SECCOMP, FILTER, LISTENER, NO_NEW_PRIVILEGES = 317, 1, 8, 38
LOAD, EQUAL, RETURN, ASK, ALLOW = 0x20, 0x15, 0x06, 0x7FC00000, 0x7FFF0000
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
NOTIFICATION, RESPONSE = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")
PAGE = 4096
HERE = 2**32 - 100
"""In the place of a folder's descriptor: names are relative to the current folder (AT_FDCWD)."""


class Call(NamedTuple):
    """A system call that is about to be carried out."""

    name: str
    paths: tuple[str, ...]
    flags: int
    """Of a call that opens a file."""


def watched(
    call: Callable[[], object],
    folder: Path,
    decide: Callable[[Call], int],
    calls: dict[int, tuple[str, str]] = CALLS,
) -> int:
    """Calls in a forked process, and asks what becomes of each system call that changes, or with READS
    looks at, what is in or below a folder.

    Returns what `in_child` does.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("calls are known by their numbers on Linux and x86-64")
    ours, its = socket.socketpair()
    child = started(lambda: (_ask(its, calls), call()))
    its.close()
    with closing(ours):
        _, listeners, *_ = socket.recv_fds(ours, 1, 1)
    if not listeners:
        os.waitpid(child, 0)
        pytest.skip("this kernel, or its container, lets no process ask before a call")
    try:
        for number, one in _asked(*listeners, calls):
            inside = any(path.startswith(os.path.realpath(folder)) for path in one.paths)
            fate = decide(one) if inside else GO_ON
            if fate == KILL:
                os.kill(child, signal.SIGKILL)
            else:
                with suppress(FileNotFoundError):  # it was killed meanwhile
                    ioctl(*listeners, SEND, RESPONSE.pack(number, 0, -fate, 0 if fate else CONTINUE))
    finally:
        os.kill(child, signal.SIGKILL)  # or it would wait for ever after an error here
        os.close(*listeners)
        status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


def _ask(parent: socket.socket, calls: dict[int, tuple[str, str]]) -> None:
    """From now on this process, and what it starts, waits for an answer before each of the calls."""
    steps = [(LOAD, 0, 0, 0)]
    for number in calls:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ASK)]
    code = b"".join(struct.pack("HBBI", *step) for step in [*steps, (RETURN, 0, 0, ALLOW)])
    held = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(SECCOMP, FILTER, LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(parent, [b"."], [listener])
    os.close(listener)  # if the parent ends, calls fail instead of waiting for ever


def _asked(listener: int, calls: dict[int, tuple[str, str]]) -> Iterator[tuple[int, Call]]:
    """Each call that waits, and the number by which to answer, until no process is left to ask."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while poll.poll()[0][1] & select.POLLIN:
        content = bytearray(NOTIFICATION.size)
        try:
            ioctl(listener, RECEIVE, content)
        except FileNotFoundError:  # it was killed meanwhile
            continue
        number, process, _, kind, _, _, *arguments = NOTIFICATION.unpack(content)
        name, where = calls[kind]
        flags = arguments[FLAGS[name]] if name in FLAGS else 0
        concerned = bool(flags & WRITES) == (calls is CALLS) if name in FLAGS else True
        paths = _paths(process, where.split(), arguments) if concerned else ()
        yield number, Call(name, tuple(paths), flags)


def _paths(process: int, kinds: list[str], arguments: list[int]) -> Iterator[str]:
    folder = HERE
    for kind, argument in zip(kinds, arguments, strict=False):
        if kind == "descriptor":
            yield _opened(process, argument)
        elif kind == "folder":
            folder = argument % 2**32
        elif kind == "name":
            yield os.path.normpath(os.path.join(_opened(process, folder), _text(process, argument)))


def _opened(process: int, descriptor: int) -> str:
    """The path of what is open; empty if nothing is."""
    with suppress(FileNotFoundError):
        return os.readlink(f"/proc/{process}/" + ("cwd" if descriptor == HERE else f"fd/{descriptor}"))
    return ""


def _text(process: int, address: int) -> str:
    """What stands in the memory of a process, up to its end."""
    content = b""
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        while b"\0" not in content:
            memory.seek(address + len(content))
            content += memory.read(-memory.tell() % PAGE or PAGE)  # the next page may not be there
    return os.fsdecode(content.partition(b"\0")[0])
