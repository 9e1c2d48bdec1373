//! The graph rewrites of trt-fuse: one pass a file, named as its file, and the pipeline that runs them.
//!
//! `passes/README.md` has the rules for writing one.

mod channels;
mod fuse_activation;
mod fuse_affine;
mod fuse_conv_bias;
mod fuse_conv_bn;
mod fuse_conv_scale;
mod fuse_global_pool;
mod fuse_hard_sigmoid;
mod fuse_hard_swish;
mod fuse_matmul_bias;
mod fuse_matmul_bn;
mod fuse_matmul_scale;
mod fuse_mish;
mod fuse_reduce_reshape;
mod fuse_relu_clip;
mod fuse_residual;
mod fuse_swish;
mod fuse_transpose_matmul;
mod merge_reduces;
mod pass;
mod pattern;
mod pipeline;
mod report;
#[cfg(test)]
mod testing;

pub use pass::{Miss, Options, Outcome, Pass, PassContext, PassError, Remark, Rule, RuleContext, Rules};
pub use pipeline::{Pipeline, UnknownPass};
pub use report::{PassReport, Report, count_ops};
