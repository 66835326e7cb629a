"""Foreign Bluetooth: sensors that broadcast, devices with characteristics of their own, pairing and forgetting.

The devices are bumble's (tests/lab/radio/air.py), outside of the box; its adapter, kernel, bluetoothd and daemon are real.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

from ..air import Air
from ..errors import LabError
from . import scenario
from .box import UNIT, Box
from .report import PATIENCE_S, Notes

CONFIG = "/etc/autoglm-edge/config.toml"
THINGS = "/etc/autoglm-edge/things"
KEYS = "/etc/autoglm-edge/keys"
BACK_S = 10

SENSOR = {"kind": "sensor", "name": "Front door", "address": "F0:00:00:00:01:01"}
SENSOR_THING = "urn:dev:mac:f00000fffe000101"
BIND_KEY = "231d39c1d7cc1ab1aee224cd096db932"
PLUG = {"kind": "plug", "name": "Plug", "address": "F0:00:00:00:02:01"}
PLUG_THING = "urn:example:plug"
LOCKED = {"kind": "plug", "name": "Safe", "address": "F0:00:00:00:02:02", "passkey": 123456}
FREE = {"kind": "plug", "name": "Free", "address": "F0:00:00:00:02:03", "locked": True}
KEYPAD = {"kind": "plug", "name": "Keypad", "address": "F0:00:00:00:02:04", "keys": True}
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
def on_air(
    box: Box, notes: Notes, devices: list[dict[str, Any]], config: str, setup: str = "", adapters: int = 1
) -> Iterator[Air]:
    """The devices on the air, the box with adapters (hci0, ...) and this configuration."""
    air = Air(box.machine, box.directory, devices, adapters)
    try:
        air.plug()
        restart = f"systemctl reset-failed {UNIT}; systemctl restart {UNIT}"
        box.shell(
            f"cp {CONFIG} {CONFIG}.plain; cat >> {CONFIG} <<'E'\n{config}E\nmkdir -p {KEYS} {THINGS}\n{setup}\n{restart}"
        )
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
    setup = (
        f"echo {BIND_KEY} > {KEYS}/door.bindkey; chmod 600 {KEYS}/door.bindkey; chown autoglm-edge {KEYS}/door.bindkey"
    )
    say = {"device": SENSOR["name"], "key": BIND_KEY}
    with on_air(box, notes, [SENSOR], config, setup) as air:
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
    place = box.journal.now()
    with on_air(box, notes, [PLUG], config, setup) as air:
        box.wait_for("^device there", after=place)
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
        air.do("hide", PLUG["name"])
        box.wait_for("^device away", after=place)
        air.do("shift", PLUG["name"])
        place, began = box.journal.now(), time.monotonic()
        air.do("show", PLUG["name"])
        there = box.wait_for("^device there", after=place)
        notes.recovered(box.journal.on_host(there.at) - began, "it returned with other handles")
        _read_until(box, notes, PLUG_THING, "temperature", "25.06", 20)
        # Ended by the box, behind the daemon's back.
        place, place_of_air, began = box.journal.now(), air.now(), time.monotonic()
        box.shell(f"bluetoothctl disconnect {PLUG['address']}")
        air.wait_for("gone", after=place_of_air, device=PLUG["name"])
        there = box.wait_for("^device there", after=place)
        notes.recovered(box.journal.on_host(there.at) - began, "the box ended the connection, and made it anew")
        _read_until(box, notes, PLUG_THING, "temperature", "25.06", 20)


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


class Terminal:
    """A person at a terminal of the box, with one command at work on it."""

    def __init__(self, box: Box, command: str):
        self._box = box
        typed = f"script -qefc '{command}' /run/lab-screen </run/lab-keys"
        box.shell(
            "rm -f /run/lab-keys /run/lab-screen; mkfifo /run/lab-keys; touch /run/lab-screen\n"
            f'setsid sh -c "sleep 120 >/run/lab-keys & {typed}; kill \\$!" </dev/null >/dev/null 2>&1 &'
        )

    def type(self, line: str) -> None:
        self._box.shell(f"echo '{line}' >/run/lab-keys")

    def wait_for(self, pattern: str, patience_s: float = 60) -> re.Match[str]:
        """What stands on the screen."""
        deadline, screen = time.monotonic() + patience_s, ""
        while time.monotonic() < deadline:
            screen = self._box.shell("cat /run/lab-screen")
            if found := re.search(pattern, screen):
                return found
            time.sleep(0.3)
        raise LabError(f"the terminal did not show {pattern!r} in {patience_s:.0f} s", f"it shows {screen!r}")


@scenario(bound_s=30)
def a_bluetooth_device_is_paired(box: Box, notes: Notes) -> None:
    """Devices are listed, paired by the passkey that one shows and no other, and forgotten; who may not is refused."""
    td = json.dumps(description(SAFE_THING, "Safe", LOCKED["address"]))
    setup = f"cat > {THINGS}/safe.td.json <<'E'\n{td}\nE"
    config = '[foreign]\nthings = "/etc/autoglm-edge/things"\n[foreign.ble]\n'
    address = LOCKED["address"]
    place = box.journal.now()
    with on_air(box, notes, [LOCKED, FREE, SENSOR], config, setup) as air:
        air.do("say", SENSOR["name"], data="02ca09", key=BIND_KEY, counter=1)
        box.wait_for("^device there", after=place)
        status, said = _ctl(box, "read", SAFE_THING, "temperature")
        notes.expect(status == 6, f"without pairing it refuses: {said}")
        status, said = _ctl(box, "bluetooth", "scan", "--for", "6")
        notes.expect(status == 0 and "BTHome" in said and FREE["address"] in said, f"devices are listed: {said}")
        for command in (["pair", address, "--passkey", "123456"], ["forget", address]):
            said = box.machine.run(["runuser", "-u", "nobody", "--", "autoglmctl", "bluetooth", *command], timeout_s=60)
            notes.expect(said.status == 7, f"nobody may {command[0]}: {(said.stdout + said.stderr).strip()}")
        for command, wanted, words in (
            (["pair", address, "--passkey", "654321"], 6, "passkey"),
            (["pair", address, "--passkey", "123456"], 0, "is paired"),
            (["pair", FREE["address"]], 0, "nothing was compared"),
            (["pair", "F0:00:00:00:09:09"], 6, "not heard"),
            (["pair", "F0:00"], 2, "no Bluetooth address"),
        ):
            began = time.monotonic()
            status, said = _ctl(box, "bluetooth", *command)
            notes.expect(status == wanted and words in said, f"bluetooth {' '.join(command)}: {status}, {said}")
            if wanted == 0:
                notes.recovered(time.monotonic() - began, "paired")
        _read_until(box, notes, SAFE_THING, "temperature", "25.06", 60)
        place, began = air.now(), time.monotonic()
        status, said = _ctl(box, "bluetooth", "forget", address)
        notes.expect(status == 0, f"it is forgotten: {said}")
        air.wait_for("gone", after=place, device=LOCKED["name"])
        notes.saw(f"it was let go within {time.monotonic() - began:.1f} s")
        bonds = box.shell("grep -l LongTermKey /var/lib/bluetooth/*/*/info || true")
        notes.expect(
            address not in bonds and FREE["address"] in bonds, f"its bond is gone, and no other: {bonds.strip()}"
        )
        status, said = _ctl(box, "read", SAFE_THING, "temperature")
        notes.expect(status == 6, f"it refuses again: {said}")


@scenario(bound_s=30)
def a_bluetooth_device_is_paired_at_a_terminal(box: Box, notes: Notes) -> None:
    """Who pairs at a terminal is asked for what the device shows, or told what to type on it; a wrong passkey can be tried again."""
    config = "[foreign.ble]\n"
    with on_air(box, notes, [LOCKED, KEYPAD], config) as air:
        for typed, shown in (("654321", "passkey"), ("123456", "is paired")):
            place, began = air.now(), time.monotonic()
            terminal = Terminal(box, f"autoglmctl bluetooth pair {LOCKED['address']}")
            terminal.wait_for("six digits that the device shows")
            air.wait_for("passkey", after=place, device=LOCKED["name"], digits="123456")
            terminal.type(typed)
            said = terminal.wait_for(f"([^\n]*{shown})[^\n]*\n")
            notes.saw(f"typed {typed}: {said[0].strip()}")
            if typed == "123456":
                notes.recovered(time.monotonic() - began, "asked, typed, paired")
        place, began = air.now(), time.monotonic()
        terminal = Terminal(box, f"autoglmctl bluetooth pair {KEYPAD['address']}")
        air.wait_for("wanted", after=place, device=KEYPAD["name"])
        digits = terminal.wait_for("type ([0-9]{6}) on the device")[1]
        air.do("type", KEYPAD["name"], digits=digits)
        terminal.wait_for("is paired")
        notes.recovered(time.monotonic() - began, f"told {digits}, typed on the device, paired")
        # Where nobody is there to be told, it is said at once.
        began = time.monotonic()
        status, said = _ctl(box, "bluetooth", "forget", KEYPAD["address"])
        status, said = _ctl(box, "bluetooth", "pair", KEYPAD["address"], "--passkey", "111111")
        notes.expect(status == 6 and "terminal" in said, f"with a passkey of ours: {status}, {said}")
