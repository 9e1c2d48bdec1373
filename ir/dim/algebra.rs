//! Dimensions computed in other algebras.

use std::sync::Arc;

use super::{Atom, Dim, Repr};

/// A two-sided operation of a dimension's expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DimOp {
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// Quotient rounded towards negative infinity.
    FloorDiv,
    /// Remainder with the divisor's sign.
    Mod,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

/// What a dimension can be computed in; see [`Dim::compute`].
pub trait DimAlgebra {
    /// A value of the algebra.
    type Value;
    /// What can go wrong.
    type Error;

    /// A number.
    ///
    /// # Errors
    /// The algebra's own.
    fn number(&mut self, value: i64) -> Result<Self::Value, Self::Error>;

    /// A symbol.
    ///
    /// # Errors
    /// The algebra's own.
    fn symbol(&mut self, name: &Arc<str>) -> Result<Self::Value, Self::Error>;

    /// An operation.
    ///
    /// # Errors
    /// The algebra's own.
    fn binary(&mut self, op: DimOp, a: Self::Value, b: Self::Value) -> Result<Self::Value, Self::Error>;
}

impl Dim {
    /// The expression computed in another algebra, e.g. as layers of a network.
    ///
    /// # Errors
    /// The algebra's own.
    pub fn compute<A: DimAlgebra>(&self, algebra: &mut A) -> Result<A::Value, A::Error> {
        let Repr::Sum(sum) = &self.0 else { return algebra.number(self.value().unwrap_or(0)) };
        let mut total = None;
        for (product, coefficient) in &sum.terms {
            let mut term = if *coefficient == 1 { None } else { Some(algebra.number(*coefficient)?) };
            for atom in product {
                let factor = atom.compute(algebra)?;
                term = Some(match term {
                    None => factor,
                    Some(term) => algebra.binary(DimOp::Mul, term, factor)?,
                });
            }
            if let Some(term) = term {
                total = Some(match total {
                    None => term,
                    Some(total) => algebra.binary(DimOp::Add, total, term)?,
                });
            }
        }
        match (total, sum.constant) {
            (None, constant) => algebra.number(constant),
            (Some(total), 0) => Ok(total),
            (Some(total), constant) => {
                let constant = algebra.number(constant)?;
                algebra.binary(DimOp::Add, total, constant)
            }
        }
    }
}

impl Atom {
    fn compute<A: DimAlgebra>(&self, algebra: &mut A) -> Result<A::Value, A::Error> {
        let (op, a, b) = match self {
            Atom::Symbol(name) => return algebra.symbol(name),
            Atom::Div(a, b) => (DimOp::FloorDiv, a, b),
            Atom::Mod(a, b) => (DimOp::Mod, a, b),
            Atom::Min(a, b) => (DimOp::Min, a, b),
            Atom::Max(a, b) => (DimOp::Max, a, b),
            Atom::Mul(a, b) => (DimOp::Mul, a, b),
        };
        let (a, b) = (a.compute(algebra)?, b.compute(algebra)?);
        algebra.binary(op, a, b)
    }
}
