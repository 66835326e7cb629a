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
    20: ("TimeRequest", ["asked int"]),
    21: ("TimeReply", ["asked int", "received int", "sent int"]),
}
NUMBERS = {name: number for number, (name, _) in KINDS.items()}
CHANNELS = dict.fromkeys(("Announce", "TimeSync", "TimeRequest", "TimeReply"), 0)
CHANNELS |= dict.fromkeys(("PropertyChanged", "Event", "Log"), 2)
CHANNELS |= dict.fromkeys(("Description", "TransferOffer", "TransferPart", "TransferAbort"), 3)


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
            if isinstance(key, (list, dict)) or key in entries:
                raise Malformed
            entries[key], at = _load(data, at, depth + 1)
        return entries, at
    if major == 7 and size in (2, 4, 8):
        return struct.unpack({2: ">e", 4: ">f", 8: ">d"}[size], raw)[0], at
    if major == 7 and info in (20, 21, 22):
        return {20: False, 21: True, 22: None}[info], at
    raise Malformed


class Refused(Exception):
    """No message, and why; `id` is the request that it names."""

    def __init__(self, text, id):
        super().__init__(text.replace("ID", "None" if id is None else f"Some({id})"))
        self.id = id


NAME_MAX, FAULT_TEXT_MAX, LOG_TEXT_MAX = 128, 512, 1024
VALUE_DEPTH_MAX, VALUE_ITEMS_MAX = 16, 4096
REQUESTS = range(1, 11)
U64, U32, U16 = 2**64, 2**32, 2**16
WIDTH = {"length": U32, "offset": U32, "deadline_ms": U32, "code": U16}


def _peek(data):
    """Kind and request id, as far as they can be read: an array of two, a map whose first key is 0."""
    try:
        if data[:1] != b"\x82":
            return None, None
        kind, at = _load(data, 1, 0)
        if type(kind) is not int or kind < 0:
            return None, None
        if data[at] >> 5 != 5 or data[at] & 31 in (0, 31):
            return kind, None
        at += 1 + {24: 1, 25: 2, 26: 4, 27: 8}.get(data[at] & 31, 0)
        key, at = _load(data, at, 0)
        id, _ = _load(data, at, 0) if key == 0 else (None, 0)
        return kind, id if type(id) is int and 0 <= id < U64 and (kind in REQUESTS or kind not in KINDS) else None
    except (Malformed, IndexError, UnicodeDecodeError):
        return None, None


def _is_thing_value(value):
    """Bounds of depth and of number of items."""
    items = 0

    def walk(value, depth):
        nonlocal items
        items += 1
        if depth > VALUE_DEPTH_MAX or items > VALUE_ITEMS_MAX:
            return False
        if type(value) is int:
            return -(2**63) <= value < 2**63
        if isinstance(value, list):
            return all(walk(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return all(isinstance(key, str) and walk(item, depth + 1) for key, item in value.items())
        return True

    return walk(value, 0)


def _fits(field, kind, value):
    if kind == "int":
        return type(value) is int and 0 <= value < WIDTH.get(field, U64)
    if kind in ("text", "text?"):
        return isinstance(value, str) or (value is None and kind == "text?")
    if kind == "hash":
        return isinstance(value, bytes) and len(value) == 32
    if kind == "level":
        return type(value) is int and 0 <= value < 4
    return isinstance(value, bytes) if kind == "bytes" else _is_thing_value(value)


def decode(data):
    """The name of a message and its fields by name."""
    kind, id = _peek(data)
    if kind is not None and kind not in KINDS:
        raise Refused(f"UnknownKind {{ kind: {kind}, id: ID }}", id)
    malformed = Refused("Malformed { id: ID }", id)
    try:
        value, end = _load(data, 0, 0)
    except (Malformed, UnicodeDecodeError):
        raise malformed
    if end != len(data) or not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict):
        raise malformed
    name, described = KINDS[value[0]]
    fields = {}
    for key, described_field in enumerate(described):
        field, kind = described_field.split()
        fields[field] = value[1].get(key)
        if not _fits(field, kind, fields[field]):
            raise malformed
    for field in ("property", "action", "name", "text"):
        limit = NAME_MAX if field != "text" else LOG_TEXT_MAX if name == "Log" else FAULT_TEXT_MAX
        if isinstance(fields.get(field), str) and len(fields[field].encode()) > limit:
            raise Refused(f"TooLong {{ limit: {limit}, id: ID }}", id)
    return name, fields


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
