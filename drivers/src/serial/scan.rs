//! Looks for serial ports with libudev, which reads sysfs and udev's own notes. Works without a running udev, which then has no notes.
//!
//! Blocks; milliseconds at most.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use udev::Device;

use super::place::UsbId;
use super::tty::{Tty, Ttys, UsbTty};

/// The socket of udev's control protocol: it is there while udev is wanted, also over its restarts. libudev goes by it, too.
const UDEV: &str = "/run/udev/control";

/// All terminals that the kernel knows.
const TTYS: &str = "/sys/class/tty";

/// Whether udev runs here. In containers it does not.
#[must_use]
pub fn has_udev() -> bool {
    Path::new(UDEV).exists()
}

/// The serial ports as they are now.
///
/// # Errors
/// When sysfs cannot be read.
pub fn ttys() -> io::Result<Ttys> {
    let mut ttys = Vec::new();
    for entry in std::fs::read_dir(TTYS)? {
        let entry = entry?;
        // Virtual consoles, of which there are some sixty, belong to no other device, and a look at each by libudev would take most of
        // the time.
        if !entry.path().join("device").exists() {
            continue;
        }
        // One that went meanwhile is no port.
        let device = Device::from_syspath(&entry.path());
        ttys.extend(device.ok().and_then(tty));
    }
    ttys.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(Ttys {
        ttys,
        has_udev: has_udev(),
    })
}

/// A port, unless it is virtual: consoles and pseudo-terminals belong to no other device.
fn tty(device: Device) -> Option<Tty> {
    let parent = device.parent()?;
    let links = device.property_value("DEVLINKS").and_then(OsStr::to_str);
    let mut names: Vec<PathBuf> = links
        .unwrap_or("")
        .split_whitespace()
        .map(Into::into)
        .collect();
    names.sort();
    let interface = parent_of(&device, "usb_interface");
    let driver = interface.as_ref().unwrap_or(&parent).driver();
    let ready = device.property_value("USEC_INITIALIZED");
    let ready = ready.and_then(OsStr::to_str).and_then(|us| us.parse().ok());
    Some(Tty {
        node: device.devnode()?.to_owned(),
        names,
        driver: driver.map(|driver| driver.to_string_lossy().into_owned()),
        usb: usb(&device, interface.as_ref()),
        // PORT_UNKNOWN in the kernel's serial_core: nothing answered where the port should be.
        is_fitted: text(&device, "type").as_deref() != Some("0"),
        ready_us: ready.filter(|_| device.is_initialized()),
    })
}

fn usb(tty: &Device, interface: Option<&Device>) -> Option<UsbTty> {
    let device = parent_of(tty, "usb_device")?;
    let hexadecimal = |name| u16::from_str_radix(&text(&device, name)?, 16).ok();
    let words = [text(&device, "manufacturer"), text(&device, "product")];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let number = interface.and_then(|interface| text(interface, "bInterfaceNumber"));
    let port = tty.parent_with_subsystem("usb-serial").ok().flatten();
    let port = port.and_then(|port| text(&port, "port_number")?.parse().ok());
    Some(UsbTty {
        id: UsbId {
            vendor: hexadecimal("idVendor")?,
            product: hexadecimal("idProduct")?,
        },
        serial: text(&device, "serial"),
        product: (!words.is_empty()).then(|| words.join(" ")),
        interface: number.and_then(|number| u8::from_str_radix(&number, 16).ok()),
        port,
    })
}

fn parent_of(device: &Device, kind: &str) -> Option<Device> {
    let parent = device.parent_with_subsystem_devtype("usb", kind);
    parent.ok().flatten()
}

/// A file of the device in sysfs; `None` if it is not there or empty.
fn text(device: &Device, name: &str) -> Option<String> {
    let value = device.attribute_value(name)?.to_string_lossy();
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
