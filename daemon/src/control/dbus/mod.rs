//! The D-Bus door: `org.openautoglm.Edge1`.
//!
//! - [`names`]: service, interfaces and paths, defined once for daemon and command line;
//! - [`manager`]: commands, conversations and the state of the box, at the root of our tree;
//! - [`models`]: bundles and models, beside it, and [`mod@speak`], what comes on the pipe of `Speak`; [`bluetooth`]: pairing and forgetting;
//! - [`objects`]: things, links and models as objects with properties;
//! - [`access`]: who may call what; [`error`] and [`value`]: the edges to our types;
//! - [`service`]: the task that keeps the name on the bus and comes back when the bus does.
//!
//! All interface methods take `&self`: zbus deadlocks when a `&mut self` method meets the object server (#1430, #1845). One
//! task adds and removes objects. Everything is exported before the name is requested.

pub mod access;
pub mod bluetooth;
pub mod client;
pub mod error;
pub mod manager;
pub mod models;
pub mod names;
pub mod objects;
pub mod service;
mod speak;
mod transcribe;
pub mod value;
