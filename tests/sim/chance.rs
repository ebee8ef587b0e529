//! Chance, all of it from the seed of the story.
//! The generator is weir's own, since that is pure too.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use weir::rng::Rng;

#[derive(Debug)]
pub struct Chance(RefCell<Rng>);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(RefCell::new(Rng::from_seed(seed)))
    }

    /// Another generator, whose numbers do not hang on how often this one is asked.
    pub fn fork(&self) -> Rng {
        Rng::from_seed(self.0.borrow_mut().next_u64())
    }

    pub fn below(&self, bound: usize) -> usize {
        self.0.borrow_mut().below(bound as u32) as usize
    }

    pub fn within(&self, range: Range<usize>) -> usize {
        range.start + self.below(range.len())
    }

    pub fn one_in(&self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub fn millis(&self, range: Range<usize>) -> Duration {
        Duration::from_millis(self.within(range) as u64)
    }

    pub fn seconds(&self, range: Range<usize>) -> Duration {
        self.millis(range.start * 1000..range.end * 1000)
    }
}
