//! How a broker is spoken to: in clear text or over TLS 1.3, and as whom. Secrets stand in files, which are read anew for each
//! connection, so that renewed certificates need no restart.
//!
//! There is no switch that leaves a check out: the broker's certificate must be signed by the given authority and carry the name
//! that is connected to, and nothing older than TLS 1.3 is compiled in.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// Largest file taken as a certificate, key or password: system-wide bundles of authorities have some 220 KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Permission bits that a secret must not have: writable or executable by its group, anything for all others. Readable by the group
/// is how Debian shares keys, and how systemd's credentials look when they are handed out by an access control list.
const MODE_FORBIDDEN: u32 = 0o037;

/// How a broker is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// What carries the packets.
    pub transport: Transport,
    /// As whom, where the certificate is not enough.
    pub login: Option<Login>,
    /// MQTT keep-alive, at least 5 s: a half-open connection is noticed after one and a half of these.
    pub keep_alive: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            transport: Transport::Clear,
            login: None,
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// What carries the packets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP, readable by everybody on the way.
    Clear,
    /// TLS 1.3.
    Tls(TlsFiles),
}

/// What TLS needs, in PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsFiles {
    /// The authorities that may have signed the broker's certificate.
    pub authority: PathBuf,
    /// Our own certificate with its chain, and its key, where the broker asks for one.
    pub client: Option<ClientFiles>,
}

/// Our certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientFiles {
    /// Our certificate, then those that lead to the authority.
    pub certificate: PathBuf,
    /// Its private key; a secret.
    pub key: PathBuf,
}

/// A user and where the password stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Login {
    /// User name.
    pub user: String,
    /// The file with the password, of which line ends at its end are no part; a secret.
    pub password_file: PathBuf,
}

/// Why certificates, key or password cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// TLS without knowing whom to trust.
    #[error(
        "mqtts:// needs the file of the authority that signed the broker's certificate (tls.ca)"
    )]
    NoAuthority,
    /// A system without authorities, where none were named.
    #[error(
        "this system trusts no authority; install the package ca-certificates, or name a file (ca)"
    )]
    NoRoots,
    /// A file that cannot be read.
    #[error("cannot read {}; it must be there, and readable for this service", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that is larger than any certificate.
    #[error("{} has more than {FILE_BYTES_MAX} bytes: it is no PEM file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A secret that others can read.
    #[error("{} can be read or changed by others (mode {mode:04o}); do `chmod 600` on it and take a new secret", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file without what it should hold.
    #[error("{} holds no {what} in PEM form", path.display())]
    Nothing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A certificate that cannot be read.
    #[error("{}: certificate {number} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which in the file, from 1.
        number: usize,
    },
    /// Our certificate is over.
    #[error("{} expired at {until}; renew it", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its end.
        until: String,
    },
    /// Our certificate is not valid yet.
    #[error("{} is valid only from {from} on; is this box's clock right?", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        from: String,
    },
    /// Certificate and key are not of one pair.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What was found.
        #[source]
        source: rustls::Error,
    },
    /// A password or key that cannot be sent.
    #[error("{} holds no password or key (one line of text)", path.display())]
    Password {
        /// The file.
        path: PathBuf,
    },
}

impl Access {
    /// Reads and checks all files, as a connection at `now` would.
    ///
    /// # Errors
    /// [`AccessError`] names the file.
    pub fn check(&self, now: SystemTime) -> Result<(), AccessError> {
        if let Transport::Tls(files) = &self.transport {
            files.load(now)?;
        }
        if let Some(login) = &self.login {
            login.password()?;
        }
        Ok(())
    }
}

impl TlsFiles {
    /// Reads the files into what a connection needs.
    pub(super) fn load(&self, now: SystemTime) -> Result<Arc<ClientConfig>, AccessError> {
        if self.authority.as_os_str().is_empty() {
            return Err(AccessError::NoAuthority);
        }
        let mut authorities = RootCertStore::empty();
        for (at, certificate) in certificates(&self.authority)?.into_iter().enumerate() {
            authorities
                .add(certificate)
                .map_err(|_| AccessError::Damaged {
                    path: self.authority.clone(),
                    number: at + 1,
                })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .with_root_certificates(authorities);
        let Some(ClientFiles { certificate, key }) = &self.client else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let chain = certificates(certificate)?;
        is_current(certificate, &chain, now)?;
        let private = PrivateKeyDer::from_pem_slice(&secret(key)?);
        let private = private.map_err(|_| AccessError::Nothing {
            path: key.clone(),
            what: "private key",
        })?;
        let config = builder.with_client_auth_cert(chain, private);
        config.map(Arc::new).map_err(|source| AccessError::Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        })
    }
}

impl Login {
    /// Reads the password.
    pub(super) fn password(&self) -> Result<String, AccessError> {
        secret_line(&self.password_file)
    }
}

/// Reads a secret that is one line of text; line ends at its end are no part of it.
pub(crate) fn secret_line(path: &Path) -> Result<String, AccessError> {
    let refused = || AccessError::Password {
        path: path.to_owned(),
    };
    let text = String::from_utf8(secret(path)?).map_err(|_| refused())?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() || line.contains(['\n', '\0']) {
        return Err(refused());
    }
    Ok(line.to_owned())
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let (file, _) = open(path)?;
    let bytes = read(path, file)?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        certificates.push(certificate.map_err(|_| AccessError::Damaged {
            path: path.to_owned(),
            number: certificates.len() + 1,
        })?);
    }
    if certificates.is_empty() {
        return Err(AccessError::Nothing {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(certificates)
}

/// Whether our certificate is valid at `now`: the broker would only say that it does not want it.
fn is_current(
    path: &Path,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), AccessError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let Ok(now) = ASN1Time::from_timestamp(i64::try_from(now).unwrap_or(i64::MAX)) else {
        // A clock beyond the year 9999 can judge nothing; the broker will.
        return Ok(());
    };
    for (at, certificate) in chain.iter().enumerate() {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| AccessError::Damaged {
                path: path.to_owned(),
                number: at + 1,
            })?;
        let validity = parsed.validity();
        let path = path.to_owned();
        if now > validity.not_after {
            let until = validity.not_after.to_string();
            return Err(AccessError::Expired { path, until });
        }
        if now < validity.not_before {
            let from = validity.not_before.to_string();
            return Err(AccessError::NotYetValid { path, from });
        }
    }
    Ok(())
}

/// Reads a file that only we may see.
fn secret(path: &Path) -> Result<Vec<u8>, AccessError> {
    let (file, mode) = open(path)?;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(AccessError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read(path, file)
}

/// Opens a file; its permission bits are those of what was opened, whatever the path leads to a moment later.
fn open(path: &Path) -> Result<(File, u32), AccessError> {
    let opened = File::open(path).and_then(|file| {
        let mode = file.metadata()?.mode() & 0o7777;
        Ok((file, mode))
    });
    opened.map_err(|source| AccessError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path, file: File) -> Result<Vec<u8>, AccessError> {
    let mut bytes = Vec::new();
    let count = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    match count {
        Ok(count) if count as u64 > FILE_BYTES_MAX => Err(AccessError::TooLarge {
            path: path.to_owned(),
        }),
        Ok(_) => Ok(bytes),
        Err(source) => Err(AccessError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secret_that_others_can_read_is_refused_with_its_mode() {
        let path = std::env::temp_dir().join(format!("autoglm-secret-{}", std::process::id()));
        std::fs::write(&path, "open sesame\n").unwrap();
        let login = Login {
            user: "box".to_owned(),
            password_file: path.clone(),
        };
        let with_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            login.password().map_err(|error| error.to_string())
        };
        assert_eq!(with_mode(0o600).as_deref(), Ok("open sesame"));
        assert_eq!(with_mode(0o440).as_deref(), Ok("open sesame"));
        for mode in [0o604, 0o660, 0o666] {
            let message = with_mode(mode).unwrap_err();
            assert!(
                message.contains("chmod 600") && message.contains(&format!("{mode:04o}")),
                "{message}"
            );
        }
        std::fs::remove_file(&path).unwrap();
    }
}
