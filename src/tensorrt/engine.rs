//! The layers of a built engine, as TensorRT's log tells them.
//!
//! An engine cannot be opened on a machine without its GPU, but a builder asked for detail writes each layer to its log:
//!
//! ```text
//! Name: conv1_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,3,8,8], ... }], Constants: [...],
//! Outputs: [ { Name: y, Dimensions: ... }], TacticName: ..., StreamId: 0, Metadata: conv1\x1frelu1
//! ```
//!
//! (one line), the metadata being that of all network layers in it.

use crate::emit::sink::ORIGIN_SEPARATOR;

/// Layer types that only order streams.
const SYNCHRONIZATION: &[&str] = &["signal", "wait"];

/// A layer of an engine: a kernel, or a region of several that TensorRT made one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineLayer {
    /// Its name, made of the names of the network layers in it.
    pub name: String,
    /// TensorRT's name of what it does.
    pub layer_type: String,
    /// Names of the tensors that it reads, weights left out.
    pub inputs: Vec<String>,
    /// Names of the tensors that it writes.
    pub outputs: Vec<String>,
    /// The ONNX nodes in it, from the metadata of the network layers; empty for what TensorRT added, such as a change
    /// of memory format.
    pub origins: Vec<String>,
}

/// The layers in messages of the log, without stream synchronization.
pub(super) fn parse_log(messages: &[String]) -> Vec<EngineLayer> {
    let lines = messages.iter().flat_map(|message| message.lines());
    let layers = lines.filter_map(parse_line);
    layers.filter(|layer| !SYNCHRONIZATION.contains(&layer.layer_type.as_str())).collect()
}

fn parse_line(line: &str) -> Option<EngineLayer> {
    let (name, rest) = line.strip_prefix("Name: ")?.split_once(", LayerType: ")?;
    let (layer_type, rest) = rest.split_once(", Inputs: ")?;
    let (inputs, rest) = rest.split_once(", Outputs: ")?;
    // Tensors read come before weights.
    let inputs = inputs.split_once(", Constants: ").map_or(inputs, |(inputs, _)| inputs);
    let (outputs, metadata) = rest.split_once(", Metadata: ").unwrap_or((rest, ""));
    Some(EngineLayer {
        name: name.to_owned(),
        layer_type: layer_type.to_owned(),
        inputs: tensor_names(inputs),
        outputs: tensor_names(outputs),
        origins: origins(metadata),
    })
}

/// The names in `[ { Name: a, Dimensions: [1,2], ... }, { Name: b, ... }]` and whatever follows it.
fn tensor_names(list: &str) -> Vec<String> {
    let items = list.split("{ Name: ").skip(1);
    items.filter_map(|item| item.split_once(", Dimensions: ")).map(|(name, _)| name.to_owned()).collect()
}

fn origins(metadata: &str) -> Vec<String> {
    let mut origins: Vec<String> = Vec::new();
    for origin in metadata.split(ORIGIN_SEPARATOR) {
        // NVIDIA's ONNX parser wraps the node's name.
        let origin = origin.strip_prefix("[ONNX Layer: ").and_then(|name| name.strip_suffix(']')).unwrap_or(origin);
        if !origin.is_empty() && !origins.iter().any(|known| known == origin) {
            origins.push(origin.to_owned());
        }
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    // Lines of TensorRT-RTX 1.7.1, shortened.
    const LOG: &str = "Layers:
Name: __myl_Move_myl0_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,3,8,8], Strides: [192,64,8,1], Datatype: Float }], Constants: [], Outputs: [ { Name: x2, Dimensions: [1,3,8,8], Datatype: Float }], TacticName: __myl_Move_0x73, StreamId: 0, Metadata: 
Name: c_myl0_1, LayerType: correlation, Inputs: [ { Name: x2, Dimensions: [1,3,8,8] }, { Name: r, Dimensions: [1,4,8,8] }], Constants: [ { Name: __mye1330dconst_myl0, Dimensions: [4,3,3,3] }], Outputs: [ { Name: y, Dimensions: [1,4,8,8] }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: c]\u{1f}[ONNX Layer: a]\u{1f}[ONNX Layer: c]
Name: __mye1768_myl0_4, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1, Metadata: 

I/O Tensors:
 Name: x, IOMode: Input, DataType: Float, Dimensions: [1,3,8,8], Location: Device
";

    #[test]
    fn layers_are_read_and_synchronization_is_not_one() {
        let layers = parse_log(&[LOG.to_owned()]);
        let shape = |layer: &EngineLayer| (layer.name.clone(), layer.layer_type.clone(), layer.inputs.join(" "));
        assert_eq!(
            layers.iter().map(shape).collect::<Vec<_>>(),
            [
                ("__myl_Move_myl0_0".to_owned(), "kgen".to_owned(), "x".to_owned()),
                ("c_myl0_1".to_owned(), "correlation".to_owned(), "x2 r".to_owned()),
            ]
        );
        assert_eq!(layers[1].outputs, ["y"]);
        assert_eq!(layers[0].origins, [""; 0]);
        assert_eq!(layers[1].origins, ["c", "a"]);
    }
}
