"""Devices of ours by radio: eight at once, small and jumbled packets, two adapters.

The devices' radio is bumble's (tests/lab/radio/air.py), outside of the box, as are the simulated lamps behind it; the box's adapters, kernel,
bluetoothd and daemon are real.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..air import Air
from ..errors import LabError
from ..places import checkout
from ..product import program
from ..traffic import Device, Operator, start
from . import scenario
from .bluetooth_things import BACK_S, on_air
from .box import UNIT, Box
from .report import PATIENCE_S, Notes

# The daemon's own words, which go on where the connection does.
CONNECTED = "device connected"


class RadioLamp(Device):
    """A lamp whose packets go by the air."""

    def __init__(self, directory: Path, number: int, *, adapter: str = "hci0", **more: Any):
        directory.mkdir()
        super().__init__(directory)
        # Of the box; empty: any.
        self.adapter = adapter
        self.thing = f"urn:dev:ops:32473-lamp-{number}"
        self.spec = {
            "kind": "uart",
            "name": f"Lamp {number}",
            "address": f"F0:00:00:00:00:{number:02X}",
            "socket": str(directory / "air"),
            **more,
        }
        self._description = directory / "lamp.td.json"
        document = json.loads((checkout() / "tests/things/desk-lamp.json").read_text("utf-8"))
        document.update({"id": self.thing, "title": f"Lamp {number}", "edge:aliases": []})
        self._description.write_text(json.dumps(document), "utf-8")

    def power_on(self, delay_ms: int = 0) -> None:
        command = [str(program("simulated-device")), "lamp", "--packets", self.spec["socket"]]
        command += ["--description", str(self._description), "--state", str(self._state)]
        command += ["--executions", str(self._notes), "--delay-ms", str(delay_ms)]
        with open(self._log, "ab") as log:
            self._process = start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def config(self) -> str:
        name = f"lamp-{int(self.spec['address'][-2:], 16)}"
        links = f'["ble://{self.adapter}/{self.spec["address"]}"]'
        return f'[[device]]\nname = "{name}"\nlinks = {links}\nallow_clear = true\n'

    def operator(self, box: Box, run: str) -> Operator:
        """Commands to this lamp."""
        kind = type("LampOperator", (Operator,), {"THING": self.thing})
        return kind(box.broker_port, self, run, 200)


@contextlib.contextmanager
def _lamps(box: Box, notes: Notes, lamps: list[RadioLamp], adapters: int = 1) -> Iterator[tuple[Air, list[Operator]]]:
    """The lamps lit, reached by radio, and commanded."""
    operators: list[Operator] = []
    try:
        for lamp in lamps:
            lamp.power_on()
        config = "".join(lamp.config() for lamp in lamps)
        place = box.journal.now()
        with on_air(box, notes, [lamp.spec for lamp in lamps], config, adapters=adapters) as air:
            _wait_for_links(box, place, {lamp.spec["name"]: lamp for lamp in lamps})
            notes.did(f"{len(lamps)} lamps are connected by radio at once")
            operators += [
                lamp.operator(box, f"air{box.seed}-{index}-{time.time():.0f}") for index, lamp in enumerate(lamps)
            ]
            for operator in operators:
                operator.wait_for_count(2, PATIENCE_S)
            yield air, operators
            for operator in operators:
                operator.wait_for_count(2, PATIENCE_S)
            for operator in operators:
                notes.counted(operator.stop())
    finally:
        for operator in operators:
            operator.kill()
        for lamp in lamps:
            lamp.power_off()


def _link(lamp: RadioLamp) -> str:
    return f"lamp-{int(lamp.spec['address'][-2:], 16)}-ble"


def _wait_for_links(box: Box, place: int, lamps: dict[str, RadioLamp]) -> float:
    """Until each is connected; returns when the last was, in the guest's time."""
    wanted, last = {_link(lamp) for lamp in lamps.values()}, 0.0
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        seen = {}
        for entry in box.journal.since(place):
            if entry.message.startswith(CONNECTED) and entry.fields.get("link") in wanted:
                seen.setdefault(entry.fields["link"], entry.at)
        if seen.keys() == wanted:
            return max(seen.values(), default=last)
        time.sleep(0.2)
    raise LabError(f"not all of {sorted(wanted)} were connected in {PATIENCE_S} s", f"journalctl -u {UNIT}")


@scenario(bound_s=BACK_S)
def eight_bluetooth_devices_at_once(box: Box, notes: Notes) -> None:
    """Eight BLE devices on one adapter obey at once; those that leave and return are back under 10 s, none is lost or done twice."""
    lamps = [RadioLamp(box.directory / f"lamp{number}", number) for number in range(1, 9)]
    with _lamps(box, notes, lamps) as (air, operators):
        for leaving in (lamps[0:1], lamps[2:3], lamps[4:7]):
            names = [lamp.spec["name"] for lamp in leaving]
            place = box.journal.now()
            for name in names:
                air.do("hide", name)
            notes.did(f"{', '.join(names)} left")
            for operator in operators[:1] if leaving[0] is not lamps[0] else operators[1:2]:
                operator.wait_for_count(3, PATIENCE_S)
            box.wait_for("^link lost", after=place)
            place = box.journal.now()
            for name in names[:-1]:
                air.do("show", name)
            began = time.monotonic()
            air.do("show", names[-1])
            at = _wait_for_links(box, place, dict(zip(names, leaving, strict=True)))
            notes.recovered(box.journal.on_host(at) - began, f"{', '.join(names)} back")


@scenario(bound_s=BACK_S)
def a_bluetooth_link_of_small_packets_out_of_order(box: Box, notes: Notes) -> None:
    """Packets of 20 bytes, every second one overtaken by the next, a signal strength that is not known: nothing is lost or done twice."""
    lamp = RadioLamp(box.directory / "small", 9, mtu=23, jumble=True)
    with _lamps(box, notes, [lamp]) as (air, operators):
        told = air.wait_for("subscribed", device=lamp.spec["name"])
        notes.expect(told["mtu"] == 23, f"the ATT MTU is {told['mtu']}")
        operators[0].wait_for_count(20, PATIENCE_S)
        air.do("hide", lamp.spec["name"])
        air.do("strength", dbm=127)
        place, began = box.journal.now(), time.monotonic()
        air.do("show", lamp.spec["name"])
        at = _wait_for_links(box, place, {"": lamp})
        notes.recovered(box.journal.on_host(at) - began, "it returned, of unknown strength")
        operators[0].wait_for_count(5, PATIENCE_S)


@scenario(bound_s=BACK_S)
def two_bluetooth_adapters(box: Box, notes: Notes) -> None:
    """Of two adapters each has a device: one is pulled, the other's device goes on; a device of any adapter moves over; all are back under 10 s."""
    places = {"near": "hci0", "far": "hci1", "any": ""}
    lamps = {
        name: RadioLamp(box.directory / f"lamp-{name}", 16 + number, adapter=adapter)
        for number, (name, adapter) in enumerate(places.items())
    }
    near, far, either = lamps.values()
    with _lamps(box, notes, list(lamps.values()), adapters=2) as (air, operators):
        # Whatever "any" is on, after the first round it is on the adapter that the second one pulls.
        for number, pulled, unharmed in ((1, far, operators[0]), (0, near, operators[1])):
            place = box.journal.now()
            air.unplug(number)
            box.wait_for("^Bluetooth adapter unplugged", after=place, adapter=f"hci{number}")
            began = time.monotonic()
            notes.did(f"pulled hci{number}")
            if number == 0:
                at = _wait_for_links(box, place, {"": either})
                notes.recovered(box.journal.on_host(at) - began, "the device of any adapter moved to the other")
            unharmed.wait_for_count(3, PATIENCE_S)
            air.plug(number)
            found = box.wait_for("^Bluetooth adapter found", after=place, adapter=f"hci{number}")
            at = _wait_for_links(box, place, {"": pulled})
            notes.recovered(at - found.at, f"hci{number} is back, and its device")
