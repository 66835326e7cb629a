"""The radio: a BLE thermometer that leaves and returns, an adapter that is switched, bluetoothd, controllers that are pulled.

The controllers are virtual (bluez-test-tools' btvirt), everything above them is real: the kernel's stack, bluetoothd, the daemon. The
emulated controller passes advertisements on only when scanning or advertising is switched on, so the peripheral advertises anew
after each fault; recovery counts from there.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator

from ..errors import LabError
from ..journal import Entry
from ..product import binaries, program
from . import scenario
from .box import UNIT, Box
from .report import Notes

CONFIG = "/etc/autoglm-edge/config.toml"
DEVICE = """
[[device]]
name = "greenhouse"
links = ["ble://hci0/name/Greenhouse"]
allow_clear = true
"""
PERIPHERAL = "/opt/lab/simulated-device"
RADIO_UNIT = "lab-peripheral"
THING = "urn:dev:ops:32473-thermometer-1"
LINK = "greenhouse-ble"
# The daemon's own words.
CONNECTED = ("device connected", "connection goes on")
PATIENCE_S = 180
# A device that is back is in use again within this, once it advertises.
BACK_S = 10


@contextlib.contextmanager
def _radio(box: Box, notes: Notes) -> Iterator[None]:
    """Two controllers, a thermometer on one of them, and the daemon knowing it."""
    stripped = binaries() / "lab-deb" / "simulated-device"
    subprocess.run(["strip", "-o", str(stripped), str(program("simulated-device"))], check=True)
    box.machine.push([stripped], "/opt/lab")
    box.shell("lab-ble up 2")
    _advertise(box)
    place = box.journal.now()
    box.shell(f"cp {CONFIG} {CONFIG}.plain; cat >> {CONFIG} <<'E'\n{DEVICE}E\nsystemctl restart {UNIT}")
    try:
        connected = _wait_for_link(box, place)
        notes.did(f"a thermometer is reached by radio ({connected.message})")
        yield
    finally:
        box.shell(f"mv {CONFIG}.plain {CONFIG}; lab-ble peripheral-stop; lab-ble down; systemctl restart {UNIT}")


def _advertise(box: Box) -> Entry:
    """Starts the thermometer; returns when it said that it advertises."""
    place = box.journal.now()
    box.shell(f"lab-ble peripheral -n hci1 {PERIPHERAL} thermometer --ble hci1 --ble-name Greenhouse")
    return box.wait_for("^advertising as", after=place, unit=RADIO_UNIT)


def _signal(box: Box, signal: str) -> None:
    box.shell(f"systemctl kill --kill-whom=main -s {signal} {RADIO_UNIT}")


def _wait_for_link(box: Box, place: int) -> Entry:
    """The daemon's word that the thermometer is connected."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for entry in box.journal.since(place):
            if entry.message in CONNECTED and entry.fields.get("link") == LINK:
                return entry
        time.sleep(0.1)
    raise LabError(f"the thermometer was not connected in {PATIENCE_S} s", f"journalctl -u {UNIT}")


def _reads(box: Box, notes: Notes) -> None:
    said = box.machine.run(["autoglmctl", "read", THING, "temperature"], timeout_s=60)
    notes.expect(said.status == 0, f"the thermometer answers: {(said.stdout + said.stderr).strip()}")


@scenario(bound_s=BACK_S)
def a_ble_device_leaves_and_returns(box: Box, notes: Notes) -> None:
    """A BLE device that was away is in use again under 10 s after it advertises."""
    with _radio(box, notes):
        for _ in range(3):
            place = box.journal.now()
            _signal(box, "USR1")
            box.wait_for("^vanished", after=place, unit=RADIO_UNIT)
            notes.did("the thermometer left")
            box.wait_for("^link lost", after=place)
            place = box.journal.now()
            _signal(box, "USR2")
            returned = box.wait_for("^returned", after=place, unit=RADIO_UNIT)
            connected = _wait_for_link(box, place)
            notes.recovered(connected.at - returned.at, "the thermometer advertises, and is connected")
            _reads(box, notes)


@scenario(bound_s=BACK_S)
def a_ble_device_has_other_handles(box: Box, notes: Notes) -> None:
    """A BLE device that returns with another attribute table (new firmware) is in use again: no stale cache is believed."""
    with _radio(box, notes):
        place = box.journal.now()
        _signal(box, "USR1")
        box.wait_for("^vanished", after=place, unit=RADIO_UNIT)
        _signal(box, "HUP")
        box.wait_for("^serving the table Shifted", after=place, unit=RADIO_UNIT)
        notes.did("the thermometer's handles are others")
        place = box.journal.now()
        _signal(box, "USR2")
        returned = box.wait_for("^returned", after=place, unit=RADIO_UNIT)
        connected = _wait_for_link(box, place)
        notes.recovered(connected.at - returned.at, "the thermometer advertises, and is connected")
        _reads(box, notes)


@scenario(bound_s=BACK_S)
def the_bluetooth_adapter_is_switched_off(box: Box, notes: Notes) -> None:
    """An adapter that is switched off and on serves its devices again."""
    with _radio(box, notes):
        place = box.journal.now()
        box.shell("busctl set-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered b false")
        box.wait_for("^Bluetooth adapter switched off", after=place)
        notes.did("switched the adapter off")
        box.shell("busctl set-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered b true")
        _signal(box, "USR1")
        place = box.journal.now()
        _signal(box, "USR2")
        returned = box.wait_for("^returned", after=place, unit=RADIO_UNIT)
        connected = _wait_for_link(box, place)
        notes.recovered(connected.at - returned.at, "the thermometer advertises, and is connected")
        _reads(box, notes)


@scenario(bound_s=BACK_S)
def bluetoothd_restarts(box: Box, notes: Notes) -> None:
    """A bluetoothd that is restarted is used again, and the device connected."""
    with _radio(box, notes):
        place = box.journal.now()
        box.shell("systemctl restart bluetooth; sleep 3; busctl set-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered b true")
        box.wait_for("^bluetoothd is gone", after=place)
        notes.did("restarted bluetoothd")
        place = box.journal.now()
        advertises = _advertise(box)
        connected = _wait_for_link(box, place)
        notes.recovered(connected.at - advertises.at, "the thermometer advertises, and is connected")
        _reads(box, notes)


@scenario(bound_s=BACK_S)
def the_bluetooth_adapter_is_pulled(box: Box, notes: Notes) -> None:
    """An adapter that is pulled out and plugged in again is used again."""
    with _radio(box, notes):
        place = box.journal.now()
        box.shell("lab-ble down")
        box.wait_for("^Bluetooth adapter unplugged", after=place)
        notes.did("pulled the adapter")
        box.shell("lab-ble up 2")
        place = box.journal.now()
        advertises = _advertise(box)
        connected = _wait_for_link(box, place)
        notes.recovered(connected.at - advertises.at, "the thermometer advertises, and is connected")
        _reads(box, notes)
