//! The operator and a whole model on the real ONNX Runtime. `make test` fetches both; here they are only looked for.

use std::{env, fs, path::PathBuf, sync::LazyLock};

use ort::{
    environment::Environment,
    session::{Session, builder::SessionBuilder},
};

mod model;
mod operator;

fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").expect("a home directory"));
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    env::var_os("AUTOGLM_EDGE_CACHE").map_or_else(|| cache.join("autoglm-edge"), PathBuf::from)
}

/// One in a process, as ONNX Runtime has it.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let parent = cache().join("runtime");
    let library = fs::read_dir(&parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("libonnxruntime.so"))
        .find(|path| path.is_file());
    let Some(library) = library else {
        panic!(
            "no ONNX Runtime in {}: run `make test`, which fetches it",
            parent.display()
        );
    };
    ort::init_from(library).unwrap().build().unwrap()
});

fn options(threads: usize) -> SessionBuilder {
    let options = Session::builder(&ENVIRONMENT).unwrap();
    options.with_intra_threads(threads).unwrap()
}
