"""Fetching, with the real pip and a folder as its only source."""

import io
import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from autoglm_models.cachedir import CacheDir
from autoglm_models.errors import FetchFailed, HashMismatch
from autoglm_models.fetch import fetch
from autoglm_models.progress import Reporter

from .places import make_wheel, offline_environment, pinned


class Fetch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.links = Path(folder.name) / "links"
        self.links.mkdir()
        self.cache = CacheDir(Path(folder.name) / "cache")
        self.said = io.StringIO()
        self.reporter = Reporter(self.said, {})
        self.wheel = make_wheel(self.links, "little-thing", "1.0", {"little/weights.bin": bytes(range(256)) * 64})
        self.package = pinned(self.wheel, "little-thing", "1.0")
        environment = mock.patch.dict(os.environ, offline_environment(self.links))
        environment.start()
        self.addCleanup(environment.stop)

    def fetch(self, package=None) -> Path:
        with self.cache.exclusively(self.reporter):
            return fetch(package or self.package, self.cache, self.reporter)

    def test_a_pinned_wheel_arrives_unchanged_and_says_what_and_why(self):
        self.assertEqual(self.fetch().read_bytes(), self.wheel.read_bytes())
        self.assertIn("little-thing 1.0, 0.0 MB, MIT: a test", self.said.getvalue())

    def test_a_second_fetch_needs_no_source(self):
        self.fetch()
        self.wheel.unlink()
        self.assertTrue(self.fetch().exists())

    def test_another_build_of_the_same_version_is_refused_and_not_kept(self):
        make_wheel(self.links, "little-thing", "1.0", {"little/weights.bin": b"tampered"})
        with self.assertRaisesRegex(HashMismatch, "little-thing 1.0"):
            self.fetch()
        self.assertFalse(self.cache.downloads.exists() and any(self.cache.downloads.iterdir()))

    def test_a_damaged_download_is_fetched_again(self):
        place = self.fetch()
        data = bytearray(place.read_bytes())
        data[100] ^= 1
        place.write_bytes(data)
        self.assertEqual(self.fetch().read_bytes(), self.wheel.read_bytes())
        self.assertIn("damaged", self.said.getvalue())

    def test_no_source_is_an_error_that_names_package_version_and_remedy(self):
        self.wheel.unlink()
        with self.assertRaisesRegex(FetchFailed, "little-thing 1.0") as caught:
            self.fetch()
        self.assertIn("pip config list", caught.exception.hint)

    def test_an_unreachable_index_is_the_same_error(self):
        # Port 1 of this machine: refused at once, no name is looked up.
        unreachable = {
            "PIP_NO_INDEX": "0",
            "PIP_FIND_LINKS": "",
            "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
            "PIP_RETRIES": "0",
        }
        with mock.patch.dict(os.environ, unreachable), self.assertRaisesRegex(FetchFailed, "little-thing 1.0"):
            self.fetch()

    def test_a_version_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(FetchFailed, "little-thing 9.9"):
            self.fetch(replace(self.package, version="9.9"))
