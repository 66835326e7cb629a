"""A lamp that is reached by a line and by the broker: its connection moves between them."""

import contextlib
import subprocess
import time
from collections.abc import Iterator

from ..errors import LabError
from ..product import program
from . import scenario
from .box import INNER_BROKER, KEYS, LINE, Box
from .report import Notes

TOPIC = "autoglm/devices/desk"
KEY = "desk.key"
BOTH = f"""[[device]]
name = "desk"
links = ["{LINE}", "{INNER_BROKER}/{TOPIC}"]
key = {{ file = "{KEYS}/{KEY}" }}
"""
# A better link that is back is taken when it has been there for a while (daemon/src/link/policy.rs).
BACK_S = 60


@contextlib.contextmanager
def _two_ways(box: Box) -> Iterator[None]:
    """The lamp and the box share a key, and both know the broker."""
    key = box.directory / KEY
    made = [str(program("autoglmctl")), "key", "new", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    box.push([key], KEYS)
    box.device.options = ["--mqtt", f"mqtt://127.0.0.1:{box.broker_port}/{TOPIC}", "--key", str(key)]
    box.device.power_off()
    box.device.power_on()
    box.configure(BOTH)
    try:
        yield
    finally:
        box.device.options = []
        box.device.power_off()
        box.device.power_on()
        box.configure()


@scenario(bound_s=5)
def the_line_breaks_and_the_broker_carries(box: Box, notes: Notes) -> None:
    """A sealed connection moves from a line that is unplugged to the broker and back, with nothing lost or doubled."""
    box.equip(_two_ways)
    _wait_until_carried(box, "serial")
    with box.traffic(notes) as operator:
        for _ in range(2):
            box.unplug()
            began = time.monotonic()
            notes.did("unplugged the adapter")
            notes.obeys_again(operator, since=began, what="from the unplugging to the next command done")
            _wait_until_carried(box, "mqtt")
            operator.wait_for_count(5)
            place = box.journal.now()
            box.plug()
            notes.did("plugged it in again")
            began = time.monotonic()
            _wait_until_carried(box, "serial")
            notes.saw(f"the line carries again after {time.monotonic() - began:.1f} s")
            operator.wait_for_count(5)
        again = [entry for entry in box.journal.since(place) if entry.message == "device connected"]
        notes.expect(not again, "it was one connection all the time")


def _wait_until_carried(box: Box, way: str) -> None:
    """Until the link that carries is of this kind."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        for line in box.shell("autoglmctl links").splitlines():
            if line.startswith(f"desk-{way} ") and " connected" in line:
                return
        time.sleep(0.3)
    raise LabError(f"the connection does not go by {way}", box.shell("autoglmctl links"))
