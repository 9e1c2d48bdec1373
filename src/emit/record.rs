//! A sink that writes the network down as text.
//!
//! One line a layer: outputs, kind, name, inputs, parameters that differ from TensorRT's defaults, and after `;` the
//! metadata where it says more than the name. Weights are type, dimensions and a hash of the content.
//!
//! ```text
//! %conv1_out f32[1,64,112,112] = convolution "conv1" (%x) kernel=f32[64,3,7,7]#0123456789abcdef stride=[2,2]
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use smallvec::SmallVec;
use trt_fuse_ir::{DType, Shape, Tensor};

use super::EmitError;
use super::layers::{Convolution, DimsArg, FillArg, Operand, Quantize};
use super::sink::{Label, LayerCounts, ORIGIN_SEPARATOR, Outputs, Weights, output_name};

mod layers;

/// A tensor of a [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordTensor(usize);

/// A recorded network.
#[derive(Debug, Default)]
pub struct Record {
    tensors: Vec<Named>,
    lines: Vec<Line>,
    counts: LayerCounts,
    conditionals: u32,
    loops: u32,
}

#[derive(Debug)]
struct Named {
    name: String,
    note: Option<(DType, Shape)>,
}

#[derive(Debug)]
struct Line {
    kind: &'static str,
    name: String,
    metadata: Option<String>,
    inputs: SmallVec<[RecordTensor; 2]>,
    outputs: Outputs<RecordTensor>,
    parameters: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Tensor(RecordTensor),
    /// Read when the text is asked for: who counts layers need not wait until a file's weights are hashed.
    Weights(Box<Tensor>),
}

impl Record {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as text, each line ended by a newline.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| self.render(line)).collect()
    }

    /// The kinds of layer in the network, each with the number of its layers.
    pub fn layer_kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for line in self.lines.iter().filter(|line| !matches!(line.kind, "input" | "output")) {
            *kinds.entry(line.kind).or_insert(0) += 1;
        }
        kinds
    }

    /// Kind, name and ONNX nodes of each layer, in order.
    pub fn layers(&self) -> impl Iterator<Item = (&'static str, &str, Vec<String>)> {
        let layers = self.lines.iter().filter(|line| !matches!(line.kind, "input" | "output"));
        layers.map(|line| {
            let metadata = line.metadata.as_ref().unwrap_or(&line.name);
            (line.kind, line.name.as_str(), metadata.split(ORIGIN_SEPARATOR).map(str::to_owned).collect())
        })
    }

    fn render(&self, line: &Line) -> String {
        let mut text = String::new();
        for (slot, output) in line.outputs.iter().enumerate() {
            text.push_str(if slot == 0 { "" } else { ", " });
            self.render_tensor(&mut text, *output);
            if let Some((dtype, shape)) = self.tensors.get(output.0).and_then(|named| named.note.as_ref()) {
                let extents: Vec<String> = shape.iter().map(ToString::to_string).collect();
                let _ = write!(text, " {dtype}[{}]", extents.join(","));
            }
        }
        text.push_str(if line.outputs.is_empty() { "" } else { " = " });
        let _ = write!(text, "{} {:?}", line.kind, line.name);
        if !line.inputs.is_empty() {
            text.push_str(" (");
            for (slot, input) in line.inputs.iter().enumerate() {
                text.push_str(if slot == 0 { "" } else { ", " });
                self.render_tensor(&mut text, *input);
            }
            text.push(')');
        }
        for (key, value) in &line.parameters {
            let _ = write!(text, " {key}=");
            match value {
                Value::Text(value) => text.push_str(value),
                Value::Tensor(tensor) => self.render_tensor(&mut text, *tensor),
                Value::Weights(value) => {
                    let dims: Vec<String> = value.dims().iter().map(ToString::to_string).collect();
                    let _ = write!(text, "{}[{}]#{:016x}", value.dtype(), dims.join(","), value.content_hash());
                }
            }
        }
        if let Some(metadata) = &line.metadata {
            let origins: Vec<&str> = metadata.split(ORIGIN_SEPARATOR).collect();
            let _ = write!(text, " ; {}", origins.join(", ").escape_debug());
        }
        text.push('\n');
        text
    }

    fn render_tensor(&self, text: &mut String, tensor: RecordTensor) {
        text.push('%');
        text.push_str(self.tensors.get(tensor.0).map_or("?", |named| &named.name));
    }

    fn line(&mut self, kind: &'static str, label: Label<'_>, inputs: &[RecordTensor]) -> LineBuilder<'_> {
        let line = Line {
            kind,
            name: label.name.to_owned(),
            metadata: (label.metadata != label.name).then(|| label.metadata.to_owned()),
            inputs: SmallVec::from_slice(inputs),
            outputs: Outputs::new(),
            parameters: Vec::new(),
        };
        LineBuilder { record: self, line }
    }
}

/// A line being written.
struct LineBuilder<'r> {
    record: &'r mut Record,
    line: Line,
}

impl LineBuilder<'_> {
    fn text(mut self, key: &'static str, value: impl ToString) -> Self {
        self.line.parameters.push((key, Value::Text(value.to_string())));
        self
    }

    /// A parameter left out where it has its default.
    fn unless<V: PartialEq + ToString>(self, default: V, key: &'static str, value: V) -> Self {
        if value == default { self } else { self.text(key, value) }
    }

    fn list<V: ToString>(self, key: &'static str, values: &[V]) -> Self {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        self.text(key, format!("[{}]", values.join(",")))
    }

    fn list_unless(self, default: i64, key: &'static str, values: &[i64]) -> Self {
        if values.iter().all(|value| *value == default) { self } else { self.list(key, values) }
    }

    fn padding(self, pre: &[i64], post: &[i64]) -> Self {
        if pre.iter().chain(post).all(|value| *value == 0) {
            return self;
        }
        self.text("pads", format!("{pre:?}..{post:?}").replace(", ", ","))
    }

    fn tensor(mut self, key: &'static str, tensor: RecordTensor) -> Self {
        self.line.parameters.push((key, Value::Tensor(tensor)));
        self
    }

    fn maybe_tensor(self, key: &'static str, tensor: Option<RecordTensor>) -> Self {
        match tensor {
            Some(tensor) => self.tensor(key, tensor),
            None => self,
        }
    }

    fn weights(mut self, key: &'static str, value: &Tensor) -> Self {
        self.line.parameters.push((key, Value::Weights(Box::new(value.clone()))));
        self
    }

    fn maybe_weights(self, key: &'static str, value: Option<&Weights<'_>>) -> Self {
        match value {
            Some(value) => self.weights(key, value),
            None => self,
        }
    }

    fn operand(self, key: &'static str, operand: &Operand<'_, RecordTensor>) -> Self {
        match operand {
            Operand::Weights(value) => self.weights(key, value),
            Operand::Tensor(tensor) => self.tensor(key, *tensor),
        }
    }

    fn dims(self, key: &'static str, dims: &DimsArg<'_, RecordTensor>) -> Self {
        match dims {
            DimsArg::Fixed(values) => self.list(key, values),
            DimsArg::Tensor(tensor) => self.tensor(key, *tensor),
        }
    }

    fn fill_arg(self, key: &'static str, value: FillArg<RecordTensor>) -> Self {
        match value {
            FillArg::Float(value) => self.text(key, format!("{value:?}")),
            FillArg::Int(value) => self.text(key, value),
            FillArg::Tensor(tensor) => self.tensor(key, tensor),
        }
    }

    fn convolution(self, layer: &Convolution<'_, '_, RecordTensor>) -> Self {
        let line = self.operand("kernel", &layer.kernel);
        let line = match &layer.bias {
            Some(bias) => line.operand("bias", bias),
            None => line,
        };
        let line = match layer.kernel {
            Operand::Weights(_) => line,
            Operand::Tensor(_) => line.text("maps", layer.maps).list("size", layer.kernel_size),
        };
        line.list_unless(1, "stride", layer.stride)
            .padding(layer.pre_padding, layer.post_padding)
            .list_unless(1, "dilation", layer.dilation)
            .unless(1, "groups", layer.groups)
    }

    fn quantization(self, layer: &Quantize<RecordTensor>) -> Self {
        let line = self.tensor("scale", layer.scale).maybe_tensor("zero_point", layer.zero_point);
        match layer.axis {
            Some(axis) => line.text("axis", axis),
            None => line,
        }
        .text("to", layer.dtype)
    }

    /// Ends a layer with `count` outputs.
    fn outputs(self, count: usize) -> Outputs<RecordTensor> {
        self.record.counts.all += 1;
        self.record.counts.without_constants += usize::from(self.line.kind != "constant");
        let names = (0..count).map(|slot| output_name(&self.line.name, slot)).collect();
        self.end(names)
    }

    /// Ends a layer with one output.
    fn output(self) -> Result<RecordTensor, EmitError> {
        let first = RecordTensor(self.record.tensors.len());
        self.outputs(1);
        Ok(first)
    }

    /// Ends a line, which need not be a layer, with outputs of these names.
    fn end(mut self, names: Vec<String>) -> Outputs<RecordTensor> {
        for name in names {
            self.line.outputs.push(RecordTensor(self.record.tensors.len()));
            self.record.tensors.push(Named { name, note: None });
        }
        let outputs = self.line.outputs.clone();
        self.record.lines.push(self.line);
        outputs
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use trt_fuse_ir::Dim;

    use super::*;
    use crate::emit::layers::{Activation, Input, IntArg, TopK};
    use crate::emit::sink::NetworkSink;
    use crate::emit::terms::{ActivationKind, ElementwiseKind, TopKKind};

    #[test]
    fn a_network_reads_like_a_listing() {
        let kernel = Tensor::from_vec([2, 1, 3, 3], vec![0.5_f32; 18]).unwrap();
        let mut record = Record::new();
        let x = record
            .input(&Input {
                name: "x",
                dtype: DType::F32,
                dims: &[-1, 1, 8, 8],
                symbols: &[Some("n"), None, None, None],
            })
            .unwrap();
        let label = Label { name: "conv1", metadata: "conv1\u{1f}bn1" };
        let y = record
            .convolution(
                label,
                x,
                Convolution {
                    maps: 2,
                    kernel_size: &[3, 3],
                    stride: &[2, 2],
                    pre_padding: &[1, 1],
                    post_padding: &[0, 1],
                    dilation: &[1, 1],
                    groups: 1,
                    kernel: Operand::Weights(Cow::Borrowed(&kernel)),
                    bias: None,
                },
            )
            .unwrap();
        record.note(y, DType::F32, &Shape::from_iter([Dim::symbol("n"), Dim::fixed(2), Dim::fixed(4), Dim::fixed(4)]));
        let clip = Activation { kind: ActivationKind::Clip, alpha: 0.0, beta: 6.0 };
        let y = record.activation(Label::new("clip"), y, &clip).unwrap();
        let top = TopK { kind: TopKKind::Max, axis: 3, k: IntArg::Fixed(1), indices: DType::I32 };
        let top = record.top_k(Label::new("top"), y, &top).unwrap();
        record.mark_output(top[0], "y", DType::F32).unwrap();

        // The hash is XXH3-64 (python-xxhash) of "f32", the dimensions as 64-bit integers, and the bytes.
        insta::assert_snapshot!(record.text(), @r#"
        %x = input "x" type=f32 dims=[-1,1,8,8] symbols=[n,-,-,-]
        %conv1_out f32[n,2,4,4] = convolution "conv1" (%x) kernel=f32[2,1,3,3]#166a7d8805b0b8ce stride=[2,2] pads=[1,1]..[0,1] ; conv1, bn1
        %clip_out = activation "clip" (%conv1_out) kind=clip alpha=0 beta=6
        %y, %top_out1 = top_k "top" (%clip_out) kind=max axis=3 k=1 indices=i32
        output "y" (%y) type=f32
        "#);
        assert_eq!(record.layer_counts(), LayerCounts { all: 3, without_constants: 3 });
        assert_eq!(
            record.layer_kinds().into_iter().collect::<Vec<_>>(),
            [("activation", 1), ("convolution", 1), ("top_k", 1)]
        );
    }

    #[test]
    fn constants_are_counted_apart() {
        let mut record = Record::new();
        let a = record.constant(Label::new("a"), Cow::Owned(Tensor::scalar(1_i64))).unwrap();
        record.elementwise(Label::new("b"), a, a, ElementwiseKind::Sum).unwrap();
        assert_eq!(record.layer_counts(), LayerCounts { all: 2, without_constants: 1 });
    }
}
