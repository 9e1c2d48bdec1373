//! Inputs to try a graph on, and how far its outputs are apart.

use half::{bf16, f16};

use super::EvalError;
use crate::{DType, Graph, Tensor};

/// Inputs of a graph from a fixed sequence of numbers: floats in -2..2, integers in 0..4, small ones in -60..60. `size`
/// gives the sizes of symbols.
///
/// # Errors
/// An input whose shape is not known, or whose type has no numbers.
pub fn random_inputs(graph: &Graph, size: &dyn Fn(&str) -> Option<i64>, seed: u64) -> Result<Vec<Tensor>, EvalError> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1_u64 << 24) as f32 * 4.0 - 2.0
    };
    let mut inputs = Vec::new();
    for value in graph.inputs().iter().filter_map(|id| graph.value((*id).into())) {
        let fail = |reason: &str| EvalError::Input { input: value.name.clone(), reason: reason.to_string() };
        let shape = value.info.shape.as_ref().ok_or_else(|| fail("its rank is not known"))?;
        let sizes = shape.iter().map(|dim| usize::try_from(dim.evaluate(&|name| size(name))?).ok());
        let dims: Vec<usize> = sizes.collect::<Option<_>>().ok_or_else(|| fail("its shape is not known"))?;
        let count = crate::numel(&dims).ok_or_else(|| fail("it has too many elements"))?;
        let data: Vec<f32> = (0..count).map(|_| next()).collect();
        let tensor = match value.info.dtype {
            DType::F32 => Tensor::from_vec(dims, data),
            DType::F64 => Tensor::from_vec(dims, data.into_iter().map(f64::from).collect()),
            DType::F16 => Tensor::from_vec(dims, data.into_iter().map(f16::from_f32).collect()),
            DType::BF16 => Tensor::from_vec(dims, data.into_iter().map(bf16::from_f32).collect()),
            DType::I64 => Tensor::from_vec(dims, data.into_iter().map(|x| (x + 2.0) as i64).collect()),
            DType::I32 => Tensor::from_vec(dims, data.into_iter().map(|x| (x + 2.0) as i32).collect()),
            DType::I8 => Tensor::from_vec(dims, data.into_iter().map(|x| (x * 30.0) as i8).collect()),
            DType::U8 => Tensor::from_vec(dims, data.into_iter().map(|x| (x * 30.0) as u8).collect()),
            DType::Bool => Tensor::from_vec(dims, data.into_iter().map(|x| x > 0.0).collect()),
            other => return Err(fail(&format!("no random numbers of {other}"))),
        };
        inputs.push(tensor.map_err(|error| fail(&error.to_string()))?);
    }
    Ok(inputs)
}

/// The largest difference of two tensors, relative to the largest finite magnitude of the first; infinite if dtype, shape
/// or the places of NaN differ.
pub fn difference(expected: &Tensor, found: &Tensor) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_expected() {
        let of = |data: &[f32]| Tensor::vector(data.to_vec());
        assert_eq!(difference(&of(&[1.0, -4.0]), &of(&[2.0, -4.0])), 0.25);
        assert_eq!(difference(&of(&[f32::NAN, 1.0]), &of(&[f32::NAN, 1.0])), 0.0);
        assert_eq!(difference(&of(&[f32::NAN, 1.0]), &of(&[0.0, 1.0])), f64::INFINITY);
        assert_eq!(difference(&of(&[1.0]), &of(&[1.0, 1.0])), f64::INFINITY);
        assert_eq!(difference(&of(&[1.0]), &Tensor::vector(vec![1_i32])), f64::INFINITY);
    }

    #[test]
    fn inputs_have_the_sizes_asked_for_and_come_again() {
        let graph: Graph = "graph g(%x: f32[n, 3], %k: i64[n]) -> (%y) { %y = gather(%x, %k) axis=0 }".parse().unwrap();
        let inputs = random_inputs(&graph, &|name| (name == "n").then_some(5), 1).unwrap();
        assert_eq!((inputs[0].dims(), inputs[1].dims()), (&[5, 3][..], &[5][..]));
        assert!(inputs[0].to_f64s().unwrap().iter().all(|x| (-2.0..=2.0).contains(x)));
        assert_eq!(inputs, random_inputs(&graph, &|_| Some(5), 1).unwrap());
        assert_ne!(inputs, random_inputs(&graph, &|_| Some(5), 2).unwrap());
        let error = random_inputs(&graph, &|_| None, 1).unwrap_err();
        assert_eq!(error.to_string(), "input `x`: its shape is not known");
    }
}
