//! What a target TensorRT can express, as plain data, so that passes can ask without knowing TensorRT.

use crate::DType;

/// A family of TensorRT releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    /// TensorRT proper: a GPU at build time.
    TensorRt,
    /// TensorRT for RTX: builds without a GPU, compiles kernels on the device.
    Rtx,
}

/// What the target can express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The family.
    pub flavour: Flavour,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Element types of tensors inside the network.
    pub dtypes: Vec<DType>,
    /// INormalization (8.6 and later).
    pub normalization: bool,
    /// ITopKLayer's k as an input (8.6 and later).
    pub top_k_input: bool,
    /// ITopKLayer takes integers (10.0 and later; its parser casts them to f32 before).
    pub top_k_integers: bool,
    /// IReverseSequenceLayer (8.6 and later).
    pub reverse_sequence: bool,
    /// Squeeze and Unsqueeze layers (10.7 and later).
    pub squeeze: bool,
    /// Cumulative layer (10.8 and later).
    pub cumulative: bool,
    /// IAttention (10.14 and later).
    pub attention: bool,
    /// IAttention's causal mask counted from the end (11.0 and later).
    pub causal_from_end: bool,
    /// IRotaryEmbeddingLayer (10.15 and later).
    pub rotary_embedding: bool,
    /// IGridSampleLayer takes volumes (11.2 and later).
    pub grid_sample_3d: bool,
    /// INMSLayer; TensorRT-RTX has the layer but no kernel for it.
    pub nms: bool,
    /// INonZero, whose output's size its data tell (8.5 and later; TensorRT-RTX takes the layer and fails to build it).
    pub non_zero: bool,
    /// kGELU_ERF and kGELU_TANH (10.0 and later).
    pub gelu: bool,
    /// Slices that wrap around have kernels wherever the builder puts them: TensorRT 8.5.3 has none in the regions that it
    /// compiles as one, and does not build.
    pub wrapping_slices: bool,
    /// I8 outside of quantization (9.0 and later): before, such tensors want a range of floats that they stand for.
    pub plain_i8: bool,
    /// Layers that move elements take booleans: seen to be missing for a Shuffle in 8.5.3.
    pub moves_booleans: bool,
    /// The unary layer takes scalars (9.0 and later): 8.5.3 wants an axis.
    pub unary_scalars: bool,
    /// Attention written out becomes one kernel if its scores are scaled and its keys transposed beforehand (seen in 8.5.3,
    /// in f32 where f16 is allowed), and not if its queries are scaled.
    pub scaled_scores: bool,
    /// The unary layer tells NaN and infinities (10.1 and later).
    pub float_tests: bool,
    /// TopK, NonZero and NMS can give their indices in 64 bits (10.14 and later).
    pub wide_indices: bool,
    /// A pooling over the whole plane of what a convolution made needs fewer kernels than a reduction of it. Measured with
    /// TensorRT-RTX; not with TensorRT.
    pub plane_pooling: bool,
    /// A plane's mean is best told to keep its axes, and a layer to drop them. TensorRT 8.5 copies the planes into rows otherwise:
    /// 0.016 ms of squeezenet1_1 for 32 images in f16.
    pub flattened_means: bool,
    /// A tensor may be compared with itself in another shape, and what was found be cast to numbers and reduced. TensorRT 8.5.3
    /// takes both sides for equal then; with numbers that are selected by what was found it was right.
    pub reduces_comparisons: bool,
    /// One kernel joins keys and values to those of the past and attends a query to them, where attention is written as
    /// products. Seen in TensorRT-RTX; not looked for in TensorRT.
    pub decode_kernel: bool,
}

impl Capabilities {
    /// TensorRT-RTX of a version.
    pub fn rtx(version: (u32, u32, u32)) -> Self {
        use DType::*;
        Self {
            flavour: Flavour::Rtx,
            version,
            dtypes: vec![F32, F16, BF16, I8, I32, I64, U8, Bool, F8E4M3, F4E2M1, I4],
            normalization: true,
            top_k_input: true,
            top_k_integers: true,
            reverse_sequence: true,
            squeeze: true,
            cumulative: true,
            attention: true,
            causal_from_end: true,
            rotary_embedding: true,
            grid_sample_3d: true,
            nms: false,
            non_zero: false,
            gelu: true,
            wrapping_slices: true,
            moves_booleans: true,
            plain_i8: true,
            unary_scalars: true,
            scaled_scores: false,
            float_tests: true,
            wide_indices: true,
            plane_pooling: true,
            flattened_means: false,
            reduces_comparisons: true,
            decode_kernel: true,
        }
    }

    /// TensorRT of a version.
    pub fn tensorrt(version: (u32, u32, u32)) -> Self {
        use DType::*;
        let mut dtypes = vec![F32, F16, I8, I32, Bool];
        let least = |wanted: (u32, u32)| (version.0, version.1) >= wanted;
        if least((8, 6)) {
            dtypes.extend([U8, F8E4M3]);
        }
        if least((9, 0)) {
            dtypes.extend([BF16, I64]);
        }
        if least((10, 0)) {
            dtypes.push(I4);
        }
        if least((10, 8)) {
            dtypes.push(F4E2M1);
        }
        Self {
            flavour: Flavour::TensorRt,
            version,
            dtypes,
            normalization: least((8, 6)),
            top_k_input: least((8, 6)),
            top_k_integers: least((10, 0)),
            reverse_sequence: least((8, 6)),
            squeeze: least((10, 7)),
            cumulative: least((10, 8)),
            attention: least((10, 14)),
            causal_from_end: least((11, 0)),
            rotary_embedding: least((10, 15)),
            grid_sample_3d: least((11, 2)),
            nms: least((8, 5)),
            non_zero: least((8, 5)),
            gelu: least((10, 0)),
            wrapping_slices: least((9, 0)),
            moves_booleans: least((9, 0)),
            plain_i8: least((9, 0)),
            unary_scalars: least((9, 0)),
            scaled_scores: !least((9, 0)),
            float_tests: least((10, 1)),
            wide_indices: least((10, 14)),
            plane_pooling: false,
            flattened_means: !least((9, 0)),
            reduces_comparisons: least((9, 0)),
            decode_kernel: false,
        }
    }
}

impl Capabilities {
    /// The type that tensors of `dtype` are computed in: itself, or the nearest that holds its values (f32 for f64 holds
    /// its range but for the largest); `None` if the target has no such type.
    pub fn computed_in(&self, dtype: DType) -> Option<DType> {
        use DType::*;
        let nearest = match dtype {
            F64 => F32,
            // Before anything computes with them they are converted.
            U8 | I16 | U16 | I4 | U4 | I2 | U2 => I32,
            U32 | U64 => I64,
            I64 => self.index_dtype(),
            I8 if !self.plain_i8 => I32,
            dtype => dtype,
        };
        self.dtypes.contains(&nearest).then_some(nearest)
    }

    /// The type of shapes and indices, I64 in a graph: in 32 bits before 9.0.
    pub fn index_dtype(&self) -> DType {
        if self.dtypes.contains(&DType::I64) { DType::I64 } else { DType::I32 }
    }

    /// The type that a tensor of `dtype` has at the edge of a network: itself, or the one that it is computed in.
    pub fn carried_in(&self, dtype: DType) -> Option<DType> {
        // Four-bit integers hold weights only.
        let is_carried = self.dtypes.contains(&dtype) && dtype != DType::I4 && (self.plain_i8 || dtype != DType::I8);
        if is_carried { Some(dtype) } else { self.computed_in(dtype) }
    }
}

impl Default for Capabilities {
    /// The newest TensorRT-RTX that the bridge is compiled for.
    fn default() -> Self {
        Self::rtx((1, 7, 1))
    }
}
