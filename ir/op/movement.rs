//! Operators that move data without computing: reshapes, transposes, slices, concatenations.
//!
//! Several take their parameters either as an attribute or as an input: the attribute is the canonical form, the
//! input what a model has whose parameter is computed. With the attribute present the input slots are empty or absent.

use super::Ints;
use crate::{DType, Shape, Tensor, attributes, words};

attributes! {
    /// ONNX `Reshape`, and in canonical form `Flatten`, `Squeeze` and `Unsqueeze` too. Inputs: data, shape (i64
    /// vector) if the attribute is absent.
    pub struct Reshape {
        /// The output's shape, every dimension given: no 0, no -1.
        shape: Option<Shape>,
        /// In the shape input, 0 is a size of 0 and not the input's dimension.
        allow_zero: bool,
    }
}

attributes! {
    /// ONNX `Flatten`: to `[product before axis, product from axis]`.
    pub struct Flatten {
        /// Negative counts from the end.
        axis: i64,
    }
}

attributes! {
    /// ONNX `Squeeze`. Inputs: data, axes (i64 vector) if the attribute is absent; without either, all axes of size 1.
    pub struct Squeeze {
        /// Negative ones count from the end.
        axes: Option<Ints>,
    }
}

attributes! {
    /// ONNX `Unsqueeze`. Inputs: data, axes (i64 vector) if the attribute is absent.
    pub struct Unsqueeze {
        /// Axes of the output; negative ones count from the end.
        axes: Option<Ints>,
    }
}

attributes! {
    /// ONNX `Transpose`: axis i of the output is axis `perm[i]` of the input.
    pub struct Transpose {
        /// A permutation.
        perm: Ints,
    }
}

attributes! {
    /// A transpose, a reshape and a transpose in a row, each where it is given: TensorRT's `IShuffleLayer`.
    pub struct Shuffle {
        /// The permutation before the reshape.
        before: Option<Ints>,
        /// The shape of the reshape.
        shape: Option<Shape>,
        /// The permutation after the reshape.
        after: Option<Ints>,
    }
}

attributes! {
    /// ONNX `Expand`: broadcasts data with a shape (both ways). Inputs: data, shape (i64 vector) if the attribute is
    /// absent.
    pub struct Expand {
        /// The shape broadcast with.
        shape: Option<Shape>,
    }
}

attributes! {
    /// ONNX `Concat`.
    pub struct Concat {
        /// Negative counts from the end.
        axis: i64,
    }
}

attributes! {
    /// ONNX `Split`. Inputs: data, sizes (i64 vector). Without sizes, equal parts, the last one smaller.
    pub struct Split {
        /// Negative counts from the end.
        axis: i64,
        /// The parts' sizes.
        sizes: Option<Shape>,
    }
}

attributes! {
    /// ONNX `Slice`. Inputs: data and, if `starts` is absent, starts, ends, axes, steps (integer vectors; the last two
    /// may be empty slots).
    pub struct Slice {
        /// The axes cut, non-negative, each once; absent with the input form.
        axes: Option<Ints>,
        /// First element of each axis, in `0..=size` (for a negative step `size - 1` at most, which is -1 where there is none).
        starts: Option<Shape>,
        /// One past the last element, in `0..=size` (from -1 for a negative step).
        ends: Option<Shape>,
        /// Never 0.
        steps: Option<Ints>,
    }
}

attributes! {
    /// Elements moved along axes, those that leave at one end coming back at the other: element i of an axis of n is the
    /// input's element `(i + shift) mod n`. What PyTorch calls `roll` by the negative shift.
    pub struct Roll {
        /// Axes, non-negative, each once.
        axes: Ints,
        /// The input's element that comes first, in `0..=n`.
        shifts: Ints,
    }
}

words! {
    /// What [`Pad`] fills with.
    pub enum PadMode {
        /// One value.
        Constant = "constant",
        /// The mirrored data, the edge not repeated.
        Reflect = "reflect",
        /// The edge.
        Edge = "edge",
        /// The data from the other end.
        Wrap = "wrap",
    }
}

attributes! {
    /// ONNX `Pad`. Inputs: data, pads (i64 vector) unless the attribute is there, value (scalar) or an empty slot for
    /// 0, axes (integer vector) or an empty slot for all. With the attribute, slots 1 and 3 are empty.
    pub struct Pad {
        /// What the padding holds.
        mode: PadMode,
        /// Elements added before each axis, then after each axis; negative ones take away.
        pads: Option<Ints>,
    }
}

attributes! {
    /// ONNX `Tile`. Inputs: data, repeats (i64 vector).
    pub struct Tile {}
}

attributes! {
    /// ONNX `Shape`: the dimensions `start..end` as an i64 vector.
    pub struct ShapeOf {
        /// Negative counts from the end.
        start: i64,
        /// Negative counts from the end; absent for all.
        end: Option<i64>,
    }
}

attributes! {
    /// ONNX `ConstantOfShape`. Input: shape (i64 vector).
    pub struct ConstantOfShape {
        /// One element.
        value: Tensor,
    }
}

attributes! {
    /// ONNX `DepthToSpace` and, with `inverse`, `SpaceToDepth`.
    pub struct DepthToSpace {
        /// The block's side.
        block: i64,
        /// Column-row-depth order.
        crd: bool,
        /// From space to depth.
        inverse: bool,
    }
}

attributes! {
    /// ONNX `EyeLike`: a matrix of the input's shape with ones on a diagonal.
    pub struct EyeLike {
        /// The output's dtype; the input's if absent.
        dtype: Option<DType>,
        /// The diagonal: above for positive.
        k: i64,
    }
}

attributes! {
    /// ONNX `Trilu`. Inputs: data, k (scalar i64) or an empty slot for 0.
    pub struct Trilu {
        /// The upper triangle stays.
        upper: bool,
    }
}
