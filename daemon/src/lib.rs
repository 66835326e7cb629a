//! The daemon.

pub mod session;
pub mod store;
