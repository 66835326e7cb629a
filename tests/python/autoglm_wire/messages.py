"""SPEC section 6: messages, and the part of CBOR (RFC 8949) that they use."""

import math
import struct

# kind: name, fields by key; what is not a plain type is "value" (of a Thing), "hash", or "text?" (may be left out).
KINDS = {
    0: ("Announce", ["hash hash", "length int"]),
    1: ("Describe", ["id int", "offset int"]),
    2: ("Description", ["id int", "hash hash", "length int", "offset int", "bytes bytes"]),
    3: ("Read", ["id int", "property text", "deadline_ms int"]),
    4: ("Write", ["id int", "property text", "deadline_ms int", "value value"]),
    5: ("Observe", ["id int", "property text", "deadline_ms int"]),
    6: ("Unobserve", ["id int", "property text"]),
    7: ("Invoke", ["id int", "action text", "deadline_ms int", "input value"]),
    8: ("Result", ["id int", "code int", "value value", "text text?"]),
    9: ("Progress", ["id int", "value value"]),
    10: ("Cancel", ["id int"]),
    11: ("PropertyChanged", ["property text", "value value"]),
    12: ("Event", ["name text", "data value"]),
    13: ("Log", ["level level", "text text"]),
    14: ("TimeSync", ["unix_micros int"]),
    15: ("TransferOffer", ["id int", "name text", "length int", "hash hash"]),
    16: ("TransferWanted", ["id int", "offset int"]),
    17: ("TransferPart", ["id int", "offset int", "bytes bytes"]),
    18: ("TransferDone", ["id int", "code int", "text text?"]),
    19: ("TransferAbort", ["id int"]),
}
NUMBERS = {name: number for number, (name, _) in KINDS.items()}
CHANNELS = {"Announce": 0, "TimeSync": 0, "PropertyChanged": 2, "Event": 2, "Log": 2, "Description": 3, "TransferPart": 3, "TransferAbort": 3}


class Malformed(Exception):
    """Not CBOR, or not a message."""


def _head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    for code, form, limit in ((24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32), (27, ">Q", 1 << 64)):
        if number < limit:
            return bytes([major << 5 | code]) + struct.pack(form, number)
    raise Malformed


def dump(value):
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, (bytes, bytearray)):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(dump, value))
    if isinstance(value, dict):
        return _head(5, len(value)) + b"".join(dump(key) + dump(item) for key, item in value.items())
    raise TypeError(type(value))


def _load(data, at, depth):
    if depth > 20 or at >= len(data):
        raise Malformed
    major, info, at = data[at] >> 5, data[at] & 31, at + 1
    if info >= 28:
        raise Malformed
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
    if at + size > len(data):
        raise Malformed
    raw, at = data[at : at + size], at + size
    number = int.from_bytes(raw, "big") if size else info
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in (2, 3):
        if at + number > len(data):
            raise Malformed
        body = data[at : at + number]
        return (bytes(body) if major == 2 else body.decode()), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _load(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        entries = {}
        for _ in range(number):
            key, at = _load(data, at, depth + 1)
            entries[key], at = _load(data, at, depth + 1)
        return entries, at
    if major == 7 and size in (2, 4, 8):
        return struct.unpack({2: ">e", 4: ">f", 8: ">d"}[size], raw)[0], at
    if major == 7 and info in (20, 21, 22):
        return {20: False, 21: True, 22: None}[info], at
    raise Malformed


def decode(data):
    """The name of a message and its fields by name."""
    value, end = _load(data, 0, 0)
    if end != len(data) or not isinstance(value, list) or len(value) != 2 or value[0] not in KINDS:
        raise Malformed
    name, fields = KINDS[value[0]]
    return name, {field.split()[0]: value[1].get(key) for key, field in enumerate(fields)}


def encode(kind, /, **fields):
    """The bytes of a message; a field that is null or not given is left out."""
    names = [field.split()[0] for field in KINDS[NUMBERS[kind]][1]]
    present = {key: fields[name] for key, name in enumerate(names) if fields.get(name) is not None}
    return dump([NUMBERS[kind], present])


def meaning(name, fields):
    """The message in the notation of the vectors."""
    parts = []
    for field, kind in (field.split() for field in KINDS[NUMBERS[name]][1]):
        value = fields[field]
        shown = {
            "int": str,
            "text": _text,
            "text?": lambda text: "None" if text is None else f"Some({_text(text)})",
            "hash": lambda data: f"ByteArray({list(data)})",
            "bytes": lambda data: f"ByteVec({list(data)})",
            "level": lambda level: ("Error", "Warn", "Info", "Debug")[level],
            "value": _value,
        }[kind](value)
        parts.append(f"{field}: {shown}")
    return f"{name} {{ {', '.join(parts)} }}"


def _text(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _value(value):
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return f"Bool({str(value).lower()})"
    if isinstance(value, int):
        return f"Int({value})"
    if isinstance(value, float):
        return "Float(NaN)" if math.isnan(value) else f"Float({_float(value)})"
    if isinstance(value, str):
        return f"Text({_text(value)})"
    if isinstance(value, bytes):
        return f"Bytes({list(value)})"
    if isinstance(value, list):
        return f"Array([{', '.join(map(_value, value))}])"
    return f"Map([{', '.join(f'({_text(key)}, {_value(item)})' for key, item in value.items())}])"


def _float(value):
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(value)
