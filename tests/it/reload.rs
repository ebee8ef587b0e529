//! The file changes and weir follows, without a client noticing; or the file is wrong and nothing happens but a report.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Duration;

use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir, until, within};

fn two() -> [Origin; 2] {
    ["a", "b"].map(Origin::named)
}

/// Waits until this origin takes traffic.
#[track_caller]
fn serves(weir: &Weir, origin: &Origin) {
    until("the backend to be used", || {
        assert_eq!(weir.get("/").status(), 200);
        (origin.hits() > 0).then_some(())
    });
}

/// Waits until this origin takes no more traffic.
#[track_caller]
fn unused(weir: &Weir, name: &str) {
    until("the backend to be out of use", || {
        (0..6).all(|_| weir.get("/").text() != name).then_some(())
    });
}

#[test]
fn a_backend_comes_and_goes_by_an_edit_in_place() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    assert_eq!(weir.get("/").text(), "a");
    let generation = weir.generation();
    weir.write(&plain(&[&a, &b], ""));
    serves(&weir, &b);
    assert!(weir.generation() > generation);
    weir.write(&plain(&[&b], ""));
    unused(&weir, "a");
    weir.settles("weir_config_last_reload_successful", &[], 1.0);
}

#[test]
fn a_backend_comes_by_a_rename() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    for (count, origins) in [vec![&a, &b], vec![&a], vec![&b]].into_iter().enumerate() {
        let generation = weir.generation();
        // As editors and configuration management do it.
        let draft = weir.directory.join(format!(".weir.toml.{count}"));
        fs::write(&draft, weir.filled(&plain(&origins, ""))).unwrap();
        fs::rename(&draft, &weir.file).unwrap();
        weir.await_generation_after(generation);
    }
    unused(&weir, "a");
}

#[test]
fn a_backend_comes_by_a_swapped_link() {
    let [a, b] = two();
    let mut root = PathBuf::new();
    // weir.toml -> ..data/weir.toml, ..data -> v1: the way of a mounted Kubernetes config map.
    let weir = Weir::start_with(&plain(&[&a], ""), |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        root = file.parent().unwrap().to_owned();
        fs::create_dir(root.join("v1")).unwrap();
        fs::rename(&file, root.join("v1/weir.toml")).unwrap();
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/weir.toml", &file).unwrap();
    });
    assert_eq!(weir.get("/").text(), "a");
    for version in ["v2", "v3"] {
        let generation = weir.generation();
        fs::create_dir(root.join(version)).unwrap();
        let origins = if version == "v2" {
            vec![&a, &b]
        } else {
            vec![&b]
        };
        fs::write(
            root.join(version).join("weir.toml"),
            weir.filled(&plain(&origins, "")),
        )
        .unwrap();
        symlink(version, root.join("..data_new")).unwrap();
        fs::rename(root.join("..data_new"), root.join("..data")).unwrap();
        weir.await_generation_after(generation);
    }
    unused(&weir, "a");
}

#[test]
fn polling_sees_it_too() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], "watch = \"poll\""));
    weir.write(&plain(&[&b], "watch = \"poll\""));
    unused(&weir, "a");
}

#[test]
fn without_a_watch_only_a_signal_counts() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], "watch = \"off\""));
    let generation = weir.generation();
    weir.write(&plain(&[&b], "watch = \"off\""));
    let changed = within(Duration::from_millis(500), || {
        (weir.get("/").text() == "b").then_some(())
    });
    assert!(changed.is_none(), "nobody said that the file is ready");
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
    assert_eq!(weir.get("/").text(), "b");
}

/// Waits until the last attempt to reload was refused.
#[track_caller]
fn refused(weir: &Weir) {
    until("the file to be refused", || {
        (weir.metric("weir_config_last_reload_successful", &[]) == 0.0).then_some(())
    });
}

#[test]
fn a_refused_file_changes_nothing_and_is_reported() {
    let [a, b] = two();
    let good = plain(&[&a], "");
    let weir = Weir::start(&good);
    weir.settles("weir_config_last_reload_successful", &[], 1.0);
    let before = weir.generation();
    weir.write(&plain(&[&b], "").replace("pool = \"was\"", "pool = \"nowhere\""));
    refused(&weir);
    assert_eq!(weir.get("/").text(), "a");
    assert_eq!(weir.generation(), before);
    weir.tells("nowhere");
    let status = weir.status().to_string();
    assert!(status.contains("nowhere"), "{status}");
    assert_eq!(
        weir.admin("/readyz").status(),
        200,
        "a typo must not move the virtual IP"
    );
    // Whoever puts the old text back reads that all is well, and one who reads the log knows the mistake and its cure.
    weir.write(&good);
    let wanted = format!("reload: the file is again as generation {before} serves it");
    weir.tells(&wanted);
    let told = weir.output();
    let line = told.lines().find(|line| line.contains("error[E0"));
    assert!(line.unwrap().ends_with(')'), "{told}");
    weir.write(&plain(&[&b], ""));
    weir.await_generation_after(before);
    weir.settles("weir_config_last_reload_successful", &[], 1.0);
    assert_eq!(weir.get("/").text(), "b");
    let status = weir.status().to_string();
    assert!(!status.contains("nowhere"), "{status}");
}

/// A virtual IP may be elsewhere, and an address may be mistyped: whoever reads the log is told.
#[test]
fn a_listener_whose_address_is_not_here_is_told_of() {
    let [a, _] = two();
    let far = "[listeners.far]\nbind = [\"203.0.113.9:8099\"]\n";
    let weir = Weir::start(&format!("{}{far}", plain(&[&a], "")));
    weir.tells("start: ready");
    let told = weir.output();
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("no address of this machine"))
        .collect();
    assert!(
        lines.len() == 1 && lines[0].contains("listener far: 203.0.113.9"),
        "{told}"
    );
}

#[test]
fn files_that_look_half_written() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    let whole = weir.filled(&plain(&[&b], ""));
    let before = weir.generation();
    let cut = whole.find("[[routes]]").unwrap();
    for half in [
        "",
        "\n\n",
        "# soon\n",
        "workers = 1\n",
        &whole[..whole.len() / 2],
        &whole[..cut + 4],
    ] {
        fs::write(&weir.file, half).unwrap();
        weir.signal(libc::SIGHUP);
        refused(&weir);
        assert_eq!(weir.get("/").text(), "a", "after {half:?}");
        fs::write(&weir.file, weir.filled(&plain(&[&a], ""))).unwrap();
        weir.signal(libc::SIGHUP);
        until("the good file", || {
            (weir.metric("weir_config_last_reload_successful", &[]) == 1.0).then_some(())
        });
    }
    assert!(weir.generation() >= before);
    fs::remove_file(&weir.file).unwrap();
    weir.signal(libc::SIGHUP);
    refused(&weir);
    assert_eq!(weir.get("/").text(), "a");
    fs::write(&weir.file, &whole).unwrap();
    unused(&weir, "a");
}

#[test]
fn a_file_written_bit_by_bit_is_read_once_it_is_whole() {
    use std::io::Write;
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    let whole = weir.filled(&plain(&[&b], ""));
    let mut file = fs::File::create(&weir.file).unwrap();
    for piece in whole.as_bytes().chunks(16) {
        file.write_all(piece).unwrap();
        assert_eq!(weir.get("/").status(), 200);
    }
    drop(file);
    unused(&weir, "a");
}

#[test]
fn what_cannot_be_prepared_changes_nothing() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    let before = weir.generation();
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = squatter.local_addr().unwrap();
    let config = plain(&[&b], "") + &format!("[listeners.more]\nbind = [\"$more\", \"{taken}\"]\n");
    weir.write(&config);
    refused(&weir);
    assert_eq!(
        weir.get("/").text(),
        "a",
        "not even what could have been done"
    );
    assert_eq!(weir.generation(), before);
    assert!(
        Client::try_connect(weir.address("more")).is_err(),
        "nothing observable"
    );
    assert!(weir.status().to_string().contains(&taken.to_string()));
    crate::support::process::stop_listening(&squatter);
    drop(squatter);
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(before);
    assert_eq!(
        Client::connect(weir.address("more")).ask(get("/")).text(),
        "b"
    );
}

#[test]
fn a_removed_backend_ends_what_it_began() {
    let release = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&release);
    let old = Origin::start(move |visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nold ");
            until("the release", || gate.load(SeqCst).then_some(()));
            visit.send("done");
        }
    });
    let new = Origin::named("new");
    let weir = Weir::start(&plain(&[&old], ""));
    let mut client = weir.client();
    client.send(get("/"));
    assert_eq!(client.answer_head().status(), 200);
    let generation = weir.generation();
    weir.write(&plain(&[&new], ""));
    weir.await_generation_after(generation);
    assert_eq!(weir.get("/").text(), "new");
    release.store(true, SeqCst);
    assert_eq!(client.reader.exactly(8).unwrap(), b"old done");
    assert_eq!(
        client.ask(get("/")).text(),
        "new",
        "the client's connection goes on"
    );
    until("connections to the removed backend to end", || {
        (old.open() == 0).then_some(())
    });
}

#[test]
fn a_request_body_goes_on_through_a_reload() {
    let [a, b] = [Origin::echo(), Origin::named("b")];
    let weir = Weir::start(&plain(&[&a], ""));
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello");
    until("the head at the origin", || (a.open() == 1).then_some(()));
    let generation = weir.generation();
    weir.write(&plain(&[&b], ""));
    weir.await_generation_after(generation);
    client.send("again");
    assert!(client.answer().text().ends_with("helloagain"));
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "");
    let weir = Weir::start(&config);
    let generation = weir.generation();
    weir.write(&(config.clone() + "[listeners.more]\nbind = [\"$more\"]\n"));
    weir.await_generation_after(generation);
    let more = weir.address("more");
    let mut kept = Client::connect(more);
    assert_eq!(kept.ask(get("/")).text(), "a");
    let mut web = weir.client();
    assert_eq!(web.ask(get("/")).text(), "a");

    let generation = weir.generation();
    weir.write(&config);
    weir.await_generation_after(generation);
    until("the removed address to be closed", || {
        Client::try_connect(more).is_err().then_some(())
    });
    assert_eq!(
        web.ask(get("/")).text(),
        "a",
        "the other listener's connections stay"
    );
    // The removed listener's connection is drained: it may answer once more, and then it ends.
    if kept.try_send(get("/").as_bytes()).is_ok()
        && let Ok(answer) = kept.try_answer()
    {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.value("connection").as_deref(), Some("close"));
    }
    kept.rest();
}

#[test]
fn an_address_moves_between_listeners() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "");
    let weir = Weir::start(&config);
    let generation = weir.generation();
    weir.write(&config.replace("[listeners.web]", "[listeners.renamed]"));
    weir.await_generation_after(generation);
    for _ in 0..10 {
        assert_eq!(weir.get("/").text(), "a");
    }
    weir.access(|line| line["listener"] == "renamed");
}

#[test]
fn connections_and_counters_outlive_a_reload() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    let mut client = weir.client();
    for _ in 0..5 {
        client.ask(get("/"));
    }
    weir.settles("weir_http_requests_total", &[("code", "2xx")], 5.0);
    let generation = weir.generation();
    // Something else changes; the pool and the listener stay what they are.
    let more = plain(&[&a], "drain_timeout = \"7s\"")
        + &format!(
            "[pools.other]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
            b.address
        )
        + "[[routes]]\npath = \"/other\"\npool = \"other\"\n";
    weir.write(&more);
    weir.await_generation_after(generation);
    assert_eq!(client.ask(get("/")).text(), "a");
    assert_eq!(client.ask(get("/other")).text(), "b");
    assert_eq!(a.connections(), 1, "the upstream connection stayed");
    weir.settles("weir_http_requests_total", &[("code", "2xx")], 7.0);
}

#[test]
fn timeouts_and_limits_follow_the_file() {
    let origin = Origin::named("a");
    let weir = Weir::start(&plain(&[&origin], ""));
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-A: {}\r\n\r\n",
        "x".repeat(5000)
    );
    assert_eq!(weir.client().ask(&head).status(), 200);
    let generation = weir.generation();
    weir.write(&plain(&[&origin], "[limits]\nhead = \"4KiB\""));
    weir.await_generation_after(generation);
    assert_eq!(weir.client().ask(&head).status(), 431);
}

#[test]
fn reload_over_the_api() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], "watch = \"off\""));
    if weir.post("/api/v1/reload").status() == 404 {
        return; // not there yet
    }
    let generation = weir.generation();
    weir.write(&plain(&[&b], "watch = \"off\""));
    let answer = weir.post("/api/v1/reload");
    assert!((200..300).contains(&answer.status()), "{}", answer.text());
    weir.await_generation_after(generation);
    assert_eq!(weir.get("/").text(), "b");
    weir.write("nonsense = ");
    let answer = weir.post("/api/v1/reload");
    assert!(
        (400..500).contains(&answer.status()),
        "{}",
        answer.first_line()
    );
    assert_eq!(
        answer.value("content-type").as_deref(),
        Some("application/problem+json")
    );
    assert_eq!(weir.get("/").text(), "b");
}

#[test]
fn rewriting_the_file_under_load_fails_no_request_and_leaks_nothing() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let weir = Weir::start(&format!(
        "workers = 2\n{}",
        plain(&[&origins[0], &origins[1]], "")
    ));
    let address = weir.address("web");
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(SeqCst) {
                    if number % 2 == 0 {
                        client = Client::connect(address);
                    }
                    let answer = client.ask(get("/"));
                    assert_eq!(answer.status(), 200);
                    served.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let rewrite = |from: usize, count: usize| {
        for round in from..from + count {
            let generation = weir.generation();
            let chosen = [&origins[round % 3], &origins[(round + 1) % 3]];
            weir.write(&format!("workers = 2\n{}", plain(&chosen, "")));
            weir.await_generation_after(generation);
        }
    };
    rewrite(1, 10);
    let (descriptors, resident) = (weir.descriptors(), weir.resident());
    rewrite(11, 40);
    stop.store(true, SeqCst);
    for thread in load {
        thread.join().expect("no request fails");
    }
    assert!(served.load(SeqCst) > 100);
    let now = weir.descriptors();
    assert!(
        now <= descriptors + 8,
        "{descriptors} descriptors grew to {now}"
    );
    let now = weir.resident();
    assert!(now < resident + 16 * 1024, "{resident} KiB grew to {now}");
}

#[test]
fn a_restart_only_key_is_told_and_harms_nothing() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    let generation = weir.generation();
    weir.write(&format!("workers = 2\n{}", plain(&[&b], "")));
    weir.await_generation_after(generation);
    assert_eq!(weir.get("/").text(), "b", "the rest holds at once");
    weir.tells("workers");
}

#[test]
fn a_relative_path_is_watched_too() {
    let [a, b] = two();
    let weir = Weir::start_with(&plain(&[&a], ""), |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let mut relative = std::process::Command::new(command.get_program());
        relative
            .args(["run", "-c", "weir.toml"])
            .current_dir(file.parent().unwrap());
        relative.stdin(std::process::Stdio::null());
        relative
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        crate::support::process::die_with_parent(&mut relative);
        *command = relative;
    });
    let draft = weir.directory.join("draft");
    fs::write(&draft, weir.filled(&plain(&[&b], ""))).unwrap();
    fs::rename(&draft, &weir.file).unwrap();
    unused(&weir, "a");
}

#[test]
fn what_a_link_points_to_is_watched_too() {
    let [a, b] = two();
    let mut real = PathBuf::new();
    let weir = Weir::start_with(&plain(&[&a], ""), |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let elsewhere = file.parent().unwrap().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        real = elsewhere.join("real.toml");
        fs::rename(&file, &real).unwrap();
        symlink(&real, &file).unwrap();
    });
    let generation = weir.generation();
    fs::write(&real, weir.filled(&plain(&[&b], ""))).unwrap();
    weir.await_generation_after(generation);
    assert_eq!(weir.get("/").text(), "b");
    let generation = weir.generation();
    let draft = real.with_extension("draft");
    fs::write(&draft, weir.filled(&plain(&[&a], ""))).unwrap();
    fs::rename(&draft, &real).unwrap();
    weir.await_generation_after(generation);
    assert_eq!(weir.get("/").text(), "a");
}

#[test]
fn an_editor_that_removes_before_it_writes() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    fs::remove_file(&weir.file).unwrap();
    for _ in 0..20 {
        assert_eq!(weir.get("/").text(), "a");
        thread::sleep(Duration::from_millis(10));
    }
    weir.write(&plain(&[&b], ""));
    unused(&weir, "a");
    weir.settles("weir_config_last_reload_successful", &[], 1.0);
}

#[test]
fn a_storm_of_signals() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    for round in 0..200 {
        if round % 20 == 0 {
            let origin = if round % 40 == 0 { &b } else { &a };
            weir.write(&plain(&[origin], ""));
        }
        weir.signal(libc::SIGHUP);
        if round % 10 == 0 {
            assert_eq!(weir.get("/").status(), 200);
        }
    }
    weir.write(&plain(&[&b], ""));
    unused(&weir, "a");
    weir.settles("weir_config_last_reload_successful", &[], 1.0);
}

#[test]
fn a_wildcard_takes_the_place_of_an_address() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "");
    let weir = Weir::start(&config);
    let mut kept = weir.client();
    assert_eq!(kept.ask(get("/")).text(), "a");
    for bind in ["0.0.0.0:$web_port", "$web"] {
        let generation = weir.generation();
        weir.write(&config.replace("\"$web\"", &format!("\"{bind}\"")));
        weir.await_generation_after(generation);
        for _ in 0..10 {
            assert_eq!(weir.get("/").text(), "a");
        }
    }
}

#[test]
fn secrets_follow_the_file() {
    let origin = Origin::named("a");
    let secrets = |letter: &str| format!("{}A=\n", letter.repeat(42));
    let config = plain(&[&origin], "secrets_file = \"$dir/secrets\"").replace(
        "pool = \"was\"\n",
        "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n",
    );
    let weir = Weir::start_with(&config, |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        fs::write(file.with_file_name("secrets"), secrets("A")).unwrap();
    });
    let cookie = weir.get("/").value("set-cookie").unwrap();
    let pair = cookie.split(';').next().unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: {pair}\r\n\r\n");
    assert!(!weir.client().ask(&request).has("set-cookie"));
    fs::write(weir.directory.join("secrets"), secrets("E")).unwrap();
    weir.signal(libc::SIGHUP);
    until("the old secret to be forgotten", || {
        weir.client().ask(&request).has("set-cookie").then_some(())
    });
}

/// How many lines of the process log hold the text.
fn logged(weir: &Weir, text: &str) -> usize {
    weir.stderr()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

#[test]
fn a_warning_is_logged_once_and_advice_never() {
    let [a, b] = two();
    let sticky = |origins: &[&Origin], head: &str| {
        plain(origins, head).replace(
            "pool = \"was\"\n",
            "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n",
        )
    };
    let unused = |name: &str| format!("[pools.{name}]\nbackends = [\"127.0.0.1:1\"]\n");
    let weir = Weir::start(&(sticky(&[&a], "") + &unused("one")));
    until("the warning", || {
        (logged(&weir, "no route leads to the pool `one`") == 1).then_some(())
    });
    for (head, more) in [("# a line\n\n", ""), ("", unused("two").as_str())] {
        let generation = weir.generation();
        let backends = if more.is_empty() {
            vec![&a, &b]
        } else {
            vec![&b]
        };
        weir.write(&(sticky(&backends, head) + &unused("one") + more));
        weir.await_generation_after(generation);
    }
    until("the new warning", || {
        (logged(&weir, "no route leads to the pool `two`") == 1).then_some(())
    });
    assert_eq!(logged(&weir, "no route leads to the pool `one`"), 1);
    assert_eq!(logged(&weir, "W0502"), 0, "{}", weir.stderr());
    let mut check = std::process::Command::new(crate::support::weir::binary());
    let check = check.args(["check", "-c"]).arg(&weir.file).output();
    let said = String::from_utf8(check.unwrap().stderr).unwrap();
    assert!(said.contains("W0502") && said.contains("`one`"), "{said}");
}

#[test]
fn of_a_refused_file_only_its_errors_are_errors() {
    let [a, b] = two();
    let weir = Weir::start(&plain(&[&a], ""));
    let slow = "health = { timeout = \"3s\" }\n";
    let config = plain(&[&b], "").replace("health.type = \"none\"\n", slow);
    weir.write(&(config + "nonsense = 1\n"));
    refused(&weir);
    until("the log to say so", || {
        (logged(&weir, "error[E0201]") == 1).then_some(())
    });
    let said = weir.stderr();
    let wrong = |line: &&str| line.contains(" ERROR ") && line.contains("warning[");
    assert_eq!(said.lines().find(wrong), None);
    let error = said.lines().find(|line| line.contains("error[E0201]"));
    assert!(error.unwrap().contains(" ERROR "));
}

#[test]
fn a_secret_is_made_when_the_first_sticky_route_comes() {
    let origin = Origin::named("a");
    for (state_dir, kept) in [("$dir/state", true), ("/proc/nowhere", false)] {
        let head = format!("state_dir = \"{state_dir}\"");
        let weir = Weir::start(&plain(&[&origin], &head));
        assert_eq!(logged(&weir, "secrets"), 0, "{}", weir.stderr());
        assert!(!weir.directory.join("state").exists());
        let generation = weir.generation();
        weir.write(&plain(&[&origin], &head).replace(
            "pool = \"was\"\n",
            "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n",
        ));
        weir.await_generation_after(generation);
        assert!(weir.get("/").has("set-cookie"));
        assert_eq!(weir.directory.join("state/secret").exists(), kept);
        let warnings = usize::from(!kept);
        until("the log", || {
            (logged(&weir, "WARN  secrets") == warnings).then_some(())
        });
    }
}
