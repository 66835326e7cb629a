//! The embedding model as it ships, on the real ONNX Runtime.

mod bundles;

use std::time::Duration;

use autoglm_edge::inference::{
    Inference, embedder::Embedding, error::InferenceError, manifest::Task,
};

async fn embedder() -> Inference {
    let inference = Inference::start(bundles::config());
    inference
        .handle()
        .wait_ready(Task::Embedding, bundles::PATIENCE)
        .await
        .expect("the embedding model loads");
    inference
}

async fn embed(inference: &Inference, texts: &[&str]) -> Vec<Embedding> {
    let texts = texts.iter().map(|text| text.to_string()).collect();
    inference
        .handle()
        .embedder()
        .embed(texts)
        .await
        .expect("sentences are embedded")
}

#[tokio::test]
async fn sentences_that_mean_the_same_are_nearer_than_those_that_do_not() {
    let inference = embedder().await;
    let vectors = embed(
        &inference,
        &[
            "switch on the desk lamp",
            "please turn the lamp on my desk on",
            "what will the weather be tomorrow",
        ],
    )
    .await;
    let (near, far) = (
        vectors[0].cosine(&vectors[1]),
        vectors[0].cosine(&vectors[2]),
    );
    assert!(near > 0.8 && far < 0.3, "near {near}, far {far}");
}

#[tokio::test]
async fn a_sentence_in_a_batch_is_the_sentence_alone() {
    let inference = embedder().await;
    let texts: Vec<String> = (0..40)
        .map(|index| {
            format!(
                "set the lamp {} to {index} percent",
                ["desk", "floor"][index % 2]
            )
        })
        .collect();
    let together = inference
        .handle()
        .embedder()
        .embed(texts.clone())
        .await
        .unwrap();
    assert_eq!(together.len(), texts.len());
    let mut least = 1f32;
    for (text, vector) in texts.iter().zip(&together) {
        let alone = &embed(&inference, &[text]).await[0];
        least = least.min(alone.cosine(vector));
    }
    println!("least cosine of batch to single: {least}");
    assert!(least > 0.999, "{least}");
}

#[tokio::test]
async fn a_sentence_among_others_of_other_lengths_and_callers_is_the_sentence_alone() {
    let inference = embedder().await;
    let texts: Vec<String> = (0..60)
        .map(|index: usize| {
            format!(
                "turn {} the lamp{}",
                index,
                " in the kitchen and".repeat(index % 7)
            )
        })
        .collect();
    let mut callers = tokio::task::JoinSet::new();
    for (index, text) in texts.iter().cloned().enumerate() {
        // Some are gone before they are answered, and change nothing for the others.
        let embedder = inference.handle().embedder().clone();
        if index % 10 == 9 {
            drop(tokio::spawn(
                async move { embedder.embed(vec![text]).await },
            ));
            continue;
        }
        callers.spawn(async move {
            loop {
                match embedder.embed(vec![text.clone()]).await {
                    Ok(vectors) => return (index, vectors[0].clone()),
                    Err(InferenceError::Overloaded { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let mut least = 1f32;
    for (index, together) in callers.join_all().await {
        let alone = &embed(&inference, &[&texts[index]]).await[0];
        least = least.min(alone.cosine(&together));
    }
    println!("least cosine of company to single: {least}");
    assert!(least > 0.9999, "{least}");
}

#[tokio::test]
async fn an_empty_or_boundless_request_is_refused() {
    let inference = embedder().await;
    let handle = inference.handle();
    for texts in [vec![], vec!["x".repeat(1 << 20)]] {
        let error = handle.embedder().embed(texts).await.unwrap_err();
        assert!(
            matches!(error, InferenceError::OutOfRange { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_serves_the_rest() {
    let inference = embedder().await;
    let handle = inference.handle();
    let requests = (0..200).map(|index| {
        let embedder = handle.embedder().clone();
        async move {
            embedder
                .embed(vec![format!("sentence number {index}"); 8])
                .await
        }
    });
    let results = futures_util::future::join_all(requests).await;
    let served = results.iter().filter(|result| result.is_ok()).count();
    let refused = results
        .iter()
        .filter(|result| matches!(result, Err(InferenceError::Overloaded { .. })))
        .count();
    println!("served {served}, refused {refused}");
    assert!(
        served >= 32 && refused > 0,
        "served {served}, refused {refused}"
    );
    assert_eq!(
        served + refused,
        200,
        "only Overloaded refuses: {results:?}"
    );
}

#[tokio::test]
async fn a_stopped_engine_answers_stopping_and_its_threads_end() {
    let inference = embedder().await;
    let handle = inference.handle();
    inference
        .stop(Duration::from_secs(20))
        .await
        .expect("no straggler");
    let error = handle
        .embedder()
        .embed(vec!["anybody there".into()])
        .await
        .unwrap_err();
    assert!(matches!(error, InferenceError::Stopping), "{error}");
}
