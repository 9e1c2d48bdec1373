//! Symbolic dimensions as layers: only what a symbol really needs becomes shape arithmetic in the network.

use std::convert::Infallible;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use trt_fuse_ir::{Dim, DimAlgebra, DimOp, Shape, ValueInfo};

use super::error::EmitError;
use super::layers::{DimsArg, Slice};
use super::sink::NetworkSink;
use super::site::Site;
use super::terms::{ElementwiseKind, SampleMode};

/// Where symbols can be read, and the tensors already made for them.
#[derive(Debug, Clone)]
pub(super) struct Symbols<T> {
    /// Of each symbol, a tensor that has it as a dimension, by its place in `tensors`, and the axis.
    sources: FxHashMap<Arc<str>, (usize, usize)>,
    tensors: Vec<Source<T>>,
    /// Dimensions as tensors of one element.
    values: FxHashMap<Dim, T>,
    /// Several dimensions as one tensor.
    vectors: FxHashMap<Shape, T>,
}

/// A tensor that tells symbols.
#[derive(Debug, Clone)]
struct Source<T> {
    tensor: T,
    /// Its dimensions as a tensor, once they were asked for.
    shape: Option<T>,
}

impl<T> Default for Symbols<T> {
    fn default() -> Self {
        Self {
            sources: FxHashMap::default(),
            tensors: Vec::new(),
            values: FxHashMap::default(),
            vectors: FxHashMap::default(),
        }
    }
}

impl<T: Copy> Symbols<T> {
    /// Remembers the first tensor that has a symbol as a dimension.
    pub(super) fn learn(&mut self, info: &ValueInfo, tensor: T) {
        let Some(shape) = &info.shape else { return };
        let (place, mut is_first) = (self.tensors.len(), false);
        for (axis, dim) in shape.iter().enumerate() {
            if let Some(name) = dim.as_symbol()
                && !self.sources.contains_key(name)
            {
                self.sources.insert(name.clone(), (place, axis));
                is_first = true;
            }
        }
        if is_first {
            self.tensors.push(Source { tensor, shape: None });
        }
    }

    /// Whether a dimension can be computed from the tensors made so far.
    pub(super) fn tell(&self, dim: &Dim) -> bool {
        let mut told = true;
        dim.visit_symbols(&mut |name| {
            told &= self.sources.contains_key(name) || self.values.contains_key(&Dim::symbol(name.clone()));
        });
        told || self.values.contains_key(dim)
    }
}

/// Whether a dimension has a quotient or a remainder in it. TensorRT 10.7 rounds some quotients of its floored division of
/// integers up, as of 18,542,495 by 32.
pub(super) fn divides(dim: &Dim) -> bool {
    dim.compute(&mut Divisions).unwrap_or(true)
}

/// True where there is a division.
struct Divisions;

impl DimAlgebra for Divisions {
    type Value = bool;
    type Error = Infallible;

    fn number(&mut self, _: i64) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn symbol(&mut self, _: &Arc<str>) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn binary(&mut self, op: DimOp, a: bool, b: bool) -> Result<bool, Infallible> {
        Ok(a || b || matches!(op, DimOp::FloorDiv | DimOp::Mod))
    }
}

impl<'g, S: NetworkSink<'g>> Site<'_, '_, 'g, S> {
    /// A shape as a tensor of rank one.
    pub(super) fn dims_tensor(&mut self, shape: &Shape) -> Result<S::Tensor, EmitError> {
        if let Some(tensor) = self.emitter.symbols.vectors.get(shape) {
            return Ok(*tensor);
        }
        let fixed: Option<Vec<i64>> = shape.iter().map(Dim::value).collect();
        let tensor = match (fixed, shape.as_slice()) {
            (_, [one]) => return self.dim_tensor(one),
            (Some(fixed), _) => self.int_vector(&fixed, "dims")?,
            (None, dims) => {
                let parts = self.runs(dims)?;
                self.layer("dims", |sink, label| sink.concatenation(label, &parts, 0))?
            }
        };
        self.emitter.symbols.vectors.insert(shape.clone(), tensor);
        Ok(tensor)
    }

    /// Dimensions as tensors to join: each symbolic one, and the numbers between.
    fn runs(&mut self, dims: &[Dim]) -> Result<Vec<S::Tensor>, EmitError> {
        let mut parts = Vec::new();
        for run in dims.chunk_by(|a, b| a.value().is_some() && b.value().is_some()) {
            parts.push(match run {
                [one] => self.dim_tensor(one)?,
                run => self.dims_tensor(&run.iter().cloned().collect())?,
            });
        }
        Ok(parts)
    }

    /// The dimensions of a tensor that tells symbols.
    fn source_shape(&mut self, place: usize) -> Result<S::Tensor, EmitError> {
        let Some(Source { tensor, shape }) = self.emitter.symbols.tensors.get(place).cloned() else {
            return self.unsupported("a symbol whose tensor is not known");
        };
        if let Some(shape) = shape {
            return Ok(shape);
        }
        let shape = self.layer("shape", |sink, label| sink.shape(label, tensor))?;
        if let Some(source) = self.emitter.symbols.tensors.get_mut(place) {
            source.shape = Some(shape);
        }
        Ok(shape)
    }

    /// Whether a dimension is a symbol that no tensor tells.
    pub(super) fn is_unbound(&self, dim: &Dim) -> bool {
        dim.as_symbol().is_some() && !self.emitter.symbols.tell(dim)
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
        let Some((place, axis)) = self.emitter.symbols.sources.get(name).copied() else {
            return self.unsupported(format!("no tensor made so far has `{name}` as a dimension"));
        };
        let shape = self.source_shape(place)?;
        let layer = Slice {
            start: DimsArg::Fixed(&[axis as i64]),
            size: DimsArg::Fixed(&[1]),
            stride: DimsArg::Fixed(&[1]),
            mode: SampleMode::StrictBounds,
            fill: None,
        };
        let tensor = self.layer(name, |sink, label| sink.slice(label, shape, &layer))?;
        self.emitter.symbols.values.insert(Dim::symbol(name.clone()), tensor);
        Ok(tensor)
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

#[cfg(test)]
mod tests {
    use trt_fuse_ir::{Capabilities, Graph, verify};

    use crate::emit::emit;
    use crate::emit::record::Record;

    fn layers(text: &str) -> String {
        let graph: Graph = text.parse().unwrap();
        let mut record = Record::new();
        emit(verify(&graph).unwrap(), &Capabilities::default(), &mut record).unwrap();
        let text = record.text();
        text.lines().filter(|line| !line.contains("= input")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn extents_are_made_once() {
        let text = "graph g(%x: f32[n, m, 6]) -> (%b, %d) {
            %a = reshape(%x) shape=[n, m, 2, 3] %b = relu(%a) %c = neg(%x) %d = reshape(%c) shape=[n, m, 2, 3] }";
        insta::assert_snapshot!(layers(text), @r#"
        %a::shape_out = shape "a::shape" (%x) ; a
        %a::n_out = slice "a::n" (%a::shape_out) start=[0] size=[1] stride=[1] ; a
        %a::m_out = slice "a::m" (%a::shape_out) start=[1] size=[1] stride=[1] ; a
        %a::dims_out = constant "a::dims" value=i64[2]#4f3c4324ac05c493 ; a
        %a::dims.2_out = concatenation "a::dims.2" (%a::n_out, %a::m_out, %a::dims_out) axis=0 ; a
        %a f32[n,m,2,3] = shuffle "a" (%x) reshape=%a::dims.2_out
        %b f32[n,m,2,3] = activation "b" (%a) kind=relu
        %c f32[n,m,6] = unary "c" (%x) kind=neg
        %d f32[n,m,2,3] = shuffle "d" (%c) reshape=%a::dims.2_out
        output "b" (%b) type=f32
        output "d" (%d) type=f32
        "#);
    }

    #[test]
    fn shape_arithmetic_that_no_layer_reads_is_left_out() {
        let text = "graph g(%x: f32[n, 4]) -> (%y) {
            %zero = constant() value=i64[] {0} %one = constant() value=i64[] {1}
            %s = shape(%x) start=0 %n = gather(%s, %zero) axis=0 %y = range(%zero, %n, %one) }";
        insta::assert_snapshot!(layers(text), @r#"
        %y::shape_out = shape "y::shape" (%x) ; y
        %y::n_out = slice "y::n" (%y::shape_out) start=[0] size=[1] stride=[1] ; y
        %zero_out = constant "zero" value=i64[]#8518530a4a82bcd8
        %one_out = constant "one" value=i64[]#95857985956d4790
        %y::step_out = shuffle "y::step" (%one_out) reshape=[1] ; y
        %y i64[n] = fill "y" dims=%y::n_out type=i64 alpha=%zero_out beta=%y::step_out
        output "y" (%y) type=i64
        "#);
    }

    #[test]
    fn shape_arithmetic_that_a_layer_reads_is_made_of_its_symbols() {
        let text = "graph g(%x: i64[n, 4]) -> (%y, %n, %m) {
            %zero = constant() value=i64[] {0} %s = shape(%x) start=0 %n = gather(%s, %zero) axis=0
            %y = mul(%x, %n) %m = mul(%n, %n) }";
        insta::assert_snapshot!(layers(text), @r#"
        %n::shape_out = shape "n::shape" (%x) ; n
        %n::n_out = slice "n::n" (%n::shape_out) start=[0] size=[1] stride=[1] ; n
        %n_out = shuffle "n" (%n::n_out) reshape=[]
        %y::broadcast_out = shuffle "y::broadcast" (%n_out) reshape=[1,1] ; y
        %y i64[n,4] = elementwise "y" (%x, %y::broadcast_out) kind=prod
        output "y" (%y) type=i64
        %n = identity "n.2" (%n_out) ; n
        output "n" (%n) type=i64
        %m::dim_out = elementwise "m::dim" (%n::n_out, %n::n_out) kind=prod ; m
        %m.2_out = shuffle "m.2" (%m::dim_out) reshape=[] ; m
        %m = identity "m" (%m.2_out)
        output "m" (%m) type=i64
        "#);
    }
}
