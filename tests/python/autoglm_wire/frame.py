"""SPEC section 2: COBS and CRC-32C on byte streams."""

import struct


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def encode(packet):
    data = packet + struct.pack("<I", crc32c(packet))
    out, start = bytearray(), 0
    while True:
        end = data.find(0, start, start + 254)
        if end < 0:
            end = min(start + 254, len(data))
            out += bytes([end - start + 1]) + data[start:end]
            start = end
            if start == len(data):
                break
        else:
            out += bytes([end - start + 1]) + data[start:end]
            start = end + 1
    return bytes(out) + b"\0"


def decode(frame):
    """The packet of a frame without its delimiter, or None."""
    out, at = bytearray(), 0
    while at < len(frame):
        code = frame[at]
        block = frame[at + 1 : at + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            return None
        out += block
        at += code
        if code < 255 and at < len(frame):
            out.append(0)
    if len(out) < 5 or struct.pack("<I", crc32c(out[:-4])) != out[-4:]:
        return None
    return bytes(out[:-4])


class Decoder:
    """Bytes in, packets out."""

    def __init__(self, mtu):
        self.limit, self.held, self.damaged = mtu + 4 + (mtu + 4) // 254 + 1, bytearray(), 0

    def feed(self, data):
        for byte in data:
            if byte:
                # What exceeds the limit cannot become a frame; it is enough to know that it was too long.
                if len(self.held) <= self.limit:
                    self.held.append(byte)
                continue
            frame, self.held = bytes(self.held), bytearray()
            if not frame:
                continue
            packet = decode(frame) if len(frame) <= self.limit else None
            if packet is None:
                self.damaged += 1
            else:
                yield packet
