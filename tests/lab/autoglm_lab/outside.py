"""The fleet's broker on this side of the network, for a box whose power is cut: it keeps what it knows.

The box reaches it as in the field, by TLS 1.3 with a certificate of its own; the operator beside it in the clear.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .errors import LabError
from .machine.vm import free_port
from .traffic import start

# Also of the broker in the box. A command's answer must not wait for more to send.
COMMON = "allow_anonymous true\nset_tcp_nodelay true\nmax_packet_size 1048576\n"
# By TLS; whoever shows a certificate of our authority may do everything.
GUARDED = "listener {port} 127.0.0.1\ncafile {place}/ca.pem\ncertfile {place}/broker.pem\nkeyfile {place}/broker.key\n"
GUARDED += "require_certificate true\ntls_version tlsv1.3\n"
# This side, as the box's network has it (machine/hardware.py); its name there is in /etc/hosts (image/disk.py).
NAME, ADDRESS = "outside", "10.0.2.2"
CERTIFICATES = ("ca.pem", "box.pem", "box.key")


class OutsideBroker:
    """mosquitto with two doors, from its making until `close`."""

    def __init__(self, directory: Path):
        self._place = directory / "broker"
        self._place.mkdir()
        self.clear_port, self._guarded_port = free_port(), free_port()
        _certify(self._place)
        # As root it would go on as a user who may not read our keys.
        config = f"user root\nlistener {self.clear_port} 127.0.0.1\n{COMMON}" + GUARDED.format(
            port=self._guarded_port, place=self._place
        )
        (self._place / "mosquitto.conf").write_text(config, "utf-8")
        command = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
        if not command:
            raise LabError("there is no mosquitto on this side", "python3 models/setup.py system --groups demo")
        with open(self._place / "mosquitto.log", "ab") as log:
            self._process = start(
                [command, "-c", str(self._place / "mosquitto.conf")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for port in (self.clear_port, self._guarded_port):
            self._wait_for(port)

    @property
    def url(self) -> str:
        """What the box calls it."""
        return f"mqtts://{NAME}:{self._guarded_port}"

    def certificates(self) -> list[Path]:
        """What the box needs: the authority's certificate, its own, and the key to it."""
        return [self._place / name for name in CERTIFICATES]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_for(self, port: int) -> None:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        words = (self._place / "mosquitto.log").read_text("utf-8", errors="replace")[-800:]
        raise LabError(f"mosquitto did not come up on this side: {words}", "run mosquitto by hand")


def _certify(place: Path) -> None:
    """An authority of our own, and certificates of it for the broker and the box, for two days."""
    for name in ("ca", "broker", "box"):
        key, request = str(place / f"{name}.key"), str(place / f"{name}.csr")
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        _openssl("req", "-new", "-key", key, "-subj", f"/CN=autoglm-lab {name}", "-out", request)
        extensions = place / f"{name}.ext"
        extensions.write_text(
            f"basicConstraints=critical,CA:{'TRUE' if name == 'ca' else 'FALSE'}\n"
            f"subjectAltName=DNS:{NAME if name == 'broker' else name},IP:{ADDRESS}\n",
            "ascii",
        )
        signer = ["-signkey", key] if name == "ca" else ["-CA", f"{place}/ca.pem", "-CAkey", f"{place}/ca.key"]
        serial = [] if name == "ca" else ["-CAcreateserial"]
        issued = ["-days", "2", "-extfile", str(extensions), "-out", str(place / f"{name}.pem")]
        _openssl("x509", "-req", "-in", request, *signer, *serial, *issued)


def _openssl(*arguments: str) -> None:
    try:
        said = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LabError(
            "there is no openssl for the broker's certificates", "python3 models/setup.py system --groups lab"
        ) from None
    if said.returncode:
        raise LabError(f"openssl {arguments[0]} failed: {said.stderr.strip()[-500:]}", "run it by hand")
