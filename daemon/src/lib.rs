//! The edge daemon `autoglm-edged` and its command line `autoglmctl`.
//!
//! One process owns a box's devices and its models: bytes come up from the links as Things, sentences and commands come
//! in through the doors, and both meet in the router. `ARCHITECTURE.md` in the repository's root has the map, the task and
//! channel table and the invariants. Nothing here touches bytes of the wire (that is `autoglm-protocol`) or opens a port
//! (that is `autoglm-drivers`).

pub mod app;
pub mod audio;
pub mod bluetooth;
pub mod cli;
pub mod config;
pub mod control;
pub mod foreign;
pub mod inference;
pub mod install;
pub mod link;
pub mod logging;
pub mod notify;
pub mod router;
pub mod session;
pub mod status;
pub mod store;
pub mod things;
pub mod understanding;
