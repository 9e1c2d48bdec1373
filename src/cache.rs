//! Engines kept between builds: a folder of plan files, each under a hash of all that decides what TensorRT builds.

use std::path::{Path, PathBuf};

use trt_fuse_ir::Graph;
use xxhash_rust::xxh3::xxh3_128;

use crate::Options;
use crate::emit::record::Record;
use crate::tensorrt::{BuilderConfig, EngineError, Plan, PlanError};

/// A folder of plans.
pub(crate) struct EngineCache<'p> {
    folder: &'p Path,
}

impl<'p> EngineCache<'p> {
    pub(crate) fn new(folder: &'p Path) -> Self {
        Self { folder }
    }

    /// Where the plan of a network lies that `built_by`, a TensorRT on a GPU, makes.
    ///
    /// A plan also tells the model's types, which the network does not: those of `graph` count too.
    pub(crate) fn place(&self, graph: &Graph, network: &Record, options: &Options, built_by: &str) -> PathBuf {
        // What decides nothing of the engine is left out.
        let config = BuilderConfig { timing_cache: None, verbose: false, ..options.build.clone() };
        let inputs = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
        let inputs = inputs.map(|value| format!("{}: {}", value.name, value.info.dtype));
        let outputs = graph.outputs().iter();
        let outputs = outputs.map(|output| format!("{}: {}", output.name, graph.dtype(output.value)));
        let types: Vec<String> = inputs.chain(outputs).collect();
        let bridge = (env!("CARGO_PKG_VERSION"), env!("TRTFUSE_BRIDGE"));
        let told = (&options.ranges, graph.fixed_inputs());
        let decisive = format!("{built_by}\n{bridge:?}\n{config:?}\n{told:?}\n{types:?}\n{}", network.text());
        self.folder.join(format!("{:032x}.plan", xxh3_128(decisive.as_bytes())))
    }

    /// The plan at a place; none if nothing lies there, why it cannot be used otherwise.
    pub(crate) fn find(&self, place: &Path) -> Result<Option<Plan>, PlanError> {
        if !place.exists() {
            return Ok(None);
        }
        Plan::open(place).map(Some)
    }

    /// Keeps a plan.
    pub(crate) fn keep(&self, place: &Path, plan: &Plan) -> Result<(), EngineError> {
        let fail = |source| EngineError::Save { path: self.folder.to_owned(), source };
        std::fs::create_dir_all(self.folder).map_err(fail)?;
        plan.save(place)
    }
}
