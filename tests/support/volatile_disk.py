"""An nbdkit plugin: a disk whose cache, when its power goes, keeps some of what was not flushed and tears some of that.

Parameters: file=IMAGE, control=FIFO. A line "cut SEED" on the FIFO is the loss of power: each unflushed block of 4 KiB then reaches
the image or not, by chance, some of them only with their first sectors; and the process ends at once, in the middle of whatever it did.
A disk that loses everything unflushed is nbdkit's own cache filter; this one is the worse case, in which later writes
may survive earlier ones.
"""

import builtins
import os
import random
import threading

import nbdkit

API_VERSION = 2
BLOCK = 4096
SECTOR = 512

parameters = {}
unflushed = {}
lock = threading.Lock()
image = None


def config(key, value):
    parameters[key] = value


def config_complete():
    missing = {"file", "control"} - parameters.keys()
    if missing:
        raise RuntimeError(f"missing parameters: {sorted(missing)}")


def after_fork():
    global image
    image = os.open(parameters["file"], os.O_RDWR)
    threading.Thread(target=wait_for_cut, daemon=True).start()


def wait_for_cut():
    # Not `open`: that is the plugin's callback below.
    with builtins.open(parameters["control"]) as control:
        command, seed = control.readline().split()
    assert command == "cut"
    chance = random.Random(int(seed))
    lock.acquire()
    share = chance.random()
    for offset, block in unflushed.items():
        if chance.random() < share:
            torn = chance.random() < 0.2
            length = chance.randrange(SECTOR, BLOCK, SECTOR) if torn else BLOCK
            os.pwrite(image, block[:length], offset)
    os._exit(1)


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def current_block(offset):
    found = unflushed.get(offset)
    return bytes(found) if found is not None else os.pread(image, BLOCK, offset).ljust(BLOCK, b"\0")


def can_flush(handle):
    return True


def get_size(handle):
    return os.fstat(image).st_size


def spans(length, offset):
    """The parts of a request, block by block: (block's offset, begin in block, begin in request, length)."""
    done = 0
    while done < length:
        begin = (offset + done) % BLOCK
        part = min(BLOCK - begin, length - done)
        yield offset + done - begin, begin, done, part
        done += part


def pread(handle, buffer, offset, flags):
    with lock:
        for block, begin, done, part in spans(len(buffer), offset):
            buffer[done : done + part] = current_block(block)[begin : begin + part]


def pwrite(handle, buffer, offset, flags):
    with lock:
        for block, begin, done, part in spans(len(buffer), offset):
            content = bytearray(buffer[done : done + part] if part == BLOCK else current_block(block))
            content[begin : begin + part] = buffer[done : done + part]
            unflushed[block] = bytes(content)


def flush(handle, flags):
    with lock:
        for offset, block in unflushed.items():
            os.pwrite(image, block, offset)
        unflushed.clear()


def open(readonly):
    return "the only disk"
