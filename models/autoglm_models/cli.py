"""The commands. Data goes to stdout, everything else to stderr; exit codes are those of errors.py."""

import argparse
import json
import os
import signal
from dataclasses import dataclass

from .bundles import DEFAULT_BUNDLES, FURTHER_BUNDLES, PEER_BUNDLE, TEST_BUNDLES, BundleSpec, ensure_bundle
from .cachedir import CacheDir
from .environment import MODELS_DIR, ensure_build_tools, ensure_lab_tools, ensure_peer_tools, ensure_test_tools
from .errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Absent,
    HashMismatch,
    SetupError,
    from_os_error,
)
from .inspection import Finding, State, inspect_all, table
from .lock import LockInvalid, Package, read_lock
from .peers import ensure_peer_chat, ensure_peer_speech
from .progress import Reporter
from .providers import ensure_test_providers
from .runtime import ensure_runtime
from .system import DEFAULT_GROUPS, GROUPS, ensure, missing_of, read_wanted

OUTPUT_FORMAT = 1


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    # A terminated setup ends its recipe and clears its scratch the same way as an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reporter = Reporter()
    try:
        outcome = options.run(options, reporter)
    except SetupError as error:
        reporter.failure(str(error), error.hint)
        return error.exit_code
    except LockInvalid as error:
        reporter.failure(str(error), "mend models/sources.toml")
        return EXIT_USAGE
    except OSError as error:
        if typed := from_os_error(error):
            reporter.failure(str(typed), typed.hint)
            return typed.exit_code
        raise
    except KeyboardInterrupt:
        reporter.say("\ninterrupted; nothing half-done was left in place")
        return EXIT_INTERRUPTED
    if options.json:
        print(json.dumps({"format": OUTPUT_FORMAT, **outcome.document}, indent=1))
    elif outcome.text:
        print(outcome.text)
    if outcome.failure:
        reporter.failure(str(outcome.failure), outcome.failure.hint)
        return outcome.failure.exit_code
    return EXIT_OK


@dataclass(frozen=True)
class Outcome:
    """What a command found: for programs, for people, and whether it was what should be."""

    document: dict
    text: str = ""
    failure: SetupError | None = None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="setup.py", description="Fetches, builds and checks what autoglm-edge needs besides its own code."
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print the result on stdout as JSON")
    grouped = argparse.ArgumentParser(add_help=False)
    grouped.add_argument(
        "--groups",
        nargs="+",
        choices=GROUPS,
        default=list(DEFAULT_GROUPS),
        help=f"which Debian packages (default: {' '.join(DEFAULT_GROUPS)})",
    )
    grouped.add_argument("--no-install", action="store_true", help="only say which Debian packages are missing")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    system = commands.add_parser(
        "system", parents=[shared, grouped], help="the Debian packages that build, demo and tests need"
    )
    system.set_defaults(run=_system)
    runtime = commands.add_parser("runtime", parents=[shared], help="ONNX Runtime's shared library")
    runtime.set_defaults(run=_runtime)
    bundles = commands.add_parser("bundles", parents=[shared], help="the default model bundles")
    bundles.add_argument("names", nargs="*", metavar="BUNDLE", help="the default ones if none is named")
    bundles.set_defaults(run=_bundles)
    test_tools = commands.add_parser(
        "test-tools",
        parents=[shared],
        help="what the tests need besides: foreign devices (pymodbus), execution providers, a further bundle",
    )
    test_tools.set_defaults(run=_test_tools)
    peers = commands.add_parser(
        "peers", parents=[shared], help="other engines, and the chat model for them, for `make bench-llm`"
    )
    peers.set_defaults(run=_peers)
    lab_tools = commands.add_parser("lab-tools", parents=[shared], help="Bluetooth devices for the lab (bumble)")
    lab_tools.set_defaults(run=_lab_tools)
    everything = commands.add_parser(
        "all", parents=[shared, grouped], help="system, runtime and bundles; mends what is damaged"
    )
    everything.set_defaults(run=_all, names=[])
    check = commands.add_parser("check", parents=[shared], help="hash everything that is installed; changes nothing")
    check.set_defaults(run=_check)
    return parser


def _system(options: argparse.Namespace, reporter: Reporter) -> Outcome:
    wanted = read_wanted(MODELS_DIR / "system-packages.toml", tuple(options.groups))
    missing = []
    if options.no_install:
        missing = missing_of(wanted)
        for package in missing:
            reporter.say(f"missing: {package.name} ({package.group}): {package.reason}")
    else:
        ensure(wanted, reporter)
    return Outcome(
        {"system": {"wanted": [package.name for package in wanted], "missing": [package.name for package in missing]}}
    )


def _runtime(_options: argparse.Namespace, reporter: Reporter) -> Outcome:
    cache, lock = CacheDir.of_this_user(), _lock()
    with cache.exclusively(reporter):
        library = ensure_runtime(lock["onnxruntime"], cache, reporter)
    return Outcome({"runtime": str(library)})


def _bundles(options: argparse.Namespace, reporter: Reporter) -> Outcome:
    chosen = _chosen(options.names)
    cache, lock = CacheDir.of_this_user(), _lock()
    with cache.exclusively(reporter):
        places = {spec.name: str(ensure_bundle(spec, lock, cache, reporter)) for spec in chosen}
    return Outcome({"bundles": places})


def _test_tools(_options: argparse.Namespace, reporter: Reporter) -> Outcome:
    cache, lock = CacheDir.of_this_user(), _lock()
    with cache.exclusively(reporter):
        place = ensure_test_tools(cache, reporter)
        providers = ensure_test_providers(lock, cache, reporter)
        engine = ensure_peer_chat(lock, cache, reporter)
        for spec in _chosen(list(TEST_BUNDLES)):
            ensure_bundle(spec, lock, cache, reporter)
    return Outcome(
        {
            "test-tools": str(place),
            "test-providers": {name: str(place) for name, place in providers.items()},
            "engine-model": str(engine),
        }
    )


def _peers(_options: argparse.Namespace, reporter: Reporter) -> Outcome:
    cache, lock = CacheDir.of_this_user(), _lock()
    (model,) = _chosen([PEER_BUNDLE])
    with cache.exclusively(reporter):
        tools = [
            ensure_peer_tools(cache, reporter),
            ensure_build_tools(cache, reporter),
            ensure_test_tools(cache, reporter),
        ]
        chat = ensure_peer_chat(lock, cache, reporter)
        place = ensure_bundle(model, lock, cache, reporter)
        speech = ensure_peer_speech(lock, cache, reporter)
        # Where the bench looks; whole or not at all.
        unfinished = cache.scratch / "python-path"
        unfinished.write_text(os.pathsep.join(map(str, tools)), "utf-8")
        unfinished.replace(cache.peer_tools / "python-path")
    return Outcome(
        {
            "peers": {
                "python_path": [str(path) for path in tools],
                "model": str(place),
                "chat": str(chat),
                "speech": str(speech),
            }
        }
    )


def _lab_tools(_options: argparse.Namespace, reporter: Reporter) -> Outcome:
    cache = CacheDir.of_this_user()
    with cache.exclusively(reporter):
        place = ensure_lab_tools(cache, reporter)
    return Outcome({"lab-tools": str(place)})


def _all(options: argparse.Namespace, reporter: Reporter) -> Outcome:
    outcomes = [step(options, reporter) for step in (_system, _runtime, _bundles)]
    return Outcome({key: value for outcome in outcomes for key, value in outcome.document.items()})


def _check(_options: argparse.Namespace, _reporter: Reporter) -> Outcome:
    findings = inspect_all(_lock(), CacheDir.of_this_user())
    return Outcome({"check": [finding.to_json() for finding in findings]}, table(findings), _failure_of(findings))


def _failure_of(findings: list[Finding]) -> SetupError | None:
    """Damage outweighs absence: it is the one that a person must know of."""
    for state, kind in ((State.DAMAGED, HashMismatch), (State.ABSENT, Absent), (State.OUTDATED, Absent)):
        names = [finding.name for finding in findings if finding.state is state]
        if names:
            return kind(f"{state.value}: {', '.join(names)}", "python3 models/setup.py all")
    return None


def _lock() -> dict[str, Package]:
    return read_lock(MODELS_DIR / "sources.toml")


def _chosen(names: list[str]) -> list[BundleSpec]:
    known = {spec.name: spec for spec in DEFAULT_BUNDLES + FURTHER_BUNDLES}
    for name in names:
        if name not in known:
            raise Absent(f"there is no bundle {name}", f"known are {', '.join(known)}")
    return [known[name] for name in names] or list(DEFAULT_BUNDLES)
