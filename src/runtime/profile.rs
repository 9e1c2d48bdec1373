//! The time that each layer of an engine takes.

use serde::Serialize;
use trt_fuse_ir::Tensor;

use super::engine::refused;
use super::error::RuntimeError;
use super::session::Session;

/// A layer of an engine and the time it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerTime {
    /// Its name, made of the names of the ONNX nodes in it.
    pub layer: String,
    /// Mean milliseconds in a run.
    pub ms: f64,
}

impl Session {
    /// Measures each layer in some runs on given inputs, in order of execution. Layers wait for each other, so that a run
    /// takes longer than otherwise.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn profile(&mut self, inputs: &[(&str, &Tensor)], runs: usize) -> Result<Vec<LayerTime>, RuntimeError> {
        self.prepare(inputs)?;
        self.upload()?;
        self.context().profile(true).map_err(|why| refused(&why))?;
        let times = self.profile_prepared(runs);
        let stopped = self.context().profile(false).map_err(|why| refused(&why));
        let finished = self.finish();
        let times = times?;
        stopped.and(finished).map(|()| times)
    }

    fn profile_prepared(&mut self, runs: usize) -> Result<Vec<LayerTime>, RuntimeError> {
        let mut layers: Vec<LayerTime> = Vec::new();
        for run in 0..runs {
            self.enqueue_measured()?;
            self.stream.synchronize()?;
            for (at, time) in self.context().layer_times().into_iter().enumerate() {
                let ms = f64::from(time.ms) / runs as f64;
                match layers.get_mut(at) {
                    Some(layer) => layer.ms += ms,
                    // All runs have the same layers.
                    None if run == 0 => layers.push(LayerTime { layer: time.name, ms }),
                    None => {}
                }
            }
        }
        Ok(layers)
    }
}
