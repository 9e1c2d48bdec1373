//! What users should know of an engine that is built all the same.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trt_fuse_ir::{Capabilities, DType, Graph};
use trt_fuse_passes::conversions;

use crate::import::ImportNote;
use crate::ranges::{Range, beyond_i32, bounds};
use crate::tensorrt::{Profile, RangeKind};

/// Values shown of an input.
const SHOWN: usize = 8;

/// Something that differs from what the model says, or that was chosen for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// Types that the target lacks, computed in others.
    Types {
        /// The types.
        types: Vec<TypeChange>,
    },
    /// Integers that the type they are computed in may not hold, where they wrap around.
    Wraps {
        /// The type that they are computed in.
        to: String,
        /// The tensors, of which no other comes before.
        tensors: Vec<String>,
    },
    /// An input whose values decide shapes, and the values that the engine was built for because none were given.
    Values {
        /// The input.
        input: String,
        /// Its values.
        values: Vec<i64>,
    },
    /// A cache that could not be used; the engine was built without.
    Cache {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// What the importer found.
    #[serde(untagged)]
    Import(ImportNote),
}

/// A type that another stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeChange {
    /// The model's type.
    pub from: String,
    /// The type that is computed in.
    pub to: String,
    /// Number of tensors.
    pub tensors: usize,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Types { types } => {
                for (at, TypeChange { from, to, tensors }) in types.iter().enumerate() {
                    match (at, tensors) {
                        (0, 1) => write!(f, "{from} computed as {to} (1 tensor)")?,
                        (0, _) => write!(f, "{from} computed as {to} ({tensors} tensors)")?,
                        _ => write!(f, ", {from} as {to} ({tensors})")?,
                    }
                }
                Ok(())
            }
            Self::Wraps { to, tensors } => {
                let shown: Vec<String> = tensors.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
                let more = if tensors.len() > SHOWN { ", ..." } else { "" };
                write!(
                    f,
                    "numbers beyond {to} wrap around in {}{more}: nothing tells that there are none",
                    shown.join(", ")
                )
            }
            Self::Cache { file, reason } => write!(f, "cache {} is not used: {reason}", file.display()),
            Self::Values { input, values } => {
                let shown: Vec<String> = values.iter().take(SHOWN).map(ToString::to_string).collect();
                let more = if values.len() > SHOWN { ", ..." } else { "" };
                write!(
                    f,
                    "input `{input}` decides shapes; the engine takes its values [{}{more}] only: give others by \
                     --range '{input}[0]=MIN:OPT:MAX'",
                    shown.join(", ")
                )
            }
            Self::Import(note) => note.fmt(f),
        }
    }
}

/// The types of a graph that the target computes in others, if there are any.
pub(crate) fn type_note(graph: &Graph, capabilities: &Capabilities) -> Option<Note> {
    let types: Vec<TypeChange> = conversions(graph, capabilities)
        .iter()
        .map(|change| TypeChange { from: change.from.to_string(), to: change.to.to_string(), tensors: change.tensors })
        .collect();
    (!types.is_empty()).then_some(Note::Types { types })
}

/// What the target makes of the types of a graph and of the same graph lowered.
pub(crate) fn target_notes(graph: &Graph, lowered: &Graph, capabilities: &Capabilities, ranges: &[Range]) -> Vec<Note> {
    type_note(graph, capabilities).into_iter().chain(wrap_note(lowered, capabilities, ranges)).collect()
}

/// The integers of a lowered graph that the target's narrower type may not hold at some sizes of the ranges.
fn wrap_note(graph: &Graph, capabilities: &Capabilities, ranges: &[Range]) -> Option<Note> {
    let to = capabilities.computed_in(DType::I64).filter(|to| *to == DType::I32)?;
    let tensors = beyond_i32(graph, ranges, &bounds(graph, ranges));
    (!tensors.is_empty()).then(|| Note::Wraps { to: to.to_string(), tensors })
}

/// The inputs of a profile whose values were chosen, not given.
pub(crate) fn value_notes(profile: &Profile, ranges: &[Range]) -> Vec<Note> {
    let is_given = |input: &str, at: usize| ranges.iter().any(|range| range.symbol == format!("{input}[{at}]"));
    let chosen = profile
        .ranges
        .iter()
        .filter(|range| range.kind == RangeKind::Values && !(0..range.opt.len()).all(|at| is_given(&range.input, at)));
    chosen.map(|range| Note::Values { input: range.input.clone(), values: range.opt.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_in_one_line() {
        let text = "graph g(%x: f64[2], %k: u8[2]) -> (%y, %k2) {\n  %y = sqrt(%x)\n  %k2 = add(%k, %k)\n}";
        let graph: Graph = text.parse().unwrap();
        let note = type_note(&graph, &Capabilities::default()).unwrap();
        assert_eq!(note.to_string(), "f64 computed as f32 (2 tensors), u8 as i32 (2)");
        let plain: Graph = "graph g(%x: f32[2]) -> (%y) { %y = sqrt(%x) }".parse().unwrap();
        assert_eq!(type_note(&plain, &Capabilities::default()), None);
    }

    #[test]
    fn notes_of_the_importer_are_told_as_they_are() {
        let (output, stated, inferred) = ("y".to_string(), "f32[2]".to_string(), "f32[3]".to_string());
        let note = Note::Import(ImportNote::OutputShape { output, stated, inferred });
        assert_eq!(note.to_string(), "output `y` is stated as f32[2] but is f32[3]; the engine gives the latter");
        let json = r#"{"kind":"output_shape","output":"y","stated":"f32[2]","inferred":"f32[3]"}"#;
        assert_eq!(serde_json::to_string(&note).unwrap(), json);
        assert_eq!(serde_json::from_str::<Note>(json).unwrap(), note);
    }

    #[test]
    fn values_that_were_chosen_are_told_and_given_ones_are_not() {
        let graph: Graph =
            "graph g(%x: f32[2, 6], %shape: i64[2]) -> (%y) { %y = reshape(%x, %shape) : f32[a, b] }".parse().unwrap();
        let notes = |ranges: &[&str]| {
            let ranges: Vec<Range> = ranges.iter().map(|text| text.parse().unwrap()).collect();
            let profile = crate::profile(&graph, &ranges, &["shape".to_string()]).unwrap().unwrap();
            value_notes(&profile, &ranges).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            notes(&[]),
            ["input `shape` decides shapes; the engine takes its values [2, 6] only: give others by \
              --range 'shape[0]=MIN:OPT:MAX'"]
        );
        assert_eq!(notes(&["shape[0]=2:3:4", "shape[1]=3:4:6"]), Vec::<String>::new());
    }

    #[test]
    fn integers_that_may_wrap_around_are_told_by_name() {
        let graph: Graph = "graph g(%x: i64[n]) -> (%a) { %a = add(%x, %x) }".parse().unwrap();
        let ranges = ["n=1:8:32".parse().unwrap()];
        let old = Capabilities::tensorrt((8, 5, 3));
        let note = wrap_note(&graph, &old, &ranges).unwrap();
        assert_eq!(note.to_string(), "numbers beyond i32 wrap around in `a`: nothing tells that there are none");
        assert_eq!(wrap_note(&graph, &Capabilities::default(), &ranges), None);
    }
}
