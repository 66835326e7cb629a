//! The desk where a model's thread asks on what to run: finds candidates, tries them or remembers, judges, and lets the chosen one in.
//!
//! One lock is held over a whole choice, so that trials never run side by side and spoil each other's times.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        bundle::Bundle,
        error::LoadError,
        examine::{self, Examination, Examined},
        runtime::Runtime,
        search::Fingerprint,
    },
    attempt::Attempt,
    builtin,
    candidate::Candidate,
    candidate::Origin,
    compiled::Cache,
    library,
    outcome::Verdict,
    placement::{Choice, Placement, Tried},
    policy::Policy,
    trial::{self, Proof, Request, TrialError},
};
use crate::store::verdicts::Verdicts;

/// A library gets so long to be loaded and to list its devices.
const LISTING_MAX: Duration = Duration::from_secs(30);

/// What the desk works with.
#[derive(Debug, Clone)]
pub struct ProvidersConfig {
    /// Directory of plugin libraries, absolute.
    pub dir: PathBuf,
    /// Directory for compiled graphs and trials; the daemon writes it, and loads no code from it.
    pub cache_dir: PathBuf,
    /// Most bytes of compiled graphs.
    pub cache_bytes_max: u64,
    /// Longest that a proof may take. Compilers for NPUs take minutes.
    pub trial_time_max: Duration,
    /// Most private memory that a trial may have, in bytes.
    pub trial_memory_bytes: u64,
    /// The daemon's program, for trials; `None` is the one that runs.
    pub program: Option<PathBuf>,
    /// What holds for each model that has no policy of its own.
    pub policy: Policy,
    /// Policies by bundle.
    pub policies: BTreeMap<String, Policy>,
    /// What remembers; without it everything is tried at each start.
    pub verdicts: Option<Verdicts>,
    /// Where every model runs, without a question: chosen and proved by somebody else, who let its library in.
    pub fixed: Option<Placement>,
}

impl ProvidersConfig {
    /// The CPU for every model. `cache_dir` is written only when that changes.
    pub fn cpu(cache_dir: PathBuf) -> Self {
        Self {
            dir: library::STANDARD_DIR.into(),
            cache_dir,
            cache_bytes_max: 512 << 20,
            trial_time_max: Duration::from_secs(300),
            trial_memory_bytes: 4 << 30,
            program: None,
            policy: Policy::default(),
            policies: BTreeMap::new(),
            verdicts: None,
            fixed: None,
        }
    }

    /// The policy of a bundle.
    pub fn policy_of(&self, bundle: &str) -> &Policy {
        self.policies.get(bundle).unwrap_or(&self.policy)
    }
}

/// What one library (or ONNX Runtime itself) offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The plugin library; `None` is ONNX Runtime itself.
    pub library: Option<PathBuf>,
    /// What it offers.
    pub candidates: Vec<Candidate>,
    /// Why it offers nothing.
    pub problem: Option<String>,
}

/// The desk.
#[derive(Debug)]
pub struct Providers {
    pub(super) config: ProvidersConfig,
    pub(super) cache: Cache,
    stop: CancellationToken,
    state: Mutex<State>,
    /// Rises when models that were refused for their providers should be looked at again.
    round: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// What the plugin directory looked like, and what was found in it.
    found: Option<(Fingerprint, Vec<Found>)>,
}

/// Whether what was remembered may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Yes.
    Use,
    /// Everything is tried again.
    Renew,
}

impl Providers {
    /// A desk that gives up when `stop` is cancelled.
    pub fn new(config: ProvidersConfig, stop: CancellationToken) -> Self {
        let cache = Cache::new(config.cache_dir.clone(), config.cache_bytes_max);
        cache.clear_work();
        Self {
            config,
            cache,
            stop,
            state: Mutex::default(),
            round: AtomicU64::new(0),
        }
    }

    /// Rises when models that were refused for their providers should be looked at again.
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// What the directory of plugins looks like now.
    pub(in super::super) fn dir_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.config.dir)
    }

    /// Chooses where `bundle` runs. Blocks, for minutes when a provider is to be proved: for threads of their own.
    ///
    /// # Errors
    /// [`LoadError::NoProvider`] when one is required and none is good enough, [`LoadError::Trial`] when none could be tried.
    pub fn choose(
        &self,
        bundle: &Bundle,
        runtime: &Runtime,
        threads: NonZeroUsize,
        memory: Memory,
    ) -> Result<Choice, LoadError> {
        if let Some(placement) = self.config.fixed.clone() {
            return Ok(Choice {
                placement,
                ..Choice::cpu()
            });
        }
        let name = &bundle.manifest().name;
        let policy = self.config.policy_of(name);
        if !policy.wants_others() {
            return Ok(Choice::cpu());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if memory == Memory::Renew {
            state.found = None;
        }
        let candidates: Vec<Candidate> = self
            .find(&mut state, runtime)?
            .iter()
            .flat_map(|found| found.candidates.clone())
            .collect();
        let mut refused = Vec::new();
        for selector in &policy.wanted {
            if selector.is_cpu() {
                return Ok(Choice {
                    refused,
                    ..Choice::cpu()
                });
            }
            let matching: Vec<&Candidate> = candidates
                .iter()
                .filter(|candidate| selector.matches(candidate))
                .collect();
            if matching.is_empty() {
                refused.push(Tried {
                    who: selector.to_string(),
                    provider: String::new(),
                    device: "",
                    verdict: Verdict::Absent,
                    measured: None,
                    is_remembered: false,
                });
            }
            for candidate in matching {
                let attempt = Attempt {
                    desk: self,
                    bundle,
                    runtime,
                    threads,
                    policy,
                    memory,
                };
                match attempt.on(candidate)? {
                    (tried, Some(placement)) => {
                        return Ok(Choice {
                            placement,
                            measured: tried.measured,
                            refused,
                        });
                    }
                    (tried, None) => refused.push(tried),
                }
            }
        }
        if policy.is_required {
            return Err(LoadError::NoProvider {
                name: name.clone(),
                tried: refused,
            });
        }
        Ok(Choice {
            refused,
            ..Choice::cpu()
        })
    }

    /// Has models that were refused for their providers looked at again.
    pub fn begin_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    /// What there is, each library tried in a process of its own.
    ///
    /// # Errors
    /// [`LoadError::Trial`] when none could be tried.
    pub fn inventory(&self, runtime: &Runtime) -> Result<Vec<Found>, LoadError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.find(&mut state, runtime).cloned()
    }

    /// What was found when somebody last had to look.
    pub(in super::super) fn found(&self) -> Vec<Found> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found = state.found.as_ref();
        found.map(|(_, found)| found.clone()).unwrap_or_default()
    }

    fn find<'s>(
        &self,
        state: &'s mut State,
        runtime: &Runtime,
    ) -> Result<&'s Vec<Found>, LoadError> {
        let now = self.dir_fingerprint();
        let is_current = matches!(&state.found, Some((before, _)) if *before == now);
        if !is_current {
            let mut found = vec![match builtin::available() {
                Ok(candidates) => Found {
                    library: None,
                    candidates,
                    problem: None,
                },
                Err(error) => Found {
                    library: None,
                    candidates: Vec::new(),
                    problem: Some(error.to_string()),
                },
            }];
            for path in library::list(&self.config.dir) {
                found.push(self.look_into(path, runtime)?);
            }
            state.found = Some((now, found));
        }
        let (_, found) = state
            .found
            .as_ref()
            .expect("it was there, or has just been put there");
        Ok(found)
    }

    fn look_into(&self, path: PathBuf, runtime: &Runtime) -> Result<Found, LoadError> {
        let report = self.trial(runtime, Some(&path), None, LISTING_MAX)?.1;
        let problem = report
            .failure
            .map(|failure| format!("{}: {}", failure.stage, failure.message))
            .or_else(|| {
                let is_empty = report.devices.is_empty();
                is_empty.then(|| "it lists no device here".to_owned())
            });
        match &problem {
            Some(problem) => {
                tracing::warn!(library = %path.display(), problem, "provider library")
            }
            None => {
                for device in &report.devices {
                    tracing::info!(library = %path.display(), candidate = %device, vendor = device.vendor, facts = ?device.facts, "provider library");
                }
            }
        }
        Ok(Found {
            library: Some(path),
            candidates: report.devices,
            problem,
        })
    }

    fn work(&self) -> Result<PathBuf, LoadError> {
        let work = self.cache.work("now");
        let what = self.config.cache_dir.display().to_string();
        let work = work.map_err(TrialError::start(what));
        work.map_err(|source| LoadError::Trial { source })
    }

    /// Has a child look into a bundle; `Ok(Err(...))` is how far it came and what is wrong.
    ///
    /// # Errors
    /// [`LoadError::Trial`] when no child could be started.
    pub(in super::super) fn examine(
        &self,
        runtime: &Runtime,
        examination: Examination,
    ) -> Result<Result<Examined, (String, String)>, LoadError> {
        // No trial beside it: both would measure the other.
        let _state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match &examination.placement.candidate.origin {
            Origin::Builtin => None,
            Origin::Library(path) => Some(path.clone()),
        };
        let work = self.work()?;
        let request = Request {
            runtime: runtime.path().into(),
            library,
            memory_bytes: self.config.trial_memory_bytes,
            work: work.clone(),
            proof: None,
            examination: Some(examination),
        };
        let program = self.config.program.as_deref();
        let is_stopped = || self.stop.is_cancelled();
        let report = trial::run(program, &request, examine::TIME_MAX, &is_stopped);
        let _ = std::fs::remove_dir_all(&work);
        let report = report.map_err(|source| LoadError::Trial { source })?;
        Ok(match (report.examined, report.failure) {
            (Some(examined), None) => Ok(examined),
            (_, Some(failure)) => Err((failure.stage, failure.message)),
            (None, None) => Err(("the end".into(), "it found nothing".into())),
        })
    }

    /// Runs a child; its directory is returned with the report, and is the caller's to delete.
    pub(super) fn trial(
        &self,
        runtime: &Runtime,
        library: Option<&Path>,
        proof: Option<Proof>,
        time_max: Duration,
    ) -> Result<(PathBuf, trial::Report), LoadError> {
        let failed = |source| LoadError::Trial { source };
        let work = self.work()?;
        let request = Request {
            runtime: runtime.path().into(),
            library: library.map(Path::to_owned),
            memory_bytes: self.config.trial_memory_bytes,
            work: work.clone(),
            proof,
            examination: None,
        };
        let program = self.config.program.as_deref();
        let is_stopped = || self.stop.is_cancelled();
        let report = trial::run(program, &request, time_max, &is_stopped).map_err(failed)?;
        Ok((work, report))
    }
}
