//! Attention, and what prepares its inputs.

use crate::attr::F32;
use crate::{DType, attributes, words};

words! {
    /// Which keys a query of [`Attention`] may see, besides its mask.
    pub enum CausalKind {
        /// All.
        None = "none",
        /// Query i sees keys up to i.
        UpperLeft = "upper_left",
        /// Query i of s sees keys up to `i + t - s`, of t keys: both counted from the end.
        LowerRight = "lower_right",
    }
}

words! {
    /// What the second output of [`Attention`] holds.
    pub enum ScoreStage {
        /// Scaled products of queries and keys.
        Product = "product",
        /// Those, capped.
        Capped = "capped",
        /// Those, and the mask.
        Masked = "masked",
        /// The weights of the values.
        Weights = "weights",
    }
}

attributes! {
    /// The core of ONNX `Attention`: `softmax(cap(scale * query * key^T) + mask) * value`.
    ///
    /// Inputs: query `[b, h, s, e]`, key `[b, g, t, e]`, value `[b, g, t, v]`, mask or an empty slot. Each head of
    /// keys and values serves `h / g` neighbouring heads of queries. The mask broadcasts to `[b, h, s, t]`: Bool (true
    /// keeps) or the query's dtype (added; negative infinity hides). Outputs: `[b, h, s, v]` and, where the node has
    /// it, `[b, h, s, t]`: what `scores` says.
    pub struct Attention {
        /// Multiplies the products; the square root goes to either side.
        scale: F32,
        /// Products become `cap * tanh(product / cap)`.
        softcap: Option<F32>,
        /// Keys that a query may see.
        causal: CausalKind,
        /// The type that the softmax is computed in, if not that of the query.
        softmax_dtype: Option<DType>,
        /// A query that sees no key gives zeros; NaN otherwise.
        zero_hidden: bool,
        /// The second output.
        scores: ScoreStage,
    }
}

attributes! {
    /// ONNX `RotaryEmbedding`: each pair of elements of a head is rotated by an angle of its position.
    ///
    /// Inputs: data `[b, h, s, e]`, cosines and sines `[b, s, dim / 2]`, where b may be 1.
    pub struct RotaryEmbedding {
        /// Pairs are neighbours, not element i of the first and of the second half.
        interleaved: bool,
        /// Elements of a head that are rotated, from the first; even.
        dim: i64,
    }
}
