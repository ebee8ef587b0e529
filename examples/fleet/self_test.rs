//! The fleet tries itself: what a user would do by hand, with a verdict at the end.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::Fleet;
use super::visitor::Visitor;

/// What an edit of the file may take until it shows.
const SOON: Duration = Duration::from_secs(2);

/// Sessions go on, a server that the file gains takes traffic, one that it loses takes none, and no request fails.
pub fn run() -> Result<(), String> {
    let fleet = Fleet::start(0, 0)?;
    let mut visitors: Vec<Visitor> = (0..40).map(|_| Visitor::new(fleet.web)).collect();
    for _ in 0..5 {
        let moved = view_all(&mut visitors)?;
        expect(moved.is_empty(), || {
            format!("visitors moved without cause: {moved:?}")
        })?;
    }
    expect(
        fleet.servers[..3]
            .iter()
            .all(|server| server.answered() > 0),
        || "a server got nothing".into(),
    )?;
    expect(fleet.spare().answered() == 0, || {
        "the spare server got something".into()
    })?;

    let third = Fleet::line(&fleet.servers[2]);
    edit(
        &fleet.file(),
        &third,
        &format!("{third}\n{}", Fleet::line(fleet.spare())),
    )?;
    let mut moved = Vec::new();
    within(SOON, "the spare server gets nothing", || {
        moved.extend(view_all(&mut visitors)?);
        // Somebody new, too: it may be that the ring moves nobody.
        let mut newcomer = Visitor::new(fleet.web);
        newcomer.view()?;
        visitors.push(newcomer);
        Ok(fleet.spare().answered() > 0)
    })?;
    moved.extend(view_all(&mut visitors)?);
    expect(moved.iter().all(|(_, to)| to == "spare"), || {
        format!("not to the spare server: {moved:?}")
    })?;
    expect(moved.len() < visitors.len() / 2, || {
        format!("{} visitors moved", moved.len())
    })?;

    edit(&fleet.file(), &format!("{third}\n"), "")?;
    within(SOON, "the removed server still gets requests", || {
        let moved = view_all(&mut visitors)?;
        expect(moved.iter().all(|(from, _)| from == "was3"), || {
            format!("not from was3: {moved:?}")
        })?;
        Ok(visitors.iter().all(|visitor| visitor.server != "was3"))
    })?;
    println!(
        "ok: {} visitors, {} moved to the spare server",
        visitors.len(),
        moved.len()
    );
    Ok(())
}

/// Everybody views the page; who moved, from where to where.
fn view_all(visitors: &mut [Visitor]) -> Result<Vec<(String, String)>, String> {
    let mut moved = Vec::new();
    for visitor in visitors {
        moved.extend(
            visitor
                .view()?
                .map(|before| (before, visitor.server.clone())),
        );
    }
    Ok(moved)
}

/// Replaces the file as editors do: under another name first.
fn edit(file: &Path, from: &str, to: &str) -> Result<(), String> {
    let replace = || {
        let text = fs::read_to_string(file)?.replace(from, to);
        let draft = file.with_extension("draft");
        fs::write(&draft, text)?;
        fs::rename(&draft, file)
    };
    replace().map_err(|error: io::Error| error.to_string())
}

fn within(
    limit: Duration,
    otherwise: &str,
    mut done: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let start = Instant::now();
    while !done()? {
        expect(start.elapsed() < limit, || {
            format!("{otherwise} after {limit:?}")
        })?;
    }
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
