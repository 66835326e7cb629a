"""The daemon as a service: starts, dies, hangs, and is governed."""

import time

from . import scenario
from .box import UNIT, Box
from .report import Notes

# Start of the daemon under emulation: most of it is loading and linking 28 MB of an unoptimised program.
START_S = 15
# Without an answer for so long, commands have stalled: they take a tenth of a second otherwise.
STALLED_S = 6


@scenario(bound_s=START_S, is_short=True)
def starts_hardened_as_its_own_user(box: Box, notes: Notes) -> None:
    """The unit starts as its own user, hardened, and says READY when it serves."""
    place = box.journal.now()
    box.shell(f"systemctl restart {UNIT}")
    starting = box.wait_for("^Starting", after=place, unit=f"systemd:{UNIT}")
    started = box.wait_for("^Started", after=place, unit=f"systemd:{UNIT}")
    notes.recovered(started.at - starting.at, "from Starting to READY")
    pid = box.property("MainPID")
    identity = box.shell(f"grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/{pid}/status")
    own = box.shell("id -u autoglm-edge").strip()
    found = dict(line.split(":", 1) for line in identity.splitlines())
    notes.expect(set(found["Uid"].split()) == {own}, f"it runs as autoglm-edge (uid {own})")
    notes.expect(
        int(found["CapEff"], 16) == 0 and int(found["CapBnd"], 16) == 0, "it has no capability, and can get none"
    )
    notes.expect(
        found["NoNewPrivs"].strip() == "1" and found["Seccomp"].strip() == "2",
        "no new privileges, system calls filtered",
    )
    exposure = box.shell(f"systemd-analyze security --no-pager {UNIT} | tail -1").strip()
    notes.expect(" 1." in exposure, exposure.replace("→ ", ""))


@scenario(bound_s=5, is_short=True)
def obeys_callers_on_the_bus_as_polkit_says(box: Box, notes: Notes) -> None:
    """On the bus root and members of the group are obeyed, others are refused by polkit."""
    box.shell("usermod -aG autoglm-edge alice")
    verdicts = {}
    for user in ("root", "alice", "bob"):
        began = time.monotonic()
        said = box.machine.run(["autoglmctl", "invoke", "desk lamp", "turn_on"], user=user, timeout_s=60)
        verdicts[user] = (said.status, time.monotonic() - began, said.stderr.strip())
    notes.expect(verdicts["root"][0] == 0, f"root is obeyed {verdicts['root'][2]}")
    notes.expect(verdicts["alice"][0] == 0, f"alice, a member of autoglm-edge, is obeyed {verdicts['alice'][2]}")
    notes.expect(verdicts["bob"][0] == 7, f"bob is refused with status 7: {verdicts['bob'][2].splitlines()[0]}")
    notes.recovered(verdicts["alice"][1], "the slowest of no recovery at all, a call")


@scenario(bound_s=START_S + 5, is_short=True)
def kill_9_of_the_daemon(box: Box, notes: Notes) -> None:
    """Killed with -9 under load, the daemon is back by itself, and no command is lost or done twice."""
    _dies(box, notes, f"systemctl kill --kill-whom=main -s KILL {UNIT}", "kill -9")


@scenario(bound_s=45 + START_S)
def a_hanging_daemon_is_restarted_by_the_watchdog(box: Box, notes: Notes) -> None:
    """A daemon that hangs (SIGSTOP) is ended by the watchdog and back by itself."""
    _dies(box, notes, f"systemctl kill --kill-whom=main -s STOP {UNIT}", "SIGSTOP")


def _dies(box: Box, notes: Notes, how: str, name: str) -> None:
    with box.traffic(notes) as operator:
        restarts = int(box.property("NRestarts"))
        place = box.journal.now()
        began = time.monotonic()
        box.shell(how)
        notes.did(name)
        box.wait_for("^Started", after=place, unit=f"systemd:{UNIT}", patience_s=120)
        notes.obeys_again(operator, since=began, what=f"from {name} to the next command done", after=time.monotonic())
        notes.expect(int(box.property("NRestarts")) == restarts + 1, "one restart by systemd")


@scenario(bound_s=20)
def the_bus_restarts(box: Box, notes: Notes) -> None:
    """When the message bus is restarted, commands go on and the daemon is back on it by itself."""
    with box.traffic(notes):
        place = box.journal.now()
        # Killed rather than restarted: systemd refuses to restart it, and starts it again by its socket.
        box.shell("systemctl kill --kill-whom=main -s KILL dbus.service; sleep 0.2; systemctl start dbus.service")
        notes.did("kill -9 of dbus-daemon, and a new one")
        began = time.monotonic()
        opened = box.wait_for("D-Bus door open", after=place, unit=UNIT)
        notes.recovered(box.journal.on_host(opened.at) - began, "from the new bus to the door's opening")
        said = box.machine.run(["autoglmctl", "invoke", "desk lamp", "turn_on"], timeout_s=60)
        notes.expect(said.status == 0, f"a call on the new bus is obeyed {said.stderr.strip()}")


@scenario(bound_s=10)
def the_disk_is_full(box: Box, notes: Notes) -> None:
    """On a full disk no command is done that cannot be noted; with space again, all goes on by itself."""
    with box.traffic(notes, pause_ms=0) as operator:
        box.shell(
            "set -- $(stat -f -c '%f %S' /var); fallocate -l $(($1 * $2 - 4194304)) /var/lab-ballast;"
            "dd if=/dev/zero of=/var/lab-dust bs=4k 2>/dev/null; true"
        )
        notes.did("filled the disk to the last block")
        try:
            # The store has space of its own for a while: it takes its log's next half megabyte before it needs it.
            stalled_s, deadline = 0.0, time.monotonic() + 180
            while stalled_s < STALLED_S and time.monotonic() < deadline:
                time.sleep(0.5)
                done = [one.answered_at for one in operator.commands() if one.status == "SUCCEEDED" and one.answered_at]
                stalled_s = time.monotonic() - max(done)
            notes.expect(
                stalled_s >= STALLED_S,
                f"no command was done for {STALLED_S} s on the full disk, after {len(done)} were",
            )
            said = box.machine.run(["autoglmctl", "status"], timeout_s=30).stdout
            notes.saw(next((line for line in said.splitlines() if line.startswith("store")), "no status"))
        finally:
            box.shell("rm -f /var/lab-ballast /var/lab-dust; sync")
        began = time.monotonic()
        notes.did("made space again")
        notes.obeys_again(operator, since=began, what="from space to the next command done")


@scenario(bound_s=5)
def the_clock_jumps(box: Box, notes: Notes) -> None:
    """When the clock jumps an hour ahead and back, commands go on."""
    with box.traffic(notes, last=0) as operator:
        for step in ("+3600", "-7200", "+3600"):
            box.shell(f'date -s "@$(($(date +%s) {step[0]} {step[1:]}))" >/dev/null')
            began = time.monotonic()
            notes.did(f"set the clock {step} s")
            notes.obeys_again(operator, since=began, what=f"after {step} s")


@scenario(bound_s=10)
def the_box_is_suspended(box: Box, notes: Notes) -> None:
    """A box that stands still for 20 s (suspended) obeys again at once."""
    with box.traffic(notes) as operator:
        with box.machine.monitor() as monitor:
            monitor("stop")
            notes.did("stopped the machine's processors for 20 s")
            time.sleep(20)
            monitor("cont")
        began = time.monotonic()
        notes.obeys_again(operator, since=began, what="from going on to the next command done")
