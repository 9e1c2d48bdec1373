//! Convolutions and matrix products.

use smallvec::SmallVec;
use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Activation, BinaryOp, Conv, ConvTranspose, Einsum, MatMul, Pad, PadMode};
use trt_fuse_ir::{Dim, Epilogue, Ints, Op, Padding};

use super::{ANY, Row};
use crate::import::attrs::{Attributes, fault};
use crate::import::formula::cut;
use crate::import::node::{Fault, Imported, NodeContext, Outputs};

pub(super) const ROWS: &[Row] = &[
    Row::new("CausalConvWithState", (2, 4), 2, causal_conv_with_state),
    Row::new("Conv", (2, 3), 1, conv),
    Row::new("ConvTranspose", (2, 3), 1, conv_transpose),
    Row::new("Einsum", (1, ANY), 1, einsum),
    Row::new("Gemm", (2, 3), 1, gemm),
    Row::new("MatMul", (2, 2), 1, |node| node.emit_same(MatMul::new(false, false))),
];

/// Padding of `axes` spatial axes: `pads`, or `auto_pad` where that says so.
pub(super) fn padding(attrs: &Attributes<'_>, axes: usize) -> Result<Padding, Fault> {
    let pads = attrs.ints_of("pads", 2 * axes, 0, 0)?;
    let choices = [("NOTSET", 0), ("VALID", 1), ("SAME_UPPER", 2), ("SAME_LOWER", 3)];
    Ok(match attrs.choice("auto_pad", &choices)? {
        0 => Padding::Explicit(pads),
        1 => Padding::none(axes),
        2 => Padding::SameUpper,
        _ => Padding::SameLower,
    })
}

/// The number of spatial axes, from the weight, the data or the attributes.
fn spatial_axes(node: &NodeContext<'_, '_>, weight: usize) -> Result<usize, Fault> {
    for slot in [weight, 0] {
        if let Some(rank) = node.input_info(slot)?.rank() {
            let wrong = || crate::import::ImportError::Operands {
                reason: format!("input {slot} has rank {rank}, at least 3 expected"),
            };
            return Ok(rank.checked_sub(2).filter(|axes| *axes > 0).ok_or_else(wrong)?);
        }
    }
    match node.attrs.ints("kernel_shape")? {
        Some(kernel) => Ok(kernel.len()),
        None => Err(Fault::Unsupported("the rank of its inputs is not known".to_owned())),
    }
}

/// Refuses a `kernel_shape` that is not the weight's.
fn check_kernel(node: &NodeContext<'_, '_>, axes: usize, weight: usize) -> Result<(), Fault> {
    if !node.attrs.has("kernel_shape") {
        return Ok(());
    }
    let kernel = node.attrs.ints_of("kernel_shape", axes, 1, 1)?;
    let weight = node.input_info(weight)?;
    let sizes = weight.shape.iter().flat_map(|shape| shape.iter().skip(2)).map(|dim| dim.value());
    match kernel.iter().zip(sizes).find(|(stated, size)| size.is_some_and(|size| size != **stated)) {
        Some(_) => Err(fault("kernel_shape", format!("{:?} found, the weight is {weight}", kernel.as_slice())).into()),
        None => Ok(()),
    }
}

/// The convolution that the attributes of a node describe, whose weight is input `weight`.
pub(super) fn convolution(node: &NodeContext<'_, '_>, weight: usize) -> Result<Conv, Fault> {
    let axes = spatial_axes(node, weight)?;
    check_kernel(node, axes, weight)?;
    let attrs = &node.attrs;
    Ok(Conv {
        strides: attrs.ints_of("strides", axes, 1, 1)?,
        dilations: attrs.ints_of("dilations", axes, 1, 1)?,
        padding: padding(attrs, axes)?,
        groups: attrs.int_at_least("group", 1, 1)?,
        epilogue: Epilogue::default(),
    })
}

fn conv(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = convolution(node, 1)?;
    node.emit_same(op)
}

fn conv_transpose(node: &mut NodeContext<'_, '_>) -> Imported {
    let axes = spatial_axes(node, 1)?;
    check_kernel(node, axes, 1)?;
    let attrs = &node.attrs;
    let output_shape = if attrs.has("output_shape") { Some(output_shape(attrs, axes)?) } else { None };
    let op = ConvTranspose {
        strides: attrs.ints_of("strides", axes, 1, 1)?,
        dilations: attrs.ints_of("dilations", axes, 1, 1)?,
        padding: padding(attrs, axes)?,
        output_padding: attrs.ints_of("output_padding", axes, 0, 0)?,
        output_shape,
        groups: attrs.int_at_least("group", 1, 1)?,
        epilogue: Epilogue::default(),
    };
    node.emit_same(op)
}

/// A convolution of each channel with itself, behind the last elements of what came before, or behind zeros.
fn causal_conv_with_state(node: &mut NodeContext<'_, '_>) -> Imported {
    let choices = [("none", false), ("silu", true), ("swish", true)];
    let activates = node.attrs.choice("activation", &choices)?;
    let (data, weight, bias, past) = (node.required(0)?, node.required(1)?, node.input(2), node.input(3));
    let (shape, weight_shape) = (node.shape(0)?, node.shape(1)?);
    let ([_, _, length], [channels, _, kernel]) = (&shape[..], &weight_shape[..]) else {
        let reason = format!("input and weight of ranks {} and {}, 3 expected", shape.len(), weight_shape.len());
        return Err(crate::import::ImportError::Operands { reason }.into());
    };
    let (Some(channels), Some(kernel)) = (channels.value(), kernel.value()) else {
        return Err(Fault::Unsupported("the sizes of its weight are known only at run time".to_owned()));
    };
    let before = kernel - 1;
    if channels < 1 || before < 0 {
        return Err(crate::import::ImportError::Operands { reason: "its weight is empty".to_owned() }.into());
    }
    let all = match past {
        Some(past) => node.concat("with_past", 2, &[past, data])?,
        None if before == 0 => data,
        None => {
            let pads = Ints::from_slice(&[0, 0, before, 0, 0, 0]);
            node.helper("padded", Pad { mode: PadMode::Constant, pads: Some(pads) }, [data])?
        }
    };
    let op = Conv {
        strides: Ints::from_elem(1, 1),
        dilations: Ints::from_elem(1, 1),
        padding: Padding::none(1),
        groups: channels,
        epilogue: Epilogue::default(),
    };
    let inputs = [all, weight].into_iter().chain(bias);
    let y = if activates {
        let y = node.helper("conv", op, inputs)?;
        node.output(0, Op::Activation(Activation::Swish(F32(1.0))), [y])?
    } else {
        node.output(0, op, inputs)?
    };
    let mut outputs = Outputs::from_iter([y]);
    if node.outputs.len() > 1 {
        let end = length + &Dim::fixed(before);
        outputs.push(node.output(1, cut(2, length.clone(), end), [all])?);
    }
    Ok(outputs)
}

/// The spatial sizes; some exporters write batch and channels too.
fn output_shape(attrs: &Attributes<'_>, axes: usize) -> Result<Ints, Fault> {
    let shape = attrs.ints("output_shape")?.unwrap_or_default();
    let spatial = shape.len().checked_sub(axes).filter(|skipped| matches!(skipped, 0 | 2));
    let sizes = spatial.and_then(|skipped| shape.get(skipped..)).filter(|sizes| sizes.iter().all(|size| *size > 0));
    match sizes {
        Some(sizes) => Ok(SmallVec::from_slice(sizes)),
        None => Err(fault("output_shape", format!("{:?} found, {axes} sizes expected", shape.as_slice())).into()),
    }
}

/// `alpha * a * b + beta * c`: a matrix product, with what is not neutral around it.
fn gemm(node: &mut NodeContext<'_, '_>) -> Imported {
    // Before opset 7; what it forbids needs no support.
    if node.opset < 7 {
        node.attrs.ignore("broadcast");
    }
    let (alpha, beta) = (node.attrs.float("alpha", 1.0)?, node.attrs.float("beta", 1.0)?);
    let op = MatMul::new(node.attrs.flag("transA", false)?, node.attrs.flag("transB", false)?);
    for slot in [0, 1] {
        if let Some(rank) = node.input_info(slot)?.rank().filter(|rank| *rank != 2) {
            let reason = format!("input {slot} has rank {rank}, 2 expected");
            return Err(crate::import::ImportError::Operands { reason }.into());
        }
    }
    let (a, b) = (node.required(0)?, node.required(1)?);
    let bias = node.input(2).filter(|_| beta != 0.0);
    let scaled = alpha != 1.0;
    if !scaled && bias.is_none() {
        return node.emit(op, [Some(a), Some(b)]);
    }
    let mul = Op::Binary(BinaryOp::Mul);
    // Numbers first, so that a type without them leaves nothing half done.
    let alpha = if scaled {
        Some(node.dtype(0).and_then(|dtype| node.scalar_part("alpha", dtype, alpha.into()))?)
    } else {
        None
    };
    let beta = match bias {
        Some(_) if beta != 1.0 => {
            let dtype = node.dtype(2)?;
            Some(node.scalar_part("beta", dtype, beta.into())?)
        }
        _ => None,
    };
    let mut product = node.helper("matmul", op, [a, b])?;
    if let Some(alpha) = alpha {
        if bias.is_none() {
            return node.emit(mul, [Some(product), Some(alpha)]);
        }
        product = node.helper("scaled", mul.clone(), [product, alpha])?;
    }
    let bias = match (bias, beta) {
        (Some(bias), Some(beta)) => Some(node.helper("bias", mul, [bias, beta])?),
        (bias, _) => bias,
    };
    node.emit(Op::Binary(BinaryOp::Add), [Some(product), bias])
}

fn einsum(node: &mut NodeContext<'_, '_>) -> Imported {
    let equation = node.attrs.string("equation")?.ok_or_else(|| fault("equation", "it is missing"))?;
    let equation = explicit(equation).map_err(|reason| fault("equation", reason))?;
    let terms = equation.split("->").next().map_or(0, |inputs| inputs.split(',').count());
    if terms != node.inputs.len() {
        let reason = format!("{terms} terms found, {} expected", node.inputs.len());
        return Err(fault("equation", reason).into());
    }
    node.emit_same(Einsum { equation })
}

/// An equation without blanks, its output written out: if it has none, the broadcast axes and then the letters that
/// occur once, in alphabetical order.
fn explicit(equation: &str) -> Result<String, String> {
    let compact: String = equation.chars().filter(|c| *c != ' ').collect();
    let letters = compact.replace("...", "").replacen("->", "", 1);
    if let Some(wrong) = letters.chars().find(|c| !c.is_ascii_alphabetic() && *c != ',') {
        return Err(format!("`{}` is no index", wrong.escape_debug()));
    }
    if compact.contains("->") {
        return Ok(compact);
    }
    let mut once: Vec<char> = letters.chars().filter(|c| *c != ',' && letters.matches(*c).count() == 1).collect();
    once.sort_unstable();
    let broadcast = if compact.contains("...") { "..." } else { "" };
    Ok(format!("{compact}->{broadcast}{}", once.into_iter().collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::explicit;

    #[test]
    fn equations_are_written_out() {
        assert_eq!(explicit("ij, jk"), Ok("ij,jk->ik".to_owned()));
        assert_eq!(explicit("b i j , b j k -> b i k"), Ok("bij,bjk->bik".to_owned()));
        assert_eq!(explicit("...ii"), Ok("...ii->...".to_owned()));
        assert_eq!(explicit("ba,Z"), Ok("ba,Z->Zab".to_owned()));
        assert_eq!(explicit("i%j"), Err("`%` is no index".to_owned()));
    }
}
