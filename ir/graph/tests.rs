use super::*;
use crate::op::{Activation, UnaryOp};
use crate::{Builder, GraphError, Patch};

/// Ways to break a graph, for the tests of what checks it.
impl Graph {
    /// Removes the edge to an input slot.
    pub(crate) fn cut(&mut self, to: Use) {
        let input = self.place(to.node).unwrap().inputs[to.slot as usize].unwrap();
        self.inner.remove_edge(input.edge);
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.walked.take();
        self.node_weight_mut(id).unwrap()
    }

    pub(crate) fn find(&self, name: &str) -> NodeId {
        self.node_ids().find(|id| self.node_name(*id) == name).unwrap()
    }
}

fn names(graph: &Graph, order: &[NodeId]) -> String {
    let names: Vec<&str> = order.iter().map(|id| graph.node_name(*id)).collect();
    names.join(" ")
}

const DIAMOND: &str = "graph g(%x: f32[n], %y: f32[n]) -> (%sum) {
    %b = relu(%y)
    %a = relu(%x)
    %dead = exp(%a)
    %sum = add(%a, %b)
}";

#[test]
fn the_order_follows_from_the_structure_alone() {
    let graph: Graph = DIAMOND.parse().unwrap();
    assert_eq!(names(&graph, &graph.topo()), "x y a b sum dead");
    assert_eq!(names(&graph, &graph.live()), "x y a b sum");

    // The same graph by way of nodes added and removed, whose indices petgraph takes again.
    let mut other: Graph = DIAMOND.replace("%b = relu", "%b = tanh").parse().unwrap();
    let old = other.find("b");
    let mut patch = Patch::new("test", old);
    let new = patch.add(Op::Activation(Activation::Relu), &[other.input(old, 0)]);
    patch.replace(old.into(), new).absorb([old]);
    other.apply(&patch).unwrap();
    assert_eq!(other.to_string(), graph.to_string());
    assert_eq!(names(&other, &other.topo()), names(&graph, &graph.topo()));
}

#[test]
fn readers_are_listed_oldest_first() {
    let graph: Graph = DIAMOND.parse().unwrap();
    let (x, a) = (graph.find("x"), graph.find("a"));
    let readers: Vec<&str> = graph.consumers(a.into()).iter().map(|reader| graph.node_name(reader.node)).collect();
    assert_eq!(readers, ["dead", "sum"]);
    assert_eq!(graph.sole_consumer(a.into()), None);
    assert_eq!(graph.sole_consumer(x.into()), Some(Use { node: a, slot: 0 }));
    assert_eq!(graph.sole_consumer(graph.find("sum").into()), None);
    assert!(graph.is_output(graph.find("sum").into()) && !graph.is_used(graph.find("dead").into()));
}

#[test]
fn what_no_output_needs_is_pruned() {
    let mut graph: Graph = DIAMOND.parse().unwrap();
    assert_eq!(graph.operation_count(), 4);
    assert_eq!(graph.prune_dead(), 1);
    assert_eq!(graph.prune_dead(), 0);
    assert_eq!(names(&graph, &graph.topo()), "x y a b sum");
}

#[test]
fn names_are_made_unique_and_symbols_with_them() {
    let mut builder = Builder::new("g");
    let x = builder.input("x", ValueInfo::new(DType::F32, ["n"]));
    let a = builder.op("nz", Op::NonZero, &[x]).unwrap();
    let b = builder.op("nz", Op::NonZero, &[x]).unwrap();
    assert_eq!(builder.graph().value(b).unwrap().name.as_ref(), "nz.1");
    assert_eq!(builder.graph().info(a).unwrap().to_string(), "i64[1, nz.count]");
    assert_eq!(builder.graph().info(b).unwrap().to_string(), "i64[1, nz.1.count]");
    // A node that is refused leaves its name free.
    assert!(builder.op("free", Op::Unary(UnaryOp::Not), &[x]).is_err());
    let free = builder.op("free", Op::Unary(UnaryOp::Neg), &[x]).unwrap();
    assert_eq!(builder.graph().node_name(free.node), "free");
}

#[test]
fn the_number_of_inputs_is_checked() {
    let mut builder = Builder::new("g");
    let x = builder.input("x", ValueInfo::new(DType::F32, [2_usize, 2]));
    let product = |adds: usize| crate::op::MatMul {
        transpose_a: false,
        transpose_b: false,
        epilogue: (0..adds).fold(Default::default(), |epilogue: crate::Epilogue, _| epilogue.with(crate::Step::Add)),
    };
    assert!(matches!(
        builder.op("a", Op::Unary(UnaryOp::Neg), &[x, x]),
        Err(GraphError::Arity { found: 2, least: 1, most: 1, .. })
    ));
    assert!(matches!(builder.op("b", product(0), &[x, x, x]), Err(GraphError::Arity { found: 3, .. })));
    assert!(matches!(builder.op("c", product(1), &[x, x]), Err(GraphError::Arity { found: 2, .. })));
    assert!(builder.op("d", product(1), &[x, x, x]).is_ok());
    let stranger = ValueRef { node: x.node, slot: 1 };
    assert!(matches!(
        builder.op("e", Op::Unary(UnaryOp::Neg), &[stranger]),
        Err(GraphError::NoSuchValue { value, .. }) if value == stranger
    ));
}

#[test]
fn inference_runs_again_and_keeps_what_was_stated() {
    let mut graph: Graph = "graph g(%x: f32[n, 4]) -> (%y) {
        %nz = nonzero(%x) : i64[2, 7]
        %y = transpose(%nz) perm=[1, 0]
    }"
    .parse()
    .unwrap();
    let x = graph.find("x");
    graph.set_info(x.into(), ValueInfo::new(DType::F32, [3_usize, 4]));
    graph.reinfer().unwrap();
    assert_eq!(graph.info(graph.find("nz").into()).unwrap().to_string(), "i64[2, 7]");
    assert_eq!(graph.info(graph.find("y").into()).unwrap().to_string(), "i64[7, 2]");
}

#[test]
fn inference_says_where_a_graph_no_longer_fits() {
    let mut graph: Graph = "graph g(%x: f32[n, 4]) -> (%y) {
        %y = transpose(%x) perm=[1, 0]
    }"
    .parse()
    .unwrap();
    graph.set_info(graph.find("x").into(), ValueInfo::new(DType::F32, [3_usize]));
    let error = graph.reinfer().unwrap_err();
    assert_eq!(error.to_string(), "node `y` (transpose): axis 1 is outside of rank 1");
}

/// No program is given what is fixed, unless it alone tells a size.
#[test]
fn fixed_inputs_are_not_taken() {
    let text =
        "graph g(%x: f32[n, 4], %a: i64[2], %b: bool[n, 2], %c: bool[m], %d: i64[1]) -> (%y, %d) { %y = relu(%x) }";
    let mut graph: Graph = text.parse().unwrap();
    let taken = |graph: &Graph| graph.taken_inputs().map(|id| graph.node_name(id).to_owned()).collect::<Vec<_>>();
    assert_eq!(taken(&graph), ["x", "a", "b", "c", "d"]);
    let fixed = ["a", "b", "c", "d"].map(|name| (name.into(), InputValues::All(1)));
    graph.fixed.extend(fixed);
    assert_eq!(taken(&graph), ["x", "c", "d"]);
}
