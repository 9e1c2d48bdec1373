//! Reductions along axes, and what normalises along one.

use super::Ints;
use crate::{attributes, words};

words! {
    /// What a reduction yields.
    pub enum ReduceKind {
        /// Sum.
        Sum = "sum",
        /// Arithmetic mean.
        Mean = "mean",
        /// Maximum.
        Max = "max",
        /// Minimum.
        Min = "min",
        /// Product.
        Prod = "prod",
        /// Sum of absolute values.
        L1 = "l1",
        /// Square root of the sum of squares.
        L2 = "l2",
        /// Sum of squares.
        SumSquare = "sum_square",
        /// Logarithm of the sum.
        LogSum = "log_sum",
        /// Logarithm of the sum of exponentials, computed without overflow.
        LogSumExp = "log_sum_exp",
    }
}

attributes! {
    /// ONNX `Reduce*`, `GlobalAveragePool`, `GlobalMaxPool`. Inputs: data, and the axes (i64 vector) if `axes` is
    /// absent; an empty axes slot too means all axes, or none with `noop_if_empty`.
    pub struct Reduce {
        /// What the reduction yields.
        kind: ReduceKind,
        /// The axes reduced; negative ones count from the end.
        axes: Option<Ints>,
        /// Reduced axes stay as size 1.
        keep_dims: bool,
        /// Without axes the data is returned (its elementwise part still applied), not reduced over all axes.
        noop_if_empty: bool,
    }
}

attributes! {
    /// ONNX `ArgMax` and `ArgMin`; the output is i64.
    pub struct ArgReduce {
        /// The largest, not the smallest.
        largest: bool,
        /// The axis; negative counts from the end.
        axis: i64,
        /// The axis stays as size 1.
        keep_dims: bool,
        /// The last of equal elements, not the first.
        select_last: bool,
    }
}

attributes! {
    /// ONNX `Softmax` and `LogSoftmax` of opset 13: along one axis.
    pub struct Softmax {
        /// The axis; negative counts from the end.
        axis: i64,
        /// Its logarithm.
        log: bool,
    }
}

attributes! {
    /// ONNX `TopK`. Inputs: data, k (i64, one element). Outputs: values, i64 indices.
    pub struct TopK {
        /// The axis; negative counts from the end.
        axis: i64,
        /// The largest, not the smallest.
        largest: bool,
        /// In order.
        sorted: bool,
    }
}

attributes! {
    /// ONNX `CumSum` and `CumProd`. Inputs: data, axis (one element).
    pub struct Cumulative {
        /// Products, not sums.
        product: bool,
        /// The element itself is left out.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    }
}
