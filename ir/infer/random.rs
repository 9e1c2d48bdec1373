//! Random numbers.

use super::movement::shape_from;
use super::{InferContext, Infos, Inputs, one, shaped};
use crate::op::Random;

pub(super) fn random(op: &Random, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    if !op.dtype.is_float() {
        return Err(format!("random numbers of {}", op.dtype));
    }
    Ok(one(shaped(op.dtype, shape_from(inputs.required(0)?, context)?)))
}
