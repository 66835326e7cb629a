#!/usr/bin/env python3
"""Writes the golden vectors beside it: a second encoder, written from SPEC.md, that shares nothing with the crate.

Run it after a deliberate change of the format, and read the difference: `python3 vectors.py`.
Each line of a vector file is `hex | meaning`, the meaning in the crate's own notation.
"""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283  # the check value of the CRC catalogue


def cobs(data):
    out, block = bytearray(), bytearray()
    for i, byte in enumerate(data):
        if byte:
            block.append(byte)
        if not byte or (len(block) == 254 and i + 1 < len(data)):
            out += bytes([len(block) + 1]) + block
            block = bytearray()
    return bytes(out + bytes([len(block) + 1]) + block)


def frame(packet):
    return cobs(packet + struct.pack("<I", crc32c(packet))) + b"\0"


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for extra, code, limit in ((24, "B", 1 << 8), (25, "H", 1 << 16), (26, "I", 1 << 32), (27, "Q", 1 << 64)):
        if n < limit:
            return bytes([major << 5 | extra]) + struct.pack(">" + code, n)


def cbor(value):
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def message(kind, *fields):
    """Fields that are None are left out."""
    return cbor([kind, {key: field for key, field in enumerate(fields) if field is not None}])


def hello(flags, versions, features, boot, epoch, mtu, window, log2, heard):
    fixed = bytes([0x01, flags, versions, features])
    return fixed + struct.pack("<IIHBBI", boot, epoch, mtu - 1, window, log2, heard)


def token(boot, epoch):
    return crc32c(struct.pack("<II", boot, epoch))


def packet(kind, flags, tag, seq, ack, body=b""):
    return bytes([0x10 | kind, flags, tag]) + struct.pack("<HH", seq, ack) + body


def close(reason, versions, sender, receiver):
    return bytes([0x06, 0, reason, versions]) + struct.pack("<II", sender, receiver)


def write(name, about, rows):
    lines = [f"# {line}" for line in about] + [f"{data.hex()} | {meaning}" for data, meaning in rows]
    (HERE / name).write_text("\n".join(lines) + "\n")


def hello_text(role, established, low, high, features, boot, epoch, mtu, window, log2, heard, resume="false", reliable="false"):
    return (
        f"Hello {{ role: {role}, established: {established}, resume: {resume}, reliable: {reliable}, versions: VersionRange {{ min: {low}, max: {high} }}, "
        f"features: {features}, identity: Identity {{ boot_id: {boot}, epoch: {epoch} }}, mtu: {mtu}, "
        f"window: {window}, max_message_log2: {log2}, heard: Token({heard}) }}"
    )


def header_text(kind, start, end, channel, tag, seq, ack):
    return (
        f"Header {{ kind: {kind}, flags: Flags {{ start: {start}, end: {end}, channel: {channel} }}, "
        f"tag: {tag}, seq: {seq}, ack: {ack} }}"
    )


def packets():
    host_token = token(0x01020304, 7)
    segment = header_text("Data", "true", "false", "Command", 0xA5, 0x1234, 0xFFFE)
    last = header_text("Data", "false", "true", "Bulk", 1, 0, 0)
    return [
        (hello(0, 0x11, 0, 0x01020304, 7, 512, 32, 16, 0),
         hello_text("Host", "false", 1, 1, 0, 0x01020304, 7, 512, 32, 16, 0)),
        (hello(3, 0x11, 0, 0xFFFFFFFF, 0, 65536, 64, 20, host_token),
         hello_text("Device", "true", 1, 1, 0, 0xFFFFFFFF, 0, 65536, 64, 20, host_token)),
        (hello(4, 0x11, 1, 5, 6, 244, 32, 16, host_token),
         hello_text("Host", "false", 1, 1, 1, 5, 6, 244, 32, 16, host_token, resume="true")),
        (hello(10, 0x11, 0, 9, 1, 512, 32, 16, host_token),
         hello_text("Device", "false", 1, 1, 0, 9, 1, 512, 32, 16, host_token, reliable="true")),
        (hello(2, 0x2F, 0x81, 1, 2, 20, 4, 8, 3), hello_text("Device", "false", 2, 15, 0x81, 1, 2, 20, 4, 8, 3)),
        (packet(2, 0b00101, 0xA5, 0x1234, 0xFFFE, b"\x09abc"), segment + " channel_seq 9 payload [97, 98, 99]"),
        (packet(2, 0b01110, 1, 0, 0, b"\xff"), last + " channel_seq 255 payload []"),
        (packet(3, 0, 0x80, 0, 5, b"\x20"),
         header_text("Ack", "false", "false", "Control", 0x80, 0, 5) + " AckBody { credit: 32, received: 0 }"),
        (packet(3, 0, 0x80, 0, 5, b"\x00\x05\x01"),
         header_text("Ack", "false", "false", "Control", 0x80, 0, 5) + " AckBody { credit: 0, received: 261 }"),
        (packet(4, 0, 2, 77, 1), header_text("Ping", "false", "false", "Control", 2, 77, 1)),
        (packet(5, 0, 3, 77, 1, b"\x40" + b"\xff" * 7 + b"\x7f"),
         header_text("Pong", "false", "false", "Control", 3, 77, 1)
         + " AckBody { credit: 64, received: 9223372036854775807 }"),
        (close(1, 0x11, 1, 2),
         "Close { reason: Goodbye, versions: VersionRange { min: 1, max: 1 }, from: Token(1), to: Token(2) }"),
        (close(2, 0x23, 0xFFFFFFFF, 0),
         "Close { reason: IncompatibleVersion, versions: VersionRange { min: 2, max: 3 }, "
         "from: Token(4294967295), to: Token(0) }"),
        (close(3, 0x11, 1, 2),
         "Close { reason: ProtocolViolation, versions: VersionRange { min: 1, max: 1 }, from: Token(1), to: Token(2) }"),
        (close(4, 0x11, 1, 2),
         "Close { reason: Undeliverable, versions: VersionRange { min: 1, max: 1 }, from: Token(1), to: Token(2) }"),
        (close(5, 0x11, 1, 2),
         "Close { reason: Unauthenticated, versions: VersionRange { min: 1, max: 1 }, from: Token(1), to: Token(2) }"),
        (close(200, 0x11, 1, 2),
         "Close { reason: Other(200), versions: VersionRange { min: 1, max: 1 }, from: Token(1), to: Token(2) }"),
    ]


def rejected():
    short = lambda actual, needed: f"TooShort {{ actual: {actual}, needed: {needed} }}"
    out_of_range = lambda field: f'OutOfRange {{ field: "{field}" }}'
    good = hello(0, 0x11, 0, 1, 1, 512, 32, 16, 0)
    return [
        (b"", short(0, 1)),
        (b"\x22", "UnknownVersion(2)"),
        (b"\x11", "UnknownVersion(1)"),
        (b"\x02", "UnknownVersion(0)"),
        (b"\x10", "UnknownKind(0)"),
        (b"\x17", "UnknownKind(7)"),
        (b"\x1f", "UnknownKind(15)"),
        (packet(2, 0, 0, 0, 0)[:6], short(6, 7)),
        (packet(2, 3, 0, 0, 0), short(7, 8)),
        (packet(2, 0x10, 0, 0, 0, b"\0"), "ReservedFlags(16)"),
        (packet(4, 0x80, 0, 0, 0), "ReservedFlags(128)"),
        (packet(3, 0, 0, 0, 0), short(0, 1)),
        (packet(3, 0, 0, 0, 0, b"\x41"), out_of_range("credit")),
        (packet(5, 0, 0, 0, 0, b"\x20" + b"\0" * 9), out_of_range("bitmap")),
        (good[:19], short(19, 20)),
        (hello(0, 0x01, 0, 1, 1, 512, 32, 16, 0), out_of_range("versions")),
        (hello(0, 0x21, 0, 1, 1, 512, 32, 16, 0), out_of_range("versions")),
        (hello(0, 0x11, 0, 1, 1, 19, 32, 16, 0), out_of_range("mtu")),
        (hello(0, 0x11, 0, 1, 1, 20, 3, 16, 0), out_of_range("window")),
        (hello(0, 0x11, 0, 1, 1, 20, 65, 16, 0), out_of_range("window")),
        (hello(0, 0x11, 0, 1, 1, 20, 4, 7, 0), out_of_range("max_message")),
        (hello(0, 0x11, 0, 1, 1, 20, 4, 21, 0), out_of_range("max_message")),
        (close(1, 0x11, 1, 2)[:11], short(11, 12)),
    ]


def messages():
    digest = bytes(range(32))
    hash_text = f"ByteArray({list(digest)})"
    value = {"on": True, "level": -40, "warmth": 0.5, "name": "Lampe ü", "raw": b"\0\xff", "list": [None, 1 << 32]}
    value_text = (
        'Map([("on", Bool(true)), ("level", Int(-40)), ("warmth", Float(0.5)), ("name", Text("Lampe ü")), '
        '("raw", Bytes([0, 255])), ("list", Array([Null, Int(4294967296)]))])'
    )
    return [
        (message(0, digest, 1234), f"Announce {{ hash: {hash_text}, length: 1234 }}"),
        (message(1, 1, 0), "Describe { id: 1, offset: 0 }"),
        (message(2, 1, digest, 6, 2, b"\1\2"),
         f"Description {{ id: 1, hash: {hash_text}, length: 6, offset: 2, bytes: ByteVec([1, 2]) }}"),
        (message(3, 2**64 - 1, "brightness", 5000),
         'Read { id: 18446744073709551615, property: "brightness", deadline_ms: 5000 }'),
        (message(4, 3, "brightness", 5000, 40),
         'Write { id: 3, property: "brightness", deadline_ms: 5000, value: Int(40) }'),
        (message(5, 4, "brightness", 5000), 'Observe { id: 4, property: "brightness", deadline_ms: 5000 }'),
        (message(6, 5, "brightness"), 'Unobserve { id: 5, property: "brightness" }'),
        (message(7, 6, "fade", 60000, value),
         f'Invoke {{ id: 6, action: "fade", deadline_ms: 60000, input: {value_text} }}'),
        (message(7, 7, "toggle", 1), 'Invoke { id: 7, action: "toggle", deadline_ms: 1, input: Null }'),
        (message(8, 6, 0, 40), "Result { id: 6, code: 0, value: Int(40), text: None }"),
        (message(8, 6, 3, None, "0 to 100"), 'Result { id: 6, code: 3, value: Null, text: Some("0 to 100") }'),
        (message(9, 6, 0.25), "Progress { id: 6, value: Float(0.25) }"),
        (message(10, 6), "Cancel { id: 6 }"),
        (message(11, "brightness", float("nan")), 'PropertyChanged { property: "brightness", value: Float(NaN) }'),
        (message(12, "overheated", "95 °C"), 'Event { name: "overheated", data: Text("95 °C") }'),
        (message(13, 1, "fan slow"), 'Log { level: Warn, text: "fan slow" }'),
        (message(14, 1_800_000_000_000_000), "TimeSync { unix_micros: 1800000000000000 }"),
        *((message(8, 9, code), f"Result {{ id: 9, code: {code}, value: Null, text: None }}") for code in range(1, 19)),
        (message(8, 9, 65_535, None, "of a later version"),
         'Result { id: 9, code: 65535, value: Null, text: Some("of a later version") }'),
        (message(15, 8, "firmware", 70_000, bytes(range(32))),
         f'TransferOffer {{ id: 8, name: "firmware", length: 70000, hash: ByteArray({list(range(32))}) }}'),
        (message(16, 8, 4096), "TransferWanted { id: 8, offset: 4096 }"),
        (message(17, 8, 4096, b"\x00\x01"), "TransferPart { id: 8, offset: 4096, bytes: ByteVec([0, 1]) }"),
        (message(18, 8, 0), "TransferDone { id: 8, code: 0, text: None }"),
        (message(18, 8, 17, "wrong"), 'TransferDone { id: 8, code: 17, text: Some("wrong") }'),
        (message(18, 9, 18), "TransferDone { id: 9, code: 18, text: None }"),
        (message(19, 8), "TransferAbort { id: 8 }"),
        (message(20, 81_000_123), "TimeRequest { asked: 81000123 }"),
        (message(21, 81_000_123, 1_800_000_000_000_456, 1_800_000_000_000_789),
         "TimeReply { asked: 81000123, received: 1800000000000456, sent: 1800000000000789 }"),
        *((message(13, level, "x"), f'Log {{ level: {name}, text: "x" }}')
          for level, name in enumerate(("Error", "Warn", "Info", "Debug"))),
    ]


def rejected_messages():
    malformed = lambda id: f"Malformed {{ id: {'None' if id is None else f'Some({id})'} }}"
    too_long = lambda limit, id: f"TooLong {{ limit: {limit}, id: {'None' if id is None else f'Some({id})'} }}"
    deep = 8
    for _ in range(17):
        deep = [deep]
    whole = message(8, 6, 0, 40)
    return [
        (b"", malformed(None)),
        (b"\xff", malformed(None)),
        (cbor([3]), malformed(None)),
        (cbor([3, {}, 0]), malformed(None)),
        (b"\x9f" + whole[1:] + b"\xff", malformed(None)),
        (whole + b"\0", malformed(6)),
        (whole[:-1], malformed(6)),
        (message(22, 5), "UnknownKind { kind: 22, id: Some(5) }"),
        (message(2**64 - 1, "no id"), "UnknownKind { kind: 18446744073709551615, id: None }"),
        (message(4, 8), malformed(8)),
        (message(3, 5, 7, 1), malformed(5)),
        (message(3, 5, "p", 2**32), malformed(5)),
        (message(13, 4, "no such level"), malformed(None)),
        (message(0, bytes(31), 1), malformed(None)),
        (message(7, 5, "a", 1, deep), malformed(5)),
        (message(7, 5, "a", 1, list(range(4096))), malformed(5)),
        (message(7, 5, "a", 1, 2**63), malformed(5)),
        (cbor([7, {0: 5, 1: "a", 2: 1}])[:-1] + b"\x01\x03\xa2\x61k\x01\x61k\x02", malformed(5)),
        (message(17, 5, 0), malformed(None)),
        (message(3, 5, "n" * 129, 1), too_long(128, 5)),
        (message(8, 5, 8, None, "t" * 513), too_long(512, 5)),
        (message(13, 0, "l" * 1025), too_long(1024, None)),
        (message(15, 5, "n" * 129, 1, bytes(32)), too_long(128, None)),
    ]


write("packets.txt", ["Packets: hex | meaning. Both directions hold: the bytes decode to the meaning and come from it."],
      packets())
write("rejected.txt", ["Bytes that are no packet: hex | the error."], rejected())
write("messages.txt", ["Messages (CBOR): hex | meaning. Both directions hold."], messages())
write("rejected_messages.txt", ["Bytes that are no message: hex | the error; `id` is the request that is to be answered."],
      rejected_messages())
write("frames.txt", ["Frames of a byte stream: frame hex | packet hex."],
      [(frame(data), data.hex()) for data in
       [b"\0", b"\x01\x02\x03", bytes(10), bytes(range(1, 255)), bytes(range(1, 256)), b"\xff" * 600,
        hello(0, 0x11, 0, 0x01020304, 7, 512, 32, 16, 0)]])
