//! Convolutions.
//!
//! Inputs of both: data `[N, C, spatial...]`, weight, bias `[M]` or an empty slot, then one input for each
//! [`Step::Add`](super::Step::Add) of the epilogue. The weight is `[M, C/groups, kernel...]` for a convolution and
//! `[C, M/groups, kernel...]` for a transposed one. The epilogue applies to the output, after the bias, in order.

use super::{Epilogue, Ints, Padding};
use crate::attributes;

attributes! {
    /// ONNX `Conv`; the kernel's size is the weight's.
    pub struct Conv {
        /// One stride a spatial axis.
        strides: Ints,
        /// One dilation a spatial axis.
        dilations: Ints,
        /// Padding of the spatial axes.
        padding: Padding,
        /// Groups that the channels fall into.
        groups: i64,
        /// What is applied to the output.
        epilogue: Epilogue,
    }
}

attributes! {
    /// ONNX `ConvTranspose`; the kernel's size is the weight's.
    pub struct ConvTranspose {
        /// One stride a spatial axis.
        strides: Ints,
        /// One dilation a spatial axis.
        dilations: Ints,
        /// Padding of the spatial axes, taken away from the output.
        padding: Padding,
        /// Added at the end of each spatial axis.
        output_padding: Ints,
        /// The spatial sizes of the output, where the model states them instead of padding.
        output_shape: Option<Ints>,
        /// Groups that the channels fall into.
        groups: i64,
        /// What is applied to the output.
        epilogue: Epilogue,
    }
}
