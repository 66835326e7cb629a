//! The two handshake messages, by the `snow` crate.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

use crate::wire::Role;

use super::cipher::{Ciphers, derive};
use super::{Forged, SecretKey, Security};

/// Bytes of each handshake message: an ephemeral public key and the tag of an empty payload.
const HANDSHAKE_BYTES: usize = 32 + 16;

/// Ephemeral keys out of a seed, a new one for each handshake.
#[derive(Debug)]
pub(crate) struct EphemeralSource {
    handshakes: u64,
}

impl EphemeralSource {
    pub(crate) fn new() -> Self {
        Self { handshakes: 0 }
    }

    fn next(&mut self, seed: &SecretKey) -> SecretKey {
        let ephemeral = derive(seed, self.handshakes);
        self.handshakes += 1;
        ephemeral
    }
}

/// A handshake under way. The host begins.
pub(crate) struct Handshake(HandshakeState);

impl Handshake {
    /// `None` without security. `prologue` must be the same at both ends.
    pub(crate) fn new(
        security: &Security,
        role: Role,
        source: &mut EphemeralSource,
        prologue: &[u8],
    ) -> Option<Self> {
        const VALID: &str = "the pattern is known and the keys have their length";
        let (pattern, key, statics, seed) = match security {
            Security::None => return None,
            Security::Psk { key, seed } => {
                ("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s", key, None, seed)
            }
            Security::Mutual {
                key,
                private,
                peer,
                seed,
            } => {
                let pattern = "Noise_KKpsk0_25519_ChaChaPoly_BLAKE2s";
                (pattern, key, Some((private, peer)), seed)
            }
        };
        let resolver = Box::new(Seeded(source.next(seed)));
        let build = || {
            let params = pattern.parse()?;
            let mut builder = Builder::with_resolver(params, resolver)
                .psk(0, key.bytes())?
                .prologue(prologue)?;
            if let Some((private, peer)) = statics {
                builder = builder
                    .local_private_key(private.bytes())?
                    .remote_public_key(peer)?;
            }
            match role {
                Role::Host => builder.build_initiator(),
                Role::Device => builder.build_responder(),
            }
        };
        let state: Result<HandshakeState, snow::Error> = build();
        Some(Self(state.expect(VALID)))
    }

    /// Our message.
    pub(crate) fn write(&mut self) -> Result<Vec<u8>, Forged> {
        let mut message = alloc::vec![0; HANDSHAKE_BYTES];
        // Fails on a public key of small order alone, which only a forger sends.
        let length = self
            .0
            .write_message(&[], &mut message)
            .map_err(|_| Forged)?;
        message.truncate(length);
        Ok(message)
    }

    /// Takes the other end's message.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<(), Forged> {
        let mut payload = [0; HANDSHAKE_BYTES];
        match self.0.read_message(message, &mut payload) {
            Ok(0) => Ok(()),
            _ => Err(Forged),
        }
    }

    /// The keys, after both messages.
    pub(crate) fn finish(mut self, role: Role) -> Box<Ciphers> {
        let (from_host, from_device) = self.0.dangerously_get_raw_split();
        let (from_host, from_device) = (SecretKey::new(from_host), SecretKey::new(from_device));
        Box::new(match role {
            Role::Host => Ciphers::new(&from_host, &from_device),
            Role::Device => Ciphers::new(&from_device, &from_host),
        })
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake(..)")
    }
}

/// snow's own primitives, with one ephemeral key where it asks for randomness.
struct Seeded(SecretKey);

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneKey(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives its key once; asked again it fails, rather than give the same again.
struct OneKey(Option<SecretKey>);

impl Random for OneKey {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(key) if dest.len() == 32 => dest.copy_from_slice(key.bytes()),
            _ => return Err(snow::Error::Rng),
        }
        Ok(())
    }
}
