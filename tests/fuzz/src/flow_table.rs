//! The table of UDP flows against a list that is searched by walking: the same flows live, the same end, and for the same reason,
//! whatever comes when; it never has more than it may.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use weir::l4::flow::{End, FlowId, FlowKey, Flows, LINGER, Rules, Traffic};
use weir::net::proxy_protocol::Ends;

pub fn run(bytes: &[u8]) {
    // An input that is too short stands for its beginning.
    let _ = flows(&mut Unstructured::new(bytes));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Done,
    Once,
    Repeated,
    Returned,
}

/// A flow of the list; the list is in the order of last use.
#[derive(Debug)]
struct Plain {
    id: FlowId,
    key: FlowKey,
    value: u32,
    traffic: Traffic,
    awaited: u64,
    standing: Standing,
    last: Instant,
}

struct Model {
    most: usize,
    rules: Rules,
    flows: Vec<Plain>,
}

impl Model {
    fn at(&self, key: FlowKey) -> Option<usize> {
        self.flows.iter().position(|flow| flow.key == key)
    }

    /// Moves a flow to the end of the list.
    fn touch(&mut self, at: usize, now: Instant) -> &mut Plain {
        let mut flow = self.flows.remove(at);
        flow.last = now;
        self.flows.push(flow);
        self.flows.last_mut().expect("it was just pushed")
    }

    fn victim(&self) -> usize {
        let oldest = |standing| self.flows.iter().position(|flow| flow.standing == standing);
        let came_back =
            |flow: &&Plain| matches!(flow.standing, Standing::Repeated | Standing::Returned);
        let crowded = self.flows.iter().filter(came_back).count() > self.most - self.most / 8;
        let order = match crowded {
            true => [
                Standing::Done,
                Standing::Repeated,
                Standing::Returned,
                Standing::Once,
            ],
            false => [
                Standing::Done,
                Standing::Once,
                Standing::Repeated,
                Standing::Returned,
            ],
        };
        let victim = order.into_iter().find_map(oldest);
        victim.expect("a full table has one")
    }

    fn is_over(&self, flow: &Plain, now: Instant) -> bool {
        let idle = self.rules.idle;
        let most = match flow.standing {
            Standing::Done => idle.min(LINGER),
            _ => idle,
        };
        now - flow.last >= most
    }
}

fn key(input: &mut Unstructured<'_>) -> Result<FlowKey> {
    let number = input.int_in_range(0..=40_u8)?;
    let port = 4000 + u16::from(number % 3);
    let sender: SocketAddr = match number % 2 {
        0 => (Ipv4Addr::new(192, 0, 2, number), port).into(),
        _ => (Ipv6Addr::from_bits(u128::from(number) << 64), port).into(),
    };
    let local = (number > 30).then(|| Ipv4Addr::new(127, 0, 0, number).into());
    // Clients of a proxy, by their ports.
    let announced = match input.int_in_range(0..=7_u16)? {
        0..=4 => None,
        port => Some(Ends {
            source: (Ipv4Addr::new(198, 51, 100, 1), port).into(),
            destination: sender,
        }),
    };
    Ok(FlowKey {
        sender,
        local,
        announced,
    })
}

fn rules(input: &mut Unstructured<'_>) -> Result<Rules> {
    Ok(Rules {
        idle: Duration::from_millis(input.int_in_range(1..=5000)?),
        replies: Option::<u8>::arbitrary(input)?.map(u32::from),
    })
}

fn flows(input: &mut Unstructured<'_>) -> Result<()> {
    let most = input.int_in_range(1..=20)?;
    let rules_now = rules(input)?;
    let mut flows = Flows::new(most, rules_now);
    let mut model = Model {
        most,
        rules: rules_now,
        flows: Vec::new(),
    };
    let mut now = Instant::now();
    let mut values = 0..;
    while !input.is_empty() {
        match input.int_in_range(0..=9)? {
            0..=3 => {
                let value = values.next().expect("numbers without end");
                sent(
                    &mut flows,
                    &mut model,
                    key(input)?,
                    u8::arbitrary(input)?,
                    (value, now),
                );
            }
            4..=6 => answered(
                &mut flows,
                &mut model,
                key(input)?,
                u8::arbitrary(input)?,
                now,
            ),
            7 => {
                now += Duration::from_millis(input.int_in_range(0..=3000)?);
                expire(&mut flows, &mut model, now);
            }
            8 => {
                let key = key(input)?;
                let closed = flows
                    .find(&key)
                    .and_then(|id| flows.close(id, End::Refused));
                let wanted = model.at(key).map(|at| model.flows.remove(at).value);
                assert_eq!(closed.map(|ended| ended.value), wanted);
            }
            _ => {
                model.rules = rules(input)?;
                flows.obey(model.rules);
            }
        }
        agree(&flows, &model);
    }
    while let Some(ended) = flows.close_any() {
        let at = model.at(ended.key).expect("the list has it");
        assert_eq!(model.flows.remove(at).traffic, ended.traffic);
    }
    assert!(model.flows.is_empty());
    Ok(())
}

fn sent(
    flows: &mut Flows<u32>,
    model: &mut Model,
    key: FlowKey,
    datagrams: u8,
    (value, now): (u32, Instant),
) {
    let found = flows.find(&key);
    assert_eq!(found, model.at(key).map(|at| model.flows[at].id));
    let id = match found {
        Some(id) => id,
        None => {
            let wanted = (model.flows.len() == model.most).then(|| {
                let victim = model.victim();
                model.flows.remove(victim).value
            });
            let (id, evicted) = flows.open(key, value, now);
            assert_eq!(evicted.map(|ended| ended.value), wanted);
            model.flows.push(Plain {
                id,
                key,
                value,
                traffic: Traffic::default(),
                awaited: 0,
                standing: Standing::Once,
                last: now,
            });
            id
        }
    };
    flows.sent(id, datagrams.into(), 7, now);
    let replies = u64::from(model.rules.replies.unwrap_or(0));
    let at = model.at(key).expect("the list has it");
    let flow = model.touch(at, now);
    if flow.traffic.datagrams_out > 0 {
        flow.standing = Standing::Returned;
    } else if flow.traffic.datagrams_in > 0 {
        flow.standing = Standing::Repeated;
    }
    flow.traffic.datagrams_in += u64::from(datagrams);
    flow.traffic.bytes_in += 7;
    flow.awaited += replies * u64::from(datagrams);
}

fn answered(flows: &mut Flows<u32>, model: &mut Model, key: FlowKey, datagrams: u8, now: Instant) {
    let Some(id) = flows.find(&key) else {
        return;
    };
    flows.answered(id, datagrams.into(), 9, now);
    let counts = model.rules.replies.is_some();
    let at = model.at(key).expect("the list has it");
    let flow = model.touch(at, now);
    flow.traffic.datagrams_out += u64::from(datagrams);
    flow.traffic.bytes_out += 9;
    flow.awaited = flow.awaited.saturating_sub(datagrams.into());
    if counts && flow.awaited == 0 {
        flow.standing = Standing::Done;
    }
}

fn expire(flows: &mut Flows<u32>, model: &mut Model, now: Instant) {
    while let Some(ended) = flows.expire(now) {
        let at = model.at(ended.key).expect("the list has it");
        let flow = model.flows.remove(at);
        assert!(model.is_over(&flow, now), "{ended:?} ended too early");
        let is_done = flow.standing == Standing::Done;
        assert_eq!(ended.end, if is_done { End::Answered } else { End::Idle });
        assert_eq!((ended.traffic, ended.last), (flow.traffic, flow.last));
    }
    assert!(!model.flows.iter().any(|flow| model.is_over(flow, now)));
}

fn agree(flows: &Flows<u32>, model: &Model) {
    assert_eq!(flows.len(), model.flows.len());
    assert!(flows.len() <= model.most);
    for flow in &model.flows {
        assert_eq!(flows.find(&flow.key), Some(flow.id));
        assert_eq!(flows.get(flow.id), Some(&flow.value));
        assert_eq!(flows.key(flow.id), Some(flow.key));
    }
}
