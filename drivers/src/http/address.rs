//! Where a server is: what stands before the paths of its interface.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// `https://host[:port][/prefix]` or `http://…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Base {
    is_tls: bool,
    /// A name or an address, the latter without brackets.
    host: String,
    port: u16,
    /// Empty, or with a slash at its beginning and none at its end.
    prefix: String,
}

/// Why a text is no server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has no scheme that is spoken here.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// It is no address, or names no host.
    #[error("must be https://HOST[:PORT][/PREFIX]")]
    Malformed,
    /// A user, password or key in it: it would be shown in status and logs.
    #[error("must not hold a user or password; a key belongs into a file")]
    Secret,
    /// Something after the path.
    #[error("must end with its path, without ? or #")]
    Query,
}

impl Base {
    /// Whether what is sent is protected on its way.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it is this machine, so that nothing sent there leaves it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Its name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands before the interface's own paths.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the header `Host` says.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl FromStr for Base {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let is_tls = match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => true,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(AddressError::Scheme),
        };
        if text.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        let uri: Uri = text.parse().map_err(|_| AddressError::Malformed)?;
        let authority = uri.authority().ok_or(AddressError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::Secret);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        // The library takes a port that is none for a part of the host.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => None,
            Some(_) => Some(authority.port_u16().ok_or(AddressError::Malformed)?),
            None => return Err(AddressError::Malformed),
        };
        if host.is_empty() || port == Some(0) {
            return Err(AddressError::Malformed);
        }
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, shown, port) in [
            ("https://gpu.example", "https://gpu.example", 443),
            ("HTTPS://gpu.example:443/", "https://gpu.example", 443),
            (
                "https://gpu.example:8000/openai/",
                "https://gpu.example:8000/openai",
                8000,
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", 8080),
            ("http://[::1]:80", "http://[::1]", 80),
        ] {
            let base: Base = text.parse().unwrap();
            assert_eq!((base.to_string().as_str(), base.port()), (shown, port));
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        let is_local = |text: &str| text.parse::<Base>().unwrap().is_local();
        assert!(is_local("http://localhost:1") && is_local("http://127.9.9.9"));
        assert!(is_local("http://[::1]:8000"));
        assert!(!is_local("http://10.0.0.1") && !is_local("http://localhost.example"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, error) in [
            ("gpu.example:8000", AddressError::Scheme),
            ("ftp://gpu.example", AddressError::Scheme),
            ("https://", AddressError::Malformed),
            ("https://gpu.example:0", AddressError::Malformed),
            ("https://gpu.example:70000", AddressError::Malformed),
            ("https://gpu.example:http", AddressError::Malformed),
            ("https://me:secret@gpu.example", AddressError::Secret),
            ("https://gpu.example/?key=secret", AddressError::Query),
        ] {
            assert_eq!(text.parse::<Base>(), Err(error), "{text}");
        }
    }
}
