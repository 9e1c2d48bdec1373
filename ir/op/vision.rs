//! Sampling at positions that are data, and detection.

use crate::{attributes, words};

words! {
    /// How [`GridSample`] finds an element between others.
    pub enum SampleKind {
        /// Linear interpolation along each axis.
        Linear = "linear",
        /// The nearest element; halfway, the even one.
        Nearest = "nearest",
        /// Cubic interpolation along each axis, its coefficient -0.75.
        Cubic = "cubic",
    }
}

words! {
    /// What [`GridSample`] reads outside of the data.
    pub enum SamplePadding {
        /// Zeros.
        Zeros = "zeros",
        /// The edge.
        Border = "border",
        /// The data, mirrored.
        Reflection = "reflection",
    }
}

attributes! {
    /// ONNX `GridSample`. Inputs: data `[n, c, spatial...]`, grid `[n, output..., axes]` of positions from -1 to 1, the
    /// last axis of the data first.
    pub struct GridSample {
        /// How elements are found.
        kind: SampleKind,
        /// What is read outside.
        padding: SamplePadding,
        /// -1 and 1 are the centres of the corner elements, not their edges.
        align_corners: bool,
    }
}

attributes! {
    /// ONNX `NonMaxSuppression`. Inputs: boxes `[batch, boxes, 4]`, scores `[batch, classes, boxes]`, the most boxes a
    /// class (i64, one element), and the thresholds of overlap and score (f32, one element) or empty slots. Output:
    /// `[selected, 3]` of batch, class and box, i64.
    pub struct NonMaxSuppression {
        /// Boxes are centre, width and height, not two corners.
        center_point: bool,
    }
}
