"""SPEC sections 4, 5 and 7 for the host's end of a byte stream: one connection, resumed on another line if the line breaks.

Slow and simple where the specification leaves a choice: it acknowledges each Data packet at once, repeats whatever is not
acknowledged after a fixed time, and has four packets on their way.
"""

import os
import secrets
import select
import struct
import time

from . import crypto, frame, packets

MTU, WINDOW, LOG2 = 512, 32, 16
REPEAT_AFTER = 0.3
NOBODY = 0
CHANNELS = range(4)


def token(boot, epoch):
    return max(frame.crc32c(struct.pack("<II", boot, epoch)), 1)


class Lost(Exception):
    """The device ended the connection, for that reason."""


class Connection:
    """Speaks with the device at the other end of `fd`; `on_message(channel, bytes)` gets what arrives.

    `mangle` is the line: it returns what becomes of the bytes that are sent.
    """

    def __init__(self, fd, psk=None, mangle=lambda data: data):
        self.fd, self.psk, self.mangle = fd, psk, mangle
        self.decoder = frame.Decoder(MTU)
        self.boot, self.epoch = secrets.randbits(32), 1
        self.device = None
        self.established = self.is_open = False
        self.repeats = 0
        # What is kept to be resumed (section 4): messages that have not arrived, how many have, how many were taken.
        self.session = None
        self.kept = [[] for _ in CHANNELS]
        self.arrived, self.taken = [0] * 4, [0] * 4
        self.resumptions = 0

    # -- packets

    def _send(self, packet):
        data = self.mangle(frame.encode(packet))
        while data:
            data = data[os.write(self.fd, data) :]

    def _hello(self):
        heard = token(*self.device[:2]) if self.device else NOBODY
        resumes = self.session is not None and self.device is not None and self.device[0] == self.session[1]
        return packets.encode(
            dict(kind="Hello", device=False, established=self.established, resume=resumes, versions=(1, 1), features=1 if self.psk else 0,
                 boot=self.boot, epoch=self.epoch, mtu=MTU, window=WINDOW, log2=LOG2, heard=heard)
        )

    def _header(self, kind, **more):
        return packets.encode(dict(kind=kind, tag=self.tag_out, ack=self.next_in, **more))

    def pump(self, seconds):
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
        for seq, (at, packet, message) in list(self.unacknowledged.items()):
            if now - at > REPEAT_AFTER:
                self.unacknowledged[seq] = (now, packet, message)
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
                self._on_acknowledged(self.unacknowledged.pop(seq)[2])
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
        self.unacknowledged, self.received = {}, {}
        self.out_seq, self.in_seq, self.waiting, self.joined = [0] * 4, [0] * 4, {}, [None] * 4
        self.noise = self.sealers = self.openers = None
        self.resuming = bool(self.session and self.session[1] == hello["boot"] and hello["resume"])
        self.their_count = None
        if self.session and not self.resuming:
            raise Lost("not resumed")
        if not self.session:
            self.session = (key, hello["boot"])
        self.established = True
        if not hello["established"]:
            self._send(self._hello())
        if self.psk:
            prologue = b"autoglm-edge 1" + offer + raw[2:16]
            self.noise = crypto.Noise(True, self.psk, secrets.token_bytes(32), prologue)
            self._segment(0, self.noise.write(), None)

    # -- transport and segments

    def _bitmap(self):
        return sum(1 << (ahead - 1) for seq in self.received if (ahead := (seq - self.next_in) & 0xFFFF))

    def _on_data(self, p):
        ahead = (p["seq"] - self.next_in) & 0xFFFF
        if ahead >= WINDOW or p["seq"] in self.received:
            return
        self.received[p["seq"]] = True
        while self.received.pop(self.next_in, False):
            self.next_in = (self.next_in + 1) & 0xFFFF
        channel = p["channel"]
        self.waiting[channel, p["channel_seq"]] = p
        while (segment := self.waiting.pop((channel, self.in_seq[channel]), None)) is not None:
            self.in_seq[channel] = (self.in_seq[channel] + 1) & 0xFF
            if segment["start"]:
                self.joined[channel] = b""
            self.joined[channel] += segment["payload"]
            if segment["end"]:
                self._on_whole(channel, self.joined[channel])
                self.joined[channel] = None

    def _on_acknowledged(self, message):
        """A packet of the kept `message` arrived; it is kept until all of them have, and those before it."""
        if message is None:
            return
        channel, entry = message
        entry["left"] -= 1
        while self.kept[channel] and self.kept[channel][0]["left"] == 0:
            self.kept[channel].pop(0)
            self.arrived[channel] += 1

    def _on_whole(self, channel, message):
        if self.noise and not self.openers:
            self.noise.read(message)
            host, device = self.noise.split()
            self.sealers = [crypto.ChannelKey(host, number) for number in CHANNELS]
            self.openers = [crypto.ChannelKey(device, number) for number in CHANNELS]
            return
        if self.openers:
            message = self.openers[channel].open(message)
        if self.resuming and self.their_count is None:
            session, *self.their_count = struct.unpack("<5I", message)
            if (channel, session) != (0, self.session[0]):
                raise Lost("another session")
            return
        self.taken[channel] += 1
        self.on_message(channel, message)

    def send(self, channel, message):
        """Sends a message; it is kept until it has arrived, also if the line breaks meanwhile."""
        entry = dict(message=message, left=1)
        self.kept[channel].append(entry)
        self._transmit(channel, entry)

    def _transmit(self, channel, entry):
        message = self.sealers[channel].seal(entry["message"]) if self.sealers else entry["message"]
        self._segment(channel, message, (channel, entry))

    def _segment(self, channel, message, kept):
        pieces = [message[at : at + self.payload] for at in range(0, max(len(message), 1), self.payload)]
        if kept:
            kept[1]["left"] = len(pieces)
        for number, piece in enumerate(pieces):
            while len(self.unacknowledged) >= 4:
                self.pump(0.05)
            packet = dict(start=number == 0, end=number == len(pieces) - 1, channel=channel)
            packet.update(channel_seq=self.out_seq[channel], payload=piece)
            self.out_seq[channel] = (self.out_seq[channel] + 1) & 0xFF
            seq, self.next_out = self.next_out, (self.next_out + 1) & 0xFFFF
            self.unacknowledged[seq] = (time.monotonic(), packet, kept)
            self._send(self._header("Data", seq=seq, **packet))

    # -- beginning and going on

    def wait_for(self, what, seconds, done):
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(what)
            self.pump(0.1)

    def establish(self, seconds=10):
        """Meets the device, and sends again what it has not taken of an interrupted connection."""
        until = time.monotonic() + seconds
        while not self.established:
            if time.monotonic() > until:
                raise TimeoutError("no device")
            self._send(self._hello())
            self.pump(0.25)
        self.wait_for("handshake", seconds, lambda: not self.psk or self.openers)
        if not self.resuming:
            return
        counts = struct.pack("<5I", self.session[0], *(number & 0xFFFFFFFF for number in self.taken))
        self._segment(0, self.sealers[0].seal(counts) if self.sealers else counts, None)
        self.wait_for("resumption", seconds, lambda: self.their_count)
        self.resumptions += 1
        for channel in CHANNELS:
            for _ in range((self.their_count[channel] - self.arrived[channel]) & 0xFFFFFFFF):
                if not self.kept[channel]:
                    raise Lost("more taken than sent")
                self.kept[channel].pop(0)
                self.arrived[channel] += 1
            for entry in list(self.kept[channel]):
                self._transmit(channel, entry)

    def move_to(self, fd):
        """Goes on over another line; `establish` resumes there."""
        self.fd, self.decoder = fd, frame.Decoder(MTU)
        self.epoch += 1
        self.established = False

    def close(self):
        ours, theirs = token(self.boot, self.epoch), token(*self.device[:2])
        self._send(packets.encode(dict(kind="Close", reason=1, versions=(1, 1), sender=ours, receiver=theirs)))
