//! Pooling over windows, and resampling.
//!
//! Pooling over all of the spatial axes (`GlobalAveragePool`) is a [`Reduce`](super::Reduce).

use super::{Ints, Padding};
use crate::attr::F32;
use crate::{attributes, words};

words! {
    /// What a window yields.
    pub enum PoolKind {
        /// The maximum; a second output, where the node has one, is its index in the flattened input.
        Max = "max",
        /// The mean of the elements inside the input.
        Average = "average",
        /// The mean over the window, padding included.
        AverageIncludePad = "average_include_pad",
        /// The p-norm.
        Lp = "lp",
    }
}

attributes! {
    /// ONNX `MaxPool`, `AveragePool`, `LpPool`. Input: data `[N, C, spatial...]`.
    pub struct Pool {
        /// What a window yields.
        kind: PoolKind,
        /// Window size, one a spatial axis.
        kernel: Ints,
        /// One stride a spatial axis.
        strides: Ints,
        /// One dilation a spatial axis.
        dilations: Ints,
        /// Padding of the spatial axes.
        padding: Padding,
        /// The output's size rounds up.
        ceil_mode: bool,
        /// The norm's exponent, for [`PoolKind::Lp`].
        p: Option<i64>,
        /// Indices count column-major, for [`PoolKind::Max`] with an index output.
        column_major: bool,
    }
}

words! {
    /// How [`Resize`] finds an output element.
    pub enum ResizeMode {
        /// The nearest input element.
        Nearest = "nearest",
        /// Linear interpolation of the neighbours.
        Linear = "linear",
        /// Cubic interpolation.
        Cubic = "cubic",
    }
}

words! {
    /// How an output coordinate is taken to the input.
    pub enum CoordinateMode {
        /// `(x + 0.5) / scale - 0.5`
        HalfPixel = "half_pixel",
        /// As half_pixel, corrected for a size that is no multiple.
        HalfPixelSymmetric = "half_pixel_symmetric",
        /// As half_pixel, and 0 for an output of one element.
        PytorchHalfPixel = "pytorch_half_pixel",
        /// `x * (in - 1) / (out - 1)`
        AlignCorners = "align_corners",
        /// `x / scale`
        Asymmetric = "asymmetric",
        /// `(x + 0.5) / scale`
        TfHalfPixelForNn = "tf_half_pixel_for_nn",
        /// Coordinates of a region of interest.
        TfCropAndResize = "tf_crop_and_resize",
    }
}

words! {
    /// How [`ResizeMode::Nearest`] rounds.
    pub enum NearestMode {
        /// Halves down.
        RoundPreferFloor = "round_prefer_floor",
        /// Halves up.
        RoundPreferCeil = "round_prefer_ceil",
        /// Down.
        Floor = "floor",
        /// Up.
        Ceil = "ceil",
    }
}

words! {
    /// What sizes mean for the aspect ratio.
    pub enum AspectPolicy {
        /// Each axis as asked.
        Stretch = "stretch",
        /// None larger than asked.
        NotLarger = "not_larger",
        /// None smaller than asked.
        NotSmaller = "not_smaller",
    }
}

attributes! {
    /// ONNX `Resize` (and `Upsample`). Inputs: data, roi, scales, sizes; roi and one of scales and sizes may be empty
    /// slots.
    pub struct Resize {
        /// How elements are found.
        mode: ResizeMode,
        /// How coordinates are taken to the input.
        coordinates: CoordinateMode,
        /// How nearest rounds.
        nearest: NearestMode,
        /// The cubic coefficient.
        cubic_coeff: F32,
        /// Elements outside have no weight.
        exclude_outside: bool,
        /// The filter widens when the size shrinks.
        antialias: bool,
        /// What is read outside of the input, for tf_crop_and_resize.
        extrapolation: F32,
        /// The axes that roi, scales and sizes speak of; all of them if absent.
        axes: Option<Ints>,
        /// What sizes mean for the aspect ratio.
        aspect: AspectPolicy,
    }
}
