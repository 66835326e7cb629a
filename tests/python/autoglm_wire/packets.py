"""SPEC section 3: the packets. Each decodes to a dict and encodes from it."""

import struct

KINDS = {1: "Hello", 2: "Data", 3: "Ack", 4: "Ping", 5: "Pong", 6: "Close"}
NUMBERS = {name: number for number, name in KINDS.items()}


class Refused(Exception):
    """No packet, and why."""


def _versions(byte):
    low, high = byte >> 4, byte & 15
    if low == 0 or low > high:
        raise Refused('OutOfRange { field: "versions" }')
    return low, high


def _need(packet, needed, actual=None):
    actual = len(packet) if actual is None else actual
    if actual < needed:
        raise Refused(f"TooShort {{ actual: {actual}, needed: {needed} }}")


def decode(packet):
    _need(packet, 1)
    version, kind = packet[0] >> 4, KINDS.get(packet[0] & 15)
    if kind is None:
        raise Refused(f"UnknownKind({packet[0] & 15})")
    if version != (0 if kind in ("Hello", "Close") else 1):
        raise Refused(f"UnknownVersion({version})")
    if kind == "Hello":
        _need(packet, 20)
        boot, epoch, mtu, window, log2, heard = struct.unpack("<IIHBBI", packet[4:20])
        hello = dict(kind=kind, device=bool(packet[1] & 2), established=bool(packet[1] & 1), resume=bool(packet[1] & 4), reliable=bool(packet[1] & 8), versions=_versions(packet[2]))
        hello.update(features=packet[3], boot=boot, epoch=epoch, mtu=mtu + 1, window=window, log2=log2, heard=heard)
        for field, value, low, high in (("mtu", mtu + 1, 20, 65536), ("window", window, 4, 64), ("max_message", log2, 8, 20)):
            if not low <= value <= high:
                raise Refused(f'OutOfRange {{ field: "{field}" }}')
        return hello
    if kind == "Close":
        _need(packet, 12)
        sender, receiver = struct.unpack("<II", packet[4:12])
        return dict(kind=kind, reason=packet[2], versions=_versions(packet[3]), sender=sender, receiver=receiver)
    _need(packet, 7)
    _, flags, tag, seq, ack = struct.unpack("<BBBHH", packet[:7])
    if flags & 0xF0:
        raise Refused(f"ReservedFlags({flags & 0xF0})")
    out = dict(kind=kind, start=bool(flags & 1), end=bool(flags & 2), channel=flags >> 2 & 3, tag=tag, seq=seq, ack=ack)
    if kind == "Data":
        _need(packet, 8)
        out.update(channel_seq=packet[7], payload=packet[8:])
    if kind in ("Ack", "Pong"):
        _need(packet, 1, len(packet) - 7)
        if packet[7] > 64:
            raise Refused('OutOfRange { field: "credit" }')
        if len(packet) > 16:
            raise Refused('OutOfRange { field: "bitmap" }')
        out.update(credit=packet[7], received=int.from_bytes(packet[8:], "little"))
    return out


def encode(p):
    kind = p["kind"]
    if kind == "Hello":
        flags = p["established"] | p["device"] << 1 | p.get("resume", 0) << 2 | p.get("reliable", 0) << 3
        head = bytes([1, flags, p["versions"][0] << 4 | p["versions"][1], p["features"]])
        return head + struct.pack("<IIHBBI", p["boot"], p["epoch"], p["mtu"] - 1, p["window"], p["log2"], p["heard"])
    if kind == "Close":
        head = bytes([6, 0, p["reason"], p["versions"][0] << 4 | p["versions"][1]])
        return head + struct.pack("<II", p["sender"], p["receiver"])
    flags = p.get("start", 0) | p.get("end", 0) << 1 | p.get("channel", 0) << 2
    head = struct.pack("<BBBHH", 0x10 | NUMBERS[kind], flags, p["tag"], p["seq"], p["ack"])
    if kind == "Data":
        return head + bytes([p["channel_seq"]]) + p["payload"]
    if kind in ("Ack", "Pong"):
        bitmap = p["received"].to_bytes((p["received"].bit_length() + 7) // 8, "little")
        return head + bytes([p["credit"]]) + bitmap
    return head


def meaning(p):
    """The packet in the notation of the vectors."""
    kind, truth = p["kind"], lambda value: str(bool(value)).lower()
    if "versions" in p:
        versions = f"versions: VersionRange {{ min: {p['versions'][0]}, max: {p['versions'][1]} }}"
    if kind == "Hello":
        return (
            f"Hello {{ role: {'Device' if p['device'] else 'Host'}, established: {truth(p['established'])}, resume: {truth(p['resume'])}, reliable: {truth(p['reliable'])}, {versions}, "
            f"features: {p['features']}, identity: Identity {{ boot_id: {p['boot']}, epoch: {p['epoch']} }}, mtu: {p['mtu']}, "
            f"window: {p['window']}, max_message_log2: {p['log2']}, heard: Token({p['heard']}) }}"
        )
    if kind == "Close":
        names = {1: "Goodbye", 2: "IncompatibleVersion", 3: "ProtocolViolation", 4: "Undeliverable", 5: "Unauthenticated"}
        reason = names.get(p["reason"], f"Other({p['reason']})")
        return f"Close {{ reason: {reason}, {versions}, from: Token({p['sender']}), to: Token({p['receiver']}) }}"
    channel = ("Control", "Command", "Event", "Bulk")[p["channel"]]
    flags = f"Flags {{ start: {truth(p['start'])}, end: {truth(p['end'])}, channel: {channel} }}"
    text = f"Header {{ kind: {kind}, flags: {flags}, tag: {p['tag']}, seq: {p['seq']}, ack: {p['ack']} }}"
    if kind == "Data":
        return f"{text} channel_seq {p['channel_seq']} payload {list(p['payload'])}"
    if kind in ("Ack", "Pong"):
        return f"{text} AckBody {{ credit: {p['credit']}, received: {p['received']} }}"
    return text
