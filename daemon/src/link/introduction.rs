//! Learns what a device is: its description, once per content, and the values that it lets be observed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use autoglm_drivers::port::{Port, PortError};
use autoglm_protocol::{PeerInfo, Reply, Request, RequestId};

use crate::things::description::{DescriptionError, ThingDescription};
use crate::things::schema::{SchemaError, ThingSchemas};
use crate::things::value;

/// Time that a device has to describe itself, a slow line and a short interruption included.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Contents that are remembered. One device has one; more than a handful means that it is being reflashed.
const KNOWN_MAX: usize = 8;

/// Why a device could not be introduced.
#[derive(Debug, thiserror::Error)]
pub enum IntroductionError {
    /// It did not answer.
    #[error("the device did not describe itself: {0}")]
    Undescribed(#[from] PortError),
    /// It answered with something else.
    #[error("the device's description is not UTF-8")]
    NotText,
    /// It is not a Thing Description.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// Its schemas are not.
    #[error("the device's description: {0}")]
    Schema(#[from] SchemaError),
}

/// A description that was read and checked.
#[derive(Debug, Clone)]
pub struct Described {
    /// What the device says about itself.
    pub description: Arc<ThingDescription>,
    /// Its affordances' schemas, compiled.
    pub schemas: Arc<ThingSchemas>,
}

/// Descriptions by hash, so that a device that returns is not asked again. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Mutex<BTreeMap<[u8; 32], Described>>>);

impl Known {
    fn find(&self, hash: &[u8; 32]) -> Option<Described> {
        let known = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        known.get(hash).cloned()
    }

    fn keep(&self, hash: [u8; 32], described: Described) {
        let mut known = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash, described);
    }
}

/// Learns the device's description.
///
/// # Errors
/// [`IntroductionError`]
pub async fn describe(
    port: Port,
    peer: PeerInfo,
    known: Known,
) -> Result<Described, IntroductionError> {
    if let Some(described) = peer.description_hash.and_then(|hash| known.find(&hash)) {
        return Ok(described);
    }
    let answer = port
        .request(fresh_id(), Request::Describe, INTRODUCTION)
        .await?;
    let Reply::Description { hash, document } = answer.reply else {
        return Err(IntroductionError::NotText);
    };
    let text = String::from_utf8(document).map_err(|_| IntroductionError::NotText)?;
    let description = ThingDescription::from_json(&text)?;
    let schemas = Arc::new(ThingSchemas::compile(&description)?);
    let described = Described {
        description: Arc::new(description),
        schemas,
    };
    known.keep(hash, described.clone());
    Ok(described)
}

/// Asks for each observable property to be reported, and returns the values as they are now.
pub async fn observe(
    port: Port,
    description: Arc<ThingDescription>,
) -> Vec<(String, serde_json::Value)> {
    let mut values = Vec::new();
    let observable = description
        .properties
        .iter()
        .filter(|(_, property)| property.observable && !property.schema.write_only);
    for (property, _) in observable {
        let request = Request::Observe {
            property: property.clone(),
        };
        match port.request(fresh_id(), request, INTRODUCTION).await {
            Ok(answer) => {
                if let Reply::Value(now) = answer.reply {
                    values.push((property.clone(), value::to_json(now)));
                }
            }
            Err(error) => tracing::warn!(%property, %error, "property cannot be observed"),
        }
    }
    values
}

/// An id that no request to any device has had: it remembers them over our restarts, and would answer with an old value.
fn fresh_id() -> RequestId {
    RequestId(rand::random())
}
