//! Values of inputs that decide shapes, such as the target of a Reshape.

use trt_fuse_ir::{DType, Dim, Graph, Value, ValueInfo, shapes_at};

use super::{Point, Range, RangeError, lookup};
use crate::tensorrt::{InputRange, RangeKind};

/// Sets of values tried before giving up, and nodes inferred in all of them.
const MOST_TRIES: usize = 1000;
const MOST_NODES: usize = 1 << 20;

/// The input and the element that a range such as `sizes[2]=1:2:3` speaks of.
pub(super) fn element_of<'g>(graph: &'g Graph, range: &Range) -> Option<(&'g Value, usize)> {
    let (name, index) = range.symbol.strip_suffix(']')?.rsplit_once('[')?;
    let mut inputs = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
    Some((inputs.find(|value| &*value.name == name)?, index.parse().ok()?))
}

/// Whether runs check the elements of an input of such a type, so that a range may speak of all of them.
pub(crate) fn is_checked(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::I32 | DType::I8 | DType::U8)
}

/// The input of whose elements, all of them, a range such as `mask[]=0:1:1` speaks.
pub(super) fn elements_of<'g>(graph: &'g Graph, range: &Range) -> Option<&'g Value> {
    let name = range.symbol.strip_suffix("[]")?;
    let mut inputs = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
    inputs.find(|value| &*value.name == name && is_checked(value.info.dtype))
}

/// Whether a range such as `mask[]=1` may fix an input: one of booleans too.
pub(super) fn fixes(graph: &Graph, range: &Range) -> bool {
    let mut inputs = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
    let name = range.symbol.strip_suffix("[]").filter(|_| range.min == range.max);
    name.is_some_and(|name| inputs.any(|value| &*value.name == name && !value.info.dtype.is_float()))
}

/// Ranges of the values of inputs.
pub(super) fn ranges(graph: &Graph, ranges: &[Range], inputs: &[String]) -> Result<Vec<InputRange>, RangeError> {
    let value = |name: &String| {
        let mut values = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
        values.find(|value| *value.name == **name)
    };
    let values: Vec<&Value> = inputs.iter().filter_map(value).collect();
    let candidates: Vec<Vec<Vec<i64>>> = values.iter().map(|value| candidates(graph, value, ranges)).collect();
    let Some(opt) = first_that_fits(graph, ranges, &values, &candidates) else {
        return match values.first() {
            Some(value) => Err(RangeError::Values { input: value.name.to_string() }),
            None => Ok(Vec::new()),
        };
    };
    let range = |(value, opt): (&&Value, Vec<i64>)| {
        let stated = |index: usize| {
            ranges.iter().find(|range| {
                element_of(graph, range).is_some_and(|(input, at)| input.name == value.name && at == index)
            })
        };
        let at = |point: Point| {
            opt.iter().enumerate().map(|(index, opt)| stated(index).map_or(*opt, |range| range.at(point))).collect()
        };
        let (min, max) = (at(Point::Min), at(Point::Max));
        InputRange { input: value.name.to_string(), kind: RangeKind::Values, min, opt, max }
    };
    Ok(values.iter().zip(opt).map(range).collect())
}

/// Values to try for an input, those that users state in their places.
fn candidates(graph: &Graph, value: &Value, ranges: &[Range]) -> Vec<Vec<i64>> {
    let Some(dims) = value.info.fixed_dims() else { return Vec::new() };
    let count: usize = dims.iter().product();
    let mut found = Vec::new();
    // The sizes of the data, as for a resize.
    let lookup = lookup(ranges, Point::Opt);
    for id in graph.inputs() {
        let shape = graph.info((*id).into()).and_then(|info| info.shape.clone()).unwrap_or_default();
        if shape.len() == count && value.info.rank() == Some(1) && count > 0 {
            found.extend(shape.iter().map(|dim| dim.evaluate(&lookup)).collect::<Option<Vec<i64>>>());
        }
    }
    found.extend(differences(graph, &lookup, count));
    let count = count as i64;
    found.push(vec![1; count as usize]);
    found.push((0..count).collect());
    found.push(vec![0; count as usize]);
    // As for a reshape.
    found.push((0..count).map(|at| if at == 0 { -1 } else { 1 }).collect());
    found.push((1..=count).collect());
    found.push(vec![-1; count as usize]);
    for number in [2, 3, 4, 8] {
        found.push(vec![number; count as usize]);
    }
    for range in ranges {
        if let Some((_, at)) = element_of(graph, range).filter(|(input, _)| input.name == value.name) {
            found.iter_mut().filter_map(|values| values.get_mut(at)).for_each(|element| *element = range.opt);
        }
    }
    let mut unique = Vec::new();
    for values in found {
        if !unique.contains(&values) {
            unique.push(values);
        }
    }
    unique
}

/// What leads from the sizes of an input to those that an output is stated to have: the output's sizes, of all axes or of
/// those that differ, these axes, and what is added to them, as pads list it.
fn differences(graph: &Graph, symbols: &dyn Fn(&str) -> Option<i64>, count: usize) -> Vec<Vec<i64>> {
    let sizes = |info: &ValueInfo| -> Option<Vec<i64>> {
        info.shape.as_ref()?.iter().map(|dim| dim.evaluate(symbols)).collect()
    };
    let inputs: Vec<Vec<i64>> = graph.inputs().iter().filter_map(|id| sizes(graph.info((*id).into())?)).collect();
    let mut found = Vec::new();
    for after in graph.outputs().iter().filter_map(|output| sizes(graph.info(output.value)?)) {
        for before in inputs.iter().filter(|before| before.len() == after.len()) {
            let added: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            // The axes that differ, and others in order, as many as are listed: by themselves, or with two numbers each.
            for listed in [count, count / 2] {
                let mut axes: Vec<usize> = (0..added.len()).collect();
                axes.sort_by_key(|axis| added.get(*axis) == Some(&0));
                axes.truncate(listed);
                axes.sort_unstable();
                let at = |sizes: &[i64]| axes.iter().filter_map(|axis| sizes.get(*axis).copied()).collect::<Vec<_>>();
                found.push(at(&after));
                found.push(vec![0; axes.len()].into_iter().chain(at(&added)).collect());
                found.push(axes.iter().map(|axis| *axis as i64).collect());
            }
        }
        found.push(after);
    }
    found.retain(|values| values.len() == count && count > 0);
    found
}

/// The first choice of one candidate an input at which every shape fits; preferably none is empty.
fn first_that_fits(
    graph: &Graph,
    ranges: &[Range],
    values: &[&Value],
    candidates: &[Vec<Vec<i64>>],
) -> Option<Vec<Vec<i64>>> {
    let symbols = lookup(ranges, Point::Opt);
    let total: usize = candidates.iter().map(Vec::len).try_fold(1_usize, usize::checked_mul).unwrap_or(usize::MAX);
    let mut empty = None;
    let tries = MOST_TRIES.min(MOST_NODES / graph.node_count().max(1)).max(1);
    for mut number in 0..total.min(tries) {
        let mut choice = Vec::new();
        for candidates in candidates {
            choice.push(candidates.get(number % candidates.len().max(1))?.clone());
            number /= candidates.len().max(1);
        }
        let known = |name: &str| {
            let (value, elements) = values.iter().zip(&choice).find(|(value, _)| &*value.name == name)?;
            let shape = value.info.shape.clone()?;
            let elements = elements.iter().copied().map(Dim::fixed).collect();
            Some(ValueInfo::elements(value.info.dtype, shape, elements))
        };
        let Ok(shapes) = shapes_at(graph, &symbols, &known) else { continue };
        let is_empty = |value| shapes.get(&value).and_then(ValueInfo::fixed_dims).is_some_and(|dims| dims.contains(&0));
        if !graph.outputs().iter().any(|output| is_empty(output.value)) {
            return Some(choice);
        }
        empty.get_or_insert(choice);
    }
    empty
}
