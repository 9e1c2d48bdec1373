//! Random numbers: those of a seed are always the same.

use super::cast::cast;
use super::layout::{check_size, collected};
use super::number::{load_ints, phrase};
use super::{Inputs, Tensors, one};
use crate::op::{Random, RandomKind};
use crate::{Dims, Tensor};

/// The generator of Steele, Lea and Flood (SplitMix64).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, without 1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// By Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

pub(super) fn random(op: &Random, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let dims = load_ints(inputs.required(0)?, "dimensions")?;
    let dims: Option<Dims> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let dims = dims.ok_or("a negative dimension")?;
    let mut generator = SplitMix(op.seed.unwrap_or(0).cast_unsigned());
    let (alpha, beta) = (f64::from(op.alpha.0), f64::from(op.beta.0));
    let numbers = collected(check_size(&dims, 8)?, |_| match op.kind {
        RandomKind::Normal => alpha + beta * generator.normal(),
        _ => alpha + (beta - alpha) * generator.uniform(),
    })?;
    one(cast(&Tensor::from_vec(&dims, numbers).map_err(phrase)?, op.dtype, true))
}
