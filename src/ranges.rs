//! Ranges of symbols: `batch=1:8:32` says how large a dimension may get, once, wherever it occurs.

use std::collections::BTreeMap;
use std::str::FromStr;

use trt_fuse_ir::{Dim, Graph};

use crate::tensorrt::{InputRange, Profile, RangeKind};

/// How large a symbol may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The symbol.
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
        if min < 0 || min > opt || opt > max {
            return Err(RangeError::Order { symbol, min, opt, max });
        }
        Ok(Self { symbol, min, opt, max })
    }
}

/// The optimization profile of a graph's dynamic inputs; `None` if all dimensions are fixed.
///
/// # Errors
/// If a symbol has no range, or a range no symbol.
pub fn profile(graph: &Graph, ranges: &[Range]) -> Result<Option<Profile>, RangeError> {
    let by_symbol: BTreeMap<&str, &Range> = ranges.iter().map(|range| (range.symbol.as_str(), range)).collect();
    let mut symbols: BTreeMap<String, String> = BTreeMap::new();
    let mut dynamic = Vec::new();
    for value in graph.inputs().iter().filter_map(|id| graph.value((*id).into())) {
        let Some(shape) = &value.info.shape else { continue };
        for dim in shape {
            dim.visit_symbols(&mut |name| {
                symbols.insert(name.to_string(), value.name.to_string());
            });
        }
        if shape.iter().any(|dim| dim.value().is_none()) {
            dynamic.push((value.name.clone(), shape));
        }
    }
    if let Some(range) = ranges.iter().find(|range| !symbols.contains_key(&range.symbol)) {
        return Err(RangeError::Unknown { symbol: range.symbol.clone(), known: symbols.into_keys().collect() });
    }
    if let Some((symbol, input)) = symbols.iter().find(|(symbol, _)| !by_symbol.contains_key(symbol.as_str())) {
        return Err(RangeError::Missing { symbol: symbol.clone(), input: input.clone() });
    }
    let extents = |shape: &[Dim], pick: &dyn Fn(&Range) -> i64| -> Vec<i64> {
        let lookup = |name: &str| by_symbol.get(name).map(|range| pick(range));
        // Every symbol has a range by now; a division by 0 alone leaves no value.
        shape.iter().map(|dim| dim.evaluate(&lookup).unwrap_or(0)).collect()
    };
    let ranges: Vec<InputRange> = dynamic
        .into_iter()
        .map(|(input, shape)| InputRange {
            input: input.to_string(),
            kind: RangeKind::Extents,
            min: extents(shape, &|range| range.min),
            opt: extents(shape, &|range| range.opt),
            max: extents(shape, &|range| range.max),
        })
        .collect();
    Ok(if ranges.is_empty() { None } else { Some(Profile { ranges }) })
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
        let found = profile(&graph(), &[batch.clone(), h.clone()]).unwrap().unwrap().ranges;
        assert_eq!(found[0].min, [1, 3, 8]);
        assert_eq!(found[0].max, [32, 3, 12]);
        assert!(
            matches!(profile(&graph(), std::slice::from_ref(&batch)), Err(RangeError::Missing { symbol, .. }) if symbol == "h")
        );
        assert!(
            matches!(profile(&graph(), &[batch, h, other]), Err(RangeError::Unknown { symbol, .. }) if symbol == "w")
        );
    }
}
