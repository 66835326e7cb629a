//! Bytes that nobody may see.

use core::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroize;

/// 32 secret bytes. They are wiped when dropped, and no formatting shows them.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// The key of these bytes; they must come from a cryptographic source of randomness.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The X25519 public key of a private one.
    #[must_use]
    pub fn to_public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        let dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519);
        let mut dh = dh.expect("the crate is built with 25519");
        dh.set(&self.0);
        public.copy_from_slice(dh.pubkey());
        public
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}
