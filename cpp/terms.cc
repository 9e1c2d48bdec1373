// The values of src/emit/terms.rs and src/tensorrt/dtype.rs, asserted against these headers.

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

#define SAME(type, name, value) static_assert(static_cast<int32_t>(nvinfer1::type::k##name) == (value), #type)

SAME(ActivationType, RELU, 0);
SAME(ActivationType, SIGMOID, 1);
SAME(ActivationType, TANH, 2);
SAME(ActivationType, LEAKY_RELU, 3);
SAME(ActivationType, ELU, 4);
SAME(ActivationType, SELU, 5);
SAME(ActivationType, SOFTSIGN, 6);
SAME(ActivationType, SOFTPLUS, 7);
SAME(ActivationType, CLIP, 8);
SAME(ActivationType, HARD_SIGMOID, 9);
SAME(ActivationType, SCALED_TANH, 10);
SAME(ActivationType, THRESHOLDED_RELU, 11);
SAME(UnaryOperation, EXP, 0);
SAME(UnaryOperation, LOG, 1);
SAME(UnaryOperation, SQRT, 2);
SAME(UnaryOperation, RECIP, 3);
SAME(UnaryOperation, ABS, 4);
SAME(UnaryOperation, NEG, 5);
SAME(UnaryOperation, SIN, 6);
SAME(UnaryOperation, COS, 7);
SAME(UnaryOperation, TAN, 8);
SAME(UnaryOperation, SINH, 9);
SAME(UnaryOperation, COSH, 10);
SAME(UnaryOperation, ASIN, 11);
SAME(UnaryOperation, ACOS, 12);
SAME(UnaryOperation, ATAN, 13);
SAME(UnaryOperation, ASINH, 14);
SAME(UnaryOperation, ACOSH, 15);
SAME(UnaryOperation, ATANH, 16);
SAME(UnaryOperation, CEIL, 17);
SAME(UnaryOperation, FLOOR, 18);
SAME(UnaryOperation, ERF, 19);
SAME(UnaryOperation, NOT, 20);
SAME(UnaryOperation, SIGN, 21);
SAME(UnaryOperation, ROUND, 22);
SAME(ElementWiseOperation, SUM, 0);
SAME(ElementWiseOperation, PROD, 1);
SAME(ElementWiseOperation, MAX, 2);
SAME(ElementWiseOperation, MIN, 3);
SAME(ElementWiseOperation, SUB, 4);
SAME(ElementWiseOperation, DIV, 5);
SAME(ElementWiseOperation, POW, 6);
SAME(ElementWiseOperation, FLOOR_DIV, 7);
SAME(ElementWiseOperation, AND, 8);
SAME(ElementWiseOperation, OR, 9);
SAME(ElementWiseOperation, XOR, 10);
SAME(ElementWiseOperation, EQUAL, 11);
SAME(ElementWiseOperation, GREATER, 12);
SAME(ElementWiseOperation, LESS, 13);
SAME(ReduceOperation, SUM, 0);
SAME(ReduceOperation, PROD, 1);
SAME(ReduceOperation, MAX, 2);
SAME(ReduceOperation, MIN, 3);
SAME(ReduceOperation, AVG, 4);
SAME(PoolingType, MAX, 0);
SAME(PoolingType, AVERAGE, 1);
SAME(PaddingMode, EXPLICIT_ROUND_DOWN, 0);
SAME(PaddingMode, EXPLICIT_ROUND_UP, 1);
SAME(PaddingMode, SAME_UPPER, 2);
SAME(PaddingMode, SAME_LOWER, 3);
SAME(ScaleMode, UNIFORM, 0);
SAME(ScaleMode, CHANNEL, 1);
SAME(ScaleMode, ELEMENTWISE, 2);
SAME(MatrixOperation, NONE, 0);
SAME(MatrixOperation, TRANSPOSE, 1);
SAME(MatrixOperation, VECTOR, 2);
SAME(GatherMode, DEFAULT, 0);
SAME(GatherMode, ELEMENT, 1);
SAME(GatherMode, ND, 2);
SAME(ScatterMode, ELEMENT, 0);
SAME(ScatterMode, ND, 1);
SAME(SampleMode, STRICT_BOUNDS, 0);
SAME(SampleMode, WRAP, 1);
SAME(SampleMode, CLAMP, 2);
SAME(SampleMode, FILL, 3);
SAME(SampleMode, REFLECT, 4);
SAME(TopKOperation, MAX, 0);
SAME(TopKOperation, MIN, 1);
SAME(InterpolationMode, NEAREST, 0);
SAME(InterpolationMode, LINEAR, 1);
SAME(InterpolationMode, CUBIC, 2);
SAME(ResizeCoordinateTransformation, ALIGN_CORNERS, 0);
SAME(ResizeCoordinateTransformation, ASYMMETRIC, 1);
SAME(ResizeCoordinateTransformation, HALF_PIXEL, 2);
SAME(ResizeSelector, FORMULA, 0);
SAME(ResizeSelector, UPPER, 1);
SAME(ResizeRoundMode, HALF_UP, 0);
SAME(ResizeRoundMode, HALF_DOWN, 1);
SAME(ResizeRoundMode, FLOOR, 2);
SAME(ResizeRoundMode, CEIL, 3);
SAME(FillOperation, LINSPACE, 0);
SAME(FillOperation, RANDOM_UNIFORM, 1);
SAME(FillOperation, RANDOM_NORMAL, 2);
SAME(BoundingBoxFormat, CORNER_PAIRS, 0);
SAME(BoundingBoxFormat, CENTER_SIZES, 1);
SAME(TripLimit, COUNT, 0);
SAME(TripLimit, WHILE, 1);
SAME(LoopOutput, LAST_VALUE, 0);
SAME(LoopOutput, CONCATENATE, 1);
SAME(LoopOutput, REVERSE, 2);
SAME(DataType, FLOAT, 0);
SAME(DataType, HALF, 1);
SAME(DataType, INT8, 2);
SAME(DataType, INT32, 3);
SAME(DataType, BOOL, 4);
SAME(DataType, UINT8, 5);

#if TRTFUSE_API >= 900
SAME(DataType, FP8, 6);
SAME(DataType, BF16, 7);
SAME(DataType, INT64, 8);
#endif

#if TRTFUSE_API >= 1000
SAME(ActivationType, GELU_ERF, 12);
SAME(ActivationType, GELU_TANH, 13);
SAME(DataType, INT4, 9);
#endif

#if TRTFUSE_API >= 1001
SAME(UnaryOperation, ISINF, 23);
SAME(UnaryOperation, ISNAN, 24);
#endif

#if TRTFUSE_API >= 1008
SAME(CumulativeOperation, SUM, 0);
SAME(DataType, FP4, 10);
#endif

#if TRTFUSE_API >= 1012
SAME(DataType, E8M0, 11);
#endif

#if TRTFUSE_API >= 1014
SAME(AttentionNormalizationOp, NONE, 0);
SAME(AttentionNormalizationOp, SOFTMAX, 1);
#endif

#if TRTFUSE_API >= 1100
SAME(CausalMaskKind, NONE, 0);
SAME(CausalMaskKind, UPPER_LEFT, 1);
SAME(CausalMaskKind, LOWER_RIGHT, 2);
#endif

#undef SAME

} // namespace TRTFUSE_SET
} // namespace trtfuse
