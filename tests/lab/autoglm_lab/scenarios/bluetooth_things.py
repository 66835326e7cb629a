"""Bluetooth beyond one link: sensors that broadcast, foreign devices, pairing, eight peripherals at once, small and jumbled packets.

The devices are bumble's (tests/lab/radio/air.py), outside of the box; its adapter, kernel, bluetoothd and daemon are real.
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
from .box import UNIT, Box
from .report import PATIENCE_S, Notes

CONFIG = "/etc/autoglm-edge/config.toml"
THINGS = "/etc/autoglm-edge/things"
KEYS = "/etc/autoglm-edge/keys"
# The daemon's own words, which go on where the connection does.
CONNECTED = "device connected"
BACK_S = 10

SENSOR = {"kind": "sensor", "name": "Front door", "address": "F0:00:00:00:01:01"}
SENSOR_THING = "urn:dev:mac:f00000fffe000101"
BIND_KEY = "231d39c1d7cc1ab1aee224cd096db932"
PLUG = {"kind": "plug", "name": "Plug", "address": "F0:00:00:00:02:01"}
PLUG_THING = "urn:example:plug"
LOCKED = {"kind": "plug", "name": "Safe", "address": "F0:00:00:00:02:02", "passkey": 123456}
SAFE_THING = "urn:example:safe"
OWN = "0000A00{}-0000-1000-8000-00805F9B34FB"


def description(thing: str, title: str, address: str) -> dict[str, Any]:
    """A plug of air.py, as a person would describe it."""
    base, own = f"gatt://{address.replace(':', '-')}/", OWN.format(0)
    return {
        "@context": ["https://www.w3.org/2022/wot/td/v1.1", {"edge": "https://openautoglm.org/ns/edge#"}],
        "id": thing,
        "title": title,
        "base": base,
        "securityDefinitions": {"radio": {"scheme": "nosec"}},
        "security": ["radio"],
        "properties": {
            "temperature": {
                "type": "number",
                "unit": "degree celsius",
                "readOnly": True,
                "observable": True,
                "forms": [
                    {
                        "href": "181A/2A6E",
                        "op": ["readproperty", "observeproperty"],
                        "edge:type": "xsd:short",
                        "edge:scale": 0.01,
                    }
                ],
            },
            "level": {
                "type": "integer",
                "minimum": 0,
                "maximum": 100,
                "forms": [{"href": f"{own}/{OWN.format(1)}", "edge:type": "xsd:unsignedByte"}],
            },
        },
        "actions": {
            "blink": {"forms": [{"href": f"{own}/{OWN.format(2)}", "edge:type": "xsd:unsignedByte", "edge:value": 3}]}
        },
        "events": {
            "pressed": {
                "data": {"type": "integer"},
                "forms": [{"href": f"{own}/{OWN.format(3)}", "edge:type": "xsd:unsignedByte"}],
            }
        },
    }


@contextlib.contextmanager
def _air(box: Box, notes: Notes, devices: list[dict[str, Any]], config: str, setup: str = "") -> Iterator[Air]:
    """The devices on the air, the box with an adapter and this configuration."""
    air = Air(box.machine, box.directory, devices)
    try:
        air.plug()
        restart = f"systemctl reset-failed {UNIT}; systemctl restart {UNIT}"
        box.shell(f"cp {CONFIG} {CONFIG}.plain; cat >> {CONFIG} <<'E'\n{config}E\nmkdir -p {KEYS} {THINGS}\n{setup}\n{restart}")
        notes.did(f"{len(devices)} devices on the air, and the daemon started anew")
        yield air
    finally:
        with contextlib.suppress(LabError):
            box.shell(f"[ -e {CONFIG}.plain ] && mv {CONFIG}.plain {CONFIG}; rm -rf {THINGS}; systemctl restart {UNIT}")
            air.unplug()
        air.close()


def _ctl(box: Box, *words: str, timeout_s: int = 90) -> tuple[int, str]:
    said = box.machine.run(["autoglmctl", *words], timeout_s=timeout_s)
    return said.status, (said.stdout + said.stderr).strip()


def _read_until(box: Box, notes: Notes, thing: str, property: str, wanted: str, patience_s: float = PATIENCE_S) -> None:
    deadline, said = time.monotonic() + patience_s, ""
    while time.monotonic() < deadline:
        status, said = _ctl(box, "read", thing, property)
        if status == 0 and said.startswith(wanted):
            return notes.saw(f"{property} is {said.splitlines()[0]}")
        time.sleep(0.5)
    return notes.fault(f"{property} of {thing} is not {wanted}: {said}")


@scenario(bound_s=BACK_S)
def a_bluetooth_sensor_broadcasts(box: Box, notes: Notes) -> None:
    """A BTHome sensor is a Thing by what it broadcasts, back under 10 s after its adapter is, and no recording of it is believed."""
    config = f'[foreign.ble]\nadapter = "hci0"\n[[foreign.ble.sensor]]\naddress = "{SENSOR["address"]}"\n' + (
        f'title = "Front door"\nkey = {{ file = "{KEYS}/door.bindkey" }}\n'
    )
    setup = f"echo {BIND_KEY} > {KEYS}/door.bindkey; chmod 600 {KEYS}/door.bindkey; chown autoglm-edge {KEYS}/door.bindkey"
    say = {"device": SENSOR["name"], "key": BIND_KEY}
    with _air(box, notes, [SENSOR], config, setup) as air:
        # The format page's temperature of 25.06 degrees.
        place = box.journal.now()
        air.do("say", data="02ca09", counter=10, **say)
        box.wait_for("^sensor there", after=place)
        _read_until(box, notes, SENSOR_THING, "temperature", "25.06")
        air.do("say", data="02c409", counter=11, **say)
        _read_until(box, notes, SENSOR_THING, "temperature", "25")
        place = box.journal.now()
        air.do("say", data="02ca09", counter=10, **say)
        box.wait_for("^not usable", after=place)
        _read_until(box, notes, SENSOR_THING, "temperature", "25", 10)
        notes.did("played a recording back: refused")

        air.unplug()
        box.wait_for("^Bluetooth adapter unplugged", after=place)
        air.plug()
        place, began = box.journal.now(), time.monotonic()
        air.do("say", data="02ca09", counter=12, **say)
        there = box.wait_for("^sensor there", after=place)
        notes.recovered(box.journal.on_host(there.at) - began, "the adapter is back, and the sensor heard")

        # An event is kept before it is passed on, so that one cannot come twice, over a restart neither.
        air.do("say", data="3a01", counter=20, **say)
        time.sleep(2)
        box.shell(f"systemctl restart {UNIT}")
        place = box.journal.now()
        air.do("say", data="3a01", counter=19, **say)
        box.wait_for("^not usable", after=place)
        notes.did("restarted the daemon, and played the press of a button back: refused")


@scenario(bound_s=BACK_S)
def a_foreign_bluetooth_device(box: Box, notes: Notes) -> None:
    """A described GATT device reads, writes, reports; one that left is back under 10 s after it advertises."""
    td = json.dumps(description(PLUG_THING, "Plug", PLUG["address"]))
    setup = f"cat > {THINGS}/plug.td.json <<'E'\n{td}\nE"
    config = '[foreign]\nthings = "/etc/autoglm-edge/things"\n[foreign.ble]\n'
    with _air(box, notes, [PLUG], config, setup) as air:
        box.wait_for("^device there", after=0)
        _read_until(box, notes, PLUG_THING, "temperature", "25.06")
        status, said = _ctl(box, "write", PLUG_THING, "level", "40")
        notes.expect(status == 0 and "40" in said, f"level is written and read back: {said}")
        place = air.now()
        status, said = _ctl(box, "invoke", PLUG_THING, "blink")
        notes.expect(status == 0, f"blink is invoked: {said}")
        air.wait_for("written", after=place, what="blink", data="03")
        status, said = _ctl(box, "write", PLUG_THING, "level", "400")
        notes.expect(status == 5, f"400 is refused: {said}")
        air.do("notify", PLUG["name"], uuid="2A6E", data="c409")
        _reports(box, notes, "temperature", 25)
        for _ in range(2):
            place = box.journal.now()
            air.do("hide", PLUG["name"])
            box.wait_for("^device away", after=place)
            notes.did("the device left")
            place, began = box.journal.now(), time.monotonic()
            air.do("show", PLUG["name"])
            there = box.wait_for("^device there", after=place)
            notes.recovered(box.journal.on_host(there.at) - began, "it returned")
            _read_until(box, notes, PLUG_THING, "temperature", "25", 20)


def _reports(box: Box, notes: Notes, property: str, value: float) -> None:
    """What the device reported by itself, as everybody sees it."""
    deadline, seen = time.monotonic() + 30, None
    while time.monotonic() < deadline:
        _, said = _ctl(box, "--json", "things", PLUG_THING)
        with contextlib.suppress(ValueError):
            seen = json.loads(said)["thing"]["values"].get(property)
        if seen == value:
            return notes.saw(f"{property} was reported as {seen}")
        time.sleep(0.5)
    return notes.fault(f"{property} was not reported as {value}, but {seen}")


@scenario(bound_s=60)
def a_bluetooth_device_is_paired(box: Box, notes: Notes) -> None:
    """Devices are listed, paired with the passkey that they show (and no other), and forgotten."""
    td = json.dumps(description(SAFE_THING, "Safe", LOCKED["address"]))
    setup = f"cat > {THINGS}/safe.td.json <<'E'\n{td}\nE"
    config = '[foreign]\nthings = "/etc/autoglm-edge/things"\n[foreign.ble]\n'
    address = LOCKED["address"]
    free = {"kind": "plug", "name": "Free", "address": "F0:00:00:00:02:03", "locked": True}
    with _air(box, notes, [LOCKED, free, SENSOR], config, setup) as air:
        air.do("say", SENSOR["name"], data="02ca09", key=BIND_KEY, counter=1)
        box.wait_for("^device there", after=0)
        status, said = _ctl(box, "read", SAFE_THING, "temperature")
        notes.expect(status == 6, f"without pairing it refuses: {said}")
        status, said = _ctl(box, "bluetooth", "scan", "--for", "6")
        notes.expect(status == 0 and "BTHome" in said and free["address"] in said, f"devices are listed: {said}")
        for command, wanted in (
            (["pair", address, "--passkey", "654321"], 6),
            (["pair", address, "--passkey", "123456"], 0),
            (["pair", free["address"]], 0),
            (["pair", "F0:00:00:00:09:09"], 6),
            (["pair", "F0:00"], 2),
        ):
            began = time.monotonic()
            status, said = _ctl(box, "bluetooth", *command)
            notes.expect(status == wanted, f"bluetooth {' '.join(command)}: {status}, {said}")
            if wanted == 0:
                notes.recovered(time.monotonic() - began, "paired")
        _read_until(box, notes, SAFE_THING, "temperature", "25.06", 60)
        # As nobody in particular: polkit has the last word.
        said = box.machine.run(["sh", "-c", f"runuser -u nobody -- autoglmctl bluetooth forget {address}"], timeout_s=60)
        notes.expect(said.status == 7, f"somebody else may not: {(said.stdout + said.stderr).strip()}")
        status, said = _ctl(box, "bluetooth", "forget", address)
        notes.expect(status == 0, f"it is forgotten: {said}")
        known = box.shell("busctl --list tree org.bluez").replace("_", ":")
        paired = box.machine.run(["sh", "-c", "ls /var/lib/bluetooth/*/ | grep -c '^F0:00:00:00:02:02$'"]).stdout.strip()
        notes.expect(paired == "0", f"no bond of it is left ({len(known.splitlines())} objects in BlueZ)")
        # A person at a terminal, who types what the device shows.
        place = air.now()
        typed = "(sleep 12; echo 123456; sleep 20) | timeout 60 script -qec 'autoglmctl bluetooth pair {}' /dev/null".format(address)
        said = box.machine.run(["sh", "-c", typed], timeout_s=90)
        air.wait_for("passkey", after=place, device=LOCKED["name"])
        notes.expect("is paired" in said.stdout, f"asked, typed, paired: {said.stdout.strip()}")


class RadioLamp(Device):
    """A lamp whose packets go by the air."""

    def __init__(self, directory: Path, number: int, **more: Any):
        directory.mkdir()
        super().__init__(directory)
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
        return f'[[device]]\nname = "{name}"\nlinks = ["ble://hci0/{self.spec["address"]}"]\nallow_clear = true\n'

    def operator(self, box: Box, run: str) -> Operator:
        """Commands to this lamp."""
        kind = type("LampOperator", (Operator,), {"THING": self.thing})
        return kind(box.broker_port, self, run, 200)


@contextlib.contextmanager
def _lamps(box: Box, notes: Notes, lamps: list[RadioLamp]) -> Iterator[tuple[Air, list[Operator]]]:
    """The lamps lit, reached by radio, and commanded."""
    operators: list[Operator] = []
    try:
        for lamp in lamps:
            lamp.power_on()
        config = "".join(lamp.config() for lamp in lamps)
        place = box.journal.now()
        with _air(box, notes, [lamp.spec for lamp in lamps], config) as air:
            _wait_for_links(box, place, {lamp.spec["name"]: lamp for lamp in lamps})
            notes.did(f"{len(lamps)} lamps are connected by radio at once")
            operators += [lamp.operator(box, f"air{box.seed}-{index}-{time.time():.0f}") for index, lamp in enumerate(lamps)]
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
            at = _wait_for_links(box, place, {name: lamp for name, lamp in zip(names, leaving, strict=True)})
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
