//! Keys that are used for a while and then left for fresh ones, so that what must be checked of
//! one key stays small. Fresh names fall into all slices.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::SmallRng;
use serde_json::Value;

/// One key in use.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) name: String,
    left: u32,
    /// A value that it had lately, by what its clients saw.
    pub(super) seen: Value,
}

/// The keys in use, and those left that a last look is due at.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: &'static str,
    per_key: u32,
    next: u64,
    active: Vec<Active>,
    /// How many operations are under way on keys in use or just left.
    under_way: BTreeMap<String, u32>,
    /// Left, and nothing under way any more.
    left: Vec<String>,
}

/// Most keys remembered that were left.
const LEFT: usize = 4_096;

impl Keys {
    /// `count` keys at a time, each for about `per_key` operations.
    pub(super) fn new(
        prefix: &'static str,
        count: usize,
        per_key: u32,
        random: &mut SmallRng,
    ) -> Self {
        let mut keys = Self {
            prefix,
            per_key,
            next: 0,
            active: Vec::new(),
            under_way: BTreeMap::new(),
            left: Vec::new(),
        };
        for _ in 0..count.max(1) {
            let fresh = keys.fresh(random);
            keys.active.push(fresh);
        }
        keys
    }

    fn fresh(&mut self, random: &mut SmallRng) -> Active {
        let name = format!("{}{}", self.prefix, self.next);
        self.next += 1;
        // Not all keys end at once.
        let left = random.random_range(self.per_key * 3 / 4..=self.per_key);
        Active {
            name,
            left,
            seen: Value::Null,
        }
    }

    /// One of the keys in use, which has one operation less left. [`Keys::ended`] must follow.
    pub(super) fn pick(&mut self, random: &mut SmallRng) -> Active {
        let at = random.random_range(0..self.active.len().max(1));
        let picked = self.active[at].clone();
        *self.under_way.entry(picked.name.clone()).or_default() += 1;
        self.active[at].left = picked.left.saturating_sub(1);
        if self.active[at].left == 0 {
            self.active[at] = self.fresh(random);
        }
        picked
    }

    /// The operation on a key that was picked has ended, however. Returns whether there was one.
    pub(super) fn ended(&mut self, key: &str) -> bool {
        let Some(under_way) = self.under_way.get_mut(key) else {
            return false;
        };
        *under_way = under_way.saturating_sub(1);
        if *under_way == 0 {
            self.under_way.remove(key);
            let in_use = self.active.iter().any(|active| active.name == key);
            if !in_use && self.left.len() < LEFT {
                self.left.push(key.to_owned());
            }
        }
        true
    }

    /// A client saw this value.
    pub(super) fn saw(&mut self, key: &str, value: Value) {
        if let Some(active) = self.active.iter_mut().find(|active| active.name == key) {
            active.seen = value;
        }
    }

    /// A key at which a last look is due, and then no other is.
    pub(super) fn take_left(&mut self) -> Option<String> {
        self.left.pop()
    }

    /// The last look failed: it is due again.
    pub(super) fn put_back(&mut self, key: &str) {
        self.left.push(key.to_owned());
    }

    /// All keys at which a last look is due at the end of a run: also those in use.
    pub(super) fn all_due(&self) -> Vec<String> {
        let in_use = self.active.iter().map(|key| key.name.clone());
        in_use.chain(self.left.iter().cloned()).collect()
    }

    /// The keys in use.
    pub(super) fn names(&self) -> Vec<String> {
        self.active.iter().map(|key| key.name.clone()).collect()
    }

    /// So many that were never used.
    pub(super) fn unused(&mut self, count: usize) -> Vec<String> {
        let from = self.next;
        self.next += count as u64;
        (from..self.next)
            .map(|number| format!("{}{number}", self.prefix))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_key_is_left_after_its_operations_and_never_used_again() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut keys = Keys::new("k", 3, 20, &mut random);
        let mut used = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..1_000 {
            let name = keys.pick(&mut random).name;
            keys.ended(&name);
            *used.entry(name).or_default() += 1;
        }
        let due = keys.all_due();
        assert!(used.keys().all(|name| due.contains(name)));
        assert!(used.len() > 40);
        assert!(used.values().all(|count| *count <= 20));
        let unused = keys.unused(2);
        assert!(unused.iter().all(|name| !used.contains_key(name)));
    }
}
