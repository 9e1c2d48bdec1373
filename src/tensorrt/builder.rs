//! Building an engine, and keeping it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cxx::UniquePtr;

use super::engine::{self, EngineLayer};
use super::ffi::{self, bridge};
use super::library::Flavour;
use super::timing::TimingFile;
use super::{EngineError, PlanError, PlanHeader, TrtNetwork, Version};
use crate::files::{read_whole, write_whole};

/// A generation of GPUs, such as 8.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeCapability {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
}

/// What a range of a profile is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// The input's extents.
    Extents,
    /// The values of an input that shapes are computed from.
    Values,
}

/// The smallest, usual and largest extents or values of an input.
#[derive(Debug, Clone)]
pub struct InputRange {
    /// Name of the input.
    pub input: String,
    /// What the numbers are.
    pub kind: RangeKind,
    /// Smallest.
    pub min: Vec<i64>,
    /// What kernels are chosen for.
    pub opt: Vec<i64>,
    /// Largest.
    pub max: Vec<i64>,
}

/// An optimization profile: a range of each input that has extents or values known only at run time.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The ranges.
    pub ranges: Vec<InputRange>,
}

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct BuilderConfig {
    /// Most bytes of device memory for temporaries; TensorRT's default if missing.
    pub workspace: Option<u64>,
    /// How long to look for fast kernels, 0 to 5; TensorRT's default if missing.
    pub optimization_level: Option<u8>,
    /// GPUs to build for (TensorRT-RTX only); its default list if empty.
    pub compute_capabilities: Vec<ComputeCapability>,
    /// Optimization profiles; none for a network of fixed extents.
    pub profiles: Vec<Profile>,
    /// Whether the plan tells of its layers in detail, which [`Plan::layers`] needs. The kernels are the same.
    pub detailed: bool,
    /// Whether float products may be rounded to TF32.
    pub tf32: bool,
    /// Whether f32 may be computed in f16 where that is faster. For versions with weak types (before 11) only, where it
    /// lets go of the model's types.
    pub fp16: bool,
    /// A file of times that kernels took, which is read before and written after a build; it is made if it is not there.
    /// Builds of the same TensorRT on the same GPU measure again only what is not in it. Not for TensorRT-RTX, which
    /// measures nothing.
    pub timing_cache: Option<PathBuf>,
    /// Whether everything that TensorRT says goes to stderr.
    pub verbose: bool,
}

/// A progress callback: phase, step, steps in the phase. `false` stops the build. Called from TensorRT's threads, one
/// call at a time; a panic stops the build.
pub type Progress<'a> = dyn FnMut(&str, i32, i32) -> bool + Send + 'a;

/// Held during a build. TensorRT-RTX keeps the GPUs that it builds for in the process, so that builds for different ones
/// at the same time fail or mix.
static BUILDING: Mutex<()> = Mutex::new(());

/// A serialized engine.
pub struct Plan {
    engine: Serialized,
    layers: Vec<EngineLayer>,
    pub(crate) header: PlanHeader,
    /// Why the timing cache was not read or written.
    pub(crate) timing_refusal: Option<String>,
}

/// Where an engine's bytes lie.
enum Serialized {
    /// In TensorRT's memory.
    Built(UniquePtr<bridge::Plan>),
    /// In a plan file, from a place on.
    Read { file: Vec<u8>, start: usize },
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan of {} bytes", self.bytes().len())
    }
}

impl TrtNetwork<'_> {
    /// Builds the engine. One build at a time in a process: others wait.
    ///
    /// # Errors
    /// If a range is refused, or the build fails or is stopped.
    pub fn build(self, config: &BuilderConfig, progress: Option<&mut Progress<'_>>) -> Result<Plan, EngineError> {
        build(self.inner, self.version, config, progress)
    }
}

pub(super) fn build(
    mut network: UniquePtr<bridge::Network>,
    version: Version,
    config: &BuilderConfig,
    progress: Option<&mut Progress<'_>>,
) -> Result<Plan, EngineError> {
    for (index, profile) in config.profiles.iter().enumerate() {
        add_profile(&mut network, index, profile)?;
    }
    let capabilities: Vec<i32> = config
        .compute_capabilities
        .iter()
        .map(|capability| i32::from(capability.major) * 10 + i32::from(capability.minor))
        .collect();
    let mut timing_refusal = None;
    let timing_file =
        config.timing_cache.as_deref().filter(|_| version.flavour == Flavour::TensorRt).map(TimingFile::new);
    let timings = timing_file.as_ref().map(TimingFile::read).unwrap_or_else(|| Ok(Vec::new()));
    let timings = timings.unwrap_or_else(|why| {
        timing_refusal = Some(why);
        Vec::new()
    });
    let raw = bridge::RawBuildConfig {
        workspace: config.workspace.unwrap_or(0),
        optimization_level: config.optimization_level.map_or(-1, i32::from),
        detailed: config.detailed,
        tf32: config.tf32,
        fp16: config.fp16,
        compute_capabilities: &capabilities,
        keeps_timings: timing_file.is_some(),
        timings: &timings,
        verbose: config.verbose,
    };
    let stopped = AtomicBool::new(false);
    let callback = progress.map(|callback| {
        let watched = |phase: &str, step: i32, steps: i32| {
            // Set first, so that it stays set if the callback panics.
            stopped.store(true, Ordering::Relaxed);
            let go_on = callback(phase, step, steps);
            stopped.store(!go_on, Ordering::Relaxed);
            go_on
        };
        Mutex::new(Box::new(watched) as Box<ffi::ProgressFn<'_>>)
    });
    let building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = network.pin_mut().build(&raw, &ffi::Progress(callback)).map_err(|why| {
        if stopped.load(Ordering::Relaxed) {
            EngineError::Stopped
        } else {
            EngineError::Build { message: why.what().to_owned() }
        }
    })?;
    // Another process may keep the timing cache's lock.
    drop(building);
    if let Some(file) = timing_file {
        let refused = Some(network.timings_refused()).filter(|why| !why.is_empty());
        let written = file.update(|others| network.pin_mut().timings(others).map_err(|why| why.what().to_owned()));
        timing_refusal = timing_refusal.or(refused).or(written.err());
    }
    let bytes = plan.as_ref().map(bridge::Plan::bytes).unwrap_or_default();
    let mut header = PlanHeader::new(version, &config.compute_capabilities, bytes);
    header.limit(&config.profiles);
    Ok(Plan {
        engine: Serialized::Built(plan),
        layers: engine::parse_log(&network.engine_log()),
        header,
        timing_refusal,
    })
}

fn add_profile(network: &mut UniquePtr<bridge::Network>, index: usize, profile: &Profile) -> Result<(), EngineError> {
    let fail = |why: cxx::Exception| EngineError::Build { message: why.what().to_owned() };
    let id = network.pin_mut().add_profile().map_err(fail)?;
    for range in &profile.ranges {
        let raw = bridge::RawRange {
            input: &range.input,
            min: &range.min,
            opt: &range.opt,
            max: &range.max,
            values: range.kind == RangeKind::Values,
        };
        network.pin_mut().set_range(id, &raw).map_err(|why| EngineError::Range {
            profile: index,
            input: range.input.clone(),
            message: why.what().to_owned(),
        })?;
    }
    Ok(())
}

impl Plan {
    /// Reads a plan file. Nothing is asked of TensorRT or a GPU.
    ///
    /// # Errors
    /// If it cannot be read, is no plan, or is not whole.
    pub fn open(path: &Path) -> Result<Self, PlanError> {
        let unread = |error: std::io::Error| PlanError::File { path: path.to_owned(), reason: error.to_string() };
        let file = read_whole(path).map_err(unread)?;
        let (header, engine) = PlanHeader::read(&file)?;
        let start = file.len() - engine.len();
        Ok(Self { engine: Serialized::Read { file, start }, layers: Vec::new(), header, timing_refusal: None })
    }

    /// The serialized engine, as TensorRT takes it.
    pub fn bytes(&self) -> &[u8] {
        match &self.engine {
            Serialized::Built(plan) => plan.as_ref().map(bridge::Plan::bytes).unwrap_or_default(),
            Serialized::Read { file, start } => file.get(*start..).unwrap_or_default(),
        }
    }

    /// Where it comes from, and where it runs.
    pub fn header(&self) -> &PlanHeader {
        &self.header
    }

    /// The engine's layers in order of execution, once for each optimization profile, stream synchronization left out.
    /// Empty unless built with [`BuilderConfig::detailed`].
    pub fn layers(&self) -> &[EngineLayer] {
        &self.layers
    }

    /// Writes the header and the engine to a file, all of it or nothing: it is written beside it, then renamed.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let parts: [&[u8]; 2] = [&self.header.prefix(), self.bytes()];
        write_whole(path, &parts).map_err(|source| EngineError::Save { path: path.to_owned(), source })
    }

    /// As [`Plan::save`], the engine alone, as programs of TensorRT take it.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn save_bare(&self, path: &Path) -> Result<(), EngineError> {
        write_whole(path, &[self.bytes()]).map_err(|source| EngineError::Save { path: path.to_owned(), source })
    }
}
