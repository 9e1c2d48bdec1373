//! Integers that grow by the same step all along an axis.

use smallvec::SmallVec;
use trt_fuse_ir::op::{BinaryOp, UnaryOp};
use trt_fuse_ir::{DType, Dim, Graph, Op, Shape, ValueRef};

/// Operators that are looked through.
const DEEPEST: usize = 12;

type Steps = SmallVec<[Dim; 4]>;

/// A tensor of integers whose element at `i` is `start` and `steps[axis] * i[axis]` for each axis, whatever the sizes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Progression {
    shape: Shape,
    start: Dim,
    /// One for each axis; along an axis of size 1 it means nothing and is 0.
    steps: Steps,
}

impl Progression {
    /// What a value of type i64 is known to be.
    pub(crate) fn of(graph: &Graph, value: ValueRef) -> Option<Self> {
        within(graph, value, DEEPEST)
    }

    /// Whether the elements in order are 0, 1, 2 and so on.
    pub(crate) fn is_count(&self) -> bool {
        let mut behind = Dim::fixed(1);
        let mut counts = self.start.is(0);
        for (size, step) in self.shape.iter().zip(&self.steps).rev() {
            counts &= size.is(1) || *step == behind;
            behind = &behind * size;
        }
        counts
    }

    /// The elements less those of another, both broadcast to a shape.
    pub(crate) fn minus(self, other: Self, shape: &Shape) -> Option<Self> {
        Some(self.expanded(shape)?.plus(&other.expanded(shape)?.scaled(&Dim::fixed(-1))))
    }

    /// Whether every element is at least a number, whatever the sizes. `false` means "not known".
    pub(crate) fn at_least(&self, bound: i64) -> bool {
        self.least().is_some_and(|least| least.at_least(bound))
    }

    /// Whether every element is at most a number, whatever the sizes. `false` means "not known".
    pub(crate) fn at_most(&self, bound: i64) -> bool {
        bound.checked_neg().is_some_and(|bound| self.clone().scaled(&Dim::fixed(-1)).at_least(bound))
    }

    /// The least element, or if there is none what would be.
    fn least(&self) -> Option<Dim> {
        let one = Dim::fixed(1);
        self.steps.iter().zip(&self.shape).try_fold(self.start.clone(), |least, (step, size)| {
            if step.at_least(0) {
                return Some(least);
            }
            // Falling, the last one.
            (step * &Dim::fixed(-1)).at_least(0).then(|| &least + &(step * &(size - &one)))
        })
    }

    /// One number for all elements.
    fn is_uniform(&self) -> bool {
        self.steps.iter().all(|step| step.is(0))
    }

    /// Broadcast to a shape.
    fn expanded(self, shape: &Shape) -> Option<Self> {
        let lead = shape.len().checked_sub(self.shape.len())?;
        let steps = (0..lead).map(|_| Dim::fixed(0)).chain(self.steps).collect();
        let fits = self.shape.iter().zip(shape.iter().skip(lead)).all(|(own, wanted)| own.is(1) || own == wanted);
        fits.then(|| Self { shape: shape.clone(), start: self.start, steps })
    }

    /// Axes of size 1 put in or left out.
    fn reshaped(self, shape: &Shape) -> Option<Self> {
        let mut kept = self.shape.iter().zip(self.steps).filter(|(size, _)| !size.is(1));
        let mut steps = Steps::new();
        for size in shape {
            steps.push(if size.is(1) { Dim::fixed(0) } else { kept.next().filter(|(found, _)| *found == size)?.1 });
        }
        let is_all = kept.next().is_none();
        is_all.then(|| Self { shape: shape.clone(), start: self.start, steps })
    }

    fn scaled(self, factor: &Dim) -> Self {
        let steps = self.steps.iter().map(|step| step * factor).collect();
        Self { start: &self.start * factor, steps, ..self }
    }

    fn plus(self, other: &Self) -> Self {
        let steps = self.steps.iter().zip(&other.steps).map(|(a, b)| a + b).collect();
        Self { start: &self.start + &other.start, steps, ..self }
    }
}

fn within(graph: &Graph, value: ValueRef, left: usize) -> Option<Progression> {
    // Computed, a number that leaves i64 wraps around; sizes are far from that.
    let is_small = |number: &Dim| number.value().is_none_or(|number| i32::try_from(number).is_ok());
    computed(graph, value, left).filter(|found| is_small(&found.start) && found.steps.iter().all(is_small))
}

fn computed(graph: &Graph, value: ValueRef, left: usize) -> Option<Progression> {
    let info = graph.info(value).filter(|info| info.dtype == DType::I64)?;
    let shape = info.shape.clone()?;
    if shape.iter().all(|dim| dim.is(1)) {
        let start = info.known_elements()?.first()?.clone();
        let steps = shape.iter().map(|_| Dim::fixed(0)).collect();
        return Some(Progression { shape, start, steps });
    }
    let left = left.checked_sub(1)?;
    let input = |slot| within(graph, graph.input(value.node, slot)?, left);
    match graph.op(value.node)? {
        Op::Range => {
            let (start, step) = (input(0)?.start, input(2)?.start);
            Some(Progression { shape, start, steps: [step].into_iter().collect() })
        }
        Op::Reshape(_) | Op::Unsqueeze(_) | Op::Squeeze(_) => input(0)?.reshaped(&shape),
        Op::Expand(_) => input(0)?.expanded(&shape),
        Op::Unary(UnaryOp::Identity) => input(0),
        Op::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul)) => {
            let (a, b) = (input(0)?.expanded(&shape)?, input(1)?.expanded(&shape)?);
            match op {
                BinaryOp::Add => Some(a.plus(&b)),
                BinaryOp::Sub => Some(a.plus(&b.scaled(&Dim::fixed(-1)))),
                _ if a.is_uniform() => Some(b.scaled(&a.start)),
                _ if b.is_uniform() => Some(a.scaled(&b.start)),
                _ => None,
            }
        }
        _ => None,
    }
}
