//! What a change of the file would cost: sessions that live in the memory of one server and end when it leaves its pool.
//! It knows what files say and not whether anybody still has such a session.
//! The walk goes on in control's `admin/diff.rs`, which tells it before the change.

use std::collections::HashSet;

use crate::config::model::{AdminState, Backend, Config, Pool, Sessions};

/// Backends of one pool that are told one by one.
const SHOWN: usize = 8;

/// A line for each pool of `from` whose clients would lose sessions on the way to `to`.
pub fn losses(from: &Config, to: &Config) -> Vec<String> {
    let local = from.routes.iter().filter(|route| {
        let sticky = route.sticky.as_ref();
        sticky.is_some_and(|sticky| sticky.sessions == Sessions::Local)
    });
    let local: HashSet<&str> = local.map(|route| &*route.pool).collect();
    let pools = from.pools.iter().filter(|pool| local.contains(&*pool.name));
    pools.filter_map(|pool| loss(pool, to)).collect()
}

fn loss(from: &Pool, to: &Config) -> Option<String> {
    let left = to.pools.iter().find(|pool| pool.name == from.name);
    let left = left.map_or(&[][..], |pool| &pool.backends);
    let stays = |backend: &Backend| {
        (left.iter()).any(|to| to.name == backend.name && to.address == backend.address)
    };
    // Whom maintenance sent away has no session there any more.
    let gone = from
        .backends
        .iter()
        .filter(|backend| backend.state != AdminState::Maint);
    let gone: Vec<&str> = (gone.filter(|backend| !stays(backend)))
        .map(|backend| &*backend.name)
        .collect();
    let first = gone.first()?;
    let mut names = gone[..gone.len().min(SHOWN)].join(", ");
    if gone.len() > SHOWN {
        names += &format!(" and {} more", gone.len() - SHOWN);
    }
    Some(format!(
        "pool {pool}: sessions in the memory of {names} are lost (sessions = \"local\"): let them end before, \
         with `weir drain {pool}/{first}`",
        pool = from.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sticky: &str, backends: &[(&str, u16, &str)]) -> Config {
        let backends = backends.iter().map(|(name, port, state)| {
            format!("{{ name = \"{name}\", address = \"127.0.0.1:{port}\", state = \"{state}\" }}")
        });
        let text = format!(
            "[listeners.web]\nbind = [\"127.0.0.1:80\"]\n[[routes]]\npool = \"was\"\n{sticky}\n[pools.was]\nbackends = [{}]\n",
            backends.collect::<Vec<_>>().join(", ")
        );
        let loaded = crate::config::parse("weir.toml", &text);
        loaded.expect("a good configuration").config
    }

    #[test]
    fn what_leaves_takes_its_sessions_along() {
        const STICKY: &str = "sticky = { mode = \"cookie-hash\" }";
        let three = [("a", 1, "ready"), ("b", 2, "drain"), ("c", 3, "maint")];
        let from = config(STICKY, &three);
        let told = |to: &[_]| losses(&from, &config("", to)).pop().unwrap_or_default();
        assert_eq!(told(&three), "");
        assert_eq!(told(&three[..2]), "", "c has no clients");
        let grown = [three.as_slice(), &[("d", 4, "ready")]].concat();
        assert_eq!(told(&grown), "");
        assert!(told(&three[..1]).starts_with("pool was: sessions in the memory of b are lost"));
        assert!(told(&[("a", 9, "ready"), three[1]]).contains("memory of a are lost"));
        assert!(told(&[("z", 9, "ready")]).ends_with("`weir drain was/a`"));
        assert_eq!(
            losses(&config("", &three), &config("", &three[..1])),
            [""; 0]
        );

        let names: Vec<String> = (0..20).map(|number| format!("b{number}")).collect();
        let many = (names.iter().zip(10..)).map(|(name, port)| (&**name, port, "ready"));
        let from = config(STICKY, &many.collect::<Vec<_>>());
        let told = losses(&from, &config("", &three[..1]))
            .pop()
            .unwrap_or_default();
        assert!(told.contains("b7 and 12 more are lost"), "{told}");
    }
}
