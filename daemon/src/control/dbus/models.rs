//! `org.openautoglm.Edge1.Models`: bundles and models, at the root of our tree.
//!
//! What is done here to all or to one by its name; how each stands is on its own object ([`super::objects`]).

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use zbus::message::Header;
use zbus::{Connection, OwnedVariant, interface};

use super::access::{Access, Verb};
use super::client::Tensor;
use super::error::Error;
use super::manager::{class_option, deadline_option, known_options, owned};
use super::speak;
use super::tensor;
use super::transcribe::{Order, Transcriber};
use crate::inference::InferenceHandle;
use crate::inference::arrays::Arrays;
use crate::inference::examine::Depth;
use crate::inference::tts::SpeakRequest;
use crate::status;

type Dictionary = HashMap<String, OwnedVariant>;

/// The Models object.
#[derive(Debug)]
pub struct Models {
    /// Judges callers.
    pub access: Access,
    /// Owns the models.
    pub inference: InferenceHandle,
    /// Writes down what is said.
    pub transcriber: Transcriber,
}

#[interface(name = "org.openautoglm.Edge1.Models")]
impl Models {
    /// Tries again all execution providers that the configuration wants for a model, forgetting what was measured of them. Returns
    /// `provider` and `device` on which it would run, `is_fallback`, `measured`, and `refused`: who else was wanted, and why not. A model that was
    /// disabled for its providers is looked at again; one that serves elsewhere is loaded anew and moves. Takes as long as the
    /// trials, minutes where a provider compiles.
    async fn probe(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        model: &str,
    ) -> Result<Dictionary, Error> {
        self.access
            .authorise(connection, &header, Verb::Control)
            .await?;
        let choice = self.inference.prove(model).await?;
        Ok(owned(status::choice(&choice)))
    }

    /// Loads a model anew from what is on disk now, or all with an empty name, and returns the names of those that were. What is under
    /// way is answered to its end by the old ones; if a new one cannot be used, the old one goes on and this fails.
    async fn reload(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        model: &str,
    ) -> Result<Vec<String>, Error> {
        self.access
            .authorise(connection, &header, Verb::Control)
            .await?;
        let name = (!model.is_empty()).then_some(model);
        let loaded = self.inference.reload(name).await?;
        Ok(loaded.iter().map(ToString::to_string).collect())
    }

    /// All bundles in the configured directories: `name`, `dir`, `task`, `title`, `licence`, `bytes`, and `problem` where one cannot be used.
    async fn list_bundles(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dictionary>, Error> {
        self.access
            .authorise(connection, &header, Verb::Observe)
            .await?;
        let bundles = self.inference.bundles().await;
        Ok(bundles.iter().map(status::bundle).map(owned).collect())
    }

    /// Looks into a bundle in a process of its own: compares its digests, loads it, runs its probe. Returns `name`, `task`, `dir`, `provider`, `files`,
    /// `bytes`, `verify_ms`, `load_ms`, `loaded_kib` and `peak_kib`; fails with ModelUnavailable where it is not sound. The model that serves goes on.
    async fn verify(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        model: &str,
    ) -> Result<Dictionary, Error> {
        self.access
            .authorise(connection, &header, Verb::Control)
            .await?;
        let examined = self.inference.examine(model, Depth::Verify).await?;
        Ok(owned(status::examined(&examined)))
    }

    /// As `Verify`, and measures it: `figures`, each with `what`, `value` (the median over `rounds`), `unit` and `rounds`. Takes some ten seconds.
    async fn benchmark(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        model: &str,
    ) -> Result<Dictionary, Error> {
        self.access
            .authorise(connection, &header, Verb::Control)
            .await?;
        let examined = self.inference.examine(model, Depth::Benchmark).await?;
        Ok(owned(status::examined(&examined)))
    }

    /// Writes down what is said in a sound: a file, a pipe or a socket that is read to its end, up to ten minutes of it. Returns the reading end of a
    /// pipe, on which segments come as they are understood: one JSON object a line, the last with `event` `done` or `failed`. Closing the pipe ends it.
    ///
    /// Options: `format` (s: `wav`, any of 8 to 192 kHz, which is meant when it is left out; or `s16le`, bare samples of 16 kHz, mono), `language` (s, `en`),
    /// `class` and `deadline-ms` as for `Manager.Say`.
    async fn transcribe(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        sound: zbus::OwnedFd,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<zbus::OwnedFd, Error> {
        known_options(&options, &["format", "language", "class", "deadline-ms"])?;
        let principal = self
            .access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        let class = class_option(&options, &principal)?;
        let order = Order::new(&options, class, deadline_option(&options)?)?;
        let answer = self.transcriber.begin(OwnedFd::from(sound), order)?;
        Ok(zbus::OwnedFd::from(answer))
    }

    /// Speaks a text. Returns the reading end of a pipe: a line of JSON with `event` `format` (`sample_rate_hz`, `channels` 1, `encoding` `s16le`), then for every
    /// sentence, as soon as it is made, one with `event` `audio` and `bytes`, followed by so many bytes of sound; the last line has `event` `done` or `failed`.
    /// Closing the pipe ends the speech.
    ///
    /// Options: `class` (s) as for `Manager.Say`; `deadline-ms` (u): a sentence that waits longer for the model is not spoken; `speaker` (u), of a voice that has several;
    /// `speed` (d), 0.25 to 4, 1 being as recorded.
    async fn speak(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        text: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<zbus::OwnedFd, Error> {
        known_options(&options, &["class", "deadline-ms", "speaker", "speed"])?;
        let begin_within = deadline_option(&options)?;
        let mut request = SpeakRequest {
            begin_within,
            ..SpeakRequest::new(text)
        };
        if let Some(speaker) = options.get("speaker") {
            request.speaker = u32::try_from(speaker).map_err(|_| {
                Error::InvalidArgument(
                    "option speaker must be an unsigned 32-bit integer".to_owned(),
                )
            })?;
        }
        if let Some(speed) = options.get("speed") {
            let speed = f64::try_from(speed)
                .map_err(|_| Error::InvalidArgument("option speed must be a double".to_owned()))?;
            request.speed = speed as f32;
        }
        let principal = self
            .access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        request.class = class_option(&options, &principal)?;
        let voice = self.inference.tts().ok_or_else(|| {
            let message = "no voice is configured (inference.tts)";
            Error::ModelUnavailable(message.to_owned())
        })?;
        let speech = voice.speak(request).map_err(speak::refused)?;
        let (reader, writer) =
            std::io::pipe().map_err(|error| Error::Failed(format!("no pipe: {error}")))?;
        speak::begin(speech, writer).map_err(|error| Error::Failed(format!("no pipe: {error}")))?;
        Ok(zbus::OwnedFd::from(OwnedFd::from(reader)))
    }

    /// Runs a model of plain tensors (`inference.generic` in the configuration) once. A tensor is its element type as in `model.toml` (`f32`, `f64`, `f16`,
    /// `i64`, `i32`, `i16`, `i8`, `u8`, `bool`), its extents, and its elements in row-major order, little-endian. All inputs of the bundle
    /// must be there, and all of its outputs are returned. Options: `class` (s) as for `Manager.Say`.
    async fn run(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        model: &str,
        inputs: BTreeMap<String, Tensor>,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        known_options(&options, &["class"])?;
        let principal = self
            .access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        let class = class_option(&options, &principal)?;
        let Some(handle) = self.inference.generic(model) else {
            return Err(Error::UnknownModel(format!(
                "no model {model:?} of plain tensors is served (inference.generic in the configuration names those that are)"
            )));
        };
        let inputs = converted(move || arrays(inputs)).await??;
        let outputs = handle.run(inputs, class).await?;
        converted(move || tensors(&outputs)).await
    }
}

/// Converts tensors on a thread for what blocks: a message may hold 64 MiB of them, and everybody else on the bus waits for the
/// runtime's own threads.
async fn converted<T: Send + 'static>(
    convert: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(convert)
        .await
        .map_err(|error| Error::Failed(format!("the tensors were not converted: {error}")))
}

fn arrays(tensors: BTreeMap<String, Tensor>) -> Result<Arrays, Error> {
    tensors
        .into_iter()
        .map(|(name, tensor)| match tensor::array(tensor) {
            Ok(array) => Ok((name, array)),
            Err(why) => Err(Error::InvalidArgument(format!("input {name:?}: {why}"))),
        })
        .collect()
}

fn tensors(arrays: &Arrays) -> BTreeMap<String, Tensor> {
    arrays
        .iter()
        .map(|(name, array)| (name.clone(), tensor::tensor(array)))
        .collect()
}
