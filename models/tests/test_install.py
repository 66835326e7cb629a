"""Publishing, stamps and manifests: what is in place is whole, and what is not whole is found."""

import os
import tempfile
import tomllib
import unittest
from pathlib import Path

from autoglm_models.bundle import faults_against_manifest, write_manifest
from autoglm_models.bundles import DEFAULT_BUNDLES
from autoglm_models.cachedir import publish
from autoglm_models.stamps import Stamp
from autoglm_models.toml_text import to_toml

from .places import REAL_CACHE

HEAD_KEYS = ["format", "name", "task", "title", "licence", "precision"]
GRAPH_KEYS = {
    "chat": {"layers", "kv_heads", "head_dim", "vocab_size", "context_tokens", "kv_type"},
    "embedding": {"pooling", "normalize", "dimensions", "max_tokens"},
    "vad": {"sample_rate_hz", "chunk_samples", "context_samples", "state_shape"},
    "stt": {"layers", "heads", "head_dim", "vocab_size", "context_tokens", "sample_rate_hz", "window_samples"}
    | {"position_samples", "languages", "tokens", "decoder"},
    "tts": {
        *("sample_rate_hz", "hop_samples", "speakers", "espeak_voice", "symbols"),
        *("pad", "begin", "end", "scales", "phonemes"),
    },
}
PROBE_KEYS = {
    "chat": {"input_ids", "top", "tolerance"},
    "embedding": {"text", "vector", "cosine_min"},
    "vad": {"samples", "probabilities", "tolerance"},
    "stt": {"samples", "input_ids", "top", "tolerance"},
    "tts": {"text", "ids", "loudness", "frames", "cosine_min"},
}


class InTemporary(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.bundle = self.root / "bundle"
        self.bundle.mkdir()
        (self.bundle / "model.onnx").write_bytes(b"weights")


class Publishing(InTemporary):
    def test_a_replaced_directory_is_whole_and_the_old_one_is_gone(self):
        place = self.root / "models" / "thing"
        place.mkdir(parents=True)
        (place / "leftover").write_text("of another recipe")
        scratch = self.root / "scratch"
        scratch.mkdir()
        publish(self.bundle, place, scratch)
        self.assertEqual([path.name for path in place.iterdir()], ["model.onnx"])


class Stamps(InTemporary):
    def test_an_untouched_directory_has_no_faults(self):
        self.assertEqual(Stamp.of(self.bundle, "r").quick_faults(self.bundle), [])

    def test_a_change_of_size_is_found_quickly(self):
        stamp = Stamp.of(self.bundle, "r")
        (self.bundle / "model.onnx").write_bytes(b"weight")
        self.assertEqual(stamp.quick_faults(self.bundle), ["model.onnx has 6 bytes instead of 7"])

    def test_a_flipped_bit_with_the_old_time_is_found_by_the_full_look(self):
        stamp = Stamp.of(self.bundle, "r")
        status = (self.bundle / "model.onnx").stat()
        (self.bundle / "model.onnx").write_bytes(b"Weights")
        os.utime(self.bundle / "model.onnx", ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertEqual(stamp.full_faults(self.bundle), ["model.onnx does not match its SHA-256"])

    def test_a_copied_cache_with_other_times_is_still_good(self):
        stamp = Stamp.of(self.bundle, "r")
        os.utime(self.bundle / "model.onnx", ns=(1, 1))
        self.assertEqual(stamp.quick_faults(self.bundle), [])

    def test_a_torn_stamp_counts_as_none(self):
        place = self.root / "stamp.json"
        Stamp.of(self.bundle, "r").write(place)
        place.write_text(place.read_text()[:20])
        self.assertIsNone(Stamp.read(place))


class Manifest(InTemporary):
    def test_a_fresh_manifest_fits_its_files(self):
        write_manifest(self.bundle, {"name": "thing"})
        self.assertEqual(faults_against_manifest(self.bundle), [])

    def test_an_unlisted_a_missing_and_a_changed_file_are_each_named(self):
        (self.bundle / "b").write_bytes(b"b")
        write_manifest(self.bundle, {"name": "thing"})
        (self.bundle / "b").unlink()
        (self.bundle / "c").write_bytes(b"c")
        (self.bundle / "model.onnx").write_bytes(b"Weights")
        self.assertEqual(
            faults_against_manifest(self.bundle),
            ["c is not in model.toml", "b is missing", "model.onnx does not match its SHA-256"],
        )

    def test_toml_reads_back_as_it_was_written(self):
        document = {
            "text": 'quotes " and \\ and \n and ü and \x7f',
            "numbers": [1, 2.5, 1e-9, -3],
            "yes": True,
            "origin": [{"package": "a", "sha256": "0"}, {"package": "b", "sha256": "1"}],
            "files": {"model.onnx": {"bytes": 1}, "a b/c": {"bytes": 2}},
            "graph": {"file": "x", "inputs": {"past.{layer}.key": {"type": "f32", "shape": ["batch", 3]}}},
        }
        self.assertEqual(tomllib.loads(to_toml(document)), document)


class InstalledBundles(unittest.TestCase):
    """The bundles that this machine really has."""

    def installed(self):
        import json

        for spec in DEFAULT_BUNDLES:
            place = REAL_CACHE.models / spec.name
            with self.subTest(bundle=spec.name):
                if not place.is_dir():
                    self.skipTest(f"{spec.name} is not built; run setup.py all")
                manifest = tomllib.loads((place / "model.toml").read_text("utf-8"))
                probe = json.loads((place / manifest["probe"]["file"]).read_text("utf-8"))
                yield spec, place, manifest, probe

    def test_every_file_matches_its_manifest(self):
        for _, place, _, _ in self.installed():
            self.assertEqual(faults_against_manifest(place), [])

    def test_every_manifest_has_what_the_daemon_reads(self):
        for spec, _, manifest, probe in self.installed():
            task = manifest["task"]
            self.assertEqual(list(manifest)[: len(HEAD_KEYS)], HEAD_KEYS)
            self.assertEqual(manifest["name"], spec.name)
            self.assertEqual({origin["package"] for origin in manifest["origin"]}, set(spec.packages))
            self.assertEqual(set(manifest["graph"]), {"file", "layout", "inputs", "outputs"} | GRAPH_KEYS[task])
            self.assertEqual(set(probe), PROBE_KEYS[task])
            self.assertEqual("tokenizer" in manifest, task in ("chat", "embedding", "stt"))
            self.assertEqual("template" in manifest, task == "chat")
            for table in ("graph", "tokenizer", "template", "probe"):
                if table in manifest:
                    self.assertIn(manifest[table]["file"], manifest["files"])

    def test_every_parity_limit_stands_beside_its_measure(self):
        for _, _, manifest, _ in self.installed():
            limits = [key for key in manifest["parity"] if key.startswith("limit_")]
            self.assertTrue(limits)
            for key in limits:
                self.assertIn(key.removeprefix("limit_"), manifest["parity"])
