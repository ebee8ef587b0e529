//! What the table of `examples/sessions` must show, one claim a fleet and one for the comparisons between them.
//! Each fleet is started for its claim alone; the rows are printed at the end, whatever they show.
//! Read `examples/sessions/table.rs` for how it is measured.

use std::path::Path;
use std::time::Duration;

use crate::table::{IN_FLIGHT, Keeping, PLANS, Plan, Row, Scale, print};

/// The fleets that only the long form runs.
const LONG: [&str; 4] = ["delta-listed-3", "delta-5", "delta-8", "backup-5"];

/// The rows so far.
pub struct Table<'a> {
    rows: Vec<Row>,
    directory: &'a Path,
    scale: Scale,
}

/// The fleets of this run; the larger ones belong to the long form.
pub fn plans(full: bool) -> Vec<Plan> {
    let is_wanted = |plan: &Plan| full || !LONG.contains(&plan.name);
    PLANS.into_iter().filter(is_wanted).collect()
}

impl<'a> Table<'a> {
    /// No row yet.
    pub fn new(directory: &'a Path, full: bool) -> Self {
        Self {
            rows: Vec::new(),
            directory,
            scale: if full { Scale::WHOLE } else { Scale::SHORT },
        }
    }

    /// Runs a fleet and judges its row.
    pub fn fleet(&mut self, plan: &Plan) {
        let row = plan.run(self.scale, self.directory);
        println!("{}", print(std::slice::from_ref(&row)));
        row.failures
            .iter()
            .for_each(|it| println!("  failed: {}", it.trim()));
        self.rows.push(row.clone());
        judge(plan, &row);
    }

    /// Prints all rows and judges what only several show together.
    pub fn compare(&self) {
        println!("{}", print(&self.rows));
        let row = |name: &str| self.rows.iter().find(|row| row.name == name);
        let traffic = |name: &str| row(name)?.bytes;
        let less = |less: &str, more: &str| {
            if let (Some(few), Some(many)) = (traffic(less), traffic(more)) {
                println!("  {more}: {:.2} times the traffic of {less}", many / few);
                assert!(few * 1.1 < many, "{few:.0} bytes a request, {many:.0}");
            }
        };
        less("delta-3", "delta-5");
        less("delta-5", "delta-8");
        less("backup-3", "delta-3");
        less("backup-5", "delta-5");
        if let (Some(redis), Some(postgres)) = (row("redis-3"), row("postgres-3")) {
            let ratio = postgres.alone.as_secs_f64() / redis.alone.as_secs_f64();
            println!(
                "  one client alone: {:.1?} a request with Redis, {:.1?} with PostgreSQL, {ratio:.1} times as long",
                redis.alone, postgres.alone
            );
        }
    }
}

fn judge(plan: &Plan, row: &Row) {
    let calm = (0, 0, 0);
    assert_eq!(row.drain_lost, calm, "at the drain: {:?}", row.failures);
    assert_eq!(row.join_lost, calm, "at the join: {:?}", row.failures);
    assert!(row.first.is_some(), "somebody was served by another server");
    let orphans = row.orphans as u64;
    match plan.keeping {
        Keeping::Local => {
            assert!(orphans > 0 && row.updates_lost >= orphans);
            let lost = (row.sessions_lost, row.weir_lost);
            assert_eq!(
                lost,
                (orphans, orphans),
                "all of the dead server's, and weir says so"
            );
        }
        // A backup may not have it all when the owner is killed: on a busy machine one run of six lost an update, and one of many a session.
        Keeping::Backup => {
            assert!(row.sessions_lost <= 1, "{} lost", row.sessions_lost);
            assert!(
                row.updates_lost <= 1 || row.sessions_lost == 1,
                "{} lost",
                row.updates_lost
            );
            assert_eq!(row.weir_lost, 0);
        }
        // With eight servers that all wait for each other, an update may come too late; then that is shown.
        Keeping::Delta if plan.servers > 5 => println!("  {} updates lost", row.updates_lost),
        _ => {
            let lost = (row.sessions_lost, row.updates_lost, row.weir_lost);
            assert_eq!(lost, calm);
        }
    }
    match plan.keeping {
        Keeping::Local => assert!(row.drained > Duration::from_secs(5), "{:?}", row.drained),
        Keeping::Delta | Keeping::DeltaListed | Keeping::Backup => {
            assert!(row.drained < Duration::from_secs(2), "{:?}", row.drained);
        }
        _ => assert!(row.drained < Duration::from_secs(1), "{:?}", row.drained),
    }
    // A server that is neither owner nor backup has to fetch the session first.
    if let Some((fetched, asked)) = row.elsewhere.and_then(|it| it.fetched) {
        assert!(fetched > asked / 4, "{fetched} of {asked} were fetched");
    }
    let edited = match plan.keeping {
        Keeping::DeltaListed => plan.servers,
        _ => 0,
    };
    assert_eq!(row.edited, edited);
    if plan.keeping != Keeping::RedisReplica {
        // What was under way when the server died cannot be had from another one: a POST may have been done. A client
        // thread may go from one dying connection to the next.
        assert!(row.failed <= 2 * IN_FLIGHT as u64, "{:?}", row.failures);
    }
    if plan.keeping == Keeping::Memcached {
        let (sessions, _) = row.store_death.expect("Memcached was killed");
        assert_eq!(
            sessions, row.clients as u64,
            "Memcached keeps nothing on disk"
        );
    }
}
