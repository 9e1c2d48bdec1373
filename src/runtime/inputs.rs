//! Inputs to try an engine with.

use std::collections::BTreeMap;

use trt_fuse_ir::eval::convert;
use trt_fuse_ir::{DType, Tensor, TensorError, numel};

use super::error::RuntimeError;
use super::interface::TensorSpec;

/// Which of the extents that an engine was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extents {
    /// The smallest.
    Min,
    /// The usual ones.
    Opt,
    /// The largest.
    Max,
}

/// Whole numbers are below this: they may be indices of a table, a mask, a number of something.
const MOST_WHOLE: f64 = 4.0;

/// Inputs by name from a fixed sequence that `seed` chooses: floats in -1..1, whole numbers in 0..4 or as near to it as the
/// engine takes them, booleans. Inputs whose values decide shapes have those of `values`, or for the usual extents the
/// usual ones, and inputs whose values are fixed these.
///
/// # Errors
/// If an input that decides shapes has no values, or its type has no random numbers.
pub fn random_inputs(
    specs: &[TensorSpec],
    extents: Extents,
    values: &BTreeMap<String, Vec<i64>>,
    seed: u64,
) -> Result<Vec<(String, Tensor)>, RuntimeError> {
    let mut random = Random::new(seed);
    let mut inputs = Vec::new();
    for spec in specs.iter().filter(|spec| spec.is_input) {
        let fail = |reason: String| RuntimeError::Tensor { name: spec.name.clone(), reason };
        let wrong = |why: TensorError| fail(why.to_string());
        let fixed = spec.values.as_ref().filter(|(min, max)| min == max).map(|(values, _)| values);
        let tensor = if spec.on_host || fixed.is_some() {
            let usual = spec.usual.as_ref().filter(|_| extents == Extents::Opt);
            let values = values.get(&spec.name).or(usual).or(fixed);
            let values = values.ok_or_else(|| fail("its values decide shapes".to_owned()))?;
            let dims: Vec<usize> = spec.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(values.len())).collect();
            let values = Tensor::from_vec(dims, values.clone()).map_err(wrong)?;
            convert(&values, spec.dtype).map_err(fail)?
        } else {
            let dims = match extents {
                Extents::Min => &spec.min,
                Extents::Opt => &spec.opt,
                Extents::Max => &spec.max,
            };
            let dims: Vec<usize> = dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
            let count = numel(&dims).ok_or_else(|| fail(format!("its shape {dims:?} is too large")))?;
            let numbers = (0..count).map(|_| random.number(spec)).collect();
            convert(&Tensor::from_vec(dims, numbers).map_err(wrong)?, spec.dtype).map_err(fail)?
        };
        inputs.push((spec.name.clone(), tensor));
    }
    Ok(inputs)
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1_u64 << 24) as f32
    }

    fn number(&mut self, spec: &TensorSpec) -> f64 {
        let unit = f64::from(self.unit());
        match spec.dtype {
            dtype if dtype.is_float() => unit * 2.0 - 1.0,
            dtype => {
                let most = if dtype == DType::Bool { 2.0 } else { MOST_WHOLE };
                let number = (unit * most).floor();
                spec.bounds.map_or(number, |(min, max)| number.max(min as f64).min(max as f64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DType, extent: i64, on_host: bool) -> TensorSpec {
        let (dims, extents) = (vec![extent], if on_host { vec![] } else { vec![extent] });
        let [min, opt, max] = [extents.clone(), extents.clone(), extents];
        TensorSpec {
            name: name.to_owned(),
            is_input: true,
            dtype,
            carried: dtype,
            dims,
            shape: None,
            min,
            opt,
            max,
            on_host,
            values: None,
            usual: None,
            bounds: None,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs_in_their_range() {
        let specs = [spec("x", DType::F16, 1000, false), spec("i", DType::I64, 1000, false)];
        let inputs = |seed| random_inputs(&specs, Extents::Opt, &BTreeMap::new(), seed).unwrap();
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let floats = inputs(1)[0].1.to_f64s().unwrap();
        assert!(
            floats.iter().all(|x| x.abs() <= 1.0)
                && floats.iter().any(|x| *x < -0.9)
                && floats.iter().any(|x| *x > 0.9)
        );
        let mut whole = inputs(1)[1].1.to_i64s().unwrap();
        whole.sort_unstable();
        whole.dedup();
        assert_eq!(whole, [0, 1, 2, 3]);
    }

    #[test]
    fn fixed_values_are_those() {
        let mask = TensorSpec { bounds: Some((1, 1)), ..spec("mask", DType::Bool, 100, false) };
        let axes = TensorSpec { values: Some((vec![0, -1], vec![0, -1])), ..spec("axes", DType::I64, 2, false) };
        let inputs = random_inputs(&[mask, axes], Extents::Max, &BTreeMap::new(), 1).unwrap();
        assert_eq!(inputs[0].1, Tensor::full([100], true).unwrap());
        assert_eq!(inputs[1].1, Tensor::vector(vec![0_i64, -1]));
    }

    #[test]
    fn values_that_decide_shapes_are_asked_for() {
        let specs = [spec("sizes", DType::I64, 2, true)];
        assert!(random_inputs(&specs, Extents::Opt, &BTreeMap::new(), 1).is_err());
        let values = BTreeMap::from([("sizes".to_owned(), vec![3, 4])]);
        let inputs = random_inputs(&specs, Extents::Opt, &values, 1).unwrap();
        assert_eq!(inputs[0].1, Tensor::vector(vec![3_i64, 4]));
        let specs = [TensorSpec { usual: Some(vec![5, 6]), ..spec("sizes", DType::I64, 2, true) }];
        let inputs = random_inputs(&specs, Extents::Opt, &BTreeMap::new(), 1).unwrap();
        assert_eq!(inputs[0].1, Tensor::vector(vec![5_i64, 6]));
        assert!(random_inputs(&specs, Extents::Max, &BTreeMap::new(), 1).is_err());
    }
}
