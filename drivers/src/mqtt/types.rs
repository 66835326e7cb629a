//! What goes into and comes out of the MQTT client.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::mpsc;

use super::access::{Access, TlsFiles, Transport};
use crate::backoff::Backoff;

/// A broker's address, `mqtt://host[:port]` or `mqtts://host[:port]`, and how it is spoken to there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// TCP port, 1883 (clear) or 8883 (TLS) unless given.
    pub port: u16,
    /// Transport, login and keep-alive. An address that was parsed has the transport of its scheme, without files.
    pub access: Box<Access>,
}

/// A broker address that cannot be used, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Neither `mqtt://…` nor `mqtts://…`.
    #[error(
        "`{0}` is no broker address (expected mqtts://host or mqtt://host, with :port where it is not the usual one)"
    )]
    Scheme(String),
    /// No host.
    #[error("the broker address names no host")]
    NoHost,
    /// The port is no number from 1 to 65535.
    #[error("`{0}` is no port (1 to 65535)")]
    Port(String),
}

impl FromStr for Broker {
    type Err = BrokerError;

    fn from_str(text: &str) -> Result<Self, BrokerError> {
        let (rest, transport, port_default) = match text.split_once("://") {
            Some(("mqtt", rest)) => (rest, Transport::Clear, 1883),
            Some(("mqtts", rest)) => (rest, Transport::Tls(TlsFiles::default()), 8883),
            _ => return Err(BrokerError::Scheme(text.to_owned())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // An IPv6 address stands in brackets, so the last colon is the port's only outside them.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (
                    host,
                    port.ok_or_else(|| {
                        BrokerError::Port(rest.rsplit(':').next().unwrap_or("").to_owned())
                    })?,
                )
            }
            _ => (rest, port_default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(BrokerError::NoHost);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            access: Box::new(Access {
                transport,
                ..Access::default()
            }),
        })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.access.transport {
            Transport::Clear => "mqtt",
            Transport::Tls(_) => "mqtts",
        };
        if self.host.contains(':') {
            write!(out, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Broker {
    /// Whether packets to it stay on this machine: an address of the loopback interface, or `localhost`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// The message that the broker sends in our name when we vanish, and that we send ourselves when we leave: a clean disconnect makes
/// the broker forget it (MQTT 5 §3.1.2.5), and a retained `online` would stand for ever.
#[derive(Debug, Clone)]
pub struct Will {
    /// Topic, retained.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// How long the broker waits before it sends it, so that a short reconnection stays unseen.
    pub delay: Duration,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where the broker is.
    pub broker: Broker,
    /// Fixed client id: the broker keeps our session under it.
    pub client_id: String,
    /// Topic filters, subscribed at QoS 1 after every connection.
    pub subscriptions: Vec<String>,
    /// Published, retained, after the subscriptions are acknowledged.
    pub birth: Option<Publication>,
    /// Last will.
    pub will: Option<Will>,
    /// How long the broker keeps our session while we are away; zero for a fresh one with each connection.
    pub session_expiry: Duration,
    /// Wait between connections.
    pub backoff: Backoff,
}

/// A message to publish at QoS 1.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MQTT 5 correlation data, given back to a requester.
    pub correlation: Option<Vec<u8>>,
}

/// What else goes with a publication.
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    /// When it is worth nothing any more: not sent after that, and given to the broker as message expiry, in whole seconds rounded
    /// up. `None`: for ever.
    pub expires: Option<Instant>,
    /// MQTT 5 user properties.
    pub properties: Vec<(String, String)>,
}

/// A message that arrived. QoS 1 messages are acknowledged to the broker only by [`Incoming::acknowledge`]:
/// drop one without it, and the broker delivers it again after the next connection.
#[derive(Debug)]
pub struct Incoming {
    pub(super) publish: Publish,
    pub(super) acks: mpsc::Sender<Publish>,
}

impl Incoming {
    /// Topic name, as far as it is UTF-8.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.publish.topic).unwrap_or("")
    }

    /// Payload bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    /// Whether the broker kept it from earlier.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.publish.retain
    }

    /// Where the sender wants the answer, if it said so.
    #[must_use]
    pub fn response_topic(&self) -> Option<&str> {
        self.publish.properties.as_ref()?.response_topic.as_deref()
    }

    /// The sender's correlation data, if any.
    #[must_use]
    pub fn correlation(&self) -> Option<&[u8]> {
        self.publish
            .properties
            .as_ref()?
            .correlation_data
            .as_deref()
    }

    /// Seconds that the message had left to live when the broker sent it on.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        let seconds = self.publish.properties.as_ref()?.message_expiry_interval?;
        Some(Duration::from_secs(u64::from(seconds)))
    }

    /// MQTT 5 user properties, in the sender's order.
    #[must_use]
    pub fn properties(&self) -> &[(String, String)] {
        match &self.publish.properties {
            Some(properties) => &properties.user_properties,
            None => &[],
        }
    }

    /// Acknowledges it to the broker: it is durable with us now. Waits while the owner task is busy; an
    /// acknowledgement of an earlier connection is dropped there, and the broker sends again.
    pub async fn acknowledge(self) {
        let _ = self.acks.send(self.publish).await;
    }
}

/// The state of the broker connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerState {
    /// Not yet tried.
    Starting,
    /// Connected and subscribed.
    Connected,
    /// Waiting to try again.
    Waiting {
        /// Failed tries in a row.
        attempt: u32,
        /// What went wrong last.
        cause: String,
    },
}

/// Why a message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is full: the broker is away or slow.
    #[error("the queue to the broker is full")]
    Busy,
    /// The client was stopped.
    #[error("the broker connection is shut down")]
    Stopped,
    /// The broker refused it; it may take it another time.
    #[error("the broker refused the message: {0}")]
    Refused(&'static str),
    /// Its deadline passed before it was sent.
    #[error("the message expired before the broker had it")]
    Expired,
    /// Larger than this broker takes.
    #[error("the message has {bytes} bytes, the broker takes {limit} at most")]
    TooLarge {
        /// Its packet's size, at most.
        bytes: usize,
        /// The broker's maximum packet size.
        limit: usize,
    },
    /// The topic is empty, too long, or has wildcards.
    #[error("the message's topic is no topic name")]
    InvalidTopic,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_parse_with_and_without_a_port() {
        let parse = |text: &str| {
            text.parse::<Broker>()
                .map(|broker| (broker.host, broker.port))
        };
        assert_eq!(parse("mqtt://box.local"), Ok(("box.local".into(), 1883)));
        assert_eq!(
            parse("mqtt://127.0.0.1:1999/"),
            Ok(("127.0.0.1".into(), 1999))
        );
        assert_eq!(parse("mqtt://[::1]"), Ok(("::1".into(), 1883)));
        assert_eq!(parse("mqtt://[::1]:42"), Ok(("::1".into(), 42)));
        assert_eq!(
            parse("mqtts://fleet.example"),
            Ok(("fleet.example".into(), 8883))
        );
    }

    #[test]
    fn only_loopback_is_local() {
        let is_local = |text: &str| text.parse::<Broker>().unwrap().is_local();
        for text in [
            "mqtt://127.0.0.1",
            "mqtt://127.9.9.9",
            "mqtt://[::1]",
            "mqtt://LocalHost",
        ] {
            assert!(is_local(text), "{text}");
        }
        for text in [
            "mqtt://192.168.1.2",
            "mqtt://localhost.example",
            "mqtt://[fe80::1]",
        ] {
            assert!(!is_local(text), "{text}");
        }
    }

    #[test]
    fn a_wrong_broker_address_names_its_culprit() {
        let parse = |text: &str| text.parse::<Broker>().unwrap_err();
        assert_eq!(parse("http://x"), BrokerError::Scheme("http://x".into()));
        assert_eq!(parse("mqtt://"), BrokerError::NoHost);
        assert_eq!(parse("mqtt://x:0"), BrokerError::Port("0".into()));
        assert_eq!(parse("mqtt://x:many"), BrokerError::Port("many".into()));
    }
}
