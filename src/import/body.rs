//! Bodies of control flow: subgraphs to graphs whose captures are inputs.

use std::sync::Arc;

use trt_fuse_ir::op::{Body, Reshape};
use trt_fuse_ir::{Builder, Shape, Tensor, ValueInfo, ValueRef};

use super::error::ImportError;
use super::model::{STRINGS, add_initializer, output_value};
use super::node::{Fault, Imported, NodeContext};
use super::order::{Names, captures};
use super::proto::GraphProto;
use super::scope::Scope;

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

    /// Imports the nodes of a body without inputs into the graph around it. Its outputs are the node's.
    pub(crate) fn inline(&mut self, proto: &'m GraphProto) -> Imported {
        expect_count("outputs of the body", proto.output.len(), self.outputs.len())?;
        let mut scope = self.scope.body();
        for (inner, outer) in proto.output.iter().zip(&self.outputs) {
            scope.aliases.insert(inner.name.as_str(), outer.name.clone());
            if outer.used {
                scope.outputs.insert(inner.name.as_str());
            }
        }
        self.inline_in(scope, proto, &[])
    }

    /// Imports the nodes of a body into the graph around it, on values of that graph.
    pub(crate) fn inline_on(&mut self, proto: &'m GraphProto, inputs: &[ValueRef]) -> Imported {
        let mut scope = self.scope.body();
        scope.outputs = proto.output.iter().map(|output| output.name.as_str()).collect();
        self.inline_in(scope, proto, inputs)
    }

    fn inline_in(&mut self, mut scope: Scope<'m>, proto: &'m GraphProto, inputs: &[ValueRef]) -> Imported {
        expect_count("inputs of the body", proto.input.len(), inputs.len())?;
        scope.hint(&proto.value_info);
        scope.hint(&proto.output);
        for (input, value) in proto.input.iter().zip(inputs) {
            scope.define(input.name.as_str(), Some(*value))?;
        }
        for name in captures(proto) {
            let value = self.scope.lookup(name).ok_or_else(|| ImportError::Dangling { value: name.to_owned() })?;
            scope.define(name, value)?;
        }
        self.initializers(proto, &mut scope)?;
        let builder = &mut *self.builder;
        self.importer.deeper(|importer| importer.nodes(&proto.node, builder, &mut scope))?;
        output_values(proto, &scope).collect::<Result<_, _>>().map_err(Fault::Invalid)
    }

    /// Adds a body's initializers.
    fn initializers(&mut self, proto: &'m GraphProto, scope: &mut Scope<'m>) -> Result<(), ImportError> {
        for tensor in proto.initializer.iter().filter(|tensor| !tensor.name.is_empty()) {
            let name = tensor.name.as_str();
            let data = match self.importer.tensors.read(tensor.clone(), name) {
                Err(ImportError::StringTensor { .. }) => Err(STRINGS),
                data => Ok(data?),
            };
            let value = add_initializer(self.builder, &scope.value_name(name), data)?;
            scope.define(name, Some(value))?;
        }
        self.importer.sparse_initializers(self.builder, &proto.sparse_initializer, scope)
    }

    /// Imports a body. Its inputs are described by `inputs`, one each, and followed by what is captured. Outputs below `scalars`
    /// that are vectors of one element become scalars.
    ///
    /// # Errors
    /// If it has another number of inputs or outputs, or something is wrong inside.
    pub(crate) fn body(
        &mut self,
        proto: &'m GraphProto,
        inputs: &[ValueInfo],
        outputs: usize,
        scalars: usize,
        captured: &Captured<'m>,
    ) -> Result<Body, Fault> {
        expect_count("inputs of the body", proto.input.len(), inputs.len())?;
        expect_count("outputs of the body", proto.output.len(), outputs)?;
        let mut builder = Builder::new(if proto.name.is_empty() { &*self.name } else { proto.name.as_str() });
        let mut scope = self.scope.body();
        scope.hint(&proto.value_info);
        scope.hint(&proto.output);
        scope.outputs = proto.output.iter().map(|output| output.name.as_str()).collect();
        for (input, info) in proto.input.iter().zip(inputs) {
            let name = input.name.as_str();
            let value = builder.input(scope.value_name(name), info.clone());
            if let Some(stated) = &input.r#type {
                let label = format!("{}.{name}", self.name);
                self.importer.statement(&mut builder, value, (name, false), stated, &label)?;
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
        let outer = std::mem::replace(self.builder, builder);
        let imported = self.initializers(proto, &mut scope).and_then(|()| {
            let builder = &mut *self.builder;
            self.importer.deeper(|importer| importer.nodes(&proto.node, builder, &mut scope))
        });
        let mut builder = std::mem::replace(self.builder, outer);
        imported?;
        for (at, (output, value)) in proto.output.iter().zip(output_values(proto, &scope)).enumerate() {
            let mut value = value?;
            if at < scalars
                && builder.graph().info(value).and_then(ValueInfo::fixed_dims).is_some_and(|dims| dims[..] == [1])
            {
                let name = format!("{}.{}.scalar", self.name, output.name);
                value = builder.op(name, Reshape { shape: Some(Shape::new()), allow_zero: false }, &[value])?;
            }
            builder.output(output.name.as_str(), value);
        }
        Ok(Body(Arc::new(builder.finish())))
    }
}

fn expect_count(what: &'static str, found: usize, expected: usize) -> Result<(), ImportError> {
    let arity = || super::model::arity(what, found, expected.to_string());
    if found == expected { Ok(()) } else { Err(arity()) }
}

/// The values of a body's outputs.
fn output_values<'a>(
    proto: &'a GraphProto,
    scope: &'a Scope<'_>,
) -> impl Iterator<Item = Result<ValueRef, ImportError>> + 'a {
    proto.output.iter().map(|output| {
        let value = output_value(scope, &output.name)?;
        value.ok_or_else(|| ImportError::DanglingOutput { value: output.name.clone() })
    })
}
