//! Flows: which datagrams belong together, for how long, and whose flow ends when there are too many. UDP knows none of this.
//! It holds no socket and reads no clock: who drives it says what came and when, and is told what ended. Nothing here is more than a few steps.
//! The walk goes on in `udp.rs`, which drives it; `flow/table.rs` is what it is made of.

mod table;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use table::{Place, Table};

pub use crate::metrics::datagrams::FlowEnd as End;
use crate::net::proxy_protocol::Ends;

/// How long a flow with all of its answers stays, so that a busy client keeps one flow for many requests.
pub const LINGER: Duration = Duration::from_secs(1);

/// Of so many flows one place is kept for new clients, however many have come back.
const NEWCOMERS: usize = 8;

/// Flows that a table may have at most.
const MOST: usize = 1 << 24;

/// What tells flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who sends, and gets the answers.
    pub sender: SocketAddr,
    /// The address that it sends to, where the listener takes datagrams for several.
    pub local: Option<IpAddr>,
    /// Whose datagrams they are, and where to, where the sender is a proxy that says so: those of its clients are told apart.
    pub announced: Option<Ends>,
}

impl FlowKey {
    /// The client's address and port.
    pub fn client(&self) -> SocketAddr {
        self.announced.map_or(self.sender, |ends| ends.source)
    }
}

/// A flow of a table, as long as it lasts. The same number never stands for another flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(Place);

/// What flows of a table obey; may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a flow may be silent in both directions.
    pub idle: Duration,
    /// How many datagrams answer one of the client's; absent: nobody knows.
    pub replies: Option<u32>,
}

/// What went by way of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams from the client.
    pub datagrams_in: u64,
    /// Datagrams to the client.
    pub datagrams_out: u64,
    /// Bytes of data from the client.
    pub bytes_in: u64,
    /// Bytes of data to the client.
    pub bytes_out: u64,
}

/// A flow that is over.
#[derive(Debug)]
pub struct Ended<T> {
    /// Whose it was.
    pub key: FlowKey,
    /// What was kept with it.
    pub value: T,
    /// What went by way of it.
    pub traffic: Traffic,
    /// When it began.
    pub opened: Instant,
    /// When it was last used.
    pub last: Instant,
    /// Why it is over.
    pub end: End,
}

/// What is known of a client: whoever knows less of its flow loses it first. The address of a datagram can be forged, and then its
/// owner never answers what comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    /// Every request had its answers: nothing is lost with it.
    Done,
    /// The client sent once. Whether it was answered says nothing of it: if those who were stayed for longer, a flood that goes round would find
    /// its own flows again and pass for clients.
    Once,
    /// The client sent again, and nothing tells whether it hears: some protocols have no answers.
    Repeated,
    /// The client sent again after an answer: it is there.
    Returned,
}

const STANDINGS: [Standing; 4] = [
    Standing::Done,
    Standing::Once,
    Standing::Repeated,
    Standing::Returned,
];

/// A bounded table of flows, each with a `T` of its driver's.
#[derive(Debug)]
pub struct Flows<T> {
    most: usize,
    rules: Rules,
    /// A queue for each standing; within one the flow that was silent for longest is first.
    table: Table<FlowKey, Flow<T>, { STANDINGS.len() }>,
}

#[derive(Debug)]
struct Flow<T> {
    value: T,
    traffic: Traffic,
    opened: Instant,
    last: Instant,
    /// Answers that are still to come.
    awaited: u32,
    standing: Standing,
}

impl FlowId {
    /// As a number, for a poll of sockets.
    pub fn to_bits(self) -> u64 {
        u64::from(self.0.slot) << 32 | u64::from(self.0.serial)
    }

    /// The flow of a number.
    pub fn from_bits(bits: u64) -> FlowId {
        FlowId(Place {
            slot: (bits >> 32) as u32,
            serial: bits as u32,
        })
    }
}

impl<T> Flows<T> {
    /// A table of at most `most` flows, of which there may be one at least. Its memory is the system's until it is used.
    pub fn new(most: usize, rules: Rules) -> Self {
        let most = most.clamp(1, MOST);
        Flows {
            most,
            rules,
            table: Table::new(most),
        }
    }

    /// Other rules, for the flows that there are, too.
    pub fn obey(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// From now on at most `most` flows, of which there may be no more yet.
    pub fn resize(&mut self, most: usize) {
        let most = most.clamp(self.len().max(1), MOST);
        if std::mem::replace(&mut self.most, most) != most {
            self.table.resize(most);
        }
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a further flow ends another one.
    pub fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// The flow that a datagram from a client belongs to.
    pub fn find(&self, key: &FlowKey) -> Option<FlowId> {
        self.table.find(key).map(FlowId)
    }

    /// What is kept with a flow; `None` when it is over.
    pub fn get(&self, id: FlowId) -> Option<&T> {
        self.table.get(id.0).map(|(_, flow)| &flow.value)
    }

    /// Whose flow it is; `None` when it is over.
    pub fn key(&self, id: FlowId) -> Option<FlowKey> {
        self.table.get(id.0).map(|(key, _)| *key)
    }

    /// Begins a flow, which [`find`](Self::find) must not know yet, before its first datagram is told of. A full table gives one
    /// up for it, which is told.
    pub fn open(&mut self, key: FlowKey, value: T, now: Instant) -> (FlowId, Option<Ended<T>>) {
        let evicted = match self.is_full() {
            true => self.evict(),
            false => None,
        };
        let flow = Flow {
            value,
            traffic: Traffic::default(),
            opened: now,
            last: now,
            awaited: 0,
            standing: Standing::Once,
        };
        let place = self.table.insert(key, flow, Standing::Once as usize);
        (FlowId(place), evicted)
    }

    /// So many datagrams with so many bytes together came from the client.
    pub fn sent(&mut self, id: FlowId, datagrams: u32, bytes: usize, now: Instant) {
        let awaits = self.rules.replies.unwrap_or(0).saturating_mul(datagrams);
        self.change(id, now, |flow| {
            if flow.traffic.datagrams_out > 0 {
                flow.standing = Standing::Returned;
            } else if flow.traffic.datagrams_in > 0 {
                flow.standing = Standing::Repeated;
            }
            flow.traffic.datagrams_in += u64::from(datagrams);
            flow.traffic.bytes_in += bytes as u64;
            flow.awaited = flow.awaited.saturating_add(awaits);
        });
    }

    /// So many datagrams with so many bytes together came from the backend.
    pub fn answered(&mut self, id: FlowId, datagrams: u32, bytes: usize, now: Instant) {
        let counts = self.rules.replies.is_some();
        self.change(id, now, |flow| {
            flow.traffic.datagrams_out += u64::from(datagrams);
            flow.traffic.bytes_out += bytes as u64;
            flow.awaited = flow.awaited.saturating_sub(datagrams);
            if counts && flow.awaited == 0 {
                flow.standing = Standing::Done;
            }
        });
    }

    /// Ends a flow that was silent for as long as it may, if there is one; to be asked until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<Ended<T>> {
        let idle = self.rules.idle;
        self.end_first(now, |standing, silent| match standing {
            Standing::Done => (silent >= idle.min(LINGER)).then_some(End::Answered),
            _ => (silent >= idle).then_some(End::Idle),
        })
    }

    /// The same where clients are not heard any more: ends a flow that has all of its answers, or was silent for so long that none is on
    /// its way.
    pub fn conclude(&mut self, now: Instant) -> Option<Ended<T>> {
        let most = self.rules.idle.min(LINGER);
        self.end_first(now, |standing, silent| {
            (standing == Standing::Done || silent >= most).then_some(End::Closed)
        })
    }

    /// Ends the flow that is missed least.
    pub fn evict(&mut self) -> Option<Ended<T>> {
        let [.., repeated, returned] = STANDINGS;
        let known = [repeated, returned].map(|standing| self.table.queued(standing as usize));
        let order = match known[0] + known[1] > self.most - self.most / NEWCOMERS {
            // Newcomers keep their part.
            true => &[Standing::Done, repeated, returned][..],
            false => &STANDINGS,
        };
        let first = order.iter().find_map(|&standing| self.first(standing))?;
        self.take(first, End::Evicted)
    }

    /// Ends a flow; `None` when it is over already.
    pub fn close(&mut self, id: FlowId, end: End) -> Option<Ended<T>> {
        self.take(id.0, end)
    }

    /// Ends any flow; to be asked until there is none.
    pub fn close_any(&mut self) -> Option<Ended<T>> {
        let first = STANDINGS
            .iter()
            .find_map(|&standing| self.first(standing))?;
        self.take(first, End::Closed)
    }

    /// Ends a flow of which its standing and its silence are a reason.
    fn end_first(
        &mut self,
        now: Instant,
        reason: impl Fn(Standing, Duration) -> Option<End>,
    ) -> Option<Ended<T>> {
        for standing in STANDINGS {
            if let Some(place) = self.first(standing)
                && let Some((_, flow)) = self.table.get(place)
                && let Some(end) = reason(standing, now.saturating_duration_since(flow.last))
            {
                return self.take(place, end);
            }
        }
        None
    }

    /// The flow of a standing that was silent for longest.
    fn first(&self, standing: Standing) -> Option<Place> {
        self.table.first(standing as usize)
    }

    /// Something happened on a flow that makes it the last of its queue, or of another.
    fn change(&mut self, id: FlowId, now: Instant, change: impl FnOnce(&mut Flow<T>)) {
        self.table.change(id.0, |flow| {
            flow.last = now;
            change(flow);
            flow.standing as usize
        });
    }

    fn take(&mut self, place: Place, end: End) -> Option<Ended<T>> {
        let (key, flow) = self.table.remove(place)?;
        Some(Ended {
            key,
            value: flow.value,
            traffic: flow.traffic,
            opened: flow.opened,
            last: flow.last,
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    const RULES: Rules = Rules {
        idle: IDLE,
        replies: None,
    };

    fn key(number: u32) -> FlowKey {
        FlowKey {
            sender: (Ipv4Addr::from_bits(0x7f00_0000 | number), 4000).into(),
            local: None,
            announced: None,
        }
    }

    /// A client's datagram: its flow is made if need be.
    fn send(flows: &mut Flows<u32>, number: u32, now: Instant) -> FlowId {
        let id = match flows.find(&key(number)) {
            Some(id) => id,
            None => flows.open(key(number), number, now).0,
        };
        flows.sent(id, 1, 10, now);
        id
    }

    #[test]
    fn a_flow_ends_when_it_is_silent_for_long_enough() {
        let start = Instant::now();
        let mut flows = Flows::new(10, RULES);
        let one = send(&mut flows, 1, start);
        let two = send(&mut flows, 2, start);
        flows.answered(one, 2, 300, start + IDLE / 2);
        let ended = flows.expire(start + IDLE).expect("two is over");
        assert_eq!((ended.value, ended.end), (2, End::Idle));
        assert_eq!((flows.get(two), flows.find(&key(2))), (None, None));
        assert!(flows.expire(start + IDLE).is_none());
        let ended = flows.expire(start + IDLE * 3 / 2).expect("one is over");
        let traffic = Traffic {
            datagrams_in: 1,
            datagrams_out: 2,
            bytes_in: 10,
            bytes_out: 300,
        };
        assert_eq!((ended.traffic, ended.opened), (traffic, start));
        assert!(flows.is_empty());
    }

    #[test]
    fn a_number_stands_for_one_flow_only() {
        let now = Instant::now();
        let mut flows = Flows::new(1, RULES);
        let one = send(&mut flows, 1, now);
        let (two, evicted) = flows.open(key(2), 2, now);
        assert_eq!(
            evicted.map(|ended| (ended.value, ended.end)),
            Some((1, End::Evicted))
        );
        assert_eq!(one.0.slot, two.0.slot);
        assert_eq!((flows.get(one), flows.get(two)), (None, Some(&2)));
        assert!(flows.close(one, End::Refused).is_none());
        flows.answered(one, 1, 1, now);
        assert_eq!(FlowId::from_bits(two.to_bits()), two);
        assert_eq!(
            flows.close(two, End::Refused).map(|ended| ended.end),
            Some(End::Refused)
        );
        assert!(flows.close_any().is_none());
    }

    #[test]
    fn an_answered_flow_lingers_for_the_next_request() {
        let start = Instant::now();
        let rules = Rules {
            replies: Some(2),
            ..RULES
        };
        let mut flows = Flows::new(10, rules);
        let id = send(&mut flows, 1, start);
        flows.answered(id, 1, 5, start);
        assert!(flows.expire(start + LINGER).is_none(), "one is to come");
        flows.answered(id, 1, 5, start);
        send(&mut flows, 1, start + LINGER / 2);
        assert!(
            flows.expire(start + LINGER * 2).is_none(),
            "two are to come"
        );
        flows.answered(id, 2, 5, start + LINGER * 2);
        let ended = flows.expire(start + LINGER * 3);
        assert_eq!(ended.map(|ended| ended.end), Some(End::Answered));
    }

    #[test]
    fn where_clients_are_not_heard_only_awaited_answers_are_waited_for() {
        let start = Instant::now();
        let rules = Rules {
            replies: Some(1),
            ..RULES
        };
        let mut flows = Flows::new(10, rules);
        let done = send(&mut flows, 1, start);
        flows.answered(done, 1, 5, start);
        let awaited = send(&mut flows, 2, start);
        let mut conclude = |now| flows.conclude(now).map(|ended| (ended.value, ended.end));
        assert_eq!(conclude(start), Some((1, End::Closed)));
        assert_eq!(conclude(start + LINGER / 2), None);
        assert_eq!(conclude(start + LINGER), Some((2, End::Closed)));
        assert_eq!(flows.get(awaited), None);
    }

    /// The backend answers everybody, so that only who comes back can be told from who was made up.
    #[test]
    fn a_flood_of_strangers_ends_no_quiet_clients_flow() {
        let now = Instant::now();
        let mut flows = Flows::new(1000, RULES);
        for quiet in 0..500 {
            for _ in 0..2 {
                let id = send(&mut flows, quiet, now);
                flows.answered(id, 1, 10, now);
            }
        }
        for stranger in 1000..101_000 {
            let id = send(&mut flows, stranger, now + IDLE / 2);
            if stranger % 2 == 0 {
                flows.answered(id, 1, 10, now + IDLE / 2);
            }
            assert!(flows.len() <= 1000);
        }
        assert!((0..500).all(|quiet| flows.find(&key(quiet)).is_some()));
    }

    /// Addresses that come again in every round are strangers as long as there are more of them than places. Of one in 22, all that are answered
    /// would fit beside the quiet clients.
    #[test]
    fn a_flood_that_goes_round_ends_no_quiet_clients_flow() {
        let now = Instant::now();
        for answered in [1, 3, 22] {
            let mut flows = Flows::new(1000, RULES);
            for client in (0..500)
                .chain(0..500)
                .chain((1000..11_000).cycle().take(50_000))
            {
                let id = send(&mut flows, client, now);
                if client % answered == 0 || client < 500 {
                    flows.answered(id, 1, 10, now);
                }
            }
            assert!(
                (0..500).all(|quiet| flows.find(&key(quiet)).is_some()),
                "one of {answered} answered"
            );
        }
    }

    /// There are no answers to tell who is there: who sent more than once is believed more than who did not.
    #[test]
    fn a_flood_of_strangers_ends_no_flow_without_answers() {
        let now = Instant::now();
        let mut flows = Flows::new(1000, RULES);
        for client in (0..500).chain(0..500).chain(1000..101_000) {
            send(&mut flows, client, now);
        }
        assert!((0..500).all(|quiet| flows.find(&key(quiet)).is_some()));
        // Yet who is proven to be there stays, when others only claim it.
        let mut flows = Flows::new(1000, RULES);
        for client in 0..500 {
            let id = send(&mut flows, client, now);
            flows.answered(id, 1, 10, now);
            send(&mut flows, client, now);
        }
        for client in 1000..101_000 {
            send(&mut flows, client, now);
            send(&mut flows, client, now);
        }
        assert!((0..500).all(|quiet| flows.find(&key(quiet)).is_some()));
        assert_eq!(flows.len(), 1000);
    }

    /// Whose datagrams they are tells flows of one sender apart.
    #[test]
    fn clients_of_one_proxy_have_flows_of_their_own() {
        let now = Instant::now();
        let mut flows = Flows::new(10, RULES);
        let of = |client: u32, destination: u32| FlowKey {
            announced: Some(Ends {
                source: key(client).sender,
                destination: key(destination).sender,
            }),
            ..key(1)
        };
        let keys = [key(1), of(1, 8), of(2, 8), of(2, 9)];
        let ids = keys.map(|key| flows.open(key, 0, now).0);
        for (key, id) in keys.iter().zip(ids) {
            assert_eq!((flows.find(key), flows.key(id)), (Some(id), Some(*key)));
        }
        assert_eq!(keys[2].client(), key(2).sender);
        assert_eq!(key(2).client(), key(2).sender);
    }

    /// What happens around clients that have come back.
    #[derive(Clone, Debug)]
    enum Event {
        /// So many strangers come once; every so many of them are answered.
        Flood(u32, u32),
        /// A client sends, and maybe is answered.
        Speak(u32, bool),
        /// So many milliseconds pass.
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1..200_u32, 1..4_u32).prop_map(|(strangers, part)| Event::Flood(strangers, part)),
            (0..56_u32, any::<bool>()).prop_map(|(client, answer)| Event::Speak(client, answer)),
            (0..100_u64).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Those that came back, as many as the table has places for them, keep their flows whatever strangers do, and whether or not there
        /// are answers; the table never grows.
        #[test]
        fn who_came_back_stays(answers: bool, events in proptest::collection::vec(event(), 1..100)) {
            let mut now = Instant::now();
            let mut flows = Flows::new(64, RULES);
            let mut stranger = 1000;
            for client in (0..56).chain(0..56) {
                let id = send(&mut flows, client, now);
                if answers {
                    flows.answered(id, 1, 1, now);
                }
            }
            let wanted: Vec<_> = (0..56).map(|client| flows.find(&key(client))).collect();
            for event in events {
                match event {
                    Event::Flood(strangers, part) => for _ in 0..strangers {
                        stranger += 1;
                        let id = send(&mut flows, stranger, now);
                        if stranger % part == 0 {
                            flows.answered(id, 1, 1, now);
                        }
                    },
                    Event::Speak(client, answer) => {
                        let id = send(&mut flows, client, now);
                        if answer {
                            flows.answered(id, 1, 1, now);
                        }
                    }
                    Event::Pass(millis) => now += Duration::from_millis(millis),
                }
                prop_assert!(flows.len() <= 64);
            }
            let kept: Vec<_> = (0..56).map(|client| flows.find(&key(client))).collect();
            prop_assert_eq!(kept, wanted);
        }
    }

    /// However many came back once: who comes now gets a place for long enough to come back, too.
    #[test]
    fn newcomers_keep_a_part_of_the_table() {
        let now = Instant::now();
        let mut flows = Flows::new(80, RULES);
        for client in 0..80 {
            let id = send(&mut flows, client, now);
            flows.answered(id, 1, 10, now);
            send(&mut flows, client, now);
        }
        for client in 100..110 {
            send(&mut flows, client, now);
        }
        assert!((100..110).all(|client| flows.find(&key(client)).is_some()));
        for client in 200..1000 {
            send(&mut flows, client, now);
        }
        let kept = (0..80).filter(|client| flows.find(&key(*client)).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), (10..80).collect::<Vec<_>>());
    }
}
