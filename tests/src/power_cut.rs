//! A disk whose power can be cut: ext4 on a loop device over nbdfuse over nbdkit, whose `cache` filter is the volatile cache.
//!
//! nbdkit keeps what is written where nobody else sees it, and carries it to the image only when the guest flushes; what was not flushed
//! goes when its power goes, all of it or (see `support/volatile_disk.py`) a random part. Needs root, FUSE, loop devices, and
//! the Debian packages nbdkit, nbdkit-plugin-python, libnbd-bin, fuse3, mount, util-linux and e2fsprogs.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// What becomes of writes that were not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unflushed {
    /// All are lost: the disk is as at its last flush.
    Lost,
    /// Each block of 4 KiB is kept or lost by chance, and some are torn; later writes may survive earlier ones.
    KeptByChance {
        /// Decides which.
        seed: u64,
    },
}

/// A disk image, a mount point and the programs between them.
#[derive(Debug)]
pub struct CuttableDisk {
    directory: PathBuf,
    powered: Option<Powered>,
}

#[derive(Debug)]
struct Powered {
    unflushed: Unflushed,
    nbdkit: Child,
    nbdfuse: Option<Child>,
    loop_device: Option<String>,
}

/// How long any of the programs may take to come up or go down; far above what was seen (0.2 s).
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether power can be cut here; says on the standard output why a test is skipped.
///
/// # Panics
/// When it cannot, and `AUTOGLM_REQUIRE_POWER_CUT` is set.
pub fn is_possible_here() -> bool {
    let Some(missing) = missing_requirement() else {
        return true;
    };
    println!("SKIPPED: power cannot be cut here: {missing}");
    assert!(
        std::env::var_os("AUTOGLM_REQUIRE_POWER_CUT").is_none(),
        "power cuts are required, but: {missing}"
    );
    false
}

/// Why power cuts cannot be made here; `None` when they can.
fn missing_requirement() -> Option<String> {
    // The owner of /proc/self is the effective user.
    if !fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Some("not root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("no {device}"));
        }
    }
    for program in [
        "nbdkit",
        "nbdfuse",
        "losetup",
        "mkfs.ext4",
        "mount",
        "umount",
        "fusermount3",
    ] {
        let found = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        if found.is_err() {
            return Some(format!("no program {program}"));
        }
    }
    let python = Command::new("nbdkit")
        .args(["python", "--dump-plugin"])
        .stdin(Stdio::null())
        .output();
    if !python.is_ok_and(|output| output.status.success()) {
        return Some("nbdkit has no Python plugin".to_owned());
    }
    None
}

impl CuttableDisk {
    /// Makes an image of `bytes` with an ext4 file system in `directory`, unpowered.
    pub fn new(directory: &Path, bytes: u64) -> anyhow::Result<Self> {
        let disk = Self {
            directory: directory.to_owned(),
            powered: None,
        };
        for name in ["mount", "fuse"] {
            fs::create_dir_all(directory.join(name))?;
        }
        fs::File::create(disk.image())?.set_len(bytes)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(disk.image()))?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.directory.join("disk.img")
    }

    /// Where the file system is mounted while there is power.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.join("mount")
    }

    fn fuse(&self) -> PathBuf {
        self.directory.join("fuse")
    }

    /// Brings the disk up and mounts it; the file system replays its journal then.
    pub fn power_on(&mut self, unflushed: Unflushed) -> anyhow::Result<()> {
        let socket = self.directory.join("nbd.sock");
        let _ = fs::remove_file(&socket);
        let arguments = self.cache_arguments(unflushed)?;
        let log = |name: &str| fs::File::create(self.directory.join(name));
        let nbdkit = Command::new("nbdkit")
            .args(["--foreground", "-U"])
            .arg(&socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log("nbdkit.log")?)
            .spawn()
            .context("nbdkit")?;
        // From here on `clear` takes away whatever has come up, however far this gets.
        let powered = self.powered.insert(Powered {
            unflushed,
            nbdkit,
            nbdfuse: None,
            loop_device: None,
        });
        wait_for("nbdkit's socket", || socket.exists())?;
        let fuse = self.directory.join("fuse");
        let nbdfuse = Command::new("nbdfuse")
            .arg(&fuse)
            .arg("--unix")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // It complains, and may abort, when its server is gone: that is the cut.
            .stderr(fs::File::create(self.directory.join("nbdfuse.log"))?)
            .spawn()
            .context("nbdfuse")?;
        powered.nbdfuse = Some(nbdfuse);
        let file = fuse.join("nbd");
        wait_for("nbdfuse's file", || file.exists())?;
        let device = run(Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file))?;
        let device = powered.loop_device.insert(device.trim().to_owned()).clone();
        run(Command::new("mount")
            .args(["-t", "ext4", &device])
            .arg(self.mount_point()))?;
        Ok(())
    }

    /// Cuts the power at once: what was not flushed is gone. The file system stays mounted, dead, until [`CuttableDisk::clear`].
    pub fn cut(&mut self) -> anyhow::Result<()> {
        let control = self.directory.join("control");
        let powered = self.powered.as_mut().context("the disk has no power")?;
        match powered.unflushed {
            Unflushed::Lost => powered.nbdkit.kill()?,
            Unflushed::KeptByChance { seed } => {
                // Without blocking: a plugin that is not there must be an error, not a hang.
                let open = || {
                    fs::File::options()
                        .write(true)
                        .custom_flags(nix::libc::O_NONBLOCK)
                        .open(&control)
                };
                let mut fifo = None;
                wait_for("the plugin's end of the FIFO", || {
                    fifo = open().ok();
                    fifo.is_some()
                })?;
                fifo.context("just opened")?
                    .write_all(format!("cut {seed}\n").as_bytes())?;
            }
        }
        powered.nbdkit.wait()?;
        Ok(())
    }

    fn cache_arguments(&self, unflushed: Unflushed) -> anyhow::Result<Vec<String>> {
        let file = format!("file={}", self.image().display());
        let arguments = match unflushed {
            Unflushed::Lost => [
                "--filter=cache".to_owned(),
                "file".to_owned(),
                file,
                "cache=writeback".to_owned(),
            ],
            Unflushed::KeptByChance { .. } => {
                let control = self.directory.join("control");
                if !control.exists() {
                    nix::unistd::mkfifo(&control, nix::sys::stat::Mode::S_IRWXU)?;
                }
                let plugin = concat!(env!("CARGO_MANIFEST_DIR"), "/support/volatile_disk.py");
                [
                    "python".to_owned(),
                    plugin.to_owned(),
                    file,
                    format!("control={}", control.display()),
                ]
            }
        };
        Ok(arguments.into())
    }

    /// Takes away what a cut left behind; no process may use the mount point any more.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        let Some(mut powered) = self.powered.take() else {
            return Ok(());
        };
        wait_for("umount", || {
            unmounted(Command::new("umount"), &self.mount_point())
        })?;
        if let Some(device) = &powered.loop_device {
            run(Command::new("losetup").args(["-d", device]))?;
        }
        // The loop device lets its file go some time later; only then can the file be unmounted. An nbdfuse that aborted leaves
        // its mount behind, so its end alone is not enough.
        wait_for("unmounting nbdfuse", || {
            let mut fusermount = Command::new("fusermount3");
            fusermount.arg("-u");
            unmounted(fusermount, &self.fuse())
        })?;
        if let Some(mut nbdfuse) = powered.nbdfuse.take() {
            nbdfuse.wait()?;
        }
        // Killing what has ended already is no error that matters.
        let _ = powered.nbdkit.kill();
        powered.nbdkit.wait()?;
        Ok(())
    }
}

/// Tries to unmount; says whether nothing is mounted there any more.
fn unmounted(mut program: Command, directory: &Path) -> bool {
    let is_mounted = || {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let place = directory.display().to_string();
        table
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(&place))
    };
    if is_mounted() {
        let _ = program
            .arg(directory)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    !is_mounted()
}

impl Drop for CuttableDisk {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!(
                "cannot clear the disk in {}: {error:#}",
                self.directory.display()
            );
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits for something that another program does and does not announce.
fn wait_for(what: &str, mut is_done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_done() {
        if begun.elapsed() > STEP_TIMEOUT {
            bail!("{what} did not come within {STEP_TIMEOUT:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits for the end of a writer whose disk is gone: it ends by itself, by an error; one that hangs in the engine is killed.
///
/// # Errors
/// When it cannot be waited for.
pub fn end(writer: &mut Child) -> anyhow::Result<()> {
    let begun = Instant::now();
    while writer.try_wait()?.is_none() {
        if begun.elapsed() > Duration::from_secs(3) {
            writer.kill()?;
            writer.wait()?;
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A number from the environment, `None` without it.
///
/// # Errors
/// When it is no number.
pub fn variable(name: &str) -> anyhow::Result<Option<u64>> {
    let value = std::env::var(name).ok();
    value
        .map(|text| {
            text.parse()
                .with_context(|| format!("{name} is no number: {text}"))
        })
        .transpose()
}
