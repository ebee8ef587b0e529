//! A waiting line: who waits, since when, and whose turn is next.
//! It reads no clock, wakes nobody and knows nothing of what is waited for.
//! The walk goes back to `upstream/queue.rs`, which keeps one for each pool and worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::model::QueueOrder;

/// A line stands when somebody has waited for so long.
///
/// A burst is worked off in less; a line that stands is one that does not get shorter by itself (Nichols and Jacobson, "Controlling Queue
/// Delay", 2012: the interval of CoDel). Who came first then waits in vain: he gives up before his answer comes, and so does everybody
/// behind him. Who comes last is served in time (Maurer, "Fail at Scale", 2015: adaptive LIFO).
pub const STANDING: Duration = Duration::from_millis(100);

/// Who waits.
#[derive(Debug)]
pub struct Line<T> {
    order: QueueOrder,
    next: u64,
    waiting: BTreeMap<u64, (Instant, T)>,
}

/// A place in the line, for as long as nobody leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl<T> Line<T> {
    /// An empty line.
    pub fn new(order: QueueOrder) -> Line<T> {
        Line {
            order,
            next: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Takes the last place.
    pub fn join(&mut self, who: T, now: Instant) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.insert(ticket.0, (now, who));
        ticket
    }

    /// Leaves a place.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket.0).map(|(_, who)| who)
    }

    /// Who waits there.
    pub fn at(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.waiting.get_mut(&ticket.0).map(|(_, who)| who)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether who came last is next.
    pub fn is_turned(&self, now: Instant) -> bool {
        let oldest = self.waiting.first_key_value().map(|(_, (since, _))| *since);
        let stands = |since| now.saturating_duration_since(since) >= STANDING;
        self.order == QueueOrder::AdaptiveLifo && oldest.is_some_and(stands)
    }

    /// The first in turn of those that are wanted; with `behind` of those behind that one.
    pub fn first(
        &mut self,
        behind: Option<Ticket>,
        now: Instant,
        wanted: impl Fn(&T) -> bool,
    ) -> Option<&mut T> {
        let wanted = |(_, (_, who)): &(&u64, &mut (Instant, T))| wanted(who);
        let found = match (self.is_turned(now), behind) {
            (false, None) => self.waiting.iter_mut().find(wanted),
            (false, Some(Ticket(own))) => self.waiting.range_mut(own + 1..).find(wanted),
            (true, None) => self.waiting.iter_mut().rev().find(wanted),
            (true, Some(Ticket(own))) => self.waiting.range_mut(..own).rev().find(wanted),
        };
        found.map(|(_, (_, who))| who)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(line: &mut Line<u32>, now: Instant) -> Option<u32> {
        line.first(None, now, |_| true).copied()
    }

    #[test]
    fn first_come_is_first_served_unless_the_line_stands() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut fifo = Line::new(QueueOrder::Fifo);
        let mut adaptive = Line::new(QueueOrder::AdaptiveLifo);
        for line in [&mut fifo, &mut adaptive] {
            let tickets: Vec<Ticket> = (0..3)
                .map(|who| line.join(who, after(who.into())))
                .collect();
            assert_eq!(next(line, after(99)), Some(0));
            assert_eq!(
                line.first(Some(tickets[0]), after(99), |_| true),
                Some(&mut 1)
            );
        }
        assert_eq!(next(&mut fifo, after(5000)), Some(0));
        assert_eq!(next(&mut adaptive, after(100)), Some(2));
        assert_eq!(
            adaptive.first(Some(Ticket(2)), after(100), |_| true),
            Some(&mut 1)
        );
        assert_eq!(adaptive.first(Some(Ticket(0)), after(100), |_| true), None);
        // Without the one that waited so long it does not stand any more.
        assert_eq!(adaptive.leave(Ticket(0)), Some(0));
        assert_eq!(next(&mut adaptive, after(100)), Some(1));
        assert_eq!(adaptive.leave(Ticket(0)), None);
    }

    proptest! {
        /// As a list would do it.
        #[test]
        fn nobody_is_lost_or_passed_over(
            steps in proptest::collection::vec((0..3_u8, any::<proptest::sample::Index>(), 0..60_u64), 1..80),
            adaptive in any::<bool>(),
        ) {
            let order = if adaptive { QueueOrder::AdaptiveLifo } else { QueueOrder::Fifo };
            let (mut line, mut list) = (Line::new(order), Vec::new());
            let mut now = Instant::now();
            for (number, (step, index, passed)) in (0..).zip(steps) {
                now += Duration::from_millis(passed);
                match step {
                    0 | 1 => list.push((line.join(number, now), now, number)),
                    _ if list.is_empty() => {}
                    _ => {
                        let (ticket, _, number) = list.remove(index.index(list.len()));
                        prop_assert_eq!(line.leave(ticket), Some(number));
                    }
                }
                let stands = adaptive && list.first().is_some_and(|(_, since, _)| now - *since >= STANDING);
                let expected = if stands { list.last() } else { list.first() };
                prop_assert_eq!(next(&mut line, now), expected.map(|(.., number)| *number));
                let odd = |(.., number): &&(Ticket, Instant, u32)| number % 2 == 1;
                let expected = if stands { list.iter().rev().find(odd) } else { list.iter().find(odd) };
                let found = line.first(None, now, |number| number % 2 == 1).copied();
                prop_assert_eq!(found, expected.map(|(.., number)| *number));
                prop_assert_eq!(line.is_empty(), list.is_empty());
            }
        }
    }
}
