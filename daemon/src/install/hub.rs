//! Repositories of the Hugging Face hub, or of whoever speaks as it does (`HF_ENDPOINT`).
//!
//! The hf-hub crate knows the addresses, the list of a repository's files and the token; the files themselves are fetched here with the HTTP
//! client under it, because they are counted, hashed and, when wanted, given up while they come, and because hf-hub names files in its cache after what the
//! server says (`etag`). All files come from the one commit that the list was made of.
//!
//! Environment: `HF_ENDPOINT` (`https://huggingface.co`), `HF_TOKEN` or the file that the hub's own tools keep (`HF_HOME`), and the usual
//! variables of proxies. Certificates are checked against Mozilla's list.

use std::{
    env, fmt,
    io::{self, Read},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};
use thiserror::Error;
use ureq::Agent;

use crate::inference::bundle::{MANIFEST_BYTES_MAX, MANIFEST_FILE};

use super::{InstallError, transfer::Transfer};

/// A server that says nothing for so long is taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const ENDPOINT: &str = "https://huggingface.co";

/// The name of a repository: `OWNER/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryId(String);

impl RepositoryId {
    /// `None` for what the hub would not take: other letters than A-Z a-z 0-9 . _ -, `..` or `--`, an end with `.` or `-`, more than 96 each.
    pub fn new(text: &str) -> Option<Self> {
        let is_good = |part: &str| {
            (1..=96).contains(&part.len())
                && part
                    .bytes()
                    .all(|letter| letter.is_ascii_alphanumeric() || b"._-".contains(&letter))
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                && !part.contains("..")
                && !part.contains("--")
        };
        let (owner, name) = text.split_once('/')?;
        (is_good(owner) && is_good(name)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with the hub, the way there, or what was asked of it.
#[derive(Debug, Error)]
pub enum HubError {
    /// `HF_ENDPOINT` cannot be used.
    #[error("HF_ENDPOINT is {endpoint:?}: {why}")]
    Endpoint {
        /// Its value.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A revision that cannot be one.
    #[error("the revision {revision:?} is no branch, tag or commit")]
    Revision {
        /// What was given.
        revision: String,
    },
    /// There is no such repository or revision, or not for this caller.
    #[error("{repository} is not there, or not for you (the hub answered {status})")]
    NoRepository {
        /// Its name and revision.
        repository: String,
        /// HTTP's number.
        status: u16,
    },
    /// The hub refused or failed.
    #[error("the hub at {endpoint} answered {status} for {what}")]
    Status {
        /// The hub.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// HTTP's number.
        status: u16,
    },
    /// The hub could not be asked.
    #[error("the hub at {endpoint} cannot be asked for {what}")]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The hub's answer is none.
    #[error("the hub at {endpoint} gave no usable answer for {what}: {why}")]
    Answer {
        /// The hub.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file has a name that cannot be asked for.
    #[error("{repository} names the file {file:?}, which cannot be asked for")]
    File {
        /// The repository.
        repository: String,
        /// The name.
        file: String,
    },
}

impl HubError {
    /// Whether the hub or the way there is at fault, and the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}

/// A branch, tag or commit as the hub takes it.
///
/// # Errors
/// [`HubError::Revision`].
pub(super) fn check_revision(revision: &str) -> Result<String, HubError> {
    let is_usual = |letter: u8| letter.is_ascii_alphanumeric() || b"._-/".contains(&letter);
    let is_good = (1..=200).contains(&revision.len())
        && revision.bytes().all(is_usual)
        && !revision.contains("..")
        && !revision.starts_with(['/', '-', '.']);
    match is_good {
        true => Ok(revision.to_owned()),
        false => Err(HubError::Revision {
            revision: revision.to_owned(),
        }),
    }
}

/// A hub.
pub(super) struct Hub {
    endpoint: String,
    token: Option<String>,
    api: Api,
}

impl Hub {
    /// The hub that the environment names.
    pub(super) fn from_env() -> Result<Self, HubError> {
        let endpoint = env::var("HF_ENDPOINT").ok().filter(|it| !it.is_empty());
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        // Without a home hf-hub would panic, and without one there is no file with a token either.
        let has_home = env::var_os("HF_HOME").or_else(|| env::var_os("HOME"));
        let cache = match has_home {
            Some(_) => Cache::from_env(),
            None => Cache::new(PathBuf::from("/nonexistent/hub")),
        };
        let token = env::var("HF_TOKEN").ok().filter(|it| !it.is_empty());
        let token = token.or_else(|| cache.token());
        check_endpoint(&endpoint, token.is_some())?;
        let api = ApiBuilder::from_cache(cache)
            .with_endpoint(endpoint.clone())
            .with_token(token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| unreachable(&endpoint, "anything", error))?;
        Ok(Self {
            endpoint,
            token,
            api,
        })
    }

    /// Looks at a repository, and reads its `model.toml`.
    pub(super) fn open(
        self,
        id: &RepositoryId,
        revision: Option<&str>,
    ) -> Result<Repository, InstallError> {
        let named = revision.unwrap_or("main");
        let repo = |revision: &str| {
            Repo::with_revision(id.0.clone(), RepoType::Model, revision.to_owned())
        };
        let what = match revision {
            Some(revision) => format!("{id} at {revision}"),
            None => id.to_string(),
        };
        let info = self.api.repo(repo(named)).info();
        let info = info.map_err(|error| match status_of(&error) {
            // The hub tells nobody that a private repository exists.
            Some(status @ (401 | 403 | 404)) => HubError::NoRepository {
                repository: what.clone(),
                status,
            },
            Some(status) => HubError::Status {
                endpoint: self.endpoint.clone(),
                what: what.clone(),
                status,
            },
            None => unreachable(&self.endpoint, &what, error),
        })?;
        if !info.siblings.iter().any(|it| it.rfilename == MANIFEST_FILE) {
            return Err(InstallError::NoManifest { origin: what });
        }
        let is_commit =
            (1..=64).contains(&info.sha.len()) && info.sha.bytes().all(|it| it.is_ascii_hexdigit());
        if !is_commit {
            let why = format!(
                "{:?} is no commit",
                info.sha.chars().take(80).collect::<String>()
            );
            return Err(HubError::Answer {
                endpoint: self.endpoint,
                what,
                why,
            }
            .into());
        }
        let agent = Agent::config_builder()
            .timeout_connect(Some(SILENCE_MAX))
            .timeout_recv_response(Some(SILENCE_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .build()
            .new_agent();
        let mut repository = Repository {
            what,
            at: self.api.repo(repo(&info.sha)),
            agent,
            endpoint: self.endpoint,
            token: self.token,
            manifest: Vec::new(),
        };
        let mut manifest = Vec::new();
        repository
            .read(MANIFEST_FILE, None)
            .take(MANIFEST_BYTES_MAX)
            .read_to_end(&mut manifest)
            .map_err(|error| repository.broken(MANIFEST_FILE, error))?;
        repository.manifest = manifest;
        Ok(repository)
    }
}

fn check_endpoint(endpoint: &str, has_token: bool) -> Result<(), HubError> {
    let refuse = |why| {
        Err(HubError::Endpoint {
            endpoint: endpoint.to_owned(),
            why,
        })
    };
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return refuse("it must begin with https:// or http://");
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(host) => host.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
    match scheme {
        _ if host.is_empty() || rest.contains('@') => refuse("it names no host"),
        "https" => Ok(()),
        "http" if has_token && !is_here => {
            refuse("your token would go there in the clear; unset HF_TOKEN or use https://")
        }
        "http" => Ok(()),
        _ => refuse("it must begin with https:// or http://"),
    }
}

fn status_of(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match error.as_ref() {
            ureq::Error::StatusCode(status) => Some(*status),
            _ => None,
        },
        _ => None,
    }
}

fn unreachable(
    endpoint: &str,
    what: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> HubError {
    HubError::Unreachable {
        endpoint: endpoint.to_owned(),
        what: what.to_owned(),
        source: source.into(),
    }
}

/// One commit of a repository.
pub(super) struct Repository {
    what: String,
    at: ApiRepo,
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    manifest: Vec<u8>,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Repository {
    /// The content of `model.toml`.
    pub(super) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Whether a name can stand in an address as it is.
    pub(super) fn check_file(&self, file: &str) -> Result<(), HubError> {
        let is_usual = |letter: u8| letter.is_ascii_alphanumeric() || b"._-/+".contains(&letter);
        match file.bytes().all(is_usual) {
            true => Ok(()),
            false => Err(HubError::File {
                repository: self.what.clone(),
                file: file.to_owned(),
            }),
        }
    }

    /// The content of a file; `bytes` is where it ends, if that is known.
    pub(super) fn read(&self, file: &str, bytes: Option<u64>) -> Transfer<'_> {
        Transfer::new(&self.agent, self.token.as_deref(), self.at.url(file), bytes)
    }

    /// What an error of a [`Transfer`] means.
    pub(super) fn broken(&self, file: &str, error: io::Error) -> HubError {
        let what = format!("{file} of {}", self.what);
        let status = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ureq::Error>())
            .and_then(|inner| match inner {
                ureq::Error::StatusCode(status) => Some(*status),
                _ => None,
            });
        match status {
            Some(status) => HubError::Status {
                endpoint: self.endpoint.clone(),
                what,
                status,
            },
            None => unreachable(&self.endpoint, &what, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        for good in ["onnx-community/SmolLM2-135M", "a/b", "A.b_c/d-e.f"] {
            assert!(RepositoryId::new(good).is_some(), "{good}");
        }
        let long = format!("a/{}", "b".repeat(97));
        for bad in [
            "", "a", "/", "a/", "/b", "a/b/c", "a/..", "../b", "a/b..c", "a/b--c", "a/-b", "a/b.",
            "a/b c", "a/b?x", "a/%2e", &long,
        ] {
            assert!(RepositoryId::new(bad).is_none(), "{bad}");
        }
        for bad in ["", "../main", "/x", "a b", "-x", "x?y"] {
            assert!(check_revision(bad).is_err(), "{bad}");
        }
        assert_eq!(check_revision("refs/pr/1").unwrap(), "refs/pr/1");
    }

    #[test]
    fn a_token_goes_nowhere_in_the_clear() {
        for good in [
            "https://hub.example",
            "http://127.0.0.1:8080",
            "http://[::1]:80/x",
            "http://localhost",
        ] {
            assert!(check_endpoint(good, true).is_ok(), "{good}");
        }
        assert!(check_endpoint("http://hub.example", false).is_ok());
        for bad in [
            "http://hub.example",
            "http://127.0.0.1.example",
            "ftp://x",
            "hub.example",
            "https://",
            "http://a@127.0.0.1",
        ] {
            assert!(check_endpoint(bad, true).is_err(), "{bad}");
        }
    }
}
