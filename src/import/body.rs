//! Bodies of control flow: subgraphs to graphs whose captures are inputs.

use std::sync::Arc;

use trt_fuse_ir::op::Body;
use trt_fuse_ir::{Builder, Tensor, ValueInfo, ValueRef};

use super::error::ImportError;
use super::model::{STRINGS, add_initializer, output_value};
use super::node::{Fault, NodeContext};
use super::order::{Names, captures};
use super::proto::GraphProto;

/// What bodies take from outside. A constant is taken along, as its data is shared; other values become inputs.
pub(crate) struct Captured<'m> {
    values: Vec<(&'m str, ValueRef, ValueInfo)>,
    constants: Vec<(&'m str, Tensor)>,
    /// Optional inputs of a function that the call leaves out.
    absent: Vec<&'m str>,
}

impl Captured<'_> {
    /// The values, as inputs of the node.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = Option<ValueRef>> {
        self.values.iter().map(|captured| Some(captured.1))
    }
}

impl<'m> Captured<'m> {
    /// The same, with nothing known of the values but their types.
    pub(crate) fn unshaped(&self) -> Self {
        let unshaped =
            |(name, value, info): &(&'m str, ValueRef, ValueInfo)| (*name, *value, ValueInfo::unshaped(info.dtype));
        let values = self.values.iter().map(unshaped).collect();
        Self { values, constants: self.constants.clone(), absent: self.absent.clone() }
    }
}

impl<'m> NodeContext<'_, 'm> {
    /// What some bodies of the node take from outside, together.
    pub(crate) fn captured(&self, bodies: &[&'m GraphProto]) -> Result<Captured<'m>, ImportError> {
        let names: Names<'m> = bodies.iter().copied().flat_map(captures).collect();
        let mut captured = Captured { values: Vec::new(), constants: Vec::new(), absent: Vec::new() };
        for name in names {
            match self.scope.lookup(name) {
                None => return Err(ImportError::Dangling { value: name.to_owned() }),
                Some(None) => captured.absent.push(name),
                Some(Some(value)) => match self.builder.graph().constant(value) {
                    Some(tensor) => captured.constants.push((name, tensor.clone())),
                    None => captured.values.push((name, value, self.info(value))),
                },
            }
        }
        Ok(captured)
    }

    /// A body that the model does not write down: part of what the node means. `inputs` are names and types of its
    /// inputs; `write` adds its nodes and gives its outputs.
    pub(crate) fn own_body(
        &mut self,
        inputs: &[(&str, ValueInfo)],
        write: impl FnOnce(&mut Self, &[ValueRef]) -> Result<Vec<ValueRef>, Fault>,
    ) -> Result<Body, Fault> {
        let mut inner = Builder::new(&*self.name);
        let origin = inner.source(self.name.clone(), self.op_type);
        let values: Vec<ValueRef> =
            inputs.iter().map(|(name, info)| inner.input(format!("{}.{name}", self.name), info.clone())).collect();
        let outer = std::mem::replace(self.builder, inner);
        let outer_origin = std::mem::replace(&mut self.origin, origin);
        let outputs = write(self, &values);
        self.origin = outer_origin;
        let mut body = std::mem::replace(self.builder, outer);
        for (at, output) in outputs?.into_iter().enumerate() {
            body.output(format!("{}.{at}", self.name), output);
        }
        Ok(Body(Arc::new(body.finish())))
    }

    /// Imports a body. Its inputs are described by `inputs`, one each, and followed by what is captured.
    ///
    /// # Errors
    /// If it has another number of inputs or outputs, or something is wrong inside.
    pub(crate) fn body(
        &mut self,
        proto: &'m GraphProto,
        inputs: &[ValueInfo],
        outputs: usize,
        captured: &Captured<'m>,
    ) -> Result<Body, Fault> {
        let count = |what, found: usize, expected: usize| {
            let arity = || super::model::arity(what, found, expected.to_string());
            if found == expected { Ok(()) } else { Err(arity()) }
        };
        count("inputs of the body", proto.input.len(), inputs.len())?;
        count("outputs of the body", proto.output.len(), outputs)?;
        let mut builder = Builder::new(if proto.name.is_empty() { &*self.name } else { proto.name.as_str() });
        let mut scope = self.scope.body();
        scope.hint(&proto.value_info);
        scope.hint(&proto.output);
        scope.outputs = proto.output.iter().map(|output| output.name.as_str()).collect();
        for (input, info) in proto.input.iter().zip(inputs) {
            let name = input.name.as_str();
            let value = builder.input(scope.value_name(name), info.clone());
            if let Some(stated) = &input.r#type {
                self.importer.hint(&mut builder, value, name, stated, &format!("{}.{name}", self.name))?;
            }
            scope.define(name, Some(value))?;
        }
        // All bodies of a node have the same inputs; a name that this one does not read it may define itself.
        let read = captures(proto);
        for (name, _, info) in &captured.values {
            let value = builder.input(self.scope.value_name(name), info.clone());
            if read.contains(name) {
                scope.define(name, Some(value))?;
            }
        }
        for (name, tensor) in captured.constants.iter().filter(|captured| read.contains(captured.0)) {
            let value = add_initializer(&mut builder, &self.scope.value_name(name), Ok(tensor.clone()))?;
            scope.define(name, Some(value))?;
        }
        for name in captured.absent.iter().filter(|name| read.contains(**name)) {
            scope.define(name, None)?;
        }
        for tensor in proto.initializer.iter().filter(|tensor| !tensor.name.is_empty()) {
            let name = tensor.name.as_str();
            let data = match self.importer.tensors.read(tensor.clone(), name) {
                Err(ImportError::StringTensor { .. }) => Err(STRINGS),
                data => Ok(data?),
            };
            let value = add_initializer(&mut builder, &scope.value_name(name), data)?;
            scope.define(name, Some(value))?;
        }
        let importer = &mut *self.importer;
        importer.sparse_initializers(&mut builder, &proto.sparse_initializer, &mut scope)?;
        importer.deeper(|importer| importer.nodes(&proto.node, &mut builder, &mut scope))?;
        for output in &proto.output {
            let name = output.name.as_str();
            let value = output_value(&scope, name)?;
            builder.output(name, value.ok_or_else(|| ImportError::DanglingOutput { value: name.to_owned() })?);
        }
        Ok(Body(Arc::new(builder.finish())))
    }
}
