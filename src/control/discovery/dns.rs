//! The domain name system as a source: a name is asked for again whenever its time to live is over.
//! That there is no such name is an answer; that a server cannot tell is none, and never takes a backend away.
//! The walk goes on in `board.rs`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::{sleep, timeout};

use super::{Answer, MOST, Provider, Sink};
use crate::config::model::{self, AdminState, Backend, Records};

/// The longest time until a name is asked for again after a failure.
const RETRY: Duration = Duration::from_secs(30);
/// Targets of SRV records that are looked up; an answer with more is refused.
const MAX_TARGETS: usize = 256;
/// The greatest weight of a backend.
const MAX_WEIGHT: u32 = 256;

/// One name.
pub(super) struct Dns {
    settings: model::Dns,
    /// What each target of SRV records was last, while it is one.
    targets: HashMap<String, Vec<IpAddr>>,
    failures: u32,
}

/// Records of one type: what they say, and for how long.
struct Found<T> {
    values: Vec<T>,
    ttl: Duration,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    priority: u16,
    weight: u16,
    port: u16,
    target: String,
}

impl Provider for Dns {
    fn run(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.ask(sink))
    }
}

impl Dns {
    pub(super) fn new(settings: model::Dns) -> Self {
        Dns {
            settings,
            targets: HashMap::new(),
            failures: 0,
        }
    }

    async fn ask(mut self, sink: Sink) {
        let mut resolver = None;
        loop {
            // Made anew after a failure: /etc/resolv.conf may name others by now.
            let outcome = match resolver.take().map_or_else(|| self.resolver(), Ok) {
                Ok(own) => {
                    let outcome = self.round(&own).await;
                    resolver = outcome.is_ok().then_some(own);
                    outcome
                }
                Err(problem) => Err(problem),
            };
            let wait = match outcome {
                Ok((answer, ttl)) => {
                    self.failures = 0;
                    sink.report(answer);
                    ttl.clamp(self.settings.min_ttl, self.settings.max_ttl)
                }
                Err(problem) => {
                    sink.fail(problem);
                    self.after_failure()
                }
            };
            sleep(wait).await;
        }
    }

    /// The floor of the time to live at first, then longer each time.
    fn after_failure(&mut self) -> Duration {
        let longest = RETRY.min(self.settings.max_ttl);
        let wait = self.settings.min_ttl * 2u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        wait.min(longest).max(self.settings.min_ttl)
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let unusable = |error: NetError| format!("/etc/resolv.conf cannot be used: {error}");
        let mut builder = match self.settings.servers.as_slice() {
            [] => TokioResolver::builder_tokio().map_err(unusable)?,
            servers => {
                let servers = servers.iter().map(|server| name_server(*server));
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        // A datagram that is lost is sent once more within the time.
        options.timeout = self.settings.timeout / 2;
        options.attempts = 1;
        options.edns0 = true;
        // When to ask again is this file's to say.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map_err(unusable)
    }

    /// What the name leads to now, and for how long that holds.
    async fn round(&mut self, resolver: &TokioResolver) -> Result<(Answer, Duration), String> {
        let name = self.settings.name.clone();
        if self.settings.records == Records::Srv {
            return self.services(resolver, &name).await;
        }
        let found = self
            .addresses(resolver, &name, self.settings.records)
            .await?;
        let port = self.settings.port;
        let backends = found.values.iter().map(|ip| unnamed(*ip, port));
        let answer = Answer {
            backends: backends.collect(),
            ..Answer::default()
        };
        Ok((answer, found.ttl))
    }

    async fn services(
        &mut self,
        resolver: &TokioResolver,
        name: &str,
    ) -> Result<(Answer, Duration), String> {
        let found = self
            .lookup(resolver, name, RecordType::SRV, service)
            .await?;
        let services = preferred(found.values);
        let mut ttl = found.ttl;
        let mut targets: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut answer = Answer::default();
        for service in &services {
            if targets.contains_key(&service.target) {
                continue;
            }
            if targets.len() == MAX_TARGETS {
                return Err(format!("more than {MAX_TARGETS} targets"));
            }
            let target = &service.target;
            let addresses = match self.addresses(resolver, target, Records::Auto).await {
                Ok(found) => {
                    ttl = ttl.min(found.ttl);
                    found.values
                }
                Err(problem) => {
                    answer.problem = Some(format!("{target}: {problem}"));
                    let last = self.targets.get(target).cloned();
                    answer.is_partial |= last.is_none();
                    last.unwrap_or_default()
                }
            };
            targets.insert(target.clone(), addresses);
        }
        answer.backends = backends(&services, &targets);
        self.targets = targets.into_iter().collect();
        Ok((answer, ttl))
    }

    async fn addresses(
        &self,
        resolver: &TokioResolver,
        name: &str,
        records: Records,
    ) -> Result<Found<IpAddr>, String> {
        let v4 = || self.lookup(resolver, name, RecordType::A, address);
        let v6 = || self.lookup(resolver, name, RecordType::AAAA, address);
        match records {
            Records::A => v4().await,
            Records::Aaaa => v6().await,
            Records::Both => {
                let (v4, v6) = tokio::try_join!(v4(), v6())?;
                // The time of the one that is there: that the other is not may hold for long.
                let ttl = match (v4.values.is_empty(), v6.values.is_empty()) {
                    (false, true) => v4.ttl,
                    (true, false) => v6.ttl,
                    _ => v4.ttl.min(v6.ttl),
                };
                let values = [v4.values, v6.values].concat();
                Ok(Found { values, ttl })
            }
            Records::Auto | Records::Srv => {
                // Only that there are none leads on: a failure says nothing.
                let v4 = v4().await?;
                match v4.values.is_empty() {
                    true => v6().await,
                    false => Ok(v4),
                }
            }
        }
    }

    /// The records of a name; none, if it has none of that type or does not exist.
    async fn lookup<T>(
        &self,
        resolver: &TokioResolver,
        name: &str,
        kind: RecordType,
        read: fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, String> {
        let asked = timeout(self.settings.timeout, resolver.lookup(name, kind)).await;
        let Ok(asked) = asked else {
            return Err(format!("no answer within {:?}", self.settings.timeout));
        };
        let seconds = |ttl: u32| Duration::from_secs(ttl.into());
        match asked {
            Ok(lookup) => {
                let records = lookup.answers();
                let values: Vec<T> = records.iter().filter_map(|own| read(&own.data)).collect();
                if values.len() > MOST {
                    return Err(format!("{} records are more than {MOST}", values.len()));
                }
                let ttl = records.iter().map(|own| own.ttl).min();
                let ttl = seconds(ttl.unwrap_or_default());
                Ok(Found { values, ttl })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(Found {
                values: Vec::new(),
                ttl: seconds(none.negative_ttl.unwrap_or_default()),
            }),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                Err(format!("the name server says: {code}"))
            }
            Err(NetError::Timeout) => Err(format!("no answer within {:?}", self.settings.timeout)),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
    .filter(|address| !address.is_unspecified() && !address.is_multicast())
}

fn service(data: &RData) -> Option<Service> {
    let RData::SRV(srv) = data else {
        return None;
    };
    // A root target means that the service is decidedly not there.
    (!srv.target.is_root() && srv.port != 0).then(|| Service {
        priority: srv.priority,
        weight: srv.weight,
        port: srv.port,
        target: srv.target.to_lowercase().to_ascii(),
    })
}

/// Those of the most preferred priority, in an order that does not depend on the answer's.
fn preferred(mut services: Vec<Service>) -> Vec<Service> {
    let best = services.iter().map(|service| service.priority).min();
    services.retain(|service| Some(service.priority) == best);
    services.sort_by(|a, b| (&a.target, a.port).cmp(&(&b.target, b.port)));
    services.dedup_by(|a, b| a.target == b.target && a.port == b.port);
    services
}

/// The backends of SRV records. One is called by its target and port, so that it keeps its name when its address changes; of a target
/// with several addresses each is called by its own, since a name that leads to several servers names none.
fn backends(services: &[Service], targets: &BTreeMap<String, Vec<IpAddr>>) -> Vec<Backend> {
    let greatest = services.iter().map(|service| service.weight).max();
    let greatest = u32::from(greatest.unwrap_or_default()).max(1);
    let of_service = |service: &Service| {
        let addresses = targets.get(&service.target).map_or(&[][..], Vec::as_slice);
        let name = match addresses {
            [_] => Some(format!(
                "{}:{}",
                service.target.trim_end_matches('.'),
                service.port
            )),
            _ => None,
        };
        let weight = scaled(service.weight, greatest);
        let found = addresses.iter().map(|ip| {
            let backend = unnamed(*ip, service.port);
            let name = name.clone().filter(|name| is_name(name));
            let name = name.unwrap_or_else(|| backend.name.clone());
            Backend {
                route: name.clone(),
                name,
                weight,
                ..backend
            }
        });
        found.collect::<Vec<_>>()
    };
    services.iter().flat_map(of_service).collect()
}

fn is_name(name: &str) -> bool {
    crate::config::backend_name(name).is_ok()
}

/// A weight of an SRV record as a backend's: as it is while all fit, else in proportion.
fn scaled(weight: u16, greatest: u32) -> u16 {
    let weight = match greatest {
        0..=MAX_WEIGHT => u32::from(weight),
        _ => u32::from(weight) * MAX_WEIGHT / greatest,
    };
    u16::try_from(weight.max(1)).unwrap_or(u16::MAX)
}

/// A backend that is called by its address.
fn unnamed(ip: IpAddr, port: u16) -> Backend {
    let address = SocketAddr::new(ip, port);
    Backend {
        name: address.to_string(),
        route: address.to_string(),
        address,
        weight: 1,
        state: AdminState::Ready,
        discovered: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> Service {
        Service {
            priority,
            weight,
            port,
            target: target.to_owned(),
        }
    }

    fn shown(services: Vec<Service>, targets: &[(&str, &[&str])]) -> Vec<String> {
        let targets = targets.iter().map(|(target, addresses)| {
            let addresses = addresses
                .iter()
                .map(|text| text.parse().expect("an address"));
            ((*target).to_owned(), addresses.collect())
        });
        let backends = backends(&preferred(services), &targets.collect());
        let one = |own: &Backend| format!("{} {} {}", own.name, own.address, own.weight);
        backends.iter().map(one).collect()
    }

    #[test]
    fn a_target_names_its_backend_while_it_has_one_address() {
        let services = vec![
            record(1, 0, 81, "b.x."),
            record(1, 0, 80, "a.x."),
            record(1, 5, 80, "b.x."),
            record(1, 5, 80, "b.x."),
        ];
        let targets: [(&str, &[&str]); 2] =
            [("a.x.", &["10.0.0.1"]), ("b.x.", &["10.0.0.2", "10.0.0.3"])];
        let told = [
            "a.x:80 10.0.0.1:80 1",
            "10.0.0.2:80 10.0.0.2:80 5",
            "10.0.0.3:80 10.0.0.3:80 5",
            "10.0.0.2:81 10.0.0.2:81 1",
            "10.0.0.3:81 10.0.0.3:81 1",
        ];
        assert_eq!(shown(services, &targets), told);
    }

    #[test]
    fn only_the_best_priority_counts_and_great_weights_are_scaled() {
        let services = vec![
            record(20, 9, 80, "c."),
            record(10, 60_000, 80, "a."),
            record(10, 30_000, 80, "b."),
            record(10, 0, 80, "d."),
        ];
        let targets: [(&str, &[&str]); 4] = [
            ("a.", &["10.0.0.1"]),
            ("b.", &["10.0.0.2"]),
            ("c.", &["10.0.0.3"]),
            ("d.", &["::1"]),
        ];
        let told = [
            "a:80 10.0.0.1:80 256",
            "b:80 10.0.0.2:80 128",
            "d:80 [::1]:80 1",
        ];
        assert_eq!(shown(services, &targets), told);
    }

    #[test]
    fn failures_are_asked_again_ever_later() {
        let mut dns = Dns::new(model::Dns {
            name: "a".into(),
            records: Records::Auto,
            port: 80,
            servers: Vec::new(),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(60),
            timeout: Duration::from_secs(2),
        });
        let waits = [(); 8].map(|()| dns.after_failure().as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
