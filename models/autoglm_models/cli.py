"""The commands. Data goes to stdout, everything else to stderr; exit codes are those of errors.py."""

import argparse
import json
import sys
import time

from .bundles import DEFAULT_BUNDLES, BundleSpec, ensure_bundle, full_faults
from .cachedir import CacheDir
from .environment import MODELS_DIR
from .errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, Absent, SetupError, from_os_error
from .lock import LockInvalid, read_lock
from .progress import Reporter
from .runtime import ensure_runtime

OUTPUT_FORMAT = 1


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    reporter = Reporter()
    try:
        result = options.run(options, reporter)
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
        print(json.dumps({"format": OUTPUT_FORMAT, **result}, indent=1))
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="setup.py", description="Fetches, builds and checks what autoglm-edge needs besides its own code.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print the result on stdout as JSON")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    runtime = commands.add_parser("runtime", parents=[shared], help="ONNX Runtime's shared library")
    runtime.set_defaults(run=_runtime)
    bundles = commands.add_parser("bundles", parents=[shared], help="the default model bundles")
    bundles.add_argument("names", nargs="*", metavar="BUNDLE", help="all of them if none is named")
    bundles.set_defaults(run=_bundles)
    return parser


def _runtime(options: argparse.Namespace, reporter: Reporter) -> dict:
    cache = CacheDir.of_this_user()
    lock = read_lock(MODELS_DIR / "sources.toml")
    with cache.exclusively(reporter):
        library = ensure_runtime(lock["onnxruntime"], cache, reporter)
    return {"runtime": str(library)}


def _bundles(options: argparse.Namespace, reporter: Reporter) -> dict:
    chosen = _chosen(getattr(options, "names", []))
    cache = CacheDir.of_this_user()
    lock = read_lock(MODELS_DIR / "sources.toml")
    with cache.exclusively(reporter):
        places = {spec.name: str(ensure_bundle(spec, lock, cache, reporter)) for spec in chosen}
    return {"bundles": places}


def _chosen(names: list[str]) -> list[BundleSpec]:
    known = {spec.name: spec for spec in DEFAULT_BUNDLES}
    for name in names:
        if name not in known:
            raise Absent(f"there is no bundle {name}", f"known are {', '.join(known)}")
    return [known[name] for name in names] or list(DEFAULT_BUNDLES)
