//! How a broker is spoken to, from any table that names one (`[fleet]`, `[[foreign.mqtt]]`, `[[broker]]`): clear text to this machine only unless it is allowed, TLS, login.

use std::path::PathBuf;
use std::time::Duration;

use autoglm_drivers::mqtt::{Access, Broker, ClientFiles, Login, TlsFiles, Transport};

use super::raw::{RawLogin, RawTls};
use super::validate::{ConfigError, Reject};

/// How systemd's credentials are named in the file.
const CREDENTIAL: &str = "credential:";

/// What a table says about its broker.
pub(super) struct Written<'a> {
    /// The table's name in messages, as `fleet`.
    pub(super) table: &'a str,
    /// The key in it that names the broker.
    pub(super) key: &'a str,
    /// `mqtts://host[:port]` or `mqtt://host[:port]`.
    pub(super) broker: &'a str,
    /// Whether clear text may leave this machine.
    pub(super) allow_clear: bool,
    /// MQTT keep-alive in seconds.
    pub(super) keep_alive_s: u64,
    /// The table `tls` below it.
    pub(super) tls: Option<&'a RawTls>,
    /// The table `login` below it.
    pub(super) login: Option<&'a RawLogin>,
}

impl Written<'_> {
    fn key(&self, member: &str) -> String {
        format!("{}.{member}", self.table)
    }

    fn refused(&self, reject: &Reject<'_>, why: &str) -> ConfigError {
        reject.value(self.key(self.key), self.broker, why)
    }

    /// Checks it all. The files are read only by a connection, and by `--check`.
    ///
    /// # Errors
    /// [`ConfigError`] names key and value.
    pub(super) fn broker(&self, reject: &Reject<'_>) -> Result<Broker, ConfigError> {
        let mut broker: Broker = self
            .broker
            .parse()
            .map_err(|error| reject.value(self.key(self.key), self.broker, error))?;
        let transport = match (&broker.access.transport, self.tls) {
            (Transport::Tls(_), Some(tls)) => Transport::Tls(self.tls_files(reject, tls)?),
            (Transport::Tls(_), None) => {
                return Err(self.refused(
                    reject,
                    &format!("needs [{}] with ca = the file of the authority that signed the broker's certificate", self.key("tls")),
                ));
            }
            (Transport::Clear, Some(_)) => {
                return Err(self.refused(
                    reject,
                    &format!(
                        "is in clear text, but there is [{}]: write mqtts://, or remove the table",
                        self.key("tls")
                    ),
                ));
            }
            (Transport::Clear, None) if !self.allow_clear && !broker.is_local() => {
                return Err(self.refused(
                    reject,
                    &format!(
                        "is in clear text and not on this machine: everybody on the way could read it and give commands. Write mqtts:// and [{}], \
                         or allow_clear = true where the network itself is trusted",
                        self.key("tls")
                    ),
                ));
            }
            (Transport::Clear, None) => Transport::Clear,
        };
        broker.access = Box::new(Access {
            transport,
            login: self
                .login
                .map(|login| self.login(reject, login))
                .transpose()?,
            keep_alive: Duration::from_secs(reject.within(
                &self.key("keep_alive_s"),
                self.keep_alive_s,
                5,
                3_600,
            )?),
        });
        Ok(broker)
    }

    fn tls_files(&self, reject: &Reject<'_>, raw: &RawTls) -> Result<TlsFiles, ConfigError> {
        let file = |member: &str, path: &str| file(reject, &self.key(member), path);
        let client = match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(key)) => Some(ClientFiles {
                certificate: file("tls.certificate", certificate)?,
                key: file("tls.key", key)?,
            }),
            (None, None) => None,
            (Some(certificate), None) => {
                return Err(reject.value(
                    self.key("tls.certificate"),
                    certificate,
                    format!("needs its private key in {}", self.key("tls.key")),
                ));
            }
            (None, Some(key)) => {
                return Err(reject.value(
                    self.key("tls.key"),
                    key,
                    format!("needs its certificate in {}", self.key("tls.certificate")),
                ));
            }
        };
        Ok(TlsFiles {
            authority: file("tls.ca", &raw.ca)?,
            client,
        })
    }

    fn login(&self, reject: &Reject<'_>, raw: &RawLogin) -> Result<Login, ConfigError> {
        if raw.user.is_empty() || raw.user.len() > 1_024 || raw.user.contains('\0') {
            return Err(reject.value(
                self.key("login.user"),
                &raw.user,
                "must be 1 to 1024 bytes of text",
            ));
        }
        Ok(Login {
            user: raw.user.clone(),
            password_file: file(reject, &self.key("login.password_file"), &raw.password_file)?,
        })
    }
}

/// An absolute path, or a credential that systemd has given to the service.
pub(super) fn file(reject: &Reject<'_>, key: &str, text: &str) -> Result<PathBuf, ConfigError> {
    let Some(name) = text.strip_prefix(CREDENTIAL) else {
        return match text.starts_with('/') {
            true => Ok(PathBuf::from(text)),
            false => Err(reject.value(
                key,
                text,
                "must be an absolute path, or credential:NAME for one of systemd's LoadCredential=",
            )),
        };
    };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(reject.value(key, text, "must be credential: and a name without slashes"));
    }
    // Outside the service there are none; the path then says what is missing.
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map_or_else(
        || PathBuf::from("/run/credentials/autoglm-edged.service"),
        PathBuf::from,
    );
    Ok(directory.join(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, FleetConfig};
    use super::*;

    fn read(fleet: &str) -> Result<FleetConfig, String> {
        let text = format!("[fleet]\n{fleet}");
        Config::from_text(&text, Path::new("config.toml"))
            .map(|config| config.fleet.unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn clear_text_leaves_this_machine_only_when_the_file_says_so() {
        assert!(read("broker = \"mqtt://127.0.0.1\"").is_ok());
        let message = read("broker = \"mqtt://broker.example\"").unwrap_err();
        assert!(message.contains("allow_clear"), "{message}");
        assert!(read("broker = \"mqtt://broker.example\"\nallow_clear = true").is_ok());
    }

    #[test]
    fn tls_needs_an_authority_and_a_certificate_needs_its_key() {
        let message = read("broker = \"mqtts://b\"").unwrap_err();
        assert!(message.contains("[fleet.tls]"), "{message}");
        let message = read("broker = \"mqtt://127.0.0.1\"\n[fleet.tls]\nca = \"/ca\"").unwrap_err();
        assert!(message.contains("mqtts://"), "{message}");
        let tls = "broker = \"mqtts://b\"\n[fleet.tls]\nca = \"/ca\"\n";
        let message = read(&format!("{tls}certificate = \"/c\"")).unwrap_err();
        assert!(message.contains("fleet.tls.key"), "{message}");
        let fleet = read(&format!("{tls}certificate = \"/c\"\nkey = \"/k\"")).unwrap();
        let Transport::Tls(files) = fleet.broker.access.transport else {
            panic!("it is TLS")
        };
        assert_eq!(files.authority, Path::new("/ca"));
        assert_eq!(files.client.unwrap().key, Path::new("/k"));
    }

    #[test]
    fn credentials_are_named_without_paths() {
        let login = |file: &str| {
            read(&format!(
                "broker = \"mqtt://127.0.0.1\"\n[fleet.login]\nuser = \"u\"\npassword_file = \"{file}\""
            ))
        };
        let found = login("credential:mqtt")
            .unwrap()
            .broker
            .access
            .login
            .unwrap();
        assert!(found.password_file.ends_with("mqtt"));
        for wrong in ["credential:../x", "credential:", "relative"] {
            assert!(
                login(wrong).unwrap_err().contains("password_file"),
                "{wrong}"
            );
        }
    }
}
