//! Backends that the file does not name: they come and go while clients are served, and a source that fails takes nobody away.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Client, Origin, Weir, until};

/// A listener, a route and a pool with this discovery and no backend in the file.
fn discovering(discovery: &str) -> String {
    beside("", discovery)
}

/// The same with backends in the file.
fn beside(backends: &str, discovery: &str) -> String {
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{backends}]\n\
         discovery = {{ {discovery} }}\n"
    )
}

fn addresses(origins: &[&Origin]) -> Vec<String> {
    origins
        .iter()
        .map(|own| format!("\"{}\"", own.address))
        .collect()
}

fn json(origins: &[&Origin]) -> String {
    format!("[{}]", addresses(origins).join(", "))
}

/// In place of the file in one step, as a careful writer does it.
fn put(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(&draft, path).unwrap();
}

/// Asks until every one of these names answered, and only these answer a few times in a row. Every answer is a 200.
#[track_caller]
fn serves(weir: &Weir, names: &[&str]) {
    until(&format!("answers of {names:?} alone"), || {
        let answers: Vec<_> = (0..3 * names.len()).map(|_| weir.get("/")).collect();
        assert!(answers.iter().all(|answer| answer.status() == 200));
        let told: Vec<_> = answers.iter().map(|answer| answer.text()).collect();
        let all = names.iter().all(|name| told.iter().any(|own| own == name));
        let only = told.iter().all(|own| names.contains(&own.as_str()));
        (all && only).then_some(())
    });
}

fn pool(weir: &Weir) -> Value {
    weir.status()["pools"][0].clone()
}

/// Waits until the source has a problem with these words.
#[track_caller]
fn complains(weir: &Weir, words: &str) {
    let mut last = Value::Null;
    until(&format!("a problem with {words}"), || {
        last = pool(weir)["discovery"]["problem"].clone();
        let problem = last.as_str().unwrap_or_default();
        problem.contains(words).then_some(())
    });
}

#[test]
fn a_directory_of_lists_is_followed() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let weir = Weir::launch(
        &discovering("type = \"file\", path = \"$dir/was.d\""),
        |command| {
            let file = Path::new(command.get_args().last().unwrap()).to_owned();
            let lists = file.with_file_name("was.d");
            fs::create_dir(&lists).unwrap();
            put(&lists.join("one.json"), &json(&[&a]));
        },
    );
    weir.tells("start: ready");
    serves(&weir, &["a"]);
    let lists = weir.directory.join("was.d");

    // Another file, in the other form, with a name; it keeps what is known of the first.
    let named = format!(
        "[[backends]]\nname = \"second\"\naddress = \"{}\"\nweight = 2\n",
        b.address
    );
    put(&lists.join("two.toml"), &named);
    serves(&weir, &["a", "b"]);
    let of_pool = pool(&weir);
    assert_eq!(of_pool["discovery"]["endpoints"], 2);
    assert!(of_pool["discovery"]["last_success"].is_string());
    let backends = of_pool["backends"].as_array().unwrap();
    let second = backends
        .iter()
        .find(|own| own["name"] == "second")
        .expect("it is shown");
    assert_eq!(
        (&second["source"], &second["weight"]),
        (&"file".into(), &2.into())
    );
    assert_eq!(
        weir.metric("weir_discovery_endpoints", &[("pool", "was")]),
        2.0
    );

    // Half a file counts as it was, and so does one without a word.
    for (wrong, words) in [
        ("[\"127.0.0.1:80\", \"127.", "one.json: not JSON"),
        ("", "one.json: empty"),
        ("[{ \"adress\": \"127.0.0.1:1\" }]", "is `address` meant?"),
    ] {
        fs::write(lists.join("one.json"), wrong).unwrap();
        complains(&weir, words);
    }
    put(
        &lists.join("two.toml"),
        &format!("backends = [\"{}\"]", c.address),
    );
    serves(&weir, &["a", "c"]);
    assert!(weir.metric("weir_discovery_failures_total", &[("pool", "was")]) >= 3.0);

    // A file that is gone is an empty one; no file at all would be nobody, and is not believed.
    fs::remove_file(lists.join("one.json")).unwrap();
    serves(&weir, &["c"]);
    fs::remove_file(lists.join("two.toml")).unwrap();
    complains(&weir, "it names no backend");
    serves(&weir, &["c"]);
    fs::remove_dir(&lists).unwrap();
    complains(&weir, "cannot be read");
    serves(&weir, &["c"]);
    fs::create_dir(&lists).unwrap();
    put(&lists.join("three.json"), &json(&[&b]));
    serves(&weir, &["b"]);
    let of_pool = pool(&weir);
    assert_eq!(of_pool["discovery"]["problem"], Value::Null);
}

#[test]
fn what_is_found_stands_beside_what_the_file_names() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let static_one = format!("{{ name = \"first\", address = \"{}\" }}", a.address);
    let list = format!("type = \"file\", path = \"$dir/{}\"", "was.json");
    let weir = Weir::start_with(&beside(&static_one, &list), |command| {
        let file = Path::new(command.get_args().last().unwrap()).to_owned();
        put(&file.with_file_name("was.json"), &json(&[&a, &b]));
    });
    serves(&weir, &["a", "b"]);
    let backends = pool(&weir)["backends"].clone();
    let shown: Vec<_> = backends.as_array().unwrap().iter().collect();
    assert_eq!(shown.len(), 2, "the address that both name is one backend");
    assert_eq!(
        (&shown[0]["name"], &shown[0]["source"]),
        (&"first".into(), &"config".into())
    );
    assert_eq!(shown[1]["source"], "file");
    let ports = weir.metric("weir_backend_up", &[("backend", "first")]);
    assert_eq!(ports, 1.0);

    // A reload keeps what was found, and a diff does not take it for a change.
    let generation = weir.generation();
    let more = weir.filled(&(beside(&static_one, &list) + "balancer = \"least-connections\"\n"));
    fs::write(
        &weir.file,
        more.replace("discovery", "slow_start = \"1s\"\ndiscovery"),
    )
    .unwrap();
    weir.await_generation_after(generation);
    serves(&weir, &["a", "b"]);
    let diff: Value = serde_json::from_slice(&weir.admin("/api/v1/diff").body).unwrap();
    assert_eq!(diff["summary"], "");

    // Without its source the pool has what the file names.
    let generation = weir.generation();
    let plain = beside(&static_one, &list);
    let without = plain.split("discovery").next().unwrap();
    weir.write(without);
    weir.await_generation_after(generation);
    serves(&weir, &["a"]);
    assert_eq!(pool(&weir)["discovery"], Value::Null);
}

#[test]
fn a_backend_keeps_its_words_and_its_state_while_others_come_and_go() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let weir = Weir::start_with(
        &discovering("type = \"file\", path = \"$dir/was.json\""),
        |command| {
            let file = Path::new(command.get_args().last().unwrap()).to_owned();
            put(&file.with_file_name("was.json"), &json(&[&a, &b]));
        },
    );
    serves(&weir, &["a", "b"]);
    let name = b.address.to_string();
    let drain = format!("/api/v1/pools/was/backends/{name}/drain");
    assert_eq!(weir.post(&drain.replace(':', "%3A")).status(), 200);
    serves(&weir, &["a"]);
    let labels = [("pool", "was"), ("backend", &*name)];
    let before = weir.metric("weir_backend_connections_total", &labels);
    assert!(before > 0.0);
    let list = weir.directory.join("was.json");
    put(&list, &json(&[&a, &b, &c]));
    serves(&weir, &["a", "c"]);
    assert_eq!(
        weir.metric("weir_backend_connections_total", &labels),
        before
    );
    // It goes and comes back: what an operator set is set for its name.
    put(&list, &json(&[&a, &c]));
    until("the backend to be gone", || {
        (pool(&weir)["backends"].as_array().unwrap().len() == 2).then_some(())
    });
    put(&list, &json(&[&a, &b, &c]));
    until("the backend to be back", || {
        let backends = pool(&weir)["backends"].clone();
        let mut backends = backends.as_array().unwrap().iter();
        backends
            .any(|own| own["name"] == *name && own["state"] == "drain")
            .then_some(())
    });
    serves(&weir, &["a", "c"]);
}

#[test]
fn the_last_list_outlives_the_process() {
    let a = Origin::named("a");
    let config = discovering("type = \"file\", path = \"$dir/was.json\"");
    let state = std::env::temp_dir().join(format!("weir-discovery-{}", std::process::id()));
    let config = format!("state_dir = \"{}\"\n{config}", state.display());
    let path = Mutex::new(None);
    let first = Weir::start_with(&config, |command| {
        let file = Path::new(command.get_args().last().unwrap()).to_owned();
        let list = file.with_file_name("was.json");
        put(&list, &json(&[&a]));
        *path.lock().unwrap() = Some(list);
    });
    serves(&first, &["a"]);
    until("the list to be kept", || {
        let kept = fs::read_to_string(state.join("discovery.json")).ok()?;
        kept.contains(&a.address.to_string()).then_some(())
    });
    let list = path.lock().unwrap().take().unwrap();
    drop(first);
    // The same source by its name, and nothing there.
    let config = config.replace("$dir/was.json", &list.to_string_lossy());
    let second = Weir::start(&config);
    serves(&second, &["a"]);
    complains(&second, "cannot be read");
    drop(second);
    let _ = fs::remove_dir_all(state);
}

/// Hands out a list, and says 304 to who has it already.
struct Registry {
    origin: Origin,
    list: Arc<Mutex<String>>,
    unchanged: Arc<AtomicUsize>,
}

impl Registry {
    fn start(list: String) -> Registry {
        let list = Arc::new(Mutex::new(list));
        let unchanged = Arc::<AtomicUsize>::default();
        let (served, counted) = (list.clone(), unchanged.clone());
        let origin = Origin::start(move |visit| {
            while let Ok(request) = visit.request() {
                let list = served.lock().unwrap().clone();
                let tag = format!("\"{}\"", list.len());
                if list.starts_with("HTTP/1.1 ") {
                    visit.send(&list);
                } else if request.value("if-none-match").as_deref() == Some(&tag) {
                    counted.fetch_add(1, SeqCst);
                    visit.send(format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n"));
                } else {
                    let length = list.len();
                    visit.send(format!(
                        "HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {length}\r\n\r\n{list}"
                    ));
                }
            }
        });
        Registry {
            origin,
            list,
            unchanged,
        }
    }

    fn says(&self, list: impl Into<String>) {
        *self.list.lock().unwrap() = list.into();
    }
}

#[test]
fn a_server_is_asked_and_answers_that_are_none_change_nothing() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let registry = Registry::start(json(&[&a]));
    let at = registry.origin.address;
    let weir = Weir::start(&discovering(&format!(
        "type = \"http\", url = \"http://{at}/was?dc=1\", interval = \"100ms\", timeout = \"300ms\""
    )));
    serves(&weir, &["a"]);
    until("an answer without a list", || {
        (registry.unchanged.load(SeqCst) > 2).then_some(())
    });
    let asked = registry.origin.requests().swap_remove(0);
    assert_eq!(asked.target(), "/was?dc=1");
    assert_eq!(asked.value("host"), Some(at.to_string()));
    registry.says(format!("{{ \"backends\": {} }}", json(&[&a, &b])));
    serves(&weir, &["a", "b"]);
    let generation = weir.generation();
    let large = "x".repeat(1 << 21);
    for (answer, words) in [
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "status 500",
        ),
        ("nothing of the kind".to_owned(), "not JSON"),
        ("[]".to_owned(), "it names no backend"),
        (format!("[\"{large}\"]"), "length limit"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[".to_owned(),
            "no answer within 300ms",
        ),
    ] {
        registry.says(answer);
        complains(&weir, words);
        serves(&weir, &["a", "b"]);
    }
    assert_eq!(weir.generation(), generation, "nothing changed");
    registry.says(json(&[&b]));
    serves(&weir, &["b"]);
    assert_eq!(pool(&weir)["discovery"]["problem"], Value::Null);
}

#[test]
fn weir_starts_without_its_source_and_is_not_ready_before_it_answers() {
    let a = Origin::named("a");
    let registry = Registry::start("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_owned());
    let at = registry.origin.address;
    let weir = Weir::launch(
        &discovering(&format!(
            "type = \"http\", url = \"http://{at}/\", interval = \"100ms\""
        )),
        |_| {},
    );
    until("the admin server", || {
        Client::try_connect(weir.address("admin")).ok()
    });
    complains(&weir, "status 503");
    assert_eq!(weir.admin("/readyz").status(), 503);
    until("the listener", || {
        Client::try_connect(weir.address("web")).ok()
    });
    assert_eq!(weir.get("/").status(), 503, "nobody is there yet");
    registry.says(json(&[&a]));
    until("weir to be ready", || {
        (weir.admin("/readyz").status() == 200).then_some(())
    });
    serves(&weir, &["a"]);
}

/// How many answers clients got that asked all the time meanwhile.
fn under_load(weir: &Weir, change: impl FnOnce()) -> usize {
    let load = Load::start(weir.address("web"), 4, "/");
    change();
    load.stop()
}

#[test]
fn a_storm_of_changes_is_a_few_generations_and_fails_no_request() {
    let origins = ["a", "b", "c", "d"].map(Origin::named);
    let weir = Weir::start_with(
        &discovering("type = \"file\", path = \"$dir/was.json\""),
        |command| {
            let file = Path::new(command.get_args().last().unwrap()).to_owned();
            put(&file.with_file_name("was.json"), &json(&[&origins[0]]));
        },
    );
    serves(&weir, &["a"]);
    let list = weir.directory.join("was.json");
    let before = weir.generation();
    let began = std::time::Instant::now();
    let changes = if std::env::var_os("WEIR_FULL").is_some() {
        2000
    } else {
        300
    };
    let asked = under_load(&weir, || {
        for number in 0..changes {
            // The first one stays, the others come and go.
            let some: Vec<_> = (0..4)
                .filter(|place| *place == 0 || number >> (place - 1) & 1 == 1)
                .map(|place| &origins[place])
                .collect();
            put(&list, &json(&some));
            thread::sleep(std::time::Duration::from_millis(3));
        }
        put(&list, &json(&[&origins[0], &origins[3]]));
        serves(&weir, &["a", "d"]);
    });
    let made = weir.generation() - before;
    let most = began.elapsed().as_millis() as u64 / 100 + 2;
    assert!(
        (1..=most).contains(&made),
        "{made} generations of at most {most}"
    );
    println!("{asked} requests, {changes} changes, {made} generations");
    assert!(asked > 0);
}
