//! The only sources of chance: a fast generator for balancing and the system's CSPRNG for ids and secrets.
//! The fast one must never make anything that an attacker gains from guessing.

/// xoshiro256++ (Blackman and Vigna, 2019), seeded through SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng {
    words: [u64; 4],
}

impl Rng {
    /// A generator whose whole stream follows from `seed`.
    pub fn from_seed(seed: u64) -> Self {
        let mut state = seed;
        Rng {
            words: std::array::from_fn(|_| split_mix(&mut state)),
        }
    }

    /// A generator seeded by the system.
    pub fn from_system() -> Self {
        let mut seed = [0; 8];
        fill_secure(&mut seed);
        Rng::from_seed(u64::from_ne_bytes(seed))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.words;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.words = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound` (Lemire 2019, without the rejection: the bias is under 2^-32 here); 0 for a bound of 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u32
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `bytes` from the system's CSPRNG.
///
/// # Panics
/// When the system has no entropy source, which Linux always has.
pub fn fill_secure(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system has a source of randomness");
}

/// A keyed hash (SipHash-1-3) whose key nobody can guess, so that nobody can choose what collides.
pub fn keyed_hash() -> std::hash::RandomState {
    std::hash::RandomState::new()
}
