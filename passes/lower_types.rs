//! Computes in the nearest type that the target has, where the model's type is none of its.
//!
//! ```text
//! %y = add(%x, %c) : f64[n]
//! ```
//! becomes
//! ```text
//! %1 = cast(%x) to=f32 : f32[n]
//! %2 = add(%1, %d) : f32[n]             %d is %c in f32
//! %y = cast(%2) to=f64 : f64[n]
//! ```
//! Sums, products and the like of integers wrap around as their bits do, by a remainder after them.
//!
//! A conversion back to the type of the model and again from it is none, so that casts stay at the edges of the graph
//! alone; there the network's own inputs and outputs have the nearest type.
//!
//! Fires on every value of a type that [`Capabilities::computed_in`] puts another in the place of.
//!
//! Leaves alone what quantization reads and makes, what takes bits for another type, the inputs and outputs of control
//! flow (its bodies have types of their own), and constants that the nearest type cannot hold.
//!
//! Order: after all other lowering, which asks for the model's types.
//!
//! Numerics: f64 has f32's precision; unsigned 64-bit integers must be below 2^63 where their bits alone do not tell the
//! result. Floats beyond the range of an integer type become its nearest number.

use std::collections::BTreeMap;

use trt_fuse_ir::eval::narrowed;
use trt_fuse_ir::op::{BinaryOp, Cast, ConstantOfShape, Random, ReduceKind, UnaryOp};
use trt_fuse_ir::{Capabilities, DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// A type of the model that another stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversion {
    /// The model's type.
    pub from: DType,
    /// The type that is computed in.
    pub to: DType,
    /// Tensors of it.
    pub tensors: usize,
}

/// The types of a graph that others stand for on a target, each with the number of its tensors.
pub fn conversions(graph: &Graph, capabilities: &Capabilities) -> Vec<Conversion> {
    let mut found = BTreeMap::new();
    for id in graph.live() {
        let Some(node) = graph.node(id) else { continue };
        for dtype in node.outputs.iter().map(|value| value.info.dtype) {
            if let Some(to) = stand_in(dtype, capabilities) {
                found.entry(dtype).or_insert(Conversion { from: dtype, to, tensors: 0 }).tensors += 1;
            }
        }
    }
    found.into_values().collect()
}

/// The type that stands for `dtype`, if another does.
fn stand_in(dtype: DType, capabilities: &Capabilities) -> Option<DType> {
    capabilities.computed_in(dtype).filter(|to| *to != dtype)
}

/// As [`stand_in`], for types that the graph is rewritten in. Shapes and indices keep theirs, which inference and other
/// operators ask for; emission makes every such tensor one of [`Capabilities::index_dtype`].
fn rewritten(dtype: DType, capabilities: &Capabilities) -> Option<DType> {
    stand_in(dtype, capabilities).filter(|_| dtype != DType::I64)
}

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerTypes;

impl Rule for LowerTypes {
    fn name(&self) -> &'static str {
        "lower_types"
    }

    fn roots(&self) -> &'static [OpKind] {
        OpKind::ALL
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let types = Types { graph, capabilities: context.capabilities };
        let inputs = graph.node_inputs(root);
        let dtypes = inputs.iter().flatten().map(|input| graph.dtype(*input));
        let is_foreign = |dtype: DType| rewritten(dtype, context.capabilities).is_some();
        if !dtypes.chain(node.outputs.iter().map(|value| value.info.dtype)).any(is_foreign) {
            return Err(Miss::NoMatch);
        }
        let mut f = Formula::new(self.name(), graph, root);
        let op = match &node.op {
            Op::Cast(op) => return types.cast(f, op),
            Op::ConstantOfShape(op) => {
                let to = rewritten(op.value.dtype(), context.capabilities);
                let value = to.map(|to| narrowed(&op.value, to)).unwrap_or(Some(op.value.clone()));
                Op::from(ConstantOfShape { value: value.ok_or(Miss::NoMatch)? })
            }
            Op::Random(op) => {
                let dtype = rewritten(op.dtype, context.capabilities).unwrap_or(op.dtype);
                Op::from(Random { dtype, ..op.clone() })
            }
            Op::Input | Op::Constant(_) | Op::Opaque(_) | Op::If(_) | Op::Loop(_) | Op::Scan(_) => {
                return Err(Miss::NoMatch);
            }
            // Another type has other bits.
            Op::Quantize(_) | Op::Dequantize(_) | Op::BitCast(_) => return Err(Miss::NoMatch),
            op => op.clone(),
        };
        let mut lowered = Vec::new();
        for input in &inputs {
            lowered.push(match input {
                Some(input) => Some(types.lowered(&mut f, *input)?),
                None => None,
            });
        }
        let leaves_range = leaves_range(&op);
        let outputs = f.many(op, &lowered, node.outputs.len());
        let mut results = Vec::new();
        for (value, output) in node.outputs.iter().zip(outputs) {
            let dtype = value.info.dtype;
            results.push(match rewritten(dtype, context.capabilities) {
                Some(computed) => {
                    let wraps = leaves_range && dtype.is_integer();
                    let held = if wraps { f.wrapped(output, computed, dtype)? } else { output };
                    f.op(Cast { to: dtype, saturate: true, in_range: true }, &[held])
                }
                None => output,
            });
        }
        Ok(f.results(&results))
    }
}

struct Types<'g> {
    graph: &'g Graph,
    capabilities: &'g Capabilities,
}

impl Types<'_> {
    /// A value in the type that stands for its own.
    fn lowered(&self, f: &mut Formula<'_>, value: ValueRef) -> Result<ValueRef, Miss> {
        let Some(to) = rewritten(self.graph.dtype(value), self.capabilities) else { return Ok(value) };
        if let Some(constant) = self.graph.constant(value) {
            return Ok(f.constant(narrowed(constant, to).ok_or(Miss::NoMatch)?));
        }
        if let Some(Op::Cast(Cast { in_range: true, .. })) = self.graph.op(value.node) {
            let source = self.graph.input(value.node, 0).ok_or(Miss::NoMatch)?;
            if self.graph.dtype(source) == to {
                return Ok(source);
            }
        }
        // One conversion serves all readers.
        let is_shared =
            |id: NodeId| matches!(self.graph.op(id), Some(Op::Cast(cast)) if cast.in_range && cast.to == to);
        match self.graph.uses(value).find(|reader| is_shared(reader.node)) {
            Some(cast) => Ok(cast.node.into()),
            None => Ok(f.op(Cast { to, saturate: true, in_range: true }, &[value])),
        }
    }

    fn cast(&self, mut f: Formula<'_>, op: &Cast) -> Result<Patch, Miss> {
        let x = f.input(0)?;
        let own = self.graph.dtype(x);
        let computed = rewritten(own, self.capabilities).unwrap_or(own);
        if op.in_range {
            // What this rule leaves. Between two computations it is none.
            return match self.graph.op(x.node) {
                Some(Op::Cast(Cast { in_range: true, .. })) if computed == op.to => {
                    let source = self.lowered(&mut f, x)?;
                    Ok(f.result(source))
                }
                _ => Err(Miss::NoMatch),
            };
        }
        let source = self.lowered(&mut f, x)?;
        let y = match rewritten(op.to, self.capabilities) {
            None if computed == op.to => source,
            None => f.op(op.clone(), &[source]),
            Some(to) => {
                let y = converted(&mut f, source, (own, computed), op.to, to)?;
                f.op(Cast { to: op.to, saturate: true, in_range: true }, &[y])
            }
        };
        Ok(f.result(y))
    }
}

/// Whether an operator makes of numbers of a type some that the type does not have.
fn leaves_range(op: &Op) -> bool {
    match op {
        Op::Unary(op) => matches!(op, UnaryOp::Neg | UnaryOp::Abs),
        Op::Binary(op) => {
            matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Pow)
        }
        Op::Reduce(op) => !matches!(op.kind, ReduceKind::Max | ReduceKind::Min | ReduceKind::Mean),
        Op::Cumulative(_) | Op::MatMul(_) | Op::Einsum(_) => true,
        _ => false,
    }
}

/// A value of the type `own`, computed in another, converted to `wanted`, which is computed in `to`. Whole numbers wrap
/// around as their bits do; floats beyond the range become its ends.
fn converted(
    f: &mut Formula<'_>,
    x: ValueRef,
    (own, computed): (DType, DType),
    wanted: DType,
    to: DType,
) -> Result<ValueRef, Miss> {
    let cast = |f: &mut Formula<'_>, x, from, to| if from == to { x } else { f.cast(x, to) };
    if own == DType::Bool || wanted.is_float() || (!own.is_float() && (holds(wanted, own) || wanted.bits() == 64)) {
        return Ok(cast(f, x, computed, to));
    }
    if own.is_float() && wanted.bits() >= 8 {
        let mut y = cast(f, x, computed, to);
        let (least, most) = limits(wanted);
        y = f.with_number(BinaryOp::Max, y, to, least)?;
        return if wanted.bits() < to.bits() { f.with_number(BinaryOp::Min, y, to, most) } else { Ok(y) };
    }
    let wide = cast(f, x, computed, DType::I64);
    let wrapped = f.wrapped(wide, DType::I64, wanted)?;
    Ok(cast(f, wrapped, DType::I64, to))
}

/// The least and the largest number of an integer type.
fn limits(dtype: DType) -> (f64, f64) {
    let count = 2_f64.powi(dtype.bits() as i32);
    if dtype.is_unsigned_integer() { (0.0, count - 1.0) } else { (-count / 2.0, count / 2.0 - 1.0) }
}

/// Whether an integer type has every value of another.
pub(crate) fn holds(dtype: DType, other: DType) -> bool {
    match (dtype.is_signed_integer(), other.is_signed_integer()) {
        (true, true) | (false, false) => dtype.bits() >= other.bits(),
        (true, false) => dtype.bits() > other.bits(),
        (false, true) => false,
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Tensor;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::fold_constants::evaluate_one;
    use crate::testing::{Run, run_rule};

    fn run(text: &str) -> Run {
        run_rule(LowerTypes, text)
    }

    /// Compares on given inputs, as random ones have none of these types.
    fn check(text: &str, inputs: &[Tensor]) -> Graph {
        let run = run(text);
        let (expected, found) = (eval_graph(&run.before, inputs).unwrap(), eval_graph(&run.after, inputs).unwrap());
        assert_eq!(expected, found, "{text}\n{}", run.after);
        run.after
    }

    #[test]
    fn computes_doubles_as_floats() {
        let text = "graph g(%x: f64[2]) -> (%y) {
            %c = constant() value=f64[2] {0.5, 2.0} %1 = add(%x, %c) %2 = mul(%1, %c) %y = exp(%2) }";
        let graph = check(&text.replace("exp", "neg"), &[Tensor::vector(vec![1.5_f64, -3.0])]);
        insta::assert_snapshot!(graph, @"
        graph g(%x: f64[2]) -> (%y) {
          %1.1 = cast(%x) to=f32 saturate=true in_range=true : f32[2]
          %1.lower_types = constant() value=f32[2] {0.5, 2.0}
          %1.2 = add(%1.1, %1.lower_types) : f32[2]
          %2.lower_types = constant() value=f32[2] {0.5, 2.0}
          %2.2 = mul(%1.2, %2.lower_types) : f32[2]
          %y.2 = neg(%2.2) : f32[2]
          %y = cast(%y.2) to=f64 saturate=true in_range=true : f64[2]
        }
        ");
    }

    #[test]
    fn one_conversion_serves_all_readers() {
        let text = "graph g(%x: u8[4]) -> (%y, %z) { %y = add(%x, %x) %1 = max(%x, %y) %z = cast(%1) to=f32 }";
        let graph = check(text, &[Tensor::vector(vec![0_u8, 1, 100, 127])]);
        insta::assert_snapshot!(graph, @"
        graph g(%x: u8[4]) -> (%y, %z) {
          %1.1 = cast(%x) to=i32 saturate=true in_range=true : i32[4]
          %y.1 = add(%1.1, %1.1) : i32[4]
          %y.lower_types = constant() value=i32[] {256}
          %y.2 = mod(%y.1, %y.lower_types) : i32[4]
          %y = cast(%y.2) to=u8 saturate=true in_range=true : u8[4]
          %1.3 = max(%1.1, %y.2) : i32[4]
          %z = cast(%1.3) to=f32 : f32[4]
        }
        ");
    }

    #[test]
    fn conversions_wrap_around_as_bits_do() {
        for (from, to, numbers) in [
            ("i32", "u8", vec![-1_i64, 256, 300, 7]),
            ("i64", "i16", vec![32768, -32769, 65536, 5]),
            ("i64", "u32", vec![-1, 1 << 32, 5, 6]),
            ("i32", "u4", vec![-1, 16, 5, 6]),
            ("u16", "u8", vec![256, 65535, 5, 6]),
            ("u8", "i16", vec![255, 128, 0, 1]),
        ] {
            let x = Tensor::vector(numbers);
            let cast = Cast { to: from.parse().unwrap(), saturate: true, in_range: false };
            let x = evaluate_one(&cast.into(), &[Some(&x)]).unwrap();
            let text = format!("graph g(%x: {from}[4]) -> (%y) {{ %1 = cast(%x) to={to} %y = cast(%1) to=i64 }}");
            check(&text, &[x]);
        }
    }

    #[test]
    fn arithmetic_wraps_around_as_bits_do() {
        let texts = [
            "%1 = add(%x, %x) %2 = mul(%1, %x) %3 = sub(%2, %1) %y = cast(%3) to=i64",
            "%1 = reduce(%x) kind=sum axes=[0] keep_dims=true %y = cast(%1) to=i64",
            "%1 = mul(%x, %x) %2 = cumulative(%1, %axis) product=false %y = cast(%2) to=i64",
        ];
        for (dtype, numbers) in [
            ("u8", vec![200_i64, 255, 0, 130]),
            ("i16", vec![32767, -32768, 300, -1]),
            ("u16", vec![65535, 40000, 1, 0]),
            ("u32", vec![u32::MAX.into(), 1 << 31, 1 << 16, 3]),
        ] {
            let x = evaluate_one(&Cast::new(dtype.parse().unwrap()).into(), &[Some(&Tensor::vector(numbers))]).unwrap();
            for text in texts {
                let axis = "%axis = constant() value=i64[] {0}";
                check(&format!("graph g(%x: {dtype}[4]) -> (%y) {{ {axis} {text} }}"), std::slice::from_ref(&x));
            }
        }
    }

    #[test]
    fn floats_beyond_a_type_become_its_ends() {
        let x = Tensor::vector(vec![300.0_f32, -1.0, 255.9, -40000.0, 1e20]);
        for dtype in ["u8", "i16", "u16", "u32"] {
            let text = format!("graph g(%x: f32[5]) -> (%y) {{ %1 = cast(%x) to={dtype} %y = cast(%1) to=f32 }}");
            check(&text, std::slice::from_ref(&x));
        }
    }

    #[test]
    fn leaves_numbers_that_are_not_held_alone() {
        for constant in ["f64[1] {1e300}", "f64[1] {-1e-300}", "f64[1] {16777217.0}", "u64[1] {18446744073709551615}"] {
            let dtype = &constant[..3];
            let text =
                format!("graph g(%x: {dtype}[1]) -> (%y) {{ %c = constant() value={constant} %y = add(%x, %c) }}");
            assert_eq!(run(&text).rewrites, 0, "{constant}");
        }
    }

    #[test]
    fn leaves_the_targets_types_and_quantization_alone() {
        for text in [
            "graph g(%x: f16[2]) -> (%y) { %1 = cast(%x) to=f32 %y = exp(%1) }",
            "graph g(%x: f32[2]) -> (%y) { %s = constant() value=f32[] {0.5} %z = constant() value=u8[] {128}
                %q = quantize(%x, %s, %z) axis=0 to=u8 saturate=true %y = dequantize(%q, %s, %z) axis=0 }",
            // Other bits, and bodies with types of their own.
            "graph g(%x: f64[2]) -> (%y) { %y = bit_cast(%x) to=i64 }",
            r#"graph g(%c: bool[], %x: f64[2]) -> (%y) { %y = if(%c, %x)
                then_branch="graph t(%x: f64[2]) -> (%z) { %z = neg(%x) }"
                else_branch="graph e(%x: f64[2]) -> (%z) { %z = exp(%x) }" }"#,
        ] {
            assert_eq!(run(text).rewrites, 0, "{text}");
        }
    }

    #[test]
    fn conversions_are_counted() {
        let graph: Graph =
            "graph g(%x: f64[2], %i: u8[2]) -> (%y, %j) { %y = neg(%x) %j = add(%i, %i) }".parse().unwrap();
        let found = conversions(&graph, &Capabilities::default());
        let expected = [(DType::F64, DType::F32), (DType::U8, DType::I32)];
        assert_eq!(found, expected.map(|(from, to)| Conversion { from, to, tensors: 2 }));
    }
}
