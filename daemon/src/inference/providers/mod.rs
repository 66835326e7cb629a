//! Execution providers: who could run a model faster than the CPU, whether that is true, and who does.
//!
//! A provider is asked for by the configuration ([`policy`]), found in ONNX Runtime or among plugin libraries ([`candidate`],
//! [`builtin`], [`library`], [`inspect`]), proved in a process of its own ([`trial`]), judged ([`outcome`]), remembered ([`fingerprint`]), and only
//! then let into the daemon ([`placement`]). [`desk`] goes through these steps for a model, [`attempt`] for one candidate; [`compiled`] keeps what a provider compiled.
//!
//! Never: a provider that was not proved on this bundle, this library and this device; a fall back to the CPU that is not said.

mod attempt;
mod builtin;
pub mod candidate;
mod compiled;
pub mod desk;
mod fingerprint;
mod inspect;
mod library;
pub mod outcome;
pub mod placement;
pub mod policy;
pub mod trial;

pub use self::{
    builtin::Options,
    candidate::{Candidate, Kind, Selector},
    desk::{Found, Providers, ProvidersConfig},
    library::STANDARD_DIR,
    outcome::{Measured, Verdict},
    placement::{Choice, Placement, Tried},
    policy::Policy,
};
