//! From configured keys to the protocol's security.

use autoglm_protocol::{SecretKey, Security};
use rand::TryRngCore as _;
use zeroize::Zeroizing;

use super::board::Privacy;
use crate::config::{KeyError, KeyKind, Protection};

/// Reads the keys. They live in the security that is returned, and are wiped with it.
///
/// # Errors
/// [`KeyError`]; a device whose key cannot be read is not spoken to.
pub fn security(protection: &Protection) -> Result<Security, KeyError> {
    Ok(match protection {
        Protection::Clear => Security::None,
        Protection::PreShared { key } => Security::Psk {
            key: key.load(KeyKind::PreShared)?,
            seed: seed(),
        },
        Protection::Mutual {
            key,
            identity,
            peer,
        } => Security::Mutual {
            key: key.load(KeyKind::PreShared)?,
            private: identity.load(KeyKind::Private)?,
            peer: *peer,
            seed: seed(),
        },
    })
}

/// How links of such a device are protected.
#[must_use]
pub fn privacy(protection: &Protection) -> Privacy {
    match protection {
        Protection::Clear => Privacy::Clear,
        Protection::PreShared { .. } | Protection::Mutual { .. } => Privacy::Private,
    }
}

/// What to do when whoever answers is not authentic.
#[must_use]
pub fn remedy(protection: &Protection) -> String {
    match protection {
        Protection::Clear => {
            "the device demands a key, and none is configured (key = { file = \"…\" } under its [[device]])"
                .to_owned()
        }
        Protection::PreShared { key } => format!(
            "the device does not have the key of {key}, or uses none: give it that key, or name its own here"
        ),
        Protection::Mutual { key, identity, .. } => format!(
            "the device does not have the key of {key}, or its static pair is not the one of `peer`, or it does not know the \
             public half of {identity}"
        ),
    }
}

/// Randomness for one machine's handshakes.
fn seed() -> SecretKey {
    let mut bytes = Zeroizing::new([0u8; 32]);
    rand::rngs::OsRng.try_fill_bytes(&mut bytes[..]).expect(
        "the kernel's random generator does not fail once it is up, and it was asked before main",
    );
    SecretKey::new(*bytes)
}
