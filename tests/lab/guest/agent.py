#!/usr/bin/python3
"""The lab's hand in the guest: runs commands for the host over the virtio-serial ports lab.0, lab.1, ...

One port carries one session at a time. A frame is type (1 byte), length (4, big endian), payload.
  host to guest: X run (JSON)   I stdin   E end of stdin   S signal (1 byte)   T what is CLOCK_MONOTONIC?
  guest to host: O stdout   R stderr   Q exit status (int32), or the clock (double) after T
A session starts with MAGIC and 16 random bytes, sent back, so that stale bytes are skipped. When the host's end closes, the command
and its process group are killed. The other end: autoglm_lab/machine/channel.py.
"""

import contextlib
import fcntl
import json
import os
import pwd
import select
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

MAGIC = b"\x00LAB1\x00"
PORTS = 6
busy = set()


class Gone(Exception):
    """The host closed its end."""


def read_exactly(port, count):
    data = b""
    poll = select.poll()
    poll.register(port, select.POLLIN)
    while len(data) < count:
        for _, events in poll.poll(5000):
            if events & (select.POLLHUP | select.POLLERR):
                raise Gone
        try:
            part = os.read(port, count - len(data))
        except BlockingIOError:
            continue
        if not part:
            raise Gone
        data += part
    return data


def write_all(port, data):
    rest = memoryview(data)
    poll = select.poll()
    poll.register(port, select.POLLOUT)
    while rest:
        try:
            rest = rest[os.write(port, rest[:32768]) :]
        except BlockingIOError:
            for _, events in poll.poll(2000):
                if events & (select.POLLHUP | select.POLLERR):
                    raise Gone from None


def send(port, kind, payload=b""):
    write_all(port, kind + struct.pack(">I", len(payload)) + payload)


def receive(port):
    kind, length = struct.unpack(">cI", read_exactly(port, 5))
    return kind, read_exactly(port, length) if length else b""


def spawn(request):
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/root",
    }
    identity = {}
    if request.get("user"):
        user = pwd.getpwnam(request["user"])
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}
        environment.update(HOME=user.pw_dir, USER=user.pw_name)
    environment.update(request.get("env") or {})
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    place = request.get("cwd") or "/"
    return subprocess.Popen(request["argv"], cwd=place, env=environment, start_new_session=True, **pipes, **identity)


def serve(port):
    seen = b""
    while not seen.endswith(MAGIC):
        seen = (seen + read_exactly(port, 1))[-64:]
    write_all(port, MAGIC + read_exactly(port, 16))
    kind, payload = receive(port)
    if kind == b"T":
        send(port, b"Q", struct.pack(">d", time.monotonic()))
        return
    try:
        child = spawn(json.loads(payload))
    except (OSError, KeyError, ValueError) as error:
        send(port, b"R", f"lab-agent: {error}\n".encode())
        send(port, b"Q", struct.pack(">i", 127))
        return
    end = os.pidfd_open(child.pid)
    try:
        attend(port, child, end)
    except (Gone, OSError):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    finally:
        os.close(end)
        for stream in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(OSError):
                stream.close()


def attend(port, child, end):
    """Carries bytes until the command has ended, then what it left in its pipes, then its status."""
    outputs = {child.stdout.fileno(): b"O", child.stderr.fileno(): b"R"}
    poll = select.poll()
    for output in outputs:
        os.set_blocking(output, False)
        poll.register(output, select.POLLIN)
    poll.register(end, select.POLLIN)
    poll.register(port, select.POLLIN)
    has_ended = False
    while not has_ended:
        for ready, _ in poll.poll():
            if ready in outputs:
                try:
                    data = os.read(ready, 65536)
                except BlockingIOError:
                    continue
                if data:
                    send(port, outputs[ready], data)
                else:
                    poll.unregister(ready)
            elif ready == end:
                has_ended = True
            else:
                obey(port, child)
    status = child.wait()
    for output, kind in outputs.items():
        with contextlib.suppress(BlockingIOError):
            while data := os.read(output, 65536):
                send(port, kind, data)
    send(port, b"Q", struct.pack(">i", status if status >= 0 else 128 - status))


def obey(port, child):
    kind, payload = receive(port)
    with contextlib.suppress(BrokenPipeError, ValueError, ProcessLookupError):
        if kind == b"I":
            child.stdin.write(payload)
            child.stdin.flush()
        elif kind == b"E":
            child.stdin.close()
        elif kind == b"S":
            os.killpg(child.pid, payload[0])


def work(path, port):
    try:
        with contextlib.suppress(Gone, OSError):
            serve(port)
    finally:
        busy.discard(path)
        os.kill(os.getpid(), signal.SIGIO)


def open_ports(ports):
    """By the names in /sys, so that there is no need to wait for udev."""
    for label in Path("/sys/class/virtio-ports").glob("*/name"):
        path = f"/dev/{label.parent.name}"
        if path in ports or not Path(path).exists() or not label.read_text("ascii").startswith("lab."):
            continue
        port = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(port, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(port, fcntl.F_SETFL, fcntl.fcntl(port, fcntl.F_GETFL) | os.O_ASYNC)
        ports[path] = port


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO, signal.SIGCHLD})
    ports = {}
    while True:
        if len(ports) < PORTS:
            open_ports(ports)
        for path, port in ports.items():
            if path in busy:
                continue
            poll = select.poll()
            poll.register(port, select.POLLIN)
            # A port whose host side is closed polls IN and HUP for ever.
            if any(events & select.POLLIN and not events & select.POLLHUP for _, events in poll.poll(0)):
                busy.add(path)
                threading.Thread(target=work, args=(path, port), daemon=True).start()
        signal.sigtimedwait({signal.SIGIO}, 0.5 if ports else 0.1)


main()
