//! What stands before TensorRT's bytes in a plan file: checked before TensorRT sees them, as it trusts what it reads.
//!
//! ```text
//! TRTFUSE\x01 | length of the header, u32, little-endian | header, JSON | the serialized engine
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use trt_fuse_ir::{DType, Graph, InputValues, Shape};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::builder::{ComputeCapability, Profile, RangeKind};
use super::library::Version;

/// The last byte is the version of the format.
const MAGIC: &[u8; 8] = b"TRTFUSE\x01";

/// Longest header that is read: an interface of a million tensors.
const MOST_HEADER_BYTES: usize = 64 << 20;

/// Where a plan comes from, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHeader {
    /// Which TensorRT built it, and runs it.
    pub tensorrt: String,
    /// The generations of GPUs that it was built for; empty for the default list of TensorRT-RTX.
    pub gpus: Vec<String>,
    /// A hash of the graph that it was built from, weights included.
    pub model: String,
    /// The model's element types of inputs and outputs by name: the engine may carry another.
    pub types: BTreeMap<String, String>,
    /// The dimensions of inputs by name, as the model has them.
    #[serde(default)]
    pub shapes: BTreeMap<String, Vec<String>>,
    /// The smallest and largest values of inputs that decide shapes, by name, and of those that are fixed.
    #[serde(default)]
    pub values: BTreeMap<String, (Vec<i64>, Vec<i64>)>,
    /// Their usual values, which kernels were chosen for.
    #[serde(default)]
    pub usual: BTreeMap<String, Vec<i64>>,
    /// The least and largest elements of inputs, by name, on which it rests that no integer is beyond the engine's type, or
    /// that are fixed.
    #[serde(default)]
    pub bounds: BTreeMap<String, (i64, i64)>,
    /// What users were told when it was built, as JSON of [`Note`](crate::Note).
    #[serde(default)]
    pub notes: Vec<serde_json::Value>,
    bytes: u64,
    hash: String,
}

/// Why a file is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// It does not begin as a plan does.
    #[error("it is no plan of trt-fuse")]
    Magic,
    /// The header cannot be read.
    #[error("its header is broken: {0}")]
    Header(String),
    /// Bytes are missing or too many.
    #[error("it holds {found} bytes of an engine of {expected}: it was cut off, or others were added")]
    Length {
        /// Bytes of the engine by the header.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The engine's bytes are not those that were written.
    #[error("its bytes are not those that were written")]
    Hash,
}

impl PlanHeader {
    /// The header of an engine that `version` built.
    pub(super) fn new(version: Version, gpus: &[ComputeCapability], engine: &[u8]) -> Self {
        Self {
            tensorrt: version.to_string(),
            gpus: gpus.iter().map(ToString::to_string).collect(),
            model: String::new(),
            types: BTreeMap::new(),
            shapes: BTreeMap::new(),
            values: BTreeMap::new(),
            usual: BTreeMap::new(),
            bounds: BTreeMap::new(),
            notes: Vec::new(),
            bytes: engine.len() as u64,
            hash: hash(engine),
        }
    }

    /// Tells the graph that the engine was built from.
    pub(crate) fn describe(&mut self, graph: &Graph) {
        self.model = format!("{:032x}", xxh3_128(graph.to_string().as_bytes()));
        let inputs = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
        let inputs = inputs.map(|value| (value.name.to_string(), value.info.dtype.to_string()));
        let outputs = graph.outputs().iter();
        let outputs = outputs.map(|output| (output.name.to_string(), graph.dtype(output.value).to_string()));
        self.types = inputs.chain(outputs).collect();
        let shaped = graph.inputs().iter().filter_map(|id| {
            let value = graph.value((*id).into())?;
            let shape = value.info.shape.as_ref()?;
            Some((value.name.to_string(), shape.iter().map(ToString::to_string).collect()))
        });
        self.shapes = shaped.collect();
    }

    /// Tells the values that the engine was built for.
    pub(super) fn limit(&mut self, profiles: &[Profile]) {
        // Sessions run in the first profile.
        let ranges = profiles.first().into_iter().flat_map(|profile| &profile.ranges);
        let values = ranges.filter(|range| range.kind == RangeKind::Values);
        self.usual = values.clone().map(|range| (range.input.clone(), range.opt.clone())).collect();
        self.values = values.map(|range| (range.input.clone(), (range.min.clone(), range.max.clone()))).collect();
    }

    /// The values that an input always has, as far as the engine rests on that.
    pub(crate) fn fixed(&self, name: &str) -> Option<InputValues> {
        let each = self.values.get(name).filter(|(min, max)| min == max).map(|(min, _)| InputValues::Each(min.clone()));
        each.or_else(|| self.bounds.get(name).filter(|(min, max)| min == max).map(|(min, _)| InputValues::All(*min)))
    }

    /// The model's type of an input or output, if it is known.
    pub(crate) fn dtype(&self, name: &str) -> Option<DType> {
        DType::from_str(self.types.get(name)?).ok()
    }

    /// The dimensions of an input, as the model has them.
    pub(crate) fn shape(&self, name: &str) -> Option<Shape> {
        self.shapes.get(name)?.iter().map(|dim| dim.parse().ok()).collect()
    }

    /// What stands before the engine.
    pub(super) fn prefix(&self) -> Vec<u8> {
        // Strings and lists of them.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut prefix = MAGIC.to_vec();
        prefix.extend(u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
        prefix.extend(json);
        prefix
    }

    /// The header of a plan file, and the engine after it.
    ///
    /// # Errors
    /// If the file is no plan, or not whole.
    pub fn read(file: &[u8]) -> Result<(Self, &[u8]), PlanError> {
        let rest = file.strip_prefix(MAGIC).ok_or(PlanError::Magic)?;
        let cut = || PlanError::Header("it is cut off".to_owned());
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MOST_HEADER_BYTES {
            return Err(PlanError::Header(format!("it says to have {length} bytes")));
        }
        let (json, engine) = rest.split_at_checked(length).ok_or_else(cut)?;
        let header: Self = serde_json::from_slice(json).map_err(|why| PlanError::Header(why.to_string()))?;
        let found = engine.len() as u64;
        if found != header.bytes {
            return Err(PlanError::Length { expected: header.bytes, found });
        }
        if hash(engine) != header.hash {
            return Err(PlanError::Hash);
        }
        Ok((header, engine))
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Dim;

    use super::*;
    use crate::tensorrt::Flavour;

    fn file() -> (PlanHeader, Vec<u8>) {
        let version = Version { flavour: Flavour::TensorRt, major: 8, minor: 5, patch: 3 };
        let mut header = PlanHeader::new(version, &[ComputeCapability { major: 9, minor: 0 }], b"engine");
        header.describe(&"graph g(%x: i64[n, 2*n+3]) -> (%y) { %y = cast(%x) to=f16 }".parse().unwrap());
        let mut file = header.prefix();
        file.extend(b"engine");
        (header, file)
    }

    #[test]
    fn a_plan_is_read_back() {
        let (header, file) = file();
        assert_eq!(PlanHeader::read(&file), Ok((header.clone(), b"engine".as_slice())));
        assert_eq!((header.tensorrt.as_str(), header.gpus.join(",")), ("TensorRT 8.5.3", "9.0".to_owned()));
        assert_eq!((header.dtype("x"), header.dtype("y")), (Some(DType::I64), Some(DType::F16)));
        assert_eq!(header.shape("x"), Some([Dim::symbol("n"), "2*n+3".parse().unwrap()].into_iter().collect()));
        assert_eq!(header.shape("y"), None);
    }

    #[test]
    fn every_cut_is_told() {
        let (_, file) = file();
        for end in 0..file.len() {
            let error = PlanHeader::read(&file[..end]).unwrap_err();
            let is_engine_cut = end > file.len() - 6;
            assert_eq!(
                matches!(error, PlanError::Length { .. }),
                is_engine_cut || end == file.len() - 6,
                "{end}: {error}"
            );
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(matches!(PlanHeader::read(&longer), Err(PlanError::Length { expected: 6, found: 7 })));
    }

    #[test]
    fn other_bytes_are_told() {
        let (_, mut file) = file();
        *file.last_mut().unwrap() ^= 1;
        assert_eq!(PlanHeader::read(&file), Err(PlanError::Hash));
        assert_eq!(PlanHeader::read(b"ftrt and what TensorRT writes"), Err(PlanError::Magic));
        let mut long = MAGIC.to_vec();
        long.extend([0xff; 8]);
        assert!(matches!(PlanHeader::read(&long), Err(PlanError::Header(_))));
    }

    #[test]
    fn another_weight_is_another_model() {
        let model = |weight: &str| {
            let (mut header, _) = file();
            let text =
                format!("graph g(%x: f32[1]) -> (%y) {{ %c = constant() value=f32[1] {{{weight}}} %y = add(%x, %c) }}");
            header.describe(&text.parse().unwrap());
            header.model
        };
        assert_eq!(model("1.0"), model("1.0"));
        assert_ne!(model("1.0"), model("2.0"));
    }
}
