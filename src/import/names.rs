//! Names of nodes, unique in the whole model.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

/// The names taken. Bodies share them with the graph around, since symbols that inference makes up start with the name
/// of a node and mean the same everywhere.
#[derive(Debug, Default)]
pub(crate) struct NodeNames {
    taken: FxHashSet<Arc<str>>,
    /// The last number given to each stem.
    numbers: FxHashMap<Arc<str>, u32>,
    /// In order, so that they can be given back.
    claimed: Vec<Arc<str>>,
}

impl NodeNames {
    /// Takes `wanted`, or `wanted` with a number where it is taken.
    pub(crate) fn claim(&mut self, wanted: &str) -> Arc<str> {
        let mut name: Arc<str> = wanted.into();
        if self.taken.contains(&name) {
            let number = self.numbers.entry(name).or_insert(0);
            loop {
                *number += 1;
                name = format!("{wanted}.{number}").into();
                if !self.taken.contains(&name) {
                    break;
                }
            }
        }
        self.taken.insert(name.clone());
        self.claimed.push(name.clone());
        name
    }

    /// The state to go back to.
    pub(crate) fn mark(&self) -> usize {
        self.claimed.len()
    }

    /// Gives back the names claimed since the mark.
    pub(crate) fn roll_back(&mut self, mark: usize) {
        for name in self.claimed.drain(mark.min(self.claimed.len())..) {
            self.taken.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_names_are_numbered() {
        let mut names = NodeNames::default();
        let claimed: Vec<_> = ["a", "a.1", "a", "a"].into_iter().map(|name| names.claim(name).to_string()).collect();
        assert_eq!(claimed, ["a", "a.1", "a.2", "a.3"]);
    }

    #[test]
    fn names_are_given_back() {
        let mut names = NodeNames::default();
        names.claim("a");
        let mark = names.mark();
        names.claim("b");
        names.roll_back(mark);
        assert_eq!(&*names.claim("b"), "b");
        assert_eq!(&*names.claim("a"), "a.1");
    }
}
