//! Attention and rotary embeddings.

use super::math::broadcasts_to;
use super::{InferContext, Infos, Inputs, join_dtypes, one, shaped, unify};
use crate::op::{Attention, RotaryEmbedding};
use crate::{DType, Dim, Shape, ValueInfo};

/// The axes of an input of rank 4, if its shape is known.
fn four<'a>(info: &'a ValueInfo, what: &str) -> Result<Option<&'a [Dim; 4]>, String> {
    let Some(shape) = &info.shape else { return Ok(None) };
    <&[Dim; 4]>::try_from(shape.as_slice()).map(Some).map_err(|_| format!("{what} of rank {}", shape.len()))
}

pub(super) fn attention(op: &Attention, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let (q, k, v) = (inputs.required(0)?, inputs.required(1)?, inputs.required(2)?);
    let dtype = join_dtypes(join_dtypes(q.dtype, k.dtype)?, v.dtype)?;
    if dtype != DType::Unknown && !dtype.is_float() {
        return Err(format!("attention of {dtype}"));
    }
    if let Some(cap) = op.softcap.filter(|cap| cap.0.is_nan() || cap.0 <= 0.0) {
        return Err(format!("a cap of {}", cap.0));
    }
    let shapes = (four(q, "queries")?, four(k, "keys")?, four(v, "values")?);
    let (Some([b, h, s, e]), Some([kb, kh, t, ke]), Some([vb, vh, vt, size])) = shapes else {
        let unknown = shaped(dtype, None);
        return Ok(Infos::from_iter([unknown.clone(), unknown]));
    };
    let equal = |a: &Dim, b: &Dim, what: &str| unify(a, b).map_err(|reason| format!("{what} {reason}"));
    let batch = equal(&equal(b, kb, "batches")?, vb, "batches")?;
    equal(e, ke, "sizes of a query and a key")?;
    let keys = equal(t, vt, "lengths of keys and values")?;
    let groups = equal(kh, vh, "heads of keys and values")?;
    if let (Some(heads), Some(groups)) = (h.value(), groups.value())
        && heads.checked_rem(groups) != Some(0)
    {
        return Err(format!("{heads} heads of queries share {groups} of keys"));
    }
    let scores: Shape = [batch.clone(), h.clone(), s.clone(), keys].into_iter().collect();
    if let Some(mask) = inputs.optional(3) {
        if mask.dtype != DType::Bool {
            join_dtypes(mask.dtype, dtype)?;
        }
        if let Some(mask) = &mask.shape {
            broadcasts_to(mask, &scores)?;
        }
    }
    let output = [batch, h.clone(), s.clone(), size.clone()].into_iter().collect();
    let outputs = [shaped(dtype, Some(output)), shaped(dtype, Some(scores))];
    Ok(outputs.into_iter().take(context.outputs.max(1)).collect())
}

pub(super) fn rotary_embedding(op: &RotaryEmbedding, inputs: Inputs<'_>) -> Result<Infos, String> {
    let (x, cos, sin) = (inputs.required(0)?, inputs.required(1)?, inputs.required(2)?);
    let dtype = join_dtypes(join_dtypes(x.dtype, cos.dtype)?, sin.dtype)?;
    if op.dim < 2 || op.dim % 2 != 0 {
        return Err(format!("{} rotated elements", op.dim));
    }
    let Some([batch, _, sequence, size]) = four(x, "data")? else { return Ok(one(shaped(dtype, x.shape.clone()))) };
    if size.value().is_some_and(|size| size < op.dim) {
        return Err(format!("{} rotated elements of {size}", op.dim));
    }
    let angles = [batch.clone(), sequence.clone(), Dim::fixed(op.dim / 2)].into_iter().collect();
    for table in [cos, sin] {
        let Some(shape) = &table.shape else { continue };
        match shape.as_slice() {
            [_, length, half] => {
                unify(length, sequence)?;
                unify(half, &Dim::fixed(op.dim / 2))?;
            }
            _ => return Err(format!("cosines or sines of rank {}", shape.len())),
        }
        broadcasts_to(shape, &angles)?;
    }
    Ok(one(shaped(dtype, x.shape.clone())))
}
