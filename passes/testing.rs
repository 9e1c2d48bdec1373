//! What the tests of all passes share: running one pass on a graph in text form, and comparing outputs.

use trt_fuse_ir::eval::eval_graph;
use trt_fuse_ir::{Capabilities, Element, Graph, Tensor, verify};

use crate::pass::settle;
use crate::{Options, Pass, PassContext, Remark, Rule, Rules};

/// A pass run on a graph in text form.
pub(crate) struct Run {
    pub(crate) before: Graph,
    pub(crate) after: Graph,
    pub(crate) rewrites: usize,
    pub(crate) remarks: Vec<Remark>,
}

/// Runs a rule until it finds nothing more, and verifies what it leaves.
pub(crate) fn run_rule(rule: impl Rule + 'static, text: &str) -> Run {
    run_pass(&Rules::one(rule), text)
}

/// Runs a rule that must fire, on given inputs: the outputs must be the same, bit by bit.
pub(crate) fn run_rule_on(rule: impl Rule + 'static, text: &str, inputs: &[Tensor]) -> Run {
    let run = run_rule(rule, text);
    assert!(run.rewrites > 0, "{text}");
    let (expected, found) = (eval_graph(&run.before, inputs).unwrap(), eval_graph(&run.after, inputs).unwrap());
    assert_eq!(expected, found, "{text}\n{}", run.after);
    run
}

/// As [`run_rule_on`], on an operator of two vectors of a type.
pub(crate) fn run_elementwise<T: Element>(rule: impl Rule + 'static, op: &str, a: Vec<T>, b: Vec<T>) -> Run {
    let (dtype, n) = (T::DTYPE, a.len());
    let text = format!("graph g(%a: {dtype}[{n}], %b: {dtype}[{n}]) -> (%y) {{ %y = {op}(%a, %b) }}");
    run_rule_on(rule, &text, &[Tensor::vector(a), Tensor::vector(b)])
}

/// The graph after a rule for a target.
pub(crate) fn run_for(rule: impl Rule + 'static, before: &Graph, target: &Capabilities) -> Graph {
    let mut after = before.clone();
    let options = Options::default();
    Rules::one(rule).run(&mut after, &mut PassContext::new(target, &options)).unwrap();
    after
}

/// Runs a pass once, verifies what it leaves, and checks that a second run changes nothing.
pub(crate) fn run_pass(pass: &dyn Pass, text: &str) -> Run {
    run_on(pass, text.parse().unwrap_or_else(|error| panic!("{error}\n{text}")))
}

/// As [`run_pass`], on a graph.
pub(crate) fn run_on(pass: &dyn Pass, before: Graph) -> Run {
    let mut after = before.clone();
    let (capabilities, options) = (Capabilities::default(), Options::default());
    let mut context = PassContext::new(&capabilities, &options);
    let outcome = pass.run(&mut after, &mut context).unwrap();
    settle(pass.name(), &mut after).unwrap();
    if let Err(errors) = verify(&after) {
        panic!("{errors}\n{after}");
    }
    let mut again = after.clone();
    let second = pass.run(&mut again, &mut PassContext::new(&capabilities, &options)).unwrap();
    assert_eq!(second.rewrites(), 0, "a second run changes the graph:\n{after}\n{again}");
    Run { before, after, rewrites: outcome.rewrites(), remarks: context.remarks }
}

impl Run {
    /// The graph after, in text form; checks that outputs on pseudo-random inputs agree within `tolerance` (relative to
    /// the largest output), symbols taken as `size`.
    pub(crate) fn equal_within(&self, tolerance: f64, size: i64) -> &Self {
        let inputs = random_inputs(&self.before, size, 1);
        let expected = eval_graph(&self.before, &inputs).unwrap();
        let found = eval_graph(&self.after, &inputs).unwrap();
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            let gap = difference(expected, found);
            assert!(gap <= tolerance, "outputs differ by {gap}\n{}\n{}", self.before, self.after);
        }
        self
    }

    /// The reasons that the pass gave for not firing.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.remarks.iter().map(|remark| remark.reason.as_str()).collect()
    }
}

/// Inputs of a graph: floats in -2..2, integers in 0..4, from a fixed sequence.
pub(crate) fn random_inputs(graph: &Graph, size: i64, seed: u64) -> Vec<Tensor> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1_u64 << 24) as f32
    };
    let mut inputs = Vec::new();
    for id in graph.inputs() {
        let info = graph.info((*id).into()).unwrap();
        let dims: Vec<usize> =
            info.shape.as_ref().unwrap().iter().map(|dim| dim.evaluate(&|_| Some(size)).unwrap() as usize).collect();
        let count = dims.iter().product();
        let data: Vec<f32> = (0..count).map(|_| next() * 4.0 - 2.0).collect();
        let tensor = match info.dtype {
            trt_fuse_ir::DType::F32 => Tensor::from_vec(dims, data),
            trt_fuse_ir::DType::F16 => Tensor::from_vec(dims, data.into_iter().map(half::f16::from_f32).collect()),
            trt_fuse_ir::DType::I64 => Tensor::from_vec(dims, data.into_iter().map(|x| (x + 2.0) as i64).collect()),
            trt_fuse_ir::DType::I32 => Tensor::from_vec(dims, data.into_iter().map(|x| (x + 2.0) as i32).collect()),
            trt_fuse_ir::DType::I8 => Tensor::from_vec(dims, data.into_iter().map(|x| (x * 30.0) as i8).collect()),
            trt_fuse_ir::DType::U8 => Tensor::from_vec(dims, data.into_iter().map(|x| (x * 30.0) as u8).collect()),
            trt_fuse_ir::DType::Bool => Tensor::from_vec(dims, data.into_iter().map(|x| x > 0.0).collect()),
            other => panic!("no random input of {other}"),
        };
        inputs.push(tensor.unwrap());
    }
    inputs
}

/// The largest difference relative to the largest magnitude; infinite if dtype, shape or the places of NaN differ.
pub(crate) fn difference(expected: &Tensor, found: &Tensor) -> f64 {
    if expected.dtype() != found.dtype() || expected.dims() != found.dims() {
        return f64::INFINITY;
    }
    let (Some(a), Some(b)) = (expected.to_f64s(), found.to_f64s()) else {
        return if expected == found { 0.0 } else { f64::INFINITY };
    };
    let largest = a.iter().copied().filter(|x| x.is_finite()).fold(1e-6, |largest: f64, x| largest.max(x.abs()));
    a.iter().zip(&b).fold(0.0, |gap, (a, b)| {
        let same = a == b || (a.is_nan() && b.is_nan());
        let here = if same { 0.0 } else { (a - b).abs() / largest };
        if here.is_nan() { f64::INFINITY } else { gap.max(here) }
    })
}
