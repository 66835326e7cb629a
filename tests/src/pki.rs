//! Certificates for tests: authorities, and what they sign.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority; its certificate stands in a file.
pub struct Authority {
    directory: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM files. The key is ours alone (mode 0600).
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valid {
    /// From yesterday until tomorrow.
    Now,
    /// Until yesterday.
    Formerly,
}

impl Authority {
    /// Makes an authority whose files begin with `name`.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn new(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem())?;
        Ok(Self {
            directory: directory.to_owned(),
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The file of its certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// Signs a certificate for these DNS names or addresses; the first is its common name, too.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn sign(&self, file: &str, names: &[&str], valid: Valid) -> anyhow::Result<Signed> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        if let Some(name) = names.first() {
            params
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
        }
        let now = SystemTime::now();
        (params.not_before, params.not_after) = match valid {
            Valid::Now => ((now - DAY).into(), (now + DAY).into()),
            Valid::Formerly => ((now - 3 * DAY).into(), (now - DAY).into()),
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let signed = Signed {
            certificate: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}.key")),
        };
        std::fs::write(&signed.certificate, certificate.pem())?;
        std::fs::write(&signed.key, key.serialize_pem())?;
        std::fs::set_permissions(&signed.key, std::fs::Permissions::from_mode(0o600))?;
        Ok(signed)
    }
}
