//! One layer of attention in a graph of its own: ONNX Runtime's over floats, and ours that the exchange makes of it.

use ort::{
    session::{Session, SessionInputValue},
    value::Tensor,
};

use super::options;
use crate::{
    graph::{self, tests::Layer},
    row,
};

/// Numbers between -1 and 1 that are the same in every run.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        // Numerical Recipes' generator; its high bits are good enough for test data.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// What goes in beside the caches, `[rows, tokens]`.
struct Given {
    rows: usize,
    tokens: usize,
    /// Tokens of each row after this step, less one.
    last: Vec<i32>,
}

const CAPACITY: usize = 300;

/// Attention and caches.
fn run<T>(
    session: &mut Session,
    layer: &Layer,
    given: &Given,
    caches: [Vec<T>; 2],
    stride: usize,
) -> ort::Result<(Vec<f32>, [Vec<T>; 2])>
where
    T: ort::value::PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let (rows, tokens, dim) = (given.rows, given.tokens, layer.dim);
    let half = dim / 2;
    let angle = |at: usize| (at / half) as f32 * 0.9f32.powi((at % half) as i32);
    let cos = (0..CAPACITY * half).map(|at| angle(at).cos()).collect();
    let sin = (0..CAPACITY * half).map(|at| angle(at).sin()).collect();
    let table = |table: Vec<f32>| Tensor::from_array(([CAPACITY, half], table)).unwrap();
    let of_heads = |heads: usize, seed: u32| {
        let numbers = numbers(rows * tokens * heads * dim, seed);
        Tensor::from_array(([rows, tokens, heads * dim], numbers)).unwrap()
    };
    let longest = given
        .last
        .iter()
        .max()
        .map_or(0, |last| last.saturating_add(1));
    let last = Tensor::from_array(([given.last.len()], given.last.clone())).unwrap();
    let total = Tensor::from_array(([0usize; 0], vec![longest])).unwrap();
    let shape = [rows, layer.kv_heads, CAPACITY, stride];
    let [keys, values] = caches.map(|cache| Tensor::from_array((shape, cache)).unwrap());
    let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
        ("past_key_values.0.key", keys.into()),
        ("past_key_values.0.value", values.into()),
        ("seqlens_k", last.into()),
        ("total_sequence_length", total.into()),
        ("cos", table(cos).into()),
        ("sin", table(sin).into()),
    ];
    if layer.is_packed {
        let heads = layer.heads + 2 * layer.kv_heads;
        inputs.push(("query", of_heads(heads, 1).into()));
    } else {
        inputs.push(("query", of_heads(layer.heads, 1).into()));
        inputs.push(("key", of_heads(layer.kv_heads, 2).into()));
        inputs.push(("value", of_heads(layer.kv_heads, 3).into()));
    }
    let outputs = session.run(inputs)?;
    let cache = |name: &str| -> ort::Result<Vec<T>> {
        Ok(outputs[name].try_extract_tensor::<T>()?.1.to_vec())
    };
    let out = outputs["out"].try_extract_tensor::<f32>()?.1.to_vec();
    Ok((out, [cache("present.0.key")?, cache("present.0.value")?]))
}

fn ours(layer: &Layer, threads: usize) -> Session {
    let options = options(threads);
    let remade = graph::remade(&layer.model()).unwrap();
    let mut options = options.with_operators(remade.operators).unwrap();
    options.commit_from_memory(&remade.graph).unwrap()
}

fn empty(layer: &Layer, rows: usize) -> [Vec<u8>; 2] {
    let bytes = rows * layer.kv_heads * CAPACITY * row::bytes(layer.dim);
    [vec![0; bytes], vec![0; bytes]]
}

#[test]
fn it_gives_what_onnx_runtimes_attention_gives_within_the_bytes_roundings() {
    for is_packed in [false, true] {
        for rows in [1, 2] {
            let mut layer = Layer::default();
            layer.is_packed = is_packed;
            let mut theirs = options(1).commit_from_memory(&layer.model()).unwrap();
            let mut ours = ours(&layer, 1);
            let floats = vec![0f32; rows * layer.kv_heads * CAPACITY * layer.dim];
            let mut their_caches = [floats.clone(), floats];
            let mut our_caches = empty(&layer, rows);
            let mut past = 0;
            // Several tokens into empty caches, then one at a time.
            for tokens in [40, 1, 1] {
                past += tokens;
                let given = Given {
                    rows,
                    tokens,
                    last: vec![i32::try_from(past).unwrap() - 1; rows],
                };
                let (expected, caches) =
                    run(&mut theirs, &layer, &given, their_caches, layer.dim).unwrap();
                their_caches = caches;
                let stride = row::bytes(layer.dim);
                let (actual, caches) = run(&mut ours, &layer, &given, our_caches, stride).unwrap();
                our_caches = caches;
                assert_eq!(actual.len(), expected.len());
                for (at, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
                    // A value between -1 and 1 is off by 1/254, and a score moves weights by about as much.
                    assert!(
                        (actual - expected).abs() < 0.02,
                        "packed {is_packed}, {rows} rows, {past} tokens, element {at}: {actual} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    // Long enough to be shared among threads.
    let layer = Layer::default();
    let given = Given {
        rows: 2,
        tokens: 250,
        last: vec![249; 2],
    };
    let stride = row::bytes(layer.dim);
    let [one, two] = [1, 2].map(|threads| {
        let mut session = ours(&layer, threads);
        run(&mut session, &layer, &given, empty(&layer, 2), stride).unwrap()
    });
    let bits = |out: &[f32]| out.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&one.0), bits(&two.0));
    assert!(one.1 == two.1, "the caches differ");
}

#[test]
fn rows_of_other_lengths_see_their_own_tokens_alone() {
    let layer = Layer::default();
    let stride = row::bytes(layer.dim);
    let mut session = ours(&layer, 1);
    let mut step = |last: Vec<i32>| {
        let given = Given {
            rows: last.len(),
            tokens: 1,
            last,
        };
        let caches = empty(&layer, given.rows);
        run(&mut session, &layer, &given, caches, stride).unwrap().0
    };
    let width = layer.heads * layer.dim;
    let (short, both) = (step(vec![0]), step(vec![0, 200]));
    assert_eq!(both[..width], short[..]);
    assert_ne!(both[width..], short[..]);
}

#[test]
fn lengths_that_do_not_fit_fail_the_run() {
    let layer = Layer::default();
    let mut session = ours(&layer, 1);
    let stride = row::bytes(layer.dim);
    let end = i32::try_from(CAPACITY).unwrap();
    for last in [vec![end], vec![-1], vec![i32::MAX], vec![0], vec![5, 5]] {
        let given = Given {
            rows: 1,
            tokens: 2,
            last: last.clone(),
        };
        let result = run(&mut session, &layer, &given, empty(&layer, 1), stride);
        let error = result.expect_err("it ran");
        assert!(
            error.to_string().contains("does not fit"),
            "{last:?}: {error}"
        );
    }
    let given = Given {
        rows: 1,
        tokens: 2,
        last: vec![1],
    };
    assert!(run(&mut session, &layer, &given, empty(&layer, 1), stride).is_ok());
}
