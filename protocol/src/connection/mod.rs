//! The relation with one peer: found by Hello, kept by acknowledgement and keep-alive, ended by Close, silence or a
//! peer that begins anew; then sought again.
//!
//! A connection belongs to a pair of identities ([`Identity`](crate::wire::Identity)). Their hash gives every packet a
//! tag and both directions their first sequence number, so that what is left on the line from an earlier connection is
//! recognised and dropped. Read `established` for the packets in and out, `sender` and `receiver` for delivery.
//!
//! It never looks into messages; [`Host`](crate::Host) and [`Device`](crate::Device) do.

mod config;
mod established;
mod key;
mod loss;
mod outcome;
mod pace;
mod peers;
mod protection;
mod receiver;
mod rtt;
mod sender;
mod session;
mod state;
mod stats;
mod timers;

pub(crate) use config::Delivery;
pub use config::{Config, LinkKind};
pub use outcome::{LostReason, PeerInfo, SendError, Standing};
pub use stats::Stats;

pub(crate) use state::{Connection, ConnectionEvent};
