//! A row of the table: the figures of one fleet, and how they are printed.
//! It must round for the reader only: the figures stay exact.
//! Read `course.rs` for where they come from.

use std::time::Duration;

/// What one fleet showed.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The fleet's name.
    pub name: &'static str,
    /// `sessions` of weir's route.
    pub sessions: &'static str,
    /// Clients that logged in.
    pub clients: usize,
    /// Clients whose home was killed.
    pub orphans: usize,
    /// Sessions lost at the kill.
    pub sessions_lost: u64,
    /// What `weir_sticky_total{result="lost"}` says of it.
    pub weir_lost: u64,
    /// Acknowledged updates lost at the kill.
    pub updates_lost: u64,
    /// Failed requests at the kill.
    pub failed: u64,
    /// Sessions and acknowledged updates lost, and requests failed, while and after a server was drained and stopped.
    pub drain_lost: (u64, u64, u64),
    /// The same while a server joined.
    pub join_lost: (u64, u64, u64),
    /// From `weir drain --wait` to its end.
    pub drained: Duration,
    /// Share of the busiest server after the log-in and at the end.
    pub busiest: (f64, f64),
    /// Longest wait and median of the first answers of another server after the kill.
    pub first: Option<(Duration, Duration)>,
    /// Bytes between the servers, or servers and store, for each request; `None` where nftables may not count.
    pub bytes: Option<f64>,
    /// What it takes another server of a cluster to answer for a client.
    pub elsewhere: Option<Elsewhere>,
    /// Mean time of a request while all is well.
    pub mean: Duration,
    /// Files that had to be edited on other servers when one joined.
    pub edited: usize,
    /// Sessions and acknowledged updates lost when the store itself was killed, last of all.
    pub store_death: Option<(u64, u64)>,
    /// Failures in words.
    pub failures: Vec<String>,
}

/// Clients asked about at a server that is not theirs.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// Mean bytes between the servers for one of them.
    pub bytes: f64,
    /// For how many the server had to get the session from another one.
    pub fetched: usize,
    /// How many were asked about.
    pub asked: usize,
}

const HEAD: [&str; 14] = [
    "fleet",
    "sessions",
    "sessions lost",
    "weir says",
    "updates lost",
    "failed",
    "at drain, join",
    "drained, s",
    "busiest",
    "first elsewhere, ms",
    "request, ms",
    "bytes a request",
    "bytes, first elsewhere",
    "files edited",
];

/// Prints rows as a Markdown table.
pub fn print(rows: &[Row]) -> String {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len()));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.cells().join(" | ")));
    }
    for row in rows {
        if let Some((sessions, updates)) = row.store_death {
            text.push_str(&format!(
                "\n{}: then the store itself was killed and started again: {sessions} of {} sessions and {updates} updates lost\n",
                row.name, row.clients
            ));
        }
    }
    text
}

impl Row {
    fn cells(&self) -> [String; 14] {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let (first, last) = self.busiest;
        let ((sessions, updates, failed), (more, further, others)) =
            (self.drain_lost, self.join_lost);
        [
            self.name.to_owned(),
            self.sessions.to_owned(),
            format!("{} of {}", self.sessions_lost, self.clients),
            self.weir_lost.to_string(),
            self.updates_lost.to_string(),
            self.failed.to_string(),
            format!(
                "{}, {}",
                sessions + updates + failed,
                more + further + others
            ),
            format!("{:.1}", self.drained.as_secs_f64()),
            format!("{}, {}", percent(first), percent(last)),
            self.first.map_or("-".to_owned(), |(median, longest)| {
                format!("{}, {}", millis(median), millis(longest))
            }),
            millis(self.mean),
            self.bytes
                .map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
            self.elsewhere.map_or("-".to_owned(), |it| {
                format!("{:.0}, {} of {} fetched", it.bytes, it.fetched, it.asked)
            }),
            self.edited.to_string(),
        ]
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}
