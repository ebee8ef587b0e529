//! The table that workers share: from 64-bit keys to 64-bit values, of a fixed size, without a lock.
//! It never grows, never waits and never gives a value under a key that it was not put under; what finds no place pushes out the oldest.
//! The walk goes on in `sessions.rs`; `rates.rs` and `sources.rs` are of the same kind, for what must not be forgotten while it counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Entries that a key may lie in. They fill two cache lines, which a processor fetches as a pair.
const WAYS: usize = 8;

/// A set-associative table.
///
/// An entry is two words, the value and `key ^ value`. Whoever changes one swaps the value first, which one thread alone succeeds
/// in, and then writes the other word. A reader in between sees a pair that belongs to no key, which is a miss. So nobody reads
/// a value of another key, and each value that leaves the table leaves it to exactly one caller: what is counted by values stays right.
#[derive(Debug)]
pub struct Table {
    sets: Box<[Set]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Set([Entry; WAYS]);

#[derive(Debug, Default)]
struct Entry {
    /// 0: nothing is here.
    value: AtomicU64,
    check: AtomicU64,
}

impl Table {
    /// Places for `entries` and as many again, so that few sets overflow before the table holds that many; at least one set.
    pub fn new(entries: usize) -> Table {
        let sets = (entries * 2).div_ceil(WAYS).next_power_of_two();
        Table {
            sets: (0..sets).map(|_| Set::default()).collect(),
        }
    }

    /// How many sets there are, for [`Table::pairs`] and [`Table::sweep`].
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The value under `key`.
    #[inline]
    pub fn get(&self, key: u64) -> Option<u64> {
        self.find(key).map(|(_, value)| value)
    }

    /// Puts `value`, which is not 0, under `key`; the value that had to leave for it, its own old one or the one that is oldest
    /// by `age` in a full set. Where all others are younger than `value`, it is `value` that leaves.
    pub fn put(&self, key: u64, value: u64, age: impl Fn(u64) -> u32) -> Option<u64> {
        self.put_unless(key, value, age, |_| false).unwrap_or(None)
    }

    /// The same unless a value is under `key` that `stays`, which is the error.
    pub fn put_unless(
        &self,
        key: u64,
        value: u64,
        age: impl Fn(u64) -> u32,
        stays: impl Fn(u64) -> bool,
    ) -> Result<Option<u64>, u64> {
        // Another thread may be first at a place; each round that fails is one that another one won.
        for _ in 0..WAYS {
            let own = self.find(key);
            if let Some((_, old)) = own.filter(|(_, old)| stays(*old)) {
                return Err(old);
            }
            let (entry, old) = own.unwrap_or_else(|| self.victim(key, &age));
            if own.is_none() && old != 0 && age(old) < age(value) {
                break;
            }
            if !entry.swap(key, old, value) {
                continue;
            }
            // Who was first at another place was perhaps not done when this round looked for it.
            let twin = self
                .find(key)
                .filter(|(_, twin)| old == 0 && *twin != value && stays(*twin));
            return match twin {
                Some((_, twin)) if entry.swap(key, value, 0) => Err(twin),
                _ => Ok((old != 0).then_some(old)),
            };
        }
        // Not put at all: the value itself is what found no place.
        Ok(Some(value))
    }

    /// Puts `new` under `key` if `old` is there now.
    #[inline]
    pub fn replace(&self, key: u64, old: u64, new: u64) -> bool {
        self.find(key)
            .is_some_and(|(entry, found)| found == old && entry.swap(key, old, new))
    }

    /// Takes the value under `key` out.
    pub fn remove(&self, key: u64) -> Option<u64> {
        let (entry, old) = self.find(key)?;
        entry.swap(key, old, 0).then_some(old)
    }

    /// The pairs of a set, whose ordinal is taken modulo the number of sets. A pair that is being changed may be one of no key.
    pub fn pairs(&self, set: usize) -> impl Iterator<Item = (u64, u64)> {
        let entries = &self.sets[set % self.sets.len()].0;
        entries.iter().filter_map(|entry| {
            let value = entry.value.load(Relaxed);
            (value != 0).then(|| (entry.check.load(Relaxed) ^ value, value))
        })
    }

    /// Takes the values out of a set that are not to stay, and tells which they were.
    pub fn sweep(&self, set: usize, stays: impl Fn(u64) -> bool, mut gone: impl FnMut(u64)) {
        for entry in &self.sets[set % self.sets.len()].0 {
            let value = entry.value.load(Relaxed);
            if value != 0 && !stays(value) && entry.swap(0, value, 0) {
                gone(value);
            }
        }
    }

    #[inline]
    fn set(&self, key: u64) -> &Set {
        &self.sets[key as usize & (self.sets.len() - 1)]
    }

    #[inline]
    fn find(&self, key: u64) -> Option<(&Entry, u64)> {
        self.set(key).0.iter().find_map(|entry| {
            let value = entry.value.load(Relaxed);
            let is_own = value != 0 && entry.check.load(Relaxed) ^ value == key;
            is_own.then_some((entry, value))
        })
    }

    /// A free place for `key`, else the oldest value.
    fn victim(&self, key: u64, age: impl Fn(u64) -> u32) -> (&Entry, u64) {
        let [first, rest @ ..] = &self.set(key).0;
        let mut oldest = (first, first.value.load(Relaxed));
        for entry in rest {
            let value = entry.value.load(Relaxed);
            let is_older = value == 0 || age(value) > age(oldest.1);
            if oldest.1 != 0 && is_older {
                oldest = (entry, value);
            }
        }
        oldest
    }
}

impl Entry {
    /// Puts `new` in place of `old`; false when that is not there any more.
    fn swap(&self, key: u64, old: u64, new: u64) -> bool {
        let done = self
            .value
            .compare_exchange(old, new, Relaxed, Relaxed)
            .is_ok();
        if done {
            self.check.store(key ^ new, Relaxed);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicI64;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn pairs(table: &Table) -> HashMap<u64, u64> {
        (0..table.sets()).flat_map(|set| table.pairs(set)).collect()
    }

    proptest! {
        /// While no set overflows it is a map; the keys are few enough for that.
        #[test]
        fn it_is_a_map(operations in proptest::collection::vec((0..8_u64, 0..3_u8, 1..100_u64), 0..200)) {
            let (table, mut model) = (Table::new(4), HashMap::new());
            for (key, operation, value) in operations {
                match operation {
                    0 => prop_assert_eq!(table.put(key, value, |_| 0), model.insert(key, value)),
                    1 => prop_assert_eq!(table.remove(key), model.remove(&key)),
                    _ => {
                        let old = model.get(&key).copied();
                        prop_assert_eq!(table.replace(key, 7, value), old == Some(7));
                        model.entry(key).and_modify(|old| if *old == 7 { *old = value });
                    }
                }
                prop_assert_eq!(table.get(key), model.get(&key).copied());
            }
            prop_assert_eq!(pairs(&table), model);
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let table = Table::new(1);
        assert_eq!(table.sets(), 1);
        for key in 1..=8 {
            assert_eq!(table.put(key, 100 - key, |value| value as u32), None);
        }
        assert_eq!(table.put(9, 50, |value| value as u32), Some(99));
        assert_eq!((table.get(1), table.get(9)), (None, Some(50)));
        assert_eq!(table.put(10, 99, |value| value as u32), Some(99));
        assert_eq!(table.get(10), None, "it is the oldest itself");
        let mut gone = Vec::new();
        table.sweep(5, |value| value > 94, |value| gone.push(value));
        assert_eq!(gone.len() + pairs(&table).len(), 8);
        assert!(gone.iter().all(|value| *value <= 94));
    }

    /// Whatever threads do at once: what left was told once, and no key shows another key's value.
    #[test]
    fn nothing_is_lost_or_told_twice() {
        let table = Table::new(64);
        let balance = AtomicI64::new(0);
        let threads = 4;
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (table, balance) = (&table, &balance);
                scope.spawn(move || {
                    let mut rng = Rng::from_seed(thread);
                    for _ in 0..50_000 {
                        let key = u64::from(rng.below(400)) + 1;
                        if let Some(value) = table.get(key) {
                            assert_eq!(value >> 32, key, "a value of another key");
                        }
                        let gone = match rng.below(4) {
                            0 => table.remove(key),
                            1 => {
                                let set = rng.next_u64() as usize;
                                let mut told = 0;
                                table.sweep(set, |value| value & 15 != 3, |_| told += 1);
                                balance.fetch_sub(told, Relaxed);
                                None
                            }
                            _ => {
                                balance.fetch_add(1, Relaxed);
                                let stamp = u64::from(rng.below(1 << 20)) + 1;
                                table.put(key, key << 32 | stamp, |value| value as u32)
                            }
                        };
                        balance.fetch_sub(i64::from(gone.is_some()), Relaxed);
                    }
                });
            }
        });
        let left = (0..table.sets()).flat_map(|set| table.pairs(set)).count();
        assert_eq!(balance.into_inner(), left as i64);
    }
}
