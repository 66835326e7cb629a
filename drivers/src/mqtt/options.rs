//! What we say in CONNECT, and what the broker's CONNACK limits.

use std::time::{Duration, SystemTime};

use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectProperties, LastWill, LastWillProperties,
};
use rumqttc::{NetworkOptions, TlsConfiguration};

use super::access::{AccessError, Transport};
use super::client::RECEIVE_MAXIMUM;
use super::types::{ClientConfig, Publication, PublishOptions, Will};

/// Unacknowledged publications at the broker.
pub(super) const WINDOW: usize = 8;
/// rumqttc's own limit on them. It takes packet ids in turn up to this number, so it is several times [`WINDOW`]: an id is long
/// acknowledged before its turn comes again. rumqttc reserves some 200 bytes for each; by default it does so for 65,535 of them.
const INFLIGHT_LIMIT: u16 = 64;
/// MQTT 5 maximum packet size (§3.1.2.11.4): the broker drops larger ones instead of sending them. Without it rumqttc has a limit of
/// its own, ends the connection at a larger packet, and meets the same packet again after every reconnection.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// Shortest keep-alive that rumqttc takes.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// Seconds for TCP, TLS and CONNACK together. Chosen because a small box needs half a second for the handshake.
const CONNECT_SECONDS: u64 = 10;
/// Bytes of a PUBLISH packet besides topic, payload and the texts of its properties, at most: header, lengths and identifiers.
const PUBLISH_OVERHEAD: usize = 64;

/// Builds CONNECT; reads certificates, key and password.
pub(super) fn connect(config: &ClientConfig, now: SystemTime) -> Result<MqttOptions, AccessError> {
    let broker = &config.broker;
    let mut options = MqttOptions::new(&config.client_id, &broker.host, broker.port);
    let mut network = NetworkOptions::new();
    // A reply follows the acknowledgement of its command at once: Nagle's algorithm would hold it back until the broker's
    // system acknowledges that one, about 40 ms on Linux.
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_clean_start(config.session_expiry.is_zero())
        .set_keep_alive(broker.access.keep_alive.max(KEEP_ALIVE_MIN))
        .set_connection_timeout(CONNECT_SECONDS)
        .set_outgoing_inflight_upper_limit(INFLIGHT_LIMIT)
        .set_manual_acks(true)
        .set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(seconds(config.session_expiry)),
            receive_maximum: Some(RECEIVE_MAXIMUM),
            max_packet_size: Some(PACKET_BYTES_MAX),
            ..ConnectProperties::new()
        });
    if let Transport::Tls(files) = &broker.access.transport {
        let tls = TlsConfiguration::Rustls(files.load(now)?);
        options.set_transport(rumqttc::Transport::Tls(tls));
    }
    if let Some(login) = &broker.access.login {
        options.set_credentials(&login.user, login.password()?);
    }
    if let Some(will) = &config.will {
        options.set_last_will(last_will(will));
    }
    Ok(options)
}

fn last_will(will: &Will) -> LastWill {
    let properties = LastWillProperties {
        delay_interval: Some(seconds(will.delay)),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    LastWill::new(
        &will.topic,
        will.payload.clone(),
        QoS::AtLeastOnce,
        true,
        Some(properties),
    )
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// What the broker allows on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Unacknowledged publications.
    pub(super) window: usize,
    /// Largest packet.
    pub(super) packet_bytes_max: Option<usize>,
    /// After this time without a packet from the broker the connection counts as dead: one and a half keep-alives (MQTT 5
    /// §3.1.2.10 has the broker do the same). rumqttc pings once in each keep-alive whatever else is sent, so a live broker is
    /// heard in each; by itself rumqttc would notice after two, and never while a write is stuck.
    pub(super) silence_max: Duration,
}

impl Limits {
    pub(super) fn of(config: &ClientConfig, properties: Option<&ConnAckProperties>) -> Self {
        let own = config.broker.access.keep_alive.max(KEEP_ALIVE_MIN);
        let keep_alive = properties
            .and_then(|properties| properties.server_keep_alive)
            .map_or(own, |seconds| Duration::from_secs(u64::from(seconds)));
        let receive_maximum = properties.and_then(|properties| properties.receive_max);
        let packet_bytes_max = properties.and_then(|properties| properties.max_packet_size);
        Self {
            window: WINDOW
                .min(receive_maximum.map_or(WINDOW, usize::from))
                .max(1),
            packet_bytes_max: packet_bytes_max
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            // A broker that wants no keep-alive (0) is not watched either.
            silence_max: match keep_alive.is_zero() {
                true => Duration::from_secs(86_400),
                false => keep_alive.mul_f64(1.5),
            },
        }
    }
}

/// The size of the packet that carries a publication, at most.
pub(super) fn packet_bytes(publication: &Publication, options: &PublishOptions) -> usize {
    let properties: usize = options
        .properties
        .iter()
        .map(|(name, value)| name.len() + value.len() + 5)
        .sum();
    PUBLISH_OVERHEAD
        + publication.topic.len()
        + publication.payload.len()
        + publication.correlation.as_ref().map_or(0, Vec::len)
        + properties
}
