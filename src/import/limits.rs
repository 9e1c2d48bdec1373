//! Bounds on what a model file may ask for.

use super::error::{ImportError, show};

/// Bounds on the size of a model, checked before memory is taken for it.
///
/// The defaults leave room for models of hundreds of gigabytes of weights; lower them to bound what a stranger's file
/// may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Protobuf records in the file: messages and strings, each of which takes memory however few bytes it has.
    pub max_records: usize,
    /// Nodes of all graphs together, after local functions have been inlined.
    pub max_nodes: usize,
    /// Bytes of names and attributes that inlining local functions may create, weights not counted.
    pub max_inlined_bytes: usize,
    /// Subgraphs and function calls within each other.
    pub max_depth: usize,
    /// Dimensions of a tensor.
    pub max_rank: usize,
    /// Elements of a tensor.
    pub max_elements: u64,
    /// Bytes of all weights together.
    pub max_weight_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_records: 8_000_000,
            max_nodes: 100_000,
            max_inlined_bytes: 128 << 20,
            max_depth: 32,
            max_rank: 64,
            max_elements: 1 << 38,
            max_weight_bytes: 1 << 40,
        }
    }
}

impl Limits {
    /// Checks the number of dimensions of a tensor.
    pub(crate) fn check_rank(&self, rank: usize, tensor: &str) -> Result<(), ImportError> {
        check(rank as u64, self.max_rank as u64, || format!("tensor `{}`: dimensions", show(tensor)))
    }

    /// Checks the number of elements of a tensor.
    pub(crate) fn check_elements(&self, elements: u64, tensor: &str) -> Result<(), ImportError> {
        check(elements, self.max_elements, || format!("tensor `{}`: elements", show(tensor)))
    }
}

/// Checks a count.
pub(crate) fn check(found: u64, limit: u64, what: impl FnOnce() -> String) -> Result<(), ImportError> {
    if found > limit { Err(ImportError::Limit { what: what(), found, limit }) } else { Ok(()) }
}
