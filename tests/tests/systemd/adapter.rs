//! USB serial adapters as the kernel shows them in /sys, for udev's own rules and builtins to read.
//!
//! The files hold what real adapters of these kinds report; `SYSTEMD_DEVICE_VERIFY_SYSFS=0` lets libudev accept a directory
//! that is no real sysfs. /dev and /run/udev are empty and private, so nothing of the machine is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::tool::{run, shipped, tool};

/// Class, subclass and protocol of a USB interface.
type Interface = (u8, u8, u8);

/// A device on the first USB socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adapter {
    /// `ttyUSB0` or `ttyACM0`: its first interface's port.
    pub(crate) node: &'static str,
    /// The kernel's driver.
    pub(crate) driver: &'static str,
    /// Vendor and product.
    pub(crate) id: (u16, u16),
    /// Serial number, if it has one.
    pub(crate) serial: Option<&'static str>,
    /// Its interfaces.
    pub(crate) interfaces: &'static [Interface],
}

/// What udev made of it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The device's properties.
    pub(crate) properties: BTreeMap<String, String>,
    /// Group and mode of the node, as `stat -c '%G %a'`.
    pub(crate) access: String,
}

impl Seen {
    /// Names under /dev/autoglm-edge, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let links = self
            .properties
            .get("DEVLINKS")
            .map(String::as_str)
            .unwrap_or_default();
        let mut names: Vec<_> = links
            .split(' ')
            .filter_map(|link| link.strip_prefix("/dev/autoglm-edge/"))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    /// Whether ModemManager is told to leave it alone.
    pub(crate) fn is_hidden_from_modem_manager(&self) -> bool {
        self.properties
            .get("ID_MM_DEVICE_IGNORE")
            .is_some_and(|value| value == "1")
    }
}

const PLUG: &str = r"
set -eu
root=$1 rules=$2 device=$3 node=$4 major=$5
mkdir -p $root/dev /run/udev
mount -t tmpfs tmpfs $root/dev
mknod $root/dev/$node c $major 0
mknod -m 666 $root/dev/null c 1 3
mount -t tmpfs tmpfs /run/udev
mkdir /run/udev/rules.d
cp $rules /run/udev/rules.d
mount --bind $root/sys /sys
mount --bind $root/dev /dev
SYSTEMD_DEVICE_VERIFY_SYSFS=0 udevadm test --action=add $device
echo STAT=$(stat -c '%G %a' /dev/$node)
";

fn major(node: &str) -> &'static str {
    match node.trim_end_matches(|last: char| last.is_ascii_digit()) {
        "ttyUSB" => "188",
        "ttyACM" => "166",
        _ => "4",
    }
}

/// Plugs an adapter in.
pub(crate) fn plug(adapter: &Adapter) -> Seen {
    let root = tempfile::tempdir().unwrap();
    let device = usb_port(&root.path().join("sys"), adapter);
    udevadm_test(root.path(), &device, adapter.node)
}

/// A serial port that is on the board.
pub(crate) fn on_board(node: &'static str) -> Seen {
    let root = tempfile::tempdir().unwrap();
    let device = format!("/devices/platform/serial8250/tty/{node}");
    tty(&root.path().join("sys"), &device, node);
    udevadm_test(root.path(), &device, node)
}

fn udevadm_test(root: &Path, device: &str, node: &str) -> Seen {
    tool("udevadm", "udev");
    let said = run(Command::new(tool("unshare", "util-linux"))
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            PLUG,
            "plug",
        ])
        .args([root, &shipped().join("70-autoglm-edge-serial.rules")])
        .args([&format!("/sys{device}"), node, major(node)]));
    assert_eq!(said.code, Some(0), "{said:?}");
    let ours = |line: &&str| line.contains("70-autoglm-edge-serial.rules:");
    for line in said.err.lines().filter(ours) {
        let is_complaint = ["nvalid", "nknown", "ailed", "gnoring"]
            .iter()
            .any(|word| line.contains(word));
        assert!(!is_complaint, "udev complains: {line}");
    }
    let mut properties: BTreeMap<String, String> = said
        .out
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    let access = properties.remove("STAT").unwrap_or_default();
    Seen { properties, access }
}

fn file(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(name), content).unwrap();
}

/// `directory/name` leads to `to` in the same tree.
fn link(sys: &Path, directory: &Path, name: &str, to: &str) {
    fs::create_dir_all(sys.join(to)).unwrap();
    let depth = directory
        .strip_prefix(sys)
        .expect("inside of the tree")
        .components()
        .count();
    symlink("../".repeat(depth) + to, directory.join(name)).unwrap();
}

/// The port's own directory, at `device`.
fn tty(sys: &Path, device: &str, node: &str) {
    let directory = sys.join(device.trim_start_matches('/'));
    file(
        &directory,
        "uevent",
        format!("MAJOR={}\nMINOR=0\nDEVNAME={node}\n", major(node)),
    );
    file(&directory, "dev", format!("{}:0\n", major(node)));
    link(sys, &directory, "subsystem", "class/tty");
}

/// A port of a USB device, with all that stands above it.
fn usb_port(sys: &Path, adapter: &Adapter) -> String {
    let controller = sys.join("devices/pci0000:00/0000:00:14.0");
    file(&controller, "uevent", "");
    link(sys, &controller, "subsystem", "bus/pci");
    let hub = controller.join("usb1");
    file(&hub, "uevent", "DEVTYPE=usb_device\n");
    link(sys, &hub, "subsystem", "bus/usb");

    let usb = hub.join("1-1");
    let (vendor, product) = adapter.id;
    file(&usb, "uevent", "DEVTYPE=usb_device\n");
    file(&usb, "idVendor", format!("{vendor:04x}\n"));
    file(&usb, "idProduct", format!("{product:04x}\n"));
    file(&usb, "bcdDevice", "0100\n");
    file(&usb, "bDeviceClass", "00\n");
    file(&usb, "descriptors", descriptors(adapter));
    if let Some(serial) = adapter.serial {
        file(&usb, "serial", format!("{serial}\n"));
    }
    link(sys, &usb, "subsystem", "bus/usb");

    let interface = usb.join("1-1:1.0");
    let (class, subclass, protocol) = adapter.interfaces[0];
    file(&interface, "uevent", "DEVTYPE=usb_interface\n");
    file(&interface, "bInterfaceNumber", "00\n");
    file(&interface, "bInterfaceClass", format!("{class:02x}\n"));
    file(
        &interface,
        "bInterfaceSubClass",
        format!("{subclass:02x}\n"),
    );
    file(
        &interface,
        "bInterfaceProtocol",
        format!("{protocol:02x}\n"),
    );
    link(sys, &interface, "subsystem", "bus/usb");
    link(
        sys,
        &interface,
        "driver",
        &format!("bus/usb/drivers/{}", adapter.driver),
    );

    let node = adapter.node;
    let mut device = "/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0".to_owned();
    // Adapters' drivers have a bus of their own between the interface and the port; CDC ACM has none.
    if node.starts_with("ttyUSB") {
        let port = interface.join(node);
        file(&port, "uevent", "");
        file(&port, "port_number", "0\n");
        link(sys, &port, "subsystem", "bus/usb-serial");
        device = format!("{device}/{node}");
    }
    let device = format!("{device}/tty/{node}");
    tty(sys, &device, node);
    device
}

/// Device, configuration, interface and endpoint descriptors (USB 2.0, 9.6), which udev's `usb_id` reads for ID_USB_INTERFACES.
fn descriptors(adapter: &Adapter) -> Vec<u8> {
    let ([v0, v1], [p0, p1]) = (adapter.id.0.to_le_bytes(), adapter.id.1.to_le_bytes());
    let count = u8::try_from(adapter.interfaces.len()).expect("few interfaces");
    let mut bytes = vec![18, 1, 0, 2, 0, 0, 0, 64, v0, v1, p0, p1, 0, 1, 1, 2, 3, 1];
    bytes.extend([9, 2, 9 + 16 * count, 0, count, 1, 0, 0x80, 50]);
    for (number, (class, subclass, protocol)) in (0..).zip(adapter.interfaces) {
        bytes.extend([9, 4, number, 0, 1, *class, *subclass, *protocol, 0]);
        bytes.extend([7, 5, 0x81 + number, 2, 64, 0, 0]);
    }
    bytes
}
