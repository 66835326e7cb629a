//! The doors: how people, programs and fleets reach the router.
//!
//! Each door authenticates its callers, turns its own forms into the router's types and the answers back, and knows no other
//! door. Serialisation lives here: core types derive none of the forms below.

pub mod dbus;
pub mod fleet;
pub mod json;
pub mod metrics;
