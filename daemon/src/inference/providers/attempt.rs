//! One candidate for one model: remembered or tried, judged, and let into the daemon when it is good enough.

use std::{num::NonZeroUsize, path::Path};

use super::{
    super::{
        bundle::Bundle,
        error::{LoadError, chain},
        runtime::Runtime,
    },
    builtin::Options,
    candidate::{Candidate, Origin},
    desk::{Memory, Providers},
    fingerprint, inspect, library,
    outcome::{Compiled, Outcome, Verdict},
    placement::{Placement, Tried},
    policy::Policy,
    trial::{self, COMPILED, Proof, TrialError},
};

/// One candidate for one model.
pub(super) struct Attempt<'a> {
    pub(super) desk: &'a Providers,
    pub(super) bundle: &'a Bundle,
    pub(super) runtime: &'a Runtime,
    pub(super) threads: NonZeroUsize,
    pub(super) policy: &'a Policy,
    pub(super) memory: Memory,
}

impl Attempt<'_> {
    /// What becomes of `candidate`, and the placement if it is good enough.
    pub(super) fn on(
        &self,
        candidate: &Candidate,
    ) -> Result<(Tried, Option<Placement>), LoadError> {
        let mut tried = Tried {
            who: candidate.to_string(),
            provider: candidate.provider.clone(),
            device: candidate.kind.as_str(),
            verdict: Verdict::NotAllowed,
            measured: None,
            is_remembered: false,
        };
        if !self.policy.allows(candidate) {
            return Ok((tried, None));
        }
        let options = self.policy.options_for(candidate);
        let key = fingerprint::key(self.bundle, self.runtime, candidate, &options, self.threads);
        let key = key.map_err(|source| LoadError::Trial {
            source: TrialError::start("reading what it depends on")(source),
        })?;
        let remembered = match self.memory {
            Memory::Use => self.recall(&key),
            Memory::Renew => None,
        };
        tried.is_remembered = remembered.is_some();
        let outcome = match remembered {
            Some(outcome) => outcome,
            None => self.prove(candidate, &options, &key)?,
        };
        tried.verdict = self.policy.judge(&outcome);
        tracing::info!(model = %self.bundle.manifest().name, %candidate, verdict = %tried.verdict, remembered = tried.is_remembered,
            "provider");
        let Outcome::Measured(measured) = outcome else {
            return Ok((tried, None));
        };
        let compiled = measured.compiled.clone();
        tried.measured = Some(measured);
        if tried.verdict != Verdict::Accepted {
            return Ok((tried, None));
        }
        if let Origin::Library(path) = &candidate.origin {
            let name = inspect::registration_name(path);
            let registered = library::digest(path)
                .map_err(|error| ort::Error::new(error.to_string()))
                .and_then(|digest| self.runtime.register(path, name, &digest));
            if let Err(error) = registered {
                tried.verdict = Verdict::Failed {
                    stage: "registering the library in the daemon".into(),
                    message: chain(&error),
                };
                return Ok((tried, None));
            }
        }
        let mut placement = Placement {
            candidate: candidate.clone(),
            options,
            lets_cpu_help: self.policy.lets_cpu_help(),
            compiled: None,
        };
        match compiled {
            Compiled::Kept { .. } => placement.compiled = self.desk.cache.graph(&key),
            Compiled::ByProvider { .. } => {
                let dir = self.desk.cache.own_dir(&key).ok();
                let own = dir.and_then(|dir| trial::own_cache(candidate, &dir));
                placement.options.extend(own.into_iter().flatten());
            }
            Compiled::None | Compiled::Unusable { .. } => {}
        }
        Ok((tried, Some(placement)))
    }

    fn recall(&self, key: &str) -> Option<Outcome> {
        match self.desk.config.verdicts.as_ref()?.recall(key) {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(%error, "what was measured before cannot be read; it is measured again");
                None
            }
        }
    }

    fn prove(
        &self,
        candidate: &Candidate,
        options: &Options,
        key: &str,
    ) -> Result<Outcome, LoadError> {
        let library = match &candidate.origin {
            Origin::Builtin => None,
            Origin::Library(path) => Some(path.as_path()),
        };
        let proof = Proof {
            bundle: self.bundle.dir().to_owned(),
            candidate: candidate.clone(),
            options: options.clone(),
            threads: self.threads,
            compile: self.desk.config.cache_bytes_max > 0,
        };
        let time_max = self.desk.config.trial_time_max;
        let (work, report) = self
            .desk
            .trial(self.runtime, library, Some(proof), time_max)?;
        let outcome = match (report.measured, report.failure) {
            (Some(mut measured), _) => {
                self.keep(&work, key, &mut measured.compiled);
                Outcome::Measured(measured)
            }
            (None, failure) => {
                let failure = failure.unwrap_or_else(|| trial::Failure {
                    stage: "the end".into(),
                    message: "it measured nothing".into(),
                });
                Outcome::Failed {
                    stage: failure.stage,
                    message: failure.message.chars().take(2000).collect(),
                }
            }
        };
        let _ = std::fs::remove_dir_all(&work);
        if let Some(verdicts) = &self.desk.config.verdicts
            && let Err(error) = verdicts.remember(key, &outcome)
        {
            tracing::warn!(%error, "what was measured cannot be remembered; it is measured again at the next start");
        }
        Ok(outcome)
    }

    /// Moves what was compiled out of the child's directory. The provider's word is not enough: only what lies there counts.
    fn keep(&self, work: &Path, key: &str, compiled: &mut Compiled) {
        let is_made = matches!(
            compiled,
            Compiled::Kept { .. } | Compiled::ByProvider { .. }
        );
        if !is_made {
            return self.desk.cache.forget(key);
        }
        match self.desk.cache.keep(key, &work.join(COMPILED)) {
            Ok(true) => {}
            Ok(false) => {
                *compiled = Compiled::Unusable {
                    message: "it is larger than all compiled graphs together may be".into(),
                };
            }
            Err(error) => {
                *compiled = Compiled::Unusable {
                    message: format!("it cannot be kept: {error}"),
                };
            }
        }
    }
}
