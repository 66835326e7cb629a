//! Where a serial line is: a path, or a USB adapter by what it says of itself.
//!
//! - `/dev/ttyUSB0`, `/dev/serial/by-id/…`, `/dev/autoglm-edge/…`: a path, followed anew each time it is opened;
//! - `usb/serial/A50285BI`: the adapter with this serial number, whatever node it has got and whichever socket it sits in;
//! - `usb/id/0403:6001`: the adapter with this vendor and product, where it has no serial number; with both,
//!   `usb/id/0403:6001/serial/A50285BI`;
//! - options `interface` and `port` tell apart what one adapter has several of.
//!
//! This module parses, prints and compares; it never looks for a port.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::tty::Tty;

/// What stands for itself neither in a serial number nor in an option.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'/')
    .add(b'?');

/// A vendor's number and its number for a product (USB 2.0 §9.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsbId {
    /// `idVendor`
    pub vendor: u16,
    /// `idProduct`
    pub product: u16,
}

impl fmt::Display for UsbId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

/// Where a serial line is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SerialPlace {
    /// A device node, or a name that leads to one.
    Path(PathBuf),
    /// A port of a USB adapter.
    Usb(UsbPlace),
}

/// What must be true of a USB adapter's port; at least its id or its serial number is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UsbPlace {
    /// Vendor and product.
    pub id: Option<UsbId>,
    /// Serial number, as the adapter gives it.
    pub serial: Option<String>,
    /// `bInterfaceNumber`.
    pub interface: Option<u8>,
    /// Number of the port behind that interface, from 0.
    pub port: Option<u8>,
}

/// Why a text is no place of a serial line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Neither an absolute path nor a USB adapter.
    #[error(
        "a serial address needs an absolute path, as in serial:///dev/ttyUSB0?baud=115200, or a USB adapter, as in \
         serial://usb/serial/A50285BI or serial://usb/id/0403:6001"
    )]
    NoPath,
    /// Not two numbers of four hexadecimal digits.
    #[error("`{0}` is no USB vendor and product (four hexadecimal digits each, as in 0403:6001)")]
    UsbId(String),
    /// An empty serial number, or one that is not text.
    #[error("`{0}` is no serial number of a USB adapter")]
    UsbSerial(String),
    /// An interface or port that is no small number.
    #[error("{option} `{value}` is not a number from 0 to 255")]
    Number {
        /// Which option.
        option: String,
        /// Its value.
        value: String,
    },
}

impl SerialPlace {
    /// Parses what stands between `serial://` and `?`.
    ///
    /// # Errors
    /// [`PlaceError`]
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        if text.starts_with('/') && text.len() > 1 {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let mut parts = match text.strip_prefix("usb/") {
            Some(rest) => rest.split('/'),
            None => return Err(PlaceError::NoPath),
        };
        let mut usb = UsbPlace::default();
        while let Some(kind) = parts.next() {
            let value = parts.next().unwrap_or("");
            match kind {
                "id" => usb.id = Some(usb_id(value)?),
                "serial" => usb.serial = Some(usb_serial(value)?),
                _ => return Err(PlaceError::NoPath),
            }
        }
        Ok(Self::Usb(usb))
    }

    /// Takes an option of the address; false if it is none of ours.
    ///
    /// # Errors
    /// [`PlaceError::Number`]
    pub fn option(&mut self, option: &str, value: &str) -> Result<bool, PlaceError> {
        let Self::Usb(usb) = self else {
            return Ok(false);
        };
        let place = match option {
            "interface" => &mut usb.interface,
            "port" => &mut usb.port,
            _ => return Ok(false),
        };
        let number = value.parse().map_err(|_| PlaceError::Number {
            option: option.to_owned(),
            value: value.to_owned(),
        })?;
        *place = Some(number);
        Ok(true)
    }

    /// Whether this port is the place.
    #[must_use]
    pub fn is(&self, tty: &Tty) -> bool {
        match self {
            Self::Path(path) => tty.node == *path || tty.names.contains(path),
            Self::Usb(place) => tty.usb.as_ref().is_some_and(|usb| {
                place.id.is_none_or(|id| id == usb.id)
                    && (place.serial.is_none() || place.serial == usb.serial)
                    && (place.interface.is_none() || place.interface == usb.interface)
                    && (place.port.is_none() || place.port == usb.port)
            }),
        }
    }

    /// The path, where it is one that udev does not make: a pseudo-terminal, or a name outside of /dev.
    #[must_use]
    pub fn beyond_udev(&self) -> Option<&Path> {
        match self {
            Self::Path(path) if path.starts_with("/dev") && !path.starts_with("/dev/pts") => None,
            Self::Path(path) => Some(path),
            Self::Usb(_) => None,
        }
    }

    /// The options that belong to the place, for an address.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&'static str, u8)> {
        let (interface, port) = match self {
            Self::Path(_) => (None, None),
            Self::Usb(usb) => (usb.interface, usb.port),
        };
        let options = [("interface", interface), ("port", port)];
        options
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }
}

impl fmt::Display for SerialPlace {
    /// As between `serial://` and `?`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(out),
            Self::Usb(usb) => {
                out.write_str("usb")?;
                if let Some(id) = usb.id {
                    write!(out, "/id/{id}")?;
                }
                match &usb.serial {
                    Some(serial) => {
                        write!(out, "/serial/{}", utf8_percent_encode(serial, RESERVED))
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

fn usb_id(text: &str) -> Result<UsbId, PlaceError> {
    let number = |digits: &str| match digits.len() {
        4 => u16::from_str_radix(digits, 16).ok(),
        _ => None,
    };
    let id = text.split_once(':').and_then(|(vendor, product)| {
        Some(UsbId {
            vendor: number(vendor)?,
            product: number(product)?,
        })
    });
    id.ok_or_else(|| PlaceError::UsbId(text.to_owned()))
}

fn usb_serial(text: &str) -> Result<String, PlaceError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(serial) if !serial.is_empty() => Ok(serial.into_owned()),
        _ => Err(PlaceError::UsbSerial(text.to_owned())),
    }
}
