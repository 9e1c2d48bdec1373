//! Which nodes of the model a node stands for: sets that every rewrite joins and only users read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// The ONNX nodes that a node stands for, as indices into [`Graph::sources`](crate::Graph::sources).
///
/// A persistent big-endian Patricia trie (Okasaki and Gill, "Fast Mergeable Integer Maps") with words of 64 indices at
/// its leaves. A union shares what only one side has: a node that has taken in thousands one after another has cost a
/// path of the trie for each, and not a list of all before. Equal sets have one form.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Origin(Option<Arc<Trie>>);

/// A set that is not empty. A key is an index without its lowest [`WORD_BITS`] bits.
#[derive(PartialEq, Eq)]
enum Trie {
    /// The indices of one key, each a bit.
    Word { key: u32, bits: u64 },
    /// Keys that agree above `bit`, where `prefix` is what they have there: those without the bit, and those with it.
    Branch { prefix: u32, bit: u32, zero: Arc<Trie>, one: Arc<Trie> },
}

const WORD_BITS: u32 = u64::BITS.ilog2();

/// The bits of a key above one bit.
fn above(key: u32, bit: u32) -> u32 {
    // A key has fewer than 31 bits.
    key & !(2 * bit - 1)
}

impl Trie {
    fn key(&self) -> u32 {
        match self {
            Self::Word { key, .. } => *key,
            Self::Branch { prefix, .. } => *prefix,
        }
    }

    /// The bit where the keys part; 0 where there is one key.
    fn bit(&self) -> u32 {
        match self {
            Self::Word { .. } => 0,
            Self::Branch { bit, .. } => *bit,
        }
    }

    /// The keys without a bit and those with it, where all agree above it.
    fn parts(self: &Arc<Self>, at: u32) -> [Option<&Arc<Self>>; 2] {
        match &**self {
            Self::Branch { bit, zero, one, .. } if *bit == at => [Some(zero), Some(one)],
            _ if self.key() & at == 0 => [Some(self), None],
            _ => [None, Some(self)],
        }
    }

    fn union(a: Option<&Arc<Self>>, b: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let (Some(a), Some(b)) = (a, b) else { return a.or(b).cloned() };
        if Arc::ptr_eq(a, b) {
            return Some(a.clone());
        }
        if let (Self::Word { key, bits }, Self::Word { key: other, bits: more }) = (&**a, &**b)
            && key == other
        {
            return Some(match bits | more {
                all if all == *bits => a.clone(),
                all if all == *more => b.clone(),
                all => Arc::new(Self::Word { key: *key, bits: all }),
            });
        }
        // The highest bit where two keys differ.
        let apart = (a.key() ^ b.key()).checked_ilog2().map_or(0, |at| 1 << at);
        let bit = apart.max(a.bit()).max(b.bit());
        let ([a_zero, a_one], [b_zero, b_one]) = (a.parts(bit), b.parts(bit));
        let (zero, one) = match (Self::union(a_zero, b_zero), Self::union(a_one, b_one)) {
            (Some(zero), Some(one)) => (zero, one),
            (all, None) | (None, all) => return all,
        };
        let whole = [a, b].into_iter().find(|whole| whole.has_branches(&zero, &one)).cloned();
        Some(whole.unwrap_or_else(|| Arc::new(Self::Branch { prefix: above(a.key(), bit), bit, zero, one })))
    }

    /// Whether these very tries are the branches.
    fn has_branches(&self, zero: &Arc<Self>, one: &Arc<Self>) -> bool {
        matches!(self, Self::Branch { zero: a, one: b, .. } if Arc::ptr_eq(a, zero) && Arc::ptr_eq(b, one))
    }
}

impl Origin {
    /// One ONNX node.
    pub fn one(source: u32) -> Self {
        let (key, bits) = (source >> WORD_BITS, 1 << (source % u64::BITS));
        Self(Some(Arc::new(Trie::Word { key, bits })))
    }

    /// The indices, ascending.
    pub fn sources(&self) -> impl DoubleEndedIterator<Item = u32> {
        Sources { left: self.0.iter().map(|trie| Left::Trie(trie)).collect() }
    }

    /// The greatest index.
    pub(crate) fn last(&self) -> Option<u32> {
        let mut trie = self.0.as_ref()?;
        loop {
            match &**trie {
                Trie::Branch { one, .. } => trie = one,
                Trie::Word { key, bits } => return Some(key << WORD_BITS | bits.checked_ilog2()?),
            }
        }
    }

    /// The nodes of all.
    pub fn merged<'a>(origins: impl IntoIterator<Item = &'a Self>) -> Self {
        let tries = origins.into_iter().map(|origin| &origin.0);
        Self(tries.fold(None, |all, trie| Trie::union(all.as_ref(), trie.as_ref())))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.sources()).finish()
    }
}

/// What is left of an iteration, in order.
struct Sources<'a> {
    left: VecDeque<Left<'a>>,
}

enum Left<'a> {
    Trie(&'a Trie),
    Word { key: u32, bits: u64 },
}

impl Iterator for Sources<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            let (key, bits) = match self.left.pop_front()? {
                Left::Trie(Trie::Branch { zero, one, .. }) => {
                    self.left.push_front(Left::Trie(one));
                    self.left.push_front(Left::Trie(zero));
                    continue;
                }
                Left::Trie(Trie::Word { key, bits }) => (*key, *bits),
                Left::Word { key, bits } => (key, bits),
            };
            if bits != 0 {
                self.left.push_front(Left::Word { key, bits: bits & (bits - 1) });
                return Some(key << WORD_BITS | bits.trailing_zeros());
            }
        }
    }
}

impl DoubleEndedIterator for Sources<'_> {
    fn next_back(&mut self) -> Option<u32> {
        loop {
            let (key, bits) = match self.left.pop_back()? {
                Left::Trie(Trie::Branch { zero, one, .. }) => {
                    self.left.push_back(Left::Trie(zero));
                    self.left.push_back(Left::Trie(one));
                    continue;
                }
                Left::Trie(Trie::Word { key, bits }) => (*key, *bits),
                Left::Word { key, bits } => (key, bits),
            };
            if let Some(last) = bits.checked_ilog2() {
                self.left.push_back(Left::Word { key, bits: bits & !(1 << last) });
                return Some(key << WORD_BITS | last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(sources: impl IntoIterator<Item = u32>) -> Origin {
        let each: Vec<Origin> = sources.into_iter().map(Origin::one).collect();
        Origin::merged(&each)
    }

    /// The tries that a set consists of, by address.
    fn tries(origin: &Origin) -> BTreeSet<*const Trie> {
        let mut found = BTreeSet::new();
        let mut left: Vec<&Arc<Trie>> = origin.0.iter().collect();
        while let Some(trie) = left.pop() {
            found.insert(Arc::as_ptr(trie));
            if let Trie::Branch { zero, one, .. } = &**trie {
                left.extend([zero, one]);
            }
        }
        found
    }

    #[test]
    fn indices_come_in_order_from_both_ends() {
        let origin = of([130, 2, u32::MAX, 0, 63, 64, 2]);
        let sorted = [0, 2, 63, 64, 130, u32::MAX];
        assert_eq!(origin.sources().collect::<Vec<_>>(), sorted);
        assert_eq!(origin.sources().rev().collect::<Vec<_>>(), sorted.into_iter().rev().collect::<Vec<_>>());
        let mut both = origin.sources();
        assert_eq!((both.next(), both.next_back(), both.next_back()), (Some(0), Some(u32::MAX), Some(130)));
        assert_eq!(both.collect::<Vec<_>>(), [2, 63, 64]);
        assert_eq!((origin.last(), of([5, 70, 69]).last(), Origin::default().last()), (Some(u32::MAX), Some(70), None));
        assert_eq!(Origin::default().sources().count(), 0);
        assert_eq!(format!("{origin:?}"), "{0, 2, 63, 64, 130, 4294967295}");
    }

    #[test]
    fn a_chain_of_unions_costs_a_path_each() {
        const LENGTH: u32 = 4096;
        let mut all = Origin::default();
        let mut made = 0;
        for source in 0..LENGTH {
            let more = Origin::merged([&all, &Origin::one(source)]);
            made += tries(&more).difference(&tries(&all)).count();
            all = more;
        }
        // The branches above 64 words, and a word.
        assert!(made <= LENGTH as usize * 7, "{made}");
        assert_eq!(all, of((0..LENGTH).rev()));
    }

    #[test]
    fn a_set_that_takes_in_a_subset_stays_itself() {
        let all = of(0..1000);
        for part in [&all, &of(100..300), &of([999]), &Origin::default()] {
            assert_eq!(tries(&Origin::merged([&all, part])), tries(&all));
        }
    }

    proptest! {
        #[test]
        fn unions_are_those_of_sets(
            parts in prop::collection::vec(prop::collection::btree_set(prop_oneof![0..300_u32, any::<u32>()], 0..40), 0..6)
        ) {
            let origins: Vec<Origin> = parts.iter().map(|part| of(part.iter().copied())).collect();
            let expected: BTreeSet<u32> = parts.iter().flatten().copied().collect();
            let union = Origin::merged(&origins);
            prop_assert_eq!(union.sources().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(union, of(expected.iter().rev().copied()));
        }
    }
}
