//! Secret keys: where they are, how their files look, and how new ones are made.
//!
//! A key file is one line, `psk:` or `private:` and 64 hexadecimal digits: what a key is for stands in it, so that one cannot be
//! taken for the other. It belongs to the daemon's user and is nobody else's to read, or it is refused. systemd hands keys over as
//! credentials (`LoadCredential=`), which it protects itself. No error, log line or answer contains any of it.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use autoglm_protocol::SecretKey;
use zeroize::Zeroizing;

/// Longest key file in bytes: a tag, the digits and a line's end.
const FILE_BYTES_MAX: u64 = 128;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Shared by the box and one device.
    PreShared,
    /// The private half of a static pair (X25519), which never leaves its end.
    Private,
}

impl KeyKind {
    fn tag(self) -> &'static str {
        match self {
            Self::PreShared => "psk:",
            Self::Private => "private:",
        }
    }
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A credential that systemd hands over, by its name.
    Credential(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(out),
            Self::Credential(name) => write!(out, "credential {name}"),
        }
    }
}

/// Why a key cannot be used. Says where, and never what.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("{place}: the key cannot be read (make one with `autoglmctl key new`)")]
    Unreadable {
        /// Where it should be.
        place: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error(
        "{path}: others may read this key (mode {mode:04o}): `chmod 600 {path}`, and make a new one if somebody may have"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no key, or one for something else.
    #[error(
        "{place}: this is no {wanted} key: one line, `{wanted}:` and 64 hexadecimal digits, as `autoglmctl key new` and `autoglmctl key pair` write it"
    )]
    Malformed {
        /// Where it is.
        place: String,
        /// What was wanted: `psk` or `private`.
        wanted: &'static str,
    },
    /// A credential is wanted, and systemd handed over none.
    #[error(
        "credential {name}: systemd handed over no credentials (LoadCredential={name}:PATH in the unit)"
    )]
    NoCredentials {
        /// Its name.
        name: String,
    },
    /// A new key cannot be written.
    #[error("{path}: the key cannot be written")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said: an existing key is never overwritten.
        #[source]
        source: std::io::Error,
    },
}

impl KeySource {
    /// Reads the key.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn load(&self, kind: KeyKind) -> Result<SecretKey, KeyError> {
        let text = self.load_text()?;
        let digits = text.trim_end().strip_prefix(kind.tag());
        let bytes = digits.and_then(from_hex).ok_or(KeyError::Malformed {
            place: self.to_string(),
            wanted: kind.tag().trim_end_matches(':'),
        })?;
        Ok(SecretKey::new(*bytes))
    }

    /// Reads a secret as it stands there, of 128 bytes at most, for who knows what it should look like.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn load_text(&self) -> Result<Zeroizing<String>, KeyError> {
        match self {
            Self::File(path) => load(path, Guard::Ours),
            Self::Credential(name) => {
                let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
                    return Err(KeyError::NoCredentials { name: name.clone() });
                };
                load(&Path::new(&directory).join(name), Guard::Systemd)
            }
        }
    }
}

/// Who keeps others from reading a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Ours,
    Systemd,
}

fn load(path: &Path, guard: Guard) -> Result<Zeroizing<String>, KeyError> {
    let place = path.display().to_string();
    let unreadable = |source| KeyError::Unreadable {
        place: place.clone(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // Of the open file, so that no other can be put in its place meanwhile.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if guard == Guard::Ours && mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(KeyError::Exposed { path, mode });
    }
    // Of its final size from the beginning: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

/// Writes a new key to a file that must not exist, readable by its owner alone.
///
/// # Errors
/// [`KeyError::Unwritable`]
pub fn create(path: &Path, kind: KeyKind) -> Result<SecretKey, KeyError> {
    let unwritable = |source| KeyError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Zeroizing::new([0u8; 32]);
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes[..])
        .map_err(|error| unwritable(std::io::Error::other(error)))?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(unwritable)?;
    let digits = Zeroizing::new(hex::encode(&bytes[..]));
    let line = Zeroizing::new(format!("{}{}\n", kind.tag(), &**digits));
    file.write_all(line.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(unwritable)?;
    Ok(SecretKey::new(*bytes))
}

/// 32 bytes of 64 hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(text, &mut bytes[..]).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_key_is_its_owners_alone_and_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desk.key");
        let made = create(&path, KeyKind::Private).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = KeySource::File(path.clone())
            .load(KeyKind::Private)
            .unwrap();
        assert_eq!(read.to_public(), made.to_public());
        assert!(
            matches!(
                create(&path, KeyKind::Private),
                Err(KeyError::Unwritable { .. })
            ),
            "a key is never overwritten"
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desk.key");
        create(&path, KeyKind::PreShared).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = KeySource::File(path.clone())
                .load(KeyKind::PreShared)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("chmod 600") && error.contains("desk.key"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_key_for_something_else_is_refused_without_being_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desk.key");
        create(&path, KeyKind::Private).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let error = KeySource::File(path.clone())
            .load(KeyKind::PreShared)
            .unwrap_err();
        let digits = text.trim().strip_prefix("private:").unwrap();
        assert!(error.to_string().contains("no psk key"), "{error}");
        assert!(!format!("{error} {error:?}").contains(&digits[..8]));
        for text in ["", "psk:", "psk:12", "psk:zz", &"0".repeat(64)] {
            std::fs::write(&path, text).unwrap();
            assert!(
                KeySource::File(path.clone())
                    .load(KeyKind::PreShared)
                    .is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn hexadecimal_digits_are_read_back() {
        let bytes: [u8; 32] = std::array::from_fn(|at| (at * 9) as u8);
        assert_eq!(*from_hex(&hex::encode(bytes)).unwrap(), bytes);
        assert!(from_hex(&"x".repeat(64)).is_none() && from_hex("00").is_none());
    }
}
