//! A node while it is imported: what an operator's importer reads, and how it adds to the graph.

use std::sync::Arc;

use smallvec::SmallVec;
use trt_fuse_ir::op::Constant;
use trt_fuse_ir::{Builder, DType, Dim, NewNode, Op, Origin, Tensor, ValueInfo, ValueRef};

use super::attrs::Attributes;
use super::error::ImportError;
use super::model::Importer;
use super::note::ImportNote;
use super::proto::TypeProto;
use super::scope::Scope;
use super::types::fixed_dims;

/// Why an operator's importer gave no values.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The model is wrong.
    Invalid(ImportError),
    /// The node has no typed form, for the reason given; it becomes opaque.
    Unsupported(String),
    /// The node has no typed form where an attribute has the value that it has; it becomes opaque.
    Attribute {
        /// The attribute.
        attribute: &'static str,
        /// Why, as a phrase.
        reason: String,
    },
}

impl Fault {
    /// No typed form for the value that an attribute has.
    pub(crate) fn attribute(attribute: &'static str, reason: impl Into<String>) -> Self {
        Self::Attribute { attribute, reason: reason.into() }
    }
}

impl<E: Into<ImportError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Invalid(error.into())
    }
}

/// Values of a node's outputs, in order; unused ones at the end may be missing.
pub(crate) type Outputs = SmallVec<[ValueRef; 1]>;

/// What an operator's importer gives.
pub(crate) type Imported = Result<Outputs, Fault>;

/// An output of the node.
#[derive(Debug)]
pub(crate) struct OutputName<'m> {
    /// Its name in the graph.
    pub name: Arc<str>,
    /// Whether anything reads it.
    pub used: bool,
    /// What the model states of it.
    pub stated: Option<&'m TypeProto>,
}

/// A node while it is imported.
pub(crate) struct NodeContext<'a, 'm> {
    /// The rest of the model.
    pub importer: &'a mut Importer<'m>,
    /// The graph that the node becomes part of.
    pub builder: &'a mut Builder,
    /// The names that the node sees.
    pub scope: &'a Scope<'m>,
    /// Its attributes.
    pub attrs: Attributes<'m>,
    /// Version of its operator set; 0 for a domain without one.
    pub opset: i64,
    /// Its type.
    pub op_type: &'m str,
    /// Its name, unique.
    pub name: Arc<str>,
    /// The node of the model that it is.
    pub origin: Origin,
    /// Its inputs; `None` for one left out.
    pub inputs: SmallVec<[Option<ValueRef>; 4]>,
    /// Its outputs.
    pub outputs: Vec<OutputName<'m>>,
}

impl NodeContext<'_, '_> {
    /// An input that may be left out.
    pub(crate) fn input(&self, slot: usize) -> Option<ValueRef> {
        self.inputs.get(slot).copied().flatten()
    }

    /// An input that must be there.
    pub(crate) fn required(&self, slot: usize) -> Result<ValueRef, Fault> {
        self.input(slot).ok_or(Fault::Invalid(ImportError::MissingInput { slot }))
    }

    /// What is known of a value.
    pub(crate) fn info(&self, value: ValueRef) -> ValueInfo {
        self.builder.graph().info(value).cloned().unwrap_or_else(|| ValueInfo::unshaped(DType::Unknown))
    }

    /// What is known of an input that must be there.
    pub(crate) fn input_info(&self, slot: usize) -> Result<ValueInfo, Fault> {
        Ok(self.info(self.required(slot)?))
    }

    /// Number of dimensions of an input that must be there.
    ///
    /// # Errors
    /// Unsupported if inference does not know it.
    pub(crate) fn rank(&self, slot: usize) -> Result<usize, Fault> {
        let rank = self.input_info(slot)?.rank();
        rank.ok_or_else(|| Fault::Unsupported(format!("the rank of input {slot} is not known")))
    }

    /// Element type of an input that must be there.
    ///
    /// # Errors
    /// Unsupported if inference does not know it.
    pub(crate) fn dtype(&self, slot: usize) -> Result<DType, Fault> {
        match self.input_info(slot)?.dtype {
            DType::Unknown => Err(Fault::Unsupported(format!("the element type of input {slot} is not known"))),
            dtype => Ok(dtype),
        }
    }

    /// The data of an input that is a constant.
    pub(crate) fn constant(&self, slot: usize) -> Option<Tensor> {
        self.info(self.input(slot)?).as_constant().cloned()
    }

    /// The elements of an input that is a constant of integers.
    pub(crate) fn constant_ints(&self, slot: usize) -> Option<Vec<i64>> {
        self.constant(slot)?.to_i64s()
    }

    /// The dimensions that the model states of an output, if all are numbers. They stand for what is known only at run
    /// time, which is noted.
    pub(crate) fn stated_dims(&mut self, output: usize) -> Option<Vec<Dim>> {
        let output = self.outputs.get(output)?;
        let dims = fixed_dims(output.stated?)?;
        let sizes: Vec<String> = dims.iter().map(Dim::to_string).collect();
        self.importer.note(ImportNote::StatedShape {
            node: self.name.to_string(),
            op: self.op_type.to_owned(),
            output: output.name.to_string(),
            shape: format!("[{}]", sizes.join(", ")),
        });
        Some(dims)
    }

    /// Whether anything reads an output.
    pub(crate) fn is_used(&self, output: usize) -> bool {
        self.outputs.get(output).is_some_and(|output| output.used)
    }

    /// Adds the node as one operator, with the outputs up to the last one used.
    pub(crate) fn emit(&mut self, op: impl Into<Op>, inputs: impl IntoIterator<Item = Option<ValueRef>>) -> Imported {
        let used = self.outputs.iter().rposition(|output| output.used).map_or(1, |last| last + 1);
        self.emit_outputs(op, inputs, used)
    }

    /// Adds the node as one operator, with all of its outputs.
    pub(crate) fn emit_all(
        &mut self,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = Option<ValueRef>>,
    ) -> Imported {
        self.emit_outputs(op, inputs, self.outputs.len())
    }

    fn emit_outputs(
        &mut self,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = Option<ValueRef>>,
        outputs: usize,
    ) -> Imported {
        let names = self.outputs.iter().take(outputs).map(|output| output.name.clone()).collect();
        let name = self.name.clone();
        self.add(op.into(), inputs.into_iter().collect(), name, names)
    }

    /// Adds the node as one operator of its first `inputs` inputs.
    pub(crate) fn emit_same(&mut self, op: impl Into<Op>) -> Imported {
        let inputs = self.inputs.clone();
        self.emit(op, inputs)
    }

    /// Adds an operator that is part of what the node means; its name is the node's and `part`.
    pub(crate) fn helper(
        &mut self,
        part: &str,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = ValueRef>,
    ) -> Result<ValueRef, Fault> {
        let values = self.helper_many(part, op, inputs, 1)?;
        values.first().copied().ok_or_else(|| Fault::Unsupported("it has no output".to_owned()))
    }

    /// Adds one of the operators that the node becomes. Each of its values is an output of the node, or has a name of
    /// its own.
    pub(crate) fn part(
        &mut self,
        part: &str,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = Option<ValueRef>>,
        slots: &[Option<usize>],
    ) -> Imported {
        let inner = self.importer.names.claim(&format!("{}.{part}", self.name));
        let output = |slot: &Option<usize>| slot.and_then(|slot| self.outputs.get(slot));
        let names = slots.iter().map(|slot| output(slot).map_or(inner.clone(), |output| output.name.clone())).collect();
        let name = if slots.contains(&Some(0)) { self.name.clone() } else { inner };
        self.add(op.into(), inputs.into_iter().collect(), name, names)
    }

    /// As [`helper`](Self::helper), an operator of several outputs.
    pub(crate) fn helper_many(
        &mut self,
        part: &str,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = ValueRef>,
        outputs: usize,
    ) -> Imported {
        let name = self.importer.names.claim(&format!("{}.{part}", self.name));
        let outputs = SmallVec::from_elem(name.clone(), outputs);
        self.add(op.into(), inputs.into_iter().map(Some).collect(), name, outputs)
    }

    /// Adds an operator that gives one of the node's outputs, and takes its name.
    pub(crate) fn result(
        &mut self,
        output: usize,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = ValueRef>,
    ) -> Result<ValueRef, Fault> {
        let missing = || Fault::Unsupported("it has no output".to_owned());
        let value = self.outputs.get(output).ok_or_else(missing)?.name.clone();
        let name = self.importer.names.claim(&format!("{}.{output}", self.name));
        let values = self.add(op.into(), inputs.into_iter().map(Some).collect(), name, SmallVec::from_iter([value]))?;
        values.first().copied().ok_or_else(missing)
    }

    /// Adds a constant that is part of what the node means.
    pub(crate) fn constant_part(&mut self, part: &str, value: Tensor) -> Result<ValueRef, Fault> {
        self.helper(part, Constant { value }, [])
    }

    /// Adds a number as a constant of rank 0.
    ///
    /// # Errors
    /// Unsupported for types that have no such number.
    pub(crate) fn scalar_part(&mut self, part: &str, dtype: DType, value: f64) -> Result<ValueRef, Fault> {
        let tensor = Tensor::number(dtype, value)
            .ok_or_else(|| Fault::Unsupported(format!("the number {value} has no form in {dtype}")))?;
        self.constant_part(part, tensor)
    }

    /// Adds integers as a constant vector.
    pub(crate) fn ints_part(&mut self, part: &str, values: &[i64]) -> Result<ValueRef, Fault> {
        self.constant_part(part, Tensor::vector(values.to_vec()))
    }

    /// Adds an operator under a name that is taken, with outputs of these names.
    pub(crate) fn add(
        &mut self,
        op: Op,
        mut inputs: Vec<Option<ValueRef>>,
        name: Arc<str>,
        outputs: SmallVec<[Arc<str>; 1]>,
    ) -> Imported {
        // Optional inputs left out at the end are no slots.
        let (least, _) = op.arity();
        while inputs.len() > least && inputs.last() == Some(&None) {
            inputs.pop();
        }
        let count = outputs.len() as u32;
        let node = self.builder.node(NewNode { op, inputs, name, outputs, origin: self.origin.clone() })?;
        Ok((0..count).map(|slot| ValueRef { node, slot }).collect())
    }
}

/// Indices as a tensor; `None` if the type is none of indices or does not hold them.
pub(crate) fn index_tensor(dtype: DType, dims: &[usize], values: &[i64]) -> Option<Tensor> {
    match dtype {
        DType::I64 => Tensor::from_vec(dims, values.to_vec()).ok(),
        DType::I32 => {
            let values = values.iter().map(|value| i32::try_from(*value)).collect::<Result<Vec<_>, _>>();
            Tensor::from_vec(dims, values.ok()?).ok()
        }
        _ => None,
    }
}
