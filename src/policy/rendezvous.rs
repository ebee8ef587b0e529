//! Rendezvous hashing: for each key an order of the backends that every weir agrees on, whatever their order in the file.
//! It knows names and weights only, never health, and its hash never changes: a change would move every client.
//! The walk goes on in `persist/cookie_hash.rs` and `choose.rs`, which ask it for a client's home and successor.

use super::balance::BackendIndex;

/// The backends of a pool, ranked by key (weighted highest random weight; Thaler and Ravishankar 1996, Schindelhauer and Schomaker 2005).
///
/// A name hashes to `n = mix(fnv1a64(name))`, a key to `k = mix(fnv1a64(key))`, a backend's draw for a key is `mix(n ^ k)`, and
/// `mix` is the finaliser of MurmurHash3 for 64 bits. With equal weights the greatest draw is first. Else a draw stands for
/// `u = (draw + 1/2) / 2^64`, and the least `-ln(u) / weight` is first. Unkeyed on purpose: secrets may rotate, homes stay.
///
/// So a backend has a share of the keys in proportion to its weight, a new one takes keys from the others but moves none
/// between them, and the keys of one that leaves spread over the rest.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    hashes: Box<[u64]>,
    /// Each weight's inverse; empty when all are equal.
    inverses: Box<[f64]>,
    weights: Box<[u16]>,
    total: u64,
    /// Which of them stand in for the others; empty when none does.
    backups: Box<[bool]>,
}

impl Rendezvous {
    /// Takes the names and weights of a pool's backends in pool order; a weight of 0 counts as 1.
    pub fn new<'a>(backends: impl IntoIterator<Item = (&'a str, u16)>) -> Rendezvous {
        let (hashes, weights): (Vec<u64>, Vec<u16>) = backends
            .into_iter()
            .map(|(name, weight)| (key(name.as_bytes()), weight.max(1)))
            .unzip();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let inverses = match equal {
            true => Box::default(),
            false => weights.iter().map(|&w| 1.0 / f64::from(w)).collect(),
        };
        Rendezvous {
            hashes: hashes.into(),
            inverses,
            total: weights.iter().map(|&weight| u64::from(weight)).sum(),
            weights: weights.into(),
            backups: Box::default(),
        }
    }

    /// The same backends, of which some stand in for the others: in every order they come after them.
    pub fn with_backups(mut self, backups: impl IntoIterator<Item = bool>) -> Rendezvous {
        let backups: Box<[bool]> = backups.into_iter().collect();
        if backups.contains(&true) {
            let own = self
                .weights
                .iter()
                .zip(&backups)
                .filter(|(_, backup)| !**backup);
            self.total = own.map(|(&weight, _)| u64::from(weight)).sum();
            self.backups = backups;
        }
        self
    }

    #[inline]
    fn is_backup(&self, index: usize) -> bool {
        self.backups.get(index) == Some(&true)
    }

    /// The first of the allowed backends in the order for `key`; `None` when none is allowed.
    #[inline]
    pub fn first(&self, key: u64, allowed: impl Fn(BackendIndex) -> bool) -> Option<BackendIndex> {
        if self.backups.is_empty() {
            return self.first_of(key, allowed);
        }
        let is = |backup| {
            let allowed = &allowed;
            move |own: BackendIndex| self.is_backup(own.index()) == backup && allowed(own)
        };
        let own = self.first_of(key, is(false));
        own.or_else(|| self.first_of(key, is(true)))
    }

    #[inline]
    fn first_of(&self, key: u64, allowed: impl Fn(BackendIndex) -> bool) -> Option<BackendIndex> {
        let backends = (0..=u16::MAX).zip(&self.hashes);
        let mut first = None;
        let mut best = Draw::WORST;
        for (index, hash) in backends.filter(|(index, _)| allowed(BackendIndex(*index))) {
            let hash = mix(hash ^ key);
            if let Some(draw) = self.beats(usize::from(index), hash, best) {
                best = draw;
                first = Some(BackendIndex(index));
            }
        }
        first
    }

    /// Whether `backend` is the first of all in the order for `key`. Cheaper than [`first`](Self::first): most keys are refuted by the
    /// first few others.
    pub fn is_first(&self, key: u64, backend: BackendIndex) -> bool {
        let own = backend.index();
        let Some(hash) = self.hashes.get(own).filter(|_| !self.is_backup(own)) else {
            return false;
        };
        let Some(best) = self.beats(own, mix(hash ^ key), Draw::WORST) else {
            return false;
        };
        let others = (0..).zip(&self.hashes).filter(|(other, _)| *other != own);
        let mut others = others.filter(|(other, _)| !self.is_backup(*other));
        others.all(|(other, hash)| self.beats(other, mix(hash ^ key), best).is_none())
    }

    /// How many keys it takes on average to meet one whose first is `backend`; 0 for no backend of the pool, and for one that stands in.
    pub fn keys_per_hit(&self, backend: BackendIndex) -> u64 {
        let own = backend.index();
        let weight = self.weights.get(own).filter(|_| !self.is_backup(own));
        weight.map_or(0, |&weight| self.total.div_ceil(u64::from(weight)))
    }

    /// The backend's draw when it goes before `best`.
    #[inline]
    fn beats(&self, index: usize, hash: u64, best: Draw) -> Option<Draw> {
        let Some(inverse) = self.inverses.get(index) else {
            return (hash >= best.hash).then_some(Draw { cost: 0.0, hash });
        };
        // A logarithm costs as much as all the rest, and -ln(u) > 1 - u spares most of them.
        let at_least = (!hash) as f64 * (1.0 - 1e-9) / TWO_TO_64;
        if at_least * inverse >= best.cost {
            return None;
        }
        let cost = minus_ln_unit(hash) * inverse;
        (cost < best.cost).then_some(Draw { cost, hash })
    }
}

/// The key of some bytes.
pub fn key(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(hash)
}

/// A backend's place in the order: the least cost is first or, when all weights are equal, the greatest hash.
#[derive(Clone, Copy)]
struct Draw {
    cost: f64,
    hash: u64,
}

impl Draw {
    const WORST: Draw = Draw {
        cost: f64::INFINITY,
        hash: 0,
    };
}

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

#[inline]
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

/// `-ln((draw + 1/2) / 2^64)`, by basic operations alone: a logarithm from the system's library may differ in its last bit from
/// another's, and then two weirs could disagree.
#[inline]
fn minus_ln_unit(draw: u64) -> f64 {
    use std::f64::consts::{LN_2, SQRT_2};
    // 2^64 > draw + 1/2 >= 2^exponent, mantissa in [1, 2).
    let bits = (draw as f64 + 0.5).to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh s with s = (m - 1) / (m + 1), |s| < 0.172; the first term left out is below 1e-13.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    let series = 1.0
        + q * (1.0 / 3.0
            + q * (1.0 / 5.0
                + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0))))));
    f64::from(64 - exponent) * LN_2 - 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("10.0.0.{index}:8080"))
            .collect()
    }

    fn ring(names: &[String], weights: &[u16]) -> Rendezvous {
        Rendezvous::new(
            names
                .iter()
                .map(String::as_str)
                .zip(weights.iter().copied()),
        )
    }

    fn home(ring: &Rendezvous, key: u64) -> usize {
        ring.first(key, |_| true).unwrap().index()
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(key(b""), 0xefd0_1f60_ba99_2926);
        let ring = Rendezvous::new([("was1", 1), ("was2", 1), ("was3", 1)]);
        let homes: Vec<usize> = (0..12).map(|n| home(&ring, key(&[n]))).collect();
        assert_eq!(homes, HOMES);
        let ring = Rendezvous::new([("was1", 1), ("was2", 2), ("was3", 4)]);
        let homes: Vec<usize> = (0..12).map(|n| home(&ring, key(&[n]))).collect();
        assert_eq!(homes, WEIGHTED_HOMES);
    }

    const HOMES: [usize; 12] = [0, 2, 1, 2, 0, 2, 2, 0, 1, 2, 1, 2];
    const WEIGHTED_HOMES: [usize; 12] = [2, 2, 1, 2, 2, 2, 2, 0, 1, 2, 1, 2];

    #[test]
    fn the_logarithm_is_one() {
        let mut bits = 1_u64;
        for draw in (0..64)
            .map(|shift| u64::MAX >> shift)
            .chain((0..2000).map(|_| {
                bits = mix(bits.wrapping_add(0x9e37));
                bits
            }))
        {
            let exact = -((draw as f64 + 0.5).ln() - 64.0 * 2_f64.ln());
            assert!((minus_ln_unit(draw) - exact).abs() < 1e-12, "{draw}");
            assert!(minus_ln_unit(draw) >= 0.0);
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [vec![1; 4], vec![1, 2, 3, 10], vec![256, 1, 64, 7, 7, 7]] {
            let ring = ring(&names(weights.len()), &weights);
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            let mut counts = vec![0_u32; weights.len()];
            let keys = 200_000_u32;
            for number in 0..keys {
                counts[home(&ring, key(&number.to_le_bytes()))] += 1;
            }
            for (&count, &weight) in counts.iter().zip(&weights) {
                let share = f64::from(weight) / total;
                let expected = share * f64::from(keys);
                let deviation = (expected * (1.0 - share)).sqrt();
                assert!(
                    (f64::from(count) - expected).abs() < 5.0 * deviation,
                    "{counts:?}"
                );
            }
        }
    }

    #[test]
    fn a_thousand_backends() {
        let ring = ring(&names(1000), &[1; 1000]);
        let mut seen = vec![false; 1000];
        for number in 0..20_000_u32 {
            let key = key(&number.to_le_bytes());
            let home = home(&ring, key);
            seen[home] = true;
            assert!(ring.is_first(key, BackendIndex(home as u16)));
            assert!(!ring.is_first(key, BackendIndex((home as u16 + 1) % 1000)));
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!(ring.keys_per_hit(BackendIndex(3)), 1000);
        assert_eq!(ring.keys_per_hit(BackendIndex(1000)), 0);
    }

    #[test]
    fn backups_come_last_in_every_order() {
        let names = ["a", "b", "c", "d"];
        let ring = |weights: [u16; 4]| Rendezvous::new(names.into_iter().zip(weights));
        for weights in [[1; 4], [1, 2, 3, 4]] {
            let all = ring(weights).with_backups([false, true, false, true]);
            for key in 0..200_u64 {
                let key = super::key(&key.to_le_bytes());
                let first = all.first(key, |_| true).unwrap();
                assert!(first.index() % 2 == 0 && all.is_first(key, first));
                let spare = all.first(key, |own| own.index() % 2 == 1).unwrap();
                assert!(spare.index() % 2 == 1 && !all.is_first(key, spare));
                assert_eq!(all.keys_per_hit(spare), 0);
                // Among themselves they are in the order that they would be in anyway.
                let plain = ring(weights).first(key, |own| own.index() % 2 == 0);
                assert_eq!(plain, Some(first));
            }
            assert!(
                all.keys_per_hit(BackendIndex(0)) < ring(weights).keys_per_hit(BackendIndex(0))
            );
        }
    }

    proptest! {
        /// Adding a backend moves keys only to it, removing it gives back just those, and the order of the file does not matter.
        #[test]
        fn disruption_is_minimal(
            weights in proptest::collection::vec(1..=256_u16, 2..20),
            all_equal in any::<bool>(),
            at in any::<proptest::sample::Index>(),
            seed in any::<u32>(),
        ) {
            let weights = if all_equal { vec![weights[0]; weights.len()] } else { weights };
            let names = names(weights.len());
            let at = at.index(weights.len());
            let (mut fewer_names, mut fewer_weights) = (names.clone(), weights.clone());
            fewer_names.remove(at);
            fewer_weights.remove(at);
            let (all, fewer) = (ring(&names, &weights), ring(&fewer_names, &fewer_weights));
            let reversed = ring(
                &names.iter().rev().cloned().collect::<Vec<_>>(),
                &weights.iter().rev().copied().collect::<Vec<_>>(),
            );
            for number in 0..300_u32 {
                let key = key(&(number ^ seed).to_le_bytes());
                let (before, after) = (home(&fewer, key), home(&all, key));
                prop_assert!(after == at || names[after] == fewer_names[before]);
                prop_assert_eq!(weights.len() - 1 - home(&reversed, key), after);
                for index in 0..weights.len() {
                    prop_assert_eq!(all.is_first(key, BackendIndex(index as u16)), index == after);
                }
                // Without it the successor is what a pool that never had it would name.
                let successor = all.first(key, |backend| backend.index() != at);
                prop_assert_eq!(&names[successor.unwrap().index()], &fewer_names[before]);
            }
            prop_assert_eq!(all.first(1, |_| false), None);
        }
    }
}
