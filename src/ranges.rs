//! Ranges of symbols: `batch=1:8:32` says how large a dimension may get, once, wherever it occurs.

use std::collections::BTreeMap;
use std::str::FromStr;

use rustc_hash::FxHashSet;
use trt_fuse_ir::{Capabilities, DType, Dim, Graph, GraphError, Interval, NodeId, Op, beyond, shapes_at};

use crate::tensorrt::{InputRange, Profile, RangeKind};

mod told;
mod values;

pub(crate) use self::told::{check_once, fixed_values};
pub(crate) use self::values::is_checked;

/// How large a symbol may be, or what the elements of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The symbol, or of an input `x` the element `x[2]`, or all elements `x[]`.
    pub symbol: String,
    /// Least value.
    pub min: i64,
    /// The value that kernels are tuned for.
    pub opt: i64,
    /// Largest value.
    pub max: i64,
}

/// What is wrong with ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// Text that is no range.
    #[error("`{0}` is no range: write SYMBOL=MIN:OPT:MAX or SYMBOL=SIZE, e.g. batch=1:8:32")]
    Syntax(String),
    /// Bounds out of order or below 0.
    #[error("range of `{symbol}`: {min}:{opt}:{max} is not in order, or below 0")]
    Order {
        /// The symbol.
        symbol: String,
        /// Least value.
        min: i64,
        /// Tuned value.
        opt: i64,
        /// Largest value.
        max: i64,
    },
    /// Two ranges for the same.
    #[error("`{first}` and `{second}` speak of the same: give one range")]
    Twice {
        /// What one of them is of.
        first: String,
        /// And the other.
        second: String,
    },
    /// An input's dimension has no range.
    #[error("dimension `{symbol}` of input `{input}` has no range: give one, e.g. --range {symbol}=1:8:32")]
    Missing {
        /// The symbol.
        symbol: String,
        /// The input.
        input: String,
    },
    /// A range for a symbol that no input has.
    #[error("no input has a dimension `{symbol}`; there {}", those(.known))]
    Unknown {
        /// The symbol.
        symbol: String,
        /// Symbols that there are.
        known: Vec<String>,
    },
    /// Shapes that do not fit at some sizes.
    #[error("the ranges cannot be: at {sizes}, {source}")]
    Infeasible {
        /// The symbols' values.
        sizes: String,
        /// The node that does not fit.
        source: GraphError,
    },
    /// Integers that may be beyond those of the type that the target computes them in.
    #[error("`{}` may be beyond i32, in which the target computes i64: {}", .tensors.first().map_or("", String::as_str), narrowed(.input))]
    Integers {
        /// The tensors, without those that are computed from others of them alone.
        tensors: Vec<String>,
        /// An input of which nothing is said.
        input: Option<String>,
    },
    /// An input whose values decide shapes, without values that fit.
    #[error(
        "no values of input `{input}` were found at which every shape fits: give them, e.g. --range '{input}[0]=1:2:4'"
    )]
    Values {
        /// The input.
        input: String,
    },
}

fn narrowed(input: &Option<String>) -> String {
    match input {
        Some(input) => format!("say what `{input}` holds, e.g. --range '{input}[]=0:1:1000'"),
        None => "clip what it is computed from".to_string(),
    }
}

fn those(symbols: &[String]) -> String {
    match symbols {
        [] => "are no symbolic dimensions".to_string(),
        [one] => format!("is `{one}`"),
        many => format!("are `{}`", many.join("`, `")),
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_string());
        let (symbol, bounds) = text.split_once('=').ok_or_else(syntax)?;
        let bounds: Vec<i64> =
            bounds.split(':').map(|bound| bound.trim().parse().map_err(|_| syntax())).collect::<Result<_, _>>()?;
        let (min, opt, max) = match bounds[..] {
            [size] => (size, size, size),
            [min, opt, max] => (min, opt, max),
            _ => return Err(syntax()),
        };
        let symbol = symbol.trim().to_string();
        if symbol.is_empty() {
            return Err(syntax());
        }
        // A size is not below 0, an element of an input may be.
        if (min < 0 && !symbol.ends_with(']')) || min > opt || opt > max {
            return Err(RangeError::Order { symbol, min, opt, max });
        }
        Ok(Self { symbol, min, opt, max })
    }
}

/// The three points of a range.
#[derive(Debug, Clone, Copy)]
enum Point {
    Min,
    Opt,
    Max,
}

impl Range {
    fn at(&self, point: Point) -> i64 {
        match point {
            Point::Min => self.min,
            Point::Opt => self.opt,
            Point::Max => self.max,
        }
    }
}

/// Checks that every symbol has a range and every range a symbol, and that every shape of the graph holds together at
/// the least, the tuned and the largest sizes.
///
/// # Errors
/// What is missing, or the first node that does not fit, with the sizes.
pub fn check_ranges(graph: &Graph, ranges: &[Range]) -> Result<(), RangeError> {
    let symbols = symbols(graph);
    let is_known = |range: &&Range| {
        symbols.contains_key(&range.symbol)
            || values::element_of(graph, range).is_some()
            || values::elements_of(graph, range).is_some()
            || values::fixes(graph, range)
    };
    if let Some(range) = ranges.iter().find(|range| !is_known(range)) {
        return Err(RangeError::Unknown { symbol: range.symbol.clone(), known: symbols.into_keys().collect() });
    }
    let has_range = |symbol: &str| ranges.iter().any(|range| range.symbol == symbol);
    if let Some((symbol, input)) = symbols.iter().find(|(symbol, _)| !has_range(symbol)) {
        return Err(RangeError::Missing { symbol: symbol.clone(), input: input.clone() });
    }
    if symbols.is_empty() {
        return Ok(());
    }
    for point in [Point::Min, Point::Opt, Point::Max] {
        shapes_at(graph, &lookup(ranges, point), &|_| None).map_err(|source| {
            let sizes = ranges.iter().map(|range| format!("{}={}", range.symbol, range.at(point)));
            RangeError::Infeasible { sizes: sizes.collect::<Vec<_>>().join(", "), source }
        })?;
    }
    Ok(())
}

/// The least and largest elements of inputs that ranges tell, by name.
pub(crate) fn bounds(graph: &Graph, ranges: &[Range]) -> BTreeMap<String, (i64, i64)> {
    let told = |range: &Range| Some((values::elements_of(graph, range)?.name.to_string(), (range.min, range.max)));
    ranges.iter().filter_map(told).collect()
}

/// The i64 tensors of a graph that may be beyond i32 at some sizes of the ranges and inputs within the bounds.
pub(crate) fn beyond_i32(graph: &Graph, ranges: &[Range], bounds: &BTreeMap<String, (i64, i64)>) -> Vec<String> {
    let size = |symbol: &str| {
        let range = ranges.iter().find(|range| range.symbol == symbol)?;
        Some((range.min, range.max))
    };
    let tensors = beyond(graph, DType::I64, Interval::I32, &size, &|input| bounds.get(input).copied());
    tensors.iter().map(ToString::to_string).collect()
}

/// Checks that no integer is beyond i32, if that is what the target computes them in, and gives the bounds that ranges tell and
/// the proof may rest on.
///
/// # Errors
/// The tensors that may be, and an input that might tell more.
pub(crate) fn check_integers(
    graph: &Graph,
    capabilities: &Capabilities,
    ranges: &[Range],
    profiles: &[Profile],
) -> Result<BTreeMap<String, (i64, i64)>, RangeError> {
    if capabilities.computed_in(DType::I64) != Some(DType::I32) {
        return Ok(BTreeMap::new());
    }
    let stated = bounds(graph, ranges);
    let mut told = stated.clone();
    // Each run checks the values of inputs that decide shapes.
    let values = profiles.iter().flat_map(|profile| &profile.ranges).filter(|range| range.kind == RangeKind::Values);
    for range in values {
        let (min, max) = (range.min.iter().min(), range.max.iter().max());
        if let (Some(min), Some(max)) = (min, max) {
            told.entry(range.input.clone()).or_insert((*min, *max));
        }
    }
    let tensors = beyond_i32(graph, ranges, &told);
    if tensors.is_empty() {
        return Ok(stated);
    }
    let input = tensors.first().and_then(|tensor| untold_input(graph, tensor, &told));
    Err(RangeError::Integers { tensors, input })
}

/// An input of i64 that a tensor is computed from and nothing is told of.
fn untold_input(graph: &Graph, tensor: &str, told: &BTreeMap<String, (i64, i64)>) -> Option<String> {
    let makes =
        |id: &NodeId| graph.node(*id).is_some_and(|node| node.outputs.iter().any(|value| *value.name == *tensor));
    let mut left: Vec<NodeId> = graph.node_ids().find(makes).into_iter().collect();
    let mut seen: FxHashSet<NodeId> = left.iter().copied().collect();
    while let Some(id) = left.pop() {
        if let (Some(Op::Input), Some(value)) = (graph.op(id), graph.value(id.into()))
            && value.info.dtype == DType::I64
            && !told.contains_key(&*value.name)
        {
            return Some(value.name.to_string());
        }
        left.extend(
            graph.node_inputs(id).into_iter().rev().flatten().map(|input| input.node).filter(|id| seen.insert(*id)),
        );
    }
    None
}

/// The symbols of a graph's inputs, each with the first input that has it.
fn symbols(graph: &Graph) -> BTreeMap<String, String> {
    let mut symbols = BTreeMap::new();
    for value in graph.inputs().iter().filter_map(|id| graph.value((*id).into())) {
        for dim in value.info.shape.iter().flatten() {
            dim.visit_symbols(&mut |name| {
                symbols.entry(name.to_string()).or_insert_with(|| value.name.to_string());
            });
        }
    }
    symbols
}

fn lookup(ranges: &[Range], point: Point) -> impl Fn(&str) -> Option<i64> {
    let sizes: BTreeMap<&str, i64> = ranges.iter().map(|range| (range.symbol.as_str(), range.at(point))).collect();
    move |name| sizes.get(name).copied()
}

/// The optimization profile of a graph's dynamic inputs, and of those whose values decide shapes, which
/// `shape_inputs` names; `None` if there are none. Values without a range of their own (`NAME[INDEX]=MIN:OPT:MAX`) are
/// chosen so that every shape holds together.
///
/// # Errors
/// As [`check_ranges`], and if no values are found.
pub fn profile(graph: &Graph, ranges: &[Range], shape_inputs: &[String]) -> Result<Option<Profile>, RangeError> {
    check_ranges(graph, ranges)?;
    let extents = |shape: &[Dim], point: Point| -> Vec<i64> {
        let lookup = lookup(ranges, point);
        // Every symbol has a range by now; a division by 0 alone leaves no value.
        shape.iter().map(|dim| dim.evaluate(&lookup).unwrap_or(0)).collect()
    };
    let mut found = Vec::new();
    for value in graph.taken_inputs().filter_map(|id| graph.value(id.into())) {
        let Some(shape) = value.info.shape.as_ref().filter(|shape| shape.iter().any(|dim| dim.value().is_none()))
        else {
            continue;
        };
        found.push(InputRange {
            input: value.name.to_string(),
            kind: RangeKind::Extents,
            min: extents(shape, Point::Min),
            opt: extents(shape, Point::Opt),
            max: extents(shape, Point::Max),
        });
    }
    found.extend(values::ranges(graph, ranges, shape_inputs)?);
    Ok(if found.is_empty() { None } else { Some(Profile { ranges: found }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        "graph g(%x: f32[batch, 3, 2*h]) -> (%y) {\n  %y = relu(%x)\n}".parse().unwrap()
    }

    #[test]
    fn ranges_are_parsed() {
        assert_eq!("b=1:2:3".parse(), Ok(Range { symbol: "b".to_string(), min: 1, opt: 2, max: 3 }));
        assert_eq!("b=4".parse(), Ok(Range { symbol: "b".to_string(), min: 4, opt: 4, max: 4 }));
        assert!(matches!("b=3:2:1".parse::<Range>(), Err(RangeError::Order { .. })));
        for text in ["", "b", "b=", "=1", "b=1:2", "b=x"] {
            assert!(matches!(text.parse::<Range>(), Err(RangeError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn every_symbol_needs_a_range_and_every_range_a_symbol() {
        let [batch, h, other] = ["batch=1:8:32", "h=4:5:6", "w=1"].map(|text| text.parse::<Range>().unwrap());
        let found = profile(&graph(), &[batch.clone(), h.clone()], &[]).unwrap().unwrap().ranges;
        assert_eq!(found[0].min, [1, 3, 8]);
        assert_eq!(found[0].max, [32, 3, 12]);
        assert!(
            matches!(profile(&graph(), std::slice::from_ref(&batch), &[]), Err(RangeError::Missing { symbol, .. }) if symbol == "h")
        );
        assert!(
            matches!(profile(&graph(), &[batch, h, other], &[]), Err(RangeError::Unknown { symbol, .. }) if symbol == "w")
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let graph: Graph = "graph g(%x: f32[n, 3]) -> (%y) { %y = reshape(%x) shape=[(n/2), 6] }".parse().unwrap();
        let range = |text: &str| [text.parse::<Range>().unwrap()];
        assert_eq!(check_ranges(&graph, &range("n=2:4:8")), Ok(()));
        let error = check_ranges(&graph, &range("n=2:4:7")).unwrap_err().to_string();
        assert!(error.contains("n=7") && error.contains("`y`"), "{error}");
    }

    #[test]
    fn integers_of_32_bits_are_proven() {
        let text = "graph g(%ids: i64[n], %m: bool[n]) -> (%a, %b) {
            %k = constant() value=i64[] {0}
            %a = cumulative(%ids, %k)
            %c = cast(%m) to=i64
            %b = cumulative(%c, %k)
        }";
        let graph: Graph = text.parse().unwrap();
        let old = Capabilities::tensorrt((8, 5, 3));
        let check = |target: &Capabilities, texts: &[&str]| {
            let ranges: Vec<Range> = texts.iter().map(|text| text.parse().unwrap()).collect();
            check_ranges(&graph, &ranges)?;
            check_integers(&graph, target, &ranges, &[]).map(|bounds| bounds.len())
        };
        assert_eq!(
            check(&old, &["n=1:8:32"]).unwrap_err().to_string(),
            "`a` may be beyond i32, in which the target computes i64: say what `ids` holds, e.g. --range 'ids[]=0:1:1000'"
        );
        // 32 times 2^26 is just too much.
        let large = "`a` may be beyond i32, in which the target computes i64: clip what it is computed from";
        assert_eq!(check(&old, &["n=1:8:32", "ids[]=0:1:67108864"]).unwrap_err().to_string(), large);
        assert_eq!(check(&old, &["n=1:8:32", "ids[]=0:1:67108863"]), Ok(1));
        assert_eq!(check(&Capabilities::default(), &["n=1:8:32", "ids[]=0:1:5"]), Ok(0));
        assert_eq!(check(&old, &["n=1:8:32", "ids[]=-67108864:-1:5"]), Ok(1));
        assert_eq!(check(&old, &["n=1:8:32", "ids[]=0:1:5", "m[]=1"]), Ok(1)); // one number fixes it
        let unknown = check(&old, &["n=1:8:32", "m[]=0:1:1"]).unwrap_err().to_string();
        assert_eq!(unknown, "no input has a dimension `m[]`; there is `n`");
    }
}
