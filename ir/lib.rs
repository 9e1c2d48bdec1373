//! The graph of trt-fuse: what sits between an ONNX file and a TensorRT network.
//!
//! A [`Graph`] is a dataflow graph of tensors. A node has an operator ([`Op`]) with typed parameters, input slots in a
//! fixed order (an optional input left out is an empty slot), and one or more outputs. A [`ValueRef`] names a tensor.
//! Every output records what is known of it before it exists ([`ValueInfo`]): dtype, shape over named symbols
//! ([`Dim`]), and the elements of small integer tensors, so that shape arithmetic disappears. Constants are nodes; their
//! bytes are shared and may lie in a mapped file ([`Tensor`]). Control flow holds its bodies as graphs, what a body
//! captures being an input of the node.
//!
//! A graph is made by a [`Builder`], changed by a [`Patch`] and nothing else, checked by [`verify`], whose result
//! [`Verified`] is what later stages ask for. Each node remembers the ONNX nodes that it stands for ([`Origin`]).
//! [`infer`] tells types and shapes, [`eval`] computes.
//!
//! # Text form
//!
//! Printed by `Display` (topologically numbered, stable), parsed by `FromStr`:
//!
//! ```text
//! graph g(%x: f32[batch, 3, 8, 8]) -> (%y) {
//!   %w = constant() value=f32[4, 3, 1, 1] splat 0.5
//!   %y = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu] : f32[batch, 4, 8, 8]
//! }
//! ```
//!
//! `_` is an empty slot, `%a, %b = split(..)` a node of two outputs. The type after `:` is inferred and, when parsed,
//! checked. An output whose public name differs from its value's is written `%value as "name"`.

pub mod attr;
mod builder;
mod caps;
mod concrete;
mod dim;
mod dtype;
mod error;
pub mod eval;
mod graph;
pub mod infer;
mod intervals;
pub mod op;
mod origin;
mod patch;
mod tensor;
mod text;
mod value;
mod verify;

pub use builder::Builder;
pub use caps::{Capabilities, Flavour};
pub use concrete::shapes_at;
pub use dim::{Dim, DimAlgebra, DimOp, ParseDimError, Shape};
pub use dtype::DType;
pub use error::GraphError;
pub use graph::{Graph, NewNode, Node, NodeId, Output, Source, Use, Value, ValueRef};
pub use intervals::{Interval, beyond};
pub use op::{Epilogue, Ints, Op, OpKind, Padding, Step};
pub use origin::Origin;
pub use patch::{Applied, Patch};
pub use tensor::{Dims, Element, Tensor, TensorError, numel};
pub use text::ParseError;
pub use value::{InputValues, Known, MAX_KNOWN_ELEMENTS, ValueInfo};
pub use verify::{Verified, VerifyErrors, Violation, verify};
