//! What a trial's outcome depends on. When any of it changes, the model is tried anew.

use std::{collections::BTreeMap, fs, io, num::NonZeroUsize, path::Path};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        bundle::{Bundle, MANIFEST_FILE},
        runtime::Runtime,
    },
    builtin::Options,
    candidate::{Candidate, Kind, Origin},
    library,
};

/// Changes when what a trial does changes.
const PROOF: u32 = 1;

/// Kernel modules of devices that run models; the version of each that is loaded counts.
const DRIVERS: [&str; 14] = [
    "amdgpu",
    "amdxdna",
    "etnaviv",
    "hailo_pci",
    "i915",
    "intel_vpu",
    "msm",
    "nvgpu",
    "nvidia",
    "panfrost",
    "panthor",
    "qaic",
    "rknpu",
    "xe",
];

/// All of it. Serialised and hashed it is the key in the store and the name of the compiled graph's directory.
#[derive(Debug, Serialize)]
struct Parts<'a> {
    proof: u32,
    /// Digest of `model.toml`, which has the digests of all other files.
    bundle: String,
    /// ONNX Runtime's own description of its build.
    runtime: &'a str,
    /// The libraries beside ONNX Runtime (built-in providers), or the plugin library itself and those beside it.
    library: Vec<String>,
    /// With the provider's version and the device, as both say.
    candidate: &'a Candidate,
    options: &'a Options,
    threads: NonZeroUsize,
    driver: BTreeMap<String, String>,
}

/// The key of a trial.
///
/// # Errors
/// When the bundle or the library cannot be read.
pub(super) fn key(
    bundle: &Bundle,
    runtime: &Runtime,
    candidate: &Candidate,
    options: &Options,
    threads: NonZeroUsize,
) -> io::Result<String> {
    let library = match &candidate.origin {
        Origin::Builtin => vec![library::surroundings(runtime.path())],
        Origin::Library(path) => vec![library::digest(path)?, library::surroundings(path)],
    };
    let parts = Parts {
        proof: PROOF,
        bundle: library::digest(&bundle.path(MANIFEST_FILE))?,
        runtime: runtime.build(),
        library,
        candidate,
        options,
        threads,
        driver: driver(candidate.kind),
    };
    let text = serde_json::to_vec(&parts).map_err(io::Error::from)?;
    Ok(hex::encode(Sha256::digest(text)))
}

/// What drives a kind of device here: the processor's name, or the kernel with its modules.
fn driver(kind: Kind) -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).ok();
    if kind == Kind::Cpu {
        let processor = read("/proc/cpuinfo").and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        return processor
            .map(|name| ("processor".into(), name))
            .into_iter()
            .collect();
    }
    let mut facts = BTreeMap::new();
    let kernel = read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
    facts.extend(kernel.map(|release| ("kernel".to_owned(), release)));
    for module in DRIVERS {
        let dir = Path::new("/sys/module").join(module);
        for file in ["version", "srcversion"] {
            if let Ok(text) = fs::read_to_string(dir.join(file)) {
                facts.insert(format!("{module}.{file}"), text.trim().to_owned());
            }
        }
    }
    facts
}
