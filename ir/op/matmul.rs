//! Matrix products.

use super::Epilogue;
use crate::attributes;

attributes! {
    /// ONNX `MatMul`, and `Gemm` with its scaling and bias as nodes of their own.
    ///
    /// Inputs: a, b, then one for each [`Step::Add`](super::Step::Add) of the epilogue (a bias broadcasts; it is the
    /// first Add). Ranks of at least 1, leading axes broadcast, as NumPy's matmul.
    pub struct MatMul {
        /// The last two axes of a are exchanged first.
        transpose_a: bool,
        /// The last two axes of b are exchanged first.
        transpose_b: bool,
        /// What is applied to the output.
        epilogue: Epilogue,
    }
}

impl MatMul {
    /// A product of matrices, without an epilogue.
    pub fn new(transpose_a: bool, transpose_b: bool) -> Self {
        Self { transpose_a, transpose_b, epilogue: Epilogue::default() }
    }
}

attributes! {
    /// ONNX `Einsum`, its equation in explicit form without blanks.
    pub struct Einsum {
        /// `ij,jk->ik`
        equation: String,
    }
}
