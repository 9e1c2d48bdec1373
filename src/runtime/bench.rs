//! Timing an engine as `trtexec` does.

use std::time::{Duration, Instant};

use serde::Serialize;
use trt_fuse_ir::Tensor;

use super::cuda::Event;
use super::error::RuntimeError;
use super::session::Session;

/// How long to measure, in `trtexec`'s meaning.
#[derive(Debug, Clone, Copy)]
pub struct BenchOptions {
    /// Fewest runs that are measured.
    pub iterations: usize,
    /// Time that is run before anything is measured.
    pub warm_up: Duration,
    /// Shortest time that is measured.
    pub duration: Duration,
    /// Whether inputs and outputs are copied in each run.
    pub transfers: bool,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { iterations: 10, warm_up: Duration::from_millis(200), duration: Duration::from_secs(3), transfers: true }
    }
}

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Smallest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Half are below.
    pub median: f64,
    /// 90% are below.
    pub p90: f64,
    /// 99% are below.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Percentiles {
    /// Of times in milliseconds, each the nearest that was measured; zeros if there are none.
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let rank = (part * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        Self { min: at(0.0), mean, median: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Runs measured.
    pub runs: usize,
    /// Host time to put a run's work on the stream.
    pub enqueue: Percentiles,
    /// Copies to the GPU.
    pub h2d: Percentiles,
    /// From the start of the engine's work to its end, on the GPU.
    pub compute: Percentiles,
    /// Copies from the GPU.
    pub d2h: Percentiles,
    /// From the first copy to the end of the last, on the GPU.
    pub latency: Percentiles,
    /// Runs a second, one after the other.
    pub throughput: f64,
}

impl Session {
    /// Measures runs on given inputs, one after the other.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn measure(&mut self, inputs: &[(&str, &Tensor)], options: &BenchOptions) -> Result<Measured, RuntimeError> {
        self.prepare(inputs)?;
        let measured = self.measure_prepared(options);
        let finished = self.stream.synchronize();
        let measured = measured?;
        finished.map(|()| measured)
    }

    fn measure_prepared(&mut self, options: &BenchOptions) -> Result<Measured, RuntimeError> {
        let device = self.engine().device().clone();
        let events: [Event; 4] =
            [Event::new(&device)?, Event::new(&device)?, Event::new(&device)?, Event::new(&device)?];
        self.upload()?;
        let start = Instant::now();
        while start.elapsed() < options.warm_up {
            self.run_once(&events, options.transfers)?;
        }
        let [mut enqueue, mut h2d, mut compute, mut d2h, mut latency] = [const { Vec::new() }; 5];
        let start = Instant::now();
        while compute.len() < options.iterations || start.elapsed() < options.duration {
            enqueue.push(self.run_once(&events, options.transfers)?);
            let [began, uploaded, computed, ended] = &events;
            h2d.push(uploaded.since(began)?);
            compute.push(computed.since(uploaded)?);
            d2h.push(ended.since(computed)?);
            latency.push(ended.since(began)?);
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Measured {
            runs: compute.len(),
            throughput: compute.len() as f64 / seconds,
            enqueue: Percentiles::of(enqueue),
            h2d: Percentiles::of(h2d),
            compute: Percentiles::of(compute),
            d2h: Percentiles::of(d2h),
            latency: Percentiles::of(latency),
        })
    }

    /// One run to its end; the host's milliseconds to put the engine's work on the stream.
    fn run_once(
        &mut self,
        [began, uploaded, computed, ended]: &[Event; 4],
        transfers: bool,
    ) -> Result<f64, RuntimeError> {
        self.stream.record(began)?;
        if transfers {
            self.upload()?;
        }
        self.stream.record(uploaded)?;
        let start = Instant::now();
        self.enqueue()?;
        let enqueued = start.elapsed();
        self.stream.record(computed)?;
        if transfers {
            self.download()?;
        }
        self.stream.record(ended)?;
        self.stream.synchronize()?;
        Ok(enqueued.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_times() {
        let times = (1..=200).rev().map(f64::from).collect();
        let found = Percentiles::of(times);
        let expected = Percentiles { min: 1.0, mean: 100.5, median: 100.0, p90: 180.0, p99: 198.0, max: 200.0 };
        assert_eq!(found, expected);
        assert_eq!(Percentiles::of(Vec::new()).p99, 0.0);
    }
}
