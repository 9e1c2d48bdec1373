//! In which order a pipeline runs its passes, and when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trt_fuse_ir::{Capabilities, Graph};
use trt_fuse_passes::{Outcome, Pass, PassContext, PassError, Pipeline, Remark};

/// Says that it has changed the graph the first so many times, and leaves a remark each time.
#[derive(Debug)]
struct Counted {
    name: &'static str,
    changes: usize,
    runs: Arc<AtomicUsize>,
}

impl Pass for Counted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, _: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let reason = format!("run {run}");
        context.remarks.push(Remark {
            rule: self.name,
            node: "x".into(),
            op: "".into(),
            condition: reason.clone(),
            reason,
        });
        Ok(Outcome::of(usize::from(run < self.changes)))
    }
}

/// How often each of three passes is run, and what it remarks in the end, where each changes the graph so many times.
fn runs(changes: [usize; 3]) -> ([usize; 3], Vec<String>) {
    let runs: [Arc<AtomicUsize>; 3] = Default::default();
    let counted = |at: usize| {
        let name = ["a", "b", "c"][at];
        Box::new(Counted { name, changes: changes[at], runs: runs[at].clone() }) as Box<dyn Pass>
    };
    let graph: Graph = "graph g(%x: f32[4]) -> (%y) { %y = relu(%x) }".parse().unwrap();
    let pipeline = Pipeline::new((0..3).map(counted).collect(), &Capabilities::default());
    let (_, report) = pipeline.run(graph).unwrap();
    let remarks = report.remarks.iter().map(|remark| format!("{}: {}", remark.rule, remark.reason)).collect();
    (runs.each_ref().map(|runs| runs.load(Ordering::Relaxed)), remarks)
}

#[test]
fn a_pass_is_run_again_only_after_a_change() {
    assert_eq!(runs([0, 0, 0]), ([1, 1, 1], vec!["a: run 0".into(), "b: run 0".into(), "c: run 0".into()]));
    // Until each has left what the others have: b and c have seen the graph after a's change.
    assert_eq!(runs([1, 0, 0]), ([2, 1, 1], vec!["a: run 1".into(), "b: run 0".into(), "c: run 0".into()]));
    assert_eq!(runs([0, 1, 0]).0, [2, 2, 1]);
    assert_eq!(runs([0, 0, 1]).0, [2, 2, 2]);
    assert_eq!(runs([1, 0, 2]).0, [3, 3, 3]);
}
