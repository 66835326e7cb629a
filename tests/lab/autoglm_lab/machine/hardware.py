"""What the machine is made of, as qemu's arguments. A change here makes a new snapshot, for it holds the devices' state.

q35 with two processors and 1 GiB; disks, console and random numbers by virtio; one USB controller, whose sockets start empty; a
network card whose network is the emulator's own: the host is 10.0.2.2, and nothing else is there.
"""

from dataclasses import dataclass
from pathlib import Path

MEMORY_MB = 1024
PROCESSORS = 2
# Commands that can run in the guest at the same time.
CHANNELS = 6
# Size of the scratch disk that carries files in and out.
TRANSFER_BYTES = 2 << 30
MACHINE = "q35,smbus=off,sata=off,usb=off,vmport=off,graphics=off"
# The clock is hpet: a kernel that boots on a busy emulator measures the processor's own clock wrongly (by a factor of nine was seen), and
# keeps it for life; a snapshot would hand it on.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 mitigations=off nokaslr audit=0 nowatchdog no_timer_check 8250.nr_uarts=2 "
    "clocksource=hpet tsc=unstable "
    "cryptomgr.notests random.trust_cpu=on panic=-1 reboot=t systemd.show_status=0 net.ifnames=0"
)
ACCELERATORS = {
    # Every instruction is emulated: ten to thirty times slower, and works everywhere.
    "tcg": ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"],
    "kvm": ["-accel", "kvm", "-cpu", "host"],
}


@dataclass(frozen=True)
class Wiring:
    """Where a machine's files lie and what its ends are connected to."""

    directory: Path
    image: Path
    accelerator: str
    # qemu's -drive options of the root disk, without id.
    root_drive: str
    # Port on the host's loopback that leads to the guest's broker.
    broker_port: int

    def socket(self, name: str) -> Path:
        return self.directory / f"{name}.sock"


def arguments(wiring: Wiring) -> list[str]:
    place = wiring.directory
    command = ["qemu-system-x86_64", "-name", str(place), "-nodefaults", "-no-user-config", "-machine", MACHINE]
    command += [*ACCELERATORS[wiring.accelerator], "-m", str(MEMORY_MB), "-smp", str(PROCESSORS)]
    command += ["-display", "none", "-no-reboot", "-append", KERNEL_ARGUMENTS]
    command += ["-kernel", str(wiring.image / "vmlinux"), "-initrd", str(wiring.image / "initrd")]
    command += _disks(wiring)
    command += ["-device", "virtio-rng-pci"]
    command += ["-netdev", f"user,id=net0,restrict=off,hostfwd=tcp:127.0.0.1:{wiring.broker_port}-:1883"]
    command += ["-device", "virtio-net-pci,id=nic0,netdev=net0,romfile="]
    command += ["-device", "qemu-xhci,id=usb0,p2=8,p3=0"]
    command += ["-chardev", f"file,id=console,append=on,path={place}/console.log", "-serial", "chardev:console"]
    command += ["-qmp", f"unix:{wiring.socket('qmp')},server=on,wait=off", "-pidfile", str(place / "qemu.pid")]
    command += ["-device", f"virtio-serial-pci,max_ports={CHANNELS + 1}"]
    for number in range(CHANNELS):
        command += ["-chardev", f"socket,id=p{number},path={wiring.socket(f'ch{number}')},server=on,wait=off"]
        command += ["-device", f"virtserialport,chardev=p{number},name=lab.{number}"]
    return command


def _disks(wiring: Wiring) -> list[str]:
    transfer = f"if=none,format=raw,cache=writeback,discard=unmap,file={wiring.directory}/transfer.raw"
    return [
        *("-drive", f"id=root,if=none,discard=ignore,{wiring.root_drive}", "-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"id=transfer,{transfer}", "-device", "virtio-blk-pci,drive=transfer,serial=labtransfer"),
    ]
