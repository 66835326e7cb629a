#!/usr/bin/env python3
"""Makes the Debian packages: `make_deb.py --binaries target/release --into target/deb`. Prints the paths of what it made.

autoglm-edge is the daemon with its command line and service files; autoglm-edge-models, with `--models`, is ONNX Runtime and the
bundles from the set-up's cache. Needs dpkg-deb, strip and readelf; nothing is compiled here. Where each file belongs: README.md above.
"""

import argparse
import gzip
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVICE_FILES = HERE.parent
ROOT = SERVICE_FILES.parent
BINARIES = ("autoglm-edged", "autoglmctl")
# As README.md's table has it.
PLACES = {
    "autoglm-edged.service": "usr/lib/systemd/system/autoglm-edged.service",
    "autoglm-edge.sysusers": "usr/lib/sysusers.d/autoglm-edge.conf",
    "org.openautoglm.Edge1.conf": "usr/share/dbus-1/system.d/org.openautoglm.Edge1.conf",
    "org.openautoglm.Edge1.service": "usr/share/dbus-1/system-services/org.openautoglm.Edge1.service",
    "org.openautoglm.edge1.policy": "usr/share/polkit-1/actions/org.openautoglm.edge1.policy",
    "50-autoglm-edge.rules": "usr/share/polkit-1/rules.d/50-autoglm-edge.rules",
    "70-autoglm-edge-serial.rules": "usr/lib/udev/rules.d/70-autoglm-edge-serial.rules",
    "config.example.toml": "etc/autoglm-edge/config.toml",
    "README.md": "usr/share/doc/autoglm-edge/README.service.md",
}
# Debian 12's packages, by the libraries that the binaries ask for.
LIBRARIES = {
    "libc.so.6": None,
    "libm.so.6": None,
    "ld-linux-x86-64.so.2": None,
    "ld-linux-aarch64.so.1": None,
    "libgcc_s.so.1": "libgcc-s1",
    "libudev.so.1": "libudev1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libstdc++.so.6": "libstdc++6",
    # Parts of libc6, which older libraries still name.
    "libdl.so.2": None,
    "librt.so.1": None,
    "libpthread.so.0": None,
}
# Below the first line, each line with a space before it.
DESCRIPTIONS = {
    "autoglm-edge": (
        " It keeps serial, Bluetooth and MQTT devices connected, each a Thing with\n"
        " properties, actions and events, and runs quantised models on the box's own\n"
        " processors, so that what is said to it happens on its devices, offline."
    ),
    "autoglm-edge-models": (
        " The shared library of ONNX Runtime and the quantised models that the edge\n"
        " daemon runs by default, each with its origin and licence in its model.toml."
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, required=True, help="directory of the built programs")
    parser.add_argument("--into", type=Path, required=True, help="directory for the packages")
    parser.add_argument(
        "--models", type=Path, metavar="CACHE", help="also package ONNX Runtime and the bundles of this cache"
    )
    parser.add_argument("--uncompressed", action="store_true", help="larger and quickly made, for one's own machines")
    options = parser.parse_args()
    for name in BINARIES:
        if not (options.binaries / name).exists():
            print(f"error: there is no {options.binaries / name}\nhint: make build", file=sys.stderr)
            return 1
    options.into.mkdir(parents=True, exist_ok=True)
    architecture = _said("dpkg", "--print-architecture")
    with tempfile.TemporaryDirectory(dir=options.into, prefix="tree-") as tree:
        stage, version = Path(tree) / "daemon", _version()
        depends = _stage_daemon(stage, options.binaries)
        _control(stage, "autoglm-edge", version, architecture, depends, "Edge daemon: devices and models of a box")
        print(
            _pack(
                stage,
                options.into / f"autoglm-edge_{version}_{architecture}.deb",
                *(("-Znone",) if options.uncompressed else ("-Zxz", "-z3")),
            )
        )
        if options.models:
            stage = Path(tree) / "models"
            depends = _stage_models(stage, options.models)
            summary = "ONNX Runtime and models for the edge daemon"
            _control(stage, "autoglm-edge-models", version, architecture, depends, summary)
            # Weights hardly get smaller.
            quickly = ("-Znone",) if options.uncompressed else ("-Zgzip", "-z1")
            print(_pack(stage, options.into / f"autoglm-edge-models_{version}_{architecture}.deb", *quickly))
    return 0


def _stage_daemon(stage: Path, binaries: Path) -> str:
    """Lays the files out; returns what the package depends on."""
    for name in BINARIES:
        place = stage / "usr/bin" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "-o", str(place), str(binaries / name)], check=True)
        place.chmod(0o755)
    for name, place in PLACES.items():
        _copy(SERVICE_FILES / name, stage / place)
    for path in (SERVICE_FILES / "dbus-interfaces").iterdir():
        _copy(path, stage / "usr/share/dbus-1/interfaces" / path.name)
    documents = stage / "usr/share/doc/autoglm-edge"
    _copy(HERE / "copyright", documents / "copyright")
    _compress(_changelog("autoglm-edge"), documents / "changelog.gz")
    tool = stage / "usr/bin/autoglmctl"
    pages = stage / "usr/share/man/pages"
    pages.mkdir(parents=True)
    subprocess.run([str(tool), "man", str(pages)], check=True, stdout=subprocess.DEVNULL)
    for page in list(pages.iterdir()):
        section = stage / "usr/share/man" / f"man{page.suffix[1:]}"
        section.mkdir(exist_ok=True)
        _compress(page.read_bytes(), section / f"{page.name}.gz")
        page.unlink()
    pages.rmdir()
    completions = stage / "usr/share/bash-completion/completions/autoglmctl"
    completions.parent.mkdir(parents=True)
    completions.write_text(_said(str(tool), "completions", "bash") + "\n", "utf-8")
    control = stage / "DEBIAN"
    control.mkdir()
    for name in ("postinst", "prerm", "postrm"):
        shutil.copy(HERE / name, control / name)
        (control / name).chmod(0o755)
    (control / "conffiles").write_text("/etc/autoglm-edge/config.toml\n", "ascii")
    return _depends([stage / "usr/bin" / name for name in BINARIES], "systemd", "udev", "dbus")


def _stage_models(stage: Path, cache: Path) -> str:
    """The same for the runtime and the bundles: whole ones, since the set-up puts them in place at once."""
    place = stage / "usr/lib/autoglm-edge"
    libraries = sorted(cache.glob("runtime/onnxruntime-*/libonnxruntime.so"))
    bundles = sorted(path.parent for path in cache.glob("models/*/model.toml"))
    if not libraries or not bundles:
        raise SystemExit(
            f"error: there is no {'bundle' if libraries else 'ONNX Runtime'} in {cache}\nhint: make models"
        )
    for directory in [libraries[-1].parent, *bundles]:
        shutil.copytree(directory, place / directory.parent.name / directory.name)
    for path in stage.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    notice = stage / "usr/share/doc/autoglm-edge-models/copyright"
    notice.parent.mkdir(parents=True)
    notice.write_text(_licences(libraries[-1].parent, bundles), "utf-8")
    notice.chmod(0o644)
    _compress(_changelog("autoglm-edge-models"), notice.with_name("changelog.gz"))
    (stage / "DEBIAN").mkdir()
    return _depends([libraries[-1]])


def _licences(runtime: Path, bundles: list[Path]) -> str:
    """What each part is, whose it is, and under which licence: from the bundles' own words."""
    parts = [f"{runtime.name}: see LICENSE and ThirdPartyNotices.txt in /usr/lib/autoglm-edge/runtime/{runtime.name}\n"]
    for bundle in bundles:
        model = tomllib.loads((bundle / "model.toml").read_text("utf-8"))
        origins = [f"{one['package']} {one['version']} ({one['registry']})" for one in model.get("origin", ())]
        parts.append(
            f"{model['name']}: {model['title']}\n  licence: {model['licence']}\n  made from: {', '.join(origins)}\n"
        )
    return "\n".join(parts)


def _control(stage: Path, package: str, version: str, architecture: str, depends: str, summary: str) -> None:
    size_kb = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file()) // 1024
    fields = {
        "Package": package,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "autoglm-edge developers <edge@openautoglm.org>",
        "Installed-Size": str(size_kb),
        "Section": "net",
        "Priority": "optional",
        "Depends": depends,
        # Who asks over the bus is judged by polkit; without it only root and the service user are served.
        # The voice's phonemes are espeak-ng's.
        "Recommends": "polkitd, autoglm-edge-models, espeak-ng" if package == "autoglm-edge" else "autoglm-edge",
        "Description": f"{summary}\n{DESCRIPTIONS[package]}",
    }
    text = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
    (stage / "DEBIAN/control").write_text(text, "utf-8")


def _pack(stage: Path, place: Path, *compression: str) -> Path:
    # The stage is a temporary directory, 0700; the package's root must not be.
    stage.chmod(0o755)
    command = ["dpkg-deb", "--root-owner-group", *compression, "--build", str(stage), str(place)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return place


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, place)
    place.chmod(0o644)


def _changelog(package: str) -> bytes:
    """Both packages have the same."""
    return (HERE / "changelog").read_text("utf-8").replace("autoglm-edge (", f"{package} (").encode()


def _compress(text: bytes, place: Path) -> None:
    """As Debian wants pages and changelogs; without a time in it, a package is the same however often it is made."""
    place.write_bytes(gzip.compress(text, 9, mtime=0))
    place.chmod(0o644)


def _depends(files: list[Path], *besides: str) -> str:
    """The packages of the libraries that programs or libraries ask for, and others that are known."""
    needed = {package for file in files for package in _packages(file)}
    return ", ".join([f"libc6 (>= 2.{max(map(_libc_minor, files))})", *sorted(needed), *besides])


def _packages(binary: Path) -> set[str]:
    names = re.findall(r"\(NEEDED\).*\[(.+)\]", _said("readelf", "-d", str(binary)))
    if unknown := [name for name in names if name not in LIBRARIES]:
        raise SystemExit(
            f"error: {binary.name} needs {', '.join(unknown)}\nhint: name the package in {Path(__file__).name}"
        )
    return {package for name in names if (package := LIBRARIES[name])}


def _libc_minor(binary: Path) -> int:
    return max(int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", binary.read_bytes()))


def _version() -> str:
    found = re.search(
        r'^\[workspace\.package\]\nversion = "(.+)"', (ROOT / "Cargo.toml").read_text("utf-8"), re.MULTILINE
    )
    assert found, "the workspace has a version"
    told = (HERE / "changelog").read_text("utf-8").split("(", 1)[1].split(")", 1)[0]
    if told != found[1]:
        raise SystemExit(
            f"error: the version is {found[1]}, and debian/changelog begins with {told}\nhint: say there what changed"
        )
    return found[1]


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
