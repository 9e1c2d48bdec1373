//! What the programs share: options, progress, printing, exit codes.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use trt_fuse::ir::Capabilities;
use trt_fuse::passes::Siblings;
use trt_fuse::tensorrt::ComputeCapability;
use trt_fuse::{Error, ErrorKind, Note, Options, PassSelection, Range};

/// Options of every program that takes a model.
#[derive(Args)]
pub(crate) struct Common {
    /// Range of a symbolic dimension: SYMBOL=MIN:OPT:MAX or SYMBOL=SIZE; of an element of an input whose values decide
    /// shapes: `INPUT[0]=MIN:OPT:MAX`; of all elements of an input of integers: `INPUT[]=MIN:OPT:MAX`. One number fixes it:
    /// `attention_mask[]=1` is a mask that hides nothing. May be repeated.
    #[arg(long = "range", value_name = "RANGE")]
    ranges: Vec<Range>,
    /// Passes not to run, separated by commas.
    #[arg(long, value_name = "PASSES", value_delimiter = ',')]
    skip: Vec<String>,
    /// The only passes to run, separated by commas.
    #[arg(long, value_name = "PASSES", value_delimiter = ',')]
    passes: Option<Vec<String>>,
    /// Stop after this many runs of passes.
    #[arg(long, value_name = "COUNT")]
    stop_after: Option<usize>,
    /// Which products and convolutions of one input become one wide one: auto (those that were measured to gain from
    /// it), always, or never.
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    siblings: Siblings,
    /// The TensorRT library or its folder; searched for if not given.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Take this version for the target where nothing is built: e.g. 8.5.3 (TensorRT) or rtx-1.7.1.
    #[arg(long, value_name = "VERSION", value_parser = target)]
    target: Option<Capabilities>,
    /// GPUs to build for (TensorRT-RTX), e.g. 8.6,12.0; its default list if not given.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = capability)]
    compute_capability: Vec<ComputeCapability>,
    /// Most device memory for temporaries, in MiB.
    #[arg(long, value_name = "MIB")]
    workspace: Option<u64>,
    /// How long to look for fast kernels, 0 to 5.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=5))]
    optimization_level: Option<u8>,
    /// Let float products round to TF32.
    #[arg(long)]
    tf32: bool,
    /// Let TensorRT 8 compute in f16 where that is faster, whatever the model's types.
    #[arg(long)]
    fp16: bool,
    /// File of times that kernels took, kept between builds of TensorRT; made if it is not there.
    #[arg(long, value_name = "FILE")]
    timing_cache: Option<PathBuf>,
    /// Folder of engines, kept between builds; made if it is not there.
    #[arg(long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
    /// Print everything that TensorRT says while it builds.
    #[arg(long)]
    verbose: bool,
}

fn target(text: &str) -> Result<Capabilities, String> {
    let (is_rtx, numbers) = text.strip_prefix("rtx-").map_or((false, text), |numbers| (true, numbers));
    let numbers: Option<Vec<u32>> = numbers.split('.').map(|number| number.parse().ok()).collect();
    match (numbers.as_deref(), is_rtx) {
        (Some([major, minor, patch]), true) => Ok(Capabilities::rtx((*major, *minor, *patch))),
        (Some([major, minor, patch]), false) => Ok(Capabilities::tensorrt((*major, *minor, *patch))),
        _ => Err(format!("`{text}` is no version: write e.g. 10.3.0 or rtx-1.7.1")),
    }
}

fn capability(text: &str) -> Result<ComputeCapability, String> {
    let parsed = text
        .split_once('.')
        .and_then(|(major, minor)| Some(ComputeCapability { major: major.parse().ok()?, minor: minor.parse().ok()? }));
    parsed.ok_or_else(|| format!("`{text}` is no compute capability: write e.g. 8.6"))
}

impl Common {
    /// The library's options.
    ///
    /// # Errors
    /// If two ranges speak of the same.
    pub(crate) fn options(&self) -> Result<Options, Error> {
        let mut options = Options {
            capabilities: self.target.clone(),
            passes: PassSelection {
                only: self.passes.clone(),
                skip: self.skip.clone(),
                stop_after: self.stop_after,
                siblings: self.siblings,
            },
            library: self.library.clone(),
            ..Options::default()
        }
        .with_ranges(self.ranges.clone())?;
        options.build.workspace = self.workspace.map(|mib| mib.saturating_mul(1 << 20));
        options.build.optimization_level = self.optimization_level;
        options.build.compute_capabilities = self.compute_capability.clone();
        options.build.tf32 = self.tf32;
        options.build.fp16 = self.fp16;
        options.build.timing_cache = self.timing_cache.clone();
        options.build.verbose = self.verbose;
        options.engine_cache = self.engine_cache.clone();
        Ok(options)
    }
}

/// Shows a build's phases on a terminal.
pub(crate) struct BuildProgress(ProgressBar);

impl BuildProgress {
    /// Hidden unless something is built; indicatif hides it too where stderr is no terminal.
    pub(crate) fn new(shown: bool) -> Self {
        if !shown {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} building [{elapsed}] {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// What the builder calls.
    pub(crate) fn callback(&self) -> impl FnMut(&str, i32, i32) -> bool + Send + use<> {
        let bar = self.0.clone();
        move |phase, step, steps| {
            bar.set_message(format!("{phase} {step}/{steps}"));
            bar.tick();
            true
        }
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Prints to stdout; a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = stdout.write_all(b"\n");
    }
}

/// Text with names from a file in it, fit for one line of a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// What is worth knowing, one line each on stderr.
pub(crate) fn warn(notes: &[Note]) {
    let mut stderr = std::io::stderr().lock();
    for note in notes {
        let _ = writeln!(stderr, "warning: {}", one_line(&note.to_string()));
    }
}

/// The exit code of a run, its error printed as one line.
pub(crate) fn exit(result: Result<(), Error>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let code = fail(&error.to_string());
    if error.kind() == ErrorKind::Unsupported { ExitCode::from(2) } else { code }
}

/// One line on stderr, and exit code 1.
pub(crate) fn fail(message: &str) -> ExitCode {
    let line = message.replace('\n', " ");
    let _ = writeln!(std::io::stderr().lock(), "error: {line}");
    ExitCode::from(1)
}
