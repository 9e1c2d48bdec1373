//! Attributes of a node, typed.

use std::cell::Cell;

use rustc_hash::FxHashSet;
use trt_fuse_ir::{DType, Ints};

use super::error::{ImportError, show};
use super::proto::{AttributeProto, AttributeType, GraphProto, NodeProto, TensorProto};
use super::scope::Bindings;
use super::tensor::dtype;

/// Elements of a list that are shown in full.
const SHOWN: usize = 16;

/// An attribute under the name that the node has for it; in a function body, the value may be an attribute of the call.
#[derive(Debug)]
struct Named<'m> {
    name: &'m str,
    value: &'m AttributeProto,
    asked: Cell<bool>,
}

/// A node's attributes. Each is asked for by name and type; what nobody asked for is an error in the end, since an
/// attribute that is not understood may change the result.
#[derive(Debug)]
pub(crate) struct Attributes<'m>(Vec<Named<'m>>);

pub(crate) fn fault(attribute: &str, reason: impl Into<String>) -> ImportError {
    ImportError::Attribute { attribute: attribute.to_owned(), reason: reason.into() }
}

impl<'m> Attributes<'m> {
    /// The attributes of a node.
    ///
    /// # Errors
    /// If one is there twice or has no type, or a function takes a graph.
    pub(crate) fn of(node: &'m NodeProto, bindings: &Bindings<'m>) -> Result<Self, ImportError> {
        let mut names = FxHashSet::default();
        let mut attributes = Vec::with_capacity(node.attribute.len());
        for attribute in &node.attribute {
            let name = attribute.name.as_str();
            if !names.insert(name) {
                return Err(fault(name, "it is there twice"));
            }
            let value = if attribute.ref_attr_name.is_empty() {
                attribute
            } else {
                // One that the call leaves out and that has no default is as if it were not there.
                let Some(value) = bindings.get(attribute.ref_attr_name.as_str()) else { continue };
                if matches!(value.r#type(), AttributeType::Graph | AttributeType::Graphs) {
                    return Err(fault(name, "a function cannot take a graph"));
                }
                value
            };
            if value.r#type() == AttributeType::Undefined {
                return Err(fault(name, format!("type {} is not known", value.r#type)));
            }
            attributes.push(Named { name, value, asked: Cell::new(false) });
        }
        Ok(Self(attributes))
    }

    /// The attribute, if it is there; refused if it has another type.
    fn get(&self, name: &str, expected: AttributeType) -> Result<Option<&'m AttributeProto>, ImportError> {
        let Some(named) = self.0.iter().find(|named| named.name == name) else { return Ok(None) };
        named.asked.set(true);
        if named.value.r#type() == expected {
            Ok(Some(named.value))
        } else {
            Err(fault(name, format!("{:?} found, {expected:?} expected", named.value.r#type())))
        }
    }

    /// Whether the attribute is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|named| named.name == name)
    }

    /// Lets an attribute pass that has no meaning for inference.
    pub(crate) fn ignore(&self, name: &str) {
        if let Some(named) = self.0.iter().find(|named| named.name == name) {
            named.asked.set(true);
        }
    }

    /// An integer.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, ImportError> {
        Ok(self.get(name, AttributeType::Int)?.map(|attribute| attribute.i))
    }

    /// An integer with a default.
    pub(crate) fn int_or(&self, name: &str, default: i64) -> Result<i64, ImportError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer that must be there.
    pub(crate) fn required_int(&self, name: &str) -> Result<i64, ImportError> {
        self.int(name)?.ok_or_else(|| fault(name, "it is missing"))
    }

    /// An integer of at least `least`, with a default.
    pub(crate) fn int_at_least(&self, name: &str, least: i64, default: i64) -> Result<i64, ImportError> {
        let value = self.int_or(name, default)?;
        if value < least {
            return Err(fault(name, format!("{value} found, at least {least} expected")));
        }
        Ok(value)
    }

    /// 0 or 1, with a default.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ImportError> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(value) => Err(fault(name, format!("{value} found, 0 or 1 expected"))),
        }
    }

    /// A float with a default.
    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f32, ImportError> {
        Ok(self.get(name, AttributeType::Float)?.map_or(default, |attribute| attribute.f))
    }

    /// Text.
    pub(crate) fn string(&self, name: &str) -> Result<Option<&'m str>, ImportError> {
        let Some(attribute) = self.get(name, AttributeType::String)? else { return Ok(None) };
        std::str::from_utf8(&attribute.s).map(Some).map_err(|_| fault(name, "the text is not UTF-8"))
    }

    /// One of some words; the first one if the attribute is not there.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, ImportError> {
        let found = self.string(name)?;
        let words = || choices.iter().map(|choice| choice.0).collect::<Vec<_>>().join(", ");
        let choice = match found {
            None => choices.first(),
            Some(word) => choices.iter().find(|choice| choice.0 == word),
        };
        choice.map(|choice| choice.1).ok_or_else(|| {
            fault(name, format!("`{}` found, one of {} expected", show(found.unwrap_or_default()), words()))
        })
    }

    /// Texts.
    pub(crate) fn strings(&self, name: &str) -> Result<Option<Vec<&'m str>>, ImportError> {
        let Some(attribute) = self.get(name, AttributeType::Strings)? else { return Ok(None) };
        let texts: Result<_, _> = attribute.strings.iter().map(|text| std::str::from_utf8(text)).collect();
        texts.map(Some).map_err(|_| fault(name, "the text is not UTF-8"))
    }

    /// Integers.
    pub(crate) fn ints(&self, name: &str) -> Result<Option<Ints>, ImportError> {
        Ok(self.get(name, AttributeType::Ints)?.map(|attribute| Ints::from_slice(&attribute.ints)))
    }

    /// `count` integers of at least `least`; all `default` if the attribute is not there.
    pub(crate) fn ints_of(&self, name: &str, count: usize, least: i64, default: i64) -> Result<Ints, ImportError> {
        let Some(ints) = self.ints(name)? else { return Ok(Ints::from_elem(default, count)) };
        if ints.len() != count {
            return Err(fault(name, format!("{} numbers found, {count} expected", ints.len())));
        }
        if let Some(value) = ints.iter().find(|value| **value < least) {
            return Err(fault(name, format!("{value} found, at least {least} expected")));
        }
        Ok(ints)
    }

    /// Floats.
    pub(crate) fn floats(&self, name: &str) -> Result<Option<&'m [f32]>, ImportError> {
        Ok(self.get(name, AttributeType::Floats)?.map(|attribute| attribute.floats.as_slice()))
    }

    /// A tensor.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&'m TensorProto>, ImportError> {
        let Some(attribute) = self.get(name, AttributeType::Tensor)? else { return Ok(None) };
        attribute.t.as_ref().map(Some).ok_or_else(|| fault(name, "it has no tensor"))
    }

    /// A graph that must be there.
    pub(crate) fn graph(&self, name: &str) -> Result<&'m GraphProto, ImportError> {
        let attribute = self.get(name, AttributeType::Graph)?.ok_or_else(|| fault(name, "it is missing"))?;
        attribute.g.as_ref().ok_or_else(|| fault(name, "it has no graph"))
    }

    /// An element type; `None` if the attribute is not there or 0.
    pub(crate) fn dtype(&self, name: &str) -> Result<Option<DType>, ImportError> {
        match self.int(name)? {
            None | Some(0) => Ok(None),
            Some(code) => {
                let known = i32::try_from(code).ok().and_then(dtype);
                known.map(Some).ok_or_else(|| fault(name, format!("data type {code} is not supported")))
            }
        }
    }

    /// All attributes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'m str, &'m AttributeProto)> {
        self.0.iter().map(|named| (named.name, named.value))
    }

    /// Refuses attributes that nobody asked for.
    ///
    /// # Errors
    /// The first of them.
    pub(crate) fn expect_no_more(&self) -> Result<(), ImportError> {
        match self.0.iter().find(|named| !named.asked.get()) {
            Some(named) => Err(fault(named.name, "the operator has no such attribute in this opset")),
            None => Ok(()),
        }
    }

    /// All attributes as `name=value`, long values cut.
    pub(crate) fn printed(&self) -> Vec<String> {
        self.0.iter().map(|named| format!("{}={}", named.name, print(named.value))).collect()
    }
}

fn print(attribute: &AttributeProto) -> String {
    fn list<T>(items: &[T], print: impl Fn(&T) -> String) -> String {
        let shown: Vec<String> = items.iter().take(SHOWN).map(print).collect();
        let more = if items.len() > SHOWN { ", ..." } else { "" };
        format!("[{}{more}]", shown.join(", "))
    }
    let text = |bytes: &bytes::Bytes| format!("\"{}\"", show(&String::from_utf8_lossy(bytes)));
    let tensor = |tensor: &TensorProto| {
        let name = dtype(tensor.data_type).map_or("unknown", DType::name);
        format!("{name}{}", list(&tensor.dims, i64::to_string))
    };
    let graph = |graph: &GraphProto| format!("graph {}", show(&graph.name));
    match attribute.r#type() {
        AttributeType::Float => format!("{:?}", attribute.f),
        AttributeType::Int => attribute.i.to_string(),
        AttributeType::String => text(&attribute.s),
        AttributeType::Tensor => attribute.t.as_ref().map(tensor).unwrap_or_default(),
        AttributeType::Graph => attribute.g.as_ref().map(graph).unwrap_or_default(),
        AttributeType::Floats => list(&attribute.floats, |value| format!("{value:?}")),
        AttributeType::Ints => list(&attribute.ints, i64::to_string),
        AttributeType::Strings => list(&attribute.strings, text),
        AttributeType::Tensors => list(&attribute.tensors, tensor),
        AttributeType::Graphs => list(&attribute.graphs, graph),
        AttributeType::SparseTensor | AttributeType::SparseTensors => "sparse tensor".to_owned(),
        AttributeType::TypeProto | AttributeType::TypeProtos => "type".to_owned(),
        AttributeType::Undefined => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..Default::default() }
    }

    fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto {
            name: name.into(),
            ints: ints.to_vec(),
            r#type: AttributeType::Ints as i32,
            ..Default::default()
        }
    }

    fn word(name: &str, text: &'static str) -> AttributeProto {
        let s = Bytes::from_static(text.as_bytes());
        AttributeProto { name: name.into(), s, r#type: AttributeType::String as i32, ..Default::default() }
    }

    fn node(attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto { attribute, ..Default::default() }
    }

    fn line<T: std::fmt::Debug>(result: Result<T, ImportError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn values_and_defaults() {
        let node = node(vec![int("axis", -1), ints("pads", &[1, 2]), word("mode", "edge"), int("flag", 1)]);
        let attrs = Attributes::of(&node, &Bindings::default()).unwrap();
        assert_eq!(attrs.int_or("axis", 0).unwrap(), -1);
        assert_eq!(attrs.int_or("other", 3).unwrap(), 3);
        assert_eq!(attrs.ints_of("pads", 2, 0, 0).unwrap().as_slice(), [1, 2]);
        assert_eq!(attrs.ints_of("strides", 2, 1, 1).unwrap().as_slice(), [1, 1]);
        assert_eq!(attrs.choice("mode", &[("constant", 0), ("edge", 1)]).unwrap(), 1);
        assert_eq!(attrs.choice("other", &[("constant", 0), ("edge", 1)]).unwrap(), 0);
        insta::assert_snapshot!(line(attrs.expect_no_more()), @"attribute `flag`: the operator has no such attribute in this opset");
        assert!(attrs.flag("flag", false).unwrap());
        attrs.expect_no_more().unwrap();
        assert_eq!(attrs.printed(), ["axis=-1", "pads=[1, 2]", "mode=\"edge\"", "flag=1"]);
    }

    #[test]
    fn wrong_types_and_values_name_the_attribute() {
        let node = node(vec![int("axis", 7), ints("pads", &[1, -2]), word("mode", "edgy")]);
        let attrs = Attributes::of(&node, &Bindings::default()).unwrap();
        insta::assert_snapshot!(line(attrs.ints("axis")), @"attribute `axis`: Int found, Ints expected");
        insta::assert_snapshot!(line(attrs.flag("axis", false)), @"attribute `axis`: 7 found, 0 or 1 expected");
        insta::assert_snapshot!(line(attrs.ints_of("pads", 2, 0, 0)), @"attribute `pads`: -2 found, at least 0 expected");
        insta::assert_snapshot!(line(attrs.ints_of("pads", 3, 0, 0)), @"attribute `pads`: 2 numbers found, 3 expected");
        insta::assert_snapshot!(line(attrs.choice("mode", &[("constant", 0), ("edge", 1)])), @"attribute `mode`: `edgy` found, one of constant, edge expected");
        insta::assert_snapshot!(line(attrs.required_int("to")), @"attribute `to`: it is missing");
        insta::assert_snapshot!(line(attrs.graph("body")), @"attribute `body`: it is missing");
    }

    #[test]
    fn calls_give_values() {
        let reference = AttributeProto { name: "axis".into(), ref_attr_name: "outer".into(), ..Default::default() };
        let node = node(vec![reference]);
        let value = int("outer", 5);
        let bound = Attributes::of(&node, &Bindings::from_iter([("outer", &value)])).unwrap();
        assert_eq!(bound.int("axis").unwrap(), Some(5));
        let unbound = Attributes::of(&node, &Bindings::default()).unwrap();
        assert_eq!(unbound.int("axis").unwrap(), None);
    }

    #[test]
    fn malformed_attributes_are_refused() {
        let of = |attributes| line(Attributes::of(&node(attributes), &Bindings::default()).map(|_| ()));
        insta::assert_snapshot!(of(vec![int("a", 1), int("a", 1)]), @"attribute `a`: it is there twice");
        insta::assert_snapshot!(of(vec![AttributeProto { r#type: 99, ..int("a", 1) }]), @"attribute `a`: type 99 is not known");
    }
}
