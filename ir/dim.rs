//! Symbolic dimensions.
//!
//! A [`Dim`] is an integer expression over named symbols, kept in one canonical form (a polynomial whose atoms are
//! symbols, floor divisions, remainders, minima and maxima), so that two dimensions are equal when their forms are.
//! Only products that would be very long are left as they are.
//! Text form: `3`, `batch`, `2*batch`, `(h+1)/2` (`/` floors), `(a)%(b)`, `min(a, b)`, `max(a, b)`.
//!
//! Symbols stand for dimensions of tensors: integers of at least 0. Arithmetic saturates at the ends of i64; a
//! saturated dimension fails the limits on sizes wherever it is used.

use std::sync::Arc;

use smallvec::SmallVec;

mod algebra;
mod operators;
mod parse;
mod text;

pub use algebra::{DimAlgebra, DimOp};
pub use parse::ParseDimError;

/// Dimensions of a tensor.
pub type Shape = SmallVec<[Dim; 4]>;

/// A dimension: a number or an expression over symbols.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Fixed(i64),
    /// Never a bare number.
    Sum(Arc<Sum>),
}

/// `constant + sum of coefficient * product`; products sorted, none empty, no coefficient 0.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
struct Sum {
    terms: Vec<(Product, i64)>,
    constant: i64,
}

/// Factors, sorted, with repetition.
type Product = SmallVec<[Atom; 2]>;

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Symbol(Arc<str>),
    Div(Dim, Dim),
    Mod(Dim, Dim),
    Min(Dim, Dim),
    Max(Dim, Dim),
    /// A product too long to be multiplied out.
    Mul(Dim, Dim),
}

impl Sum {
    fn of(dim: &Dim) -> Self {
        match &dim.0 {
            Repr::Fixed(value) => Self { terms: Vec::new(), constant: *value },
            Repr::Sum(sum) => (**sum).clone(),
        }
    }

    fn add_term(&mut self, product: Product, coefficient: i64) {
        match self.terms.binary_search_by(|term| term.0.cmp(&product)) {
            Ok(at) => {
                let sum = self.terms[at].1.saturating_add(coefficient);
                if sum == 0 {
                    self.terms.remove(at);
                } else {
                    self.terms[at].1 = sum;
                }
            }
            Err(at) if coefficient != 0 => self.terms.insert(at, (product, coefficient)),
            Err(_) => {}
        }
    }

    fn into_dim(self) -> Dim {
        if self.terms.is_empty() { Dim::fixed(self.constant) } else { Dim(Repr::Sum(Arc::new(self))) }
    }

    /// The greatest common divisor of all coefficients and the constant; at least 1.
    fn content(&self) -> i64 {
        self.terms.iter().map(|term| term.1).chain([self.constant]).fold(0, gcd).max(1)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.saturating_abs(), b.saturating_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Dim {
    /// A known number.
    pub const fn fixed(value: i64) -> Self {
        Self(Repr::Fixed(value))
    }

    /// A named unknown.
    pub fn symbol(name: impl Into<Arc<str>>) -> Self {
        Self::atom(Atom::Symbol(name.into()))
    }

    fn atom(atom: Atom) -> Self {
        Self(Repr::Sum(Arc::new(Sum { terms: vec![(SmallVec::from_iter([atom]), 1)], constant: 0 })))
    }

    /// The number, if it is one.
    pub fn value(&self) -> Option<i64> {
        match self.0 {
            Repr::Fixed(value) => Some(value),
            Repr::Sum(_) => None,
        }
    }

    /// Whether this is the number `value`.
    pub fn is(&self, value: i64) -> bool {
        self.value() == Some(value)
    }

    /// The symbol's name, if this is one symbol and nothing else.
    pub fn as_symbol(&self) -> Option<&Arc<str>> {
        let Repr::Sum(sum) = &self.0 else { return None };
        match (sum.constant, sum.terms.as_slice()) {
            (0, [(product, 1)]) => match product.as_slice() {
                [Atom::Symbol(name)] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the value is at least `bound` whatever the symbols (each at least 0) are. `false` means "not known".
    pub fn at_least(&self, bound: i64) -> bool {
        self.lower_bound().is_some_and(|low| low >= bound)
    }

    fn lower_bound(&self) -> Option<i64> {
        match &self.0 {
            Repr::Fixed(value) => Some(*value),
            Repr::Sum(sum) => sum.terms.iter().try_fold(sum.constant, |low, (product, coefficient)| {
                let factor = product.iter().try_fold(1_i64, |low, atom| {
                    Some(low.saturating_mul(atom.lower_bound().filter(|bound| *bound >= 0)?))
                })?;
                // A negative coefficient would need an upper bound.
                (*coefficient > 0).then(|| low.saturating_add(coefficient.saturating_mul(factor)))
            }),
        }
    }

    /// Quotient rounded towards negative infinity; `None` for a divisor that is the number 0.
    pub fn floor_div(&self, divisor: &Dim) -> Option<Dim> {
        match (self.value(), divisor.value()) {
            (_, Some(0)) => return None,
            (_, Some(1)) => return Some(self.clone()),
            (Some(0), _) => return Some(Self::fixed(0)),
            (Some(a), Some(b)) => return Some(Self::fixed(floor_div(a, b))),
            _ => {}
        }
        if self == divisor {
            return Some(Self::fixed(1));
        }
        if let Some(quotient) = self.exact_div(divisor) {
            return Some(quotient);
        }
        let Some(divisor) = divisor.value() else {
            return Some(Self::atom(Atom::Div(self.clone(), divisor.clone())));
        };
        Some(self.floor_div_fixed(divisor))
    }

    /// `(q*divisor + r) / divisor` is `q + r/divisor`: the whole part leaves the division.
    fn floor_div_fixed(&self, divisor: i64) -> Dim {
        let sum = Sum::of(self);
        let (mut whole, mut rest) = (Sum::default(), Sum::default());
        for (product, coefficient) in sum.terms {
            let quotient = floor_div(coefficient, divisor);
            whole.add_term(product.clone(), quotient);
            rest.add_term(product, coefficient - quotient * divisor);
        }
        whole.constant = floor_div(sum.constant, divisor);
        rest.constant = sum.constant - whole.constant * divisor;
        let rest = rest.into_dim();
        if let Some(value) = rest.value() {
            return whole.into_dim() + Self::fixed(floor_div(value, divisor));
        }
        // A common factor of rest and divisor cancels: (4*h + 2) / 8 is (2*h + 1) / 4.
        let factor = gcd(Sum::of(&rest).content(), divisor);
        let (rest, divisor) = match rest.exact_div(&Self::fixed(factor)) {
            Some(rest) if factor > 1 => (rest, divisor / factor),
            _ => (rest, divisor),
        };
        // (x/a + c)/b is (x + c*a)/(a*b) for positive a and b.
        let constant = Self::fixed(Sum::of(&rest).constant);
        let atom = match (&rest - &constant).single_atom() {
            Some(Atom::Div(inner, by)) if divisor > 0 && by.value().is_some_and(|by| by > 0) => {
                Atom::Div(inner + &(&constant * by), by * &Self::fixed(divisor))
            }
            _ => Atom::Div(rest, Self::fixed(divisor)),
        };
        whole.into_dim() + Self::atom(atom)
    }

    fn single_atom(&self) -> Option<&Atom> {
        let Repr::Sum(sum) = &self.0 else { return None };
        match (sum.constant, sum.terms.as_slice()) {
            (0, [(product, 1)]) if product.len() == 1 => product.first(),
            _ => None,
        }
    }

    /// The quotient, if the division leaves nothing for every value of the symbols (a divisor of 0 apart).
    pub fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        let divisor = Sum::of(divisor);
        let (product, coefficient) = match (divisor.terms.as_slice(), divisor.constant) {
            ([], 0) => return None,
            ([], constant) => (Product::new(), constant),
            ([(product, coefficient)], 0) => (product.clone(), *coefficient),
            _ => return self.exact_div_by_sum(&divisor),
        };
        let sum = Sum::of(self);
        let mut quotient = Sum::default();
        if sum.constant != 0 {
            if !product.is_empty() || sum.constant % coefficient != 0 {
                return None;
            }
            quotient.constant = sum.constant / coefficient;
        }
        for (mut factors, number) in sum.terms {
            if number.checked_rem(coefficient) != Some(0) {
                return None;
            }
            for factor in &product {
                factors.remove(factors.iter().position(|candidate| candidate == factor)?);
            }
            if factors.is_empty() {
                quotient.constant = quotient.constant.saturating_add(number / coefficient);
            } else {
                quotient.add_term(factors, number / coefficient);
            }
        }
        Some(quotient.into_dim())
    }

    /// `k * (a + b)` over `(a + b)`: the divisor times one fixed number, or times one product.
    fn exact_div_by_sum(&self, divisor: &Sum) -> Option<Dim> {
        let sum = Sum::of(self);
        let lead = divisor.terms.first()?;
        // Candidates for the quotient: some term of ours over the divisor's leading term.
        let lead = Sum { terms: vec![lead.clone()], constant: 0 }.into_dim();
        let divisor = divisor.clone().into_dim();
        sum.terms.iter().find_map(|term| {
            let term = Sum { terms: vec![term.clone()], constant: 0 }.into_dim();
            let quotient = term.exact_div(&lead)?;
            (&quotient * &divisor == *self).then_some(quotient)
        })
    }

    /// Quotient rounded towards positive infinity; `None` for a divisor that is the number 0.
    pub fn ceil_div(&self, divisor: &Dim) -> Option<Dim> {
        if let Some(exact) = self.exact_div(divisor) {
            return Some(exact);
        }
        (self + divisor - Dim::fixed(1)).floor_div(divisor)
    }

    /// Remainder with the divisor's sign; `None` for a divisor that is the number 0.
    pub fn modulo(&self, divisor: &Dim) -> Option<Dim> {
        match (self.value(), divisor.value()) {
            (_, Some(0)) => None,
            (Some(a), Some(b)) => Some(Self::fixed(floor_mod(a, b))),
            _ if self.exact_div(divisor).is_some() => Some(Self::fixed(0)),
            _ => Some(Self::atom(Atom::Mod(self.clone(), divisor.clone()))),
        }
    }

    /// The smaller.
    pub fn minimum(&self, other: &Dim) -> Dim {
        self.pick(other, true)
    }

    /// The larger.
    pub fn maximum(&self, other: &Dim) -> Dim {
        self.pick(other, false)
    }

    fn pick(&self, other: &Dim, smaller: bool) -> Dim {
        // min(a, max(a, b)) is a, and min(a, min(a, b)) is min(a, b).
        for (a, b) in [(self, other), (other, self)] {
            match b.single_atom() {
                Some(Atom::Min(x, y)) if a == x || a == y => return if smaller { b.clone() } else { a.clone() },
                Some(Atom::Max(x, y)) if a == x || a == y => return if smaller { a.clone() } else { b.clone() },
                _ => {}
            }
        }
        let difference = other - self;
        if difference.at_least(0) {
            return if smaller { self.clone() } else { other.clone() };
        }
        if (-&difference).at_least(0) {
            return if smaller { other.clone() } else { self.clone() };
        }
        let (a, b) = if self <= other { (self, other) } else { (other, self) };
        let (a, b) = (a.clone(), b.clone());
        Self::atom(if smaller { Atom::Min(a, b) } else { Atom::Max(a, b) })
    }

    /// The value under `lookup`, `None` if a symbol has none or a divisor is 0.
    pub fn evaluate(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        self.substitute(&|name| lookup(name).map(Dim::fixed)).value()
    }

    /// The expression with symbols replaced; those that `lookup` does not know stay.
    pub fn substitute(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let Repr::Sum(sum) = &self.0 else { return self.clone() };
        sum.terms.iter().fold(Self::fixed(sum.constant), |total, (product, coefficient)| {
            let term = product.iter().fold(Self::fixed(*coefficient), |term, atom| term * atom.substitute(lookup));
            total + term
        })
    }

    /// Calls `visit` with every symbol's name, repeats included.
    pub fn visit_symbols(&self, visit: &mut dyn FnMut(&Arc<str>)) {
        let Repr::Sum(sum) = &self.0 else { return };
        for atom in sum.terms.iter().flat_map(|term| &term.0) {
            match atom {
                Atom::Symbol(name) => visit(name),
                Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) | Atom::Mul(a, b) => {
                    a.visit_symbols(visit);
                    b.visit_symbols(visit);
                }
            }
        }
    }

    /// Number of symbols and operations that the expression is made of.
    pub(crate) fn weight(&self) -> usize {
        let Repr::Sum(sum) = &self.0 else { return 1 };
        let atoms = sum.terms.iter().flat_map(|term| &term.0).map(|atom| match atom {
            Atom::Symbol(_) => 1,
            Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) | Atom::Mul(a, b) => {
                1 + a.weight() + b.weight()
            }
        });
        atoms.sum()
    }

    /// The largest absolute value of a number in the expression.
    pub(crate) fn magnitude(&self) -> u64 {
        let sum = match &self.0 {
            Repr::Fixed(value) => return value.unsigned_abs(),
            Repr::Sum(sum) => sum,
        };
        let atoms = sum.terms.iter().flat_map(|term| &term.0).map(|atom| match atom {
            Atom::Symbol(_) => 0,
            Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) | Atom::Mul(a, b) => {
                a.magnitude().max(b.magnitude())
            }
        });
        let numbers = sum.terms.iter().map(|term| term.1).chain([sum.constant]).map(i64::unsigned_abs);
        atoms.chain(numbers).max().unwrap_or(0)
    }

    /// The product of dimensions.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Self::fixed(1), |product, dim| &product * dim)
    }
}

fn floor_div(a: i64, b: i64) -> i64 {
    let quotient = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }
}

fn floor_mod(a: i64, b: i64) -> i64 {
    let rest = a.wrapping_rem(b);
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

impl Atom {
    fn lower_bound(&self) -> Option<i64> {
        match self {
            Atom::Symbol(_) => Some(0),
            Atom::Div(a, b) => match (a.lower_bound()?, b.value()?) {
                (low, by) if by > 0 => Some(floor_div(low, by)),
                _ => None,
            },
            Atom::Mod(_, b) => b.value().filter(|by| *by > 0).map(|_| 0),
            Atom::Min(a, b) => Some(a.lower_bound()?.min(b.lower_bound()?)),
            Atom::Max(a, b) => a.lower_bound().max(b.lower_bound()),
            Atom::Mul(a, b) => match (a.lower_bound()?, b.lower_bound()?) {
                (a, b) if a >= 0 && b >= 0 => Some(a.saturating_mul(b)),
                _ => None,
            },
        }
    }

    fn substitute(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let both = |a: &Dim, b: &Dim| (a.substitute(lookup), b.substitute(lookup));
        match self {
            Atom::Symbol(name) => lookup(name).unwrap_or_else(|| Dim::symbol(name.clone())),
            Atom::Div(a, b) => {
                let (a, b) = both(a, b);
                a.floor_div(&b).unwrap_or_else(|| Dim::atom(Atom::Div(a, b)))
            }
            Atom::Mod(a, b) => {
                let (a, b) = both(a, b);
                a.modulo(&b).unwrap_or_else(|| Dim::atom(Atom::Mod(a, b)))
            }
            Atom::Min(a, b) => {
                let (a, b) = both(a, b);
                a.minimum(&b)
            }
            Atom::Max(a, b) => {
                let (a, b) = both(a, b);
                a.maximum(&b)
            }
            Atom::Mul(a, b) => {
                let (a, b) = both(a, b);
                a * b
            }
        }
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Self::fixed(value)
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Self::fixed(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Self::symbol(Arc::<str>::from(name))
    }
}

#[cfg(test)]
mod tests;
