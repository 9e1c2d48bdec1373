//! The graph rewrites of trt-fuse: one pass a file, named as its file, and the pipeline that runs them.
//!
//! `passes/README.md` has the rules for writing one.

mod canonicalize_arithmetic;
mod canonicalize_attributes;
mod canonicalize_padding;
mod canonicalize_reshape;
mod drop_concat_slice;
mod drop_concat_split;
mod drop_dead;
mod drop_identity;
mod drop_split_concat;
mod fold_constants;
mod fuse_pad;
mod merge_common;
mod merge_concats;
mod merge_reshapes;
mod merge_slices;
mod merge_transposes;

mod pass;
mod pipeline;
#[cfg(test)]
mod random;
mod report;
#[cfg(test)]
mod testing;

pub use pass::{Miss, Options, Outcome, Pass, PassContext, PassError, Remark, Rule, RuleContext, Rules, Symbols};
pub use pipeline::{Pipeline, UnknownPass};
pub use report::{PassReport, Report, count_ops};
