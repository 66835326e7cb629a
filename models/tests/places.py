"""Where the tests find the real cache, and how they make small packages that the real pip can fetch offline."""

import base64
import hashlib
import os
import sys
import zipfile
from pathlib import Path

from autoglm_models.cachedir import CacheDir
from autoglm_models.environment import NO_TELEMETRY
from autoglm_models.hashing import sha256_of
from autoglm_models.lock import Package, Wheel

MODELS_DIR = Path(__file__).resolve().parent.parent
SETUP = MODELS_DIR / "setup.py"
REAL_CACHE = CacheDir.of_this_user()


def make_wheel(folder: Path, name: str, version: str, contents: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, of plain files."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files = {
        **contents,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    place = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return place


def pinned(wheel: Path, name: str, version: str) -> Package:
    return Package(name, version, "MIT", "a test", (Wheel("any", wheel.name, sha256_of(wheel), wheel.stat().st_size),))


def offline_environment(links: Path, **changes: str) -> dict[str, str]:
    """This process's environment with a pip that sees one folder and no index."""
    return {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "NO_COLOR": "1", **changes}


def use_build_tools() -> bool:
    """Puts the recipes' packages on the path; False when they are not installed."""
    os.environ.update(NO_TELEMETRY)
    installed = sorted(REAL_CACHE.build_tools.glob(f"python{sys.version_info[0]}.{sys.version_info[1]}-*"))
    if installed and str(installed[-1]) not in sys.path:
        sys.path.insert(0, str(installed[-1]))
    return bool(installed)
