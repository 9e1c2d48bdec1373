//! Layers of each operator family.

use trt_fuse_ir::Op;

use super::error::EmitError;
use super::sink::{NetworkSink, Outputs};
use super::site::{Site, one};

mod attention;
mod control;
mod conv;
mod index;
mod math;
mod matmul;
mod movement;
mod norm;
mod pool;
mod quant;
mod random;
mod reduce;
mod runtime;
mod vision;

/// Makes the layers of a node and gives its outputs.
pub(super) fn emit<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<Outputs<S::Tensor>, EmitError> {
    let node = site.node;
    match &node.op {
        Op::Unary(op) => math::unary(site, *op).map(one),
        Op::Binary(op) => math::binary(site, *op).map(one),
        Op::Activation(op) => math::activation_node(site, *op).map(one),
        Op::Cast(op) => math::cast(site, op).map(one),
        Op::BitCast(op) => math::bit_cast(site, op).map(one),
        Op::Where => math::select(site).map(one),
        Op::Conv(op) => conv::conv(site, op).map(one),
        Op::ConvTranspose(op) => conv::conv_transpose(site, op).map(one),
        Op::MatMul(op) => matmul::matmul(site, op).map(one),
        Op::Einsum(op) => matmul::einsum(site, op).map(one),
        Op::Pool(op) => pool::pool(site, op).map(one),
        Op::Resize(op) => pool::resize(site, op).map(one),
        Op::Reduce(op) => reduce::reduce(site, op).map(one),
        Op::ArgReduce(op) => reduce::arg_reduce(site, op).map(one),
        Op::Softmax(op) => reduce::softmax(site, op).map(one),
        Op::TopK(op) => reduce::top_k(site, op),
        Op::Cumulative(op) => reduce::cumulative(site, op).map(one),
        Op::BatchNorm(op) => norm::batch_norm(site, op).map(one),
        Op::LayerNorm(op) => norm::layer_norm(site, op).map(one),
        Op::GroupNorm(op) => norm::group_norm(site, op).map(one),
        Op::Lrn(op) => norm::lrn(site, op).map(one),
        Op::Attention(op) => attention::attention(site, op).map(one),
        Op::RotaryEmbedding(op) => attention::rotary_embedding(site, op).map(one),
        Op::GridSample(op) => vision::grid_sample(site, op).map(one),
        Op::NonMaxSuppression(op) => vision::non_max_suppression(site, op).map(one),
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => movement::reshape(site).map(one),
        Op::Transpose(op) => movement::transpose(site, op).map(one),
        Op::Shuffle(op) => movement::shuffle(site, op).map(one),
        Op::Expand(_) => movement::expand(site).map(one),
        Op::Concat(op) => movement::concat(site, op).map(one),
        Op::Split(op) => movement::split(site, op),
        Op::Slice(op) => movement::slice(site, op).map(one),
        Op::Roll(op) => movement::roll(site, op).map(one),
        Op::Pad(op) => movement::pad(site, op).map(one),
        Op::Tile(_) => movement::tile(site).map(one),
        Op::ShapeOf(op) => movement::shape_of(site, op).map(one),
        Op::ConstantOfShape(op) => movement::constant_of_shape(site, op).map(one),
        Op::Range => movement::range(site).map(one),
        Op::DepthToSpace(op) => movement::depth_to_space(site, op).map(one),
        Op::Gather(op) => index::gather(site, op).map(one),
        Op::GatherElements(op) => index::gather_elements(site, op).map(one),
        Op::GatherNd(op) => index::gather_nd(site, op).map(one),
        Op::ScatterElements(op) => index::scatter_elements(site, op).map(one),
        Op::ScatterNd(op) => index::scatter_nd(site, op).map(one),
        Op::OneHot(op) => index::one_hot(site, op).map(one),
        Op::NonZero => index::non_zero(site).map(one),
        Op::ReverseSequence(op) => index::reverse_sequence(site, op).map(one),
        Op::Random(op) => random::random(site, op).map(one),
        Op::Quantize(op) => quant::quantize(site, op).map(one),
        Op::Dequantize(op) => quant::dequantize(site, op).map(one),
        Op::If(op) => control::branch(site, op),
        Op::Loop(op) => control::repeat(site, op),
        Op::Scan(op) => control::scan(site, op),
        Op::Opaque(op) => site.unsupported(op.reason.clone()),
        other => site.unsupported(format!("`{}` is not emitted", other.name())),
    }
}
