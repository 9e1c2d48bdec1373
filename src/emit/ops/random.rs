//! Random numbers.

use trt_fuse_ir::op::{Random, RandomKind};
use trt_fuse_ir::{DType, Dim};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, Fill, FillArg};
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::FillKind;

/// A fill layer, of f32 where it has not the type itself.
pub(super) fn random<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Random,
) -> Result<S::Tensor, EmitError> {
    let Some(shape) = site.output().and_then(|info| info.shape.clone()) else {
        return site.unsupported("the output's rank is not known");
    };
    let kind = match op.kind {
        RandomKind::Uniform => FillKind::RandomUniform,
        RandomKind::Normal => FillKind::RandomNormal,
        other => return site.unsupported(format!("TensorRT draws no `{}` numbers", other.word())),
    };
    let fixed: Option<Vec<i64>> = shape.iter().map(Dim::value).collect();
    let dims = match &fixed {
        Some(dims) => DimsArg::Fixed(dims),
        None => DimsArg::Tensor(site.dims_tensor(&shape)?),
    };
    let (alpha, beta) = (FillArg::Float(op.alpha.0.into()), FillArg::Float(op.beta.0.into()));
    let dtype = if op.dtype == DType::F16 { DType::F16 } else { DType::F32 };
    let layer = Fill { kind, dims, dtype, alpha, beta };
    let drawn = site.layer("", |sink, label| sink.fill(label, &layer))?;
    if dtype == op.dtype {
        return Ok(drawn);
    }
    site.layer("cast", |sink, label| sink.cast(label, drawn, op.dtype))
}
