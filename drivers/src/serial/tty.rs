//! The serial ports of this machine, as udev and sysfs describe them. Pure.

use std::path::{Path, PathBuf};

use super::place::{SerialPlace, UsbId};

/// A serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tty {
    /// The device node; changes with the order of plugging.
    pub node: PathBuf,
    /// Other names that udev gives it (`/dev/serial/by-id/…`, `/dev/autoglm-edge/…`), sorted. None where there is no udev.
    pub names: Vec<PathBuf>,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Of a USB adapter.
    pub usb: Option<UsbTty>,
    /// Whether hardware is behind it: boards have ports of which nothing is wired.
    pub is_fitted: bool,
    /// When udev's rules had run for it, in microseconds since the machine started: another value is another plugging. `None`:
    /// they have not yet, and its group and its names are not right.
    pub ready_us: Option<u64>,
}

/// What a USB adapter says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbTty {
    /// Vendor and product.
    pub id: UsbId,
    /// Its serial number, if it has one.
    pub serial: Option<String>,
    /// Maker and product in words.
    pub product: Option<String>,
    /// `bInterfaceNumber`.
    pub interface: Option<u8>,
    /// Number of the port behind that interface, for drivers that know several.
    pub port: Option<u8>,
}

/// All serial ports at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ttys {
    /// By node.
    pub ttys: Vec<Tty>,
    /// Whether udev tells of changes; otherwise the ports are looked for again and again, and are taken as they stand.
    pub has_udev: bool,
}

/// What a place is at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing that is known. A path may lead somewhere all the same.
    Nothing,
    /// This port, which udev's rules are still to be run for.
    Unready(PathBuf),
    /// This port, and a number that is another one after each plugging (as far as that can be known).
    Port(PathBuf, u64),
    /// Several ports, which the place does not tell apart.
    Several(Vec<PathBuf>),
}

impl Ttys {
    /// What is at a place.
    #[must_use]
    pub fn find(&self, place: &SerialPlace) -> Found {
        let mut fitting = self.ttys.iter().filter(|tty| place.is(tty));
        match (fitting.next(), fitting.next()) {
            (None, _) => Found::Nothing,
            (Some(tty), None) => match tty.ready_us {
                Some(ready) => Found::Port(tty.node.clone(), ready),
                None if self.has_udev => Found::Unready(tty.node.clone()),
                None => Found::Port(tty.node.clone(), 0),
            },
            (Some(_), Some(_)) => {
                let fitting = self.ttys.iter().filter(|tty| place.is(tty));
                Found::Several(fitting.map(|tty| tty.node.clone()).collect())
            }
        }
    }

    /// Whether udev's rules have run for this node, or nobody runs any.
    #[must_use]
    pub fn is_ready(&self, node: &Path) -> bool {
        let is_it = |tty: &&Tty| tty.node == node;
        !self.has_udev
            || self
                .ttys
                .iter()
                .find(is_it)
                .is_some_and(|tty| tty.ready_us.is_some())
    }
}

impl Tty {
    /// The address by which it is found again wherever it is plugged in; where it has no serial number, in whichever order.
    #[must_use]
    pub fn address(&self) -> String {
        let serial = self.usb.as_ref().filter(|usb| usb.serial.is_some());
        match (serial, self.names.first()) {
            (Some(usb), _) => format!(
                "serial://{}",
                SerialPlace::Usb(super::place::UsbPlace {
                    serial: usb.serial.clone(),
                    ..Default::default()
                })
            ),
            (None, Some(_)) => {
                let path = |name: &&PathBuf| name.to_string_lossy().contains("by-path");
                let name = self.names.iter().find(path).unwrap_or(&self.names[0]);
                format!("serial://{}", name.display())
            }
            (None, None) => format!("serial://{}", self.node.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FTDI: UsbId = UsbId {
        vendor: 0x0403,
        product: 0x6001,
    };

    fn adapter(node: &str, serial: Option<&str>, ready_us: Option<u64>) -> Tty {
        let names = serial.map(|serial| PathBuf::from(format!("/dev/serial/by-id/usb-{serial}")));
        Tty {
            node: node.into(),
            names: names.into_iter().collect(),
            driver: Some("ftdi_sio".to_owned()),
            usb: Some(UsbTty {
                id: FTDI,
                serial: serial.map(str::to_owned),
                product: None,
                interface: Some(0),
                port: Some(0),
            }),
            is_fitted: true,
            ready_us,
        }
    }

    fn ttys(ttys: &[Tty]) -> Ttys {
        Ttys {
            ttys: ttys.to_vec(),
            has_udev: true,
        }
    }

    fn place(text: &str) -> SerialPlace {
        SerialPlace::parse(text).unwrap()
    }

    #[test]
    fn an_adapter_is_found_by_its_serial_number_under_any_node() {
        for node in ["/dev/ttyUSB0", "/dev/ttyUSB7"] {
            let here = ttys(&[
                adapter(node, Some("A1"), Some(5)),
                adapter("/dev/ttyUSB3", Some("B2"), Some(6)),
            ]);
            let expected = Found::Port(node.into(), 5);
            for text in ["usb/serial/A1", "usb/id/0403:6001/serial/A1", node] {
                assert_eq!(here.find(&place(text)), expected, "{text}");
            }
            assert_eq!(here.find(&place("/dev/serial/by-id/usb-A1")), expected);
            assert_eq!(here.find(&place("usb/serial/C3")), Found::Nothing);
            assert_eq!(here.find(&place("usb/id/0403:6010")), Found::Nothing);
        }
    }

    #[test]
    fn what_fits_several_adapters_is_none_of_them() {
        let here = ttys(&[
            adapter("/dev/ttyUSB0", None, Some(1)),
            adapter("/dev/ttyUSB1", None, Some(2)),
        ]);
        assert_eq!(
            here.find(&place("usb/id/0403:6001")),
            Found::Several(vec!["/dev/ttyUSB0".into(), "/dev/ttyUSB1".into()])
        );
    }

    #[test]
    fn an_interface_tells_the_ports_of_one_adapter_apart() {
        let mut second = adapter("/dev/ttyUSB1", Some("A1"), Some(1));
        second.usb.as_mut().unwrap().interface = Some(1);
        let here = ttys(&[adapter("/dev/ttyUSB0", Some("A1"), Some(1)), second]);
        let mut by_interface = place("usb/serial/A1");
        assert!(matches!(here.find(&by_interface), Found::Several(_)));
        assert_eq!(by_interface.option("interface", "1"), Ok(true));
        assert_eq!(
            here.find(&by_interface),
            Found::Port("/dev/ttyUSB1".into(), 1)
        );
    }

    #[test]
    fn a_port_is_not_there_before_udevs_rules_have_run() {
        let plugged = ttys(&[adapter("/dev/ttyUSB0", Some("A1"), None)]);
        let by_serial = place("usb/serial/A1");
        assert_eq!(
            plugged.find(&by_serial),
            Found::Unready("/dev/ttyUSB0".into())
        );
        assert!(!plugged.is_ready(Path::new("/dev/ttyUSB0")));
        // A node that udev has not spoken of yet.
        assert!(!plugged.is_ready(Path::new("/dev/ttyUSB1")));
        let without = Ttys {
            has_udev: false,
            ..plugged
        };
        assert_eq!(
            without.find(&by_serial),
            Found::Port("/dev/ttyUSB0".into(), 0)
        );
        assert!(without.is_ready(Path::new("/dev/ttyUSB1")));
    }

    #[test]
    fn the_same_node_plugged_again_is_another_plugging() {
        let by_serial = place("usb/serial/A1");
        let at = |us| ttys(&[adapter("/dev/ttyUSB0", Some("A1"), Some(us))]).find(&by_serial);
        assert_ne!(at(1), at(2));
    }

    #[test]
    fn the_address_to_be_written_down_does_not_depend_on_the_order_of_plugging() {
        assert_eq!(
            adapter("/dev/ttyUSB0", Some("A 1"), Some(1)).address(),
            "serial://usb/serial/A%201"
        );
        let without = Tty {
            names: vec!["/dev/serial/by-path/pci-1".into()],
            ..adapter("/dev/ttyUSB0", None, Some(1))
        };
        assert_eq!(without.address(), "serial:///dev/serial/by-path/pci-1");
    }
}
