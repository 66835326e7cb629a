//! Links: what moves bytes between this machine and its devices and brokers.
//!
//! A *link* is one way to reach one peer (a serial line now; BLE and MQTT links follow). A *port*
//! pumps one protocol connection over one link and turns it into typed requests and events. The
//! MQTT *client* is the one broker connection that every user of MQTT shares.
//!
//! Nothing here knows what a Thing is, decides when to reconnect a link, or keeps anything on
//! disk: policy belongs to the daemon's supervisor, durability to its store.
//!
//! Read first: [`link`] (addresses and errors), then [`port`] (the task that owns the machine).

pub mod backoff;
pub mod link;
pub mod modbus;
pub mod mqtt;
pub mod port;
pub mod serial;
