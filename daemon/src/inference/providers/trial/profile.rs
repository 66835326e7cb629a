//! Which provider ran how many nodes, out of ONNX Runtime's profile of a session: the one place where every build says so, for
//! built-in and plugin providers alike. (The placement interface came with 1.24; a session's own word is that it was opened.)

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    provider: Option<String>,
    node_index: Option<String>,
}

/// Distinct nodes by provider. A node that ran several times counts once, one that never ran not at all.
///
/// # Errors
/// When it is no profile.
pub(super) fn nodes(profile: &[u8]) -> serde_json::Result<BTreeMap<String, u32>> {
    let events: Vec<Event> = serde_json::from_slice(profile)?;
    let ran: BTreeSet<_> = events
        .into_iter()
        .filter(|event| event.cat == "Node" && event.name.ends_with("_kernel_time"))
        .filter_map(|event| Some((event.args.provider?, event.args.node_index, event.name)))
        .collect();
    let mut counts = BTreeMap::new();
    for (provider, _, _) in ran {
        *counts.entry(provider).or_default() += 1;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_counts_once_however_often_it_ran() {
        let node = |provider: &str, index: u32, name: &str| {
            serde_json::json!({"cat": "Node", "name": name, "dur": 3,
                "args": {"provider": provider, "node_index": index.to_string(), "op_name": "Conv"}})
        };
        let profile = serde_json::json!([
            {"cat": "Session", "name": "model_run", "args": {}},
            node("CPUExecutionProvider", 0, "conv_kernel_time"),
            node("CPUExecutionProvider", 0, "conv_kernel_time"),
            node("CPUExecutionProvider", 1, "_kernel_time"),
            node("CPUExecutionProvider", 2, "_kernel_time"),
            node("cpu_ep", 7, "cpu_ep_1_0_kernel_time"),
            node("cpu_ep", 7, "cpu_ep_1_0_fence_before"),
        ]);
        let counts = nodes(profile.to_string().as_bytes()).unwrap();
        assert_eq!(counts["CPUExecutionProvider"], 3);
        assert_eq!(counts["cpu_ep"], 1);
        assert!(nodes(b"[{").is_err());
    }
}
