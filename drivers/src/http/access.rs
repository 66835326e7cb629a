//! How a server is spoken to: whom to trust, and with which key. Files are read anew for each request, so that renewed ones need
//! no restart. The key leaves this module only as a header that is marked as secret; nothing prints it.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::HeaderValue;
use rustls::{ClientConfig, RootCertStore};

use super::address::Base;
use crate::mqtt::AccessError;
use crate::mqtt::access::{certificates, secret_line};

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where it is.
    pub base: Base,
    /// The PEM file with the authorities that may have signed its certificate; `None` trusts those of the system.
    pub authority: Option<PathBuf>,
    /// The file with the key that it is shown (`Authorization: Bearer …`), one line; only its owner may read it.
    pub key_file: Option<PathBuf>,
}

/// What was read from the files.
pub(super) struct Loaded {
    /// `None` for clear text.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) key: Option<HeaderValue>,
}

impl Access {
    /// Reads and checks the files, as a request would now.
    ///
    /// # Errors
    /// [`AccessError`] names the file.
    pub fn check(&self) -> Result<(), AccessError> {
        self.load().map(drop)
    }

    pub(super) fn load(&self) -> Result<Loaded, AccessError> {
        let key = self.key_file.as_ref().map(|path| {
            let bad = || AccessError::Password { path: path.clone() };
            let line = secret_line(path)?;
            let mut value = HeaderValue::try_from(format!("Bearer {line}")).map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok(value)
        });
        let tls = self.base.is_tls().then(|| self.tls());
        Ok(Loaded {
            tls: tls.transpose()?,
            key: key.transpose()?,
        })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, AccessError> {
        let mut roots = RootCertStore::empty();
        match &self.authority {
            Some(path) => {
                for (at, certificate) in certificates(path)?.into_iter().enumerate() {
                    roots.add(certificate).map_err(|_| AccessError::Damaged {
                        path: path.clone(),
                        number: at + 1,
                    })?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                // Some of a system's certificates may be damaged or of an unknown kind; the rest is worth trusting all the same.
                let (added, _) = roots.add_parsable_certificates(found.certs);
                if added == 0 {
                    return Err(AccessError::NoRoots);
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
