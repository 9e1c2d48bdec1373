//! Types that the model states: `onnx.TypeProto` to [`ValueInfo`].

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashSet;
use trt_fuse_ir::{DType, Dim, Shape, ValueInfo};

use super::error::ImportError;
use super::limits::Limits;
use super::proto::{DimensionValue, TensorShapeProto, TypeProto, TypeValue, ValueInfoProto};
use super::tensor::dtype;

/// The names of the model's unknown dimensions.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// Names that stand for a dimension of an input by themselves.
    names: FxHashSet<String>,
    /// Those that are to be numbers.
    sizes: BTreeMap<String, i64>,
}

/// Whether a parameter names a dimension. Exporters write `?` for any that they do not know, each another.
fn is_name(param: &str) -> bool {
    !matches!(param, "" | "?")
}

impl Symbols {
    /// The names in the types of graph inputs, and the numbers that some of them are to be.
    pub(crate) fn of(inputs: &[ValueInfoProto], sizes: &BTreeMap<String, i64>) -> Self {
        let types = inputs.iter().filter_map(|input| input.r#type.as_ref());
        let params = types.filter_map(shape_of).flat_map(|shape| &shape.dim).filter_map(|dim| match &dim.value {
            Some(DimensionValue::DimParam(name)) => Some(name.clone()),
            _ => None,
        });
        let stated = Self { names: params.filter(|name| is_name(name)).collect(), sizes: sizes.clone() };
        let names = stated.names.iter().filter(|name| !stated.is_arithmetic(name)).cloned().collect();
        Self { names, ..stated }
    }

    /// Whether a parameter is a sum or product of other names, as `past + sequence` where inputs have `past` and `sequence`
    /// too. A hyphen is as likely a part of a name.
    fn is_arithmetic(&self, param: &str) -> bool {
        let dim = if param.contains('-') { None } else { param.parse::<Dim>().ok() };
        dim.is_some_and(|dim| dim.as_symbol().is_none() && self.is_known(&dim))
    }

    /// Whether a dimension has names, all of inputs' dimensions.
    fn is_known(&self, dim: &Dim) -> bool {
        let (mut count, mut known) = (0, true);
        dim.visit_symbols(&mut |name| {
            count += 1;
            known &= self.names.contains(&**name);
        });
        count > 0 && known
    }

    /// A type with numbers for the dimensions that are to be such.
    pub(crate) fn sized(&self, mut info: ValueInfo) -> ValueInfo {
        for dim in info.shape.iter_mut().flatten() {
            *dim = dim.substitute(&|name| self.sizes.get(name).copied().map(Dim::fixed));
        }
        info
    }

    /// Refuses a size of a dimension that no input has.
    pub(crate) fn check_sizes(&self, dimensions: &BTreeSet<String>) -> Result<(), ImportError> {
        match self.sizes.keys().find(|name| !dimensions.contains(*name)) {
            Some(name) => {
                let known = dimensions.iter().cloned().collect();
                Err(ImportError::NoSuchDimension { name: name.clone(), known })
            }
            None => Ok(()),
        }
    }

    /// The dimension that a name stands for, in terms of inputs' dimensions: `2*batch` is an expression if `batch` is
    /// the name of one, and so is `batch` itself.
    fn expression(&self, param: &str) -> Option<Dim> {
        if self.names.contains(param) {
            return Some(Dim::symbol(param));
        }
        param.parse::<Dim>().ok().filter(|dim| self.is_known(dim))
    }

    /// What the type of an input of the graph says. A named dimension is the symbol of that name, or arithmetic on others;
    /// an unnamed one is the symbol of the input and the axis.
    ///
    /// # Errors
    /// As [`stated`](Self::stated).
    pub(crate) fn input(&self, stated: &TypeProto, name: &str, limits: &Limits) -> Result<ValueInfo, ImportError> {
        self.info(stated, name, limits, |axis, param| match param {
            Some(param) => self.expression(param).unwrap_or_else(|| Dim::symbol(param)),
            None => {
                let mut symbol = format!("{name}.{axis}");
                while self.names.contains(&symbol) {
                    symbol.push('_');
                }
                Dim::symbol(symbol)
            }
        })
    }

    /// What a stated type says of any other value. A dimension that is no expression over the inputs' gets a symbol of
    /// its own, starting with `label`: a name means nothing outside of its function call or body.
    ///
    /// # Errors
    /// If the element type is not known, a dimension is negative (-1 stands for an unknown one) or there are too many.
    pub(crate) fn stated(
        &self,
        stated: &TypeProto,
        name: &str,
        label: &str,
        limits: &Limits,
    ) -> Result<ValueInfo, ImportError> {
        let fresh = |axis| Dim::symbol(format!("{label}.{axis}"));
        self.info(stated, name, limits, |axis, param| {
            param.and_then(|param| self.expression(param)).unwrap_or_else(|| fresh(axis))
        })
        .map(|info| self.sized(info))
    }

    /// Sequences and other types that are no tensor say nothing. `unknown` gives the dimension of an axis and its name.
    fn info(
        &self,
        stated: &TypeProto,
        name: &str,
        limits: &Limits,
        unknown: impl Fn(usize, Option<&str>) -> Dim,
    ) -> Result<ValueInfo, ImportError> {
        let Some(TypeValue::Tensor(stated)) = &stated.value else {
            return Ok(ValueInfo::unshaped(DType::Unknown));
        };
        let tensor = || name.to_owned();
        let Some(dtype) = dtype(stated.elem_type) else {
            return Err(ImportError::DataType { tensor: tensor(), code: stated.elem_type });
        };
        let Some(shape) = &stated.shape else { return Ok(ValueInfo::unshaped(dtype)) };
        limits.check_rank(shape.dim.len(), name)?;
        let mut dims = Shape::new();
        for (axis, dim) in shape.dim.iter().enumerate() {
            dims.push(match &dim.value {
                Some(DimensionValue::DimValue(-1)) | None => unknown(axis, None),
                Some(DimensionValue::DimValue(dim)) if *dim < 0 => {
                    return Err(ImportError::NegativeDim { tensor: tensor(), axis, dim: *dim });
                }
                Some(DimensionValue::DimValue(dim)) => Dim::fixed(*dim),
                Some(DimensionValue::DimParam(param)) => {
                    unknown(axis, Some(param.as_str()).filter(|name| is_name(name)))
                }
            });
        }
        let fixed = dims.iter().filter_map(Dim::value).map(i64::unsigned_abs);
        limits.check_elements(fixed.fold(1_u64, u64::saturating_mul), name)?;
        Ok(ValueInfo { dtype, shape: Some(dims), known: Default::default() })
    }
}

fn shape_of(stated: &TypeProto) -> Option<&TensorShapeProto> {
    match &stated.value {
        Some(TypeValue::Tensor(tensor)) => tensor.shape.as_ref(),
        _ => None,
    }
}

/// The dimensions that a type states, if all are numbers.
pub(crate) fn fixed_dims(stated: &TypeProto) -> Option<Vec<Dim>> {
    let fixed = |value: &Option<DimensionValue>| match value {
        Some(DimensionValue::DimValue(size)) if *size >= 0 => Some(Dim::fixed(*size)),
        _ => None,
    };
    shape_of(stated)?.dim.iter().map(|dim| fixed(&dim.value)).collect()
}

/// What is stated of a value, as far as inference says nothing: a dimension that inference tells in terms of the
/// inputs' symbols or as a number is kept, unless the statement is another number, which is a contradiction. A symbol
/// made up for the data of `node` tells nothing.
pub(crate) fn supplement(inferred: &ValueInfo, mut stated: ValueInfo, node: &str) -> ValueInfo {
    let made_up = |dim: &Dim| {
        let rest = dim.as_symbol().and_then(|name| name.strip_prefix(node));
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let dims = inferred.shape.iter().flatten().zip(stated.shape.iter_mut().flatten());
    for (inferred, stated) in dims {
        if stated.value().is_none() || (inferred.value().is_none() && !made_up(inferred)) {
            *stated = inferred.clone();
        }
    }
    stated
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Dimension, TensorTypeProto};
    use super::*;

    fn tensor(dims: Vec<Option<DimensionValue>>) -> TypeProto {
        let dim = dims.into_iter().map(|value| Dimension { value }).collect();
        let shape = Some(TensorShapeProto { dim });
        TypeProto { value: Some(TypeValue::Tensor(TensorTypeProto { elem_type: 1, shape })) }
    }

    fn param(name: &str) -> Option<DimensionValue> {
        Some(DimensionValue::DimParam(name.into()))
    }

    fn symbols(names: &[&str]) -> Symbols {
        Symbols { names: names.iter().map(|name| (*name).to_owned()).collect(), sizes: BTreeMap::new() }
    }

    #[test]
    fn dimensions_become_numbers_symbols_and_expressions() {
        let symbols = symbols(&["batch", "batch-size"]);
        let dims = vec![Some(DimensionValue::DimValue(3)), param("batch"), param("batch-size"), None, param("")];
        let info = symbols.input(&tensor(dims), "x", &Limits::default()).unwrap();
        let shape = info.shape.unwrap();
        assert_eq!(shape[..3], [Dim::fixed(3), Dim::symbol("batch"), Dim::symbol("batch-size")]);
        assert_eq!(shape[3..], [Dim::symbol("x.3"), Dim::symbol("x.4")]);
        let dims = vec![param("batch"), param("2*batch + 1"), param("batch-size"), param("n"), param("7"), None];
        let info = symbols.stated(&tensor(dims), "v", "call/node", &Limits::default()).unwrap();
        let batch = Dim::symbol("batch");
        let shape = info.shape.unwrap();
        assert_eq!(shape[..3], [batch.clone(), &batch + &batch + Dim::fixed(1), Dim::symbol("batch-size")]);
        assert_eq!(shape[3..], ["call/node.3", "call/node.4", "call/node.5"].map(Dim::symbol));
    }

    #[test]
    fn names_of_inputs_may_be_arithmetic_on_others() {
        let shapes = |params: &[&str]| {
            let stated = tensor(params.iter().map(|name| param(name)).collect());
            let input = ValueInfoProto { name: "x".into(), r#type: Some(stated.clone()) };
            let symbols = Symbols::of(&[input], &BTreeMap::new());
            symbols.input(&stated, "x", &Limits::default()).unwrap().to_string()
        };
        assert_eq!(shapes(&["past + seq", "past", "seq", "2*seq"]), "f32[past+seq, past, seq, 2*seq]");
        assert_eq!(shapes(&["past", "past + 1"]), "f32[past, past+1]");
        // One of them is no dimension by itself; a hyphen is a part of a name; a number is no arithmetic.
        assert_eq!(shapes(&["past + seq", "past"]), "f32[`past + seq`, past]");
        assert_eq!(shapes(&["a-b", "a", "b"]), "f32[`a-b`, a, b]");
        assert_eq!(shapes(&["7", "b"]), "f32[`7`, b]");
    }

    #[test]
    fn an_unnamed_dimension_gets_a_name_of_its_own() {
        let info = symbols(&["x.0"]).input(&tensor(vec![None, param("x.0")]), "x", &Limits::default()).unwrap();
        let shape = info.shape.unwrap();
        assert_ne!(shape[0], shape[1]);
    }

    #[test]
    fn hostile_types_are_refused() {
        let fixed = |dims: &[i64]| tensor(dims.iter().map(|dim| Some(DimensionValue::DimValue(*dim))).collect());
        let line = |stated: TypeProto| match Symbols::default().input(&stated, "x", &Limits::default()) {
            Ok(info) => info.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(line(fixed(&[-1, 4])), "f32[x.0, 4]");
        assert_eq!(line(fixed(&[1, -7])), "tensor `x`: dimension 1 is -7");
        assert_eq!(
            line(fixed(&[i64::MAX, i64::MAX])),
            "tensor `x`: elements: 18446744073709551615 exceeds the limit of 274877906944"
        );
        assert_eq!(line(fixed(&[1; 65])), "tensor `x`: dimensions: 65 exceeds the limit of 64");
        let undefined = TensorTypeProto { elem_type: 0, shape: None };
        let undefined = TypeProto { value: Some(TypeValue::Tensor(undefined)) };
        assert_eq!(line(undefined), "tensor `x`: data type 0 is not supported");
        assert_eq!(line(TypeProto::default()), "unknown[..]");
    }

    #[test]
    fn statements_only_fill_gaps() {
        let batch = Dim::symbol("batch");
        let inferred = ValueInfo::new(DType::F32, [batch.clone(), Dim::fixed(3), Dim::symbol("n")]);
        let stated = ValueInfo::new(DType::F32, [Dim::fixed(1), Dim::symbol("c"), Dim::symbol("m")]);
        // A batch of 1 in a stale statement does not pin the dynamic batch.
        assert_eq!(supplement(&inferred, stated, "y"), inferred);
        let contradiction = ValueInfo::new(DType::F32, [batch, Dim::fixed(4), Dim::symbol("n")]);
        assert!(!inferred.is_compatible(&supplement(&inferred, contradiction, "y")));
        let unknown = ValueInfo::unshaped(DType::Unknown);
        let stated = ValueInfo::new(DType::F32, [Dim::fixed(1)]);
        assert_eq!(supplement(&unknown, stated.clone(), "y"), stated);
    }
}
