//! Activations, of tensors and in epilogues.

use super::layout::in_pieces;
use super::number::{Number, Real, for_number};
use super::{Tensors, one};
use crate::op::Activation;
use crate::{Epilogue, Step, Tensor};

/// An activation of a tensor.
pub(super) fn eval(activation: Activation, x: &Tensor) -> Result<Tensors, String> {
    for_number!(x.dtype(), T => {
        let mut elements = T::load(x)?.into_owned();
        T::activate(activation, &mut elements)?;
        one(T::store(x.dtype(), x.dims(), elements))
    })
}

/// Applies the steps of an epilogue in order; `add` adds its n-th extra input.
pub(super) fn apply_epilogue<T: Number>(
    epilogue: &Epilogue,
    output: &mut [T],
    mut add: impl FnMut(usize, &mut [T]) -> Result<(), String>,
) -> Result<(), String> {
    let mut adds = 0..;
    epilogue.0.iter().try_for_each(|step| match step {
        Step::Add => add(adds.next().unwrap_or_default(), output),
        Step::Activation(activation) => T::activate(*activation, output),
    })
}

/// Replaces each x by f(x).
fn each<T: Real>(elements: &mut [T], f: impl Fn(T) -> T + Sync + Send) {
    in_pieces(elements, &|_, piece| piece.iter_mut().for_each(|x| *x = f(*x)));
}

fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// Without overflow for large x, without loss for x near minus infinity.
fn softplus<T: Real>(x: T) -> T {
    x.larger(T::ZERO) + (-x.abs()).exp().ln_1p()
}

fn hard_sigmoid<T: Real>(alpha: T, beta: T) -> impl Fn(T) -> T {
    move |x| (alpha * x + beta).larger(T::ZERO).smaller(T::ONE)
}

fn elu<T: Real>(alpha: T) -> impl Fn(T) -> T {
    move |x| if x < T::ZERO { alpha * x.exp_m1() } else { x }
}

/// Applies an activation to each element, in place.
pub(super) fn apply<T: Real>(activation: Activation, elements: &mut [T]) -> Result<(), String> {
    let number = |parameter: crate::attr::F32| T::real(f64::from(parameter.0));
    let half = T::real(0.5);
    match activation {
        Activation::Relu => each(elements, |x| x.larger(T::ZERO)),
        Activation::LeakyRelu(alpha) => {
            let alpha = number(alpha);
            each(elements, |x| if x < T::ZERO { alpha * x } else { x });
        }
        Activation::Clip(low, high) => {
            let (low, high) = (number(low), number(high));
            each(elements, |x| x.larger(low).smaller(high));
        }
        Activation::Sigmoid => each(elements, sigmoid),
        Activation::Tanh => each(elements, |x| x.tanh()),
        Activation::HardSigmoid(alpha, beta) => each(elements, hard_sigmoid(number(alpha), number(beta))),
        Activation::HardSwish => {
            let gate = hard_sigmoid(T::real(1.0 / 6.0), half);
            each(elements, |x| x * gate(x));
        }
        Activation::Swish(beta) => {
            let beta = number(beta);
            each(elements, |x| x * sigmoid(beta * x));
        }
        Activation::Elu(alpha) => each(elements, elu(number(alpha))),
        Activation::Selu(alpha, gamma) => {
            let (elu, gamma) = (elu(number(alpha)), number(gamma));
            each(elements, |x| gamma * elu(x));
        }
        Activation::Celu(alpha) => {
            let alpha = number(alpha);
            each(elements, |x| x.larger(T::ZERO) + (alpha * (x / alpha).exp_m1()).smaller(T::ZERO));
        }
        Activation::Softplus => each(elements, softplus),
        Activation::Softsign => each(elements, |x| x / (T::ONE + x.abs())),
        Activation::Mish => each(elements, |x| x * softplus(x).tanh()),
        Activation::GeluErf => {
            let root = T::real(std::f64::consts::FRAC_1_SQRT_2);
            each(elements, |x| half * x * (T::ONE + (x * root).erf()));
        }
        Activation::GeluTanh => {
            let (scale, cubic) = (T::real((2.0 / std::f64::consts::PI).sqrt()), T::real(0.044_715));
            each(elements, |x| half * x * (T::ONE + (scale * (x + cubic * x * x * x)).tanh()));
        }
        Activation::ThresholdedRelu(alpha) => {
            let alpha = number(alpha);
            each(elements, |x| if x > alpha || x.unordered() { x } else { T::ZERO });
        }
        Activation::Shrink(lambd, bias) => {
            let (lambd, bias) = (number(lambd), number(bias));
            each(elements, |x| match x {
                x if x < -lambd => x + bias,
                x if x > lambd => x - bias,
                x if x.unordered() => x,
                _ => T::ZERO,
            });
        }
    }
    Ok(())
}
