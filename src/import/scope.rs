//! What names mean while a list of nodes is imported.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use trt_fuse_ir::ValueRef;

use super::error::ImportError;
use super::proto::{AttributeProto, OperatorSetIdProto, TypeProto, ValueInfoProto};

/// Oldest version of ONNX's own operator set that is converted.
pub(crate) const OLDEST_OPSET: i64 = 1;
/// Newest version of ONNX's own operator set that is known: that of `onnx` 1.23.
pub(crate) const NEWEST_OPSET: i64 = 28;

/// A domain by its one name: ONNX's own is empty.
pub(crate) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// Versions of operator sets by domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Opsets(BTreeMap<String, i64>);

impl Opsets {
    /// The sets that a model or function asks for.
    ///
    /// # Errors
    /// If ONNX's own set has a version that is not converted, or a domain has two.
    pub(crate) fn read(imports: &[OperatorSetIdProto]) -> Result<Self, ImportError> {
        let mut versions = BTreeMap::new();
        for import in imports {
            let (domain, version) = (domain(&import.domain), import.version);
            if domain.is_empty() && !(OLDEST_OPSET..=NEWEST_OPSET).contains(&version) {
                return Err(ImportError::Opset { found: version, oldest: OLDEST_OPSET, newest: NEWEST_OPSET });
            }
            if versions.insert(domain.to_owned(), version).is_some_and(|other| other != version) {
                return Err(ImportError::OpsetTwice { domain: domain.to_owned() });
            }
        }
        Ok(Self(versions))
    }

    /// These sets, and those of `outer` for domains that have none here.
    pub(crate) fn or(mut self, outer: &Self) -> Self {
        for (domain, version) in &outer.0 {
            self.0.entry(domain.clone()).or_insert(*version);
        }
        self
    }

    /// The version of a domain's set.
    pub(crate) fn version(&self, domain: &str) -> Option<i64> {
        self.0.get(domain).copied()
    }

    /// Domains with their versions.
    pub(crate) fn into_inner(self) -> BTreeMap<String, i64> {
        self.0
    }
}

/// Values of a function's attributes at one call, by name.
pub(crate) type Bindings<'m> = FxHashMap<&'m str, &'m AttributeProto>;

/// The names that a list of nodes sees, and what else differs between a graph, a body and a call.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'m> {
    /// Values by name; `None` for an optional input of a function that a call leaves out.
    values: FxHashMap<&'m str, Option<ValueRef>>,
    /// Written before the names of nodes and values: the calls that lead here.
    pub prefix: Rc<str>,
    /// Outputs of a function under the names that the call gives them.
    pub aliases: FxHashMap<&'m str, Arc<str>>,
    /// Operator sets.
    pub opsets: Rc<Opsets>,
    /// Attributes of the call.
    pub bindings: Rc<Bindings<'m>>,
    /// What the model says of values.
    pub hints: FxHashMap<&'m str, &'m TypeProto>,
    /// Outputs of the graph, body or function.
    pub outputs: FxHashSet<&'m str>,
    /// The outputs of the model whose types it declares as such.
    pub declared: FxHashSet<&'m str>,
}

impl<'m> Scope<'m> {
    /// A scope without names.
    pub(crate) fn new(opsets: Rc<Opsets>) -> Self {
        Self {
            values: FxHashMap::default(),
            prefix: "".into(),
            aliases: FxHashMap::default(),
            opsets,
            bindings: Rc::default(),
            hints: FxHashMap::default(),
            outputs: FxHashSet::default(),
            declared: FxHashSet::default(),
        }
    }

    /// A scope without names for a body inside this one.
    pub(crate) fn body(&self) -> Self {
        let (prefix, bindings) = (self.prefix.clone(), self.bindings.clone());
        Self { prefix, bindings, ..Self::new(self.opsets.clone()) }
    }

    /// Takes in what the model says of values.
    pub(crate) fn hint(&mut self, values: &'m [ValueInfoProto]) {
        let named = values.iter().filter_map(|value| Some((value.name.as_str(), value.r#type.as_ref()?)));
        self.hints.extend(named);
    }

    /// Takes in what the model says of its outputs.
    pub(crate) fn hint_outputs(&mut self, values: &'m [ValueInfoProto]) {
        self.hint(values);
        let typed = values.iter().filter(|value| value.r#type.is_some());
        self.declared = typed.map(|value| value.name.as_str()).collect();
    }

    /// Gives a value its name.
    ///
    /// # Errors
    /// If another value has it.
    pub(crate) fn define(&mut self, name: &'m str, value: Option<ValueRef>) -> Result<(), ImportError> {
        match self.values.insert(name, value) {
            Some(_) => Err(ImportError::DuplicateValue { value: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// The value of a name; the outer `None` if there is none.
    pub(crate) fn lookup(&self, name: &str) -> Option<Option<ValueRef>> {
        self.values.get(name).copied()
    }

    /// The name that a value gets in the graph.
    pub(crate) fn value_name(&self, name: &str) -> Arc<str> {
        match self.aliases.get(name) {
            Some(alias) => alias.clone(),
            None if self.prefix.is_empty() => name.into(),
            None => format!("{}{name}", self.prefix).into(),
        }
    }
}
