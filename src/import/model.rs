//! Models to graphs: initializers, inputs, lists of nodes, local functions, outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use trt_fuse_ir::op::{Constant, Opaque};
use trt_fuse_ir::{Builder, Graph, InputValues, NewNode, Origin, Tensor, ValueRef};

use super::ImportOptions;
use super::attrs::Attributes;
use super::error::{ImportError, qualified, show};
use super::external::ExternalFiles;
use super::given;
use super::limits::{Limits, check};
use super::names::NodeNames;
use super::node::{Fault, Imported, NodeContext, OutputName};
use super::note::ImportNote;
use super::ops;
use super::order::{Plan, plan};
use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, TypeProto,
};
use super::scope::{Bindings, Opsets, Scope, domain};
use super::tensor::TensorReader;
use super::types::{Symbols, supplement};

/// Levels of bodies that may be imported twice.
const RETRY_DEPTH: usize = 3;

/// Domain, name and overload of a local function.
type FunctionKey<'m> = (&'m str, &'m str, &'m str);

/// What all graphs of a model share while they are imported.
pub(crate) struct Importer<'m> {
    /// Bounds.
    pub limits: Limits,
    /// Names of nodes.
    pub names: NodeNames,
    /// Names of dimensions.
    pub symbols: Symbols,
    /// What is told of inputs.
    values: &'m BTreeMap<String, InputValues>,
    /// Reads tensors.
    pub tensors: TensorReader,
    notes: Vec<ImportNote>,
    /// Values other than outputs whose stated shapes were dropped.
    contradicted: FxHashSet<String>,
    functions: FxHashMap<FunctionKey<'m>, &'m FunctionProto>,
    /// Functions being inlined, outermost first.
    calls: Vec<FunctionKey<'m>>,
    /// Subgraphs and calls open.
    depth: usize,
    nodes: u64,
    inlined_bytes: u64,
}

/// An initializer's name and data; no data for strings, which stay opaque.
type Initializer = (String, Option<Tensor>);

/// The graph of a model, and what its user should know of it.
///
/// # Errors
/// What is wrong with the model.
pub(crate) fn import(
    model: &mut ModelProto,
    opsets: Opsets,
    external: ExternalFiles,
    options: &ImportOptions,
) -> Result<(Graph, Vec<ImportNote>), ImportError> {
    let limits = options.limits;
    let mut tensors = TensorReader::new(limits, external);
    // Taken by value, so that data in typed fields is not copied.
    let taken = model.graph.as_mut().map(|graph| std::mem::take(&mut graph.initializer)).unwrap_or_default();
    let initializers: Vec<Initializer> =
        taken.into_iter().map(|proto| read_initializer(proto, &mut tensors)).collect::<Result<_, _>>()?;
    let graph = model.graph.as_ref().ok_or(ImportError::NoGraph)?;
    let importer = Importer {
        limits,
        names: NodeNames::default(),
        symbols: Symbols::of(&graph.input, &options.sizes),
        values: &options.values,
        tensors,
        notes: Vec::new(),
        contradicted: FxHashSet::default(),
        functions: functions(&model.functions)?,
        calls: Vec::new(),
        depth: 0,
        nodes: 0,
        inlined_bytes: 0,
    };
    importer.graph(graph, &initializers, opsets)
}

fn read_initializer(proto: TensorProto, tensors: &mut TensorReader) -> Result<Initializer, ImportError> {
    let name = proto.name.clone();
    match tensors.read(proto, "") {
        Ok(tensor) => Ok((name, Some(tensor))),
        Err(ImportError::StringTensor { .. }) => Ok((name, None)),
        Err(error) => Err(error),
    }
}

fn functions(protos: &[FunctionProto]) -> Result<FxHashMap<FunctionKey<'_>, &FunctionProto>, ImportError> {
    let mut functions = FxHashMap::default();
    for function in protos {
        let key = (domain(&function.domain), function.name.as_str(), function.overload.as_str());
        if functions.insert(key, function).is_some() {
            return Err(ImportError::DuplicateFunction { function: function_name(key) });
        }
    }
    Ok(functions)
}

fn function_name((domain, name, overload): FunctionKey<'_>) -> String {
    let name = qualified(domain, name);
    if overload.is_empty() { name } else { format!("{name}:{overload}") }
}

/// Adds a value that no node computes: data, or something opaque without it.
pub(crate) fn add_initializer(
    builder: &mut Builder,
    name: &str,
    tensor: Result<Tensor, &str>,
) -> Result<ValueRef, ImportError> {
    let op = match tensor {
        Ok(value) => Constant { value }.into(),
        Err(reason) => {
            let (domain, op_type) = (String::new(), "Constant".to_owned());
            Opaque { domain, op_type, opset: 0, reason: reason.to_owned(), attribute: None, attrs: Vec::new() }.into()
        }
    };
    let (name, origin): (Arc<str>, _) = (name.into(), Origin::default());
    let outputs = SmallVec::from_iter([name.clone()]);
    Ok(builder.node(NewNode { op, inputs: Vec::new(), name, outputs, origin })?.into())
}

/// Why tensors of strings stay opaque.
pub(crate) const STRINGS: &str = "tensors of strings have no form in a network";
/// Why sparse tensors stay opaque.
pub(crate) const SPARSE: &str = "sparse tensors are not read";

/// The value of an output of a graph, body or function.
pub(crate) fn output_value(scope: &Scope<'_>, name: &str) -> Result<Option<ValueRef>, ImportError> {
    scope.lookup(name).ok_or_else(|| ImportError::DanglingOutput { value: name.to_owned() })
}

impl<'m> Importer<'m> {
    fn graph(
        mut self,
        proto: &'m GraphProto,
        initializers: &'m [Initializer],
        opsets: Opsets,
    ) -> Result<(Graph, Vec<ImportNote>), ImportError> {
        if proto.output.is_empty() {
            return Err(ImportError::NoOutputs);
        }
        let mut builder = Builder::new(proto.name.as_str());
        let mut scope = Scope::new(Rc::new(opsets));
        scope.hint(&proto.value_info);
        scope.hint_outputs(&proto.output);
        scope.outputs = proto.output.iter().map(|output| output.name.as_str()).collect();
        for (name, tensor) in initializers.iter().filter(|initializer| !initializer.0.is_empty()) {
            let value = add_initializer(&mut builder, name, tensor.clone().ok_or(STRINGS))?;
            scope.define(name, Some(value))?;
        }
        self.sparse_initializers(&mut builder, &proto.sparse_initializer, &mut scope)?;
        self.inputs(&mut builder, proto, &mut scope)?;
        self.nodes(&proto.node, &mut builder, &mut scope)?;
        let mut named = FxHashSet::default();
        for output in &proto.output {
            let name = output.name.as_str();
            if !named.insert(name) {
                return Err(ImportError::DuplicateValue { value: name.to_owned() });
            }
            let value = output_value(&scope, name)?;
            builder.output(name, value.ok_or_else(|| ImportError::DanglingOutput { value: name.to_owned() })?);
        }
        Ok((builder.finish(), self.notes))
    }

    /// Keeps a note, once: a body may be imported more than once.
    pub(crate) fn note(&mut self, note: ImportNote) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds the inputs of the main graph. One that is also an initializer is that constant: a network has nobody to
    /// give it another value.
    fn inputs(
        &mut self,
        builder: &mut Builder,
        proto: &'m GraphProto,
        scope: &mut Scope<'m>,
    ) -> Result<(), ImportError> {
        let mut named = FxHashSet::default();
        let mut dimensions = BTreeSet::new();
        let mut inputs = Vec::new();
        for input in &proto.input {
            let name = input.name.as_str();
            if !named.insert(name) {
                return Err(ImportError::DuplicateValue { value: name.to_owned() });
            }
            let stated = input.r#type.as_ref().ok_or_else(|| ImportError::NoType { tensor: name.to_owned() })?;
            match scope.lookup(name).flatten() {
                Some(_) if self.values.contains_key(name) => {
                    let reason = "the model has a value for it, which is taken: it is no input of a network".to_owned();
                    return Err(ImportError::InputValues { input: name.to_owned(), reason });
                }
                Some(constant) => self.hint(builder, constant, name, stated, name)?,
                None => {
                    let info = self.symbols.input(stated, name, &self.limits)?;
                    for dim in info.shape.iter().flatten() {
                        dim.visit_symbols(&mut |name| {
                            dimensions.insert(name.to_string());
                        });
                    }
                    let info = self.symbols.sized(info);
                    let input = builder.input(name, info.clone());
                    let known = match self.values.get(name) {
                        Some(values) => self.fixed(builder, name, &info, values)?,
                        None => None,
                    };
                    scope.define(name, Some(known.unwrap_or(input)))?;
                    inputs.push(name);
                }
            }
        }
        given::check_names(self.values, &inputs)?;
        self.symbols.check_sizes(&dimensions)
    }

    /// Adds initializers of a form that is not read, as opaque values.
    pub(crate) fn sparse_initializers(
        &mut self,
        builder: &mut Builder,
        tensors: &'m [SparseTensorProto],
        scope: &mut Scope<'m>,
    ) -> Result<(), ImportError> {
        for name in tensors.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name.as_str())) {
            let value = add_initializer(builder, name, Err(SPARSE))?;
            scope.define(name, Some(value))?;
        }
        Ok(())
    }

    /// Adds a list of nodes and defines their outputs.
    ///
    /// # Errors
    /// What is wrong with one of them, naming it.
    pub(crate) fn nodes(
        &mut self,
        nodes: &'m [NodeProto],
        builder: &mut Builder,
        scope: &mut Scope<'m>,
    ) -> Result<(), ImportError> {
        let plan = plan(nodes, scope)?;
        for node in plan.order.iter().filter_map(|at| nodes.get(*at)) {
            self.node(node, &plan, builder, scope).map_err(|error| error.at(node))?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        node: &'m NodeProto,
        plan: &Plan<'m>,
        builder: &mut Builder,
        scope: &mut Scope<'m>,
    ) -> Result<(), ImportError> {
        self.count(node, scope)?;
        if node.op_type.is_empty() {
            return Err(ImportError::NoOpType);
        }
        if node.output.is_empty() {
            return Err(arity("outputs", 0, "at least 1".to_owned()));
        }
        let value = |name: &String| match name.as_str() {
            "" => Ok(None),
            name => scope.lookup(name).ok_or_else(|| ImportError::Dangling { value: name.to_owned() }),
        };
        let inputs: SmallVec<[Option<ValueRef>; 4]> = node.input.iter().map(value).collect::<Result<_, _>>()?;
        let attrs = Attributes::of(node, &scope.bindings)?;
        let name = self.names.claim(&wanted_name(node, plan, scope));
        let is_used = |name: &str| plan.read.contains(name) || scope.outputs.contains(name);
        let key = (domain(&node.domain), node.op_type.as_str(), node.overload.as_str());
        if let Some(function) = self.functions.get(&key).copied() {
            let call = Call { key, function, node, name, inputs, attrs, is_used: &is_used };
            let label = call.name.clone();
            let values = self.call(call, builder, scope)?;
            return self.define_outputs(node, &label, values, builder, scope);
        }
        let output = |(at, output): (usize, &String)| OutputName {
            name: if output.is_empty() { format!("{name}.{at}").into() } else { scope.value_name(output) },
            used: is_used(output),
            stated: scope.hints.get(output.as_str()).copied(),
        };
        let opset = scope.opsets.version(key.0);
        if opset.is_none() && key.0.is_empty() {
            return Err(ImportError::NoOpset);
        }
        let mut context = NodeContext {
            origin: builder.source(name.clone(), qualified(&node.domain, &node.op_type)),
            outputs: node.output.iter().enumerate().map(output).collect(),
            opset: opset.unwrap_or(0),
            op_type: &node.op_type,
            importer: self,
            builder,
            scope,
            attrs,
            name,
            inputs,
        };
        let values = match known(&mut context, key.0) {
            Ok(values) => values,
            Err(Fault::Invalid(error)) => return Err(error),
            Err(Fault::Unsupported(reason)) => opaque(&mut context, node, reason, None)?,
            Err(Fault::Attribute { attribute, reason }) => opaque(&mut context, node, reason, Some(attribute))?,
        };
        let label = context.name;
        self.define_outputs(node, &label, values.into_iter().map(Some), builder, scope)
    }

    /// Names the values of a node and takes in what the model states of them.
    fn define_outputs(
        &mut self,
        node: &'m NodeProto,
        label: &str,
        values: impl IntoIterator<Item = Option<ValueRef>>,
        builder: &mut Builder,
        scope: &mut Scope<'m>,
    ) -> Result<(), ImportError> {
        for (slot, (name, value)) in
            node.output.iter().zip(values).enumerate().filter(|(_, (name, _))| !name.is_empty())
        {
            scope.define(name, value)?;
            if let (Some(value), Some(stated)) = (value, scope.hints.get(name.as_str())) {
                let label = format!("{label}.{slot}");
                let is_output = scope.declared.contains(name.as_str());
                self.statement(builder, value, (name, is_output), stated, &label)?;
            }
        }
        Ok(())
    }

    /// Takes in what the model states of a value, where inference says nothing. Symbols made up for it start with
    /// `label`.
    pub(crate) fn hint(
        &mut self,
        builder: &mut Builder,
        value: ValueRef,
        name: &str,
        stated: &TypeProto,
        label: &str,
    ) -> Result<(), ImportError> {
        let stated = match self.symbols.stated(stated, name, label, &self.limits) {
            // A statement of the shape alone.
            Err(ImportError::DataType { code: 0, .. }) => return Ok(()),
            stated => stated?,
        };
        let Some(inferred) = builder.graph().info(value) else { return Ok(()) };
        let stated = supplement(inferred, stated, builder.graph().node_name(value.node));
        Ok(builder.hint(value, &stated)?)
    }

    /// Takes in what the model states of what a node gives, or a body takes. A shape that contradicts inference is dropped,
    /// as onnxruntime does: exporters and those who edit models forget it, and no node reads it.
    pub(crate) fn statement(
        &mut self,
        builder: &mut Builder,
        value: ValueRef,
        (name, is_output): (&str, bool),
        declared: &TypeProto,
        label: &str,
    ) -> Result<(), ImportError> {
        let taken = self.hint(builder, value, name, declared, label);
        let Err(ImportError::Contradiction { inferred, stated, .. }) = &taken else { return taken };
        let dtype = self.symbols.stated(declared, name, label, &self.limits)?.dtype;
        if builder.graph().info(value).is_none_or(|info| info.dtype != dtype) {
            return taken;
        }
        let (name, inferred, stated) = (name.to_owned(), inferred.clone(), stated.clone());
        if is_output {
            self.note(ImportNote::OutputShape { output: name, stated, inferred });
            return Ok(());
        }
        let is_new = self.contradicted.insert(name.clone());
        let earlier = self.notes.iter_mut().find_map(|note| match note {
            ImportNote::ValueShape { others, .. } => Some(others),
            _ => None,
        });
        match earlier {
            Some(others) => *others += usize::from(is_new),
            None => self.note(ImportNote::ValueShape { tensor: name, stated, inferred, others: 0 }),
        }
        Ok(())
    }

    /// Counts a node against the limits.
    fn count(&mut self, node: &NodeProto, scope: &Scope<'_>) -> Result<(), ImportError> {
        self.nodes += 1;
        check(self.nodes, self.limits.max_nodes as u64, || "nodes, functions inlined".to_owned())?;
        if !self.calls.is_empty() {
            let names = scope.prefix.len().saturating_mul(node.output.len() + 1);
            let bytes = names + node.attribute.iter().map(attribute_bytes).sum::<usize>();
            self.inlined_bytes = self.inlined_bytes.saturating_add(bytes as u64);
            let limit = self.limits.max_inlined_bytes as u64;
            check(self.inlined_bytes, limit, || "bytes of inlined functions".to_owned())?;
        }
        Ok(())
    }

    /// Whether a body may be imported twice. Each level that does so doubles the work of those inside.
    pub(crate) fn may_retry(&self) -> bool {
        self.depth < RETRY_DEPTH
    }

    /// Runs `inside` one level deeper.
    ///
    /// # Errors
    /// If that is too deep, and those of `inside`.
    pub(crate) fn deeper<T, E: From<ImportError>>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let depth = self.depth + 1;
        check(depth as u64, self.limits.max_depth as u64, || "depth of subgraphs and calls".to_owned())?;
        self.depth = depth;
        let result = inside(self);
        self.depth = depth - 1;
        result
    }

    /// Inlines a call of a local function and gives the values of its outputs.
    fn call(
        &mut self,
        call: Call<'_, 'm>,
        builder: &mut Builder,
        scope: &Scope<'m>,
    ) -> Result<Vec<Option<ValueRef>>, ImportError> {
        let Call { key, function, node, name, inputs, attrs, is_used } = call;
        if self.calls.contains(&key) {
            return Err(ImportError::RecursiveFunction { function: function_name(key) });
        }
        let (takes, gives) = (function.input.len(), function.output.len());
        if inputs.len() > takes {
            return Err(arity("inputs", inputs.len(), format!("at most {takes}")));
        }
        if node.output.len() > gives {
            return Err(arity("outputs", node.output.len(), format!("at most {gives}")));
        }
        let mut inner = Scope::new(Rc::new(Opsets::read(&function.opset_import)?.or(&scope.opsets)));
        inner.prefix = format!("{name}/").into();
        inner.bindings = Rc::new(bindings(function, &attrs)?);
        inner.hint(&function.value_info);
        let given = inputs.iter().copied().chain(std::iter::repeat(None));
        for (formal, value) in function.input.iter().zip(given) {
            inner.define(formal, value)?;
        }
        for (formal, actual) in function.output.iter().zip(&node.output).filter(|(_, actual)| !actual.is_empty()) {
            inner.aliases.insert(formal, scope.value_name(actual));
            if is_used(actual) {
                inner.outputs.insert(formal);
            }
        }
        self.calls.push(key);
        let result = self.deeper(|importer| importer.nodes(&function.node, builder, &mut inner));
        self.calls.pop();
        result?;
        // An unused output may have been left out of its node.
        let value = |(formal, actual): (&String, &String)| match output_value(&inner, formal) {
            Err(_) if !is_used(actual) => Ok(None),
            value => value,
        };
        function.output.iter().zip(&node.output).map(value).collect()
    }
}

/// A call of a local function.
struct Call<'a, 'm> {
    key: FunctionKey<'m>,
    function: &'m FunctionProto,
    node: &'m NodeProto,
    name: Arc<str>,
    inputs: SmallVec<[Option<ValueRef>; 4]>,
    attrs: Attributes<'m>,
    /// Whether anything reads an output of the call.
    is_used: &'a dyn Fn(&str) -> bool,
}

/// The values of a function's attributes: those of the call, else the defaults.
fn bindings<'m>(function: &'m FunctionProto, attrs: &Attributes<'m>) -> Result<Bindings<'m>, ImportError> {
    let mut bindings: Bindings<'m> =
        function.attribute_proto.iter().map(|attribute| (attribute.name.as_str(), attribute)).collect();
    let known: FxHashSet<&str> =
        function.attribute.iter().map(String::as_str).chain(bindings.keys().copied()).collect();
    for (name, value) in attrs.iter() {
        if !known.contains(name) {
            return Err(super::attrs::fault(name, "the function has no such attribute"));
        }
        bindings.insert(name, value);
    }
    Ok(bindings)
}

/// The name that a node asks for: its own, or one made of its first output.
fn wanted_name(node: &NodeProto, plan: &Plan<'_>, scope: &Scope<'_>) -> String {
    if !node.name.is_empty() {
        return format!("{}{}", scope.prefix, node.name);
    }
    match node.output.iter().find(|name| !name.is_empty()) {
        // The names that the model gives go first.
        Some(output) if !plan.node_names.contains(output.as_str()) => format!("{}{output}", scope.prefix),
        Some(output) => format!("{}{output}.{}", scope.prefix, node.op_type),
        None => format!("{}{}", scope.prefix, node.op_type),
    }
}

/// Adds the node in its typed form.
fn known(context: &mut NodeContext<'_, '_>, domain: &str) -> Imported {
    if !ops::DOMAINS.contains(&domain) {
        return Err(Fault::Unsupported(format!("no operator of domain `{}` is known", show(domain))));
    }
    let Some(row) = ops::find(domain, context.op_type) else {
        return Err(Fault::Unsupported("no form in a network is known for it".to_owned()));
    };
    let (inputs, outputs) = (context.inputs.len(), context.outputs.len());
    if inputs < row.inputs.0 || inputs > row.inputs.1 {
        return Err(arity("inputs", inputs, row.expected_inputs()).into());
    }
    if outputs > row.outputs {
        return Err(arity("outputs", outputs, format!("at most {}", row.outputs)).into());
    }
    if let Some(slot) = context.inputs.iter().take(row.inputs.0).position(Option::is_none) {
        return Err(ImportError::MissingInput { slot }.into());
    }
    let values = (row.import)(context)?;
    context.attrs.expect_no_more()?;
    Ok(values)
}

/// Adds the node without a typed form. What its subgraphs take from outside becomes inputs after its own.
fn opaque<'m>(
    context: &mut NodeContext<'_, 'm>,
    node: &'m NodeProto,
    reason: String,
    attribute: Option<&str>,
) -> Result<SmallVec<[ValueRef; 1]>, ImportError> {
    let op = Opaque {
        domain: domain(&node.domain).to_owned(),
        op_type: node.op_type.clone(),
        opset: context.opset,
        reason,
        attribute: attribute.map(str::to_owned),
        attrs: context.attrs.printed(),
    };
    let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    let captured = graphs.flat_map(super::order::captures).filter_map(|name| context.scope.lookup(name).flatten());
    let mut inputs = context.inputs.clone();
    inputs.extend(captured.map(Some));
    match context.emit_all(op, inputs) {
        Ok(values) => Ok(values),
        Err(Fault::Invalid(error)) => Err(error),
        Err(Fault::Unsupported(reason) | Fault::Attribute { reason, .. }) => Err(ImportError::Operands { reason }),
    }
}

pub(crate) fn arity(what: &'static str, found: usize, expected: String) -> ImportError {
    ImportError::Arity { what, found, expected }
}

/// Bytes that an attribute takes once more each time its function is inlined; raw data is shared.
fn attribute_bytes(attribute: &AttributeProto) -> usize {
    let tensor = |tensor: &TensorProto| {
        8 * (tensor.dims.len() + tensor.int64_data.len() + tensor.double_data.len() + tensor.uint64_data.len())
            + 4 * (tensor.float_data.len() + tensor.int32_data.len())
    };
    let strings = attribute.strings.iter().map(|text| text.len()).sum::<usize>();
    let tensors = attribute.t.iter().chain(&attribute.tensors).map(tensor).sum::<usize>();
    attribute.s.len() + 4 * attribute.floats.len() + 8 * attribute.ints.len() + strings + tensors
}
