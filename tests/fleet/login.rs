//! FORM logins at a Tomcat that drains: whoever logs in there must stay there and get the page they asked for.
//! Tomcat keeps the page, or the order that was posted, in the session and gives the session another id at the login; both are
//! gone if the request is done again elsewhere.
//! Read `scenarios.rs` for the other claims.

use crate::client::{Answer, Line, Session};
use crate::process::wait;
use crate::scenarios::{SOON, Stage};
use crate::tomcat::{Extras, Tomcat};
use crate::weir::{Setup, Weir, sum};

/// Behind the login; counts the visits of the session that remembers them.
const PRIVATE: &str = "/private/order.jsp";

const PRIVATE_PAGE: &str = r#"<%@ page contentType="text/plain" trimDirectiveWhitespaces="true" %>
<%
  Integer count = (Integer) session.getAttribute("orders");
  count = count == null ? 1 : count + 1;
  session.setAttribute("orders", count);
%>
server=<%= System.getProperty("fleet.server") %> user=<%= request.getRemoteUser() %> item=<%= request.getParameter("item") %> method=<%= request.getMethod() %> count=<%= count %>
"#;

/// Where a sign-on elsewhere comes back to, by GET, as with OpenID Connect: the application changes the session's id there.
const SIGN_ON: &str = "/back.jsp";

const SIGN_ON_PAGE: &str = r#"<%@ page contentType="text/plain" trimDirectiveWhitespaces="true" %>
<%
  Integer count = (Integer) session.getAttribute("sign-ons");
  count = count == null ? 1 : count + 1;
  session.setAttribute("sign-ons", count);
  request.changeSessionId();
%>
server=<%= System.getProperty("fleet.server") %> count=<%= count %>
"#;

const LOGIN_PAGE: &str = r#"<%@ page contentType="text/plain" trimDirectiveWhitespaces="true" %>
server=<%= System.getProperty("fleet.server") %> form=j_security_check
"#;

const USERS: &str = r#"<tomcat-users><user username="ada" password="lovelace" roles="customer"/></tomcat-users>
"#;

const REALM: &str = r#"  <Realm className="org.apache.catalina.realm.MemoryRealm" pathname="webapps/ROOT/WEB-INF/users.xml"/>
"#;

const CONSTRAINT: &str = r#"  <security-constraint>
    <web-resource-collection>
      <web-resource-name>private</web-resource-name>
      <url-pattern>/private/*</url-pattern>
    </web-resource-collection>
    <auth-constraint><role-name>customer</role-name></auth-constraint>
  </security-constraint>
  <login-config>
    <auth-method>FORM</auth-method>
    <form-login-config>
      <form-login-page>/login.jsp</form-login-page>
      <form-error-page>/login.jsp</form-error-page>
    </form-login-config>
  </login-config>
  <security-role><role-name>customer</role-name></security-role>
"#;

/// What a Tomcat of the fleet has for this.
pub fn extras() -> Extras {
    Extras {
        context: REALM.to_owned(),
        application: CONSTRAINT.to_owned(),
        pages: vec![
            ("login.jsp", LOGIN_PAGE),
            ("private/order.jsp", PRIVATE_PAGE),
            ("back.jsp", SIGN_ON_PAGE),
            ("WEB-INF/users.xml", USERS),
        ],
        ..Extras::default()
    }
}

/// How a user comes to the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By the page.
    Asks,
    /// By posting an order, which Tomcat does after the login.
    Orders,
}

/// Users log in while their server drains: nobody moves, nothing is lost, nothing is done twice.
pub fn login(stage: &mut Stage) {
    for mode in ["insert", "cookie-hash"] {
        let mut setup = Setup::new(stage.three());
        setup.sticky = format!("{{ mode = \"{mode}\", sessions = \"local\" }}");
        let weir = stage.weir(&format!("login-{mode}"), &setup);
        let home = &stage.three()[0];
        let mut line = Line::new(weir.web);
        let mut users = Vec::new();
        for way in [Way::Asks, Way::Orders, Way::Asks, Way::Orders] {
            users.push((way, arrive(&mut line, home, way)));
        }
        // One who logged in before, and one who was only there.
        let mut before = arrive(&mut line, home, Way::Asks);
        log_in(&mut before, &mut line, home, Way::Asks);
        let mut guest = arrive(&mut line, home, Way::Asks);

        weir.command(&["drain", &format!("was/{}", home.name)]);
        let served = home.served("/private/");
        for (way, user) in &mut users {
            log_in(user, &mut line, home, *way);
        }
        let answer = visit(&mut before, &mut line);
        assert_eq!(answer.word("server"), Some(home.name.as_str()));
        assert_eq!(answer.word("count"), Some("3"), "{mode}: {}", answer.body);
        let answer = visit(&mut guest, &mut line);
        assert_eq!(answer.word("server"), Some(home.name.as_str()));

        let signed_on = home.served(SIGN_ON);
        for (_, user) in &mut users {
            sign_on(user, &mut line, home);
        }
        assert_served(home, SIGN_ON, signed_on + users.len());
        // Each login is the form, the page and a visit, each sign-on one more visit; nobody else asked the server for anything.
        assert_served(home, "/private/", served + users.len() * 4 + 2);
        assert_nobody_moved(&weir, mode);
        for _ in 0..6 {
            let answer = Session::default().get(&mut line, PRIVATE);
            let answer = answer.expect("a new client is served");
            assert_ne!(answer.word("server"), Some(home.name.as_str()));
        }
        weir.command(&["ready", &format!("was/{}", home.name)]);
        println!(
            "  {mode}: {} logins at a draining server, none moved, lost or done twice",
            users.len()
        );
        weir.stop();
    }
}

/// A client whose home is `home` and who stands before the login form.
fn arrive(line: &mut Line, home: &Tomcat, way: Way) -> Session {
    wait("a client of the server that will drain", SOON, || {
        let mut user = Session::default();
        let answer = match way {
            Way::Orders => user.submit(line, PRIVATE, "item=7"),
            Way::Asks => user.get(line, &format!("{PRIVATE}?item=7")),
        };
        let answer = answer.expect("the login form");
        assert_eq!(answer.word("form"), Some("j_security_check"));
        (answer.word("server") == Some(home.name.as_str())).then_some(user)
    })
}

/// Logs in and follows to the page; everything happens at `home`.
fn log_in(user: &mut Session, line: &mut Line, home: &Tomcat, way: Way) {
    let old = user.cookie("JSESSIONID").map(str::to_owned);
    let credentials = "j_username=ada&j_password=lovelace";
    let answer = user.submit(line, "/private/j_security_check", credentials);
    let answer = answer.expect("an answer to the login");
    // Tomcat changes the id here, where no balancer would dare to do the request again; `sign_on` is the other case.
    assert_ne!(user.cookie("JSESSIONID"), old.as_deref(), "{way:?}");
    assert!(
        matches!(answer.status, 302 | 303),
        "{way:?}: {} {}",
        answer.status,
        answer.body
    );
    let location = answer.all("location").next().expect("a way on").to_owned();
    let path = location
        .find(PRIVATE)
        .unwrap_or_else(|| panic!("{way:?}: on to {location}"));
    let answer = user.get(line, &location[path..]).expect("the page");
    let method = if way == Way::Orders { "POST" } else { "GET" };
    let expected = format!(
        "server={} user=ada item=7 method={method} count=1",
        home.name
    );
    assert_eq!((answer.status, answer.body.trim()), (200, &*expected));
    let answer = visit(user, line);
    let expected = format!("server={} user=ada item=null method=GET count=2", home.name);
    assert_eq!((answer.status, answer.body.trim()), (200, &*expected));
}

/// The id changes in the answer to a GET; the session stays.
fn sign_on(user: &mut Session, line: &mut Line, home: &Tomcat) {
    let old = user.cookie("JSESSIONID").map(str::to_owned);
    let answer = user.get(line, SIGN_ON).expect("the page of the sign-on");
    let expected = format!("server={} count=1", home.name);
    assert_eq!((answer.status, answer.body.trim()), (200, &*expected));
    assert_ne!(user.cookie("JSESSIONID"), old.as_deref());
    let answer = visit(user, line);
    assert_eq!(answer.word("server"), Some(home.name.as_str()));
    assert_eq!(answer.word("count"), Some("3"), "the session came along");
}

fn visit(user: &mut Session, line: &mut Line) -> Answer {
    user.get(line, PRIVATE).expect("a page")
}

/// The server's own log says so much, and no more. It writes a line after the answer.
fn assert_served(tomcat: &Tomcat, path: &str, expected: usize) {
    wait("the server's log", SOON, || {
        (tomcat.served(path) >= expected).then_some(())
    });
    assert_eq!(tomcat.served(path), expected, "{path}: nothing twice");
}

fn assert_nobody_moved(weir: &Weir, mode: &str) {
    let metrics = weir.metrics();
    for result in ["moved", "lost", "returned", "expired", "forged"] {
        let label = format!("result=\"{result}\"");
        let count = sum(&metrics, "weir_sticky_total", &label).unwrap_or(0.0);
        assert_eq!(count, 0.0, "{mode}: {result}");
    }
    let retries = sum(&metrics, "weir_retries_total", "").unwrap_or(0.0);
    assert_eq!(retries, 0.0, "{mode}");
}
