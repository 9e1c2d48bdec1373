//! Attention and rotary embeddings.

use num_traits::{AsPrimitive, Float};

use super::layout::{self, Operand, by_width, filled, in_rows, take, zip_assign};
use super::matmul::matmul;
use super::number::{Number, Real, for_real, same_dtype, view};
use super::{EvalContext, Inputs, Tensors};
use crate::attr::F32;
use crate::op::{Attention, CausalKind, MatMul, RotaryEmbedding, ScoreStage};
use crate::{DType, Dims, Tensor};

pub(super) fn attention(op: &Attention, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let (q, k, v) = (inputs.required(0)?, inputs.required(1)?, inputs.required(2)?);
    let dtype = same_dtype(q, k)?;
    let [batch, heads, queries, _] = *q.dims() else { return Err(format!("queries {:?}", q.dims())) };
    let [_, _, keys, _] = *k.dims() else { return Err(format!("keys {:?}", k.dims())) };
    let dims = [batch, heads, queries, keys];
    for_real!(dtype, T => {
        let root = f64::from(op.scale.0).abs().sqrt();
        let q = scaled::<T>(q, root.copysign(f64::from(op.scale.0)))?;
        let k = scaled::<T>(&shared(k, heads)?, root)?;
        let product = product(&q, &k, true)?;
        let capped = capped::<T>(&product, op.softcap)?;
        let shown = shown(op.causal, inputs.optional(3), &dims)?;
        let masked = masked::<T>(&capped, &shown, inputs.optional(3))?;
        let hidden = if op.zero_hidden { T::ZERO } else { T::nan() };
        let weights = weights::<T>(&masked, &shown, op.softmax_dtype.unwrap_or(dtype), hidden)?;
        let mut outputs = Tensors::from_iter([self::product(&weights, &shared(v, heads)?, false)?]);
        if context.outputs > 1 {
            outputs.push(match op.scores {
                ScoreStage::Product => product,
                ScoreStage::Capped => capped,
                ScoreStage::Masked => masked,
                ScoreStage::Weights => weights,
            });
        }
        Ok(outputs)
    })
}

/// Every head of keys or values as often as it serves a head of queries.
fn shared(x: &Tensor, heads: usize) -> Result<Tensor, String> {
    let [_, groups, ..] = *x.dims() else { return Err(format!("keys or values {:?}", x.dims())) };
    if groups == heads {
        return Ok(x.clone());
    }
    if heads.checked_rem(groups) != Some(0) {
        return Err(format!("{heads} heads of queries share {groups} of keys"));
    }
    let picks: Vec<Option<usize>> = (0..heads).map(|head| Some(head / (heads / groups))).collect();
    by_width!(x.dtype(), N => {
        let (dims, units) = take(&layout::units::<N>(x)?, x.dims(), 1, &picks, [0; N])?;
        layout::from_units(x.dtype(), &dims, units)
    })
}

fn scaled<T: Real>(x: &Tensor, factor: f64) -> Result<Tensor, String> {
    let factor = rounded::<T>(factor, x.dtype())?;
    T::store(x.dtype(), x.dims(), T::load(x)?.iter().map(|x| *x * factor).collect())
}

/// A number as exactly as a dtype has it.
fn rounded<T: Real>(value: f64, dtype: DType) -> Result<T, String> {
    let tensor = T::store(dtype, &[], vec![T::real(value)])?;
    T::load(&tensor)?.first().copied().ok_or_else(|| "a number without a value".to_string())
}

fn product(a: &Tensor, b: &Tensor, transpose_b: bool) -> Result<Tensor, String> {
    let op = MatMul::new(false, transpose_b);
    let mut outputs = matmul(&op, Inputs(&[Some(a), Some(b)]))?;
    outputs.pop().ok_or_else(|| "a product without a value".to_string())
}

fn capped<T: Real>(product: &Tensor, cap: Option<F32>) -> Result<Tensor, String> {
    let Some(cap) = cap else { return Ok(product.clone()) };
    let cap = T::real(f64::from(cap.0));
    let elements = T::load(product)?.iter().map(|x| cap * (*x / cap).tanh()).collect();
    T::store(product.dtype(), product.dims(), elements)
}

/// Which keys each query sees. A bias of negative infinity hides a key as false does.
fn shown(causal: CausalKind, mask: Option<&Tensor>, dims: &[usize; 4]) -> Result<Vec<bool>, String> {
    let [_, _, queries, keys] = *dims;
    let mut shown = filled(dims, true)?;
    in_rows(&mut shown, keys, &|row, shown| {
        let query = row % queries.max(1);
        let end = match causal {
            CausalKind::None => keys,
            CausalKind::UpperLeft => query + 1,
            CausalKind::LowerRight => (query + 1 + keys).saturating_sub(queries),
        };
        shown.iter_mut().skip(end).for_each(|shown| *shown = false);
    });
    let Some(mask) = mask else { return Ok(shown) };
    let kept = match mask.dtype() {
        DType::Bool => view::<bool>(mask)?,
        dtype => for_real!(dtype, T => {
            Ok(T::load(mask)?.iter().map(|bias| *bias != T::neg_infinity()).collect::<Vec<bool>>().into())
        })?,
    };
    zip_assign(&mut shown, dims, &Operand::new(kept, mask.dims())?, |shown, kept| shown && kept)?;
    Ok(shown)
}

fn masked<T: Real>(scores: &Tensor, shown: &[bool], mask: Option<&Tensor>) -> Result<Tensor, String> {
    let mut elements = T::load(scores)?.into_owned();
    if let Some(mask) = mask.filter(|mask| mask.dtype() != DType::Bool) {
        same_dtype(scores, mask)?;
        zip_assign(&mut elements, scores.dims(), &Operand::new(T::load(mask)?, mask.dims())?, |score, bias| {
            score + bias
        })?;
    }
    for (score, _) in elements.iter_mut().zip(shown).filter(|(_, shown)| !**shown) {
        *score = T::neg_infinity();
    }
    T::store(scores.dtype(), scores.dims(), elements)
}

/// The softmax of each query's scores, each step rounded to `dtype`; `hidden` for a query that sees no key.
fn weights<T: Real>(scores: &Tensor, shown: &[bool], dtype: DType, hidden: T) -> Result<Tensor, String> {
    let keys = scores.dims().last().copied().unwrap_or(0);
    let round: fn(f64) -> f64 = match dtype {
        DType::F16 => |x| half::f16::from_f64(x).to_f64(),
        DType::BF16 => |x| half::bf16::from_f64(x).to_f64(),
        DType::F32 => |x| f64::from(x as f32),
        _ => |x| x,
    };
    let mut elements = T::load(scores)?.into_owned();
    in_rows(&mut elements, keys, &|row, scores| {
        let start = row * keys;
        if shown.get(start..start + keys).is_none_or(|shown| shown.iter().all(|shown| !shown)) {
            return scores.fill(hidden);
        }
        let wide = |x: &T| round(AsPrimitive::<f64>::as_(*x));
        let largest = scores.iter().map(wide).fold(f64::NEG_INFINITY, f64::max);
        let power = |x: &T| round(round(wide(x) - largest).exp());
        let total = round(scores.iter().map(power).sum());
        scores.iter_mut().for_each(|x| *x = T::real(round(power(x) / total)));
    });
    T::store(scores.dtype(), scores.dims(), elements)
}

pub(super) fn rotary_embedding(op: &RotaryEmbedding, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (x, cos, sin) = (inputs.required(0)?, inputs.required(1)?, inputs.required(2)?);
    let [batch, heads, sequence, size] = *x.dims() else { return Err(format!("data {:?}", x.dims())) };
    let half = usize::try_from(op.dim / 2).map_err(|_| format!("{} rotated elements", op.dim))?;
    if 2 * half > size {
        return Err(format!("{} rotated elements of {size}", op.dim));
    }
    for_real!(x.dtype(), T => {
        let angles = Dims::from_slice(&[batch, sequence, half]);
        let (cos, sin) = (spread::<T>(cos, &angles)?, spread::<T>(sin, &angles)?);
        let mut elements = T::load(x)?.into_owned();
        in_rows(&mut elements, size, &|row, elements| {
            let position = row / (heads * sequence).max(1) * sequence + row % sequence.max(1);
            for at in 0..half {
                let (cos, sin) = (cos[position * half + at], sin[position * half + at]);
                let (first, second) = if op.interleaved { (2 * at, 2 * at + 1) } else { (at, at + half) };
                let (a, b) = (elements[first], elements[second]);
                elements[first] = cos * a - sin * b;
                elements[second] = sin * a + cos * b;
            }
        });
        super::one(T::store(x.dtype(), x.dims(), elements))
    })
}

/// The elements of a tensor that broadcasts to `dims`.
fn spread<T: Number>(x: &Tensor, dims: &[usize]) -> Result<Vec<T>, String> {
    let mut elements = filled(dims, T::ZERO)?;
    zip_assign(&mut elements, dims, &Operand::new(T::load(x)?, x.dims())?, |_, x| x)?;
    Ok(elements)
}
