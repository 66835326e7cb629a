#!/usr/bin/env python3
"""This implementation and the Rust one understand each other, over a pseudo-terminal.

EXAMPLES is the folder of the programs to speak with (`cargo build -p autoglm-protocol --examples`), BARE that of those which
tests/freestanding/check.sh links.
"""

import hashlib
import os
import pty
import random
import subprocess
import time
import tty
import unittest

from autoglm_wire.host import Host, Lost

EXAMPLES = os.environ.get("EXAMPLES")
BARE = os.environ.get("BARE")
KEY = bytes(range(32))


class OverPty(unittest.TestCase):
    def line(self):
        """A new pseudo-terminal: our end, and the device's end, both open for the time of the test."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        self.ends[master] = slave
        return master, slave

    def setUp(self):
        self.ends = {}
        self.addCleanup(lambda: [os.close(end) for pair in self.ends.items() for end in pair])

    def cut(self, master):
        """The device sees the end of its line."""
        os.close(self.ends.pop(master))
        os.close(master)

    def run_device(self, command, host_key=None, **host):
        master, slave = self.line()
        process = subprocess.Popen(command, stdin=slave, stdout=slave)

        def stop():
            process.kill()
            process.wait()

        self.addCleanup(stop)
        return Host(master, host_key, **host)


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


@unittest.skipUnless(EXAMPLES, "EXAMPLES names no folder")
class Device(OverPty):
    def start(self, device_key=None, host_key=None, mangle=lambda data: data):
        command = [os.path.join(EXAMPLES, "device")] + ([device_key.hex()] if device_key else [])
        return self.run_device(command, host_key, mangle=mangle)

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


class LineBroke(Exception):
    """The line ended under what was sent."""


@unittest.skipUnless(EXAMPLES, "EXAMPLES names no folder")
class Recorder(OverPty):
    """Resumption, transfers in both directions, and the time, with examples/recorder.rs."""

    def start(self, key=None, spare_lines=0, **host):
        self.spares = [self.line() for _ in range(spare_lines)]
        paths = [os.ttyname(slave) for _, slave in self.spares]
        command = [os.path.join(EXAMPLES, "recorder"), key.hex() if key else "-", *paths]
        return self.run_device(command, key, **host)

    def move(self, host):
        """The line breaks, and both ends go on over the next one."""
        self.cut(host.fd)
        master, _ = self.spares.pop(0)
        host.move_to(master)
        host.establish()

    def finish(self, host, what, done, cuts=()):
        """Works until `done`; before each of `cuts` (a condition) becomes true the line holds, then it breaks."""
        cuts, until = list(cuts), time.monotonic() + 60
        while not done() or cuts:
            self.assertLess(time.monotonic(), until, what)
            if cuts and cuts[0]():
                cuts.pop(0)
                self.move(host)
            host.work(0.02)

    def check_there_and_back(self, key, breaks):
        size = 60_000 if key is None else 12_000
        image = random.Random(size).randbytes(size)
        host = self.start(key, spare_lines=2 * breaks)
        host.connect()
        presses = []

        def press():
            presses.append(host.ask("Invoke", action="press"))

        # Down: it breaks when a third, and two thirds, are written.
        def written(share):
            def passed():
                due = host.outgoing["next"] is not None and host.outgoing["next"] > size * share
                if due:
                    # Asked in front of the break, so that they and their answers are on their way when it comes.
                    press(), press()
                return due

            return passed

        host.offer("recording", image)
        self.finish(host, "down", lambda: host.outgoing["done"] is not None, [written((1 + i) / 3) for i in range(breaks)])
        self.assertEqual(host.outgoing["done"], 0)
        self.assertEqual(host.offsets_wanted, [0], "asked for once")

        # Up: what came down is offered back, and it breaks in the same places.
        def stored(share):
            def passed():
                due = len(host.stored.get("dump", b"")) > size * share
                if due:
                    press()
                return due

            return passed

        dump = host.ask("Invoke", action="dump")
        is_stored = lambda: ("Stored", {"name": "dump", "code": 0}) in host.events
        self.finish(host, "up", is_stored, [stored((1 + i) / 3) for i in range(breaks)])
        self.assertEqual(bytes(host.stored["dump"]), image)

        self.finish(host, "answers", lambda: all(id in host.results for id in [dump, *presses]))
        answers = [host.results.pop(id) for id in presses]
        self.assertEqual([[fields["value"] for _, fields in one] for one in answers], [[1 + i] for i in range(len(presses))])
        self.assertEqual(host.request("Invoke", action="press")[1]["value"], len(presses) + 1, "pressed as often as asked")
        self.assertEqual(host.resumptions, 2 * breaks)
        self.assertEqual(sum(name == "Announce" for name, _ in host.events), 1)
        host.close()

    def test_a_recording_goes_down_and_up(self):
        self.check_there_and_back(None, 0)

    def test_a_line_that_breaks_in_the_middle_of_transfers_is_resumed_on_another_one(self):
        self.check_there_and_back(None, 2)

    def test_a_line_that_breaks_is_resumed_with_a_key(self):
        self.check_there_and_back(KEY, 1)

    def test_a_line_that_ends_within_a_message_is_resumed(self):
        budget = [40_000]

        def mangle(data):
            # The line takes so many bytes and ends, wherever that is.
            if budget and budget[0] < len(data):
                budget.clear()
                raise LineBroke
            if budget:
                budget[0] -= len(data)
            return data

        image = random.Random(1).randbytes(60_000)
        host = self.start(spare_lines=1, mangle=mangle)
        host.connect()
        host.offer("recording", image)
        while host.outgoing["done"] is None:
            try:
                host.work()
            except LineBroke:
                self.move(host)
        self.assertEqual((host.outgoing["done"], host.resumptions, host.offsets_wanted), (0, 1, [0]))

    def test_a_transfer_lost_with_its_connection_goes_on_where_it_stopped(self):
        image = random.Random(2).randbytes(60_000)
        first = self.start(spare_lines=1)
        first.connect()
        first.offer("recording", image)
        self.finish(first, "half", lambda: first.outgoing["next"] is not None and first.outgoing["next"] > 30_000)
        # Another host, which knows nothing of the connection and offers the same.
        self.cut(first.fd)
        second = Host(self.spares[0][0])
        second.connect()
        second.offer("recording", image)
        self.finish(second, "whole", lambda: second.outgoing["done"] is not None)
        self.assertEqual(second.outgoing["done"], 0)
        [offset] = second.offsets_wanted
        self.assertTrue(15_000 < offset <= 30_000 + 2048, offset)

    def test_what_is_not_a_recording_is_refused_and_a_wrong_hash_is_told(self):
        host = self.start()
        host.connect()
        host.offer("firmware", b"not wanted here")
        self.finish(host, "refused", lambda: host.outgoing["done"] is not None)
        self.assertEqual(host.outgoing["done"], 12)
        host.offer("recording", b"as announced")
        host.outgoing["data"] = b"something or"
        self.finish(host, "compared", lambda: host.outgoing["done"] is not None)
        self.assertEqual(host.outgoing["done"], 17)

    def test_the_device_learns_our_time_within_the_bound_that_it_states(self):
        ahead = 12_345_678_000_000
        clock = lambda: time.time_ns() // 1000 + ahead
        host = self.start(clock=clock)
        host.connect()
        self.assertEqual(host.request("Read", property="time")[1]["code"], 7, "nobody told it yet")
        begun = clock()
        for _ in range(5):
            host.time_sync()
            self.finish(host, "exchange", lambda: host.request("Read", property="time")[1]["code"] == 0)
            before = clock()
            told, bound = host.request("Read", property="time")[1]["value"]
            after = clock()
            self.assertTrue(before - bound <= told <= after + bound, (before, told, after, bound))
            # What is told may be of this exchange or of one before.
            self.assertLess(bound, after - begun)


if __name__ == "__main__":
    unittest.main()
