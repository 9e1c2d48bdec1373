//! What ranges of one number tell before a model is read.

use std::collections::BTreeMap;

use trt_fuse_ir::InputValues;

use super::{Range, RangeError};

/// Refuses two ranges of one size or element; a fixed number for all elements is one for each.
pub(crate) fn check_once(ranges: &[Range]) -> Result<(), RangeError> {
    let all =
        |range: &Range| Some(range.symbol.strip_suffix("[]").filter(|_| range.min == range.max)?.to_owned() + "[");
    for (at, range) in ranges.iter().enumerate() {
        let others = ranges.iter().take(at).chain(ranges.iter().skip(at + 1));
        for other in others {
            if range.symbol == other.symbol || all(range).is_some_and(|input| other.symbol.starts_with(&input)) {
                let (first, second) = (range.symbol.clone(), other.symbol.clone());
                return Err(RangeError::Twice { first, second });
            }
        }
    }
    Ok(())
}

/// The inputs of which each element, or all of them together, have one value.
pub(crate) fn fixed_values(ranges: &[Range]) -> BTreeMap<String, InputValues> {
    let mut values = BTreeMap::new();
    let mut elements: BTreeMap<&str, BTreeMap<usize, Option<i64>>> = BTreeMap::new();
    for range in ranges {
        let Some((input, index)) = range.symbol.strip_suffix(']').and_then(|symbol| symbol.rsplit_once('[')) else {
            continue;
        };
        let value = Some(range.min).filter(|min| *min == range.max);
        match (index.parse(), value) {
            (Ok(index), value) => drop(elements.entry(input).or_default().insert(index, value)),
            (Err(_), Some(value)) if index.is_empty() => drop(values.insert(input.to_owned(), InputValues::All(value))),
            (Err(_), _) => {}
        }
    }
    for (input, elements) in elements {
        let each = (0..).zip(elements).map(|(at, (index, value))| value.filter(|_| index == at));
        if let Some(each) = each.collect() {
            values.insert(input.to_owned(), InputValues::Each(each));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_twice_is_refused() {
        let check = |ranges: &[&str]| {
            let ranges: Vec<Range> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            check_once(&ranges).map_err(|error| error.to_string())
        };
        let twice =
            |first: &str, second: &str| Err(format!("`{first}` and `{second}` speak of the same: give one range"));
        assert_eq!(check(&["batch=1", "batch=2"]), twice("batch", "batch"));
        assert_eq!(check(&["mask[]=1", "mask[]=0"]), twice("mask[]", "mask[]"));
        assert_eq!(check(&["mask[3]=0", "mask[]=1"]), twice("mask[]", "mask[3]"));
        // Values that decide shapes, within the bounds of all.
        assert_eq!(check(&["sizes[]=0:1:100", "sizes[0]=1:2:3", "masks[0]=1", "mask[]=1"]), Ok(()));
    }

    #[test]
    fn one_number_for_each_element_or_for_all_fixes_an_input() {
        let fixed = |ranges: &[&str]| {
            let ranges: Vec<Range> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            format!("{:?}", fixed_values(&ranges))
        };
        assert_eq!(fixed(&["axes[1]=3", "axes[0]=-1", "batch=4"]), r#"{"axes": Each([-1, 3])}"#);
        assert_eq!(fixed(&["mask[]=1"]), r#"{"mask": All(1)}"#);
        // What is a range, or leaves an element out, fixes nothing.
        for ranges in [&["axes[0]=1:2:3"][..], &["axes[0]=1", "axes[1]=0:1:2"], &["axes[1]=1"], &["mask[]=0:1:1"]] {
            assert_eq!(fixed(ranges), "{}", "{ranges:?}");
        }
    }
}
