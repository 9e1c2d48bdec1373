//! Sums, differences and products of dimensions.

use std::ops::{Add, Mul, Neg, Sub};

use super::{Atom, Dim, Product, Sum};

/// A product is multiplied out if its factors' weights multiply to no more.
const MAX_MULTIPLIED: usize = 1024;

impl Add for &Dim {
    type Output = Dim;

    fn add(self, other: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.value(), other.value()) {
            return Dim::fixed(a.saturating_add(b));
        }
        let (mut sum, other) = (Sum::of(self), Sum::of(other));
        sum.constant = sum.constant.saturating_add(other.constant);
        for (product, coefficient) in other.terms {
            sum.add_term(product, coefficient);
        }
        sum.into_dim()
    }
}

impl Mul for &Dim {
    type Output = Dim;

    fn mul(self, other: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.value(), other.value()) {
            return Dim::fixed(a.saturating_mul(b));
        }
        let constants = |sum: &Sum| (sum.constant != 0).then(|| (Product::new(), sum.constant));
        let (a, b) = (Sum::of(self), Sum::of(other));
        let fixed = a.terms.is_empty() || b.terms.is_empty();
        if !fixed && self.weight().saturating_mul(other.weight()) > MAX_MULTIPLIED {
            let (a, b) = if self <= other { (self, other) } else { (other, self) };
            return Dim::atom(Atom::Mul(a.clone(), b.clone()));
        }
        let mut sum = Sum::default();
        for (product, coefficient) in a.terms.iter().cloned().chain(constants(&a)) {
            for (factors, number) in b.terms.iter().cloned().chain(constants(&b)) {
                let coefficient = coefficient.saturating_mul(number);
                let mut factors: Product = product.iter().cloned().chain(factors).collect();
                if factors.is_empty() {
                    sum.constant = sum.constant.saturating_add(coefficient);
                } else {
                    factors.sort();
                    sum.add_term(factors, coefficient);
                }
            }
        }
        sum.into_dim()
    }
}

impl Neg for &Dim {
    type Output = Dim;

    fn neg(self) -> Dim {
        self * &Dim::fixed(-1)
    }
}

impl Sub for &Dim {
    type Output = Dim;

    fn sub(self, other: &Dim) -> Dim {
        match (self.value(), other.value()) {
            (Some(a), Some(b)) => Dim::fixed(a.saturating_sub(b)),
            _ => self + &-other,
        }
    }
}

macro_rules! forward {
    ($($op:ident $method:ident),*) => {$(
        impl $op for Dim {
            type Output = Dim;
            fn $method(self, other: Dim) -> Dim {
                (&self).$method(&other)
            }
        }
    )*};
}

forward!(Add add, Sub sub, Mul mul);
