//! Timing an engine, in the terms of `trtexec`. Each run of a session waits for the one before, copies included.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use trt_fuse_ir::Tensor;

use super::cuda::Event;
use super::error::RuntimeError;
use super::session::Session;

/// How long to measure, in `trtexec`'s meaning.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Fewest runs that are measured.
    pub iterations: usize,
    /// Time that is run before anything is measured.
    pub warm_up: Duration,
    /// Shortest time that is measured.
    pub duration: Duration,
    /// Whether inputs and outputs are copied in each run.
    pub transfers: bool,
    /// Percentages of runs whose longest time is told.
    pub percentiles: Vec<f64>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            iterations: 10,
            warm_up: Duration::from_millis(200),
            duration: Duration::from_secs(3),
            transfers: true,
            percentiles: vec![50.0, 90.0, 99.0],
        }
    }
}

/// Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Largest.
    pub max: f64,
    /// Under `pN`: N percent are no longer.
    #[serde(flatten)]
    pub percentiles: BTreeMap<String, f64>,
}

impl Spread {
    /// Of times in milliseconds, each percentile one that was measured; zeros if there are none.
    fn of(mut times: Vec<f64>, percentiles: &[f64]) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |percent: f64| {
            let rank = (percent / 100.0 * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        let percentiles = percentiles.iter().map(|percent| (format!("p{percent}"), at(*percent))).collect();
        Self { min: at(0.0), mean, max: at(100.0), percentiles }
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Runs measured.
    pub runs: usize,
    /// Host time to put a run's work on the stream.
    pub enqueue: Spread,
    /// Copies to the GPU.
    pub h2d: Spread,
    /// From the start of the engine's work to its end, on the GPU.
    pub compute: Spread,
    /// Copies from the GPU.
    pub d2h: Spread,
    /// From the first copy to the end of the last, on the GPU.
    pub latency: Spread,
    /// Runs a second, of all streams together.
    pub throughput: f64,
}

/// Times of each run.
#[derive(Default)]
struct Times {
    enqueue: Vec<f64>,
    h2d: Vec<f64>,
    compute: Vec<f64>,
    d2h: Vec<f64>,
    latency: Vec<f64>,
    seconds: f64,
}

impl Times {
    fn summary(all: Vec<Self>, percentiles: &[f64]) -> Measured {
        let throughput = all.iter().map(|times| times.compute.len() as f64 / times.seconds).sum();
        let spread = |part: fn(&Self) -> &Vec<f64>| {
            Spread::of(all.iter().flat_map(|times| part(times).iter().copied()).collect(), percentiles)
        };
        Measured {
            runs: all.iter().map(|times| times.compute.len()).sum(),
            throughput,
            enqueue: spread(|times| &times.enqueue),
            h2d: spread(|times| &times.h2d),
            compute: spread(|times| &times.compute),
            d2h: spread(|times| &times.d2h),
            latency: spread(|times| &times.latency),
        }
    }
}

/// Measures sessions at the same time, each in a thread of its own, on the same inputs.
///
/// # Errors
/// As [`Session::run`].
pub fn measure_streams(
    sessions: &mut [Session],
    inputs: &[(&str, &Tensor)],
    options: &BenchOptions,
) -> Result<Measured, RuntimeError> {
    let times = std::thread::scope(|scope| {
        let started: Vec<_> =
            sessions.iter_mut().map(|session| scope.spawn(|| session.times(inputs, options))).collect();
        let ended = started.into_iter().map(|thread| thread.join());
        let lost = |_| Err(RuntimeError::TensorRt { message: "a measuring thread panicked".to_owned() });
        ended.map(|times| times.unwrap_or_else(lost)).collect::<Result<Vec<Times>, _>>()
    })?;
    Ok(Times::summary(times, &options.percentiles))
}

impl Session {
    /// Measures runs on given inputs, one after the other.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn measure(&mut self, inputs: &[(&str, &Tensor)], options: &BenchOptions) -> Result<Measured, RuntimeError> {
        self.times(inputs, options).map(|times| Times::summary(vec![times], &options.percentiles))
    }

    fn times(&mut self, inputs: &[(&str, &Tensor)], options: &BenchOptions) -> Result<Times, RuntimeError> {
        self.prepare(inputs)?;
        let times = self.times_prepared(options);
        let finished = self.finish();
        let times = times?;
        finished.map(|()| times)
    }

    fn times_prepared(&mut self, options: &BenchOptions) -> Result<Times, RuntimeError> {
        let device = self.engine().device().clone();
        let events: [Event; 4] =
            [Event::new(&device)?, Event::new(&device)?, Event::new(&device)?, Event::new(&device)?];
        self.upload()?;
        let start = Instant::now();
        while start.elapsed() < options.warm_up {
            self.run_once(&events, options.transfers)?;
        }
        let mut times = Times::default();
        let start = Instant::now();
        while times.compute.len() < options.iterations || start.elapsed() < options.duration {
            times.enqueue.push(self.run_once(&events, options.transfers)?);
            let [began, uploaded, computed, ended] = &events;
            times.h2d.push(uploaded.since(began)?);
            times.compute.push(computed.since(uploaded)?);
            times.d2h.push(ended.since(computed)?);
            times.latency.push(ended.since(began)?);
        }
        times.seconds = start.elapsed().as_secs_f64();
        Ok(times)
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
        let found = Spread::of(times, &[50.0, 90.0, 99.0]);
        let percentiles = [("p50", 100.0), ("p90", 180.0), ("p99", 198.0)];
        let percentiles = percentiles.map(|(name, ms)| (name.to_owned(), ms)).into();
        assert_eq!(found, Spread { min: 1.0, mean: 100.5, max: 200.0, percentiles });
        assert_eq!(Spread::of(Vec::new(), &[99.5]).percentiles["p99.5"], 0.0);
    }

    #[test]
    fn streams_add_up() {
        let times = |compute: &[f64], seconds| Times { compute: compute.to_vec(), seconds, ..Times::default() };
        let measured = Times::summary(vec![times(&[1.0, 2.0], 0.5), times(&[4.0], 1.0)], &[50.0]);
        assert_eq!((measured.runs, measured.throughput), (3, 5.0));
        assert_eq!(measured.compute.percentiles["p50"], 2.0);
    }
}
