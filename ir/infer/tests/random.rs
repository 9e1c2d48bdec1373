//! Random graphs over symbolic dimensions: what inference says, under the symbols' values, is what evaluation finds.

use proptest::prelude::*;
use smallvec::SmallVec;

use crate::eval::{Bindings, EvalContext, eval_op};
use crate::graph::NewNode;
use crate::op::{
    ArgReduce, BinaryOp, Cast, Concat, ConstantOfShape, Cumulative, Expand, Flatten, Gather, GatherElements, MatMul,
    Op, Pad, PadMode, Padding, Pool, PoolKind, Reduce, ReduceKind, Reshape, ShapeOf, Slice, Softmax, Split, Squeeze,
    Tile, TopK, Transpose, Trilu, UnaryOp, Unsqueeze,
};
use crate::{Builder, DType, Ints, Origin, Tensor, ValueInfo, ValueRef};

/// Largest tensor that is worked with.
const MAX_ELEMENTS: usize = 2000;

/// Random numbers that shrink.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % bound.max(1)
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }
}

/// A graph under construction, each value with its tensor.
struct Twin {
    builder: Builder,
    symbols: Bindings,
    values: Vec<(ValueRef, Tensor)>,
}

impl Twin {
    fn new(n: i64, h: i64) -> Self {
        let mut twin = Self { builder: Builder::new("random"), symbols: Bindings::default(), values: Vec::new() };
        twin.symbols.insert("n".into(), n);
        twin.symbols.insert("h".into(), h);
        let (n, h) = (n as usize, h as usize);
        let floats = |count: usize| (0..count).map(|at| (at % 7) as f32 - 2.0).collect::<Vec<f32>>();
        let infos = [
            (ValueInfo::new(DType::F32, ["n", "3", "h"].map(|dim| dim.parse::<crate::Dim>().unwrap())), vec![n, 3, h]),
            (ValueInfo::new(DType::F32, ["h"]), vec![h]),
            (ValueInfo::new(DType::F32, [2_usize, 4, 5]), vec![2, 4, 5]),
        ];
        for (at, (info, dims)) in infos.into_iter().enumerate() {
            let value = twin.builder.input(format!("x{at}"), info);
            let tensor = Tensor::from_vec(&dims, floats(dims.iter().product())).unwrap();
            twin.values.push((value, tensor));
        }
        twin.add(ShapeOf { start: 0, end: None }.into(), &[0], 1).unwrap();
        twin
    }

    fn pick(&self, choices: &mut Choices<'_>) -> usize {
        // Rather a recent value than an old one.
        let count = self.values.len();
        count - 1 - choices.below(count.min(6))
    }

    /// A value that the filter accepts, if there is any.
    fn pick_of(&self, choices: &mut Choices<'_>, accept: impl Fn(&Tensor) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.values.len()).filter(|at| accept(&self.values[*at].1)).collect();
        if all.is_empty() { None } else { Some(all[choices.below(all.len())]) }
    }

    fn constant(&mut self, tensor: Tensor) -> usize {
        let value = self.builder.constant("c", tensor.clone()).unwrap();
        self.values.push((value, tensor));
        self.values.len() - 1
    }

    fn ints(&mut self, items: Vec<i64>) -> usize {
        self.constant(Tensor::vector(items))
    }

    /// Adds a node to the graph, evaluates it, and checks one against the other.
    fn add(&mut self, op: Op, inputs: &[usize], outputs: usize) -> Result<(), TestCaseError> {
        let tensors: Vec<Option<&Tensor>> = inputs.iter().map(|at| Some(&self.values[*at].1)).collect();
        let evaluated = eval_op(&op, &tensors, &EvalContext { outputs, symbols: &self.symbols });
        let items: Vec<_> = tensors.iter().flatten().map(|tensor| tensor.to_i64s()).collect();
        let shown = format!("{op} {:?} of {tensors:?} {items:?}", op.attrs());
        let new = NewNode {
            op,
            inputs: inputs.iter().map(|at| Some(self.values[*at].0)).collect(),
            name: "t".into(),
            outputs: SmallVec::from_elem("t".into(), outputs),
            origin: Origin::default(),
        };
        let (node, tensors) = match (self.builder.node(new), evaluated) {
            (Ok(node), Ok(tensors)) => (node, tensors),
            // What inference cannot refuse may still fail on the data.
            (_, Err(_)) => return Ok(()),
            (Err(error), Ok(_)) => return Err(TestCaseError::fail(format!("refused: {error}: {shown}"))),
        };
        for (slot, tensor) in tensors.into_iter().enumerate() {
            let value = ValueRef { node, slot: slot as u32 };
            let info = self.builder.graph().info(value).unwrap().clone();
            self.compare(&info, &tensor).map_err(|what| TestCaseError::fail(format!("{what}: {info}, {shown}")))?;
            // Broadcasting takes the larger of two symbols, which holds for tensors that are not empty.
            if (1..=MAX_ELEMENTS).contains(&tensor.numel()) && tensor.rank() <= 5 {
                self.values.push((value, tensor));
            }
        }
        Ok(())
    }

    fn compare(&mut self, info: &ValueInfo, tensor: &Tensor) -> Result<(), String> {
        if info.dtype != tensor.dtype() {
            return Err(format!("dtype {}", tensor.dtype()));
        }
        let Some(shape) = &info.shape else { return Ok(()) };
        if shape.len() != tensor.rank() {
            return Err(format!("dims {:?}", tensor.dims()));
        }
        for (dim, size) in shape.iter().zip(tensor.dims()) {
            match (dim.evaluate(&|name| self.symbols.get(name).copied()), dim.as_symbol()) {
                (Some(expected), _) if expected == *size as i64 => {}
                (None, Some(fresh)) => drop(self.symbols.insert(fresh.clone(), *size as i64)),
                _ => return Err(format!("dims {:?}", tensor.dims())),
            }
        }
        if let Some(elements) = info.known_elements() {
            let expected: Option<Vec<i64>> =
                elements.iter().map(|dim| dim.evaluate(&|name| self.symbols.get(name).copied())).collect();
            if expected != tensor.to_i64s() {
                return Err(format!("elements {:?}, inferred {elements:?}", tensor.to_i64s()));
            }
        }
        Ok(())
    }

    fn step(&mut self, choices: &mut Choices<'_>) -> Result<(), TestCaseError> {
        let kind = choices.below(34);
        let x = self.pick(choices);
        let (rank, dims) = (self.values[x].1.rank() as i64, self.values[x].1.dims().to_vec());
        let axis = choices.between(-rank, rank - 1);
        let vector = |tensor: &Tensor| tensor.dtype() == DType::I64 && tensor.rank() == 1;
        let same = |tensor: &Tensor, dtype: DType| tensor.dtype() == dtype;
        let dtype = self.values[x].1.dtype();
        match kind {
            0 => {
                let op = choices.of(&[UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Identity, UnaryOp::Sign, UnaryOp::Not]);
                self.add(Op::Unary(op), &[x], 1)
            }
            1..=5 => {
                let op = choices.of(BinaryOp::ALL);
                let Some(y) = self.pick_of(choices, |tensor| same(tensor, dtype)) else { return Ok(()) };
                self.add(Op::Binary(op), &[x, y], 1)
            }
            6 => {
                let (Some(c), Some(y)) = (
                    self.pick_of(choices, |tensor| same(tensor, DType::Bool)),
                    self.pick_of(choices, |tensor| same(tensor, dtype)),
                ) else {
                    return Ok(());
                };
                self.add(Op::Where, &[c, x, y], 1)
            }
            7 => {
                let to = choices.of(&[DType::I32, DType::I64, DType::F32, DType::Bool, DType::U8]);
                self.add(Cast::new(to).into(), &[x], 1)
            }
            8 => {
                let shape = choices.of(&[[-1, 0, 1], [0, -1, 2], [0, 0, -1], [-1, 3, 1], [1, 1, -1], [2, -1, -1]]);
                let length = choices.below(4);
                let shape = self.ints(shape[..length.min(3)].to_vec());
                self.add(Reshape { shape: None, allow_zero: choices.flag() }.into(), &[x, shape], 1)
            }
            9 => {
                // An expression is taken for a size, neither 0 nor -1.
                let sizes = |tensor: &Tensor| {
                    vector(tensor) && tensor.to_i64s().is_some_and(|dims| dims.iter().all(|dim| *dim > 0))
                };
                let Some(shape) = self.pick_of(choices, sizes) else { return Ok(()) };
                self.add(Reshape { shape: None, allow_zero: false }.into(), &[x, shape], 1)
            }
            10 => self.add(Flatten { axis: choices.between(-rank, rank) }.into(), &[x], 1),
            11 => {
                let axes = if choices.flag() { Some(Ints::from_slice(&[axis])) } else { None };
                self.add(Squeeze { axes }.into(), &[x], 1)
            }
            12 => {
                let axes = self.ints(vec![choices.between(-rank - 1, rank)]);
                self.add(Unsqueeze { axes: None }.into(), &[x, axes], 1)
            }
            13 => {
                let mut perm: Ints = (0..rank).collect();
                for at in 1..perm.len() {
                    perm.swap(at, choices.below(at + 1));
                }
                self.add(Transpose { perm }.into(), &[x], 1)
            }
            14 => {
                let Some(shape) = self.pick_of(choices, |tensor| {
                    vector(tensor) && tensor.to_i64s().is_some_and(|dims| dims.iter().all(|dim| (0..9).contains(dim)))
                }) else {
                    return Ok(());
                };
                if choices.flag() {
                    let value = Tensor::vector(vec![choices.between(-1, 2)]);
                    self.add(ConstantOfShape { value }.into(), &[shape], 1)
                } else {
                    self.add(Expand { shape: None }.into(), &[x, shape], 1)
                }
            }
            15..=17 => {
                let Some(y) = self.pick_of(choices, |tensor| same(tensor, dtype) && tensor.rank() as i64 == rank)
                else {
                    return Ok(());
                };
                self.add(Concat { axis }.into(), &[x, y, x], 1)
            }
            18 => {
                let parts = 1 + choices.below(3);
                let Ok(at) = crate::infer::resolve_axis(axis, dims.len()) else { return Ok(()) };
                // Where equal parts leave less than nothing for the last one, ONNX says nothing.
                if dims[at].div_ceil(parts) * (parts - 1) > dims[at] {
                    return Ok(());
                }
                self.add(Split { axis, sizes: None }.into(), &[x], parts)
            }
            19..=22 => {
                let bounds = [-9, -3, -2, -1, 0, 1, 2, 3, 4, 9, i64::MAX, i64::MIN];
                let (start, end) = (choices.of(&bounds), choices.of(&bounds));
                let step = choices.of(&[1, 1, 1, 2, 3, -1, -2]);
                let slots = [vec![start], vec![end], vec![axis], vec![step]].map(|items| self.ints(items));
                let slice = Slice { axes: None, starts: None, ends: None, steps: None };
                self.add(slice.into(), &[x, slots[0], slots[1], slots[2], slots[3]], 1)
            }
            23 => {
                let pads = (0..2 * rank).map(|_| choices.between(-1, 2)).collect();
                self.add(Pad { mode: PadMode::Constant, pads: Some(pads) }.into(), &[x], 1)
            }
            24 => {
                let repeats = (0..rank).map(|_| choices.between(0, 2)).collect();
                let repeats = self.ints(repeats);
                self.add(Tile {}.into(), &[x, repeats], 1)
            }
            25 => {
                let end = if choices.flag() { Some(choices.between(-4, 4)) } else { None };
                self.add(ShapeOf { start: choices.between(-4, 4), end }.into(), &[x], 1)
            }
            26 => self.add(if choices.flag() { Op::Size } else { Op::NonZero }, &[x], 1),
            27 => {
                let scalar = |tensor: &Tensor| {
                    tensor.rank() == 0 && tensor.to_i64s().is_some_and(|items| items[0].unsigned_abs() < 100)
                };
                let Some(limit) = self.pick_of(choices, |tensor| scalar(tensor) && tensor.dtype() == DType::I64) else {
                    return Ok(());
                };
                let start = self.constant(Tensor::scalar(choices.between(-2, 2)));
                let step = self.constant(Tensor::scalar(choices.of(&[1_i64, 2, 3, -1])));
                self.add(Op::Range, &[start, limit, step], 1)
            }
            28 => {
                let indices: Vec<i64> = (0..choices.below(4)).map(|_| choices.between(-2, 2)).collect();
                let scalar = choices.flag() && indices.len() == 1;
                let indices = if scalar { self.constant(Tensor::scalar(indices[0])) } else { self.ints(indices) };
                self.add(Gather { axis }.into(), &[x, indices], 1)
            }
            29 => {
                let count = choices.below(3);
                let shape: Vec<usize> = dims.iter().map(|dim| count.min(*dim)).collect();
                let items: Vec<i64> = (0..shape.iter().product()).map(|_| choices.between(-2, 1)).collect();
                let indices = self.constant(Tensor::from_vec(&shape, items).unwrap());
                self.add(GatherElements { axis }.into(), &[x, indices], 1)
            }
            30 => {
                let axes = match choices.below(3) {
                    0 => None,
                    1 => Some(Ints::new()),
                    _ => Some(Ints::from_slice(&[axis])),
                };
                let (keep_dims, noop_if_empty) = (choices.flag(), choices.flag());
                let kind = choices.of(ReduceKind::ALL);
                self.add(Reduce { kind, axes, keep_dims, noop_if_empty }.into(), &[x], 1)
            }
            31 => match choices.below(5) {
                0 => {
                    let (keep_dims, largest) = (choices.flag(), choices.flag());
                    self.add(ArgReduce { largest, axis, keep_dims, select_last: false }.into(), &[x], 1)
                }
                1 => self.add(Softmax { axis, log: false }.into(), &[x], 1),
                2 => {
                    let k = self.ints(vec![choices.between(0, 3)]);
                    self.add(TopK { axis, largest: true, sorted: true }.into(), &[x, k], 2)
                }
                3 => {
                    let axis = self.constant(Tensor::scalar(axis));
                    self.add(Cumulative { product: false, exclusive: true, reverse: false }.into(), &[x, axis], 1)
                }
                _ => self.add(Trilu { upper: true }.into(), &[x], 1),
            },
            32 => {
                let Some(y) = self.pick_of(choices, |tensor| same(tensor, dtype)) else { return Ok(()) };
                let (transpose_a, transpose_b) = (choices.flag(), choices.flag());
                self.add(MatMul::new(transpose_a, transpose_b).into(), &[x, y], 1)
            }
            _ => {
                let axes = (rank - 2).max(0) as usize;
                let mut each = |low, high| (0..axes).map(|_| choices.between(low, high)).collect::<Ints>();
                let (kernel, strides, dilations) = (each(1, 3), each(1, 3), each(1, 2));
                let pads = [each(0, 2), each(0, 2)].concat();
                let padding = match choices.below(4) {
                    0 => Padding::SameUpper,
                    1 => Padding::SameLower,
                    _ => Padding::Explicit(pads.into()),
                };
                let (kind, ceil_mode) = (choices.of(&[PoolKind::Max, PoolKind::Average]), choices.flag());
                let op = Pool { kind, kernel, strides, dilations, padding, ceil_mode, p: None, column_major: false };
                self.add(op.into(), &[x], 1)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn inference_foretells_evaluation(
        bytes in proptest::collection::vec(any::<u8>(), 20..300),
        n in 1..5_i64,
        h in 1..8_i64,
    ) {
        let mut choices = Choices(bytes.iter());
        let mut twin = Twin::new(n, h);
        while !choices.0.as_slice().is_empty() {
            twin.step(&mut choices)?;
        }
        let mut graph = twin.builder.finish();
        for (value, _) in &twin.values {
            graph.add_output("out".into(), *value);
        }
        crate::verify(&graph).map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        let text = graph.to_string();
        let again: crate::Graph = text.parse().map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(again.to_string(), text);
    }
}
