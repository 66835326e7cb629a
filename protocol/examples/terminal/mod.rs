//! What the example devices have of their surroundings: a line, randomness, a key.

use std::fs::File;
use std::io::Read;
use std::sync::mpsc;

use autoglm_protocol::{SecretKey, Security};

/// Of a key of 64 hexadecimal digits, or of none.
pub(crate) fn security(key: Option<&str>) -> std::io::Result<Security> {
    let Some(hex) = key else {
        return Ok(Security::None);
    };
    let wrong = || std::io::Error::other("the key is 64 hexadecimal digits");
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(wrong());
    }
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(Security::Psk {
        key: SecretKey::new(key),
        seed: SecretKey::new(random()?),
    })
}

/// A microcontroller has a generator for it.
pub(crate) fn random<const BYTES: usize>() -> std::io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What comes off the line; it ends with the line.
pub(crate) fn bytes_of(mut line: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = line.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
