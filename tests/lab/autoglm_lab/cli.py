"""The commands of `tests/lab/lab`. Data goes to stdout, everything else to stderr; exit codes are those of errors.py.

`run` and `sh` end with the status of the guest's command.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import product
from .cable import Socket
from .console import note, say
from .errors import EXIT_INTERRUPTED, EXIT_LAB, EXIT_OK, LabError
from .fresh import start
from .image.warm import build_disk_for, ensure_image
from .machine import channel, transfer
from .machine.vm import Machine, existing
from .scenarios import runner


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    # A terminated lab ends its machines the same way as an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell starts its background jobs deaf to this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return options.act(options)
    except LabError as error:
        say(f"error: {error}")
        say(f"hint: {error.hint}")
        return EXIT_LAB
    except KeyboardInterrupt:
        say("\ninterrupted")
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab", description="An edge box in an emulator.", epilog="See tests/lab/README.md."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[Any], int], help: str, *, is_named: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        if is_named:
            sub.add_argument(
                "-n", "--name", default=os.environ.get("LAB_VM", "edge"), help="of the machine (default: edge)"
            )
        sub.set_defaults(act=act)
        return sub

    command("build", _build, "build the image and its snapshot, if they are not there", is_named=False)
    hidden = commands.add_parser("_build-disk")
    hidden.add_argument("user", type=int)
    hidden.set_defaults(act=_build_disk)

    scenarios = command("scenarios", _scenarios, "do faults to the box and print what became of it", is_named=False)
    runner.add_arguments(scenarios)

    up = command("up", _up, "start a fresh machine from the snapshot")
    up.add_argument("--cold", action="store_true", help="boot it instead of resuming the snapshot")
    up.add_argument(
        "--volatile", action="store_true", help="give it a disk that loses unflushed writes when power is cut"
    )
    run = command("run", _run, "run a command in the machine")
    shell = command("sh", _shell, "run a script of this side in the machine with bash; without one: a shell prompt")
    for sub in (run, shell):
        sub.add_argument("-u", "--user", help="as whom (default: root)")
        sub.add_argument("-t", "--timeout", type=float, help="seconds after which it is killed (status 124)")
        sub.add_argument("-i", "--stdin", action="store_true", help="give it this side's stdin")
        sub.add_argument("-e", "--env", action="append", default=[], metavar="KEY=VALUE")
        sub.add_argument("-C", "--cwd")
        sub.add_argument("argv", nargs=argparse.REMAINDER)
    push = command("push", _push, "copy files or directories into the machine")
    push.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="of this side; the last one: a directory of the machine"
    )
    pull = command("pull", _pull, "copy files or directories out of the machine")
    pull.add_argument("paths", nargs="+", metavar="PATH", help="of the machine; the last one: a directory of this side")
    command("install", _install, "package this checkout's programs (cargo build first) and install them in the machine")
    plug = command(
        "plug", _plug, "plug a USB serial adapter into the machine; its other end is a terminal of this side"
    )
    plug.add_argument("path", type=Path, help="a simulated device's --pty")
    for sub in (plug, command("unplug", _unplug, "pull that adapter out")):
        sub.add_argument("--serial-number", default="LAB0001", help="of the adapter: it names the port in the machine")
    ble = command(
        "ble", _ble, "linked virtual BLE controllers: up [N], down, peripheral PROGRAM [ARG...], peripheral-stop"
    )
    ble.add_argument("argv", nargs=argparse.REMAINDER)
    cut = command("cut", _cut, "pull the plug")
    cut.add_argument("--unflushed", default="none", metavar="none|all|random:SEED", help="what a volatile disk keeps")
    command("boot", _boot, "boot the machine again, on the same disk")
    command("off", _off, "shut the machine down in an orderly way; its disk is kept")
    command("down", _down, "end the machine and delete it")
    command("log", _log, "the machine's console")
    command("dir", _dir, "the machine's directory")
    command("ls", _ls, "the machines of this checkout", is_named=False)
    return parser


def _build(_: argparse.Namespace) -> int:
    print(ensure_image())
    return EXIT_OK


def _build_disk(options: argparse.Namespace) -> int:
    """What `build` runs as root, where it is not root itself."""
    build_disk_for(options.user)
    return EXIT_OK


def _up(options: argparse.Namespace) -> int:
    start(options.name, is_volatile=options.volatile, is_cold=options.cold)
    return EXIT_OK


def _scenarios(options: argparse.Namespace) -> int:
    return runner.run(options)


def _execute(options: argparse.Namespace, argv: list[str]) -> int:
    machine = Machine(options.name)
    assert machine.settings
    streams = {False: sys.stdout.buffer, True: sys.stderr.buffer}

    def show(is_error: bool, data: bytes) -> None:
        streams[is_error].write(data)
        streams[is_error].flush()

    return channel.execute(
        machine.directory,
        argv,
        show,
        user=options.user,
        environment=dict(pair.split("=", 1) for pair in options.env),
        cwd=options.cwd,
        stdin=sys.stdin.buffer if options.stdin else None,
        timeout_s=options.timeout,
    )


def _run(options: argparse.Namespace) -> int:
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise LabError("there is no command to run", "lab run 'systemctl status'")
    return _execute(options, ["/bin/bash", "-c", argv[0]] if len(argv) == 1 else argv)


def _shell(options: argparse.Namespace) -> int:
    if options.argv:
        script = Path(options.argv[0])
        return _execute(options, ["/bin/bash", "-c", script.read_text("utf-8"), script.name, *options.argv[1:]])
    # A line at a time: enough to look around, without a terminal in the guest.
    while True:
        try:
            line = input(f"{options.name}# ")
        except EOFError:
            return EXIT_OK
        if line.strip():
            _execute(options, ["/bin/bash", "-c", line])


def _push(options: argparse.Namespace) -> int:
    *sources, destination = options.paths
    if not sources:
        raise LabError(
            "push wants files and a directory of the machine", "lab push target/debug/autoglmctl /usr/local/bin"
        )
    for source in sources:
        if not source.exists():
            raise LabError(f"there is no {source}", "paths before the last are of this side")
    transfer.push(Machine(options.name), [source.resolve() for source in sources], str(destination))
    return EXIT_OK


def _pull(options: argparse.Namespace) -> int:
    *sources, destination = options.paths
    transfer.pull(Machine(options.name), sources, Path(destination))
    return EXIT_OK


def _install(options: argparse.Namespace) -> int:
    package = product.package()
    machine = Machine(options.name)
    transfer.push(machine, [package], "/root")
    machine.shell(f"dpkg -i --force-confold /root/{package.name}", timeout_s=300)
    note(f"{package.name} is installed: `lab run autoglmctl status`")
    return EXIT_OK


def _plug(options: argparse.Namespace) -> int:
    with Machine(options.name).monitor() as monitor:
        Socket(options.serial_number, options.serial_number, options.path.resolve()).plug(monitor)
    note(
        f"/dev/autoglm-edge/serial-{options.serial_number}-if00-port0 in the machine, once the package is installed there"
    )
    return EXIT_OK


def _unplug(options: argparse.Namespace) -> int:
    with Machine(options.name).monitor() as monitor:
        Socket(options.serial_number, options.serial_number, Path()).unplug(monitor)
    return EXIT_OK


def _ble(options: argparse.Namespace) -> int:
    options.user = options.cwd = options.timeout = None
    options.env, options.stdin = [], False
    return _execute(options, ["/usr/local/bin/lab-ble", *options.argv])


def _cut(options: argparse.Namespace) -> int:
    print(Machine(options.name).cut(options.unflushed))
    return EXIT_OK


def _boot(options: argparse.Namespace) -> int:
    machine = Machine(options.name)
    seconds = machine.boot()
    note(f"{options.name} answers after {seconds:.1f} s and is {machine.wait_for_system()}")
    return EXIT_OK


def _off(options: argparse.Namespace) -> int:
    return EXIT_OK if Machine(options.name).power_off() else EXIT_LAB


def _down(options: argparse.Namespace) -> int:
    Machine(options.name).destroy()
    return EXIT_OK


def _log(options: argparse.Namespace) -> int:
    sys.stdout.write((Machine(options.name).directory / "console.log").read_text("utf-8", errors="replace"))
    return EXIT_OK


def _dir(options: argparse.Namespace) -> int:
    print(Machine(options.name).directory)
    return EXIT_OK


def _ls(_: argparse.Namespace) -> int:
    for machine in existing():
        print(machine.name, "running" if machine.is_running() else "off", machine.directory)
    return EXIT_OK
