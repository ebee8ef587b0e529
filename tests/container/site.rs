//! The site of the compose file: weir before three real Tomcats, with a real Redis and a real Prometheus; and the file itself.
//! Images cannot be pulled here: under the names that the file asks for stand the same programs of Debian's packages, as they are
//! installed on this machine. Grafana is in no Debian; of it only the dashboard is checked (`documents.rs`).
//! That takes a while; the short form has quick servers in the Tomcats' place.
//! Here the walk ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bases::{base, suite};
use crate::engine::Engine;
use crate::image::{VERDICT, assert_is_confined, becomes, stage};
use crate::process::{run, said, there, wait};
use crate::{image, root};

/// How long the whole site may take to be up.
const START: Duration = Duration::from_secs(180);

const SERVICES: [&str; 6] = ["weir", "was1", "was2", "was3", "redis", "prometheus"];

/// The stages of [`IMAGES`], and the names of the images that the compose file asks for.
const NAMES: [(&str, &str); 3] = [
    ("tomcat", "tomcat:10.1-jre21-temurin"),
    ("redis", "redis:7-bookworm"),
    ("prometheus", "prom/prometheus:v2.55.1"),
];

/// What each image's program is, and what Debian's packages must be asked for.
const PROGRAMS: [(&str, &str); 4] = [
    ("/usr/share/tomcat10/bin/catalina.sh", "tomcat10"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/prometheus", "prometheus"),
    ("java", "default-jre-headless"),
];

pub fn missing_compose() -> Option<String> {
    (!there("docker-compose"))
        .then(|| "Debian's package docker-compose is not installed".to_owned())
}

pub fn missing_stand_in() -> Option<String> {
    missing_compose().or_else(image::missing)
}

pub fn missing() -> Option<String> {
    if std::env::var_os("WEIR_FULL").is_none() {
        return Some("three Tomcats take a while to start: only in the long form".to_owned());
    }
    let absent = PROGRAMS.iter().find(|(program, _)| !there(program));
    missing_compose()
        .or_else(|| {
            absent.map(|(_, package)| format!("Debian's package {package} is not installed"))
        })
        .or_else(|| packaged(&java()).err())
        .or_else(image::missing)
}

/// docker-compose takes the file, and every file that it mounts is there.
pub fn compose_file(_: &Path) {
    let said = run(Command::new("docker-compose")
        .arg("-f")
        .arg(root().join("docker/compose.yml"))
        .arg("config"));
    let mounted = said.lines().filter_map(|line| {
        let (place, _) = line.trim().strip_prefix("- /")?.split_once(':')?;
        Some(format!("/{place}"))
    });
    let mounted: Vec<String> = mounted.collect();
    assert!(mounted.len() >= 5, "{said}");
    for place in mounted {
        assert!(
            Path::new(&place).exists(),
            "{place} is mounted and not there"
        );
    }
}

/// weir as it is composed; where Tomcat's image would be, a server that answers strangers as the shop does, and starts at once.
pub fn compose(directory: &Path) {
    let engine = stage();
    stand_in(engine, directory, NAMES[0].1);
    // What is asked of it here is a shell.
    let debian = format!("debian:{}-slim", suite(&base().expect("it was asked for")));
    run(engine.docker().args(["tag", &debian, NAMES[1].1]));
    run(composed(engine, &["up", "-d", "--no-build"]).args(&SERVICES[..4]));
    becomes(engine, "site_weir_1", "healthy");
    wait("three backends are up", VERDICT, || {
        let metrics = run(engine
            .inside("curl")
            .args(["-s", "http://172.30.99.10:9900/metrics"]));
        let up = metrics
            .lines()
            .filter(|line| line.starts_with("weir_backend_up{") && line.ends_with(" 1"));
        (up.count() == 3).then_some(())
    });
    let answer = run(engine
        .inside("curl")
        .args(["-s", "http://127.0.0.1:8080/shop.jsp"]));
    assert_eq!(answer, "nobody");
    is_commanded(engine);
    assert_is_confined(engine, "site_weir_1");
    run(&mut composed(engine, &["down", "--volumes"]));
}

/// The site as it is composed: sessions stay where they began, Redis knows of them, and Prometheus judges what it scrapes.
pub fn site(directory: &Path) {
    let engine = stage();
    import_programs(engine, directory);
    let began = Instant::now();
    run(composed(engine, &["up", "-d", "--no-build"]).args(SERVICES));
    becomes(engine, "site_weir_1", "healthy");
    wait("Prometheus finds three servers up", START, || {
        let told = asked(engine, "query?query=sum(weir_backend_up)");
        (told["result"][0]["value"][1] == "3").then_some(())
    });
    println!("  the site was up after {:.0?}", began.elapsed());
    keeps_sessions(engine, directory);
    let known = run(engine
        .docker()
        .args(["exec", "site_redis_1", "redis-cli", "dbsize"]));
    assert_eq!(known.trim(), "2", "sessions in Redis");
    judges(engine);
    run(&mut composed(engine, &["down", "--volumes"]));
}

/// Who is in the container may command weir; who only reaches it over the network may not.
fn is_commanded(engine: &Engine) {
    let weir = |line: &[&str]| {
        let exec = ["exec", "-T", "weir", "weir"];
        run(composed(engine, &exec).args(line))
    };
    let status = weir(&["status"]);
    assert!(status.contains("pool was (least-sessions)"), "{status}");
    assert!(!status.contains("warning: "), "{status}");
    assert!(weir(&["drain", "was/was2"]).starts_with("was/was2 drains"));
    assert!(weir(&["ready", "was/was2"]).starts_with("was/was2 is ready"));
    let code = run(engine.inside("curl").args([
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "http://172.30.99.10:9900/api/v1/status",
    ]));
    assert_eq!(code, "401");
}

/// docker-compose with the file.
fn composed(engine: &Engine, arguments: &[&str]) -> Command {
    let mut command = engine.compose();
    let file = root().join("docker/compose.yml");
    command.args(["-p", "site", "-f"]).arg(file).args(arguments);
    command
}

/// A weir that answers what the shop answers to strangers, under another image's name.
fn stand_in(engine: &Engine, directory: &Path, name: &str) {
    fs::write(
        directory.join("weir.toml"),
        "[listeners.web]\nbind = [\"0.0.0.0:8080\"]\n[[routes]]\n\
         filters = [{ type = \"respond\", status = 401, body = \"nobody\" }]\n",
    )
    .expect("a file can be written");
    fs::write(
        directory.join("Dockerfile"),
        "FROM weir\nCOPY weir.toml /etc/weir/weir.toml\n",
    )
    .expect("a file can be written");
    run(engine
        .docker()
        .args(["build", "--tag", name])
        .arg(directory));
}

/// Two visitors, each with a session of its own that counts.
fn keeps_sessions(engine: &Engine, directory: &Path) {
    let visit = |user: &str, what: &str| {
        let jar = directory.join(user).display().to_string();
        let target = format!("http://127.0.0.1:8080/shop.jsp?do={what}&user={user}");
        run(engine
            .inside("curl")
            .args(["-s", "-b", &jar, "-c", &jar, &target]))
        .trim()
        .to_owned()
    };
    assert!(visit("nobody", "who").ends_with("user=nobody count=null"));
    let servers = ["ann", "bob"].map(|user| {
        let told = visit(user, "login");
        let server = told
            .strip_suffix(&format!(" user={user} count=0"))
            .expect(&told);
        for count in 1..=10 {
            assert_eq!(
                visit(user, "count"),
                format!("{server} user={user} count={count}")
            );
        }
        server.to_owned()
    });
    assert_ne!(servers[0], servers[1], "least-sessions");
}

/// The alert rules are loaded and make sense to Prometheus, and it has scraped what they speak of.
fn judges(engine: &Engine) {
    let rules = asked(engine, "rules");
    let groups = rules["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<&Value> = groups
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    let file =
        fs::read_to_string(root().join("docker/prometheus/alerts.yml")).expect("it is there");
    assert_eq!(rules.len(), file.matches("- alert:").count(), "{rules:?}");
    // The servers take longer to start than a pool may be without one.
    wait(
        "every rule is evaluated, and none fires any more",
        VERDICT,
        || {
            let told = asked(engine, "rules").to_string();
            assert!(!told.contains("\"health\":\"err\""), "{told}");
            let signs = ["\"health\":\"unknown\"", "\"state\":\"firing\""];
            (!signs.iter().any(|sign| told.contains(sign))).then_some(())
        },
    );
}

/// What Prometheus answers.
fn asked(engine: &Engine, question: &str) -> Value {
    let target = format!("http://127.0.0.1:9090/api/v1/{question}");
    let output = engine.inside("curl").args(["-s", "-g", &target]).output();
    let output = output.expect("curl runs");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    answer["data"].clone()
}

/// Where the Java on the PATH is.
fn java() -> PathBuf {
    let found = run(Command::new("sh").args(["-c", "readlink -f \"$(command -v java)\""]));
    PathBuf::from(found.trim())
}

/// The package that a file is of.
fn packaged(file: &Path) -> Result<String, String> {
    let output = Command::new("dpkg").arg("-S").arg(file).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = said(&output);
    match text.split_once(':') {
        Some((package, _)) if output.status.success() => Ok(package.to_owned()),
        _ => Err(format!("{} is of no Debian package", file.display())),
    }
}

/// Builds images with these programs under the names that the compose file asks for.
fn import_programs(engine: &Engine, directory: &Path) {
    let java = java();
    let home = java
        .parent()
        .and_then(Path::parent)
        .expect("it lies in bin/");
    let package = packaged(&java).expect("it was asked for before");
    run(Command::new("bash")
        .args(["-euo", "pipefail", "-c", FILES])
        .arg(directory.join("programs.tar"))
        .args([&package, "tomcat10", "redis-server", "prometheus"]));
    let suite = suite(&base().expect("it was asked for before"));
    let text = IMAGES
        .replace("SUITE", &suite)
        .replace("PLACE", &home.display().to_string());
    fs::write(directory.join("Dockerfile"), text).expect("a file can be written");
    for (target, name) in NAMES {
        run(engine
            .docker()
            .args(["build", "--network=host", "--target", target, "--tag", name])
            .arg(directory));
    }
    fs::remove_file(directory.join("programs.tar")).expect("it is there");
}

/// The archive, then packages: what is installed of them and of what they depend on, without what only people read.
const FILES: &str = r#"
named=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
  --no-enhances "$@" | grep '^[a-z0-9]' | sort -u)
# Some are names that others provide.
(dpkg -L $named 2>/dev/null || true) | sed -nE 's,^/(s?bin|lib[^/]*)/,/usr/\1/,; \,^/usr/share/(doc|man|locale|javascript|fonts)/,!s,^/(.),\1,p' |
  sort -u | while read -r file; do
  if [ -L "/$file" ] || [ -f "/$file" ]; then printf '%s\n' "$file"; fi
done | tar -C / -cf "$0" -T -
"#;

/// Debian's programs where those of the official images are, and run as they are run there.
const IMAGES: &str = r#"
FROM debian:SUITE-slim AS programs
ADD programs.tar /

FROM programs AS tomcat
ENV JRE_HOME=PLACE CATALINA_HOME=/usr/local/tomcat \
    JAVA_OPTS="-Xmx96m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dtomcat.util.scan.StandardJarScanFilter.jarsToSkip=*"
WORKDIR /usr/local/tomcat
RUN mkdir logs temp work webapps && ln -s /usr/share/tomcat10/bin /usr/share/tomcat10/lib . && cp -r /usr/share/tomcat10/etc conf
CMD ["bin/catalina.sh", "run"]

FROM programs AS redis
# The official image listens to others.
RUN printf '#!/bin/sh\nexec /usr/bin/redis-server "$@" --protected-mode no\n' >/usr/local/bin/redis-server && \
    chmod 755 /usr/local/bin/redis-server

FROM programs AS prometheus
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
"#;
