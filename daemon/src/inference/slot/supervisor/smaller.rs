//! The smaller bundle that serves in the place of the one configured while the box is strained, and why it does not.
//!
//! Whether it is wished is decided by [`adapt`](super::super::super::adapt).

use std::{path::PathBuf, sync::Arc};

use super::{
    super::{
        super::{
            error::{LoadError, chain},
            search::{Fingerprint, locate},
            status::ModelState,
        },
        Model,
    },
    Supervisor,
};

impl<M: Model> Supervisor<M> {
    /// The bundle that is to serve, and where it is: the smaller one if it is wished and fit.
    pub(super) fn locate(
        &mut self,
        instead: Option<&Arc<str>>,
    ) -> Result<(Arc<str>, PathBuf), Vec<PathBuf>> {
        let Some(smaller) = instead else {
            self.forget_unfit();
            return self.locate_own();
        };
        let found = locate(smaller, &self.slot.model_dirs);
        let looks = found.as_deref().ok().map(Fingerprint::of);
        match (&self.unfit, found) {
            (Some((unfit, _)), _) if *unfit == looks => self.locate_own(),
            (_, Ok(dir)) => Ok((Arc::clone(smaller), dir)),
            (_, Err(looked)) => {
                let error = LoadError::Absent {
                    name: smaller.to_string(),
                    looked,
                };
                self.set_unfit(None, Arc::new(error));
                self.locate_own()
            }
        }
    }

    /// The smaller bundle is not wished any more.
    fn forget_unfit(&mut self) {
        let Some((_, error)) = self.unfit.take() else {
            return;
        };
        if let Some(serving) = &mut self.serving
            && let ModelState::Ready { unused, .. } = &mut serving.state
            && unused
                .as_ref()
                .is_some_and(|shown| Arc::ptr_eq(shown, &error))
        {
            *unused = None;
            self.slot.board.note_model(M::TASK, serving.state.clone());
        }
    }

    fn locate_own(&self) -> Result<(Arc<str>, PathBuf), Vec<PathBuf>> {
        let dir = locate(&self.slot.name, &self.slot.model_dirs)?;
        Ok((Arc::clone(&self.slot.name), dir))
    }

    /// The smaller bundle does not serve, and who serves says why.
    pub(super) fn set_unfit(&mut self, looks: Option<Fingerprint>, error: Arc<LoadError>) {
        tracing::warn!(model = %self.slot.name, task = %M::TASK, error = %chain(error.as_ref()), "the smaller bundle cannot be used; the one configured goes on");
        self.unfit = Some((looks, Arc::clone(&error)));
        if let Some(serving) = &mut self.serving
            && let ModelState::Ready { unused, .. } = &mut serving.state
        {
            *unused = Some(error);
            self.slot.board.note_model(M::TASK, serving.state.clone());
        }
    }
}
