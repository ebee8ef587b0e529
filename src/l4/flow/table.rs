//! What the table of flows is made of: slots, chains of equal hashes, and queues in the order of last use; every step takes a few moves.
//! It knows keys and places, never why a flow is in one queue or another, and reads no clock.
//! The walk goes back to `flow.rs`.

use std::hash::{BuildHasher, Hash, RandomState};

/// Values with keys, each in one of `N` queues, in bounded memory that is the system's until it is used.
#[derive(Debug)]
pub(super) struct Table<K, V, const N: usize> {
    hasher: RandomState,
    /// Heads of chains of slots with equal hashes, as [`Link`]s.
    buckets: Box<[Link]>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    queues: [Queue; N],
}

/// A place of a table for as long as its value is there. The same never stands for another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// A slot's number and 1; 0 is none. So memory that was never touched is a table without values.
type Link = u32;

const NONE: Link = 0;

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    first: Link,
    last: Link,
    length: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    serial: u32,
    entry: Option<Entry<K, V>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    queue: usize,
    before: Link,
    after: Link,
    chain: Link,
}

impl<K: Copy + Eq + Hash, V, const N: usize> Table<K, V, N> {
    /// A table for `most` values.
    pub(super) fn new(most: usize) -> Self {
        Table {
            hasher: RandomState::new(),
            buckets: vec![NONE; most.next_power_of_two()].into(),
            slots: Vec::with_capacity(most),
            free: Vec::new(),
            queues: [Queue::default(); N],
        }
    }

    /// Prepares for another number of values than before.
    pub(super) fn resize(&mut self, most: usize) {
        self.buckets = vec![NONE; most.next_power_of_two()].into();
        for link in 1..=self.slots.len() as Link {
            let Some(key) = self.at(link).map(|entry| entry.key) else {
                continue;
            };
            let bucket = self.bucket(&key);
            let chain = std::mem::replace(&mut self.buckets[bucket], link);
            if let Some(entry) = self.at_mut(link) {
                entry.chain = chain;
            }
        }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many of them are in a queue.
    pub(super) fn queued(&self, queue: usize) -> usize {
        self.queues[queue].length
    }

    /// The first one of a queue.
    pub(super) fn first(&self, queue: usize) -> Option<Place> {
        let first = self.queues[queue].first;
        (first != NONE).then(|| self.place(first))
    }

    /// Where the value of a key is.
    pub(super) fn find(&self, key: &K) -> Option<Place> {
        let mut link = self.buckets[self.bucket(key)];
        while let Some(entry) = self.at(link) {
            if entry.key == *key {
                return Some(self.place(link));
            }
            link = entry.chain;
        }
        None
    }

    /// The key and the value of a place; `None` when it is gone.
    pub(super) fn get(&self, place: Place) -> Option<(&K, &V)> {
        let slot = self.slots.get(place.slot as usize)?;
        let entry = slot
            .entry
            .as_ref()
            .filter(|_| slot.serial == place.serial)?;
        Some((&entry.key, &entry.value))
    }

    /// Puts a value at the end of a queue, of a key that the table must not know yet.
    pub(super) fn insert(&mut self, key: K, value: V, queue: usize) -> Place {
        let bucket = self.bucket(&key);
        let entry = Entry {
            key,
            value,
            queue,
            before: NONE,
            after: NONE,
            chain: self.buckets[bucket],
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot {
                    serial: 0,
                    entry: None,
                });
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[slot as usize].entry = Some(entry);
        self.buckets[bucket] = slot + 1;
        self.enqueue(slot + 1);
        self.place(slot + 1)
    }

    /// Changes a value and puts it at the end of the queue that `change` names, if it is still there.
    pub(super) fn change(&mut self, place: Place, change: impl FnOnce(&mut V) -> usize) {
        if self.get(place).is_none() {
            return;
        }
        let link = place.slot + 1;
        self.dequeue(link);
        if let Some(entry) = self.at_mut(link) {
            entry.queue = change(&mut entry.value);
        }
        self.enqueue(link);
    }

    /// Takes a value out; `None` when it is gone.
    pub(super) fn remove(&mut self, place: Place) -> Option<(K, V)> {
        self.get(place)?;
        let link = place.slot + 1;
        self.dequeue(link);
        self.unchain(link);
        let slot = self.slots.get_mut(place.slot as usize)?;
        let entry = slot.entry.take()?;
        slot.serial = slot.serial.wrapping_add(1);
        self.free.push(place.slot);
        Some((entry.key, entry.value))
    }

    fn bucket(&self, key: &K) -> usize {
        // A power of two, so that the mask keeps within it.
        self.hasher.hash_one(key) as usize & (self.buckets.len() - 1)
    }

    fn place(&self, link: Link) -> Place {
        let slot = link - 1;
        Place {
            slot,
            serial: self.slots[slot as usize].serial,
        }
    }

    fn at(&self, link: Link) -> Option<&Entry<K, V>> {
        let slot = link.checked_sub(1)?;
        self.slots.get(slot as usize)?.entry.as_ref()
    }

    fn at_mut(&mut self, link: Link) -> Option<&mut Entry<K, V>> {
        let slot = link.checked_sub(1)?;
        self.slots.get_mut(slot as usize)?.entry.as_mut()
    }

    fn enqueue(&mut self, link: Link) {
        let Some(queue) = self.at(link).map(|entry| entry.queue) else {
            return;
        };
        let queue = &mut self.queues[queue];
        queue.length += 1;
        let before = std::mem::replace(&mut queue.last, link);
        if before == NONE {
            queue.first = link;
        }
        if let Some(entry) = self.at_mut(before) {
            entry.after = link;
        }
        if let Some(entry) = self.at_mut(link) {
            (entry.before, entry.after) = (before, NONE);
        }
    }

    fn dequeue(&mut self, link: Link) {
        let Some(entry) = self.at(link) else {
            return;
        };
        let (before, after) = (entry.before, entry.after);
        let queue = &mut self.queues[entry.queue];
        queue.length -= 1;
        if before == NONE {
            queue.first = after;
        }
        if after == NONE {
            queue.last = before;
        }
        if let Some(entry) = self.at_mut(before) {
            entry.after = after;
        }
        if let Some(entry) = self.at_mut(after) {
            entry.before = before;
        }
    }

    fn unchain(&mut self, link: Link) {
        let Some((key, chain)) = self.at(link).map(|entry| (entry.key, entry.chain)) else {
            return;
        };
        let bucket = self.bucket(&key);
        let mut before = self.buckets[bucket];
        if before == link {
            self.buckets[bucket] = chain;
            return;
        }
        while let Some(entry) = self.at_mut(before) {
            if entry.chain == link {
                entry.chain = chain;
                return;
            }
            before = entry.chain;
        }
    }
}
