//! Links: what moves bytes between this machine and its devices and brokers.
//!
//! A *link* is one way to reach one device: a serial line, a pair of BLE characteristics, or topics at an MQTT broker. A *port* is
//! the host's end of one device's connection; links come and go below it. The MQTT *client* is the one way to a broker that every
//! user of MQTT takes, the BLE *radio* the one way to this machine's Bluetooth adapters, and the HTTP *client* the one way to a server that answers requests.
//!
//! Nothing here knows what a Thing is, decides when to open a link or which of several to use, or keeps anything on disk: policy
//! belongs to the daemon's supervisor, durability to its store.
//!
//! Read first: [`link`] (addresses, and what a link is), then [`port`] (the task that owns the machine).

pub mod backoff;
pub mod ble;
pub mod http;
pub mod link;
pub mod modbus;
pub mod mqtt;
pub mod port;
pub mod serial;
