//! Numbers of the fields that are looked at, by message, from `onnx.proto`.

pub(super) mod model {
    pub(in crate::graph) const GRAPH: u32 = 7;
    pub(in crate::graph) const OPSET_IMPORT: u32 = 8;
}

pub(super) mod opset {
    pub(in crate::graph) const DOMAIN: u32 = 1;
    pub(in crate::graph) const VERSION: u32 = 2;
}

pub(super) mod graph {
    pub(in crate::graph) const NODE: u32 = 1;
    pub(in crate::graph) const INPUT: u32 = 11;
    pub(in crate::graph) const OUTPUT: u32 = 12;
    pub(in crate::graph) const VALUE_INFO: u32 = 13;
}

pub(super) mod node {
    pub(in crate::graph) const INPUT: u32 = 1;
    pub(in crate::graph) const OUTPUT: u32 = 2;
    pub(in crate::graph) const NAME: u32 = 3;
    pub(in crate::graph) const OP_TYPE: u32 = 4;
    pub(in crate::graph) const ATTRIBUTE: u32 = 5;
    pub(in crate::graph) const DOMAIN: u32 = 7;
}

pub(super) mod attribute {
    pub(in crate::graph) const NAME: u32 = 1;
    pub(in crate::graph) const FLOAT: u32 = 2;
    pub(in crate::graph) const WHOLE: u32 = 3;
    pub(in crate::graph) const TEXT: u32 = 4;
}

pub(super) mod value_info {
    pub(in crate::graph) const NAME: u32 = 1;
    pub(in crate::graph) const TYPE: u32 = 2;
    /// Of `TypeProto`.
    pub(in crate::graph) const TENSOR: u32 = 1;
    /// Of `TypeProto.Tensor`.
    pub(in crate::graph) const ELEMENT: u32 = 1;
    pub(in crate::graph) const SHAPE: u32 = 2;
    /// Of `TensorShapeProto`.
    pub(in crate::graph) const DIMENSION: u32 = 1;
    /// Of `TensorShapeProto.Dimension`.
    pub(in crate::graph) const EXTENT: u32 = 1;
    /// `TensorProto.DataType`.
    pub(in crate::graph) const FLOAT: i64 = 1;
    pub(in crate::graph) const UINT8: u64 = 2;
}
