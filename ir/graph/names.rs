//! Names that occur once in a graph.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

/// A set of names with a counter for each stem, so that making a name unique takes one look-up.
///
/// It holds the hashes alone, which lie close together. A name whose hash is taken counts as taken, and gets a number.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    taken: FxHashSet<u64>,
    next: FxHashMap<u64, u32>,
}

impl Names {
    pub(super) fn claim(&mut self, wanted: &Arc<str>) -> Arc<str> {
        if !wanted.is_empty() && self.taken.insert(hash(wanted)) {
            return wanted.clone();
        }
        let stem: &str = if wanted.is_empty() { "unnamed" } else { wanted };
        let next = self.next.entry(hash(stem)).or_insert(0);
        loop {
            *next += 1;
            let name = format!("{stem}.{next}");
            if self.taken.insert(hash(&name)) {
                return name.into();
            }
        }
    }

    /// Frees a name. The last name made of a stem is the next one again, so that a change taken back leaves no trace.
    pub(super) fn release(&mut self, name: &str) {
        self.taken.remove(&hash(name));
        if let Some((stem, number)) = name.rsplit_once('.')
            && let Ok(number) = number.parse::<u32>()
            && let Some(next) = self.next.get_mut(&hash(stem))
            && number == *next
        {
            *next -= 1;
        }
    }
}

fn hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}
