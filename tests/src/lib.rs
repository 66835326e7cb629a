//! What the end-to-end tests, the demo and the benches share: simulated devices and the running of processes.
//!
//! Nothing here is part of the product.

pub mod appliance;
pub mod bench;
pub mod cable;
pub mod device;
pub mod edge_box;
pub mod fleet;
pub mod mosquitto;
pub mod no_models;
pub mod outbox_check;
pub mod pki;
pub mod power_cut;
pub mod process;
pub mod sentences;
pub mod stand_in_engine;
pub mod stored_records;
pub mod stream;
