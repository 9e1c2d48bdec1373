//! Random numbers.

use crate::attr::F32;
use crate::{DType, attributes, words};

words! {
    /// A distribution.
    pub enum RandomKind {
        /// Uniform from alpha to beta, without beta.
        Uniform = "uniform",
        /// Normal, of mean alpha and standard deviation beta.
        Normal = "normal",
    }
}

attributes! {
    /// ONNX `RandomUniform`, `RandomNormal` and what is made of them. Input: shape (i64 vector).
    pub struct Random {
        /// The distribution.
        kind: RandomKind,
        /// The output's dtype.
        dtype: DType,
        /// First parameter of the distribution.
        alpha: F32,
        /// Second parameter of the distribution.
        beta: F32,
        /// Seed of the evaluator's generator; TensorRT has its own.
        seed: Option<i64>,
    }
}
