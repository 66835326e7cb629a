use proptest::prelude::*;

use super::*;

/// A graph with one GroupQueryAttention, and what can be wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
    /// Whether keys and values lie behind the queries, in one tensor.
    pub(crate) is_packed: bool,
    /// `TensorProto.DataType` of the caches.
    element: i64,
    operator: &'static str,
    /// Whole numbers beside those that it needs.
    attributes: Vec<(&'static str, i64)>,
    softcap: f32,
    /// Inputs behind the sines.
    further: Vec<&'static str>,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            heads: 6,
            kv_heads: 2,
            dim: 32,
            is_packed: true,
            element: value_info::FLOAT,
            operator: EXCHANGED,
            attributes: Vec::new(),
            softcap: 0.0,
            further: Vec::new(),
        }
    }
}

/// `TensorProto.DataType`.
const INT32: i64 = 6;
const FLOAT16: i64 = 10;

fn text(number: u32, text: &str) -> (u32, Value) {
    (number, Value::Bytes(text.into()))
}

fn whole(number: u32, whole: i64) -> (u32, Value) {
    (number, Value::Varint(whole.cast_unsigned()))
}

fn inside(number: u32, fields: Vec<(u32, Value)>) -> (u32, Value) {
    (number, Value::Bytes(Fields(fields).write()))
}

/// A `ValueInfoProto`; a dimension of 0 is free.
fn info(number: u32, name: &str, element: i64, shape: &[usize]) -> (u32, Value) {
    /// Of `TensorShapeProto.Dimension`.
    const NAME: u32 = 2;
    let dimensions = shape.iter().enumerate().map(|(at, extent)| {
        let dimension = match extent {
            0 => text(NAME, &format!("{name}_{at}")),
            _ => whole(value_info::EXTENT, *extent as i64),
        };
        inside(value_info::DIMENSION, vec![dimension])
    });
    let tensor = vec![
        whole(value_info::ELEMENT, element),
        inside(value_info::SHAPE, dimensions.collect()),
    ];
    let kind = inside(value_info::TYPE, vec![inside(value_info::TENSOR, tensor)]);
    inside(number, vec![text(value_info::NAME, name), kind])
}

impl Layer {
    /// The model's bytes.
    pub(crate) fn model(&self) -> Vec<u8> {
        /// Of `AttributeProto`, and its values for a float and a whole number.
        const TYPE: u32 = 20;
        /// Of `ModelProto`.
        const IR_VERSION: u32 = 1;
        /// Of `GraphProto`.
        const NAME: u32 = 2;
        let (input, output) = (graph::INPUT, graph::OUTPUT);
        let float = value_info::FLOAT;
        let columns = match self.is_packed {
            true => self.heads + 2 * self.kv_heads,
            false => self.heads,
        };
        let cache = [0, self.kv_heads, 0, self.dim];
        let mut graph = vec![
            text(NAME, "layer"),
            info(input, "query", float, &[0, 0, columns * self.dim]),
            info(input, "past_key_values.0.key", self.element, &cache),
            info(input, "past_key_values.0.value", self.element, &cache),
            info(input, "seqlens_k", INT32, &[0]),
            info(input, "total_sequence_length", INT32, &[]),
            info(input, "cos", float, &[0, self.dim / 2]),
            info(input, "sin", float, &[0, self.dim / 2]),
            info(output, "out", float, &[0, 0, self.heads * self.dim]),
            info(output, "present.0.key", self.element, &cache),
            info(output, "present.0.value", self.element, &cache),
            info(graph::VALUE_INFO, "between", float, &[1]),
        ];
        let mut node = vec![text(node::NAME, "attention")];
        let (mut key, mut value) = ("", "");
        if !self.is_packed {
            (key, value) = ("key", "value");
            for name in [key, value] {
                let width = self.kv_heads * self.dim;
                graph.push(info(input, name, float, &[0, 0, width]));
            }
        }
        let [past_key, past_value] = ["past_key_values.0.key", "past_key_values.0.value"];
        let inputs = [
            "query",
            key,
            value,
            past_key,
            past_value,
            "seqlens_k",
            "total_sequence_length",
            "cos",
            "sin",
        ];
        node.extend(
            inputs
                .iter()
                .chain(&self.further)
                .map(|name| text(node::INPUT, name)),
        );
        node.extend(
            ["out", "present.0.key", "present.0.value"].map(|name| text(node::OUTPUT, name)),
        );
        node.push(text(node::OP_TYPE, self.operator));
        node.push(text(node::DOMAIN, "com.microsoft"));
        let counts = [
            ("num_heads", self.heads as i64),
            ("kv_num_heads", self.kv_heads as i64),
            ("do_rotary", 1),
            ("rotary_interleaved", 0),
            ("local_window_size", -1),
        ];
        let attributes = self.attributes.iter().copied();
        let replaced: Vec<&str> = attributes.clone().map(|(name, _)| name).collect();
        let counts = counts
            .into_iter()
            .filter(|(name, _)| !replaced.contains(name));
        node.extend(counts.chain(attributes).map(|(name, value)| {
            let fields = vec![
                text(attribute::NAME, name),
                whole(attribute::WHOLE, value),
                whole(TYPE, 2),
            ];
            inside(node::ATTRIBUTE, fields)
        }));
        let softcap = vec![
            text(attribute::NAME, "softcap"),
            (attribute::FLOAT, Value::Fixed32(self.softcap.to_bits())),
            whole(TYPE, 1),
        ];
        node.push(inside(node::ATTRIBUTE, softcap));
        graph.push(inside(graph::NODE, node));
        let import = |domain: &str, version: i64| {
            let fields = vec![text(opset::DOMAIN, domain), whole(opset::VERSION, version)];
            inside(model::OPSET_IMPORT, fields)
        };
        let model = vec![
            whole(IR_VERSION, 10),
            inside(model::GRAPH, graph),
            import("", 21),
            import("com.microsoft", 1),
        ];
        Fields(model).write()
    }
}

fn refusal(layer: &Layer) -> String {
    rewrite(&layer.model())
        .expect_err("it was exchanged")
        .to_string()
}

#[test]
fn nothing_but_attention_and_caches_is_touched() {
    let before = Fields::parse(&Layer::default().model()).unwrap();
    let after = Fields::parse(&rewrite(&Layer::default().model()).unwrap()).unwrap();
    // The graph is one field; behind all others comes the operator's domain.
    assert_eq!(after.0.len(), before.0.len() + 1);
    let graph = |model: &Fields| match model.all(model::GRAPH).next() {
        Some(Value::Bytes(graph)) => Fields::parse(graph).unwrap().0,
        other => panic!("{other:?}"),
    };
    let (before, after) = (graph(&before), graph(&after));
    let kept: Vec<_> = before
        .iter()
        .filter(|field| after.contains(field))
        .collect();
    // Gone or changed: two caches in, two out, the node, and what is only derived from the types.
    assert_eq!(kept.len(), before.len() - 6);
    assert_eq!(after.len(), before.len() - 1);
}

#[test]
fn what_the_operator_does_not_do_is_named() {
    let layer = Layer::default();
    let with = |attribute: (&'static str, i64)| Layer {
        attributes: vec![attribute],
        ..layer.clone()
    };
    let told = [
        (
            with(("local_window_size", 128)),
            "attention has the attribute local_window_size",
        ),
        (
            with(("smooth_softmax", 1)),
            "attention has the attribute smooth_softmax",
        ),
        (
            with(("rotary_interleaved", 1)),
            "attention has the attribute rotary_interleaved",
        ),
        (
            Layer {
                softcap: 30.0,
                ..layer.clone()
            },
            "attention has the attribute softcap",
        ),
        (
            Layer {
                further: vec!["positions"],
                ..layer.clone()
            },
            "attention has the input positions",
        ),
        (
            Layer {
                operator: "If.GroupQueryAttention",
                ..layer.clone()
            },
            "attention has attention in a graph of its own",
        ),
        (
            Layer {
                operator: "MultiHeadAttention",
                ..layer.clone()
            },
            "no layer has GroupQueryAttention",
        ),
        (
            Layer {
                element: FLOAT16,
                ..layer.clone()
            },
            "past_key_values.0.key is no tensor of 32-bit floats [rows, heads, tokens, 32 or 64 or 96 or 128 or 256]",
        ),
        (
            Layer {
                dim: 48,
                ..layer.clone()
            },
            "past_key_values.0.key is no tensor of 32-bit floats [rows, heads, tokens, 32 or 64 or 96 or 128 or 256]",
        ),
    ];
    for (layer, said) in told {
        assert_eq!(refusal(&layer), said);
    }
    // An input that is there by name alone is none.
    let nameless = Layer {
        further: vec!["", ""],
        ..layer
    };
    rewrite(&nameless.model()).unwrap();
}

#[test]
fn a_file_that_is_none_or_no_graph_is_said() {
    let directory = std::env::temp_dir();
    assert!(matches!(
        remake(&directory.join("no such graph")),
        Err(Unsuited::File(_))
    ));
    assert!(matches!(rewrite(b"no graph"), Err(Unsuited::Graph(_))));
    assert!(matches!(rewrite(b""), Err(Unsuited::Graph(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_exchanged_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = rewrite(&bytes);
    }

    #[test]
    fn a_damaged_graph_is_exchanged_or_refused(
        at in 0..10_000usize,
        byte in any::<u8>(),
        length in 0..10_000usize,
    ) {
        let mut bytes = Layer::default().model();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = rewrite(&bytes);
        bytes.truncate(length % bytes.len());
        let _ = rewrite(&bytes);
    }

    #[test]
    fn a_message_that_is_read_is_written_to_the_byte(fields in prop::collection::vec((1..5000u32, value()), 0..20)) {
        let bytes = Fields(fields.clone()).write();
        let read = Fields::parse(&bytes).unwrap();
        prop_assert_eq!(&read.0, &fields);
        prop_assert_eq!(read.write(), bytes);
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Varint),
        any::<u64>().prop_map(Value::Fixed64),
        any::<u32>().prop_map(Value::Fixed32),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ]
}
