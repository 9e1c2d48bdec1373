//! The graph rewrites of trt-fuse: one pass a file, named as its file, and the pipeline that runs them.
//!
//! `passes/README.md` has the rules for writing one.

mod axes;
mod canonicalize_arithmetic;
mod canonicalize_attributes;
mod canonicalize_padding;
mod canonicalize_reshape;
mod channels;
mod drop_concat_slice;
mod drop_concat_split;
mod drop_dead;
mod drop_identity;
mod drop_split_concat;
mod fold_constants;
mod fold_control_flow;
mod formula;
mod fuse_activation;
mod fuse_affine;
mod fuse_conv_bias;
mod fuse_conv_bn;
mod fuse_conv_scale;
mod fuse_gelu;
mod fuse_global_pool;
mod fuse_hard_sigmoid;
mod fuse_hard_swish;
mod fuse_layer_norm;
mod fuse_matmul_bias;
mod fuse_matmul_bn;
mod fuse_matmul_scale;
mod fuse_mish;
mod fuse_pad;
mod fuse_reduce_reshape;
mod fuse_relu_clip;
mod fuse_residual;
mod fuse_rms_norm;
mod fuse_swish;
mod fuse_transpose_matmul;
mod lower_arg_reduce;
mod lower_arithmetic;
mod lower_attention;
mod lower_conv_transpose;
mod lower_cumulative;
mod lower_grid_sample;
mod lower_normalization;
mod lower_pool;
mod lower_quantization;
mod lower_reduce;
mod lower_resize;
mod lower_rotary_embedding;
mod lower_scatter;
mod lower_shape_input;
mod lower_triangle;
mod lower_types;
mod merge_common;
mod merge_concats;
mod merge_reduces;
mod merge_reshapes;
mod merge_slices;
mod merge_transposes;
mod normal;
mod pass;
mod pattern;
mod pipeline;
#[cfg(test)]
mod random;
mod report;
mod sink_captures;
#[cfg(test)]
mod testing;
mod trace;

pub use lower_types::{Conversion, conversions};
pub use pass::{Miss, Options, Outcome, Pass, PassContext, PassError, Remark, Rule, RuleContext, Rules, Symbols};
pub use pipeline::{Pipeline, UnknownPass};
pub use report::{PassReport, Report, count_ops};
pub use trace::{Rewrite, TracedNode};
