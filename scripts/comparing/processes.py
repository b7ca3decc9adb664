"""Servers as children, and what the kernel counts of them."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A run that must not be counted."""


@contextlib.contextmanager
def started(argv, output, port, core):
    """Runs a server in the foreground, and always ends its whole tree."""
    with open(output, "wb") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        deadline = time.monotonic() + 15
        while not accepts(port):
            if process.poll() is not None:
                raise Failed(f"{argv[0]} did not start: {tail(output)}")
            if time.monotonic() > deadline:
                raise Failed(f"{argv[0]} does not listen after 15 s")
            time.sleep(0.02)
        yield process
        if process.poll() is not None:
            raise Failed(f"{argv[0]} ended with status {process.returncode}")
    finally:
        pids = tree(process.pid)
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def accepts(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def tree(pid):
    """The process and all that descend from it."""
    pids, found = [pid], []
    while pids:
        current = pids.pop()
        found.append(current)
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, children.read_text().split())
    return found


def cpu_seconds(pid):
    """User and system time of the tree; a process's own line has all its threads."""
    user = system = 0
    for each in tree(pid):
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND


def resident_bytes(pid):
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def check_affinity(pid, core):
    for each in tree(pid):
        for status in Path(f"/proc/{each}/task").glob("*/status"):
            allowed = re.search(r"Cpus_allowed_list:\s*(\S+)", status.read_text()).group(1)
            if allowed != str(core):
                raise Failed(f"thread {status.parent.name} may run on cores {allowed}")


def command(argv, complaint):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"compare: {complaint}:\n{done.stdout}")


def tail(path, lines=15):
    with contextlib.suppress(OSError):
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
    return ""
