//! In which order a pipeline runs its passes, and when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trt_fuse_ir::{Capabilities, Graph, OpKind, Patch};
use trt_fuse_passes::{Options, Outcome, Pass, PassContext, PassError, Pipeline, Remark, Siblings, count_ops};

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

/// Lets what a node reads need the node itself.
#[derive(Debug)]
struct Breaks;

impl Pass for Breaks {
    fn name(&self) -> &'static str {
        "breaks"
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let (Some(first), Some(last)) =
            (graph.live_of(&[OpKind::Activation]).pop(), graph.live_of(&[OpKind::Unary]).pop())
        else {
            return Ok(Outcome::Unchanged);
        };
        if graph.sole_consumer(first.into()).is_none() {
            return Ok(Outcome::Unchanged);
        }
        let mut patch = Patch::new(self.name(), first);
        patch.replace(first.into(), last.into());
        context.apply(self.name(), graph, &patch)?.unwrap();
        Ok(Outcome::of(1))
    }
}

#[test]
fn a_graph_that_does_not_verify_is_put_down_to_passes() {
    let error = |verify_each: bool| {
        let counted = Counted { name: "counted", changes: 1, runs: Arc::default() };
        let pipeline = Pipeline::new(vec![Box::new(Breaks), Box::new(counted)], &Capabilities::default());
        let pipeline = if verify_each { pipeline.verify_each() } else { pipeline };
        let text = "graph g(%x: f32[4]) -> (%y) { %a = relu(%x) %y = exp(%a) }";
        pipeline.run(text.parse().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(error(true), "after breaks: acyclic at `y`: it reads `y`, which needs it");
    assert_eq!(error(false), "after breaks, counted: acyclic at `y`: it reads `y`, which needs it");
}

#[test]
fn of_equal_products_one_is_left() {
    let text = "graph g(%x: f32[4, 2, 8]) -> (%y) {
        %u = constant() value=f32[8, 8] splat 2
        %v = constant() value=f32[8, 8] splat 2
        %i = constant() value=i64[] {3}
        %a = gather(%x, %i) axis=0
        %b = gather(%x, %i) axis=0
        %c = matmul(%a, %u)
        %d = matmul(%a, %v)
        %e = matmul(%b, %v)
        %f = relu(%c)
        %g = exp(%d)
        %h = add(%f, %g)
        %y = add(%h, %e)
    }";
    for siblings in [Siblings::Auto, Siblings::Always] {
        let options = Options { siblings, ..Options::default() };
        let pipeline = Pipeline::standard(&Capabilities::default()).with_options(options);
        let (after, _) = pipeline.run(text.parse().unwrap()).unwrap();
        let ops = count_ops(&after);
        let found: Vec<(&str, usize)> = ops.iter().map(|(op, count)| (&**op, *count)).collect();
        assert_eq!(found, [("add", 2), ("exp", 1), ("gather", 1), ("matmul", 1), ("relu", 1)], "{after}");
    }
}
