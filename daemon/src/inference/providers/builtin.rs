//! The providers that a build of ONNX Runtime may have in it: their names, devices and options.
//!
//! One table. A provider that is not in it is reached as a plugin library; one that is in it is offered only when the loaded
//! library says that it has it. Registration fails loudly. Not run here, for want of the hardware: all but OpenVINO.

use std::collections::BTreeMap;

use ort::{
    ep::{
        self, ArbitrarilyConfigurableExecutionProvider as Configurable, ExecutionProvider,
        ExecutionProviderDispatch,
    },
    session::builder::SessionBuilder,
};

use super::candidate::{Candidate, Kind};

/// Options of a provider, by ONNX Runtime's names.
pub type Options = BTreeMap<String, String>;

/// A provider's own word for a kind of device.
type DeviceWord = fn(Kind) -> &'static str;

/// One provider that may be in a build.
pub(super) struct Builtin {
    name: &'static str,
    kinds: &'static [Kind],
    is_there: fn() -> ort::Result<bool>,
    dispatch: fn(&Options) -> ExecutionProviderDispatch,
    /// The option that chooses the device, and its value for a kind.
    device_option: Option<(&'static str, DeviceWord)>,
    /// Options that make the provider keep what it compiled in a directory.
    pub(super) cache_options: &'static [(&'static str, CacheValue)],
}

/// What a cache option is set to.
#[derive(Clone, Copy)]
pub(super) enum CacheValue {
    /// The directory.
    Directory,
    /// Yes.
    One,
}

fn configured<P: Configurable + Default + Into<ExecutionProviderDispatch>>(
    options: &Options,
) -> ExecutionProviderDispatch {
    let provider = options.iter().fold(P::default(), |provider, (key, value)| {
        provider.with_arbitrary_config(key, value)
    });
    provider.into()
}

fn openvino_device(kind: Kind) -> &'static str {
    match kind {
        Kind::Cpu => "CPU",
        Kind::Gpu => "GPU",
        Kind::Npu => "NPU",
    }
}

macro_rules! builtin {
    ($provider:ty, $kinds:expr) => {
        Builtin {
            name: <$provider as ExecutionProvider>::NAME,
            kinds: $kinds,
            is_there: <$provider as ExecutionProvider>::is_available,
            dispatch: configured::<$provider>,
            device_option: None,
            cache_options: &[],
        }
    };
}

/// The table. RKNPU takes no options at all, so it is not in `configured`'s form.
static TABLE: &[Builtin] = &[
    Builtin {
        device_option: Some(("device_type", openvino_device)),
        cache_options: &[("cache_dir", CacheValue::Directory)],
        ..builtin!(ep::OpenVINO, &[Kind::Npu, Kind::Gpu, Kind::Cpu])
    },
    Builtin {
        cache_options: &[
            ("trt_engine_cache_enable", CacheValue::One),
            ("trt_engine_cache_path", CacheValue::Directory),
        ],
        ..builtin!(ep::TensorRT, &[Kind::Gpu])
    },
    Builtin {
        cache_options: &[("nv_runtime_cache_path", CacheValue::Directory)],
        ..builtin!(ep::NVRTX, &[Kind::Gpu])
    },
    builtin!(ep::CUDA, &[Kind::Gpu]),
    builtin!(ep::ROCm, &[Kind::Gpu]),
    builtin!(ep::WebGPU, &[Kind::Gpu]),
    builtin!(ep::QNN, &[Kind::Npu]),
    builtin!(ep::CANN, &[Kind::Npu]),
    builtin!(ep::Vitis, &[Kind::Npu]),
    Builtin {
        name: ep::RKNPU::NAME,
        kinds: &[Kind::Npu],
        is_there: ep::RKNPU::is_available,
        dispatch: |_| ep::RKNPU::default().build(),
        device_option: None,
        cache_options: &[],
    },
    builtin!(ep::XNNPACK, &[Kind::Cpu]),
    builtin!(ep::OneDNN, &[Kind::Cpu]),
];

/// What the loaded library has in it, besides the CPU provider. `Err` names the provider that could not be asked for.
pub(super) fn available() -> ort::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for builtin in TABLE {
        if (builtin.is_there)()? {
            found.extend(
                builtin
                    .kinds
                    .iter()
                    .map(|kind| Candidate::builtin(builtin.name, *kind)),
            );
        }
    }
    Ok(found)
}

/// The table's row for a provider.
pub(super) fn find(provider: &str) -> Option<&'static Builtin> {
    TABLE.iter().find(|builtin| builtin.name == provider)
}

impl Builtin {
    /// Registers it for a session, with the device of `kind` unless an option says otherwise.
    ///
    /// # Errors
    /// Whatever the provider says; nothing is taken for granted.
    pub(super) fn register(
        &self,
        builder: SessionBuilder,
        kind: Kind,
        options: &Options,
    ) -> ort::Result<SessionBuilder> {
        let mut options = options.clone();
        if let Some((key, value)) = self.device_option {
            options
                .entry(key.to_owned())
                .or_insert_with(|| value(kind).to_owned());
        }
        let dispatch = (self.dispatch)(&options).error_on_failure();
        Ok(builder.with_execution_providers([dispatch])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_provider_stands_in_the_table_twice_or_is_the_one_that_all_are_judged_by() {
        for (index, builtin) in TABLE.iter().enumerate() {
            assert!(!builtin.kinds.is_empty() && builtin.name != super::super::candidate::CPU);
            assert!(
                TABLE[index + 1..]
                    .iter()
                    .all(|other| other.name != builtin.name),
                "{}",
                builtin.name
            );
        }
    }
}
