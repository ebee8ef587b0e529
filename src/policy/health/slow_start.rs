//! How a backend that has just come up warms: the share of its weight that it takes, over the time that it has been serving.
//! It knows no clock: who asks says for how long.
//! The walk goes on in `balance/eligible.rs`, which multiplies weights with shares.

use std::time::Duration;

/// The share of a backend that is warm. The greatest weight times this is what a weight may be.
pub const FULL: u16 = 250;
/// The share of one that has just come up: a tenth.
pub const FIRST: u16 = FULL / 10;
/// The share grows in so many equal steps, so that workers look again that often and no oftener.
const STEPS: u128 = 32;

/// The share, out of [`FULL`], of a backend that has been serving for `warm`, in a pool whose backends take `slow_start` to warm.
/// It grows evenly from a tenth, so that two that came up together stay equal and nobody waits for anybody.
pub fn share(warm: Duration, slow_start: Duration) -> u16 {
    let step = (warm.as_nanos() * STEPS).checked_div(slow_start.as_nanos());
    let step = step.map_or(STEPS, |step| step.min(STEPS));
    FIRST + (u128::from(FULL - FIRST) * step / STEPS) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn from_a_tenth_to_all() {
        let at = |seconds| share(Duration::from_secs(seconds), Duration::from_secs(32));
        assert_eq!(
            [at(0), at(16), at(31), at(32), at(1 << 40)],
            [25, 137, 242, 250, 250]
        );
        assert_eq!(share(Duration::ZERO, Duration::ZERO), FULL);
        assert!(
            u32::from(FULL) * 256 <= u32::from(u16::MAX),
            "the greatest weight fits"
        );
    }

    proptest! {
        /// Who came up later never takes more, and two that came up together take the same.
        #[test]
        fn later_is_less(slow_start in 1..100_000_u64, warm in 0..200_000_u64, later in 0..200_000_u64) {
            let at = |warm| share(Duration::from_millis(warm), Duration::from_millis(slow_start));
            prop_assert!(at(warm) >= at(warm.saturating_sub(later)));
            prop_assert!((FIRST..=FULL).contains(&at(warm)));
            prop_assert_eq!(at(warm) == FULL, warm >= slow_start);
        }
    }
}
