//! From a chat bundle on disk to a model that has passed its probe: graph, tokenizer, caches, snapshots.

use std::{collections::BTreeMap, fs, sync::Arc};

use ort::session::{RunOptions, Session};
use sha2::{Digest, Sha256};

use super::{
    super::{
        super::{
            bundle::{Bundle, MANIFEST_FILE},
            error::LoadError,
            manifest::{CacheForm, ChatGraph, Graph},
            probe::{self, ChatProbe},
            runtime::Runtime,
            session::{self, Declared},
            slot::Setup,
            status::LoadStage,
        },
        ChatCache, byte_cache,
        cache::{
            budget,
            memory::{ElementKind, Geometry},
            slots::Slots,
        },
        constrain::Grammars,
        desk::Desk,
        graph::{
            DecoderGraph,
            growing::Growing,
            in_place::{InPlace, Lengths},
        },
        prompt::PromptMaker,
        schedule::Schedule,
        snapshot::Shelf,
    },
    Chat,
    encode::Encoder,
};

/// How many of a probe's tolerances a cache of bytes may be off. A probe was made with floats, whose bits are the same nearly everywhere, and
/// 8-bit activations turn a change in the last bit into tenths of a logit: the caches are 0.7 apart in the median position and 2.5 at most (ONNX
/// Runtime's own two ways to read a text with floats are, too: 0.7 and 1.8), where the usual tolerance is 0.5.
const BYTES_SLACK: f32 = 4.0;

pub(super) fn load(
    bundle: &Bundle,
    runtime: &Runtime,
    setup: &Setup,
    on_stage: &dyn Fn(LoadStage),
) -> Result<Chat, LoadError> {
    let manifest = bundle.manifest();
    let (Some(graph), Some(tokenizer), Some(template)) = (
        manifest.graph.chat(),
        &manifest.tokenizer,
        &manifest.template,
    ) else {
        unreachable!(
            "Bundle::open checked that a chat bundle has its graph, a tokenizer and a template"
        );
    };
    let prompts = PromptMaker::load(&bundle.path(&tokenizer.file), &bundle.path(&template.file))?;
    on_stage(LoadStage::Graph);
    let (session, kind) = open(bundle, graph, runtime, setup)?;
    let (geometry, budget) = geometry(graph, kind, setup)?;
    let interruptible =
        setup
            .interrupts
            .enter(RunOptions::new().map_err(|source| LoadError::Graph {
                path: bundle.path(&graph.file),
                source,
            })?);
    let mut decoder: Box<dyn DecoderGraph> = match (&manifest.graph, graph.cache) {
        (Graph::Optimum(_), CacheForm::Appended) => Box::new(Growing::new(
            session,
            graph.vocab_size,
            geometry,
            interruptible,
        )),
        (Graph::Optimum(_), CacheForm::InPlace) => Box::new(InPlace::new(
            session,
            graph,
            Lengths::Masked,
            geometry,
            interruptible,
        )?),
        _ => Box::new(InPlace::new(
            session,
            graph,
            Lengths::Counted,
            geometry,
            interruptible,
        )?),
    };
    on_stage(LoadStage::Probe);
    let probe: ChatProbe = probe::read(bundle)?;
    let logits = decoder
        .alone(0, 0, &probe.input_ids, 1)
        .map_err(|source| LoadError::probe_run(bundle)(source.into()))?;
    let slack = if kind == ElementKind::Rows {
        BYTES_SLACK
    } else {
        1.0
    };
    probe.check(logits, slack)?;
    let grammars = Grammars::new(
        &prompts.tokenizer(),
        graph.vocab_size,
        &tokenizer.end_of_turn,
    );
    if let Err(reason) = &grammars {
        tracing::warn!(model = manifest.name, %reason, "no answer can be held to a form");
    }
    let rows = setup.chat_sessions.get();
    let slots = Slots::new(rows, geometry.capacity, budget);
    let mut chat = Chat {
        schedule: Schedule::new(rows),
        waiting: BTreeMap::new(),
        desk: Desk::new(slots, decoder.is_joint()),
        graph: decoder,
        vocab_size: graph.vocab_size,
        encoder: Arc::new(Encoder {
            prompts,
            grammars,
            end_of_turn: tokenizer.end_of_turn.as_slice().into(),
            capacity: geometry.capacity,
        }),
        shelf: shelf(bundle, runtime, kind, setup),
        restoring: BTreeMap::new(),
        bundle: manifest.name.as_str().into(),
        pulse: Arc::clone(&setup.pulse),
    };
    chat.bring_back(rows);
    Ok(chat)
}

/// The graph as it is, or with a cache of bytes where that is wanted and can be; and what the cache then holds.
fn open(
    bundle: &Bundle,
    graph: &ChatGraph,
    runtime: &Runtime,
    setup: &Setup,
) -> Result<(Session, ElementKind), LoadError> {
    let kind = ElementKind::from_name(&graph.kv_type)
        .expect("Bundle::open checked that the cache's type is one of these");
    let manifest = bundle.manifest();
    let is_in_place = match &manifest.graph {
        Graph::Optimum(_) => graph.cache == CacheForm::InPlace,
        _ => true,
    };
    let is_possible =
        is_in_place && kind == ElementKind::F32 && runtime.placement().candidate.is_cpu();
    if setup.chat_cache == ChatCache::Bytes && is_possible {
        match autoglm_edge_attention::remake(&bundle.path(&graph.file)) {
            Ok(remade) => {
                let (inputs, outputs) = (
                    byte_cache::facts(&graph.inputs, graph),
                    byte_cache::facts(&graph.outputs, graph),
                );
                let declared = Declared {
                    file: &graph.file,
                    layers: graph.layers,
                    inputs: &inputs,
                    outputs: &outputs,
                };
                let session =
                    session::open_remade(bundle, runtime, setup.threads, remade, &declared)?;
                return Ok((session, ElementKind::Rows));
            }
            Err(reason) => {
                tracing::info!(model = manifest.name, %reason, "the key-value cache holds floats");
            }
        }
    }
    let session = session::open(bundle, runtime, setup.threads)?;
    Ok((session, kind))
}

/// The snapshots of this model. Without them it serves as well, so what is wrong with them is said and no more.
fn shelf(
    bundle: &Bundle,
    runtime: &Runtime,
    kind: ElementKind,
    setup: &Setup,
) -> Option<Arc<Shelf>> {
    let snapshots = setup.snapshots.as_ref()?;
    // The manifest has the digests of all files, and the layout and type of the cache. A candidate's and its options' debug text says
    // all of them; if a release writes it otherwise, conversations are read anew once. Threads are not in it: the CPU's kernels give the same bits with any
    // number of them.
    let fingerprint = fs::read(bundle.path(MANIFEST_FILE)).map(|manifest| {
        let manifest = hex::encode(Sha256::digest(manifest));
        let (placement, build) = (runtime.placement(), runtime.build());
        let (provider, options) = (&placement.candidate, &placement.options);
        format!("1|{manifest}|{kind:?}|{provider:?}|{options:?}|{build}")
    });
    match fingerprint.and_then(|fingerprint| snapshots.open(fingerprint)) {
        Ok(shelf) => Some(Arc::new(shelf)),
        Err(error) => {
            tracing::warn!(%error, directory = %snapshots.directory().display(), "conversations' caches are not kept");
            None
        }
    }
}

/// The caches' shape, and how many tokens they may take memory for together.
fn geometry(
    graph: &ChatGraph,
    kind: ElementKind,
    setup: &Setup,
) -> Result<(Geometry, usize), LoadError> {
    let geometry = Geometry {
        tensors: graph.layers * 2,
        heads: graph.kv_heads,
        dim: graph.head_dim,
        kind,
        capacity: setup.context_tokens.min(graph.context_tokens),
        slots: Slots::count(setup.chat_sessions.get()),
    };
    let limit = u128::from(budget::limit_bytes());
    let bytes = geometry
        .token_bytes()
        .saturating_mul(geometry.capacity as u128);
    if bytes > limit {
        return Err(LoadError::CacheTooLarge {
            tokens: geometry.capacity,
            bytes,
            limit,
        });
    }
    let budget = usize::try_from(limit / geometry.token_bytes().max(1)).unwrap_or(usize::MAX);
    Ok((geometry, budget))
}
