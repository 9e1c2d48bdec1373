//! Random graphs from fresh seeds for as long as one likes, and once more from the seeds that found something.
//!
//! `make fuzz` runs this for `FUZZ_SECONDS` (600 unless set). It prints each seed that fails, with the smallest graph
//! that leaving out instructions gives; the seed then goes into `seeds.txt`, and the graph into a test of the pass.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;
use trt_fuse_ir::{Capabilities, Graph};

use super::{EXACT, Instruction, keeps, make, standard, standard_for_half};
use crate::{Pipeline, Siblings};

/// Seeds that found something, one a line; what follows `#` is for readers.
const SEEDS: &str = include_str!("seeds.txt");

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What a seed stands for.
#[derive(Clone)]
struct Case {
    instructions: Vec<Instruction>,
    symbolic: bool,
    /// Chooses the pass that runs alone and the one that is left out.
    pass: usize,
}

impl Case {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let head = random.next();
        let instructions =
            (0..1 + head % 32).map(|_| (random.next() as u8, random.next() as u16, random.next())).collect();
        Self { instructions, symbolic: head >> 32 & 1 == 1, pass: (head >> 40) as usize }
    }

    fn graph(&self) -> Graph {
        make(&self.instructions, self.symbolic)
    }

    /// What is wrong, if anything is: the standard passes, one of them alone, all but one, all for an old target in f16, then
    /// the lowering for a new and an old target.
    fn fault(&self) -> Option<String> {
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let graph = self.graph();
            let siblings = if self.pass.is_multiple_of(2) { Siblings::Always } else { Siblings::Auto };
            let standard = || standard(siblings);
            let names = standard().names();
            let name = names[self.pass % names.len()];
            let is_exact = EXACT.contains(&name) || name.starts_with("drop_");
            keeps(&graph, &standard().only(&[name]).unwrap(), &[2], if is_exact { 0.0 } else { 1e-4 })?;
            keeps(&graph, &standard().without(name).unwrap(), &[2], 1e-4)?;
            let optimized = keeps(&graph, &standard(), &[1, 2, 3], 1e-4)?;
            keeps(&graph, &standard_for_half(), &[2], 1e-4)?;
            for target in [Capabilities::default(), Capabilities::tensorrt((8, 6, 1))] {
                for graph in [&graph, &optimized] {
                    keeps(graph, &Pipeline::lowering(&target).verify_each(), &[2], 1e-4)?;
                }
            }
            Ok(())
        }));
        match tried {
            Ok(kept) => kept.err(),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Some(format!("panicked: {text}"))
            }
        }
    }

    /// A case with as few instructions as leaving out one at a time gives, and its fault.
    fn shrunk(mut self, mut fault: String) -> (Self, String) {
        let mut at = self.instructions.len();
        while let Some(earlier) = at.checked_sub(1) {
            at = earlier;
            let mut fewer = self.clone();
            fewer.instructions.remove(at);
            if let Some(smaller) = fewer.fault() {
                (self, fault) = (fewer, smaller);
            }
        }
        (self, fault)
    }
}

/// What is wrong with a seed's graph, in full.
fn report(seed: u64) -> Option<String> {
    let case = Case::of(seed);
    let fault = case.fault()?;
    let (case, fault) = case.shrunk(fault);
    let mut text = format!("seed {seed:#x}: {fault}\n");
    if fault.starts_with("panicked") {
        writeln!(text, "{}", case.graph()).unwrap();
    }
    Some(text)
}

#[test]
fn seeds_that_found_something_find_nothing_more() {
    for line in SEEDS.lines() {
        let seed = line.split('#').next().unwrap().trim();
        if seed.is_empty() {
            continue;
        }
        let seed = u64::from_str_radix(seed.trim_start_matches("0x"), 16).unwrap();
        if let Some(fault) = report(seed) {
            panic!("{fault}");
        }
    }
}

#[test]
#[ignore = "runs for FUZZ_SECONDS"]
fn fuzz() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map_or(600, |text| text.parse().unwrap());
    let limit = Duration::from_secs(seconds);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (mut seeds, start) = (Random(now.as_nanos() as u64), Instant::now());
    let (mut graphs, mut failures) = (0, 0);
    // What panics is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    while start.elapsed() < limit {
        let batch: Vec<u64> = (0..64).map(|_| seeds.next()).collect();
        graphs += batch.len();
        let faults: Vec<String> = batch.into_par_iter().filter_map(report).collect();
        failures += faults.len();
        faults.iter().for_each(|fault| println!("{fault}"));
    }
    drop(std::panic::take_hook());
    println!("{graphs} graphs in {seconds} s, {failures} failures");
    assert_eq!(failures, 0);
}
