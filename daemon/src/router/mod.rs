//! The router: where every door's requests end and every command starts.
//!
//! - [`command`] carries out one call on one Thing, at most once: permission, schema, ledger, device, ledger.
//! - [`comprehension`] is the async shell around [`crate::understanding`]: it owns the catalogue of phrases and
//!   asks the embedding model.
//! - [`conversation`] answers one thing that a person said: understood calls are executed, what is ambiguous asks back, the
//!   rest is conversation; all of it is kept in the session before it is answered.
//!
//! It knows no door: D-Bus, fleet and command line hand in a [`Principal`] and get typed results, which they turn into
//! their own forms.

pub mod command;
pub mod comprehension;
pub mod conversation;
mod identity;
pub mod outcome;
pub mod permission;
pub mod speech;

use std::fmt;

use crate::inference::class::Class;

/// Who asks. Doors authenticate; [`permission`] decides what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A local user, known by the kernel's word (D-Bus peer credentials).
    Local {
        /// Unix user id.
        uid: u32,
    },
    /// Whoever may publish to this box's command topic: the broker's access control decides who that is.
    Fleet,
}

impl Principal {
    /// The class of what it asks for, unless it asks for another that it [may](Self::may_ask_as).
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Local { .. } => Class::Local,
            Self::Fleet => Class::Fleet,
        }
    }

    /// Whether it may ask in the name of a class: nobody far away is a voice at this box.
    #[must_use]
    pub fn may_ask_as(&self, class: Class) -> bool {
        match self {
            Self::Local { .. } => class != Class::Fleet,
            Self::Fleet => class >= Class::Fleet,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid } => write!(out, "local:{uid}"),
            Self::Fleet => out.write_str("fleet"),
        }
    }
}
