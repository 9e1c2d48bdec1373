//! Random models: one is an operator or a few, with random attributes, shapes and data.

use std::path::Path;

use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use onnx_protobuf::attribute_proto::AttributeType;

use crate::write::{graph, model, value};

/// Element types by ONNX's codes.
pub(crate) const F32: i32 = 1;
pub(crate) const U8: i32 = 2;
pub(crate) const I8: i32 = 3;
pub(crate) const U16: i32 = 4;
pub(crate) const I16: i32 = 5;
pub(crate) const I32: i32 = 6;
pub(crate) const I64: i32 = 7;
pub(crate) const BOOL: i32 = 9;
pub(crate) const F16: i32 = 10;
pub(crate) const F64: i32 = 11;
pub(crate) const U32: i32 = 12;
pub(crate) const U64: i32 = 13;

/// An attribute's value.
pub(crate) enum Attr {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Graph(Box<onnx::GraphProto>),
}

impl From<i64> for Attr {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Attr {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<f32> for Attr {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Attr {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Vec<i64>> for Attr {
    fn from(value: Vec<i64>) -> Self {
        Self::Ints(value)
    }
}

/// Attributes by name.
pub(crate) type Attrs = Vec<(&'static str, Attr)>;

/// `attrs! { "axis" => 1_i64, "mode" => "linear" }`
macro_rules! attrs {
    ($($name:literal => $value:expr),* $(,)?) => { vec![$(($name, $crate::maker::Attr::from($value))),*] };
}
pub(crate) use attrs;

/// A model that is being made, and the numbers that choose what it is.
pub(crate) struct Maker {
    state: u64,
    opset: i64,
    /// Whether sizes of inputs are symbols; equal sizes are the same one.
    symbolic: bool,
    graph: onnx::GraphProto,
    feeds: Vec<onnx::TensorProto>,
    names: usize,
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Self {
        let mut maker = Self {
            state: seed,
            opset: 21,
            symbolic: false,
            graph: graph(&[], &[], Vec::new()),
            feeds: Vec::new(),
            names: 0,
        };
        maker.symbolic = maker.below(4) == 0;
        maker
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of `low..=high`.
    pub(crate) fn int(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    pub(crate) fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    /// Each of `low..=high`.
    pub(crate) fn ints(&mut self, count: usize, low: i64, high: i64) -> Vec<i64> {
        (0..count).map(|_| self.int(low, high)).collect()
    }

    /// A shape of `low..=high` axes of up to 5 elements each.
    pub(crate) fn shape(&mut self, low: i64, high: i64) -> Vec<i64> {
        let rank = self.int(low, high) as usize;
        self.ints(rank, 1, 5)
    }

    /// An axis of `rank`, sometimes counted from the end.
    pub(crate) fn axis(&mut self, rank: usize) -> i64 {
        self.int(-(rank as i64), rank as i64 - 1)
    }

    /// Some of the axes of `rank`, in any order, each once; at least one if there is any.
    pub(crate) fn axes(&mut self, rank: usize) -> Vec<i64> {
        let mut all = self.permutation(rank);
        all.truncate(self.int(1, rank.max(1) as i64) as usize);
        all.into_iter().map(|axis| if self.chance() { axis } else { axis - rank as i64 }).collect()
    }

    pub(crate) fn permutation(&mut self, count: usize) -> Vec<i64> {
        let mut rest: Vec<i64> = (0..count as i64).collect();
        (0..count).map(|_| rest.remove(self.below(rest.len() as u64) as usize)).collect()
    }

    /// A shape that broadcasts with `shape`: leading axes left out, others 1.
    pub(crate) fn narrower(&mut self, shape: &[i64]) -> Vec<i64> {
        let from = if self.chance() { 0 } else { self.int(0, shape.len() as i64) as usize };
        shape[from..].iter().map(|size| if self.below(3) == 0 { 1 } else { *size }).collect()
    }

    pub(crate) fn opset(&mut self, versions: &[i64]) {
        self.opset = self.pick(versions);
    }

    pub(crate) fn is_opset(&self, least: i64) -> bool {
        self.opset >= least
    }

    /// Sizes are numbers: the operator is about more than one at a time.
    pub(crate) fn fixed(&mut self) {
        self.symbolic = false;
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    /// Numbers that are not always apart: from a coarse grid every other time.
    pub(crate) fn numbers(&mut self, count: i64, low: f64, high: f64) -> Vec<f64> {
        let steps = if self.chance() { ((high - low) * 4.0).ceil() as i64 } else { 1 << 20 };
        (0..count).map(|_| low + (high - low) * self.int(0, steps) as f64 / steps as f64).collect()
    }

    fn tensor(&mut self, dtype: i32, dims: &[i64], data: &[f64]) -> onnx::TensorProto {
        let raw_data = data.iter().flat_map(|value| bytes(dtype, *value)).collect();
        let name = self.name("x");
        onnx::TensorProto { name, dims: dims.to_vec(), data_type: dtype, raw_data, ..Default::default() }
    }

    /// An input of the model with its data.
    pub(crate) fn feed(&mut self, dtype: i32, dims: &[i64], data: &[f64]) -> String {
        let tensor = self.tensor(dtype, dims, data);
        let size = |size: &i64| if self.symbolic && *size > 1 { format!("d{size}") } else { size.to_string() };
        let shape: Vec<String> = dims.iter().map(size).collect();
        self.graph.input.push(value(&format!("{}: {dtype}[{}]", tensor.name, shape.join(", "))));
        let name = tensor.name.clone();
        self.feeds.push(tensor);
        name
    }

    /// An initializer.
    pub(crate) fn constant(&mut self, dtype: i32, dims: &[i64], data: &[f64]) -> String {
        let tensor = self.tensor(dtype, dims, data);
        let name = tensor.name.clone();
        self.graph.initializer.push(tensor);
        name
    }

    /// A vector that is an initializer.
    pub(crate) fn list(&mut self, data: &[i64]) -> String {
        let data: Vec<f64> = data.iter().map(|value| *value as f64).collect();
        self.constant(I64, &[data.len() as i64], &data)
    }

    /// An input, or an initializer.
    pub(crate) fn either(&mut self, dtype: i32, dims: &[i64], data: &[f64]) -> String {
        if self.chance() { self.feed(dtype, dims, data) } else { self.constant(dtype, dims, data) }
    }

    /// Random data of a type as an input.
    pub(crate) fn random(&mut self, dtype: i32, dims: &[i64]) -> String {
        let data = self.data(dtype, dims);
        self.feed(dtype, dims, &data)
    }

    /// Random floats as an input or an initializer.
    pub(crate) fn weight(&mut self, dims: &[i64]) -> String {
        let data = self.data(F32, dims);
        self.either(F32, dims, &data)
    }

    pub(crate) fn data(&mut self, dtype: i32, dims: &[i64]) -> Vec<f64> {
        let count: i64 = dims.iter().product();
        match dtype {
            F32 | F64 | F16 => self.numbers(count, -2.0, 2.0),
            BOOL => self.integers(count, 0, 1),
            U8 | U16 | U32 | U64 => self.integers(count, 0, 9),
            _ => self.integers(count, -9, 9),
        }
    }

    pub(crate) fn integers(&mut self, count: i64, low: i64, high: i64) -> Vec<f64> {
        (0..count).map(|_| self.int(low, high) as f64).collect()
    }

    /// Adds a node; an input of an empty name is left out.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], outputs: usize, attrs: Attrs) -> Vec<String> {
        let output: Vec<String> = (0..outputs).map(|_| self.name("y")).collect();
        self.graph.node.push(onnx::NodeProto {
            name: output[0].clone(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: output.clone(),
            op_type: op.into(),
            attribute: attrs.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            ..Default::default()
        });
        output
    }

    /// Adds a node of one output.
    pub(crate) fn op(&mut self, op: &str, inputs: &[&str], attrs: Attrs) -> String {
        self.node(op, inputs, 1, attrs).remove(0)
    }

    pub(crate) fn output(&mut self, name: &str) {
        self.graph.output.push(value(name));
    }

    /// The last node: its outputs are the model's.
    pub(crate) fn last(&mut self, op: &str, inputs: &[&str], outputs: usize, attrs: Attrs) {
        for name in self.node(op, inputs, outputs, attrs) {
            self.output(&name);
        }
    }

    /// A body with inputs of these types; `make` adds its nodes and returns its outputs.
    pub(crate) fn body(&mut self, inputs: &[&str], make: impl FnOnce(&mut Self) -> Vec<String>) -> Attr {
        let names: Vec<String> = inputs.iter().map(|kind| format!("{}: {kind}", self.name("b"))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let outside = std::mem::replace(&mut self.graph, graph(&names, &[], Vec::new()));
        let outputs = make(self);
        let mut body = std::mem::replace(&mut self.graph, outside);
        body.output = outputs.iter().map(|name| value(name)).collect();
        Attr::Graph(Box::new(body))
    }

    /// The name of an input of the body that is being made.
    pub(crate) fn body_input(&self, slot: usize) -> String {
        self.graph.input[slot].name.clone()
    }

    /// Writes the model and its inputs as ONNX's own tests lie in a folder.
    pub(crate) fn write(self, folder: &Path) {
        let data = folder.join("test_data_set_0");
        std::fs::create_dir_all(&data).unwrap();
        let model = onnx::ModelProto { ir_version: 8, ..model(self.opset, self.graph) };
        std::fs::write(folder.join("model.onnx"), model.write_to_bytes().unwrap()).unwrap();
        for (at, feed) in self.feeds.iter().enumerate() {
            std::fs::write(data.join(format!("input_{at}.pb")), feed.write_to_bytes().unwrap()).unwrap();
        }
    }
}

fn bytes(dtype: i32, value: f64) -> Vec<u8> {
    match dtype {
        F32 => (value as f32).to_le_bytes().to_vec(),
        F64 => value.to_le_bytes().to_vec(),
        F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        I8 => (value as i8).to_le_bytes().to_vec(),
        I16 => (value as i16).to_le_bytes().to_vec(),
        I32 => (value as i32).to_le_bytes().to_vec(),
        I64 => (value as i64).to_le_bytes().to_vec(),
        U8 | BOOL => (value as u8).to_le_bytes().to_vec(),
        U16 => (value as u16).to_le_bytes().to_vec(),
        U32 => (value as u32).to_le_bytes().to_vec(),
        U64 => (value as u64).to_le_bytes().to_vec(),
        _ => unreachable!("{dtype}"),
    }
}

fn attribute(name: &str, value: Attr) -> onnx::AttributeProto {
    let mut proto = onnx::AttributeProto { name: name.into(), ..Default::default() };
    proto.type_ = match value {
        Attr::Int(i) => {
            proto.i = i;
            AttributeType::INT
        }
        Attr::Float(f) => {
            proto.f = f;
            AttributeType::FLOAT
        }
        Attr::Text(text) => {
            proto.s = text.into();
            AttributeType::STRING
        }
        Attr::Ints(ints) => {
            proto.ints = ints;
            AttributeType::INTS
        }
        Attr::Graph(graph) => {
            proto.g = Some(*graph).into();
            AttributeType::GRAPH
        }
    }
    .into();
    proto
}
