//! Inputs whose values are told beforehand: what reads them reads a constant.

use std::collections::BTreeMap;
use std::sync::Arc;

use trt_fuse_ir::eval::convert;
use trt_fuse_ir::op::Expand;
use trt_fuse_ir::{Builder, InputValues, Tensor, ValueInfo, ValueRef, numel};

use super::error::ImportError;
use super::model::Importer;
use super::names::NodeNames;
use super::note::ImportNote;

/// Refuses values of what is no input.
pub(super) fn check_names(values: &BTreeMap<String, InputValues>, inputs: &[&str]) -> Result<(), ImportError> {
    match values.keys().find(|name| !inputs.contains(&name.as_str())) {
        Some(name) => {
            let known = inputs.iter().map(|name| (*name).to_owned()).collect();
            Err(ImportError::NoSuchInput { name: name.clone(), known })
        }
        None => Ok(()),
    }
}

impl Importer<'_> {
    /// The constant that stands for an input of known values; `None` if too few are told.
    pub(super) fn fixed(
        &mut self,
        builder: &mut Builder,
        name: &str,
        info: &ValueInfo,
        values: &InputValues,
    ) -> Result<Option<ValueRef>, ImportError> {
        let known = constant(builder, &mut self.names, name, info, values)?;
        match (known, values) {
            (Some(_), _) => builder.fix(name, values.clone()),
            (None, InputValues::Each(told)) => {
                self.note(ImportNote::FewValues { input: name.to_owned(), told: told.len() });
            }
            (None, InputValues::All(_)) => {}
        }
        Ok(known)
    }
}

/// What stands for an input of known values; `None` if too few are told.
fn constant(
    builder: &mut Builder,
    names: &mut NodeNames,
    input: &str,
    info: &ValueInfo,
    values: &InputValues,
) -> Result<Option<ValueRef>, ImportError> {
    let refuse = |reason: String| ImportError::InputValues { input: input.to_owned(), reason };
    if info.dtype.is_float() {
        return Err(refuse(format!("it is {}, not of integers or booleans", info.dtype)));
    }
    let shape = info.shape.clone().ok_or_else(|| refuse("its rank is not known".to_owned()))?;
    let tensor = |dims: &[usize], elements: &[i64]| {
        let tensor = Tensor::from_vec(dims, elements.to_vec()).map_err(|why| refuse(why.to_string()))?;
        let tensor = convert(&tensor, info.dtype).map_err(&refuse)?;
        match tensor.to_i64s() {
            Some(held) if held == elements => Ok(tensor),
            Some(_) => Err(refuse(format!("{} holds no such numbers", info.dtype))),
            None => Err(refuse(format!("it is {}", info.dtype))),
        }
    };
    let mut name = |part: &str| -> Arc<str> { names.claim(&format!("{input}.{part}")) };
    match values {
        InputValues::All(element) => {
            let element = builder.constant(name("element"), tensor(&[], &[*element])?)?;
            Ok(Some(builder.op(name("known"), Expand { shape: Some(shape) }, &[element])?))
        }
        InputValues::Each(elements) => {
            let unknown = || refuse("the number of its elements is not known".to_owned());
            let dims = info.fixed_dims().ok_or_else(unknown)?;
            let count = numel(&dims).ok_or_else(unknown)?;
            if elements.len() > count {
                return Err(refuse(format!("{} elements are told, it has {count}", elements.len())));
            }
            if elements.len() < count {
                return Ok(None);
            }
            Ok(Some(builder.constant(name("known"), tensor(&dims, elements)?)?))
        }
    }
}
