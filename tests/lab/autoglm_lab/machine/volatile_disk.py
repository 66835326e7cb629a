"""A disk with a volatile write cache, as an NBD server: a write is durable only after a flush, as on real disks.

Run as a process of its own (`python3 volatile_disk.py SOCKET STORE BASE CONTROL`), so that it can end at any moment. BASE is a read-only
image; STORE holds the durable blocks that differ from it (4 KiB each, STORE.map says which). What is written and not flushed
stays in memory. A datagram on CONTROL is the loss of power:

  cut none          every block that was not flushed is lost
  cut all           all are kept (an orderly end)
  cut random SEED   each is kept or lost by chance, and one in ten torn at a sector: later writes may survive earlier ones

The tally goes to STORE.stat as JSON. The protocol is NBD's fixed newstyle (nbd.git, doc/proto.md), with one export and one client.
"""

import json
import mmap
import os
import random
import socket
import struct
import sys
import threading
import time
from pathlib import Path

BLOCK = 4096
SECTOR = 512
# A flush takes an edge box's flash some 10 ms. Until it is over nothing of it is durable, so most cuts fall into one.
FLUSH_S = 0.01
# Of the blocks of a random cut.
SHARE_KEPT, SHARE_TORN = 0.45, 0.10

OPTION_MAGIC = 0x3E889045565A9
FLAGS = 1 | 4 | 8 | 32 | 64  # has flags, flush, FUA, trim, write zeroes
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1


class Disk:
    """The blocks. Whoever calls holds `lock`."""

    def __init__(self, store: str, base: str):
        self.lock = threading.Lock()
        self.size = Path(base).stat().st_size
        self.tally = {"writes": 0, "flushes": 0, "fua": 0, "kept": 0, "torn": 0, "lost": 0}
        self._store_path = store
        self._base = os.open(base, os.O_RDONLY)
        self._store = os.open(store, os.O_RDWR | os.O_CREAT)
        map_file = os.open(store + ".map", os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._store, self.size)
        os.ftruncate(map_file, self.size // BLOCK)
        self._differs = mmap.mmap(map_file, self.size // BLOCK)
        self._unflushed: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        data = b"".join(self._current(block) for block in range(first, end))
        return data[offset - first * BLOCK :][:length]

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            block, begin = divmod(offset + done, BLOCK)
            length = min(BLOCK - begin, len(data) - done)
            part = data[done : done + length]
            if length < BLOCK:
                whole = self._current(block)
                part = whole[:begin] + part + whole[begin + length :]
            self._unflushed[block] = part
            done += length

    def flush(self) -> None:
        for block, data in self._unflushed.items():
            self._commit(block, data)
        self._unflushed.clear()

    def cut(self, mode: str, seed: str | None) -> None:
        """The end of this process."""
        chance = random.Random(seed)
        for block, data in self._unflushed.items():
            fate = {"all": 0.0, "none": 1.0}.get(mode, chance.random())
            if fate < SHARE_KEPT:
                self._commit(block, data)
                self.tally["kept"] += 1
            elif fate < SHARE_KEPT + SHARE_TORN:
                length = chance.randrange(SECTOR, BLOCK, SECTOR)
                self._commit(block, data[:length] + self._durable(block)[length:])
                self.tally["torn"] += 1
            else:
                self.tally["lost"] += 1
        self._differs.flush()
        with open(self._store_path + ".stat", "w", encoding="ascii") as stat:
            json.dump(self.tally, stat)
        os._exit(0)

    def _current(self, block: int) -> bytes:
        return self._unflushed.get(block) or self._durable(block)

    def _durable(self, block: int) -> bytes:
        return os.pread(self._store if self._differs[block] else self._base, BLOCK, block * BLOCK)

    def _commit(self, block: int, data: bytes) -> None:
        os.pwrite(self._store, data, block * BLOCK)
        self._differs[block] = 1


class Client:
    """qemu, at the other end of the socket."""

    def __init__(self, disk: Disk, connection: socket.socket):
        self._disk = disk
        self._socket = connection
        self._stream = connection.makefile("rb", 1 << 20)

    def receive(self, layout: str) -> tuple:
        return struct.unpack(layout, self.receive_bytes(struct.calcsize(layout)))

    def receive_bytes(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            # qemu was killed without a word on CONTROL: that is a loss of power as well.
            with self._disk.lock:
                self._disk.cut("none", None)
        return data

    def negotiate(self) -> None:
        self._socket.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self.receive(">I")
        while True:
            _, option, length = self.receive(">QII")
            self.receive_bytes(length)
            if option == 1:  # EXPORT_NAME
                self._socket.sendall(struct.pack(">QH", self._disk.size, FLAGS) + b"\0" * 124)
                return
            if option in (6, 7):  # INFO, GO
                self._reply(option, 3, struct.pack(">HQH", 0, self._disk.size, FLAGS))
                self._reply(option, 3, struct.pack(">HIII", 3, 1, BLOCK, 1 << 25))
                self._reply(option, 1)
                if option == 7:
                    return
            else:
                self._reply(option, 0x80000001)

    def _reply(self, option: int, kind: int, payload: bytes = b"") -> None:
        self._socket.sendall(struct.pack(">QIII", OPTION_MAGIC, option, kind, len(payload)) + payload)

    def serve(self) -> None:
        disk = self._disk
        while True:
            magic, flags, command, handle, offset, length = self.receive(">IHHQQI")
            assert magic == REQUEST_MAGIC, "qemu speaks NBD"
            data = self.receive_bytes(length) if command == WRITE else b""
            answer = b""
            if command == FLUSH or flags & FUA:
                # Without the lock: the power may go now.
                time.sleep(FLUSH_S)
            with disk.lock:
                if command == READ:
                    answer = disk.read(offset, length)
                elif command == WRITE:
                    disk.tally["writes"] += 1
                    disk.write(offset, data)
                elif command == WRITE_ZEROES:
                    disk.write(offset, bytes(length))
                elif command == FLUSH:
                    disk.tally["flushes"] += 1
                    disk.flush()
                elif command == DISCONNECT:
                    disk.cut("all", None)
                if flags & FUA and command in (WRITE, WRITE_ZEROES):
                    disk.tally["fua"] += 1
                    disk.flush()
            self._socket.sendall(struct.pack(">IIQ", REPLY_MAGIC, 0, handle) + answer)


def main(socket_path: str, store: str, base: str, control_path: str) -> None:
    disk = Disk(store, base)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(control_path)

    def wait_for_cut() -> None:
        words = control.recv(100).decode().split()
        with disk.lock:
            disk.cut(words[1], words[2] if len(words) > 2 else None)

    threading.Thread(target=wait_for_cut, daemon=True).start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path)
    listener.listen(1)
    client = Client(disk, listener.accept()[0])
    client.negotiate()
    client.serve()


if __name__ == "__main__":
    main(*sys.argv[1:5])
