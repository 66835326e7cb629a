//! Where a Modbus bus is, and opening it: a serial line, or a device or gateway that speaks Modbus TCP.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Bus, OpenBus};
use crate::link::ByteStream;
use crate::serial::{self, LineFormat, OpenError, SerialPlace, TtyWatch};

/// The port of Modbus TCP (MODBUS Messaging on TCP/IP V1.0b §4.3.1).
const PORT: u16 = 502;
/// How long a connection may take to be made. Longer than TCP needs to repeat its first packet (1 s, RFC 6298).
const CONNECT: Duration = Duration::from_secs(3);

/// Where a bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusPlace {
    /// Modbus RTU on a serial line.
    Serial {
        /// Its port.
        place: SerialPlace,
        /// Speed and form of its characters.
        format: LineFormat,
    },
    /// Modbus TCP. In clear text and without a login, as the protocol is.
    Tcp(TcpPlace),
}

impl fmt::Display for BusPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { place, format } => write!(out, "serial://{place}?baud={}", format.baud),
            Self::Tcp(place) => place.fmt(out),
        }
    }
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpPlace {
    /// Name or address.
    pub host: String,
    /// TCP port, 502 unless given.
    pub port: u16,
}

impl fmt::Display for TcpPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "modbus+tcp://[{}]:{}", self.host, self.port),
            false => write!(out, "modbus+tcp://{}:{}", self.host, self.port),
        }
    }
}

/// A text that is no address of Modbus TCP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of Modbus TCP (expected modbus+tcp://host, with :port where it is not 502)"
)]
pub struct TcpPlaceError(pub String);

impl FromStr for TcpPlace {
    type Err = TcpPlaceError;

    fn from_str(text: &str) -> Result<Self, TcpPlaceError> {
        let wrong = || TcpPlaceError(text.to_owned());
        let rest = text.strip_prefix("modbus+tcp://").ok_or_else(wrong)?;
        let rest = rest.trim_end_matches('/');
        // An IPv6 address stands in brackets, so the last colon is the port's only outside them.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (host, port.ok_or_else(wrong)?)
            }
            _ => (rest, PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.is_empty() || host.contains('/') {
            true => Err(wrong()),
            false => Ok(Self {
                host: host.to_owned(),
                port,
            }),
        }
    }
}

/// Why a bus could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBusError {
    /// Its serial line.
    #[error(transparent)]
    Serial(#[from] OpenError),
    /// Its host.
    #[error("{place}: cannot be connected to: {source}")]
    Tcp {
        /// Where.
        place: TcpPlace,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Opens a bus: a serial line exclusively, or a connection.
///
/// # Errors
/// [`OpenBusError`]
pub async fn open(place: &BusPlace, watch: Option<&TtyWatch>) -> Result<OpenBus, OpenBusError> {
    match place {
        BusPlace::Serial { place, format } => {
            let line = serial::open_place(place, *format, watch).await?;
            let line: Box<dyn ByteStream> = Box::new(line);
            Ok(Bus::new(line, format.baud))
        }
        BusPlace::Tcp(place) => {
            let stream = connect(place).await.map_err(|source| OpenBusError::Tcp {
                place: place.clone(),
                source,
            })?;
            let again = place.clone();
            let renew = move || -> super::Renewing<Box<dyn ByteStream>> {
                let place = again.clone();
                Box::pin(async move { connect(&place).await })
            };
            Ok(Bus::over_tcp(stream, Box::new(renew)))
        }
    }
}

async fn connect(place: &TcpPlace) -> io::Result<Box<dyn ByteStream>> {
    let connecting = TcpStream::connect((place.host.as_str(), place.port));
    let stream = tokio::time::timeout(CONNECT, connecting).await??;
    // A request is one small packet, and the next waits for its answer.
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_the_usual_port() {
        let parse = |text: &str| text.parse::<TcpPlace>().map(|place| place.to_string());
        for (text, expected) in [
            ("modbus+tcp://plc.local", "modbus+tcp://plc.local:502"),
            ("modbus+tcp://10.0.0.7:1502/", "modbus+tcp://10.0.0.7:1502"),
            ("modbus+tcp://[fd00::7]", "modbus+tcp://[fd00::7]:502"),
            ("modbus+tcp://[fd00::7]:8", "modbus+tcp://[fd00::7]:8"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected));
        }
        for text in [
            "tcp://x",
            "modbus+tcp://",
            "modbus+tcp://x:0",
            "modbus+tcp://x:many",
            "modbus+tcp://x/1",
        ] {
            assert!(
                parse(text).unwrap_err().to_string().contains(text),
                "{text}"
            );
        }
    }
}
