"""SPEC section 6 for a host: requests, transfers in both directions, and the time."""

import hashlib
import secrets
import time

from . import messages
from .connection import Connection, Lost  # noqa: F401: whoever uses a host catches its Lost

PART = 2048


class Host(Connection):
    """Speaks with the device at the other end of a line. What `clock` says is the time that it tells, in microseconds."""

    def __init__(self, fd, psk=None, mangle=lambda data: data, clock=lambda: time.time_ns() // 1000):
        super().__init__(fd, psk, mangle)
        self.clock = clock
        self.events, self.results, self.progress = [], {}, []
        self.next_id = secrets.randbits(48)
        # What has to be answered, once whoever reads has finished reading.
        self.later = []
        # What we offer: `wanted` becomes an offset, `done` a code.
        self.next_transfer, self.outgoing = 0, None
        # What is offered to us, and what of it is stored by name.
        self.incoming, self.stored, self.offsets_wanted = None, {}, []

    def connect(self, seconds=10):
        self.establish(seconds)
        self._await("announcement", seconds, lambda: any(name == "Announce" for name, _ in self.events))
        return next(fields for name, fields in self.events if name == "Announce")

    # -- what comes

    def on_message(self, channel, message):
        name, fields = messages.decode(message)
        assert messages.CHANNELS.get(name, 1) == channel, name
        if name in ("Result", "Description"):
            self.results.setdefault(fields["id"], []).append((name, fields))
        elif name == "Progress":
            self.progress.append(fields["value"])
        elif name == "TimeRequest":
            self.later.append(("TimeReply", dict(asked=fields["asked"], received=self.clock(), sent=self.clock)))
        elif name.startswith("Transfer"):
            getattr(self, "_on_" + name)(**fields)
        else:
            self.events.append((name, fields))

    def _on_TransferWanted(self, id, offset):
        if self.outgoing and self.outgoing["id"] == id and self.outgoing["next"] is None:
            self.offsets_wanted.append(offset)
            self.outgoing["next"] = offset

    def _on_TransferDone(self, id, code, text):
        if self.outgoing and self.outgoing["id"] == id:
            self.outgoing["done"] = code

    def _on_TransferOffer(self, id, **offer):
        if self.incoming:
            return self.later.append(("TransferDone", dict(id=id, code=6)))
        self.incoming = dict(offer, id=id)
        data = self.stored.setdefault(offer["name"], bytearray())
        self.later.append(("TransferWanted", dict(id=id, offset=len(data))))
        self._finish_if_complete()

    def _on_TransferPart(self, id, offset, bytes):
        if not self.incoming or self.incoming["id"] != id:
            return
        data = self.stored[self.incoming["name"]]
        if offset != len(data) or not bytes or offset + len(bytes) > self.incoming["length"]:
            self.incoming = None
            return self.later.append(("TransferDone", dict(id=id, code=16)))
        data += bytes
        self._finish_if_complete()

    def _on_TransferAbort(self, id):
        if self.incoming and self.incoming["id"] == id:
            self.incoming = None

    def _finish_if_complete(self):
        offer = self.incoming
        data = self.stored[offer["name"]]
        if len(data) < offer["length"]:
            return
        self.incoming = None
        code = 0 if hashlib.sha256(data).digest() == offer["hash"] else 17
        self.later.append(("TransferDone", dict(id=offer["id"], code=code)))
        self.events.append(("Stored", {"name": offer["name"], "code": code}))

    # -- what goes

    def _post(self, kind, **fields):
        self.send(messages.CHANNELS.get(kind, 1), messages.encode(kind, **fields))

    def work(self, seconds=0.1):
        """Sends what is due, then takes what comes."""
        while self.later:
            kind, fields = self.later.pop(0)
            self._post(kind, **{key: field() if callable(field) else field for key, field in fields.items()})
        out = self.outgoing
        if out and out["next"] is not None and out["next"] < len(out["data"]):
            part = out["data"][out["next"] : out["next"] + PART]
            offset, out["next"] = out["next"], out["next"] + len(part)
            self._post("TransferPart", id=out["id"], offset=offset, bytes=part)
            seconds = 0.001
        self.pump(seconds)

    def _await(self, what, seconds, done):
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(what)
            self.work()

    def await_event(self, *event):
        self._await(event, 10, lambda: event in self.events)

    def ask(self, kind, **fields):
        """Asks, and gives the id under which `results` will have the answer."""
        self.next_id += 1
        fields["id"] = self.next_id
        if kind not in ("Describe", "Unobserve"):
            fields["deadline_ms"] = 20_000
        self._post(kind, **fields)
        return fields["id"]

    def request(self, kind, **fields):
        """Asks, and gives the name and fields of the answer."""
        id = self.ask(kind, **fields)
        self._await(kind, 20, lambda: id in self.results)
        return self.results.pop(id)[0]

    def offer(self, name, data):
        """Offers `data`; `work` sends it as it is wanted, and `outgoing["done"]` becomes the code."""
        self.outgoing = dict(id=self.next_transfer, data=data, next=None, done=None)
        self.next_transfer += 1
        self._post("TransferOffer", id=self.outgoing["id"], name=name, length=len(data), hash=hashlib.sha256(data).digest())

    def time_sync(self):
        self._post("TimeSync", unix_micros=self.clock())
