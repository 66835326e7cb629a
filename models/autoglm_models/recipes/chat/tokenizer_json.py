"""The tokenizer that the GGUF file describes, as the tokenizer.json that the tokenizers library reads."""

import json

from .gguf_weights import GgufWeights

CONTROL_TOKEN = 3


def tokenizer_json(weights: GgufWeights) -> str:
    """Byte-level BPE with every digit on its own: llama.cpp's pre-tokenizer `smollm`.

    Raises ValueError for any other pre-tokenizer: a wrong split would quietly spoil every answer.
    """
    kind = weights.field("tokenizer.ggml.model"), weights.field("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"the tokenizer is {kind}; this recipe knows ('gpt2', 'smollm')")
    tokens = weights.field("tokenizer.ggml.tokens")
    special = [index for index, kind in enumerate(weights.field("tokenizer.ggml.token_type")) if kind == CONTROL_TOKEN]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special_token(index, tokens[index]) for index in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(add_prefix_space=False)],
        },
        "post_processor": None,
        "decoder": _byte_level(add_prefix_space=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in weights.field("tokenizer.ggml.merges")],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _special_token(index: int, content: str) -> dict:
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _byte_level(*, add_prefix_space: bool) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}
