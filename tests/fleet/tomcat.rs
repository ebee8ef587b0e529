//! One real Tomcat 10 of Debian's package, in a CATALINA_BASE that the test writes: a loopback connector and two pages.
//! It never touches the system's own Tomcat directories beyond reading the package's defaults.
//! Read `scenarios.rs` for what is asked of a fleet of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::Line;
use crate::process::{Process, wait};

/// The page that counts a client's requests in its HttpSession.
pub const COUNT: &str = "/count.jsp";
/// The page that names the server and opens no session.
pub const NAME: &str = "/name.jsp";
/// What the probes ask for.
pub const HEALTH: &str = "/healthz";

const HOME: &str = "/usr/share/tomcat10";
const START: Duration = Duration::from_secs(120);

const COUNT_PAGE: &str = r#"<%@ page contentType="text/plain" trimDirectiveWhitespaces="true" %>
<%
  Integer count = (Integer) session.getAttribute("count");
  count = count == null ? 1 : count + 1;
  session.setAttribute("count", count);
%>
server=<%= System.getProperty("fleet.server") %> count=<%= count %> session=<%= session.getId() %>
"#;

const NAME_PAGE: &str = r#"<%@ page contentType="text/plain" session="false" trimDirectiveWhitespaces="true" %>
server=<%= System.getProperty("fleet.server") %>
"#;

const APPLICATION: &str = r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <absolute-ordering/>
</web-app>
"#;

const CONTEXT: &str = r#"<Context reloadable="false">
  <JarScanner scanClassPath="false" scanManifest="false"/>
</Context>
"#;

/// What a Tomcat has beyond the two pages.
#[derive(Clone, Default)]
pub struct Extras {
    /// Elements of `<Engine>`: a cluster.
    pub engine: String,
    /// Elements of `<Context>`: a session manager.
    pub context: String,
    /// Elements of `<web-app>`.
    pub application: String,
    /// Files under the application's directory, and their texts.
    pub pages: Vec<(&'static str, &'static str)>,
    /// Jars for the server itself.
    pub libraries: Vec<PathBuf>,
}

/// A running Tomcat.
pub struct Tomcat {
    /// What its pages call it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
    base: PathBuf,
}

impl Tomcat {
    /// Why no Tomcat can run here, if so.
    pub fn missing() -> Option<String> {
        if !Path::new(HOME).join("bin/bootstrap.jar").exists() {
            return Some("Debian's package tomcat10 is not installed".to_owned());
        }
        let java = std::process::Command::new("java").arg("-version").output();
        let works = java.is_ok_and(|output| output.status.success());
        (!works).then(|| "no java on the PATH".to_owned())
    }

    /// Starts one at `address`, with more in it than the two pages; it answers some seconds later.
    pub fn start_with(name: &str, directory: &Path, address: SocketAddr, extras: &Extras) -> Self {
        let base = directory.join(name);
        write_base(&base, address.port(), extras);
        let arguments = arguments(name, &base);
        let process = Process::start("java", &arguments, &base.join("out.log"));
        Self {
            name: name.to_owned(),
            address,
            process,
            base,
        }
    }

    /// Waits until both pages are compiled and answer.
    pub fn wait_ready(&mut self) {
        self.wait_answers(&[COUNT, NAME]);
    }

    /// Waits until each of `pages` answers.
    pub fn wait_answers(&mut self, pages: &[&str]) {
        let mut line = Line::new(self.address);
        let sign = format!("server={}", self.name);
        for page in pages {
            wait(&format!("{} answers {page}", self.name), START, || {
                if let Some(status) = self.process.ended() {
                    panic!("{} ended, {status}:\n{}", self.name, self.process.tail(40));
                }
                let answer = line.get(page, "").ok()?;
                (answer.status == 200 && answer.body.contains(&sign)).then_some(())
            });
        }
    }

    /// How many requests for paths that begin so it has answered.
    pub fn served(&self, path: &str) -> usize {
        let text = fs::read_to_string(self.base.join("logs/access.log")).unwrap_or_default();
        let paths = text.lines().filter_map(|line| line.split(' ').nth(1));
        paths.filter(|found| found.starts_with(path)).count()
    }

    /// Milliseconds of the Unix clock at which each good answer to a probe was complete.
    pub fn probes(&self) -> Vec<u128> {
        let text = fs::read_to_string(self.base.join("logs/access.log")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_suffix(&format!(" {HEALTH} 200"))?.parse().ok())
            .collect()
    }
}

fn write_base(base: &Path, port: u16, extras: &Extras) {
    let root = base.join("webapps/ROOT");
    for directory in [
        "conf",
        "lib",
        "logs",
        "temp",
        "work",
        "webapps/ROOT/WEB-INF",
    ] {
        fs::create_dir_all(base.join(directory)).expect("a directory can be made");
    }
    let engine = &extras.engine;
    let server = format!(
        r#"<Server port="-1">
  <Service name="Catalina">
    <Connector port="{port}" address="127.0.0.1" protocol="HTTP/1.1"/>
    <Engine name="Catalina" defaultHost="localhost">
{engine}      <Host name="localhost" appBase="webapps" autoDeploy="false" unpackWARs="false">
        <Valve className="org.apache.catalina.valves.AccessLogValve" directory="logs" prefix="access"
               suffix=".log" rotatable="false" buffered="false" pattern="%{{end:msec}}t %U %s"/>
      </Host>
    </Engine>
  </Service>
</Server>
"#
    );
    let write = |path: PathBuf, text: &str| fs::write(path, text).expect("a file can be written");
    write(base.join("conf/server.xml"), &server);
    let within = |text: &str, element: &str, more: &str| {
        let end = format!("</{element}>");
        text.replace(&end, &format!("{more}{end}"))
    };
    let context = within(CONTEXT, "Context", &extras.context);
    write(base.join("conf/context.xml"), &context);
    let application = within(APPLICATION, "web-app", &extras.application);
    write(root.join("WEB-INF/web.xml"), &application);
    for (path, text) in &extras.pages {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&root)).expect("a directory can be made");
        write(path, text);
    }
    for jar in &extras.libraries {
        let name = jar.file_name().expect("a jar has a name");
        std::os::unix::fs::symlink(jar, base.join("lib").join(name)).expect("a link can be made");
    }
    write(root.join("count.jsp"), COUNT_PAGE);
    write(root.join("name.jsp"), NAME_PAGE);
    write(root.join("healthz"), "well\n");
    for file in ["web.xml", "catalina.properties"] {
        fs::copy(
            Path::new(HOME).join("etc").join(file),
            base.join("conf").join(file),
        )
        .unwrap_or_else(|error| panic!("{file} of the package tomcat10: {error}"));
    }
}

fn arguments(name: &str, base: &Path) -> Vec<String> {
    let base = base.display();
    [
        "-Xmx96m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        &format!("-Dfleet.server={name}"),
        &format!("-Dcatalina.home={HOME}"),
        &format!("-Dcatalina.base={base}"),
        &format!("-Djava.io.tmpdir={base}/temp"),
        "-classpath",
        &format!("{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar"),
        "org.apache.catalina.startup.Bootstrap",
        "start",
    ]
    .map(str::to_owned)
    .to_vec()
}
