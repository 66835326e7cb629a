"""sources.toml is read strictly: a half-read lock would be a half-checked download."""

import tempfile
import unittest
from pathlib import Path

from autoglm_models.bundles import DEFAULT_BUNDLES
from autoglm_models.errors import FetchFailed
from autoglm_models.lock import LockInvalid, read_lock
from autoglm_models.providers import MACHINE, PACKAGES

from .places import MODELS_DIR

GOOD = """
[[package]]
name = "thing"
version = "1.0"
licence = "MIT"
purpose = "a test"
[[package.wheel]]
machine = "riscv64"
filename = "thing-1.0-py3-none-any.whl"
sha256 = "{digest}"
bytes = 10
"""
DIGEST = "0123456789abcdef" * 4


def lock_of(text: str):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "sources.toml"
        place.write_text(text)
        return read_lock(place)


class Lock(unittest.TestCase):
    def test_the_committed_lock_is_valid_and_holds_what_every_bundle_names(self):
        lock = read_lock(MODELS_DIR / "sources.toml")
        named = {name for spec in DEFAULT_BUNDLES for name in spec.packages} | {"onnxruntime"}
        self.assertEqual(named | set(PACKAGES.values()), set(lock))

    def test_the_providers_for_the_tests_are_pinned_down_to_each_library(self):
        lock = read_lock(MODELS_DIR / "sources.toml")
        for package in PACKAGES.values():
            members = lock[package].wheel_for(MACHINE).members
            self.assertTrue(members, package)
            # They are extracted to these paths.
            self.assertFalse([name for name in members if name.startswith("/") or ".." in name], package)

    def test_the_runtime_is_pinned_for_both_processors_down_to_its_library(self):
        runtime = read_lock(MODELS_DIR / "sources.toml")["onnxruntime"]
        for machine in ("x86_64", "aarch64"):
            self.assertTrue(runtime.wheel_for(machine).members, machine)

    def test_a_digest_that_is_no_sha256_is_refused(self):
        for digest in ("", "0" * 63, "G" * 64, DIGEST.upper()):
            with self.assertRaises(LockInvalid, msg=digest):
                lock_of(GOOD.format(digest=digest))

    def test_an_unknown_key_is_refused(self):
        with self.assertRaisesRegex(LockInvalid, "thing"):
            lock_of(GOOD.format(digest=DIGEST) + 'colour = "red"\n')

    def test_a_missing_key_is_refused(self):
        with self.assertRaisesRegex(LockInvalid, "thing"):
            lock_of(GOOD.format(digest=DIGEST).replace("bytes = 10\n", ""))

    def test_a_file_name_that_leaves_the_folder_is_refused(self):
        with self.assertRaises(LockInvalid):
            lock_of(GOOD.format(digest=DIGEST).replace("thing-1.0-py3", "../thing-1.0-py3"))

    def test_a_package_listed_twice_is_refused(self):
        with self.assertRaisesRegex(LockInvalid, "twice"):
            lock_of(GOOD.format(digest=DIGEST) * 2)

    def test_an_unpinned_processor_is_named_with_the_pinned_ones(self):
        with self.assertRaisesRegex(FetchFailed, "x86_64.*riscv64"):
            lock_of(GOOD.format(digest=DIGEST))["thing"].wheel_for("x86_64")

    def test_every_build_requirement_is_pinned_with_hashes(self):
        text = (MODELS_DIR / "build-requirements.txt").read_text().replace("\\\n", "")
        for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
            self.assertRegex(line, r"^[A-Za-z0-9_-]+==[0-9.]+( +--hash=sha256:[0-9a-f]{64})+$")
