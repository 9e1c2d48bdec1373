//! Operators that make or change shapes: reshapes, shape queries, fills.

use trt_fuse_ir::op::{
    Cast, ConstantOfShape, Expand, EyeLike, Flatten, Reshape, ShapeOf, Squeeze, Tile, Transpose, Trilu, Unsqueeze,
};
use trt_fuse_ir::{DType, Ints, Op, Tensor, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::model::STRINGS;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("ConstantOfShape", (1, 1), 1, constant_of_shape),
    Row::new("Expand", (2, 2), 1, |node| node.emit_same(Expand { shape: None })),
    Row::new("EyeLike", (1, 1), 1, eye_like),
    Row::new("Flatten", (1, 1), 1, flatten),
    Row::new("Range", (3, 3), 1, range),
    Row::new("Reshape", (2, 2), 1, reshape),
    Row::new("Shape", (1, 1), 1, shape),
    Row::new("Size", (1, 1), 1, |node| node.emit_same(Op::Size)),
    Row::new("Squeeze", (1, 2), 1, squeeze),
    Row::new("Tile", (2, 2), 1, |node| node.emit_same(Tile {})),
    Row::new("Transpose", (1, 1), 1, transpose),
    Row::new("Trilu", (1, 2), 1, trilu),
    Row::new("Unsqueeze", (1, 2), 1, unsqueeze),
];

fn reshape(node: &mut NodeContext<'_, '_>) -> Imported {
    let allow_zero = node.attrs.flag("allowzero", false)?;
    node.emit_same(Reshape { shape: None, allow_zero })
}

fn flatten(node: &mut NodeContext<'_, '_>) -> Imported {
    let axis = node.attrs.int_or("axis", 1)?;
    node.emit_same(Flatten { axis })
}

/// Axes: an attribute before opset 13, an input from there on. The outer `None` stands for a computed input.
fn axes(node: &NodeContext<'_, '_>) -> Result<Option<Option<Ints>>, Fault> {
    match node.input(1) {
        None => Ok(Some(node.attrs.ints("axes")?)),
        Some(_) if node.attrs.has("axes") => Err(fault("axes", "the axes are an input too").into()),
        Some(_) => Ok(node.constant_ints(1).map(|axes| Some(axes.into_iter().collect()))),
    }
}

fn squeeze(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    match axes(node)? {
        Some(axes) => node.emit(Squeeze { axes }, [Some(data)]),
        None => node.emit_same(Squeeze { axes: None }),
    }
}

fn unsqueeze(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    match axes(node)? {
        Some(None) => Err(fault("axes", "it is missing").into()),
        Some(axes) => node.emit(Unsqueeze { axes }, [Some(data)]),
        None => node.emit_same(Unsqueeze { axes: None }),
    }
}

fn transpose(node: &mut NodeContext<'_, '_>) -> Imported {
    let perm = match node.attrs.ints("perm")? {
        Some(perm) => perm,
        None => (0..node.rank(0)? as i64).rev().collect(),
    };
    node.emit_same(Transpose { perm })
}

fn shape(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = ShapeOf { start: node.attrs.int_or("start", 0)?, end: node.attrs.int("end")? };
    node.emit_same(op)
}

fn constant_of_shape(node: &mut NodeContext<'_, '_>) -> Imported {
    let value = match node.attrs.tensor("value")? {
        None => Tensor::vector(vec![0.0_f32]),
        Some(proto) => match node.importer.tensors.read(proto.clone(), "value") {
            Err(crate::import::ImportError::StringTensor { .. }) => return Err(Fault::Unsupported(STRINGS.to_owned())),
            tensor => tensor?,
        },
    };
    if value.numel() != 1 {
        return Err(fault("value", format!("{} elements found, 1 expected", value.numel())).into());
    }
    node.emit_same(ConstantOfShape { value })
}

fn eye_like(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = EyeLike { dtype: node.attrs.dtype("dtype")?, k: node.attrs.int_or("k", 0)? };
    node.emit_same(op)
}

fn range(node: &mut NodeContext<'_, '_>) -> Imported {
    // The type of the running sum, which changes rounding alone.
    node.attrs.dtype("stash_type")?;
    let Some(whole) = whole_bounds(node)? else { return node.emit_same(Op::Range) };
    // The integers tell how many there are by shapes; of floats that would be known only at run time.
    let dtype = node.dtype(0)?;
    let counted = node.helper("counted", Op::Range, whole)?;
    node.emit(Cast::new(dtype), [Some(counted)])
}

/// The inputs of a range of floats as i64, if they are integers that were converted or constants that are whole.
/// `torch.arange(size, dtype=float)` is exported so. Types of 16 bits do not hold the integers that they count.
fn whole_bounds(node: &mut NodeContext<'_, '_>) -> Result<Option<[ValueRef; 3]>, Fault> {
    if !matches!(node.dtype(0)?, DType::F32 | DType::F64) {
        return Ok(None);
    }
    let mut whole = Vec::new();
    for slot in 0..3 {
        let value = node.required(slot)?;
        let constant = node.constant(slot).and_then(|bound| bound.uniform_f64());
        let found = match constant.filter(|bound| bound.fract() == 0.0 && bound.abs() <= MAX_WHOLE) {
            Some(bound) => Bound::Constant(bound),
            None => match converted(node, value) {
                Some(integer) => Bound::Integer(integer),
                None => return Ok(None),
            },
        };
        whole.push(found);
    }
    let mut bounds = Vec::new();
    for (part, bound) in ["start", "limit", "step"].into_iter().zip(whole) {
        bounds.push(match bound {
            Bound::Constant(bound) => node.scalar_part(part, DType::I64, bound)?,
            Bound::Integer(value) => node.cast(part, value, DType::I64)?,
        });
    }
    Ok(bounds.try_into().ok())
}

/// Up to here every integer is an f32.
const MAX_WHOLE: f64 = (1 << 24) as f64;

/// A bound of a range that is an integer.
enum Bound {
    Constant(f64),
    Integer(ValueRef),
}

/// The integers that a value is converted from.
fn converted(node: &NodeContext<'_, '_>, value: ValueRef) -> Option<ValueRef> {
    let graph = node.builder.graph();
    let Some(Op::Cast(_)) = graph.op(value.node) else { return None };
    let source = graph.input(value.node, 0)?;
    graph.info(source).is_some_and(|info| info.dtype.is_integer()).then_some(source)
}

fn trilu(node: &mut NodeContext<'_, '_>) -> Imported {
    let upper = node.attrs.flag("upper", true)?;
    node.emit_same(Trilu { upper })
}
