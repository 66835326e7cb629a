#!/usr/bin/env python3
"""Writes protocol/tests/vectors/secure.txt: handshakes and sealed messages with fixed keys, from SPEC section 7."""

import pathlib

from autoglm_wire.crypto import ChannelKey, Noise, derive, x25519

TARGET = pathlib.Path(__file__).parents[2] / "protocol/tests/vectors/secure.txt"
# Bytes 2 to 15 of two Hellos.
OFFERS = [bytes.fromhex(text) for text in ("1101040302010700000 0ff012010".replace(" ", ""), "1101ddccbbaa090000003f000409")]


def main():
    lines = ["# Security with fixed keys: what | hex. Messages are those of the numbers 0, 1, 1023, 1024 and 2048 of their channel."]
    psk, seeds = bytes(range(32)), [bytes([0x11] * 32), bytes([0x22] * 32)]
    statics = [bytes([0x33] * 32), bytes([0x44] * 32)]
    prologue = b"autoglm-edge 1" + OFFERS[0] + OFFERS[1]
    put = lambda what, data: lines.append(f"{what} | {data.hex()}")
    put("prologue", prologue)
    put("psk", psk)
    put("host seed", seeds[0])
    put("device seed", seeds[1])
    put("host private", statics[0])
    put("device private", statics[1])
    for name, keys in (("psk", None), ("mutual", statics)):
        publics = [x25519(key) for key in statics]
        ends = [
            Noise(i == 0, psk, derive(seeds[i], 0), prologue, *((keys[i], publics[1 - i]) if keys else ()))
            for i in range(2)
        ]
        first = ends[0].write()
        ends[1].read(first)
        second = ends[1].write()
        ends[0].read(second)
        assert ends[0].split() == ends[1].split()
        put(f"{name} first", first)
        put(f"{name} second", second)
        for direction, key in zip(("host", "device"), ends[0].split()):
            for channel in range(4):
                sealer = ChannelKey(key, channel)
                for number in range(2049):
                    text = f"{direction} {channel} {number}".encode()
                    if number in (0, 1, 1023, 1024, 2048):
                        put(f"{name} sealed {text.decode()}", sealer.seal(text))
                    else:
                        sealer._advance()
    TARGET.write_text("\n".join(lines) + "\n")


main()
