//! The graph rewrites of trt-fuse: one pass a file, named as its file, and the pipeline that runs them.
//!
//! `passes/README.md` has the rules for writing one.

mod pass;
mod pipeline;
mod report;
#[cfg(test)]
mod testing;

pub use pass::{Miss, Options, Outcome, Pass, PassContext, PassError, Remark, Rule, RuleContext, Rules};
pub use pipeline::{Pipeline, UnknownPass};
pub use report::{PassReport, Report, count_ops};
