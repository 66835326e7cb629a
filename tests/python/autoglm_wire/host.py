"""SPEC sections 4, 5 and 7 for the host's end of a byte stream: one connection, one request at a time.

Slow and simple where the specification leaves a choice: it acknowledges each Data packet at once, and repeats whatever is not
acknowledged after a fixed time.
"""

import os
import secrets
import select
import struct
import time

from . import crypto, frame, messages, packets

MTU, WINDOW, LOG2 = 512, 32, 16
REPEAT_AFTER = 0.3
NOBODY = 0


def token(boot, epoch):
    return max(frame.crc32c(struct.pack("<II", boot, epoch)), 1)


class Lost(Exception):
    """The device ended the connection."""


class Host:
    """Speaks with the device at the other end of `fd`."""

    def __init__(self, fd, psk=None, mangle=lambda data: data):
        self.fd, self.psk, self.mangle = fd, psk, mangle
        self.decoder = frame.Decoder(MTU)
        self.boot, self.epoch = secrets.randbits(32), 1
        self.device = None
        self.established = False
        self.events, self.results, self.progress = [], {}, []
        self.next_id = secrets.randbits(48)
        self.repeats = 0

    # -- packets

    def _send(self, packet):
        data = self.mangle(frame.encode(packet))
        while data:
            data = data[os.write(self.fd, data) :]

    def _hello(self):
        heard = token(*self.device[:2]) if self.device else NOBODY
        return packets.encode(
            dict(kind="Hello", device=False, established=self.established, versions=(1, 1), features=1 if self.psk else 0,
                 boot=self.boot, epoch=self.epoch, mtu=MTU, window=WINDOW, log2=LOG2, heard=heard)
        )

    def _header(self, kind, **more):
        return packets.encode(dict(kind=kind, tag=self.tag_out, ack=self.next_in, **more))

    def _pump(self, seconds):
        """Takes what comes within `seconds`, and repeats what is due."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], min(left, 0.05))[0]:
                self._repeat()
                continue
            for packet in self.decoder.feed(os.read(self.fd, 4096)):
                self._on_packet(packet)
            self._repeat()
            return

    def _repeat(self):
        if not self.established:
            return
        now = time.monotonic()
        for seq, (at, packet) in list(self.unacknowledged.items()):
            if now - at > REPEAT_AFTER:
                self.unacknowledged[seq] = (now, packet)
                self.repeats += 1
                self._send(self._header("Data", seq=seq, **packet))

    def _on_packet(self, raw):
        try:
            p = packets.decode(raw)
        except packets.Refused:
            return
        if p["kind"] == "Hello":
            return self._on_hello(p, raw)
        if p["kind"] == "Close":
            if p["receiver"] == token(self.boot, self.epoch):
                raise Lost(p["reason"])
            return
        if not self.established or p["tag"] != self.tag_in:
            return
        for seq in list(self.unacknowledged):
            beyond = (seq - p["ack"]) & 0xFFFF
            selective = beyond >= 1 and p.get("received", 0) >> (beyond - 1) & 1 if beyond < 64 else 0
            if beyond >= 0x8000 or selective:
                del self.unacknowledged[seq]
        if p["kind"] == "Ping":
            self._send(self._header("Pong", seq=p["seq"], credit=WINDOW, received=self._bitmap()))
        if p["kind"] == "Data":
            self._on_data(p)
            self._send(self._header("Ack", seq=0, credit=WINDOW, received=self._bitmap()))

    def _on_hello(self, hello, raw):
        if not hello["device"]:
            return
        if self.established:
            if (hello["boot"], hello["epoch"]) != self.device[:2]:
                raise Lost("began anew")
            if not hello["established"]:
                self._send(self._hello())
            return
        self.device = (hello["boot"], hello["epoch"], hello)
        if hello["heard"] != token(self.boot, self.epoch):
            return self._send(self._hello())
        offer = self._hello()[2:16]
        key = frame.crc32c(struct.pack("<IIII", self.boot, self.epoch, *self.device[:2]))
        self.tag_out, self.tag_in = key >> 24, ~(key >> 24) & 0xFF
        self.next_out = self.next_in = key & 0xFFFF
        self.payload = min(MTU, hello["mtu"]) - 8
        self.unacknowledged, self.arrived = {}, {}
        self.out_seq, self.in_seq, self.waiting, self.joined = [0] * 4, [0] * 4, {}, [None] * 4
        self.noise = self.sealers = self.openers = None
        self.established = True
        if not hello["established"]:
            self._send(self._hello())
        if self.psk:
            prologue = b"autoglm-edge 1" + offer + raw[2:16]
            self.noise = crypto.Noise(True, self.psk, secrets.token_bytes(32), prologue)
            self._queue(0, self.noise.write())

    # -- transport and segments

    def _bitmap(self):
        return sum(1 << (ahead - 1) for seq in self.arrived if (ahead := (seq - self.next_in) & 0xFFFF))

    def _on_data(self, p):
        ahead = (p["seq"] - self.next_in) & 0xFFFF
        if ahead >= WINDOW or p["seq"] in self.arrived:
            return
        self.arrived[p["seq"]] = True
        while self.arrived.pop(self.next_in, False):
            self.next_in = (self.next_in + 1) & 0xFFFF
        channel = p["channel"]
        self.waiting[channel, p["channel_seq"]] = p
        while (segment := self.waiting.pop((channel, self.in_seq[channel]), None)) is not None:
            self.in_seq[channel] = (self.in_seq[channel] + 1) & 0xFF
            if segment["start"]:
                self.joined[channel] = b""
            self.joined[channel] += segment["payload"]
            if segment["end"]:
                self._on_message(channel, self.joined[channel])
                self.joined[channel] = None

    def _queue(self, channel, message):
        pieces = [message[at : at + self.payload] for at in range(0, max(len(message), 1), self.payload)]
        for number, piece in enumerate(pieces):
            while len(self.unacknowledged) >= 4:
                self._pump(0.05)
            packet = dict(start=number == 0, end=number == len(pieces) - 1, channel=channel)
            packet.update(channel_seq=self.out_seq[channel], payload=piece)
            self.out_seq[channel] = (self.out_seq[channel] + 1) & 0xFF
            seq, self.next_out = self.next_out, (self.next_out + 1) & 0xFFFF
            self.unacknowledged[seq] = (time.monotonic(), packet)
            self._send(self._header("Data", seq=seq, **packet))

    # -- messages

    def _on_message(self, channel, message):
        if self.noise and not self.openers:
            self.noise.read(message)
            host, device = self.noise.split()
            self.sealers = [crypto.ChannelKey(host, number) for number in range(4)]
            self.openers = [crypto.ChannelKey(device, number) for number in range(4)]
            return
        if self.openers:
            message = self.openers[channel].open(message)
        name, fields = messages.decode(message)
        if name in ("Result", "Description"):
            self.results[fields["id"]] = (name, fields)
        elif name == "Progress":
            self.progress.append(fields["value"])
        else:
            self.events.append((name, fields))

    def _await(self, what, seconds, done):
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(what)
            self._pump(0.1)

    def connect(self, seconds=10):
        until = time.monotonic() + seconds
        while not self.established:
            if time.monotonic() > until:
                raise TimeoutError("no device")
            self._send(self._hello())
            self._pump(0.25)
        self._await("announcement", seconds, lambda: any(name == "Announce" for name, _ in self.events))
        return next(fields for name, fields in self.events if name == "Announce")

    def await_event(self, *event):
        self._await(event, 10, lambda: event in self.events)

    def request(self, kind, **fields):
        """Asks, and gives the name and fields of the answer."""
        self.next_id += 1
        fields["id"] = self.next_id
        if kind not in ("Describe", "Unobserve"):
            fields["deadline_ms"] = 20_000
        message = messages.encode(kind, **fields)
        channel = messages.CHANNELS.get(kind, 1)
        self._queue(channel, self.sealers[channel].seal(message) if self.sealers else message)
        self._await(kind, 20, lambda: self.next_id in self.results)
        return self.results.pop(self.next_id)

    def close(self):
        ours, theirs = token(self.boot, self.epoch), token(*self.device[:2])
        self._send(packets.encode(dict(kind="Close", reason=1, versions=(1, 1), sender=ours, receiver=theirs)))
