//! The target of a form: resolved against the description's base, taken apart, percent-decoded.

use std::fmt;

use super::{FormError, FormFault, at};

/// The longest `href` or `base`, in bytes.
pub const HREF_BYTES_MAX: usize = 1024;

/// An absolute URI, taken apart: `scheme://authority/segments?query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Href {
    /// Scheme in lower case.
    pub scheme: String,
    /// Host and port, as written.
    pub authority: String,
    /// What follows the authority's slash, percent-decoded; not split, since MQTT topics contain slashes.
    pub path: String,
    /// `name=value` pairs after `?`, percent-decoded.
    pub query: Vec<(String, String)>,
}

impl fmt::Display for Href {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}/{}", self.scheme, self.authority, self.path)
    }
}

/// Resolves a reference against the base, as far as bindings need it: an absolute URI stands for itself, anything else is appended.
pub(super) fn resolve(path: &str, href: &str, base: Option<&str>) -> Result<Href, FormError> {
    let absolute = match (href.contains("://"), base) {
        (true, _) => href.to_owned(),
        (false, Some(base)) => format!(
            "{}/{}",
            base.trim_end_matches('/'),
            href.trim_start_matches('/')
        ),
        (false, None) => {
            return Err(at(
                path,
                FormFault::Contradiction("is relative, and the description has no base"),
            ));
        }
    };
    let wrong = |allowed| {
        let found = href.chars().take(80).collect();
        at(path, FormFault::Value { found, allowed })
    };
    if absolute.len() > HREF_BYTES_MAX {
        return Err(wrong("at most 1024 bytes"));
    }
    let (scheme, rest) = absolute
        .split_once("://")
        .ok_or_else(|| wrong("an absolute URI"))?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, target) = before.split_once('/').unwrap_or((before, ""));
    if scheme.is_empty() || authority.is_empty() {
        return Err(wrong("scheme://name/target"));
    }
    let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("percent-encoded UTF-8"));
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect::<Result<_, FormError>>()?;
    Ok(Href {
        scheme: scheme.to_ascii_lowercase(),
        authority: authority.to_owned(),
        path: decode(target)?,
        query,
    })
}

/// RFC 3986 §2.1. None when an escape is broken or the result is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Writes a text so that [`Href`] gives it back: everything but unreserved characters and slashes is escaped.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
