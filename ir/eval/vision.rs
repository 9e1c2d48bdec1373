//! Sampling and detection.

use num_traits::AsPrimitive;

use super::layout::{check_size, filled, in_rows, product};
use super::number::{Number, Real, for_real, load_int, load_real, phrase};
use super::resize::cubic;
use super::window::unravel;
use super::{Inputs, Tensors, one};
use crate::op::{GridSample, NonMaxSuppression, SampleKind, SamplePadding};
use crate::{Dims, Tensor};

/// The coefficient of cubic sampling.
const CUBIC: f64 = -0.75;

/// Elements along one axis and their weights; `None` for one outside that reads zero.
type Taps = Vec<(Option<usize>, f64)>;

pub(super) fn grid_sample(op: &GridSample, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (x, grid) = (inputs.required(0)?, inputs.required(1)?);
    let wrong = || format!("data {:?} and a grid {:?}", x.dims(), grid.dims());
    let ([batch, channels, sizes @ ..], [grids, output @ .., axes]) = (x.dims(), grid.dims()) else {
        return Err(wrong());
    };
    if batch != grids || *axes != sizes.len() || output.len() != sizes.len() || sizes.contains(&0) {
        return Err(wrong());
    }
    let positions = load_real::<f64>(grid)?;
    let dims: Dims = [*batch, *channels].into_iter().chain(output.iter().copied()).collect();
    let (plane, points) = (product(sizes), product(output));
    for_real!(x.dtype(), T => {
        let data = T::load(x)?;
        let mut elements = filled(&dims, T::ZERO)?;
        in_rows(&mut elements, points, &|row, elements| {
            let (image, data) = (row / channels, &data[row * plane..(row + 1) * plane]);
            for (point, element) in elements.iter_mut().enumerate() {
                let start = (image * points + point) * axes;
                // The last axis comes first.
                let place = positions[start..start + axes].iter().rev();
                let taps: Vec<Taps> = place.zip(sizes).map(|(place, size)| taps(op, *place, *size)).collect();
                *element = T::real(weighed(data, sizes, &taps));
            }
        });
        one(T::store(x.dtype(), &dims, elements))
    })
}

/// What a position reads along an axis.
fn taps(op: &GridSample, position: f64, size: usize) -> Taps {
    let length = size as f64;
    let x = if op.align_corners {
        (position + 1.0) / 2.0 * (length - 1.0)
    } else {
        ((position + 1.0) * length - 1.0) / 2.0
    };
    let floor = x.floor();
    let part = x - floor;
    match op.kind {
        SampleKind::Nearest => vec![(place(op, x.round_ties_even(), size), 1.0)],
        SampleKind::Linear => vec![(place(op, floor, size), 1.0 - part), (place(op, floor + 1.0, size), part)],
        SampleKind::Cubic => {
            (-1..3).map(f64::from).map(|step| (place(op, floor + step, size), cubic(step - part, CUBIC))).collect()
        }
    }
}

/// The element at a whole coordinate.
fn place(op: &GridSample, at: f64, size: usize) -> Option<usize> {
    let last = size as f64 - 1.0;
    let inside = match op.padding {
        _ if (0.0..=last).contains(&at) => at,
        SamplePadding::Zeros => return None,
        SamplePadding::Border => at.clamp(0.0, last),
        SamplePadding::Reflection if op.align_corners => mirrored(at, 0.0, last),
        SamplePadding::Reflection => mirrored(at, -0.5, last + 0.5).clamp(0.0, last),
    };
    // What is no number reads the first element.
    Some(inside as usize)
}

/// A coordinate mirrored at both ends until it lies between them.
fn mirrored(at: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let turned = (at - low).rem_euclid(2.0 * range);
    low + if turned > range { 2.0 * range - turned } else { turned }
}

/// The sum of elements by the product of their weights.
fn weighed<T: Real>(data: &[T], sizes: &[usize], taps: &[Taps]) -> f64 {
    let counts = taps.iter().map(Vec::len);
    let total: usize = counts.clone().product();
    let mut sum = 0.0;
    for combination in 0..total {
        let picks = unravel(combination, counts.clone());
        let mut flat = Some(0);
        let mut weight = 1.0;
        for ((taps, pick), size) in taps.iter().zip(&picks).zip(sizes) {
            let (at, part) = taps[*pick];
            flat = flat.zip(at).map(|(flat, at)| flat * size + at);
            weight *= part;
        }
        if let Some(element) = flat.and_then(|flat| data.get(flat)) {
            sum += weight * AsPrimitive::<f64>::as_(*element);
        }
    }
    sum
}

pub(super) fn non_max_suppression(op: &NonMaxSuppression, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (boxes, scores) = (inputs.required(0)?, inputs.required(1)?);
    let ([batches, count, 4], [scored, classes, candidates]) = (boxes.dims(), scores.dims()) else {
        return Err(format!("boxes {:?} and scores {:?}", boxes.dims(), scores.dims()));
    };
    if batches != scored || count != candidates {
        return Err(format!("boxes {:?} and scores {:?}", boxes.dims(), scores.dims()));
    }
    let most = inputs.optional(2).map_or(Ok(0), |most| load_int(most, "the most boxes"))?;
    let most = usize::try_from(most).unwrap_or(0).min(*count);
    let threshold = |slot: usize, default: f64| match inputs.optional(slot) {
        None => Ok(default),
        Some(tensor) => load_real::<f64>(tensor)?.first().copied().ok_or_else(|| "a threshold is empty".to_string()),
    };
    let (overlap, least) = (threshold(3, 0.0)?, threshold(4, f64::NEG_INFINITY)?);
    let corners: Vec<Corners> =
        load_real::<f64>(boxes)?.as_chunks::<4>().0.iter().map(|sides| Corners::of(sides, op.center_point)).collect();
    let scores = load_real::<f64>(scores)?;
    let mut selected: Vec<i64> = Vec::new();
    for row in 0..check_size(&[*batches, *classes], 1)? {
        let (batch, class) = (row / classes, row % classes);
        let (scores, corners) = (&scores[row * count..(row + 1) * count], &corners[batch * count..(batch + 1) * count]);
        for at in suppressed(scores, corners, most, overlap, least) {
            selected.extend([batch as i64, class as i64, at as i64]);
        }
    }
    one(Tensor::from_vec([selected.len() / 3, 3], selected).map_err(phrase))
}

/// The boxes that stay, best first.
fn suppressed(scores: &[f64], corners: &[Corners], most: usize, overlap: f64, least: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|at| scores[*at] > least).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut kept: Vec<usize> = Vec::new();
    for at in order {
        if kept.len() == most {
            break;
        }
        if kept.iter().all(|other| corners[at].overlap(&corners[*other]) <= overlap) {
            kept.push(at);
        }
    }
    kept
}

/// A box from its least to its greatest corner.
struct Corners {
    low: [f64; 2],
    high: [f64; 2],
}

impl Corners {
    fn of(&[a, b, c, d]: &[f64; 4], center_point: bool) -> Self {
        let [x, y] = if center_point {
            [[a - c / 2.0, a + c / 2.0], [b - d / 2.0, b + d / 2.0]]
        } else {
            [[a.min(c), a.max(c)], [b.min(d), b.max(d)]]
        };
        Self { low: [x[0], y[0]], high: [x[1], y[1]] }
    }

    fn area(&self) -> f64 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// The intersection's part of the union, in f32 as the thresholds are.
    fn overlap(&self, other: &Self) -> f64 {
        let side = |axis: usize| (self.high[axis].min(other.high[axis]) - self.low[axis].max(other.low[axis])).max(0.0);
        let shared = side(0) * side(1);
        let union = self.area() + other.area() - shared;
        if shared <= 0.0 || self.area() <= 0.0 || other.area() <= 0.0 || union <= 0.0 {
            return 0.0;
        }
        f64::from((shared / union) as f32)
    }
}
