//! Sampling and detection.

use super::{InferContext, Infos, Inputs, one, shaped, unify};
use crate::{DType, Dim, Shape, ValueInfo};

pub(super) fn grid_sample(inputs: Inputs<'_>) -> Result<Infos, String> {
    let (x, grid) = (inputs.required(0)?, inputs.required(1)?);
    let (Some(data), Some(positions)) = (&x.shape, &grid.shape) else { return Ok(one(shaped(x.dtype, None))) };
    let (Some([batch, channels]), Some((axes, leading))) = (data.first_chunk(), positions.split_last()) else {
        return Err(format!("data of rank {} and a grid of rank {}", data.len(), positions.len()));
    };
    let spatial = data.len().saturating_sub(2);
    if spatial == 0 || positions.len() != data.len() {
        return Err(format!("data of rank {} and a grid of rank {}", data.len(), positions.len()));
    }
    unify(axes, &Dim::from(spatial)).map_err(|_| format!("positions of {axes} axes in {spatial}"))?;
    let (grids, output) = leading.split_first().ok_or("a grid without a batch")?;
    let batch = unify(batch, grids)?;
    let shape: Shape = [batch, channels.clone()].into_iter().chain(output.iter().cloned()).collect();
    Ok(one(shaped(x.dtype, Some(shape))))
}

pub(super) fn non_max_suppression(inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let three = |info: &ValueInfo, what: &str| match &info.shape {
        None => Ok(None),
        Some(shape) => match shape.as_slice() {
            [batch, middle, last] => Ok(Some([batch.clone(), middle.clone(), last.clone()])),
            _ => Err(format!("{what} of rank {}", shape.len())),
        },
    };
    let (boxes, scores) = (three(inputs.required(0)?, "boxes")?, three(inputs.required(1)?, "scores")?);
    if let (Some([batch, count, sides]), Some([scored, _, boxes])) = (boxes, scores) {
        unify(&batch, &scored)?;
        unify(&count, &boxes)?;
        unify(&sides, &Dim::fixed(4))?;
    }
    let shape = [context.fresh("selected"), Dim::fixed(3)].into_iter().collect();
    Ok(one(shaped(DType::I64, Some(shape))))
}
