//! Dimensions as text.

use std::fmt;

use super::{Atom, Dim, Repr};

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = match &self.0 {
            Repr::Fixed(value) => return write!(f, "{value}"),
            Repr::Sum(sum) => sum,
        };
        for (at, (product, coefficient)) in sum.terms.iter().enumerate() {
            if *coefficient < 0 {
                f.write_str("-")?;
            } else if at > 0 {
                f.write_str("+")?;
            }
            if coefficient.unsigned_abs() != 1 {
                write!(f, "{}*", coefficient.unsigned_abs())?;
            }
            for (at, atom) in product.iter().enumerate() {
                if at > 0 {
                    f.write_str("*")?;
                }
                // A division inside a product needs its own parentheses: 2*(h/2) is not 2*h/2.
                if matches!(atom, Atom::Div(..) | Atom::Mod(..) | Atom::Mul(..))
                    && (product.len() > 1 || coefficient.abs() != 1)
                {
                    write!(f, "({atom})")?;
                } else {
                    write!(f, "{atom}")?;
                }
            }
        }
        match sum.constant {
            0 => Ok(()),
            constant if constant > 0 => write!(f, "+{constant}"),
            constant => write!(f, "{constant}"),
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operand = |dim: &Dim| {
            if dim.value().is_some_and(|value| value >= 0) || dim.as_symbol().is_some() {
                dim.to_string()
            } else {
                format!("({dim})")
            }
        };
        match self {
            Atom::Symbol(name) if is_identifier(name) => f.write_str(name),
            Atom::Symbol(name) => write!(f, "`{name}`"),
            Atom::Div(a, b) => write!(f, "{}/{}", operand(a), operand(b)),
            Atom::Mod(a, b) => write!(f, "{}%{}", operand(a), operand(b)),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
            Atom::Mul(a, b) => write!(f, "{}*{}", operand(a), operand(b)),
        }
    }
}

pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '.')
        && name != "min"
        && name != "max"
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
