//! Proofs and examinations that a person asks for, beside the models that serve. Blocks: for threads of their own.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use super::{
    bundle::Bundle,
    error::{LoadError, ProveError},
    examine::{Depth, Examination, Examined},
    providers::{Choice, Providers, desk::Memory},
    runtime, search,
};

/// What a proof that a person asks for needs.
#[derive(Debug, Clone)]
pub(super) struct Prover {
    pub(super) providers: Arc<Providers>,
    pub(super) runtime_path: Option<PathBuf>,
    pub(super) model_dirs: Vec<PathBuf>,
    pub(super) threads: NonZeroUsize,
    pub(super) context_tokens: usize,
    pub(super) espeak_ng: PathBuf,
}

impl Prover {
    fn locate(&self, name: &str) -> Result<PathBuf, ProveError> {
        search::locate(name, &self.model_dirs).map_err(|looked| ProveError::Missing {
            name: name.to_owned(),
            looked,
        })
    }

    pub(super) fn examine(&self, name: &str, depth: Depth) -> Result<Examined, ProveError> {
        let dir = self.locate(name)?;
        let runtime = runtime::Runtime::load(self.runtime_path.as_deref())?;
        let bundle = Bundle::open(&dir).map_err(LoadError::from)?;
        let choice = self
            .providers
            .choose(&bundle, &runtime, self.threads, Memory::Use)?;
        let examination = Examination {
            bundle: dir,
            placement: choice.placement,
            threads: self.threads,
            context_tokens: self.context_tokens,
            espeak_ng: self.espeak_ng.clone(),
            depth,
        };
        match self.providers.examine(&runtime, examination)? {
            Ok(examined) => Ok(examined),
            Err((stage, message)) => Err(ProveError::Unsound {
                name: name.to_owned(),
                stage,
                message,
            }),
        }
    }

    pub(super) fn prove(&self, name: &str) -> Result<Choice, ProveError> {
        let dir = self.locate(name)?;
        let runtime = runtime::Runtime::load(self.runtime_path.as_deref())?;
        let bundle = Bundle::open(&dir).map_err(LoadError::from)?;
        bundle.verify().map_err(LoadError::from)?;
        let choice = self
            .providers
            .choose(&bundle, &runtime, self.threads, Memory::Renew);
        self.providers.begin_round();
        Ok(choice?)
    }
}
