"""What the image is made from, and the hash of it by which it is kept.

Everything that decides the image's content is either here, in guest/, or in a file of this package: the key covers all of them, so
that a change builds a new image and nobody has to remember to.
"""

# ruff: noqa: SIM905 - long lists are read and changed more easily as text.
import hashlib
import subprocess
from pathlib import Path

from ..places import images, lab_directory

SUITE = "bookworm"
PACKAGES = (
    # the box
    "systemd-sysv dbus udev kmod polkitd procps iproute2 adduser ca-certificates libudev1 libdbus-1-3 libgcc-s1 "
    # what the daemon meets on a box: BlueZ with its emulator, a broker, and the program that probes serial ports
    "bluez bluez-test-tools mosquitto mosquitto-clients modemmanager "
    # the lab's own hands in the guest
    "python3 strace nftables"
).split()
# Size of the root file system; some 600 MB are used.
DISK_SIZE = "3G"

# Kernel modules that no virtual box needs: leaving them out halves the image.
PRUNED_MODULES = (
    "drivers/gpu drivers/media drivers/infiniband drivers/scsi drivers/isdn drivers/staging drivers/ata drivers/net/ethernet "
    "drivers/net/wireless drivers/video drivers/iio drivers/hwmon drivers/nvme drivers/edac drivers/crypto drivers/target "
    "drivers/message drivers/mmc drivers/mtd drivers/platform sound fs/xfs fs/btrfs fs/ocfs2 fs/gfs2 fs/cifs fs/ceph fs/nfs "
    "fs/nfsd fs/f2fs fs/reiserfs fs/jfs fs/afs"
).split()

# Without them the root disk and the lab's hands are not found; everything else is loaded by udev.
INITRD_MODULES = ("virtio_blk", "virtio_pci", "ext4", "crc32c_generic", "virtio_console", "virtio_net")

# Units that cost seconds under emulation and do nothing for a box in a lab.
MASKED_UNITS = (
    "systemd-timesyncd.service systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer "
    "e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer systemd-update-utmp.service getty@tty1.service "
    "serial-getty@ttyS0.service console-getty.service systemd-pstore.service systemd-binfmt.service "
    "systemd-hwdb-update.service ldconfig.service systemd-machine-id-commit.service systemd-firstboot.service getty.target "
    "modprobe@drm.service modprobe@loop.service modprobe@dm_mod.service modprobe@fuse.service modprobe@efi_pstore.service "
    "systemd-logind.service sys-fs-fuse-connections.mount sys-kernel-debug.mount sys-kernel-tracing.mount "
    "dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service modprobe@configfs.service sys-kernel-config.mount "
    "systemd-sysctl.service systemd-sysusers.service systemd-random-seed.service systemd-modules-load.service "
    "systemd-remount-fs.service systemd-tmpfiles-setup-dev.service systemd-update-utmp-runlevel.service "
    "systemd-tmpfiles-clean.timer systemd-ask-password-console.path systemd-ask-password-wall.path systemd-initctl.socket "
    "cryptsetup.target integritysetup.target veritysetup.target"
).split()

# Subsystems of the devices that are announced to udev at boot; what is plugged in later is announced by itself.
COLDPLUGGED = ("pci", "virtio", "net", "tty", "block", "usb")

# Started by the scenarios that want them.
DISABLED_UNITS = ("mosquitto.service", "ModemManager.service", "nftables.service")


def rootfs_key() -> str:
    """Of the plain Debian root: it costs minutes and depends on few things."""
    return _digest(
        [SUITE, *PACKAGES, "pruned", *PRUNED_MODULES, (Path(__file__).parent / "rootfs.py").read_text("utf-8")]
    )


def image_key() -> str:
    """Of everything, the emulator's version and the machine's devices included: the snapshot holds their state."""
    sources = sorted(
        path
        for place in (lab_directory() / "guest", Path(__file__).parent)
        for path in place.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
    sources.append(Path(__file__).parent.parent / "machine" / "hardware.py")
    parts = [f"{path.name}\0{path.read_text('utf-8')}" for path in sources]
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    return _digest([rootfs_key(), version, *parts])


def rootfs_archive() -> Path:
    return images() / f"rootfs-{rootfs_key()}.tar"


def image_directory() -> Path:
    return images() / f"image-{image_key()}"


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
