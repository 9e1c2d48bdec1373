//! Operators that look for equal elements.

use trt_fuse_ir::op::{
    BinaryOp, Cast, Constant, Cumulative, Expand, Gather, MatMul, ReduceKind, ScatterElements, ScatterReduction,
    UnaryOp,
};
use trt_fuse_ir::{DType, Dim, Op, Shape, Tensor, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::formula::{front_axis, to_shape};
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] =
    &[Row::new("TfIdfVectorizer", (1, 1), 1, tf_idf_vectorizer), Row::new("Unique", (1, 1), 4, unique)];

/// Every slice is compared with every other: which one equals it first, how many do, and how many distinct ones are less.
fn unique(node: &mut NodeContext<'_, '_>) -> Imported {
    let is_sorted = node.attrs.flag("sorted", true)?;
    let (data, shape, dtype) = (node.required(0)?, node.shape(0)?, node.dtype(0)?);
    if is_empty(node, &shape)? {
        return empty(node);
    }
    // Slices as rows `[count, length]`.
    let (axis, data, rows) = match node.attrs.int("axis")? {
        None => {
            let count = Dim::product(&shape);
            let flat = node.reshape("flat", data, [count.clone()])?;
            (0, flat, node.reshape("rows", flat, [count, Dim::fixed(1)])?)
        }
        Some(axis) => {
            let axis = front_axis("axis", axis, shape.len())?;
            let order: Vec<usize> = std::iter::once(axis).chain((0..shape.len()).filter(|at| *at != axis)).collect();
            let first = node.transpose("first", data, &order)?;
            let count = shape.get(axis).cloned().unwrap_or(Dim::fixed(0));
            let length = Dim::product(order.iter().skip(1).filter_map(|at| shape.get(*at)));
            (axis, data, node.reshape("rows", first, [count, length])?)
        }
    };
    let rows = if dtype == DType::Bool { node.cast("rows.i32", rows, DType::I32)? } else { rows };
    let (a, b) = (node.unsqueeze("each", rows, &[1])?, node.unsqueeze("other", rows, &[0])?);

    let (equal, less) = compared(node, a, b, dtype)?;
    let equal = node.cast("equal.number", equal, DType::I32)?;
    let same = node.reduce("same", ReduceKind::Min, equal, &[2], false)?;
    // The smallest place, and no search for the largest number: TensorRT's top-k finds any of equal ones.
    let own = node.indices_of("own", rows, 0)?;
    let is_same = node.with_number("is_same", BinaryOp::Equal, same, 1.0)?;
    let none = node.scalar_part("none", DType::I64, f64::from(i32::MAX))?;
    let place = node.select("same.place", is_same, own, none)?;
    let first = node.reduce("first_equal", ReduceKind::Min, place, &[1], false)?;
    let is_first = node.binary("is_first", BinaryOp::Equal, first, own)?;
    let distinct = node.cast("distinct", is_first, DType::I32)?;

    // The place of a slice among the distinct ones: those before it, or those less than it.
    let rank = if is_sorted {
        let less_at = lexicographic(node, equal, less)?;
        let of_distinct = node.binary("less.distinct", BinaryOp::Mul, less_at, distinct)?;
        node.reduce("rank", ReduceKind::Sum, of_distinct, &[1], false)?
    } else {
        let along = node.ints_part("along", &[0])?;
        let op = Cumulative { product: false, exclusive: true, reverse: false };
        node.helper("rank", op, [distinct, along])?
    };
    let rank = node.cast("rank.i64", rank, DType::I64)?;
    let found = node.helper("found", Op::NonZero, [is_first])?;
    let mut places = node.squeeze("places", found, &[0])?;
    if is_sorted {
        let order = node.gather("order", rank, places, 0)?;
        let op = ScatterElements { axis: 0, reduction: ScatterReduction::None };
        places = node.helper("sorted", op, [places, order, places])?;
    }
    let y = node.output(0, Gather { axis: axis as i64 }, [data, places])?;
    let mut outputs = vec![y];
    for slot in 1..node.outputs.len() {
        outputs.push(match slot {
            1 => node.output(1, Op::Unary(UnaryOp::Identity), [places])?,
            2 => node.output(2, Gather { axis: 0 }, [rank, first])?,
            _ => {
                let counts = node.reduce("counts.of_all", ReduceKind::Sum, same, &[1], false)?;
                let counts = node.gather("counts", counts, places, 0)?;
                node.output(3, Cast::new(DType::I64), [counts])?
            }
        });
    }
    Ok(outputs.into_iter().collect())
}

/// Whether there is no slice to compare.
fn is_empty(node: &NodeContext<'_, '_>, shape: &Shape) -> Result<bool, Fault> {
    Ok(match node.attrs.int("axis")? {
        None => shape.iter().any(|dim| dim.is(0)),
        Some(axis) => shape.get(front_axis("axis", axis, shape.len())?).is_some_and(|dim| dim.is(0)),
    })
}

/// Nothing is unique in nothing.
fn empty(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    let y = match node.attrs.has("axis") {
        true => node.output(0, Op::Unary(UnaryOp::Identity), [data])?,
        false => node.output(0, to_shape([Dim::fixed(0)]), [data])?,
    };
    let mut outputs = vec![y];
    for slot in 1..node.outputs.len() {
        outputs.push(node.output(slot, Constant { value: Tensor::vector(Vec::<i64>::new()) }, [])?);
    }
    Ok(outputs.into_iter().collect())
}

/// Where a equals b, and where b is less than a. A NaN equals itself and is greater than all numbers, as in NumPy.
fn compared(
    node: &mut NodeContext<'_, '_>,
    a: ValueRef,
    b: ValueRef,
    dtype: DType,
) -> Result<(ValueRef, ValueRef), Fault> {
    let equal = node.binary("equal", BinaryOp::Equal, a, b)?;
    let less = node.binary("less", BinaryOp::Less, b, a)?;
    if !dtype.is_float() {
        return Ok((equal, less));
    }
    let (a_nan, b_nan) = (node.unary("each.nan", UnaryOp::IsNan, a)?, node.unary("other.nan", UnaryOp::IsNan, b)?);
    let both = node.binary("both_nan", BinaryOp::And, a_nan, b_nan)?;
    let equal = node.binary("equal.or_nan", BinaryOp::Or, equal, both)?;
    let b_number = node.unary("other.number", UnaryOp::Not, b_nan)?;
    let below_nan = node.binary("below_nan", BinaryOp::And, a_nan, b_number)?;
    let less = node.binary("less.or_nan", BinaryOp::Or, less, below_nan)?;
    Ok((equal, less))
}

/// Whether slices are less, as numbers `[count, count]`: their first elements that differ are.
fn lexicographic(node: &mut NodeContext<'_, '_>, equal: ValueRef, less: ValueRef) -> Result<ValueRef, Fault> {
    let along = node.ints_part("elements", &[2])?;
    let one = node.scalar_part("one", DType::I32, 1.0)?;
    let differs = node.binary("differs", BinaryOp::Sub, one, equal)?;
    let op = Cumulative { product: false, exclusive: true, reverse: false };
    let before = node.helper("differ_before", op, [differs, along])?;
    let alike = node.with_number("alike_before", BinaryOp::Equal, before, 0.0)?;
    let decided = node.binary("decided", BinaryOp::And, less, alike)?;
    let decided = node.cast("decided.number", decided, DType::I32)?;
    node.reduce("is_less", ReduceKind::Max, decided, &[2], false)
}

/// What a vectorizer's attributes say of the n-grams that it counts.
struct Grams {
    /// Elements of one.
    length: usize,
    /// All of them, one after the other.
    items: Vec<i64>,
    /// The output column of each.
    columns: Vec<usize>,
}

/// The n-grams of the pool by their lengths, of those that are counted, and the columns of all.
fn grams(node: &NodeContext<'_, '_>) -> Result<(Vec<Grams>, Vec<usize>), Fault> {
    let attrs = &node.attrs;
    let pool = attrs.ints("pool_int64s")?;
    if attrs.has("pool_strings") {
        return Err(Fault::attribute("pool_strings", crate::import::model::STRINGS));
    }
    let pool = pool.ok_or_else(|| fault("pool_int64s", "it is missing"))?;
    let starts = attrs.ints("ngram_counts")?.ok_or_else(|| fault("ngram_counts", "it is missing"))?;
    let columns = attrs.ints("ngram_indexes")?.ok_or_else(|| fault("ngram_indexes", "it is missing"))?;
    let columns: Option<Vec<usize>> =
        columns.iter().map(|column| usize::try_from(*column).ok().filter(|column| *column < MAX_COLUMNS)).collect();
    let columns = columns.filter(|columns| !columns.is_empty());
    let columns = columns.ok_or_else(|| fault("ngram_indexes", "its numbers are no columns"))?;
    let (least, most) = (attrs.required_int("min_gram_length")?, attrs.required_int("max_gram_length")?);
    let mut all = Vec::new();
    let mut taken = 0;
    for (at, start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(pool.len() as i64);
        let range = usize::try_from(*start).ok().zip(usize::try_from(end).ok());
        let items = range.and_then(|(start, end)| pool.get(start..end));
        let items = items.ok_or_else(|| fault("ngram_counts", format!("{start} to {end} is outside of the pool")))?;
        let length = at + 1;
        let count = items.len() / length;
        let columns = columns.get(taken..taken + count);
        let columns = columns.ok_or_else(|| fault("ngram_indexes", "there are fewer than n-grams"))?.to_vec();
        taken += count;
        if count > 0 && (least..=most).contains(&(length as i64)) {
            all.push(Grams { length, items: items.iter().copied().take(count * length).collect(), columns });
        }
    }
    Ok((all, columns))
}

/// Most columns of a vectorizer's output.
const MAX_COLUMNS: usize = 1 << 24;
/// Most elements of the tables made for it.
const MAX_TABLE: usize = 1 << 26;
/// Most distances of items that are compared.
const MAX_SKIPS: i64 = 1 << 10;

/// Each window of the sequence compared with each n-gram; the sums go to their columns by a product with ones.
fn tf_idf_vectorizer(node: &mut NodeContext<'_, '_>) -> Imported {
    let (grams, all_columns) = grams(node)?;
    let width = all_columns.iter().max().map_or(0, |column| column + 1);
    let skips = node.attrs.int_at_least("max_skip_count", 0, 0)?;
    if skips > MAX_SKIPS {
        let reason = format!("it skips up to {skips} items, at most {MAX_SKIPS} are compared");
        return Err(Fault::attribute("max_skip_count", reason));
    }
    let mode = node.attrs.string("mode")?.ok_or_else(|| fault("mode", "it is missing"))?;
    if !matches!(mode, "TF" | "IDF" | "TFIDF") {
        return Err(fault("mode", format!("`{mode}` found, one of TF, IDF, TFIDF expected")).into());
    }
    let weights = node.attrs.floats("weights")?.unwrap_or_default();
    let (data, dtype, shape) = (node.required(0)?, node.dtype(0)?, node.shape(0)?);
    if dtype == DType::String {
        return Err(Fault::Unsupported(crate::import::model::STRINGS.to_owned()));
    }
    let length = shape.last().and_then(|length| usize::try_from(length.value()?).ok());
    let Some(length) = length.filter(|_| shape.len() <= 2) else {
        return Err(Fault::Unsupported("the length of its sequences is known only at run time".to_owned()));
    };
    // One element each: `[batch, window, gram, item]`.
    let sequences = node.reshape("sequences", data, [Dim::product(shape.iter().rev().skip(1)), Dim::from(length)])?;
    let mut total: Option<ValueRef> = None;
    for grams in &grams {
        let count = grams.columns.len();
        let items = crate::import::node::index_tensor(dtype, &[1, 1, count, grams.length], &grams.items);
        let items = items.ok_or_else(|| fault("pool_int64s", format!("its numbers do not fit {dtype}")))?;
        let items = node.constant_part("grams", items)?;
        let is_small = |a: usize, b: usize| a.checked_mul(b).is_some_and(|size| size <= MAX_TABLE);
        if !is_small(count, width) || !is_small(length, grams.length) {
            let reason = format!("{count} n-grams in {width} columns of sequences of {length} are too many");
            return Err(Fault::Unsupported(reason));
        }
        let mut ones = vec![0.0; count * width];
        for (gram, column) in grams.columns.iter().enumerate() {
            if let Some(one) = ones.get_mut(gram * width + column) {
                *one = 1.0;
            }
        }
        let ones = node.numbers_part("columns", DType::F32, &[count, width], &ones)?;
        // Items next to each other, or with some left out between each; single ones count once.
        let steps = if grams.length == 1 { 1 } else { skips.saturating_add(1) };
        let reach = |step: usize| step.saturating_mul(grams.length - 1);
        for step in (1..).take_while(|step| *step as i64 <= steps && reach(*step) < length) {
            let windows = length - reach(step);
            let places: Vec<i64> = (0..windows)
                .flat_map(|first| (0..grams.length).map(move |item| (first + item * step) as i64))
                .collect();
            let places = node.ints_part("places", &places)?;
            let items_of = node.gather("items", sequences, places, 1)?;
            let batch = node.info(sequences).shape.and_then(|shape| shape.first().cloned()).unwrap_or(Dim::fixed(1));
            let dims = [batch, Dim::from(windows), Dim::fixed(1), Dim::from(grams.length)];
            let windows = node.reshape("windows", items_of, dims)?;
            let equal = node.binary("equal", BinaryOp::Equal, windows, items)?;
            let equal = node.cast("equal.number", equal, DType::F32)?;
            let whole = node.reduce("whole", ReduceKind::Min, equal, &[3], false)?;
            let counts = node.reduce("counts", ReduceKind::Sum, whole, &[1], false)?;
            let op: MatMul = MatMul::new(false, false);
            let counts = node.helper("of_columns", op, [counts, ones])?;
            total = Some(match total {
                None => counts,
                Some(total) => node.binary("total", BinaryOp::Add, total, counts)?,
            });
        }
    }
    let mut total = match total {
        Some(total) => total,
        // No n-gram is as short as the sequences.
        None => {
            let batch = Dim::product(shape.iter().rev().skip(1));
            let zero = node.scalar_part("zero", DType::F32, 0.0)?;
            let shape = Shape::from_iter([batch, Dim::from(width)]);
            node.helper("zeros", Expand { shape: Some(shape) }, [zero])?
        }
    };
    if mode == "IDF" {
        total = node.with_number("present", BinaryOp::Min, total, 1.0)?;
    }
    if mode != "TF" && !weights.is_empty() {
        if weights.len() != all_columns.len() {
            let reason = format!("{} numbers found, {} expected", weights.len(), all_columns.len());
            return Err(fault("weights", reason).into());
        }
        // One of each n-gram, to those of the columns.
        let mut of_columns = vec![0.0; width];
        for (weight, column) in weights.iter().zip(&all_columns) {
            if let Some(of_column) = of_columns.get_mut(*column) {
                *of_column = f64::from(*weight);
            }
        }
        let weights = node.numbers_part("weights", DType::F32, &[width], &of_columns)?;
        total = node.binary("weighted", BinaryOp::Mul, total, weights)?;
    }
    let batch = shape.first().cloned().filter(|_| shape.len() == 2);
    node.emit(to_shape(batch.into_iter().chain([Dim::from(width)])), [Some(total)])
}
