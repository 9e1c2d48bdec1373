//! What can be wrong with a graph.

use std::sync::Arc;

use crate::{NodeId, ValueRef};

/// A graph that cannot be built or changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A node reads a value that does not exist.
    #[error("node `{node}` reads a value that does not exist ({value:?})")]
    NoSuchValue {
        /// The reader.
        node: Arc<str>,
        /// What it reads.
        value: ValueRef,
    },
    /// A node has too few or too many inputs.
    #[error("node `{node}` ({op}) has {found} inputs; {}", expected(*.least, *.most))]
    Arity {
        /// The node.
        node: Arc<str>,
        /// Its operator.
        op: String,
        /// Inputs given.
        found: usize,
        /// Fewest allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// A node's inputs do not fit its operator.
    #[error("node `{node}` ({op}): {reason}")]
    Infer {
        /// The node.
        node: Arc<str>,
        /// Its operator.
        op: String,
        /// What does not fit.
        reason: String,
    },
    /// The model says of a value what cannot be.
    #[error("value `{value}` is stated as {stated} but is {inferred}")]
    Contradiction {
        /// The value.
        value: Arc<str>,
        /// What inference found.
        inferred: String,
        /// What the model says.
        stated: String,
    },
    /// A patch absorbs a node of which something outside reads a value that is not replaced.
    #[error("{rule}: `{value}` of absorbed node `{node}` is also read by `{reader}`")]
    NotClosed {
        /// The rule.
        rule: &'static str,
        /// The absorbed node.
        node: Arc<str>,
        /// Its value.
        value: Arc<str>,
        /// Who reads it.
        reader: Arc<str>,
        /// The absorbed node.
        at: NodeId,
        /// Who reads it, unless the value is an output of the graph.
        by: Option<NodeId>,
    },
    /// A patch replaces a value by one of another type.
    #[error("{rule}: `{value}` is {old} and would become {new}")]
    Replacement {
        /// The rule.
        rule: &'static str,
        /// The value replaced.
        value: Arc<str>,
        /// What it is.
        old: String,
        /// What it would be.
        new: String,
    },
    /// A patch names a node that does not exist, or absorbs an input.
    #[error("{rule}: patch names {what}")]
    BadPatch {
        /// The rule.
        rule: &'static str,
        /// What is wrong.
        what: String,
    },
}

fn expected(least: usize, most: usize) -> String {
    match (least, most) {
        (least, usize::MAX) => format!("at least {least} expected"),
        (least, most) if least == most => format!("{least} expected"),
        (least, most) => format!("{least} to {most} expected"),
    }
}
