"""The fleet's broker: restarted, killed, hanging, and away."""

import time

from ..traffic import Operator
from . import scenario
from .box import CONNECTED, UNIT, Box
from .report import Notes

# A broker that is away is tried again after 1 s, doubling, with full jitter: what that can add to a short absence.
JITTER_S = 4
# Of the fleet's broker (daemon/src/config): a silent one counts as gone after one and a half of these.
KEEP_ALIVE_S = 15


def _fresh(box: Box) -> None:
    """A daemon whose waits for the broker start small: earlier scenarios have made them long."""
    box.shell(f"systemctl restart {UNIT}")
    box.settle()


def _returns(box: Box, notes: Notes, operator: Operator, how: str) -> None:
    """Does what makes the broker serve again, and measures from its start."""
    place = box.journal.now()
    box.shell(how)
    started = box.wait_for("^Started", after=place, unit="systemd:mosquitto")
    notes.obeys_again(
        operator, since=box.journal.on_host(started.at), what="from the broker's start to the next command done"
    )


@scenario(bound_s=5 + JITTER_S, is_short=True)
def the_broker_restarts(box: Box, notes: Notes) -> None:
    """A broker that is restarted is in use again within 5 s and jitter; nothing is lost or doubled."""
    _fresh(box)
    with box.traffic(notes) as operator:
        notes.did("restarted the broker")
        _returns(box, notes, operator, "systemctl restart mosquitto")


@scenario(bound_s=5 + JITTER_S)
def kill_9_of_the_broker(box: Box, notes: Notes) -> None:
    """A broker that is killed and forgets its sessions is in use again within 5 s and jitter."""
    _fresh(box)
    with box.traffic(notes) as operator:
        notes.did("kill -9 of the broker, and a new one that knows nobody")
        killed = "systemctl kill --kill-whom=main -s KILL mosquitto; sleep 0.5; rm -f /var/lib/mosquitto/mosquitto.db"
        _returns(box, notes, operator, f"{killed}; systemctl restart mosquitto")


@scenario(bound_s=5 + JITTER_S)
def the_broker_hangs(box: Box, notes: Notes) -> None:
    """A broker that hangs with its connections open (half-open) is given up, and in use again when it goes on."""
    _fresh(box)
    with box.traffic(notes) as operator:
        box.shell("systemctl kill --kill-whom=main -s STOP mosquitto")
        notes.did("stopped the broker's process, its connections stay")
        time.sleep(2 * KEEP_ALIVE_S)
        box.shell("systemctl kill --kill-whom=main -s CONT mosquitto")
        began = time.monotonic()
        notes.obeys_again(operator, since=began, what="from the broker's going on to the next command done")


@scenario(bound_s=30 + JITTER_S)
def the_broker_is_away_for_20_s(box: Box, notes: Notes) -> None:
    """A broker that is away for 20 s is found again within the back-off, and what waited is done."""
    _fresh(box)
    with box.traffic(notes) as operator:
        box.shell("systemctl stop mosquitto")
        notes.did("stopped the broker for 20 s")
        time.sleep(20)
        _returns(box, notes, operator, "systemctl start mosquitto")


@scenario(bound_s=30 + JITTER_S)
def the_broker_is_away_at_start(box: Box, notes: Notes) -> None:
    """A daemon that starts without its broker serves the bus at once, and the fleet when the broker comes."""
    place = box.journal.now()
    box.shell(f"systemctl stop mosquitto; systemctl restart {UNIT}")
    notes.did("started the daemon without a broker")
    box.wait_for(CONNECTED, after=place)
    said = box.machine.run(["autoglmctl", "invoke", "desk lamp", "turn_on"], timeout_s=60)
    notes.expect(said.status == 0, f"the bus serves {said.stderr.strip()}")
    time.sleep(5)
    with box.traffic(notes, first=0) as operator:
        _returns(box, notes, operator, "systemctl start mosquitto")
