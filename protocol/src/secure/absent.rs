//! What stands for security in a build without it: types that cannot exist, so that no code is left of them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::segment::Channel;
use crate::wire::Role;

use super::{Forged, Security};

#[derive(Debug)]
pub(crate) struct EphemeralSource;

impl EphemeralSource {
    pub(crate) fn new() -> Self {
        Self
    }
}

#[derive(Debug)]
pub(crate) enum Handshake {}

impl Handshake {
    pub(crate) fn new(
        _security: &Security,
        _role: Role,
        _source: &mut EphemeralSource,
        _prologue: &[u8],
    ) -> Option<Self> {
        None
    }

    pub(crate) fn write(&mut self) -> Result<Vec<u8>, Forged> {
        match *self {}
    }

    pub(crate) fn read(&mut self, _message: &[u8]) -> Result<(), Forged> {
        match *self {}
    }

    pub(crate) fn finish(self, _role: Role) -> Box<Ciphers> {
        match self {}
    }
}

#[derive(Debug)]
pub(crate) enum Ciphers {}

impl Ciphers {
    pub(crate) fn seal(&mut self, _channel: Channel, _message: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn open(&mut self, _channel: Channel, _message: &mut Vec<u8>) -> Result<(), Forged> {
        match *self {}
    }
}
