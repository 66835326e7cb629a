//! Who answers a conversation: the model here, or an engine elsewhere (vLLM, SGLang, Triton, llama-server, anything that speaks
//! OpenAI's `/v1/chat/completions` or the Open Inference Protocol), by the policy of the bundle.
//!
//! Conversations only: commands to devices are always understood here, and embeddings of another model could not be compared with ours.
//! What went elsewhere says so, and why ([`Origin`]); so does what was answered here although it should have gone elsewhere. From the first
//! word on an answer stays where it is: one that breaks off has failed, and is not begun again in the other place.
//!
//! Read in this order: [`origin`], [`breaker`] (pure), `reader` with `openai` and `kserve` (pure), `engine`, `ask`, [`dispatch`].

pub mod breaker;
pub mod dispatch;
pub mod error;
pub mod origin;

mod ask;
mod bundled;
mod engine;
mod kserve;
mod openai;
mod prompt;
mod reader;

pub use dispatch::{Answer, Dispatcher, DispatcherConfig};
pub use engine::UpstreamStatus;
pub use error::UpstreamError;
pub use origin::{Origin, Place};
