"""The models' package under the hardened unit: emulation is ten to thirty times slower, so this is about whether, not about how fast."""

import contextlib
import time
from collections.abc import Iterator

from .. import product
from ..errors import LabError
from . import scenario
from .box import UNIT, Box
from .report import Notes

NAME = "autoglm-edge-models"
# The bundles of the package that are waited for: the chat model takes the emulated box half a minute more.
BUNDLES = (("silero-vad", "vad"), ("all-minilm-l6-v2-int8", "embedding"))
# A model that is missing is looked for again after 8 s at most; then its files are hashed, its graph loaded and its probe run.
READY_S = 60
# Every phrase of the things is embedded once, a second each at worst.
UNDERSTANDS_S = 300
SENTENCE = "set the desk lamp to 40 percent"
PATIENCE_S = 300


@contextlib.contextmanager
def _no_models(box: Box) -> Iterator[None]:
    """Afterwards nothing of them is left, for they would keep the processors busy."""
    yield
    box.shell(f"dpkg --purge {NAME} >/dev/null; systemctl restart {UNIT}")


@scenario(bound_s=READY_S)
def the_models_package_is_installed(box: Box, notes: Notes) -> None:
    """Its models, installed while the hardened daemon runs, are found, verified and ready, and words are understood."""
    package = product.models_package()
    box.equip(_no_models)
    said = box.machine.run(["autoglmctl", "chat", SENTENCE], timeout_s=60)
    notes.expect(
        said.status == 8, f"without a model words are refused with status 8: {said.stderr.strip().splitlines()[0]}"
    )
    box.push([package], "/root")
    box.shell(f"dpkg -i /root/{package.name} >/dev/null; rm /root/{package.name}")
    began = time.monotonic()
    notes.did(f"installed {package.name}")
    for name, task in BUNDLES:
        state = _wait_until_ready(box, name, task, began)
        notes.recovered(time.monotonic() - began, f"{name}: {state}")
    mapped = box.shell(f"grep -c 'r-xp.*libonnxruntime' /proc/{box.property('MainPID')}/maps").strip()
    notes.expect(int(mapped) > 0, "ONNX Runtime is mapped as code under MemoryDenyWriteExecute and NoExecPaths")
    exposure = box.shell(f"systemd-analyze security --no-pager {UNIT} | tail -1").strip()
    notes.expect(" 1." in exposure, exposure.replace("→ ", ""))
    began = time.monotonic()
    said = box.machine.run(["autoglmctl", "chat", SENTENCE], timeout_s=120)
    while said.status and time.monotonic() - began < UNDERSTANDS_S:
        time.sleep(2)
        said = box.machine.run(["autoglmctl", "chat", SENTENCE], timeout_s=120)
    notes.expect(
        said.status == 0,
        f"words are understood after {time.monotonic() - began:.0f} s: {(said.stdout + said.stderr).strip()}",
    )
    notes.expect(box.device.executed()[-1:] == [40], "the lamp was set to 40")


def _wait_until_ready(box: Box, name: str, task: str, began: float) -> str:
    while time.monotonic() - began < PATIENCE_S:
        for line in box.shell("autoglmctl status").splitlines():
            words = line.split()
            if words[:3] == [name, task, "ready"]:
                return " ".join(words[3:])
        time.sleep(1)
    raise LabError(f"{name} does not get ready", box.shell("autoglmctl status"))
