//! How a chain of reshapes and transposes moves elements: which factors of the sizes go where.
//!
//! Each axis of the source is a product of factors, each axis of the result is a product of the same factors in another
//! order. Any chain whose sizes factor is told by these, and written again with at most two reshapes around a transpose.

use trt_fuse_ir::op::{Reshape, Transpose};
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, Patch, Shape, ValueRef};

use crate::pass::RuleContext;

/// Indices into the factors of a layout.
type Group = Vec<usize>;

/// Where the elements of a source are in a result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    factors: Vec<Dim>,
    /// The factors of each axis of the source, which together are all of them in order. An axis of size 1 has none.
    source: Vec<Group>,
    source_shape: Shape,
    result: Vec<Group>,
    result_shape: Shape,
}

/// A step of a chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A reshape.
    Reshape(Shape),
    /// A transpose.
    Transpose(Ints),
}

impl Step {
    /// The reshape, of known shape, or transpose of axes from the front that a node is.
    pub(crate) fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        match graph.op(id)? {
            Op::Reshape(op) => Some(Self::Reshape(op.shape.clone()?)),
            Op::Transpose(op) if op.perm.iter().all(|axis| *axis >= 0) => Some(Self::Transpose(op.perm.clone())),
            _ => None,
        }
    }

    /// The step as a node.
    pub(crate) fn add(self, patch: &mut Patch, x: ValueRef) -> ValueRef {
        match self {
            Self::Reshape(shape) => patch.add(Reshape { shape: Some(shape), allow_zero: false }, &[Some(x)]),
            Self::Transpose(perm) => patch.add(Transpose { perm }, &[Some(x)]),
        }
    }
}

impl Layout {
    /// The layout that moves nothing.
    pub(crate) fn identity(shape: &Shape) -> Self {
        let mut factors = Vec::new();
        let mut group = |dim: &Dim| {
            if dim.is(1) {
                return Group::new();
            }
            factors.push(dim.clone());
            vec![factors.len() - 1]
        };
        let source: Vec<Group> = shape.iter().map(&mut group).collect();
        Self { factors, result: source.clone(), source, source_shape: shape.clone(), result_shape: shape.clone() }
    }

    /// The layout followed by a step; `None` where the sizes do not factor.
    pub(crate) fn then(mut self, step: &Step) -> Option<Self> {
        match step {
            Step::Transpose(perm) => {
                let axis = |axis: &i64| usize::try_from(*axis).ok();
                self.result = perm.iter().map(|at| self.result.get(axis(at)?).cloned()).collect::<Option<_>>()?;
                self.result_shape =
                    perm.iter().map(|at| self.result_shape.get(axis(at)?).cloned()).collect::<Option<_>>()?;
                Some(self)
            }
            Step::Reshape(shape) => {
                let mut rest: Group = self.result.concat();
                rest.reverse();
                let mut result = Vec::new();
                for dim in shape {
                    result.push(self.take(&mut rest, dim)?);
                }
                self.result = result;
                self.result_shape = shape.clone();
                rest.is_empty().then_some(self)
            }
        }
    }

    /// Factors of a size from the end of a list, the last of them split if that needs to be.
    fn take(&mut self, rest: &mut Group, size: &Dim) -> Option<Group> {
        let (mut group, mut left) = (Group::new(), size.clone());
        while !left.is(1) {
            let at = rest.pop()?;
            let factor = self.factors.get(at)?.clone();
            if factor == left {
                left = Dim::fixed(1);
            } else if let Some(quotient) = left.exact_div(&factor) {
                left = quotient;
            } else {
                rest.push(self.split(at, left.clone(), factor.exact_div(&left)?)?);
                left = Dim::fixed(1);
            }
            group.push(at);
        }
        Some(group)
    }

    /// Splits a factor of the source in two, the second of which is new.
    fn split(&mut self, at: usize, first: Dim, second: Dim) -> Option<usize> {
        let new = self.factors.len();
        *self.factors.get_mut(at)? = first;
        self.factors.push(second);
        let group = self.source.iter_mut().find(|group| group.contains(&at))?;
        let place = group.iter().position(|factor| *factor == at)?;
        group.insert(place + 1, new);
        Some(new)
    }

    /// For a result that is the left operand of a matrix product of so many columns: the part of the layout that the
    /// product needs before it, and the rest, of the product's result. Rows may stand anywhere, so that the first part
    /// keeps them as the source has them. `None` if the result has no columns.
    pub(crate) fn around_product(&self, columns: &Dim) -> Option<(Self, Self)> {
        let (summed, rows) = self.result.split_last().filter(|(summed, _)| !summed.is_empty())?;
        let mut factors = self.factors.clone();
        let mut middle: Vec<Group> = Vec::new();
        for group in &self.source {
            let kept: Group = group.iter().copied().filter(|factor| !summed.contains(factor)).collect();
            if group.is_empty() || !kept.is_empty() {
                middle.push(kept);
            }
        }
        let size = |group: &Group| Dim::product(group.iter().filter_map(|factor| self.factors.get(*factor)));
        let row_shape: Shape = middle.iter().map(size).collect();
        let with = |shape: &[Dim], last: Dim| shape.iter().cloned().chain([last]).collect::<Shape>();
        let before = Self {
            result: middle.iter().chain([summed]).cloned().collect(),
            result_shape: with(&row_shape, self.result_shape.last()?.clone()),
            ..self.clone()
        };
        let across = if columns.is(1) {
            Group::new()
        } else {
            factors.push(columns.clone());
            vec![factors.len() - 1]
        };
        let after = Self {
            factors,
            source: middle.into_iter().chain([across.clone()]).collect(),
            source_shape: with(&row_shape, columns.clone()),
            result: rows.iter().cloned().chain([across]).collect(),
            result_shape: with(self.result_shape.split_last()?.1, columns.clone()),
        };
        Some((before, after))
    }

    /// For a result of whose first axis each index is a part: the layout of such a part of a source that is cut into as many
    /// along its last axis. `None` if the parts are not cut that way.
    pub(crate) fn of_part(&self) -> Option<Self> {
        let ((cut, result), (last, source)) = (self.result.split_first()?, self.source.split_last()?);
        let rest = last.strip_prefix(cut.as_slice()).filter(|_| !cut.is_empty())?;
        let size = Dim::product(rest.iter().filter_map(|factor| self.factors.get(*factor)));
        Some(Self {
            factors: self.factors.clone(),
            source: source.iter().cloned().chain([rest.to_vec()]).collect(),
            source_shape: self.source_shape.split_last()?.1.iter().cloned().chain([size]).collect(),
            result: result.to_vec(),
            result_shape: self.result_shape.split_first()?.1.iter().cloned().collect(),
        })
    }

    /// The shape of the source.
    pub(crate) fn source_shape(&self) -> &Shape {
        &self.source_shape
    }

    /// The factors of each axis of the result, as their places in the source.
    fn places(&self) -> Vec<Group> {
        let mut place = vec![0; self.factors.len()];
        for (at, factor) in self.source.iter().flatten().enumerate() {
            place[*factor] = at;
        }
        self.result.iter().map(|group| group.iter().map(|factor| place[*factor]).collect()).collect()
    }

    /// The shortest chain that this knows for the layout: none, one, two or three steps.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let places = self.places();
        let order: Group = places.concat();
        if order.is_sorted() {
            let stays = self.source_shape == self.result_shape;
            return if stays { Vec::new() } else { vec![Step::Reshape(self.result_shape.clone())] };
        }
        self.one_transpose()
            .or_else(|| self.reshape_first(&places))
            .or_else(|| self.transpose_first(&order))
            .unwrap_or_else(|| self.in_blocks(&order))
    }

    /// The axes of the source in another order.
    fn one_transpose(&self) -> Option<Vec<Step>> {
        let mut taken = vec![false; self.source.len()];
        let mut perm = Ints::new();
        for group in &self.result {
            let at = (0..self.source.len()).find(|at| !taken[*at] && self.source[*at] == *group)?;
            taken[at] = true;
            perm.push(at as i64);
        }
        taken.iter().all(|taken| *taken).then(|| vec![Step::Transpose(perm)])
    }

    /// The axes of the result in the source's order, and then transposed: if each is made of neighbours.
    fn reshape_first(&self, places: &[Group]) -> Option<Vec<Step>> {
        let is_run = |group: &Group| group.iter().zip(group.iter().skip(1)).all(|(a, b)| a + 1 == *b);
        if !places.iter().all(is_run) {
            return None;
        }
        let axes = in_order(places, |group| group.first().copied());
        let shape = axes.iter().map(|axis| self.result_shape.get(*axis).cloned()).collect::<Option<Shape>>()?;
        Some(vec![Step::Reshape(shape), Step::Transpose(inverse(&axes))])
    }

    /// The axes of the source in the result's order, and then reshaped: if none is torn apart.
    fn transpose_first(&self, order: &[usize]) -> Option<Vec<Step>> {
        let mut start = 0;
        let mut runs = Vec::new();
        for group in &self.source {
            let at = order.iter().position(|place| *place == start);
            let run: Group = (start..start + group.len()).collect();
            if let (Some(at), false) = (at, group.is_empty())
                && order.get(at..at + run.len()) != Some(run.as_slice())
            {
                return None;
            }
            runs.push(if group.is_empty() { Group::new() } else { vec![at?] });
            start += group.len();
        }
        let axes = in_order(&runs, |run| run.first().copied());
        let perm = axes.iter().map(|axis| *axis as i64).collect();
        Some(vec![Step::Transpose(perm), Step::Reshape(self.result_shape.clone())])
    }

    /// Neighbours that stay neighbours as one axis each, transposed, and reshaped.
    fn in_blocks(&self, order: &[usize]) -> Vec<Step> {
        let sizes: Vec<Dim> = self.source.iter().flatten().map(|factor| self.factors[*factor].clone()).collect();
        // The first places of the blocks, in the result's order.
        let mut blocks: Vec<usize> = Vec::new();
        for (at, place) in order.iter().enumerate() {
            if at == 0 || order[at - 1] + 1 != *place {
                blocks.push(*place);
            }
        }
        let mut sorted = blocks.clone();
        sorted.sort_unstable();
        let ends = sorted.iter().skip(1).copied().chain([sizes.len()]);
        let shape = sorted.iter().zip(ends).map(|(start, end)| Dim::product(&sizes[*start..end])).collect();
        let perm = blocks.iter().filter_map(|block| sorted.binary_search(block).ok()).map(|at| at as i64).collect();
        vec![Step::Reshape(shape), Step::Transpose(perm), Step::Reshape(self.result_shape.clone())]
    }
}

/// Whether the inputs of a graph tell the symbols of a step.
pub(crate) fn is_told(step: &Step, context: &RuleContext<'_>) -> bool {
    match step {
        Step::Reshape(shape) => context.symbols.tell(shape),
        Step::Transpose(_) => true,
    }
}

/// Axes by a key; those without one stay where they are.
fn in_order(groups: &[Group], key: impl Fn(&Group) -> Option<usize>) -> Vec<usize> {
    let mut keyed: Vec<usize> = (0..groups.len()).filter(|axis| key(&groups[*axis]).is_some()).collect();
    keyed.sort_by_key(|axis| key(&groups[*axis]));
    let mut keyed = keyed.into_iter();
    (0..groups.len()).filter_map(|axis| if key(&groups[axis]).is_some() { keyed.next() } else { Some(axis) }).collect()
}

fn inverse(axes: &[usize]) -> Ints {
    let mut perm: Ints = axes.iter().map(|_| 0).collect();
    for (at, axis) in axes.iter().enumerate() {
        perm[*axis] = at as i64;
    }
    perm
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        text.split(' ').map(|dim| dim.parse().unwrap()).collect()
    }

    fn chain(source: &str, steps: &[&str]) -> Option<String> {
        let mut layout = Layout::identity(&shape(source));
        for text in steps {
            let step = match text.strip_prefix('t') {
                Some(perm) => Step::Transpose(perm.split(' ').map(|axis| axis.parse::<i64>().unwrap()).collect()),
                None => Step::Reshape(shape(text)),
            };
            layout = layout.then(&step)?;
        }
        let text = layout.steps().into_iter().map(|step| match step {
            Step::Reshape(shape) => shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Step::Transpose(perm) => {
                format!("t{}", perm.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
        });
        Some(text.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn what_undoes_itself_vanishes() {
        assert_eq!(chain("2 3 4", &["6 4", "t1 0", "4 2 3", "t1 2 0"]).unwrap(), "");
        assert_eq!(chain("n 3 4", &["t1 0 2", "t1 0 2"]).unwrap(), "");
        assert_eq!(chain("n 12", &["n 3 4", "3*n 4", "n 12"]).unwrap(), "");
    }

    #[test]
    fn axes_of_size_1_are_reshaped_away() {
        assert_eq!(chain("1 5 6", &["t1 0 2"]).unwrap(), "5 1 6");
        assert_eq!(chain("5 1 6", &["t2 1 0"]).unwrap(), "t2 1 0");
    }

    #[test]
    fn heads_split_and_merge_in_two_steps() {
        assert_eq!(chain("1 128 768", &["1 128 12 64", "t0 2 1 3"]).unwrap(), "1 128 12 64, t0 2 1 3");
        assert_eq!(chain("b 12 s 64", &["t0 2 1 3", "b s 768"]).unwrap(), "t0 2 1 3, b s 768");
        assert_eq!(chain("197 b 768", &["197 12*b 64", "t1 0 2", "b 12 197 64"]).unwrap(), "197 b 12 64, t1 2 0 3");
        let split = ["1 197 1 3 768", "t3 1 2 0 4", "3 197 1 768"];
        assert_eq!(chain("197 1 2304", &split).unwrap(), "197 3 1 768, t1 0 2 3");
    }

    #[test]
    fn blocks_need_three_steps() {
        // Windows of 7 by 7.
        let windows = ["1 8 7 8 7 96", "t0 1 3 2 4 5", "64 49 96"];
        assert_eq!(chain("1 56 56 96", &windows).unwrap(), "8 7 8 672, t0 2 1 3, 64 49 96");
        // A channel shuffle.
        assert_eq!(chain("1 6 5 5", &["1 2 3 5 5", "t0 2 1 3 4", "1 6 5 5"]).unwrap(), "2 3 25, t1 0 2, 1 6 5 5");
    }

    #[test]
    fn sizes_that_do_not_factor_have_no_layout() {
        assert_eq!(chain("4 6", &["t1 0", "3 8"]).unwrap(), "t1 0, 3 8");
        assert_eq!(chain("4 6", &["t1 0", "8 3"]), None);
        assert_eq!(chain("n 4", &["t1 0", "m 2 2"]), None);
    }
}
