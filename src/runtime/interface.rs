//! What an engine reads and writes, and whether given tensors fit that.

use std::borrow::Cow;
use std::collections::BTreeMap;

use trt_fuse_ir::eval::{convert, narrowed};
use trt_fuse_ir::{DType, Shape, Tensor};

use super::error::RuntimeError;
use super::memory::DeviceTensor;

/// An input or output of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Whether it is read.
    pub is_input: bool,
    /// The model's element type, in which it is given and taken.
    pub dtype: DType,
    /// The engine's element type.
    pub carried: DType,
    /// Extents; -1 where they are known only at run time.
    pub dims: Vec<i64>,
    /// The model's dimensions of an input, where one is an expression over symbols.
    pub shape: Option<Shape>,
    /// Smallest extents that the engine was built for, for an input.
    pub min: Vec<i64>,
    /// Usual extents, which kernels were chosen for.
    pub opt: Vec<i64>,
    /// Largest extents.
    pub max: Vec<i64>,
    /// Whether TensorRT reads or writes it in host memory, as its values decide shapes.
    pub on_host: bool,
    /// Smallest and largest values that the engine was built for, for an input whose values decide shapes or are fixed.
    pub values: Option<(Vec<i64>, Vec<i64>)>,
    /// Usual values of such an input.
    pub usual: Option<Vec<i64>>,
    /// Least and largest elements of an input of integers, if the engine rests on them.
    pub bounds: Option<(i64, i64)>,
}

impl TensorSpec {
    /// A given tensor as the engine carries it.
    fn take<'t>(&self, tensor: &'t Tensor) -> Result<Cow<'t, Tensor>, RuntimeError> {
        if tensor.dtype() != self.dtype {
            return Err(RuntimeError::DType { name: self.name.clone(), expected: self.dtype, found: tensor.dtype() });
        }
        if !self.holds(tensor.dims()) {
            return Err(RuntimeError::Shape {
                name: self.name.clone(),
                expected: self.extents(),
                found: tensor.dims().to_vec(),
            });
        }
        check_elements(&self.name, self.values.as_ref(), self.bounds, tensor)?;
        if self.carried == self.dtype {
            return Ok(Cow::Borrowed(tensor));
        }
        let carried = narrowed(tensor, self.carried).map(Cow::Owned);
        carried.ok_or(RuntimeError::Number { name: self.name.clone(), from: self.dtype, to: self.carried })
    }

    /// What the engine wrote, in the model's type.
    pub(super) fn give(&self, tensor: Tensor) -> Result<Tensor, RuntimeError> {
        if self.carried == self.dtype {
            return Ok(tensor);
        }
        convert(&tensor, self.dtype).map_err(|reason| RuntimeError::Tensor { name: self.name.clone(), reason })
    }

    /// Whether a tensor of the engine's type fits as it is.
    fn check_placed(&self, tensor: &DeviceTensor) -> Result<(), RuntimeError> {
        if self.on_host {
            let reason = "TensorRT reads and writes it in host memory, as its values decide shapes".to_owned();
            return Err(RuntimeError::Tensor { name: self.name.clone(), reason });
        }
        if self.bounds.is_some() || self.values.is_some() {
            let reason = "its elements are to be checked, which is done in host memory".to_owned();
            return Err(RuntimeError::Tensor { name: self.name.clone(), reason });
        }
        if tensor.dtype() != self.carried {
            let (expected, found) = (self.carried, tensor.dtype());
            return Err(RuntimeError::DType { name: self.name.clone(), expected, found });
        }
        if self.holds(tensor.dims()) {
            return Ok(());
        }
        let (expected, found) = (self.extents(), tensor.dims().to_vec());
        Err(RuntimeError::Shape { name: self.name.clone(), expected, found })
    }

    fn holds(&self, dims: &[usize]) -> bool {
        let within = |(at, extent): (usize, &usize)| {
            let Ok(extent) = i64::try_from(*extent) else { return false };
            match (self.min.get(at), self.max.get(at)) {
                (Some(min), Some(max)) => (*min..=*max).contains(&extent),
                _ => self.dims.get(at).is_some_and(|dim| *dim < 0 || *dim == extent),
            }
        };
        dims.len() == self.dims.len() && dims.iter().enumerate().all(within)
    }

    /// The extents that fit, as text.
    fn extents(&self) -> String {
        let extent = |(at, dim): (usize, &i64)| match (self.min.get(at), self.max.get(at)) {
            (Some(min), Some(max)) if min == max => min.to_string(),
            (Some(min), Some(max)) => format!("{min} to {max}"),
            _ if *dim < 0 => "any".to_owned(),
            _ => dim.to_string(),
        };
        let extents: Vec<String> = self.dims.iter().enumerate().map(extent).collect();
        format!("[{}]", extents.join(", "))
    }
}

/// Refuses elements that an engine was not built for: TensorRT takes other values than the shapes follow from, integers
/// beyond their bounds might wrap around, and what was known beforehand is a constant of the engine.
pub(super) fn check_elements(
    name: &str,
    values: Option<&(Vec<i64>, Vec<i64>)>,
    bounds: Option<(i64, i64)>,
    tensor: &Tensor,
) -> Result<(), RuntimeError> {
    if values.is_none() && bounds.is_none() {
        return Ok(());
    }
    let found = tensor.to_i64s().ok_or_else(|| RuntimeError::Tensor {
        name: name.to_owned(),
        reason: "it has elements beyond those of i64, and the engine was built for others".to_owned(),
    })?;
    if let Some((min, max)) = values {
        let fits = found.len() == min.len()
            && found.iter().zip(min.iter().zip(max)).all(|(value, (min, max))| (min..=max).contains(&value));
        if !fits {
            let expected = if min == max { format!("{min:?}") } else { format!("{min:?} to {max:?}") };
            return Err(RuntimeError::Values { name: name.to_owned(), expected, found });
        }
    }
    let Some((min, max)) = bounds else { return Ok(()) };
    match found.into_iter().find(|element| !(min..=max).contains(element)) {
        Some(found) => Err(RuntimeError::Bounds { name: name.to_owned(), min, max, found }),
        None => Ok(()),
    }
}

/// An input that fits: where it stands in the interface, and the tensor as the engine carries it.
pub(super) type Taken<'t> = (usize, Cow<'t, Tensor>);

/// The given inputs in the order of the interface, each once.
pub(super) fn take_inputs<'t>(
    specs: &[TensorSpec],
    given: &[(&str, &'t Tensor)],
) -> Result<Vec<Taken<'t>>, RuntimeError> {
    let matched = match_names(specs, true, given)?;
    let mut taken = Vec::with_capacity(matched.len());
    for (at, spec, tensor) in &matched {
        taken.push((*at, spec.take(tensor)?));
    }
    check_symbols(matched.iter().map(|(_, spec, tensor)| (*spec, tensor.dims())))?;
    Ok(taken)
}

/// The given inputs or outputs in memory of the GPU, in the order of the interface, each once.
pub(super) fn take_placed<'t>(
    specs: &[TensorSpec],
    inputs: bool,
    given: &[(&str, &'t DeviceTensor)],
) -> Result<Vec<(usize, &'t DeviceTensor)>, RuntimeError> {
    let matched = match_names(specs, inputs, given)?;
    for (_, spec, tensor) in &matched {
        spec.check_placed(tensor)?;
    }
    check_symbols(matched.iter().map(|(_, spec, tensor)| (*spec, tensor.dims())))?;
    Ok(matched.into_iter().map(|(at, _, tensor)| (at, tensor)).collect())
}

/// Whether the dimensions that the model names alike are alike, and those that it computes from others are what it says.
///
/// The graph was rewritten on the strength of that, and TensorRT knows of equal names alone.
fn check_symbols<'s, 'd>(
    given: impl Iterator<Item = (&'s TensorSpec, &'d [usize])> + Clone,
) -> Result<(), RuntimeError> {
    let dims = given.flat_map(|(spec, found)| spec.shape.iter().flatten().zip(found).map(move |pair| (spec, pair)));
    let mut symbols: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, (dim, found)) in dims.clone() {
        if let (Some(symbol), Ok(found)) = (dim.as_symbol(), i64::try_from(*found)) {
            symbols.entry(symbol).or_insert(found);
        }
    }
    for (spec, (dim, found)) in dims {
        let expected = dim.evaluate(&|name| symbols.get(name).copied());
        if let Some(expected) = expected.filter(|expected| i64::try_from(*found) != Ok(*expected)) {
            return Err(RuntimeError::Symbol {
                name: spec.name.clone(),
                dim: dim.to_string(),
                expected,
                found: *found,
            });
        }
    }
    Ok(())
}

/// Each input or output with where it stands, and what was given for it by name.
fn match_names<'s, 't, T>(
    specs: &'s [TensorSpec],
    inputs: bool,
    given: &[(&str, &'t T)],
) -> Result<Vec<(usize, &'s TensorSpec, &'t T)>, RuntimeError> {
    let wanted = || specs.iter().enumerate().filter(|(_, spec)| spec.is_input == inputs);
    for (name, _) in given {
        if !wanted().any(|(_, spec)| spec.name == *name) {
            let known: Vec<&str> = wanted().map(|(_, spec)| spec.name.as_str()).collect();
            return Err(RuntimeError::UnknownTensor {
                side: side(inputs),
                name: (*name).to_owned(),
                known: known.join(", "),
            });
        }
    }
    let mut matched = Vec::new();
    for (at, spec) in wanted() {
        let mut values = given.iter().filter(|(name, _)| *name == spec.name).map(|(_, tensor)| *tensor);
        match (values.next(), values.count()) {
            (Some(tensor), 0) => matched.push((at, spec, tensor)),
            (first, more) => {
                let times = usize::from(first.is_some()) + more;
                return Err(RuntimeError::Times { side: side(inputs), name: spec.name.clone(), times });
            }
        }
    }
    Ok(matched)
}

fn side(inputs: bool) -> &'static str {
    if inputs { "input" } else { "output" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<TensorSpec> {
        let spec = |name: &str, is_input, dtype, carried, dims: [i64; 2], min: &[i64], max: &[i64]| TensorSpec {
            name: name.to_owned(),
            is_input,
            dtype,
            carried,
            dims: dims.to_vec(),
            shape: None,
            min: min.to_vec(),
            opt: max.to_vec(),
            max: max.to_vec(),
            on_host: false,
            values: None,
            usual: None,
            bounds: None,
        };
        vec![
            spec("ids", true, DType::I64, DType::I32, [-1, 4], &[1, 4], &[8, 4]),
            spec("x", true, DType::F32, DType::F32, [2, 2], &[2, 2], &[2, 2]),
            spec("y", false, DType::F32, DType::F32, [2, 2], &[], &[]),
        ]
    }

    fn refusal(given: &[(&str, &Tensor)]) -> String {
        take_inputs(&specs(), given).unwrap_err().to_string()
    }

    #[test]
    fn inputs_come_in_the_engines_order_and_types() {
        let ids = Tensor::from_vec([3, 4], (0..12_i64).collect()).unwrap();
        let x = Tensor::full([2, 2], 1.0_f32).unwrap();
        let specs = specs();
        let taken = take_inputs(&specs, &[("x", &x), ("ids", &ids)]).unwrap();
        assert_eq!(taken.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(*taken[0].1, Tensor::from_vec([3, 4], (0..12_i32).collect()).unwrap());
        assert!(matches!(taken[1].1, Cow::Borrowed(_)));
    }

    #[test]
    fn dimensions_are_what_the_model_says_of_each_other() {
        let mut specs = specs();
        (specs[0].dims, specs[0].min, specs[0].max) = (vec![-1, -1], vec![1, 1], vec![8, 8]);
        (specs[1].dims, specs[1].min, specs[1].max) = (vec![-1, -1], vec![1, 1], vec![8, 8]);
        let shape = |dims: [&str; 2]| Some(dims.iter().map(|dim| dim.parse().unwrap()).collect());
        (specs[0].shape, specs[1].shape) = (shape(["n", "past+n"]), shape(["n", "past"]));
        let run = |ids: [usize; 2], x: [usize; 2]| {
            let (ids, x) = (Tensor::full(ids, 1_i64).unwrap(), Tensor::full(x, 1.0_f32).unwrap());
            take_inputs(&specs, &[("x", &x), ("ids", &ids)]).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(run([2, 6], [2, 4]), Ok(()));
        insta::assert_snapshot!(run([2, 7], [2, 4]).unwrap_err(), @"'ids' has a dimension of 7; the model says it is n+past, which is 6 here");
        insta::assert_snapshot!(run([2, 6], [3, 4]).unwrap_err(), @"'x' has a dimension of 3; the model says it is n, which is 2 here");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ids = Tensor::full([3, 4], 1_i64).unwrap();
        let x = Tensor::full([2, 2], 1.0_f32).unwrap();
        insta::assert_snapshot!(refusal(&[("ids", &ids)]), @"input 'x' was given 0 times");
        insta::assert_snapshot!(refusal(&[("ids", &ids), ("x", &x), ("x", &x)]), @"input 'x' was given 2 times");
        insta::assert_snapshot!(refusal(&[("y", &x)]), @"no input is called 'y'; there are ids, x");
        insta::assert_snapshot!(refusal(&[("ids", &x), ("x", &x)]), @"'ids' is f32, i64 is wanted");
        let long = Tensor::full([9, 4], 1_i64).unwrap();
        insta::assert_snapshot!(
            refusal(&[("ids", &long), ("x", &x)]),
            @"'ids' has shape [9, 4], [1 to 8, 4] is wanted"
        );
        let flat = Tensor::full([4], 1.0_f32).unwrap();
        insta::assert_snapshot!(
            refusal(&[("ids", &ids), ("x", &flat)]),
            @"'x' has shape [4], [2, 2] is wanted"
        );
        let mut specs = specs();
        specs[0].values = Some((vec![1; 4], vec![1, 2, 3, 4]));
        let ids = Tensor::from_vec([1, 4], vec![1_i64, 2, 3, 5]).unwrap();
        insta::assert_snapshot!(
            take_inputs(&specs, &[("ids", &ids), ("x", &x)]).unwrap_err(),
            @"'ids' is [1, 2, 3, 5]; the engine was built for values [1, 1, 1, 1] to [1, 2, 3, 4]"
        );
        let mut specs = self::specs();
        specs[0].bounds = Some((0, 9));
        let ids = Tensor::from_vec([1, 4], vec![0_i64, 9, 10, -1]).unwrap();
        insta::assert_snapshot!(
            take_inputs(&specs, &[("ids", &ids), ("x", &x)]).unwrap_err(),
            @"'ids' has an element 10; the engine was built for 0 to 9"
        );
        assert!(check_elements("x", None, Some((0, 1)), &Tensor::vector(vec![u64::MAX])).is_err());
        let large = Tensor::full([3, 4], 1_i64 << 31).unwrap();
        insta::assert_snapshot!(
            refusal(&[("ids", &large), ("x", &x)]),
            @"input 'ids' has a number of i64 that i32 does not hold; the engine computes in i32"
        );
    }
}
