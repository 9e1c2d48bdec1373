//! Makes inputs that are known parameters of the operator.
//!
//! ```text
//! %s = constant() value=i64[2] {0, -1}      %y = reshape(%x) shape=[n, 12]
//! %y = reshape(%x, %s)
//! ```
//!
//! Fires on
//! - Reshape and Expand: the output's shape, which inference knows (0 and -1 resolved);
//! - Slice: axes from the front, in order; bounds from the front, within the axis;
//! - Split: the sizes of the parts;
//! - Squeeze, Unsqueeze, Reduce: the axes from the front, in order; a reduction of all axes names them;
//! - Pad: a pad for each end of each axis; a fill value of 0 is left out;
//! - Concat, Softmax, Gather: the axis from the front.
//!
//! What computed the inputs is then dead, unless something else reads it.
//!
//! Refuses when
//! - the parameter depends on data: it is not known, or mentions a symbol that the graph's inputs do not tell;
//! - a bound may lie outside of the axis, or counts from an end that is not known.
//!
//! Order: before everything that matches parameters. It does not need `fold_constants`, because inference follows
//! shape arithmetic.
//!
//! Numerics: bit-exact.

use smallvec::SmallVec;
use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{
    Concat, Expand, Gather, Pad, PadMode, Reduce, Reshape, Slice, Softmax, Split, Squeeze, Unsqueeze,
};
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape, ValueInfo, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Makes inputs that are known parameters of the operator.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizeAttributes;

const COMPUTED: &str = "the parameter depends on data";
const OUTSIDE: &str = "a bound may lie outside of the axis";

/// An operator and its inputs.
type Form = (Op, Inputs);
type Inputs = SmallVec<[Option<ValueRef>; 4]>;

impl Rule for CanonicalizeAttributes {
    fn name(&self) -> &'static str {
        "canonicalize_attributes"
    }

    fn roots(&self) -> &'static [OpKind] {
        use OpKind::*;
        &[Reshape, Expand, Slice, Split, Squeeze, Unsqueeze, Reduce, Pad, Concat, Softmax, Gather]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let inputs = graph.node_inputs(root);
        let site = Site { graph, root, context, inputs: &inputs };
        let (op, new_inputs) = site.canonical(&node.op)?;
        if op == node.op && new_inputs == inputs {
            return Err(Miss::NoEffect);
        }
        let outputs = node.outputs.len();
        let mut patch = Patch::new(self.name(), root);
        let new = patch.add_many(op, &new_inputs, outputs);
        for slot in 0..outputs as u32 {
            patch.replace(ValueRef { node: root, slot }, ValueRef { node: new, slot });
        }
        patch.absorb([root]);
        Ok(patch)
    }
}

/// The node looked at.
struct Site<'a> {
    graph: &'a Graph,
    root: NodeId,
    context: &'a RuleContext<'a>,
    inputs: &'a Inputs,
}

impl Site<'_> {
    fn canonical(&self, op: &Op) -> Result<Form, Miss> {
        let data = self.inputs.first().copied().flatten();
        let op: Op = match op {
            Op::Reshape(Reshape { shape: Some(_), .. }) | Op::Expand(Expand { shape: Some(_) }) => {
                return Err(Miss::NoEffect);
            }
            Op::Reshape(_) => Reshape { shape: Some(self.output_shape()?), allow_zero: false }.into(),
            Op::Expand(_) => Expand { shape: Some(self.output_shape()?) }.into(),
            Op::Slice(op) => self.slice(op)?.into(),
            Op::Split(op) => self.split(op)?.into(),
            Op::Squeeze(op) => Squeeze { axes: Some(self.squeezed_axes(op)?) }.into(),
            Op::Unsqueeze(op) => {
                let axes = self.axes(op.axes.as_ref(), 1)?.ok_or(Miss::NoMatch)?;
                Unsqueeze { axes: Some(from_front(&axes, self.output_rank()?)?) }.into()
            }
            Op::Reduce(op) => self.reduce(op)?.into(),
            Op::Pad(op) => return self.pad(op),
            Op::Concat(op) => return self.keeping_inputs(Concat { axis: self.axis(op.axis)? }),
            Op::Softmax(op) => return self.keeping_inputs(Softmax { axis: self.axis(op.axis)?, ..op.clone() }),
            Op::Gather(op) => return self.keeping_inputs(Gather { axis: self.axis(op.axis)? }),
            _ => return Err(Miss::NoMatch),
        };
        Ok((op, SmallVec::from_iter([data])))
    }

    fn keeping_inputs(&self, op: impl Into<Op>) -> Result<Form, Miss> {
        Ok((op.into(), self.inputs.clone()))
    }

    fn blocked<T>(&self, reason: &'static str) -> Result<T, Miss> {
        Err(Miss::Blocked { reason, at: self.root })
    }

    fn info(&self, slot: usize) -> Option<&ValueInfo> {
        self.graph.info(self.inputs.get(slot).copied().flatten()?)
    }

    fn data_shape(&self) -> Result<&Shape, Miss> {
        self.info(0).and_then(|info| info.shape.as_ref()).ok_or(Miss::NoMatch)
    }

    fn output_rank(&self) -> Result<usize, Miss> {
        self.graph.info(self.root.into()).and_then(ValueInfo::rank).ok_or(Miss::NoMatch)
    }

    /// The output's shape, if the graph's inputs tell it.
    fn output_shape(&self) -> Result<Shape, Miss> {
        let shape = self.graph.info(self.root.into()).and_then(|info| info.shape.as_ref());
        match shape.filter(|shape| self.context.symbols.tell(*shape)) {
            Some(shape) => Ok(shape.clone()),
            None => self.blocked(COMPUTED),
        }
    }

    /// An axis of the data, from the front.
    fn axis(&self, axis: i64) -> Result<i64, Miss> {
        resolve_axis(axis, self.data_shape()?.len()).map(|axis| axis as i64).map_err(|_| Miss::NoMatch)
    }

    /// Integers that are a parameter or an input; `None` if neither is there.
    fn axes(&self, parameter: Option<&Ints>, slot: usize) -> Result<Option<Ints>, Miss> {
        match (parameter, self.info(slot)) {
            (Some(axes), _) => Ok(Some(axes.clone())),
            (None, None) => Ok(None),
            (None, Some(info)) => match info.known_ints() {
                Some(axes) => Ok(Some(axes.into())),
                None => self.blocked(COMPUTED),
            },
        }
    }

    fn squeezed_axes(&self, op: &Squeeze) -> Result<Ints, Miss> {
        let data = self.data_shape()?;
        if let Some(axes) = self.axes(op.axes.as_ref(), 1)? {
            return from_front(&axes, data.len());
        }
        // Without axes the output's rank is known only if every dimension is known to be 1 or not.
        self.output_rank()?;
        Ok((0..).zip(data).filter(|(_, dim)| dim.is(1)).map(|(axis, _)| axis).collect())
    }

    fn reduce(&self, op: &Reduce) -> Result<Reduce, Miss> {
        let rank = self.data_shape()?.len();
        let axes = match self.axes(op.axes.as_ref(), 1)? {
            Some(axes) if !axes.is_empty() => from_front(&axes, rank)?,
            _ if op.noop_if_empty => return Ok(Reduce { axes: None, ..op.clone() }),
            _ => (0..rank as i64).collect(),
        };
        // A scalar has no axis to name.
        let axes = Some(axes).filter(|axes| !axes.is_empty());
        Ok(Reduce { axes, noop_if_empty: false, ..op.clone() })
    }

    fn split(&self, op: &Split) -> Result<Split, Miss> {
        let axis = self.axis(op.axis)?;
        if op.sizes.is_some() {
            return Ok(Split { axis, ..op.clone() });
        }
        let outputs = self.graph.node(self.root).map_or(&[][..], |node| &node.outputs);
        let size = |shape: &Shape| shape.get(usize::try_from(axis).ok()?).cloned();
        let sizes: Option<Shape> = outputs.iter().map(|value| size(value.info.shape.as_ref()?)).collect();
        match sizes.filter(|sizes| self.context.symbols.tell(sizes)) {
            Some(sizes) => Ok(Split { axis, sizes: Some(sizes) }),
            None => self.blocked(COMPUTED),
        }
    }

    fn pad(&self, op: &Pad) -> Result<Form, Miss> {
        let rank = self.data_shape()?.len();
        let pads = self.axes(op.pads.as_ref(), 1)?.ok_or(Miss::NoMatch)?;
        let axes = match self.axes(None, 3)? {
            Some(axes) => axes,
            None => (0..rank as i64).collect(),
        };
        let (before, after) = pads.split_at_checked(axes.len()).ok_or(Miss::NoMatch)?;
        let mut all: Ints = SmallVec::from_elem(0, 2 * rank);
        for ((axis, before), after) in axes.iter().zip(before).zip(after) {
            let axis = resolve_axis(*axis, rank).map_err(|_| Miss::NoMatch)?;
            for (at, pad) in [(axis, before), (axis + rank, after)] {
                *all.get_mut(at).ok_or(Miss::NoMatch)? = *pad;
            }
        }
        let data = self.inputs.first().copied().flatten();
        let fill = self.info(2).filter(|_| op.mode == PadMode::Constant);
        let is_zero = fill.and_then(|fill| fill.as_constant()?.uniform_f64()).is_some_and(|fill| fill.to_bits() == 0);
        let inputs = match self.inputs.get(2).copied().flatten() {
            Some(value) if fill.is_some() && !is_zero => SmallVec::from_iter([data, None, Some(value)]),
            _ => SmallVec::from_iter([data]),
        };
        Ok((Pad { mode: op.mode, pads: Some(all) }.into(), inputs))
    }

    fn slice(&self, op: &Slice) -> Result<Slice, Miss> {
        let data = self.data_shape()?;
        let bounds = |parameter: &Option<Shape>, slot| match (parameter, self.info(slot)) {
            (Some(bounds), _) => Ok(bounds.to_vec()),
            (None, Some(info)) => {
                let bounds = info.known_elements().filter(|bounds| self.context.symbols.tell(bounds));
                bounds.map_or_else(|| self.blocked(COMPUTED), Ok)
            }
            (None, None) => Err(Miss::NoMatch),
        };
        let (starts, ends) = (bounds(&op.starts, 1)?, bounds(&op.ends, 2)?);
        let axes = match self.axes(op.axes.as_ref(), 3)? {
            Some(axes) => axes,
            None => (0..starts.len() as i64).collect(),
        };
        let steps = match self.axes(op.steps.as_ref(), 4)? {
            Some(steps) => steps,
            None => SmallVec::from_elem(1, axes.len()),
        };
        // A parameter already lies within the axis, and its -1 is one before the first element.
        let given = op.starts.is_some();
        let mut cuts = Vec::with_capacity(axes.len());
        for (((axis, step), start), end) in axes.iter().zip(&steps).zip(&starts).zip(&ends) {
            let axis = resolve_axis(*axis, data.len()).map_err(|_| Miss::NoMatch)?;
            let size = data.get(axis).ok_or(Miss::NoMatch)?;
            let bounds = if given { Some((start.clone(), end.clone())) } else { within(start, end, *step, size) };
            match bounds.filter(|(start, end)| self.context.symbols.tell([start, end])) {
                Some((start, end)) => cuts.push((axis as i64, start, end, *step)),
                None => return self.blocked(OUTSIDE),
            }
        }
        cuts.sort_by_key(|cut| cut.0);
        Ok(Slice {
            axes: Some(cuts.iter().map(|cut| cut.0).collect()),
            starts: Some(cuts.iter().map(|cut| cut.1.clone()).collect()),
            ends: Some(cuts.iter().map(|cut| cut.2.clone()).collect()),
            steps: Some(cuts.iter().map(|cut| cut.3).collect()),
        })
    }
}

/// Axes from the front, in order.
fn from_front(axes: &[i64], rank: usize) -> Result<Ints, Miss> {
    let axes: Result<Ints, String> =
        axes.iter().map(|axis| resolve_axis(*axis, rank).map(|axis| axis as i64)).collect();
    let mut axes = axes.map_err(|_| Miss::NoMatch)?;
    axes.sort_unstable();
    Ok(axes)
}

/// Bounds so far out mean the end of the axis, whatever its size.
const FAR: i64 = i32::MAX as i64;

/// Bounds from the front and within an axis, where that can be decided.
fn within(start: &Dim, end: &Dim, step: i64, size: &Dim) -> Option<(Dim, Dim)> {
    let (first, last) = if step > 0 { (Dim::fixed(0), size.clone()) } else { (Dim::fixed(-1), size - &Dim::fixed(1)) };
    let bound = |bound: &Dim| {
        match bound.value() {
            Some(far) if far >= FAR => return Some(last.clone()),
            Some(far) if far <= -FAR => return Some(first.clone()),
            _ => {}
        }
        let from_front = if bound.at_least(0) {
            bound.clone()
        } else if (-bound).at_least(1) {
            size + bound
        } else {
            return None;
        };
        clamped(&from_front, &first, &last)
    };
    // From a start within the axis to an end that may lie behind it: the nearer of both.
    let end_within = || {
        let ends_forward = step > 0 && end.at_least(0) && start.at_least(0) && (size - start).at_least(0);
        ends_forward.then(|| end.minimum(size))
    };
    let (start, end) = (bound(start)?, bound(end).or_else(end_within)?);
    // Backwards from before the first element nothing is taken; there is no such start but the last of no elements.
    if step < 0 && !start.at_least(0) && start != last { None } else { Some((start, end)) }
}

/// The bound, or the end of `low..=high` that it lies beyond, if that is known.
fn clamped(bound: &Dim, low: &Dim, high: &Dim) -> Option<Dim> {
    if (low - bound).at_least(0) {
        Some(low.clone())
    } else if (bound - high).at_least(0) {
        Some(high.clone())
    } else if (bound - low).at_least(0) && (high - bound).at_least(0) {
        Some(bound.clone())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::CanonicalizeAttributes;
    use crate::testing::{Run, run_rule};

    fn run(inputs: &str, lines: &str) -> Run {
        run_rule(CanonicalizeAttributes, &format!("graph g({inputs}) -> (%y) {{ {lines} }}"))
    }

    /// The line of the one operator left, without its type.
    fn form(run: &Run) -> String {
        let text = run.after.to_string();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains(" = ") && !line.contains("constant(")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].split(" : ").next().unwrap().trim().to_string()
    }

    #[test]
    fn shape_scaffolding_dies() {
        // How exporters write x.view(x.shape[0], 8, 128).
        let lines = "
            %s = shape(%x) start=0
            %zero = constant() value=i64[] {0}
            %n = gather(%s, %zero) axis=0
            %axes = constant() value=i64[1] {0}
            %u = unsqueeze(%n, %axes)
            %rest = constant() value=i64[2] {8, 128}
            %to = concat(%u, %rest) axis=0
            %y = reshape(%x, %to)";
        let run = run("%x: f32[batch, 1024]", lines);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[batch, 1024]) -> (%y) {
          %y = reshape(%x) shape=[batch, 8, 128] : f32[batch, 8, 128]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn reshape_resolves_zero_and_the_rest() {
        let run = run("%x: f32[n, 3, 4]", "%s = constant() value=i64[3] {0, -1, 2} %y = reshape(%x, %s)");
        assert_eq!(form(&run), "%y = reshape(%x) shape=[n, 6, 2]");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn expand_states_the_whole_shape() {
        let run = run("%x: f32[n, 1, 4]", "%s = constant() value=i64[2] {3, 1} %y = expand(%x, %s)");
        assert_eq!(form(&run), "%y = expand(%x) shape=[n, 3, 4]");
        run.equal_within(0.0, 2);
    }

    fn slice(inputs: &str, starts: &str, ends: &str, axes: &str, steps: &str) -> Run {
        let lines = format!(
            "%s = constant() value=i64{starts} %e = constant() value=i64{ends}
             %a = constant() value=i64{axes} %t = constant() value=i64{steps}
             %y = slice(%x, %s, %e, %a, %t)"
        );
        run(inputs, &lines)
    }

    #[test]
    fn slice_bounds_count_from_the_front_within_the_axis() {
        let run =
            slice("%x: f32[n, 5, 6]", "[2] {-2, -100}", "[2] {9223372036854775807, -1}", "[2] {-1, 1}", "[2] {1, 2}");
        assert_eq!(form(&run), "%y = slice(%x) axes=[1, 2] starts=[0, 4] ends=[4, 6] steps=[2, 1]");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn slices_backwards() {
        let run = slice("%x: f32[n, 5]", "[1] {100}", "[1] {-9223372036854775807}", "[1] {1}", "[1] {-2}");
        assert_eq!(form(&run), "%y = slice(%x) axes=[1] starts=[4] ends=[-1] steps=[-2]");
        let run = slice("%x: f32[n]", "[1] {-1}", "[1] {-9223372036854775807}", "[1] {0}", "[1] {-1}");
        assert_eq!(form(&run), "%y = slice(%x) axes=[0] starts=[(n-1)] ends=[-1] steps=[-1]");
        assert!(run.after.to_string().contains("steps=[-1] : f32[n]\n"), "{}", run.after);
        run.equal_within(0.0, 3);
    }

    #[test]
    fn symbolic_bounds_that_can_be_decided() {
        let lines = "
            %s = shape(%x) start=0 end=1
            %zero = constant() value=i64[1] {0}
            %y = slice(%z, %zero, %s, %zero)";
        let run = run("%x: f32[n], %z: f32[(n+2)]", lines);
        assert_eq!(form(&run), "%y = slice(%z) axes=[0] starts=[0] ends=[n] steps=[1]");
        run.equal_within(0.0, 3);
        let run = slice("%x: f32[n]", "[1] {0}", "[1] {9223372036854775807}", "[1] {0}", "[1] {2}");
        assert_eq!(form(&run), "%y = slice(%x) axes=[0] starts=[0] ends=[n] steps=[2]");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn an_end_that_may_lie_behind_the_axis_is_the_nearer() {
        let lines =
            "%x = constant() value=f32[4] {1, 2, 3, 4} %s = shape(%z) start=0 %zero = constant() value=i64[1] {0}
            %y = slice(%x, %zero, %s)";
        let run = run("%z: f32[n]", lines);
        assert_eq!(form(&run), "%y = slice(%x) axes=[0] starts=[0] ends=[(min(4, n))] steps=[1]");
        for batch in [2, 7] {
            run.equal_within(0.0, batch);
        }
    }

    #[test]
    fn split_states_its_parts() {
        let run = run("%x: f32[n, 7]", "%p = constant() value=i64[2] {3, 4} %y, %z = split(%x, %p) axis=-1");
        assert_eq!(form(&run), "%y, %z = split(%x) axis=1 sizes=[3, 4]");
        let run = self::run("%x: f32[n, 7]", "%y, %z = split(%x) axis=1");
        assert_eq!(form(&run), "%y, %z = split(%x) axis=1 sizes=[4, 3]");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn axes_count_from_the_front() {
        let axes = "%a = constant() value=i64[2] {-1, 1}";
        let run = run("%x: f32[n, 1, 4, 1]", &format!("{axes} %y = squeeze(%x, %a)"));
        assert_eq!(form(&run), "%y = squeeze(%x) axes=[1, 3]");
        run.equal_within(0.0, 3);
        let run = self::run("%x: f32[2, 1, 4, 1]", "%y = squeeze(%x)");
        assert_eq!(form(&run), "%y = squeeze(%x) axes=[1, 3]");
        let run = self::run("%x: f32[n, 4]", &format!("{axes} %y = unsqueeze(%x, %a)"));
        assert_eq!(form(&run), "%y = unsqueeze(%x) axes=[1, 3]");
        run.equal_within(0.0, 3);
        let run = self::run("%x: f32[n, 2, 3]", "%y = concat(%x, %x) axis=-2");
        assert_eq!(form(&run), "%y = concat(%x, %x) axis=1");
        let run = self::run("%x: f32[n, 2, 3]", "%y = softmax(%x) axis=-1");
        assert_eq!(form(&run), "%y = softmax(%x) axis=2");
        let run = self::run("%x: f32[n, 2, 3], %i: i64[2]", "%y = gather(%x, %i) axis=-3");
        assert_eq!(form(&run), "%y = gather(%x, %i) axis=0");
    }

    #[test]
    fn reduce_names_its_axes() {
        let axes = "%a = constant() value=i64[2] {-1, 1}";
        let run = run("%x: f32[n, 2, 3]", &format!("{axes} %y = reduce(%x, %a) kind=mean keep_dims=true"));
        assert_eq!(form(&run), "%y = reduce(%x) kind=mean axes=[1, 2] keep_dims=true");
        run.equal_within(0.0, 3);
        let run = self::run("%x: f32[n, 2]", "%a = constant() value=i64[0] {} %y = reduce(%x, %a) kind=max");
        assert_eq!(form(&run), "%y = reduce(%x) kind=max axes=[0, 1]");
        run.equal_within(0.0, 3);
        let none = "%a = constant() value=i64[0] {} %y = reduce(%x, %a) kind=l1 noop_if_empty=true";
        let run = self::run("%x: f32[n, 2]", none);
        assert_eq!(form(&run), "%y = reduce(%x) kind=l1 noop_if_empty=true");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn pad_names_every_axis() {
        let lines = "
            %p = constant() value=i64[4] {1, 2, 3, -1}
            %v = constant() value=f32[] {0}
            %a = constant() value=i64[2] {-1, 0}
            %y = pad(%x, %p, %v, %a) mode=constant";
        let run = run("%x: f32[n, 2, 3]", lines);
        assert_eq!(form(&run), "%y = pad(%x) mode=constant pads=[2, 0, 1, -1, 0, 3]");
        run.equal_within(0.0, 3);
        let lines =
            "%p = constant() value=i64[2] {1, 2} %v = constant() value=f32[] {7} %y = pad(%x, %p, %v) mode=constant";
        let run = self::run("%x: f32[n]", lines);
        assert_eq!(form(&run), "%y = pad(%x, _, %v) mode=constant pads=[1, 2]");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn refuses_parameters_that_depend_on_data() {
        let reason = "the parameter depends on data";
        for (inputs, lines) in [
            ("%x: f32[4], %s: i64[2]", "%y = reshape(%x, %s)"),
            ("%x: f32[1], %s: i64[2]", "%y = expand(%x, %s)"),
            ("%x: f32[4], %s: i64[1]", "%y = slice(%x, %s, %s, %s)"),
            ("%x: f32[4], %s: i64[2]", "%y, %z = split(%x, %s) axis=0"),
            ("%x: f32[1, 4], %s: i64[1]", "%y = squeeze(%x, %s)"),
            ("%x: f32[4], %s: i64[1]", "%y = reduce(%x, %s) kind=sum"),
            ("%x: f32[4], %s: i64[2]", "%y = pad(%x, %s) mode=constant"),
            (
                "%x: f32[4], %z: f32[n]",
                "%i = nonzero(%x) %s = shape(%i) start=1 %zero = constant() value=i64[1] {0}
                %y = slice(%z, %zero, %s)",
            ),
            // The number of nonzero elements is known by a symbol that only %i tells.
            ("%x: f32[4], %z: f32[n]", "%i = nonzero(%x) %s = shape(%i) start=0 %y = expand(%z, %s)"),
        ] {
            assert_eq!(run(inputs, lines).reasons(), [reason], "{lines}");
        }
    }

    #[test]
    fn refuses_bounds_that_may_lie_outside() {
        let run = slice("%x: f32[n]", "[1] {1}", "[1] {9223372036854775807}", "[1] {0}", "[1] {1}");
        assert_eq!(run.reasons(), ["a bound may lie outside of the axis"]);
        let run = slice("%x: f32[n]", "[1] {-2}", "[1] {-9223372036854775807}", "[1] {0}", "[1] {-1}");
        assert_eq!(run.reasons(), ["a bound may lie outside of the axis"]);
        // The end of an axis whose size only the nonzero elements tell.
        let lines =
            "%i = nonzero(%x) %s = constant() value=i64[1] {0} %e = constant() value=i64[1] {9223372036854775807}
            %a = constant() value=i64[1] {1} %y = slice(%i, %s, %e, %a)";
        let run = self::run("%x: f32[4]", lines);
        assert_eq!(run.reasons(), ["a bound may lie outside of the axis"]);
    }

    /// A start beside an end that may lie behind the axis, or before the start.
    #[test]
    fn ends_of_any_size_keep_their_elements() {
        for start in [-2, 0, 1, 3, 6] {
            let lines = format!(
                "%x = constant() value=f32[4] {{1, 2, 3, 4}} %e = shape(%z) start=0
                %s = constant() value=i64[1] {{{start}}} %y = slice(%x, %s, %e)"
            );
            let run = run("%z: f32[n]", &lines);
            for size in [0, 1, 2, 5] {
                run.equal_within(0.0, size);
            }
        }
    }
}
