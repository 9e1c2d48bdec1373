//! Attributes: how operators' parameters are printed and parsed.
//!
//! Every operator's struct is declared with [`attributes!`](crate::attributes), which writes its conversion to and from a list of
//! `key=value` pairs. The text form, the recorder and the tests all go through it, so an operator is printed and
//! parsed without a line of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use smallvec::{Array, SmallVec};

use crate::{DType, Dim, Tensor};

/// An f32 that compares and hashes by its bits.
#[derive(Clone, Copy, Default)]
pub struct F32(pub f32);

impl PartialEq for F32 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for F32 {}

impl std::hash::Hash for F32 {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Debug for F32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<f32> for F32 {
    fn from(value: f32) -> Self {
        Self(value)
    }
}

/// A parameter's value in the text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attr {
    /// `3`
    Int(i64),
    /// `0.5`
    Float(F32),
    /// A bare word (`relu`, `true`, `f32`) or, where it is no word, `"quoted"`.
    Word(Arc<str>),
    /// A symbolic dimension that is neither a number nor one symbol: `(2*batch)`.
    Dim(Dim),
    /// `[1, 2]`
    List(Vec<Attr>),
    /// `clip(0, 6)`
    Call(Arc<str>, Vec<Attr>),
    /// Data; printed in full when small.
    Tensor(Tensor),
}

/// A parameter that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attribute `{name}`: {reason}")]
pub struct AttrError {
    /// The attribute.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// Parsed parameters, taken out one by one.
pub type AttrMap = BTreeMap<String, Attr>;

/// A type that is an attribute's value. `None` stands for an attribute left out because it has its default.
pub trait AttrValue: Sized {
    /// The value in the text form; `None` if it is the default and need not be printed.
    fn to_attr(&self) -> Option<Attr>;
    /// The value parsed.
    ///
    /// # Errors
    /// What was expected.
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String>;
}

/// A struct of attributes; written by [`attributes!`](crate::attributes).
pub trait Attributes: Sized {
    /// Pairs in declaration order, defaults left out.
    fn write(&self) -> Vec<(&'static str, Attr)>;
    /// The struct, taken out of parsed pairs.
    ///
    /// # Errors
    /// The first attribute that does not fit.
    fn read(attrs: &mut AttrMap) -> Result<Self, AttrError>;
}

/// Declares an operator's parameters.
#[macro_export]
macro_rules! attributes {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }

        impl $crate::attr::Attributes for $name {
            fn write(&self) -> Vec<(&'static str, $crate::attr::Attr)> {
                #[allow(unused_mut, reason = "a struct may have no field")]
                let mut attrs = Vec::new();
                $(if let Some(attr) = $crate::attr::AttrValue::to_attr(&self.$field) {
                    attrs.push((stringify!($field), attr));
                })*
                attrs
            }

            #[allow(unused_variables, reason = "a struct may have no field")]
            fn read(attrs: &mut $crate::attr::AttrMap) -> Result<Self, $crate::attr::AttrError> {
                Ok(Self {
                    $($field: <$type as $crate::attr::AttrValue>::from_attr(attrs.remove(stringify!($field)).as_ref())
                        .map_err(|reason| $crate::attr::AttrError { name: stringify!($field).to_string(), reason })?),*
                })
            }
        }
    };
}

/// Declares an enum whose variants are words in the text form. The first variant is the default and is still printed.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_meta])* $variant),* }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in the text form.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The variant of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl $crate::attr::AttrValue for $name {
            fn to_attr(&self) -> Option<$crate::attr::Attr> {
                Some($crate::attr::Attr::Word(self.word().into()))
            }

            fn from_attr(attr: Option<&$crate::attr::Attr>) -> Result<Self, String> {
                match attr {
                    Some($crate::attr::Attr::Word(word)) => {
                        Self::from_word(word).ok_or_else(|| format!("no {} is called `{word}`", stringify!($name)))
                    }
                    _ => Err(format!("a word of {} expected", stringify!($name))),
                }
            }
        }
    };
}

impl AttrValue for i64 {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Int(*self))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Int(value)) => Ok(*value),
            _ => Err("an integer expected".to_string()),
        }
    }
}

impl AttrValue for usize {
    fn to_attr(&self) -> Option<Attr> {
        i64::try_from(*self).ok().map(Attr::Int)
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        usize::try_from(i64::from_attr(attr)?).map_err(|_| "a size expected".to_string())
    }
}

impl AttrValue for bool {
    fn to_attr(&self) -> Option<Attr> {
        self.then(|| Attr::Word("true".into()))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            None => Ok(false),
            Some(Attr::Word(word)) if &**word == "true" => Ok(true),
            Some(Attr::Word(word)) if &**word == "false" => Ok(false),
            _ => Err("true or false expected".to_string()),
        }
    }
}

impl AttrValue for F32 {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Float(*self))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Float(value)) => Ok(*value),
            #[allow(clippy::cast_precision_loss, reason = "the text form writes whole floats as integers")]
            Some(Attr::Int(value)) => Ok(F32(*value as f32)),
            Some(Attr::Word(word)) => word.parse().map(F32).map_err(|_| "a number expected".to_string()),
            _ => Err("a number expected".to_string()),
        }
    }
}

impl AttrValue for String {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Word(self.as_str().into()))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Word(word)) => Ok(word.to_string()),
            _ => Err("a word expected".to_string()),
        }
    }
}

impl AttrValue for DType {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Word(self.name().into()))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Word(word)) => word.parse().map_err(|()| format!("no type is called `{word}`")),
            _ => Err("a type expected".to_string()),
        }
    }
}

impl AttrValue for Dim {
    fn to_attr(&self) -> Option<Attr> {
        Some(match (self.value(), self.as_symbol()) {
            (Some(value), _) => Attr::Int(value),
            (None, Some(name)) => Attr::Word(name.clone()),
            (None, None) => Attr::Dim(self.clone()),
        })
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Int(value)) => Ok(Dim::fixed(*value)),
            Some(Attr::Word(name)) => Ok(Dim::symbol(name.clone())),
            Some(Attr::Dim(dim)) => Ok(dim.clone()),
            _ => Err("a dimension expected".to_string()),
        }
    }
}

impl AttrValue for Tensor {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Tensor(self.clone()))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Tensor(tensor)) => Ok(tensor.clone()),
            _ => Err("a tensor expected".to_string()),
        }
    }
}

impl<T: AttrValue> AttrValue for Option<T> {
    fn to_attr(&self) -> Option<Attr> {
        self.as_ref().and_then(AttrValue::to_attr)
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        attr.map(|attr| T::from_attr(Some(attr))).transpose()
    }
}

fn list_to_attr<'a, T: AttrValue + 'a>(items: impl IntoIterator<Item = &'a T>) -> Attr {
    // An item that is its own default still needs a place in the list.
    Attr::List(items.into_iter().map(|item| item.to_attr().unwrap_or(Attr::Word("false".into()))).collect())
}

fn list_from_attr<T: AttrValue, C: FromIterator<T>>(attr: Option<&Attr>) -> Result<C, String> {
    match attr {
        Some(Attr::List(items)) => items.iter().map(|item| T::from_attr(Some(item))).collect(),
        _ => Err("a list expected".to_string()),
    }
}

impl<T: AttrValue> AttrValue for Vec<T> {
    fn to_attr(&self) -> Option<Attr> {
        Some(list_to_attr(self))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        list_from_attr(attr)
    }
}

impl<A: Array> AttrValue for SmallVec<A>
where
    A::Item: AttrValue,
{
    fn to_attr(&self) -> Option<Attr> {
        Some(list_to_attr(self))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        list_from_attr(attr)
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Int(value) => write!(f, "{value}"),
            Attr::Float(F32(value)) => write!(f, "{value:?}"),
            Attr::Word(word) if is_word(word) => f.write_str(word),
            Attr::Word(word) => write!(f, "{word:?}"),
            Attr::Dim(dim) => write!(f, "({dim})"),
            Attr::List(items) => {
                f.write_str("[")?;
                write_items(f, items)?;
                f.write_str("]")
            }
            Attr::Call(name, items) => {
                write!(f, "{name}(")?;
                write_items(f, items)?;
                f.write_str(")")
            }
            Attr::Tensor(tensor) => crate::text::write_tensor(f, tensor),
        }
    }
}

fn write_items(f: &mut fmt::Formatter<'_>, items: &[Attr]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

/// Whether a word is printed bare.
pub(crate) fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
}
