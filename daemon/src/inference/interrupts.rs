//! How runs of ONNX Runtime are ended from another thread, so that the daemon never exits while one is under way.
//!
//! A model enters the options of its runs here; ending them makes the run return with an error at its next node, a millisecond
//! or so later. There is no way back: the engine is stopping.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ort::session::{NoSelectedOutputs, RunOptions};

type Options = RunOptions<NoSelectedOutputs>;

/// Clones share one list.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_ended: bool,
    entered: Vec<Weak<Options>>,
}

impl Interrupts {
    /// Takes the options of a model's runs. They are forgotten when the model drops what this returns.
    pub(super) fn enter(&self, options: Options) -> Arc<Options> {
        let options = Arc::new(options);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.entered.retain(|entered| entered.strong_count() > 0);
        state.entered.push(Arc::downgrade(&options));
        if state.is_ended {
            end(&options);
        }
        options
    }

    /// Ends all runs, those that are under way and those to come.
    pub(super) fn terminate_all(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_ended = true;
        state
            .entered
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|options| end(&options));
    }
}

fn end(options: &Options) {
    if let Err(error) = options.terminate() {
        tracing::warn!(%error, "a run of ONNX Runtime cannot be ended");
    }
}
