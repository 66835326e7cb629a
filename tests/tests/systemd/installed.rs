//! A machine on which our files are installed, for one test: a mount namespace with our users, a system bus and polkit.
//!
//! The bus is dbus-daemon with the distribution's own `system.conf`, polkitd runs as the user that it always has; only the
//! directories that they read are ours. Nobody outside sees any of it, and it ends with the test.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use autoglm_tests::process::wait_for;

use crate::tool::{Said, run, shipped, tool};

const PATIENCE: Duration = Duration::from_secs(20);

/// Mounts our files where the programs look; `$1` are the files, `$2` a directory of ours. alice is in the group
/// autoglm-edge, mallory is not.
const INSTALL: &str = r"
set -eu
files=$1 root=$2
mkdir -p $root/etc $root/system.d $root/services $root/actions $root/rules.d $root/none /run/dbus
cp /etc/passwd /etc/group $root/etc
systemd-sysusers --root=$root $files/autoglm-edge.sysusers >&2
printf 'u alice -\nm alice autoglm-edge\nu mallory -\n' | systemd-sysusers --root=$root - >&2
cp /usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf $files/org.openautoglm.Edge1.conf $root/system.d
cp $files/org.openautoglm.Edge1.service $root/services
cp /usr/share/polkit-1/actions/org.freedesktop.policykit.policy $files/org.openautoglm.edge1.policy $root/actions
cp $files/50-autoglm-edge.rules $root/rules.d
mount --bind $root/etc/passwd /etc/passwd
mount --bind $root/etc/group /etc/group
mount --bind $root/system.d /usr/share/dbus-1/system.d
mount --bind $root/none /etc/dbus-1/system.d
mount --bind $root/services /usr/share/dbus-1/system-services
mount --bind $root/actions /usr/share/polkit-1/actions
mount --bind $root/rules.d /usr/share/polkit-1/rules.d
mount --bind $root/none /etc/polkit-1/rules.d
mount -t tmpfs tmpfs /run/dbus
exec dbus-daemon --system --nofork --nopidfile --nosyslog --print-address
";

/// A process that dies with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether namespaces can be made here; says why not, and fails if they are required.
pub(crate) fn can_install() -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let reason = if !is_root {
        "not root"
    } else if run(Command::new(tool("unshare", "util-linux")).args(["--mount", "true"])).code
        != Some(0)
    {
        "no mount namespace may be made here"
    } else {
        return true;
    };
    println!("SKIPPED: files cannot be installed for this test: {reason}");
    assert!(
        std::env::var_os("AUTOGLM_REQUIRE_ROOT").is_none(),
        "required, but: {reason}"
    );
    false
}

/// The machine.
pub(crate) struct Installed {
    // In the order in which they must end.
    polkit: Option<Running>,
    bus: Running,
    _bus_output: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

impl Installed {
    /// With the files as shipped.
    pub(crate) fn start() -> Self {
        Self::start_with(&shipped())
    }

    /// With the files in `files`.
    pub(crate) fn start_with(files: &Path) -> Self {
        for (name, package) in [
            ("dbus-daemon", "dbus"),
            ("systemd-sysusers", "systemd"),
            ("polkitd", "polkitd"),
        ] {
            tool(name, package);
        }
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("bus.log")).unwrap();
        let mut bus = Command::new(tool("unshare", "util-linux"))
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                INSTALL,
                "install",
            ])
            .args([files, directory.path()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(bus.stdout.take().expect("piped above"));
        let installed = |output, bus| Self {
            polkit: None,
            bus: Running(bus),
            _bus_output: output,
            directory,
        };
        let mut address = String::new();
        output.read_line(&mut address).unwrap();
        let machine = installed(output, bus);
        assert!(
            address.starts_with("unix:"),
            "no bus: {}",
            machine.bus_log()
        );
        machine
    }

    /// What the bus complained about.
    pub(crate) fn bus_log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("bus.log")).unwrap()
    }

    /// A program as root in this machine.
    fn inside(&self) -> Command {
        let mut command = Command::new(tool("nsenter", "util-linux"));
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.bus.0.id()))
            .stdin(Stdio::null());
        command
    }

    /// A program of a user in this machine.
    pub(crate) fn command(&self, user: &str, program: &str) -> Command {
        let mut command = self.inside();
        command.args([
            "setpriv",
            "--reuid",
            user,
            "--regid",
            user,
            "--init-groups",
            program,
        ]);
        command
    }

    /// A call of a bus method as `user`.
    pub(crate) fn call(
        &self,
        user: &str,
        destination: &str,
        path: &str,
        method: &str,
        arguments: &[&str],
    ) -> Said {
        tool("dbus-send", "dbus-bin");
        run(self
            .command(user, "dbus-send")
            .args([
                "--system",
                "--print-reply=literal",
                &format!("--dest={destination}"),
                path,
                method,
            ])
            .args(arguments))
    }

    /// Starts polkitd and waits until it has its name.
    pub(crate) fn start_polkit(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("polkit.log")).unwrap();
        let mut command = self.inside();
        command
            .arg(tool("polkitd", "polkitd"))
            .arg("--no-debug")
            .stdout(Stdio::null())
            .stderr(log);
        self.polkit = Some(Running(command.spawn().unwrap()));
        let has_name = || {
            let (bus, name) = ("org.freedesktop.DBus", "string:org.freedesktop.PolicyKit1");
            let method = "org.freedesktop.DBus.NameHasOwner";
            self.call("root", bus, "/org/freedesktop/DBus", method, &[name])
                .out
                .contains("true")
        };
        wait_for("polkitd", PATIENCE, has_name).unwrap();
    }

    /// Whether polkit allows `user` the action, as `asker` hears it: pkcheck's answer.
    pub(crate) fn pkcheck(&self, asker: &str, action: &str, user: &str) -> Said {
        tool("pkcheck", "polkitd");
        let mut subject = self
            .command(user, "sh")
            .args(["-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .map(Running)
            .unwrap();
        // Before its first word it may still be root on the way to being the user.
        let mut word = String::new();
        BufReader::new(subject.0.stdout.take().expect("piped above"))
            .read_line(&mut word)
            .unwrap();
        assert_eq!(word, "ready\n", "{user} cannot run programs here");
        let process = subject.0.id().to_string();
        run(self
            .command(asker, "pkcheck")
            .args(["--action-id", action, "--process", &process]))
    }

    /// What polkit knows about an action.
    pub(crate) fn pkaction(&self, action: &str) -> String {
        tool("pkaction", "polkitd");
        run(self
            .inside()
            .args(["pkaction", "--verbose", "--action-id", action]))
        .out
    }
}
