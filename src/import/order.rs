//! The order in which a list of nodes is imported, and the names that it uses.

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::error::ImportError;
use super::proto::{GraphProto, NodeProto};
use super::scope::Scope;

/// Names in order of first use.
pub(crate) type Names<'m> = IndexSet<&'m str, FxBuildHasher>;

/// Subgraphs of a node.
fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// The names that a body takes from outside, in order of first use.
pub(crate) fn captures(graph: &GraphProto) -> Names<'_> {
    let mut own: FxHashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    own.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    own.extend(graph.sparse_initializer.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name.as_str())));
    own.extend(graph.node.iter().flat_map(|node| &node.output).map(String::as_str));
    let mut used: Names<'_> = graph.node.iter().flat_map(reads).collect();
    used.extend(graph.output.iter().map(|output| output.name.as_str()));
    used.retain(|name| !own.contains(name));
    used
}

/// The names that a node reads: its inputs, and what its bodies take from outside.
fn reads(node: &NodeProto) -> Names<'_> {
    let inputs = node.input.iter().map(String::as_str).filter(|name| !name.is_empty());
    let mut names: Names<'_> = inputs.collect();
    names.extend(bodies(node).flat_map(captures));
    names
}

/// A list of nodes, analysed.
#[derive(Debug)]
pub(crate) struct Plan<'m> {
    /// Indices of the nodes, each after those it reads; the given order wherever that is one.
    pub order: Vec<usize>,
    /// Names that some node reads.
    pub read: FxHashSet<&'m str>,
    /// Names given to nodes.
    pub node_names: FxHashSet<&'m str>,
}

/// Orders nodes by what they read.
///
/// # Errors
/// If two nodes give a value the same name, or a node reads what nothing gives or what needs the node itself.
pub(crate) fn plan<'m>(nodes: &'m [NodeProto], scope: &Scope<'m>) -> Result<Plan<'m>, ImportError> {
    let mut producers: FxHashMap<&str, usize> = FxHashMap::default();
    for (at, node) in nodes.iter().enumerate() {
        for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            if producers.insert(name, at).is_some() || scope.lookup(name).is_some() {
                return Err(ImportError::DuplicateValue { value: name.to_owned() }.at(node));
            }
        }
    }
    let mut read = FxHashSet::default();
    let mut needs = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut needed = Vec::new();
        for name in reads(node) {
            match producers.get(name) {
                Some(producer) => needed.push(*producer),
                None if scope.lookup(name).is_some() => {}
                None => return Err(ImportError::Dangling { value: name.to_owned() }.at(node)),
            }
            read.insert(name);
        }
        needs.push(needed);
    }
    let node_names = nodes.iter().map(|node| node.name.as_str()).filter(|name| !name.is_empty()).collect();
    Ok(Plan { order: sort(nodes, &needs)?, read, node_names })
}

/// Depth first from each node in turn, without recursion.
fn sort(nodes: &[NodeProto], needs: &[Vec<usize>]) -> Result<Vec<usize>, ImportError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    for root in 0..nodes.len() {
        let mut stack = vec![(root, 0)];
        while let Some((at, next)) = stack.last_mut() {
            let (Some(state), Some(needed)) = (states.get_mut(*at), needs.get(*at)) else { break };
            if *state == State::Done {
                stack.pop();
                continue;
            }
            *state = State::Open;
            match needed.get(*next).copied() {
                None => {
                    *state = State::Done;
                    order.push(*at);
                    stack.pop();
                }
                Some(need) => {
                    *next += 1;
                    if states.get(need) == Some(&State::Open) {
                        let node = nodes.get(need);
                        return Err(node.map_or(ImportError::Cycle, |node| ImportError::Cycle.at(node)));
                    }
                    stack.push((need, 0));
                }
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::proto::{AttributeProto, ValueInfoProto};
    use super::*;

    fn node(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        NodeProto { name: name.into(), input: strings(inputs), output: strings(outputs), ..Default::default() }
    }

    fn order(nodes: &[NodeProto], known: &[&'static str]) -> Result<Vec<usize>, String> {
        let mut scope = Scope::new(Rc::default());
        for name in known {
            scope.define(name, None).unwrap();
        }
        plan(nodes, &scope).map(|plan| plan.order).map_err(|error| error.to_string())
    }

    #[test]
    fn a_sorted_list_keeps_its_order() {
        let nodes = [node("a", &["x"], &["1"]), node("b", &["x"], &["2"]), node("c", &["2", "", "1"], &["3"])];
        assert_eq!(order(&nodes, &["x"]), Ok(vec![0, 1, 2]));
    }

    #[test]
    fn an_unsorted_list_is_sorted() {
        let nodes = [node("c", &["2"], &["3"]), node("b", &["1"], &["2"]), node("a", &["x"], &["1"])];
        assert_eq!(order(&nodes, &["x"]), Ok(vec![2, 1, 0]));
    }

    #[test]
    fn what_a_body_captures_comes_first() {
        let value = |name: &str| ValueInfoProto { name: name.into(), ..Default::default() };
        let inner = GraphProto { node: vec![node("n", &["late", "own"], &["r"])], ..Default::default() };
        let body = GraphProto {
            node: vec![NodeProto {
                attribute: vec![AttributeProto { g: Some(inner), ..Default::default() }],
                ..node("m", &[], &["own"])
            }],
            output: vec![value("direct")],
            ..Default::default()
        };
        assert_eq!(captures(&body).into_iter().collect::<Vec<_>>(), ["late", "direct"]);
        let holder = NodeProto {
            attribute: vec![AttributeProto { g: Some(body), ..Default::default() }],
            ..node("if", &["x"], &["y"])
        };
        let nodes = [holder, node("l", &["x"], &["late"])];
        assert_eq!(order(&nodes, &["x", "direct"]), Ok(vec![1, 0]));
        assert_eq!(order(&nodes, &["x"]), Err("node `if` (): it reads `direct`, which nothing produces".to_owned()));
    }

    #[test]
    fn faults_name_the_node() {
        let cycle = [node("a", &["2"], &["1"]), node("b", &["1"], &["2"])];
        assert_eq!(order(&cycle, &[]), Err("node `a` (): it needs its own output: the graph has a cycle".to_owned()));
        let own = [node("a", &["1"], &["1"])];
        assert!(order(&own, &[]).is_err());
        let twice = [node("a", &["x"], &["1"]), node("b", &["x"], &["1"])];
        assert_eq!(order(&twice, &["x"]), Err("node `b` (): two values are called `1`".to_owned()));
        let shadow = [node("a", &["x"], &["x"])];
        assert_eq!(order(&shadow, &["x"]), Err("node `a` (): two values are called `x`".to_owned()));
    }

    #[test]
    fn a_long_chain_is_sorted_without_recursion() {
        let nodes: Vec<_> =
            (0..20_000).rev().map(|at: u32| node("", &[&format!("v{at}")], &[&format!("v{}", at + 1)])).collect();
        assert_eq!(order(&nodes, &["v0"]).unwrap(), (0..20_000).rev().collect::<Vec<_>>());
    }
}
