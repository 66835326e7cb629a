//! Link addresses and the byte stream that a link gives.
//!
//! An address is a URI, so that it can stand in a config file, a log line and a D-Bus property
//! alike: `serial:///dev/ttyUSB0?baud=115200`. This module parses and prints addresses and opens
//! what they name; it never retries (that is the supervisor's policy).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::serial::{self, OpenError};

/// Baud rate of a serial link whose address names none: the rate that most boards' bootloaders and
/// the usual USB bridges come up with.
pub const BAUD_DEFAULT: u32 = 115_200;

/// Name of a link in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub String);

impl fmt::Display for LinkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkAddress {
    /// A serial line: `serial:///dev/ttyUSB0?baud=115200`.
    Serial {
        /// The device node, or a stable link to it (`/dev/serial/by-id/…`).
        path: PathBuf,
        /// Line speed in baud, 8N1, no flow control.
        baud: u32,
    },
}

/// Why a link address was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The part before `:` names no kind of link that exists.
    #[error("`{0}` is no link scheme (known: serial)")]
    UnknownScheme(String),
    /// A serial address without an absolute device path.
    #[error("a serial address needs an absolute path, as in serial:///dev/ttyUSB0?baud=115200")]
    NoPath,
    /// An option after `?` that this kind of link does not have.
    #[error("unknown option `{0}` in a serial address (known: baud)")]
    UnknownOption(String),
    /// A baud rate that is no number or is out of range.
    #[error("baud `{0}` is not a number from 50 to 4000000")]
    Baud(String),
}

impl FromStr for LinkAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        if scheme != "serial" {
            return Err(AddressError::UnknownScheme(scheme.to_owned()));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.len() < 2 {
            return Err(AddressError::NoPath);
        }
        let mut baud = BAUD_DEFAULT;
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("baud", value)) => {
                    baud = value
                        .parse()
                        .ok()
                        .filter(|baud| (50..=4_000_000).contains(baud))
                        .ok_or_else(|| AddressError::Baud(value.to_owned()))?;
                }
                _ => return Err(AddressError::UnknownOption(option.to_owned())),
            }
        }
        Ok(Self::Serial {
            path: PathBuf::from(path),
            baud,
        })
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { path, baud } => write!(out, "serial://{}?baud={baud}", path.display()),
        }
    }
}

/// A byte stream in both directions, as every stream link gives it.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The serial line could not be opened.
    #[error(transparent)]
    Serial(#[from] OpenError),
}

impl LinkAddress {
    /// Opens the link. Returns at once: a serial line opens or it does not.
    ///
    /// # Errors
    /// What the operating system said, with the path and the remedy.
    pub fn open(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        match self {
            Self::Serial { path, baud } => Ok(Box::new(serial::open(path, *baud)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_printing_and_parsing() {
        for text in [
            "serial:///dev/ttyUSB0?baud=9600",
            "serial:///dev/serial/by-id/usb-x-if00?baud=3000000",
        ] {
            let address: LinkAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_missing_baud_rate_is_the_default() {
        let address: LinkAddress = "serial:///dev/ttyS1".parse().unwrap();
        assert_eq!(
            address,
            LinkAddress::Serial {
                path: "/dev/ttyS1".into(),
                baud: BAUD_DEFAULT
            }
        );
    }

    #[test]
    fn a_wrong_address_names_its_culprit() {
        let parse = |text: &str| text.parse::<LinkAddress>().unwrap_err().to_string();
        assert!(parse("usb:///dev/x").contains("`usb`"));
        assert!(parse("serial://ttyUSB0").contains("absolute path"));
        assert!(parse("serial:///dev/x?speed=1").contains("`speed=1`"));
        assert!(parse("serial:///dev/x?baud=fast").contains("`fast`"));
        assert!(parse("serial:///dev/x?baud=9").contains("`9`"));
    }
}
