//! Symbolic dimensions as layers: only what a symbol really needs becomes shape arithmetic in the network.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use trt_fuse_ir::{Dim, DimAlgebra, DimOp, Shape, ValueInfo};

use super::error::EmitError;
use super::layers::{DimsArg, Slice};
use super::sink::NetworkSink;
use super::site::Site;
use super::terms::{ElementwiseKind, SampleMode};

/// Where symbols can be read, and the tensors (one element each) already made for them.
#[derive(Debug, Clone)]
pub(super) struct Symbols<T> {
    sources: FxHashMap<Arc<str>, (T, usize)>,
    values: FxHashMap<Dim, T>,
}

impl<T> Default for Symbols<T> {
    fn default() -> Self {
        Self { sources: FxHashMap::default(), values: FxHashMap::default() }
    }
}

impl<T: Copy> Symbols<T> {
    /// Remembers the first tensor that has a symbol as a dimension.
    pub(super) fn learn(&mut self, info: &ValueInfo, tensor: T) {
        let Some(shape) = &info.shape else { return };
        for (axis, dim) in shape.iter().enumerate() {
            if let Some(name) = dim.as_symbol() {
                self.sources.entry(name.clone()).or_insert((tensor, axis));
            }
        }
    }
}

impl<'g, S: NetworkSink<'g>> Site<'_, '_, 'g, S> {
    /// A shape as a tensor of rank one.
    pub(super) fn dims_tensor(&mut self, shape: &Shape) -> Result<S::Tensor, EmitError> {
        let mut parts = Vec::new();
        for dim in shape {
            parts.push(self.dim_tensor(dim)?);
        }
        match parts.as_slice() {
            [] => self.int_vector(&[], "dims"),
            [one] => Ok(*one),
            parts => self.layer("dims", |sink, label| sink.concatenation(label, parts, 0)),
        }
    }

    /// Whether a dimension is a symbol that no tensor tells.
    pub(super) fn is_unbound(&self, dim: &Dim) -> bool {
        let symbols = &self.emitter.symbols;
        let told = |name: &Arc<str>| symbols.sources.contains_key(name) || symbols.values.contains_key(dim);
        dim.as_symbol().is_some_and(|name| !told(name))
    }

    /// Lets a tensor `[1]` stand for a dimension.
    pub(super) fn bind(&mut self, dim: &Dim, tensor: S::Tensor) {
        self.emitter.symbols.values.insert(dim.clone(), tensor);
    }

    /// A dimension as a tensor `[1]`.
    pub(super) fn dim_tensor(&mut self, dim: &Dim) -> Result<S::Tensor, EmitError> {
        if let Some(tensor) = self.emitter.symbols.values.get(dim) {
            return Ok(*tensor);
        }
        let tensor = dim.compute(self)?;
        self.emitter.symbols.values.insert(dim.clone(), tensor);
        Ok(tensor)
    }
}

impl<'g, S: NetworkSink<'g>> DimAlgebra for Site<'_, '_, 'g, S> {
    type Value = S::Tensor;
    type Error = EmitError;

    fn number(&mut self, value: i64) -> Result<S::Tensor, EmitError> {
        self.int_vector(&[value], "dim")
    }

    fn symbol(&mut self, name: &Arc<str>) -> Result<S::Tensor, EmitError> {
        if let Some(tensor) = self.emitter.symbols.values.get(&Dim::symbol(name.clone())) {
            return Ok(*tensor);
        }
        let Some((source, axis)) = self.emitter.symbols.sources.get(name).copied() else {
            return self.unsupported(format!("no tensor made so far has `{name}` as a dimension"));
        };
        let shape = self.layer("shape", |sink, label| sink.shape(label, source))?;
        let layer = Slice {
            start: DimsArg::Fixed(&[axis as i64]),
            size: DimsArg::Fixed(&[1]),
            stride: DimsArg::Fixed(&[1]),
            mode: SampleMode::StrictBounds,
            fill: None,
        };
        self.layer(name, |sink, label| sink.slice(label, shape, &layer))
    }

    fn binary(&mut self, op: DimOp, a: S::Tensor, b: S::Tensor) -> Result<S::Tensor, EmitError> {
        let kind = match op {
            DimOp::Add => ElementwiseKind::Sum,
            DimOp::Mul => ElementwiseKind::Prod,
            DimOp::FloorDiv => ElementwiseKind::FloorDiv,
            DimOp::Min => ElementwiseKind::Min,
            DimOp::Max => ElementwiseKind::Max,
            DimOp::Mod => {
                let quotient = self.elementwise(a, b, ElementwiseKind::FloorDiv, "dim")?;
                let product = self.elementwise(quotient, b, ElementwiseKind::Prod, "dim")?;
                return self.elementwise(a, product, ElementwiseKind::Sub, "dim");
            }
        };
        self.elementwise(a, b, kind, "dim")
    }
}
