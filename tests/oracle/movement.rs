//! Operators that move elements about.

use crate::Family;
use crate::maker::{BOOL, F32, F64, I32, I64, Maker, U8, attrs};

pub(crate) const FAMILIES: &[Family] = &[
    ("slice", slice),
    ("pad", pad),
    ("concat", concat),
    ("split", split),
    ("transpose", transpose),
    ("reshape", reshape),
    ("squeeze", squeeze),
    ("flatten", flatten),
    ("expand", expand),
    ("tile", tile),
    ("gather", gather),
    ("gather_elements", gather_elements),
    ("gather_nd", gather_nd),
    ("scatter_elements", scatter_elements),
    ("scatter_nd", scatter_nd),
    ("trilu", trilu),
    ("one_hot", one_hot),
    ("blocks", blocks),
    ("compress", compress),
    ("reverse_sequence", reverse_sequence),
    ("shapes", shapes),
    ("non_zero", non_zero),
    ("range", range),
    ("center_crop_pad", center_crop_pad),
    ("unique", unique),
];

/// An element type that is moved.
fn dtype(m: &mut Maker) -> i32 {
    m.pick(&[F32, F32, F32, F64, I32, I64, BOOL, U8])
}

fn slice(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let axes = m.axes(shape.len());
    let (mut starts, mut ends, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for axis in &axes {
        let size = shape[axis.rem_euclid(shape.len() as i64) as usize];
        starts.push(m.int(-size - 1, size + 1));
        ends.push(if m.int(0, 3) == 0 { m.pick(&[1 << 40, -(1 << 40)]) } else { m.int(-size - 1, size + 1) });
        steps.push(m.pick(&[1, 1, 2, 3, -1, -2]));
    }
    let (starts, ends, axes, steps) = (m.list(&starts), m.list(&ends), m.list(&axes), m.list(&steps));
    m.last("Slice", &[&x, &starts, &ends, &axes, &steps], 1, attrs! {});
}

fn pad(m: &mut Maker) {
    m.opset(&[13, 19]);
    let shape = m.shape(1, 4).iter().map(|size| size + 2).collect::<Vec<i64>>();
    let modes: &[&str] = if m.is_opset(19) {
        &["constant", "constant", "reflect", "edge", "wrap"]
    } else {
        &["constant", "constant", "reflect", "edge"]
    };
    let mode = m.pick(modes);
    let dtype = m.pick(&[F32, F32, I32, I64, F64]);
    let x = m.random(dtype, &shape);
    // A reflection does not reach beyond the other end.
    let low = if mode == "constant" { -1 } else { 0 };
    let pads = m.ints(2 * shape.len(), low, 2);
    let pads = m.list(&pads);
    let fill = if m.chance() { m.either(dtype, &[], &[3.0]) } else { String::new() };
    let fill = if mode == "constant" { fill } else { String::new() };
    m.last("Pad", &[&x, &pads, &fill], 1, attrs! { "mode" => mode });
}

fn concat(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = dtype(m);
    let axis = m.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let inputs: Vec<String> = (0..m.int(1, 4))
        .map(|_| {
            let mut shape = shape.clone();
            shape[at] = m.int(0, 4);
            let data = m.data(dtype, &shape);
            m.either(dtype, &shape, &data)
        })
        .collect();
    let x = m.random(dtype, &shape);
    let inputs: Vec<&str> = inputs.iter().chain([&x]).map(String::as_str).collect();
    m.last("Concat", &inputs, 1, attrs! { "axis" => axis });
}

fn split(m: &mut Maker) {
    m.opset(&[13, 18]);
    let mut shape = m.shape(1, 4);
    let axis = m.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let parts: Vec<i64> = (0..m.int(1, 4)).map(|_| m.int(1, 3)).collect();
    let dtype = dtype(m);
    if m.chance() {
        shape[at] = parts.iter().sum();
        let x = m.random(dtype, &shape);
        let sizes = m.list(&parts);
        m.last("Split", &[&x, &sizes], parts.len(), attrs! { "axis" => axis });
    } else if m.is_opset(18) {
        // The last part may be smaller.
        shape[at] = 3 * parts.len() as i64 - if parts.len() > 1 { 1 } else { 0 };
        let x = m.random(dtype, &shape);
        m.last("Split", &[&x], parts.len(), attrs! { "axis" => axis, "num_outputs" => parts.len() as i64 });
    } else {
        shape[at] = 2 * parts.len() as i64;
        let x = m.random(dtype, &shape);
        m.last("Split", &[&x], parts.len(), attrs! { "axis" => axis });
    }
}

fn transpose(m: &mut Maker) {
    let shape = m.shape(0, 5);
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let attrs = if m.int(0, 3) > 0 {
        attrs! { "perm" => m.permutation(shape.len()) }
    } else {
        attrs! {}
    };
    m.last("Transpose", &[&x], 1, attrs);
}

fn reshape(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let product: i64 = shape.iter().product();
    let target = match m.int(0, 4) {
        0 => vec![-1],
        1 => vec![1, -1, 1],
        // 0 takes the size of the same axis.
        2 => vec![0, -1],
        3 => std::iter::repeat_n(0, shape.len()).chain([1]).collect(),
        _ => vec![product, 1],
    };
    let target = m.list(&target);
    m.last("Reshape", &[&x, &target], 1, attrs! {});
}

fn squeeze(m: &mut Maker) {
    let mut shape = m.shape(1, 3);
    let dtype = dtype(m);
    if m.chance() {
        let x = m.random(dtype, &shape);
        let rank = shape.len() as i64 + 2;
        let mut axes = m.permutation(rank as usize);
        axes.truncate(2);
        let axes: Vec<i64> = axes.into_iter().map(|axis| if m.chance() { axis } else { axis - rank }).collect();
        let axes = m.list(&axes);
        return m.last("Unsqueeze", &[&x, &axes], 1, attrs! {});
    }
    // Without axes the rank would depend on sizes.
    m.fixed();
    let at = m.int(0, shape.len() as i64);
    shape.insert(at as usize, 1);
    let x = m.random(dtype, &shape);
    let axes = m.list(&[at]);
    let inputs: &[&str] = if m.chance() { &[&x, &axes] } else { &[&x] };
    m.last("Squeeze", inputs, 1, attrs! {});
}

fn flatten(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let axis = m.int(-(shape.len() as i64), shape.len() as i64);
    m.last("Flatten", &[&x], 1, attrs! { "axis" => axis });
}

fn expand(m: &mut Maker) {
    let wide = m.shape(0, 4);
    let narrow = m.narrower(&wide);
    let target: Vec<i64> = wide.iter().map(|size| if m.int(0, 4) == 0 { 1 } else { *size }).collect();
    let dtype = dtype(m);
    let x = m.random(dtype, &narrow);
    let target = m.list(&target);
    m.last("Expand", &[&x, &target], 1, attrs! {});
}

fn tile(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let repeats = m.ints(shape.len(), 0, 3);
    let repeats = m.list(&repeats);
    m.last("Tile", &[&x, &repeats], 1, attrs! {});
}

/// Indices below `size`, some from the end.
fn indices(m: &mut Maker, shape: &[i64], size: i64) -> String {
    let count = shape.iter().product();
    let data = m.integers(count, -size, size - 1);
    let dtype = m.pick(&[I32, I64]);
    m.either(dtype, shape, &data)
}

fn gather(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let axis = m.axis(shape.len());
    let size = shape[axis.rem_euclid(shape.len() as i64) as usize];
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let at = m.shape(0, 2);
    let at = indices(m, &at, size);
    m.last("Gather", &[&x, &at], 1, attrs! { "axis" => axis });
}

fn gather_elements(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let axis = m.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let mut of_indices: Vec<i64> = shape.iter().map(|size| m.int(1, *size)).collect();
    of_indices[at] = m.int(1, 5);
    let picked = indices(m, &of_indices, shape[at]);
    m.last("GatherElements", &[&x, &picked], 1, attrs! { "axis" => axis });
}

/// A shape, the number of its axes that are batches, and rows that say where in the others, a vector each.
fn places(m: &mut Maker, batched: bool, distinct: bool) -> (Vec<i64>, i64, Vec<i64>, Vec<f64>) {
    let shape = m.shape(2, 4);
    let batches = if batched { m.int(0, 1) } else { 0 };
    let depth = m.int(1, shape.len() as i64 - batches);
    let rest = &shape[batches as usize..(batches + depth) as usize];
    let most: i64 = rest.iter().product();
    let rows = if distinct { m.int(1, most.min(4)) } else { m.int(1, 4) };
    let mut of_indices = shape[..batches as usize].to_vec();
    of_indices.extend([rows, depth]);
    let mut data = Vec::new();
    for _ in 0..of_indices[..batches as usize].iter().product() {
        let order = m.permutation(most as usize);
        for row in 0..rows {
            let mut place = if distinct { order[row as usize] } else { m.int(0, most - 1) };
            let mut row = Vec::new();
            for size in rest.iter().rev() {
                row.push((place % size - if m.chance() { *size } else { 0 }) as f64);
                place /= size;
            }
            data.extend(row.iter().rev());
        }
    }
    (shape, batches, of_indices, data)
}

fn gather_nd(m: &mut Maker) {
    let (shape, batches, of_indices, data) = places(m, true, false);
    let dtype = dtype(m);
    let x = m.random(dtype, &shape);
    let at = m.either(I64, &of_indices, &data);
    m.last("GatherND", &[&x, &at], 1, attrs! { "batch_dims" => batches });
}

fn scatter_nd(m: &mut Maker) {
    m.opset(&[16, 18]);
    let reductions: &[&str] =
        if m.is_opset(18) { &["none", "add", "mul", "max", "min"] } else { &["none", "add", "mul"] };
    let reduction = m.pick(reductions);
    // Which of two at the same place is kept is not defined.
    let (shape, _, of_indices, data) = places(m, false, reduction == "none");
    let dtype = m.pick(&[F32, F32, I32, I64]);
    let x = m.random(dtype, &shape);
    let depth = of_indices[1] as usize;
    let of_updates: Vec<i64> = std::iter::once(of_indices[0]).chain(shape[depth..].iter().copied()).collect();
    let at = m.either(I64, &of_indices, &data);
    let updates = m.random(dtype, &of_updates);
    m.last("ScatterND", &[&x, &at, &updates], 1, attrs! { "reduction" => reduction });
}

fn scatter_elements(m: &mut Maker) {
    m.opset(&[16, 18]);
    let reductions: &[&str] =
        if m.is_opset(18) { &["none", "add", "mul", "max", "min"] } else { &["none", "add", "mul"] };
    let reduction = m.pick(reductions);
    let shape = m.shape(1, 3);
    let axis = m.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let size = shape[at];
    let dtype = m.pick(&[F32, F32, I32, I64]);
    let x = m.random(dtype, &shape);
    let mut of_indices: Vec<i64> = shape.iter().map(|size| m.int(1, *size)).collect();
    of_indices[at] = if reduction == "none" { m.int(1, size) } else { m.int(1, 5) };
    let updates = m.random(dtype, &of_indices);
    let picked = if reduction == "none" {
        // Distinct along the axis: the same order in all rows.
        let order = m.permutation(size as usize);
        let inner: i64 = of_indices[at + 1..].iter().product();
        let count: i64 = of_indices.iter().product();
        let data: Vec<f64> = (0..count)
            .map(|place| order[(place / inner % of_indices[at]) as usize] as f64 - (place % 2 * size) as f64)
            .collect();
        m.either(I64, &of_indices, &data)
    } else {
        indices(m, &of_indices, size)
    };
    m.last("ScatterElements", &[&x, &picked, &updates], 1, attrs! { "axis" => axis, "reduction" => reduction });
}

fn trilu(m: &mut Maker) {
    let shape = m.shape(2, 4);
    let dtype = m.pick(&[F32, F64, I64, BOOL]);
    let x = m.random(dtype, &shape);
    let k = m.int(-4, 4);
    let k = if m.chance() { m.constant(I64, &[], &[k as f64]) } else { String::new() };
    let attrs = attrs! { "upper" => m.chance() };
    m.last("Trilu", &[&x, &k], 1, attrs);
}

fn one_hot(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let depth = m.int(1, 5);
    let count = shape.iter().product();
    // Those out of range are off everywhere.
    let data = m.integers(count, -depth - 1, depth + 1);
    let at = m.feed(I64, &shape, &data);
    let depth = m.constant(I64, &[], &[depth as f64]);
    let values = m.either(F32, &[2], &[-1.0, 2.0]);
    let axis = m.axis(shape.len() + 1);
    m.last("OneHot", &[&at, &depth, &values], 1, attrs! { "axis" => axis });
}

fn blocks(m: &mut Maker) {
    let block = m.int(1, 3);
    let (n, c, h, w) = (m.int(1, 3), m.int(1, 3), m.int(1, 3), m.int(1, 3));
    if m.chance() {
        let x = m.random(F32, &[n, c * block * block, h, w]);
        let mode = m.pick(&["DCR", "CRD"]);
        m.last("DepthToSpace", &[&x], 1, attrs! { "blocksize" => block, "mode" => mode });
    } else {
        let x = m.random(F32, &[n, c, h * block, w * block]);
        m.last("SpaceToDepth", &[&x], 1, attrs! { "blocksize" => block });
    }
}

fn compress(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let dtype = m.pick(&[F32, I64]);
    let x = m.random(dtype, &shape);
    let axis = m.chance().then(|| m.axis(shape.len()));
    let size = match axis {
        Some(axis) => shape[axis.rem_euclid(shape.len() as i64) as usize],
        None => shape.iter().product(),
    };
    // It may be shorter.
    let length = m.int(1, size);
    let kept = m.integers(length, 0, 1);
    let kept = m.either(BOOL, &[length], &kept);
    let attrs = axis.map_or(attrs! {}, |axis| attrs! { "axis" => axis });
    m.last("Compress", &[&x, &kept], 1, attrs);
}

fn reverse_sequence(m: &mut Maker) {
    let shape = m.shape(2, 4);
    let batch = m.int(0, 1);
    let x = m.random(F32, &shape);
    let lengths = m.integers(shape[batch as usize], 1, shape[1 - batch as usize]);
    let lengths = m.either(I64, &[shape[batch as usize]], &lengths);
    m.last("ReverseSequence", &[&x, &lengths], 1, attrs! { "batch_axis" => batch, "time_axis" => 1 - batch });
}

/// A shape or a size, and a tensor made of it.
fn shapes(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let x = m.random(F32, &shape);
    match m.int(0, 3) {
        0 => m.last("Size", &[&x], 1, attrs! {}),
        1 => {
            let rank = shape.len() as i64;
            let attrs = attrs! { "start" => m.int(-rank - 1, rank + 1), "end" => m.int(-rank - 1, rank + 1) };
            m.last("Shape", &[&x], 1, attrs);
        }
        2 => {
            let shape = m.op("Shape", &[&x], attrs! {});
            m.last("ConstantOfShape", &[&shape], 1, attrs! {});
        }
        _ => {
            let rows = m.op("Flatten", &[&x], attrs! {});
            let attrs = attrs! { "k" => m.int(-3, 3) };
            m.last("EyeLike", &[&rows], 1, attrs);
        }
    }
}

fn non_zero(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let dtype = m.pick(&[F32, I64, BOOL, I32]);
    let count = shape.iter().product();
    let data = m.integers(count, 0, 1);
    let x = m.feed(dtype, &shape, &data);
    m.last("NonZero", &[&x], 1, attrs! {});
}

fn range(m: &mut Maker) {
    let dtype = m.pick(&[F32, I64, I32]);
    let step = m.pick(&[1.0, 2.0, 3.0, -1.0, -2.0]);
    let (start, limit) = (m.int(-5, 5) as f64, m.int(-9, 9) as f64);
    let (start, limit) = (m.feed(dtype, &[], &[start]), m.either(dtype, &[], &[limit]));
    let step = m.either(dtype, &[], &[step]);
    m.last("Range", &[&start, &limit, &step], 1, attrs! {});
}

fn center_crop_pad(m: &mut Maker) {
    m.fixed();
    let shape = m.shape(1, 3);
    let x = m.random(F32, &shape);
    let axes = m.axes(shape.len());
    let target = m.ints(axes.len(), 1, 7);
    let target = m.list(&target);
    m.last("CenterCropPad", &[&x, &target], 1, attrs! { "axes" => axes });
}

fn unique(m: &mut Maker) {
    m.fixed();
    let shape = m.shape(1, 2);
    let x = m.random(I64, &shape);
    let mut attrs = attrs! { "sorted" => m.chance() };
    if m.chance() {
        attrs.push(("axis", m.axis(shape.len()).into()));
    }
    m.last("Unique", &[&x], 4, attrs);
}
