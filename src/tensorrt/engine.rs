//! The layers of a built engine, as TensorRT's log tells them.

/// A layer of an engine: a kernel, or a region that TensorRT's compiler makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineLayer {
    /// Its name, made of the names of the network layers in it.
    pub name: String,
}

pub(super) fn parse_log(lines: &[String]) -> Vec<EngineLayer> {
    lines.iter().map(|line| EngineLayer { name: line.clone() }).collect()
}
