"""The radio: a BLE thermometer that leaves and returns, an adapter that is switched, bluetoothd, controllers that are pulled.

The controllers are virtual (bluez-test-tools' btvirt), everything above them is real: the kernel's stack, bluetoothd, the daemon. The
emulated controller passes an advertisement on once, when scanning or advertising is switched on, so the peripheral advertises anew each
second while nobody is connected; recovery counts from its return.
"""

import contextlib
from collections.abc import Iterator

from ..journal import Entry
from ..writer import stripped
from . import scenario
from .box import CONNECTED, DESK, LOST, Box
from .report import Notes

GREENHOUSE = """[[device]]
name = "greenhouse"
links = ["ble://hci0/name/Greenhouse"]
allow_clear = true
"""
PERIPHERAL = "/opt/lab/simulated-device"
RADIO_UNIT = "lab-peripheral"
THING = "urn:dev:ops:32473-thermometer-1"
LINK = "greenhouse-ble"
POWERED = "busctl set-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered b"
PATIENCE_S = 180
# A device that is back is in use again within this, once it advertises.
BACK_S = 10
# One whose cached table is wrong without a sign of it must first be silent for as long as a device may be.
STALE_S = 30
# An adapter is pulled so often.
ROUNDS = 3


@contextlib.contextmanager
def _radio(box: Box) -> Iterator[None]:
    """Two controllers, a thermometer on one of them, and the daemon knowing it. The scenarios of this file share them."""
    box.push([stripped("simulated-device")], "/opt/lab")
    box.shell("lab-ble up 2")
    _advertise(box)
    place = box.journal.now()
    box.configure(DESK + GREENHOUSE)
    try:
        _wait_for_link(box, place)
        yield
    finally:
        box.shell("lab-ble peripheral-stop; lab-ble down")
        box.configure()


def _advertise(box: Box) -> Entry:
    """Starts the thermometer; returns when it said that it advertises."""
    place = box.journal.now()
    box.shell(f"lab-ble peripheral -n hci1 {PERIPHERAL} thermometer --ble hci1 --ble-name Greenhouse")
    return box.wait_for("^advertising as", after=place, unit=RADIO_UNIT)


def _tell(box: Box, signal: str, answer: str) -> Entry:
    """Tells the thermometer to do something (tests/src/device/peripheral.rs); returns when it did."""
    place = box.journal.now()
    box.shell(f"systemctl kill --kill-whom=main -s {signal} {RADIO_UNIT}")
    return box.wait_for(answer, after=place, unit=RADIO_UNIT)


def _vanish(box: Box) -> None:
    _tell(box, "USR1", "^vanished")


def _return(box: Box) -> Entry:
    return _tell(box, "USR2", "^returned")


def _wait_for_link(box: Box, place: int) -> Entry:
    return box.wait_for(CONNECTED, after=place, patience_s=PATIENCE_S, link=LINK)


def _is_back(box: Box, notes: Notes, place: int, advertises: Entry) -> None:
    """The link's return is measured from the advertisement, and a read goes over it."""
    connected = _wait_for_link(box, place)
    notes.recovered(connected.at - advertises.at, "the thermometer advertises, and is connected")
    said = box.machine.run(["autoglmctl", "read", THING, "temperature"], timeout_s=60)
    notes.expect(said.status == 0, f"the thermometer answers: {(said.stdout + said.stderr).strip()}")


@scenario(bound_s=BACK_S, is_short=True)
def a_ble_device_leaves_and_returns(box: Box, notes: Notes) -> None:
    """A BLE device that was away is in use again under 10 s after it advertises."""
    box.equip(_radio)
    for _ in range(2):
        place = box.journal.now()
        _vanish(box)
        notes.did("the thermometer left")
        box.wait_for(LOST, after=place, link=LINK)
        place = box.journal.now()
        _is_back(box, notes, place, _return(box))


@scenario(bound_s=BACK_S)
def a_ble_device_has_other_handles(box: Box, notes: Notes) -> None:
    """A BLE device that returns with another attribute table (new firmware) is in use again: no stale cache is believed."""
    box.equip(_radio)
    _vanish(box)
    _tell(box, "HUP", "^serving the table")
    notes.did("the thermometer's handles are others")
    place = box.journal.now()
    _is_back(box, notes, place, _return(box))


@scenario(bound_s=STALE_S)
def a_ble_device_has_its_old_handles_for_other_things(box: Box, notes: Notes) -> None:
    """A BLE device whose handles mean other things than BlueZ has cached, so that it hears nothing, is in use again under 30 s."""
    box.equip(_radio)
    # The table that the other begins at must be the one that BlueZ has cached.
    place = box.journal.now()
    _advertise(box)
    _wait_for_link(box, place)
    _vanish(box)
    _tell(box, "ALRM", "^serving the table")
    notes.did("the thermometer notifies where it was written, and the other way round")
    place = box.journal.now()
    _is_back(box, notes, place, _return(box))


@scenario(bound_s=BACK_S)
def the_bluetooth_adapter_is_switched_off(box: Box, notes: Notes) -> None:
    """An adapter that is switched off and on serves its devices again."""
    box.equip(_radio)
    place = box.journal.now()
    box.shell(f"{POWERED} false")
    box.wait_for("^Bluetooth adapter switched off", after=place)
    notes.did("switched the adapter off")
    box.shell(f"{POWERED} true")
    _vanish(box)
    place = box.journal.now()
    _is_back(box, notes, place, _return(box))


@scenario(bound_s=BACK_S)
def bluetoothd_restarts(box: Box, notes: Notes) -> None:
    """A bluetoothd that is restarted is used again, and the device connected."""
    box.equip(_radio)
    place = box.journal.now()
    box.shell(f"systemctl restart bluetooth; sleep 3; {POWERED} true")
    box.wait_for("^bluetoothd is gone", after=place)
    notes.did("restarted bluetoothd")
    place = box.journal.now()
    _is_back(box, notes, place, _advertise(box))


@scenario(bound_s=BACK_S)
def the_bluetooth_adapter_is_pulled(box: Box, notes: Notes) -> None:
    """An adapter that is pulled out and plugged in again is used again."""
    box.equip(_radio)
    for _ in range(ROUNDS):
        place = box.journal.now()
        box.shell("lab-ble down")
        box.wait_for("^Bluetooth adapter unplugged", after=place)
        notes.did("pulled the adapter")
        box.shell("lab-ble up 2")
        place = box.journal.now()
        _is_back(box, notes, place, _advertise(box))
