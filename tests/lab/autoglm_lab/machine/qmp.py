"""qemu's monitor (QMP, docs/interop/qmp-spec.txt of qemu): one connection, one command at a time."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

from ..errors import LabError


class Monitor:
    """A connection to a machine's monitor. Only one can be open at a time: qemu serves one client."""

    def __init__(self, path: Path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw", encoding="utf-8")
        self._lock = threading.Lock()
        self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        """The command's answer. Events are skipped. Raises LabError with qemu's words, or when the machine is gone."""
        with self._lock:
            try:
                self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                self._lines.flush()
                while line := self._lines.readline():
                    answer = json.loads(line)
                    if "return" in answer:
                        return answer["return"]
                    if "error" in answer:
                        raise LabError(
                            f"qemu refuses {command}: {answer['error']['desc']}", "see qemu.log in `lab dir`"
                        )
            except OSError:
                pass
        raise LabError(f"the machine ended before it answered {command}", "see qemu.log in `lab dir`")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
