//! Bindings: devices that do not speak our protocol, as the same Things.
//!
//! A foreign device is described by a Thing Description *with forms* (TD 1.1 §5.3.4.2): for each property, action and
//! event a form says by which protocol operation it is reached. Such a description is written by a person (a file), or made here
//! from what a device's own ecosystem publishes about it (Zigbee2MQTT, Tasmota, Home Assistant, BTHome). Either way it goes
//! through [`form`] and one of the bindings, so there is one way from a form to an operation:
//!
//! | module | forms whose `href` begins with | vocabulary |
//! | --- | --- | --- |
//! | [`modbus`] | `modbus+rtu://` | `modv:` of the W3C WoT Modbus binding |
//! | [`mqtt`] | `mqtt://` | `mqv:` of the W3C WoT MQTT binding |
//! | [`gatt`] | `gatt://` | our own, there is no published one |
//!
//! Everything here is pure: bytes and JSON in, values, operations and typed errors out. Sockets, serial lines and radios belong
//! to `drivers`; when to ask and what to do about silence belongs to the daemon's `foreign` module.
//!
//! Read first: [`form`], then [`scalar`] (what bytes mean), then the binding in question.

pub mod bthome;
pub mod form;
pub mod gatt;
pub mod modbus;
pub mod mqtt;
pub mod scalar;

use std::sync::Arc;

use super::description::{DescriptionError, ThingDescription};
use super::schema::{SchemaError, ThingSchemas};
use form::FormError;

/// Why a description cannot be bound to a protocol. Whoever wrote it is to blame: a person, or a foreign device's ecosystem.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The description itself is wrong.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// One of its schemas is none.
    #[error("thing description, at {0}")]
    Schema(#[from] SchemaError),
    /// A form is wrong.
    #[error(transparent)]
    Form(#[from] FormError),
}

/// A foreign Thing before it is bound: its description, checked.
#[derive(Debug, Clone)]
pub struct Described {
    /// The validated description.
    pub description: Arc<ThingDescription>,
    /// Its schemas, compiled.
    pub schemas: Arc<ThingSchemas>,
}

impl Described {
    /// Checks a description document.
    ///
    /// # Errors
    /// [`BindError::Description`] and [`BindError::Schema`] name the path of what is wrong.
    pub fn from_value(document: serde_json::Value) -> Result<Self, BindError> {
        let description = ThingDescription::from_value(document)?;
        let schemas = ThingSchemas::compile(&description)?;
        Ok(Self {
            description: Arc::new(description),
            schemas: Arc::new(schemas),
        })
    }
}
