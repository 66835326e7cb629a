#!/usr/bin/env python3
"""This implementation and the Rust one understand each other, over a pseudo-terminal.

The device is the program named by DEVICE, which takes a key as its argument (`cargo build -p autoglm-protocol --example device`);
BARE is the folder of the programs that tests/freestanding/check.sh links.
"""

import hashlib
import os
import pty
import random
import subprocess
import tty
import unittest

from autoglm_wire.host import Host, Lost

DEVICE = os.environ.get("DEVICE")
BARE = os.environ.get("BARE")
KEY = bytes(range(32))


class OverPty(unittest.TestCase):
    def run_device(self, command, host_key=None, mangle=lambda data: data):
        master, slave = pty.openpty()
        tty.setraw(slave)
        process = subprocess.Popen(command, stdin=slave, stdout=slave)
        os.close(slave)

        def stop():
            process.kill()
            process.wait()
            os.close(master)

        self.addCleanup(stop)
        return Host(master, host_key, mangle)


@unittest.skipUnless(BARE, "BARE names no folder")
class Freestanding(OverPty):
    def check(self, program, key):
        host = self.run_device([os.path.join(BARE, program)], key)
        host.connect()
        self.assertEqual(host.request("Write", property="brightness", value=7)[1]["code"], 0)
        self.assertEqual(host.request("Read", property="brightness")[1]["value"], 7)
        host.close()

    def test_a_device_without_any_library_answers(self):
        self.check("device-clear", None)

    def test_a_device_without_any_library_answers_who_has_the_key(self):
        self.check("device-secure", bytes([0x42] * 32))


@unittest.skipUnless(DEVICE, "DEVICE names no program")
class Device(OverPty):
    def start(self, device_key=None, host_key=None, mangle=lambda data: data):
        command = DEVICE.split() + ([device_key.hex()] if device_key else [])
        return self.run_device(command, host_key, mangle)

    def check_conversation(self, host):
        announced = host.connect()
        self.assertEqual(host.request("Observe", property="brightness")[1]["value"], 0)
        self.assertEqual(host.request("Write", property="brightness", value=40)[1]["code"], 0)
        self.assertEqual(host.request("Read", property="brightness")[1]["value"], 40)
        host.await_event("PropertyChanged", {"property": "brightness", "value": 40})
        refused = host.request("Write", property="brightness", value=101)[1]
        self.assertEqual((refused["code"], refused["text"]), (3, "0 to 100"))
        self.assertEqual(host.request("Read", property="colour")[1]["code"], 1)
        self.assertEqual(host.request("Invoke", action="fade", input=95)[1]["value"], 95)
        self.assertEqual(host.progress, [0.5])
        # Events are less urgent than results and may come after.
        host.await_event("Event", {"name": "overheated", "data": 95})
        long = {"text": "zero \0 and more " * 400, "list": [1, -2, 1.5, None, True, b"\0\1"]}
        self.assertEqual(host.request("Invoke", action="echo", input=long)[1]["value"], long)
        name, part = host.request("Describe", offset=0)
        self.assertEqual((name, part["length"]), ("Description", announced["length"]))
        self.assertEqual(hashlib.sha256(part["bytes"]).digest(), announced["hash"])
        host.close()

    def test_a_conversation_in_the_clear(self):
        self.check_conversation(self.start())

    def test_a_conversation_with_a_key(self):
        self.check_conversation(self.start(KEY, KEY))

    def test_a_conversation_on_a_line_that_damages_what_we_send(self):
        seed = random.randrange(2**32)
        print("seed", seed)
        rng = random.Random(seed)

        def mangle(data):
            if rng.random() < 0.15:
                at = rng.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
            return data

        host = self.start(KEY, KEY, mangle)
        self.check_conversation(host)

    def test_another_key_is_refused(self):
        with self.assertRaises(Lost) as caught:
            self.start(KEY, bytes(32)).connect()
        self.assertEqual(caught.exception.args, (5,))

    def test_a_host_without_a_key_is_refused(self):
        with self.assertRaises(Lost) as caught:
            self.start(KEY, None).connect()
        self.assertEqual(caught.exception.args, (5,))


if __name__ == "__main__":
    unittest.main()
