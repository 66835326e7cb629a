#!/usr/bin/env python3
"""The golden vectors hold in an implementation that was written from SPEC.md: `python3 -m unittest -v` in this folder."""

import pathlib
import unittest

from autoglm_wire import frame, messages, packets

VECTORS = pathlib.Path(__file__).parents[2] / "protocol/tests/vectors"


def rows(name):
    lines = (VECTORS / name).read_text().splitlines()
    pairs = [line.split(" | ", 1) for line in lines if not line.startswith("#")]
    assert len(pairs) > 5
    return [(bytes.fromhex(left), right) for left, right in pairs]


class Vectors(unittest.TestCase):
    def test_packets_mean_what_the_vectors_say_and_encode_to_them(self):
        for packet, meaning in rows("packets.txt"):
            decoded = packets.decode(packet)
            self.assertEqual(packets.meaning(decoded), meaning)
            self.assertEqual(packets.encode(decoded), packet)

    def test_bytes_that_are_no_packet_are_refused_as_the_vectors_say(self):
        for packet, error in rows("rejected.txt"):
            with self.assertRaises(packets.Refused) as caught:
                packets.decode(packet)
            self.assertEqual(str(caught.exception), error)

    def test_messages_mean_what_the_vectors_say_and_encode_to_them(self):
        for data, meaning in rows("messages.txt"):
            name, fields = messages.decode(data)
            self.assertEqual(messages.meaning(name, fields), meaning)
            self.assertEqual(messages.encode(name, **fields), data, meaning)

    def test_bytes_that_are_no_message_are_refused_as_the_vectors_say(self):
        for data, error in rows("rejected_messages.txt"):
            with self.assertRaises(messages.Refused, msg=error) as caught:
                messages.decode(data)
            self.assertEqual(str(caught.exception), error)

    def test_frames_hold_what_the_vectors_say_and_encode_to_them(self):
        for data, packet in rows("frames.txt"):
            packet = bytes.fromhex(packet)
            self.assertEqual(list(frame.Decoder(2048).feed(data)), [packet])
            self.assertEqual(frame.encode(packet), data)


if __name__ == "__main__":
    unittest.main()
