//! MQTT 5 through rumqttc: one client, one owner task, used by everything that speaks to a broker.
//!
//! [`client`] is the connection, [`device`] the devices that are reached by it.
//!
//! Never decides what a message means and keeps nothing on disk. Read [`client`] for what is worked
//! around in rumqttc 0.25.1 and why.

pub mod access;
pub mod client;
pub mod device;
mod failure;
mod options;
mod pump;
mod subscriptions;
pub mod types;

pub use access::{Access, AccessError, ClientFiles, Login, TlsFiles, Transport};
pub use client::{Client, Receipt, spawn, spawn_with_queue};
pub use types::{
    Broker, BrokerError, BrokerState, ClientConfig, Incoming, Publication, PublishError,
    PublishOptions, Will,
};
