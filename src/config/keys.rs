//! The table of all keys of the configuration, in the order of the reference.
//! It holds data only. A key that is not in it does not exist; a key that does nothing yet must not be in it.
//! The walk goes on in `section.rs`, which reads a file against this table.

use super::schema::Default::{Is, Means, Required};
use super::schema::Reload::{Instant, NewConnections, Rebind, Restart};
use super::schema::{Choice, Default, Form, Key, Kind, Reload};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const FILE_PATH: Form = form("a file path", ".");
const NETWORK: Form = form(
    "a network such as \"10.0.0.0/8\"",
    "^[0-9A-Fa-f:.]+(/[0-9]+)?$",
);
const ADDRESS: Form = form(
    "an address such as \"192.0.2.10:80\" or \"[2001:db8::10]:80\"",
    r"^([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]+$",
);
const ADMIN_ADDRESS: Form = form(
    "an address such as \"127.0.0.1:9900\", or \"unix:/run/weir/admin.sock\"",
    r"^(unix:.+|([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]+)$",
);
const ACCESS: Form = form("\"off\", \"stdout\" or a file path", "^(off|stdout|.*/.*)$");
const NAME: Form = form("a name of a-z, 0-9, \"_\" and \"-\"", "^[a-z0-9_-]+$");
const BACKEND_NAME: Form = form("a name without \"/\" and blanks", "^[!-.0-~]+$");
const HOST: Form = form(
    "a host name such as \"shop.example.com\" or \"*.example.com\"",
    r"^(\*\.)?[A-Za-z0-9_.-]+$|^\[[0-9A-Fa-f:.]+\]$",
);
const PATH: Form = form("a path such as \"/cart\"", "^/");
const SNI: Form = form(
    "a server name such as \"db.example.com\" or \"*.example.com\"",
    r"^(\*\.)?[A-Za-z0-9_.-]+$",
);
const ALPN: Form = form("a protocol such as \"h2\"", "^[!-~]{1,255}$");
const METHOD: Form = form("a method such as \"GET\"", "^[!#$%&'*+.^_`|~0-9A-Z-]+$");
const COOKIE_NAME: Form = form("a cookie name", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
const COOKIE_PATH: Form = form("a path such as \"/\"", "^/[^;]*$");
const COOKIE_DOMAIN: Form = form("a domain such as \"example.com\"", "^[A-Za-z0-9.-]+$");
const HEADER_NAME: Form = form(
    "a header name such as \"x-user\"",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
);
const HEADER_NAMES: Form = form(
    "header names, each with its value",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
);
const REGEX: Form = form("a regular expression", ".");
const REDIRECT_HOST: Form = form("a host such as \"www.{host}\"", r"^[A-Za-z0-9._:{}\[\]-]+$");
const REDIRECT_PATH: Form = form("a path such as \"/new{path}\"", "^(/|\\{path\\})");
const ORIGIN: Form = form(
    "an origin such as \"https://shop.example.com\" or \"https://*.example.com\", or \"*\"",
    "^([*]|[a-z][a-z0-9+.-]*://[^/]+)$",
);
const PAGES: Form = form(
    "statuses such as \"503\" or \"5xx\"",
    "^[45]([0-9][0-9]|xx)$",
);
const ANY_TEXT: Form = form("text", "");
const ALGORITHMS: Form = form("\"zstd\", \"br\" or \"gzip\"", "^(zstd|br|gzip)$");
const MEDIA_RANGE: Form = form(
    "a media type such as \"text/html\" or \"text/*\"",
    "^[^ ;*/]+/[^ ;/]+$",
);
const MEDIA_TYPE: Form = form("a media type such as \"text/html\"", "^[!-~]+/[!-~]+");
const STORE: Form = form(
    "an address such as \"redis://10.0.0.5:6379\"",
    "^redis://[!-~]+$",
);
const SERVER_NAME: Form = form(
    "a host name such as \"was.internal\", or an IP address",
    "^[A-Za-z0-9._:-]+$",
);
const TARGET: Form = form("a request target such as \"/healthz\"", "^/[!-\"$-~]*$");
const AUTHORITY: Form = form("a host, with or without a port", r"^[A-Za-z0-9._:\[\]-]+$");
const LIMIT_KEY: Form = form(
    "\"source\", \"header:NAME\", \"cookie:NAME\" or \"route\"",
    "^(source|route|(header|cookie):.+)$",
);
const RATE: Form = form("a rate such as \"10/s\"", "^[0-9]+/[smh]$");
const EXPECT: Form = form(
    "status codes such as \"200-399\" or \"200,204\", or with a udp check bytes",
    "^.+$",
);
const BYTES: Form = form("text, or bytes such as \"hex:000a ff\"", "^.+$");

const WATCH: Choice = words(&["auto", "poll", "off"]);
const LEVEL: Choice = words(&["error", "warn", "info", "debug"]);
const ACCESS_FORMAT: Choice = words(&["json", "combined"]);
const PROTOCOL: Choice = words(&["http", "tcp", "udp"]);
const PROXY_PROTOCOL: Choice = words(&["off", "accept", "require"]);
const PROXY_VERSION: Choice = words(&["off", "v1", "v2"]);
const PATH_CHECKS: Choice = words(&["strict", "off"]);
pub(super) const MODE: Choice = words(&[
    "insert",
    "cookie-hash",
    "route",
    "learn",
    "source",
    "header",
]);
const SESSIONS: Choice = words(&["local", "replicated", "shared"]);
const REBALANCE: Choice = words(&["off", "idle"]);
const ON_FAILURE: Choice = words(&["temporary", "permanent", "wait", "error"]);
const SAME_SITE: Choice = words(&["lax", "strict", "none"]);
const SECURE: Choice = words(&["auto", "always", "never"]);
const BALANCER: Choice = Choice {
    words: &[
        "round-robin",
        "least-connections",
        "least-sessions",
        "random-two",
        "maglev",
    ],
    later: &[
        "peak-ewma",
        "hash source",
        "hash uri",
        "hash header:",
        "hash cookie:",
    ],
};
const TLS_VERSION: Choice = words(&["1.2", "1.3"]);
const CLIENT_AUTH: Choice = words(&["off", "request", "require"]);
pub(super) const FILTER: Choice = words(&[
    "request-headers",
    "response-headers",
    "rewrite-path",
    "redirect",
    "respond",
    "request-id",
    "cors",
    "security-headers",
    "error-pages",
    "basic-auth",
    "access",
    "rate-limit",
    "compress",
]);
const FRAME: Choice = words(&["sameorigin", "deny", "off"]);
pub(super) const REFERRER: Choice = words(&[
    "strict-origin-when-cross-origin",
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "unsafe-url",
    "off",
]);
pub(super) const ALGORITHM: Choice = words(&["zstd", "br", "gzip"]);
const SCHEME: Choice = words(&["http", "https"]);
const STATE: Choice = words(&["ready", "drain", "maint"]);
const CHECK: Choice = words(&["tcp", "http", "grpc", "udp", "none"]);
const POOL_PROTOCOL: Choice = words(&["http1", "http2"]);
const SERVICE: Form = form(
    "the full name of a gRPC service, such as \"shop.v1.Cart\"",
    "^[A-Za-z0-9_.]*$",
);
const INITIAL: Choice = words(&["probe", "up", "down"]);

/// Every key, in the order of the reference.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    row("workers", Kind::Count { min: 0, max: 1024 }, Is("0"), Restart, "2",
        "Data-plane threads; 0 means one for each core that the process may use."),
    row("state_dir", Kind::Text(&FILE_PATH), Is("\"/var/lib/weir\""), Restart, "\"/srv/weir/state\"",
        "Where weir keeps states and secrets; if it cannot be written, they live in memory, with a warning."),
    row("secrets_file", Kind::Text(&FILE_PATH), Means("one is made and kept in state_dir"), Instant, "\"/etc/weir/secrets\"",
        "Base64 secrets of at least 32 bytes, one a line: the first seals cookies, all of them open; several weirs share it."),
    row("trusted_proxies", Kind::List(&NETWORK), Is("[]"), Instant, "[\"10.0.0.0/8\", \"2001:db8::1\"]",
        "Networks and addresses whose forwarding headers and PROXY headers are believed."),
    row("drain_timeout", Kind::Duration { min: 0 }, Is("\"30s\""), Instant, "\"2m\"",
        "How long a stopping process may finish what is open; a request whose backend or listener a reload removes ends by itself, without a bound, and a connection of a tcp listener after this time."),
    row("drain_delay", Kind::Duration { min: 0 }, Is("\"0s\""), Instant, "\"5s\"",
        "How long a stopping process still accepts after /readyz began to fail."),
    row("watch", Kind::Choice(&WATCH), Is("\"auto\""), Instant, "\"poll\"",
        "How a change of this file is noticed: by events and a look every 5 s, by the look alone, or not; SIGHUP always works."),

    row("timeouts", Kind::Table, Means("every default below"), NewConnections, "",
        "Every wait of a request; each may be set again on a route."),
    row("timeouts.header", WAIT, Is("\"10s\""), NewConnections, "\"5s\"",
        "A request head must be complete so long after its first byte; on a tcp listener the TLS handshake, or the ClientHello that its routes look at, so long after the accept."),
    row("timeouts.body_idle", WAIT, Is("\"30s\""), NewConnections, "\"10s\"",
        "Between two bytes of a request body."),
    row("timeouts.keep_alive", WAIT, Is("\"75s\""), NewConnections, "\"15s\"",
        "A client connection between two requests."),
    row("timeouts.connect", WAIT, Is("\"5s\""), NewConnections, "\"500ms\"",
        "One attempt to connect to a backend."),
    row("timeouts.response", WAIT, Is("\"60s\""), NewConnections, "\"10s\"",
        "From the request sent to the first byte of the answer."),
    row("timeouts.response_idle", WAIT, Is("\"5m\""), NewConnections, "\"1h\"",
        "Between two bytes of an answer; server-sent events live here."),
    row("timeouts.upgrade_idle", WAIT, Is("\"1h\""), NewConnections, "\"10m\"",
        "Between two bytes, in either direction, of a connection that was upgraded, or that a tcp listener relays; WebSockets and database sessions live here."),
    row("timeouts.udp_idle", WAIT, Is("\"60s\""), Instant, "\"10s\"",
        "Between two datagrams, in either direction, of one client of a udp listener; then its flow ends, and the next one begins another."),
    row("timeouts.upstream_idle", WAIT, Is("\"4s\""), NewConnections, "\"30s\"",
        "A pooled connection to a backend without a request; keep it under the backend's own keep-alive time."),

    row("limits", Kind::Table, Means("every default below"), NewConnections, "",
        "What the head of a message may be."),
    row("limits.head", Kind::Size { min: KIB, max: MIB }, Is("\"64KiB\""), NewConnections, "\"16KiB\"",
        "Bytes of a request or answer head, and of a trailer section."),
    row("limits.header_lines", Kind::Count { min: 16, max: 256 }, Is("128"), NewConnections, "64",
        "Header lines of a head or trailer section."),
    row("limits.min_body_rate", Kind::Size { min: 0, max: MIB }, Is("\"240B\""), Instant, "\"1KiB\"",
        "Bytes of a request body that a client must send in a second, on the average over the time that it was waited for, once that is 10 s; \"0B\" lets it take its time. It does not hold any more when the answer has begun."),

    row("http2", Kind::Table, Means("every default below"), NewConnections, "",
        "What a client may ask of one HTTP/2 connection; beyond the counts a second the connection is closed with GOAWAY. Its header fields obey `limits`."),
    row("http2.streams", Kind::Count { min: 1, max: 10_000 }, Is("100"), NewConnections, "250",
        "Requests at once."),
    row("http2.window", Kind::Size { min: 64 * KIB, max: 64 * MIB }, Is("\"1MiB\""), NewConnections, "\"256KiB\"",
        "Bytes of request bodies that may be on their way or waiting for a backend, of all its requests together; one has 64 KiB of them at most, or what this says if it is less."),
    row("http2.resets", Kind::Count { min: 1, max: 1_000_000 }, Is("200"), NewConnections, "50",
        "Streams that are reset in a second."),
    row("http2.pings", Kind::Count { min: 1, max: 1_000_000 }, Is("20"), NewConnections, "5",
        "PING frames in a second."),
    row("http2.settings", Kind::Count { min: 1, max: 1_000_000 }, Is("20"), NewConnections, "5",
        "SETTINGS frames in a second."),
    row("http2.empty_frames", Kind::Count { min: 1, max: 1_000_000 }, Is("200"), NewConnections, "50",
        "Frames in a second that carry nothing: empty DATA or HEADERS that end no stream, PRIORITY and unknown ones."),
    row("http2.continuations", Kind::Count { min: 1, max: 1_000_000 }, Is("200"), NewConnections, "50",
        "CONTINUATION frames in a second."),

    row("forwarding", Kind::Table, Means("every default below"), Instant, "",
        "Forwarding headers beside X-Forwarded-For, -Proto and -Host, which are always written."),
    row("forwarding.forwarded", Kind::Flag, Is("false"), Instant, "true",
        "Write Forwarded (RFC 7239)."),
    row("forwarding.via", Kind::Flag, Is("false"), Instant, "true",
        "Write Via (RFC 9110 section 7.6.3) on requests and answers."),

    row("admin", Kind::Table, Means("every default below"), Instant, "",
        "Metrics, health and status of weir itself."),
    row("admin.bind", Kind::Text(&ADMIN_ADDRESS), Is("\"127.0.0.1:9900\""), Rebind, "\"unix:/run/weir/admin.sock\"",
        "Where the admin server listens."),
    row("admin.token_file", Kind::Text(&FILE_PATH), Means("off loopback and unix sockets only /metrics, /healthz and /readyz are served"), Instant, "\"/etc/weir/token\"",
        "A file with the bearer token that opens the API off loopback and unix sockets."),

    row("log", Kind::Table, Means("every default below"), Instant, "",
        "The process log and the access log."),
    row("log.level", Kind::Choice(&LEVEL), Is("\"info\""), Instant, "\"debug\"",
        "The least important line that is written."),
    row("log.access", Kind::Text(&ACCESS), Is("\"stdout\""), Instant, "\"/var/log/weir/access.log\"",
        "Where access-log lines go: \"off\", \"stdout\" or a file, which is reopened on SIGHUP."),
    row("log.access_format", Kind::Choice(&ACCESS_FORMAT), Is("\"json\""), Instant, "\"combined\"",
        "How access-log lines look."),

    row("metrics", Kind::Table, Means("every default below"), Instant, "",
        "Bounds of the exported metrics."),
    row("metrics.max_series", Kind::Count { min: 100, max: 1_000_000 }, Is("10000"), Instant, "50000",
        "Label sets that may exist at once; later ones are counted under \"other\"."),

    row("listeners", Kind::Named, Required, Rebind, "",
        "Bound addresses, each listener under a name of its own."),
    row("listeners.*.bind", Kind::List(&ADDRESS), Required, Rebind, "[\"192.0.2.10:80\", \"[2001:db8::10]:80\"]",
        "Addresses and ports; one that is not on the machine yet may be named too."),
    row("listeners.*.protocol", Kind::Choice(&PROTOCOL), Is("\"http\""), Rebind, "\"http\"",
        "What is spoken there: requests, or with \"tcp\" bytes and with \"udp\" datagrams that weir only passes on."),
    row("listeners.*.max_connections", Kind::Count { min: 0, max: 10_000_000 }, Is("0"), Instant, "20000",
        "Connections at once over all workers, above which accepting pauses; 0 means no limit."),
    row("listeners.*.max_connections_per_source", Kind::Count { min: 0, max: 1_000_000 }, Is("0"), NewConnections, "100",
        "The same for each IPv4 address and each IPv6 /64; what comes above it is closed at once. Connections of trusted proxies do not count. 0 means no limit."),
    row("listeners.*.max_flows", Kind::Count { min: 1, max: 10_000_000 }, Is("65536"), Instant, "20000",
        "Clients of a udp listener, each address and port of them, that are served at once over all workers; one more ends the flow of another, at first of those that may be made up. Each holds a socket."),
    row("listeners.*.allow", Kind::List(&NETWORK), Means("everybody who is not denied"), Instant, "[\"10.0.0.0/8\", \"2001:db8::/32\"]",
        "Networks and addresses that may connect; nobody else may then. A trusted proxy may connect, and each of its requests is judged by the client's address."),
    row("listeners.*.deny", Kind::List(&NETWORK), Is("[]"), Instant, "[\"192.0.2.0/24\"]",
        "Networks and addresses that may not, whatever `allow` says."),
    row("listeners.*.proxy_protocol", Kind::Choice(&PROXY_PROTOCOL), Is("\"off\""), NewConnections, "\"require\"",
        "Whether a trusted proxy may, or must, say for whom it connects by a PROXY header (version 1 or 2) before everything else, within timeouts.header; limits and lists then hold for that client. With \"require\" connections of others are closed, with \"accept\" what they send is never taken for a header."),
    row("listeners.*.path_checks", Kind::Choice(&PATH_CHECKS), Is("\"strict\""), Instant, "\"off\"",
        "Whether paths that servers read differently (dot segments, encoded slashes) are refused."),
    row("listeners.*.http2", Kind::Flag, Is("true"), NewConnections, "false",
        "Whether HTTP/2 is spoken too: by ALPN with TLS, by prior knowledge without."),

    row("listeners.*.tls", Kind::Table, Means("plain connections"), NewConnections, "{ certificates = [{ cert = \"tls/shop.pem\", key = \"tls/shop.key\" }] }",
        "How TLS is spoken; a listener speaks it, or does not."),
    row("listeners.*.tls.strict_sni", Kind::Flag, Is("false"), NewConnections, "true",
        "Refuse clients that ask for no name, or for one that no certificate has; else they get the first certificate."),
    row("listeners.*.tls.min_version", Kind::Choice(&TLS_VERSION), Is("\"1.2\""), NewConnections, "\"1.3\"",
        "The oldest version of TLS that is spoken."),
    row("listeners.*.tls.client_auth", Kind::Choice(&CLIENT_AUTH), Is("\"off\""), NewConnections, "\"require\"",
        "Whether clients are asked for a certificate, and served without a good one; backends see it in Client-Cert and X-Client-Cert-Subject."),
    row("listeners.*.tls.client_ca", Kind::Text(&FILE_PATH), Means("client_auth must be \"off\""), NewConnections, "\"tls/clients.pem\"",
        "A PEM file of the authorities that may vouch for a client's certificate."),
    row("listeners.*.tls.certificates", Kind::Tables, Required, NewConnections, "[{ cert = \"tls/shop.pem\", key = \"tls/shop.key\" }]",
        "Certificates, chosen by the name that a client asks for; the first is for those that ask for none or for another. Their files are watched."),
    row("listeners.*.tls.certificates[].cert", Kind::Text(&FILE_PATH), Required, NewConnections, "\"tls/shop.pem\"",
        "A PEM file: the certificate, then those that lead to its root."),
    row("listeners.*.tls.certificates[].key", Kind::Text(&FILE_PATH), Required, NewConnections, "\"tls/shop.key\"",
        "A PEM file with its private key, EC or RSA."),

    row("listeners.*.rate_limit", Kind::Table, Means("no limit"), Instant, "{ rate = \"100/s\", burst = 200 }",
        "How many requests each client address may send, whatever route they take; who sends more is answered 429. On a tcp listener: how many connections it may open; more are closed."),
    row("listeners.*.rate_limit.rate", Kind::Text(&RATE), Required, Instant, "\"100/s\"",
        "Requests in the long run: a number for each second (s), minute (m) or hour (h)."),
    row("listeners.*.rate_limit.burst", Kind::Count { min: 1, max: 1_000_000 }, Means("the number of the rate"), Instant, "200",
        "Requests at once after a rest."),
    row("listeners.*.rate_limit.prefix_v4", Kind::Count { min: 1, max: 32 }, Is("32"), Instant, "24",
        "How many bits of an IPv4 address tell clients apart."),
    row("listeners.*.rate_limit.prefix_v6", Kind::Count { min: 1, max: 128 }, Is("64"), Instant, "56",
        "How many bits of an IPv6 address tell clients apart."),
    row("listeners.*.rate_limit.max_keys", Kind::Count { min: 64, max: 10_000_000 }, Is("65536"), Instant, "500000",
        "Clients that are told apart at once; those that come while so many are busy share what others have left. One costs 32 to 64 bytes, used or not."),


    row("pools", Kind::Named, Means("no pool"), Instant, "",
        "Sets of backends, each pool under a name of its own."),
    row("pools.*.protocol", Kind::Choice(&POOL_PROTOCOL), Is("\"http1\""), Instant, "\"http2\"",
        "What the backends speak; \"http2\" is for gRPC, and needs backends that take it without an upgrade. WebSockets need \"http1\"."),
    row("pools.*.proxy_protocol", Kind::Choice(&PROXY_VERSION), Is("\"off\""), Instant, "\"v2\"",
        "The PROXY header that each connection to a backend begins with, checks included: a line of text, or the binary one, which also tells of TLS. A connection speaks for one client, and so serves one request of HTTP."),
    row("pools.*.transparent", Kind::Flag, Is("false"), Instant, "true",
        "Whether connections and datagrams to the backends, but for checks, come from the client's address. It needs the capability CAP_NET_ADMIN, and backends that route their answers by way of this machine: see config/transparent. A connection is of one client, and so serves one request of HTTP."),
    row("pools.*.balancer", Kind::Choice(&BALANCER), Is("\"round-robin\""), Instant, "\"least-connections\"",
        "Chooses a backend for new work; \"maglev\" by the client's address alone (of IPv6 its /64), alike in every weir with the same pool."),
    row("pools.*.max_idle", Kind::Count { min: 0, max: 65_536 }, Is("256"), Instant, "32",
        "Idle connections kept for reuse, per worker and backend."),
    row("pools.*.slow_start", Kind::Duration { min: 1000 }, Means("a backend has its full share at once"), Instant, "\"30s\"",
        "How long a backend that is new, or comes up again, takes to its full share of new clients, from a tenth of it on; backends that come up together share evenly at once."),
    row("pools.*.max_sessions", Kind::Count { min: 100, max: 10_000_000 }, Is("100000"), Instant, "1000000",
        "Live sessions that are kept count of, on pools that a sticky route leads to; beyond about as many the longest idle ones are forgotten first, and with the sticky mode \"learn\" their clients with them. One costs 32 to 64 bytes, used or not."),
    row("pools.*.backends", Kind::TextOrTables(&ADDRESS), Required, Instant, "[\"10.0.0.11:8080\", { address = \"10.0.0.12:8080\", weight = 2 }]",
        "The servers: an address for short, or a table."),
    row("pools.*.backends[].name", Kind::Text(&BACKEND_NAME), Means("its address"), Instant, "\"was1\"",
        "What metrics, logs and cookies call it."),
    row("pools.*.backends[].route", Kind::Text(&BACKEND_NAME), Means("its name"), Instant, "\"jvm1\"",
        "What the application's session ids end in there (Tomcat: jvmRoute), for the sticky mode \"route\"."),
    row("pools.*.backends[].address", Kind::Text(&ADDRESS), Required, Instant, "\"10.0.0.11:8080\"",
        "IP address and port."),
    row("pools.*.backends[].weight", Kind::Count { min: 1, max: 256 }, Is("1"), Instant, "2",
        "Its share of new work beside the others'."),
    row("pools.*.backends[].state", Kind::Choice(&STATE), Is("\"ready\""), Instant, "\"drain\"",
        "Takes new work, keeps only the clients it has, or takes nothing."),
    row("pools.*.health", Kind::Table, Means("a tcp check with the defaults below"), Instant, "{ type = \"http\", path = \"/healthz\" }",
        "The active check of every backend of the pool."),
    row("pools.*.health.type", Kind::Choice(&CHECK), Is("\"tcp\""), Instant, "\"http\"",
        "What is asked: that a connection is accepted, that a GET is answered well, that the gRPC health service says SERVING, that a datagram is answered, or nothing. Without it a pool that only udp listeners lead to is not checked."),
    row("pools.*.health.path", Kind::Text(&TARGET), Is("\"/\""), Instant, "\"/healthz\"",
        "What an http check asks for."),
    row("pools.*.health.host", Kind::Text(&AUTHORITY), Means("the backend's address"), Instant, "\"shop.example.com\"",
        "The Host header of an http check, the authority of a grpc one."),
    row("pools.*.health.service", Kind::Text(&SERVICE), Is("\"\""), Instant, "\"shop.v1.Cart\"",
        "The service that a grpc check asks for; empty means the server as a whole."),
    row("pools.*.health.send", Kind::Text(&BYTES), Means("required with \"udp\""), Instant, "\"hex:1234 0100 0001 0000 0000 0000 00 0002 0001\"",
        "With \"udp\": the datagram that is sent; here a DNS query for the name servers of the root."),
    row("pools.*.health.expect", Kind::Text(&EXPECT), Means("\"200-399\"; any answer with \"udp\""), Instant, "\"200,204\"",
        "The status codes that mean health to an http check; with \"udp\" the bytes that the answer must begin with, such as \"hex:1234\"."),
    row("pools.*.health.interval", Kind::Duration { min: 10 }, Is("\"2s\""), Instant, "\"5s\"",
        "Between the starts of two checks of one backend, spread by up to a tenth; at most 500ms until the first one has passed."),
    row("pools.*.health.timeout", Kind::Duration { min: 1 }, Is("\"1s\""), Instant, "\"500ms\"",
        "After which a check has failed."),
    row("pools.*.health.fall", Kind::Count { min: 1, max: 1000 }, Is("3"), Instant, "2",
        "Failures in a row until the backend is down."),
    row("pools.*.health.rise", Kind::Count { min: 1, max: 1000 }, Is("2"), Instant, "1",
        "Successes in a row until a backend that was down is up again; a new one needs a single one."),
    row("pools.*.health.initial", Kind::Choice(&INITIAL), Is("\"probe\""), Instant, "\"up\"",
        "What a backend is before the first verdict: \"probe\" uses it only while the pool has none that is up."),
    row("pools.*.tls", Kind::FlagOrTable, Means("plain connections"), Instant, "true",
        "How TLS is spoken to the backends, by health checks too; true means with the defaults below."),
    row("pools.*.tls.ca", Kind::Text(&FILE_PATH), Means("the authorities that the system trusts"), Instant, "\"tls/internal-ca.pem\"",
        "A PEM file of the authorities that may vouch for a backend."),
    row("pools.*.tls.sni", Kind::Text(&SERVER_NAME), Means("its IP address"), Instant, "\"was.internal\"",
        "The name that every backend is asked for and must prove to have."),
    row("pools.*.tls.cert", Kind::Text(&FILE_PATH), Means("weir shows none"), Instant, "\"tls/weir.pem\"",
        "A PEM file with the certificate that weir shows to a backend that asks for one."),
    row("pools.*.tls.key", Kind::Text(&FILE_PATH), Means("weir shows none"), Instant, "\"tls/weir.key\"",
        "A PEM file with its private key."),
    row("pools.*.tls.verify", Kind::Flag, Is("true"), Instant, "true",
        "Whether a backend must prove anything; with false whoever is on the way can read and change everything."),

    row("routes", Kind::Tables, Means("every request is answered 404"), Instant, "",
        "What leads where: exact host, then longest suffix, then any; longest path; most conditions; file order."),
    row("routes[].name", Kind::Text(&NAME), Means("its match as text, such as shop.example.com/cart"), Instant, "\"cart\"",
        "What metrics and logs call it."),
    row("routes[].listeners", Kind::List(&NAME), Means("every http listener; every tcp one with `sni` or `alpn`, or where there is no http listener"), Instant, "[\"web\"]",
        "The listeners that it holds for, all of one protocol."),
    row("routes[].hosts", Kind::List(&HOST), Means("any host"), Instant, "[\"shop.example.com\", \"*.shop.example.com\"]",
        "Exact names, or \"*.\" and a suffix for any number of labels before it."),
    row("routes[].path", Kind::Text(&PATH), Is("\"/\""), Instant, "\"/cart\"",
        "A prefix of the path in normal form, on segment boundaries."),
    row("routes[].methods", Kind::List(&METHOD), Means("any method"), Instant, "[\"GET\", \"HEAD\"]",
        "Request methods, one of which must be used."),
    row("routes[].headers", Kind::Headers, Is("{}"), Instant, "{ \"x-beta\" = \"1\", \"x-any\" = true }",
        "Headers that must all be there: with this value, or with any (true)."),
    row("routes[].sni", Kind::List(&SNI), Means("any connection"), Instant, "[\"db.example.com\", \"*.db.example.com\"]",
        "On tcp listeners: names that a TLS client asks for (SNI), exact or \"*.\" and a suffix; TLS passes through untouched unless the listener has `tls`."),
    row("routes[].alpn", Kind::List(&ALPN), Means("any connection"), Instant, "[\"h2\", \"http/1.1\"]",
        "On tcp listeners: protocols (ALPN), one of which a TLS client offers; not where the listener has `tls`."),
    row("routes[].pool", Kind::Text(&NAME), Means("required, unless its filters answer every request"), Instant, "\"was\"",
        "The pool that it leads to."),
    row("routes[].replies", Kind::Count { min: 1, max: 1000 }, Means("any number"), Instant, "1",
        "On udp listeners: how many datagrams answer one of a client's, as one does in DNS. A flow with all of its answers ends after a second, and is the first to give way to another."),
    row("routes[].max_body", Kind::Size { min: 0, max: 1 << 50 }, Means("no limit"), Instant, "\"10MiB\"",
        "Bytes that a request body may have."),
    row("routes[].timeouts", Kind::Table, Means("those of the file"), NewConnections, "{ response = \"5m\" }",
        "Any of the timeouts, for this route alone."),
    again("routes[].timeouts.header", "\"20s\"", "See timeouts.header."),
    again("routes[].timeouts.body_idle", "\"2m\"", "See timeouts.body_idle."),
    again("routes[].timeouts.keep_alive", "\"5s\"", "See timeouts.keep_alive."),
    again("routes[].timeouts.connect", "\"1s\"", "See timeouts.connect."),
    again("routes[].timeouts.response", "\"5m\"", "See timeouts.response."),
    again("routes[].timeouts.response_idle", "\"24h\"", "See timeouts.response_idle."),
    again("routes[].timeouts.upgrade_idle", "\"24h\"", "See timeouts.upgrade_idle."),
    again("routes[].timeouts.udp_idle", "\"10s\"", "See timeouts.udp_idle."),
    again("routes[].timeouts.upstream_idle", "\"1s\"", "See timeouts.upstream_idle."),
    row("routes[].sticky", Kind::Table, Means("not sticky"), Instant, "{ mode = \"insert\" }",
        "Keeps a client on the backend that it already has."),
    row("routes[].sticky.mode", Kind::Choice(&MODE), Required, Instant, "\"insert\"",
        "What a client is known by: \"insert\" is weir's sealed cookie that names the backend, \"cookie-hash\" a random one whose hash does; \"route\" is the suffix of the application's session id, \"learn\" that id as weir saw it being set, \"source\" the client's address, \"header\" a request header."),
    row("routes[].sticky.sessions", Kind::Choice(&SESSIONS), Is("\"local\""), Instant, "\"replicated\"",
        "Where the application keeps its sessions: in the memory of one server, of several, or in a store apart; the last two hand clients over when a backend drains."),
    row("routes[].sticky.on_failure", Kind::Choice(&ON_FAILURE), Means("\"permanent\" with \"insert\", \"cookie-hash\" and \"learn\" unless sessions are local, else \"temporary\""), Instant, "\"temporary\"",
        "What happens while the backend of a client cannot serve: another one until it can again, another one for good, its requests are held for `wait` in case it comes back and then as with \"temporary\", or a 503."),
    row("routes[].sticky.wait", WAIT, Is("\"2s\""), Instant, "\"5s\"",
        "With on_failure = \"wait\": how long a request is held for its client's backend, which may pause; a backend that is down for longer is not waited for."),
    row("routes[].sticky.balance_factor", Kind::Fraction { max: 1000 }, Is("0.25"), Instant, "0.1",
        "No new client goes to a backend that has its part of the pool's live sessions and this much of it besides; with sessions = \"shared\" no request does that finds as much in flight, if that is eight requests or more."),
    row("routes[].sticky.first_flight", Kind::Flag, Is("false"), Instant, "true",
        "Whether parallel requests without a session from one address and user agent go to one backend until the first answer, as the first requests of one browser should."),
    row("routes[].sticky.rebalance", Kind::Choice(&REBALANCE), Is("\"off\""), Instant, "\"idle\"",
        "Whether idle clients move from a backend with more than its part of the live sessions, and `balance_factor` of that besides, to one with fewer; not where sessions are local."),
    row("routes[].sticky.rebalance_idle", Kind::Duration { min: 1000 }, Is("\"1m\""), Instant, "\"5m\"",
        "With rebalance = \"idle\": how long the session of a client that moves was not used."),
    row("routes[].sticky.rebalance_rate", Kind::Count { min: 1, max: 1_000_000 }, Is("10"), Instant, "100",
        "With rebalance = \"idle\": how many clients of the pool move in a second at most."),
    row("routes[].sticky.session_cookie", Kind::Text(&COOKIE_NAME), Is("\"JSESSIONID\""), Instant, "\"PHPSESSID\"",
        "The cookie of the application's sessions: \"learn\" knows clients by it, \"route\" reads it (also as a path parameter); a client that gets one while away from its backend stays there."),
    row("routes[].sticky.idle_timeout", Kind::Duration { min: 4000 }, Is("\"30m\""), Instant, "\"8h\"",
        "A session that was not seen for so long counts as ended, and \"learn\" forgets it; \"insert\" forgets its client then, or up to a quarter later. Not less than the application's own session timeout."),
    row("routes[].sticky.absolute_timeout", Kind::Duration { min: 1000 }, Means("never"), Instant, "\"12h\"",
        "With \"insert\" a client is forgotten so long after it came first, with \"learn\" so long after its session was opened."),
    row("routes[].sticky.store", Kind::Text(&STORE), Means("each weir remembers for itself"), Instant, "\"redis://:secret@10.0.0.5:6379/0\"",
        "With \"learn\": a Redis server, redis://[user:password@]host:port[/database], where several weirs with one secrets_file share what they learn. While it is slow or down each goes on by itself."),
    row("routes[].sticky.rehome_after", Kind::Duration { min: 1000 }, Is("\"10m\""), Instant, "\"1m\"",
        "With \"insert\" and on_failure = \"temporary\" or \"wait\": a client that is away from its backend for so long does not go back."),
    row("routes[].sticky.header", Kind::Text(&HEADER_NAME), Means("none; the mode \"header\" needs it"), Instant, "\"x-user\"",
        "With \"header\": the request header that a client is known by."),
    row("routes[].sticky.prefix_v4", Kind::Count { min: 1, max: 32 }, Is("32"), Instant, "24",
        "With \"source\": how many bits of an IPv4 address tell clients apart."),
    row("routes[].sticky.prefix_v6", Kind::Count { min: 1, max: 128 }, Is("64"), Instant, "56",
        "With \"source\": how many bits of an IPv6 address tell clients apart."),
    row("routes[].sticky.cookie", Kind::TextOrTable(&COOKIE_NAME), Means("every default below"), Instant, "\"shop_server\"",
        "With \"insert\" and \"cookie-hash\": weir's own cookie, its name for short, or a table."),
    row("routes[].sticky.cookie.name", Kind::Text(&COOKIE_NAME), Means("weir_ and the pool's name"), Instant, "\"shop_server\"",
        "Its name."),
    row("routes[].sticky.cookie.path", Kind::Text(&COOKIE_PATH), Is("\"/\""), Instant, "\"/shop\"",
        "Its Path attribute."),
    row("routes[].sticky.cookie.domain", Kind::Text(&COOKIE_DOMAIN), Means("the host alone"), Instant, "\"example.com\"",
        "Its Domain attribute."),
    row("routes[].sticky.cookie.same_site", Kind::Choice(&SAME_SITE), Is("\"lax\""), Instant, "\"strict\"",
        "Its SameSite attribute; browsers want Secure with \"none\"."),
    row("routes[].sticky.cookie.http_only", Kind::Flag, Is("true"), Instant, "false",
        "Whether scripts in the browser cannot read it."),
    row("routes[].sticky.cookie.secure", Kind::Choice(&SECURE), Is("\"auto\""), Instant, "\"always\"",
        "Its Secure attribute: when the client came by TLS or a trusted proxy says so, always, or never."),
    row("routes[].sticky.cookie.max_age", Kind::Duration { min: 1000 }, Means("until the browser closes"), Instant, "\"24h\"",
        "Its Max-Age attribute."),
    row("routes[].filters", Kind::Tables, Means("requests and answers pass as they are"), Instant, "",
        "Steps on the way to the backend and back, in the order written. Texts may have variables in them: {client_ip}, {client_port}, {request_id}, {host}, {method}, {path}, {query}, {scheme}, {listener}, {route}, {pool}, {sni}, {user}, and in answers {backend}."),
    row("routes[].filters[].type", Kind::Choice(&FILTER), Required, Instant, "\"request-headers\"",
        "What the step does."),
    row("routes[].filters[].remove", Kind::List(&HEADER_NAME), Is("[]"), Instant, "[\"x-debug\"]",
        "With \"request-headers\" and \"response-headers\": headers that go, first of all; `_` counts as `-`."),
    row("routes[].filters[].set", Kind::Texts(&HEADER_NAMES), Is("{}"), Instant, "{ \"X-Client\" = \"{client_ip}\" }",
        "With \"request-headers\" and \"response-headers\": headers that get one line with this value, whatever there was; then."),
    row("routes[].filters[].add", Kind::Texts(&HEADER_NAMES), Is("{}"), Instant, "{ \"X-Via\" = \"{listener}\" }",
        "With \"request-headers\" and \"response-headers\": headers that get a line beside those that are there; last."),
    row("routes[].filters[].prefix", Kind::Text(&PATH), Means("none; \"rewrite-path\" needs it or regex"), Instant, "\"/shop\"",
        "With \"rewrite-path\": the prefix, on segment boundaries, that gives way to `to`."),
    row("routes[].filters[].regex", Kind::Text(&REGEX), Means("none; \"rewrite-path\" needs it or prefix"), Instant, "\"^/old/(.*)$\"",
        "With \"rewrite-path\": an expression over the path as it was sent, or else over its normal form; a path that it matches gives way to `to`."),
    row("routes[].filters[].to", Kind::Text(&PATH), Means("none; \"rewrite-path\" needs it"), Instant, "\"/new/$1\"",
        "With \"rewrite-path\": what comes instead; with `regex` $1 and ${name} are its groups. The query stays."),
    row("routes[].filters[].scheme", Kind::Choice(&SCHEME), Means("that of the request"), Instant, "\"https\"",
        "With \"redirect\": the scheme of the new place."),
    row("routes[].filters[].host", Kind::Text(&REDIRECT_HOST), Means("that of the request"), Instant, "\"www.{host}\"",
        "With \"redirect\": the host of the new place."),
    row("routes[].filters[].port", Kind::Count { min: 1, max: 65_535 }, Means("that of the request, or with another scheme or host that of the scheme"), Instant, "8443",
        "With \"redirect\": the port of the new place."),
    row("routes[].filters[].path", Kind::Text(&REDIRECT_PATH), Means("that of the request, as earlier filters left it"), Instant, "\"/new{path}\"",
        "With \"redirect\": the path of the new place; the query stays, unless there is a `?`."),
    row("routes[].filters[].code", Kind::Count { min: 301, max: 308 }, Is("308"), Instant, "302",
        "With \"redirect\": 301, 302 or 303; or 307 or 308, which keep the method."),
    row("routes[].filters[].status", Kind::Count { min: 200, max: 599 }, Is("200"), Instant, "503",
        "With \"respond\": the status of the answer."),
    row("routes[].filters[].body", Kind::Text(&ANY_TEXT), Means("none"), Instant, "\"closed for the holidays\"",
        "With \"respond\": the body of the answer."),
    row("routes[].filters[].content_type", Kind::Text(&MEDIA_TYPE), Is("\"text/plain; charset=utf-8\""), Instant, "\"application/json\"",
        "With \"respond\": what the body is."),
    row("routes[].filters[].header", Kind::Text(&HEADER_NAME), Is("\"X-Request-Id\""), Instant, "\"X-Correlation-Id\"",
        "With \"request-id\": the header that backend and client see the id in; who is in trusted_proxies may bring one."),
    row("routes[].filters[].origins", Kind::List(&ORIGIN), Means("none; \"cors\" needs it"), Instant, "[\"https://shop.example.com\", \"https://*.example.com\"]",
        "With \"cors\": the origins whose scripts may read answers; \"*\" is any."),
    row("routes[].filters[].methods", Kind::List(&METHOD), Is("[\"GET\", \"HEAD\", \"POST\"]"), Instant, "[\"GET\", \"PUT\", \"DELETE\"]",
        "With \"cors\": the methods that they may use."),
    row("routes[].filters[].headers", Kind::List(&HEADER_NAME), Is("[]"), Instant, "[\"Content-Type\", \"X-Token\"]",
        "With \"cors\": the request headers that they may set, beside those that need no asking."),
    row("routes[].filters[].expose", Kind::List(&HEADER_NAME), Is("[]"), Instant, "[\"X-Total\"]",
        "With \"cors\": the answer headers that they may read, beside the usual ones."),
    row("routes[].filters[].credentials", Kind::Flag, Is("false"), Instant, "true",
        "With \"cors\": whether their requests carry cookies; not with origins = [\"*\"]."),
    row("routes[].filters[].max_age", Kind::Duration { min: 0 }, Is("\"10m\""), Instant, "\"1h\"",
        "With \"cors\": how long a browser need not ask again."),
    row("routes[].filters[].hsts", Kind::Duration { min: 0 }, Means("not sent: it binds browsers for as long"), Instant, "\"8760h\"",
        "With \"security-headers\": how long browsers use TLS alone (Strict-Transport-Security); sent to clients that came by TLS."),
    row("routes[].filters[].hsts_subdomains", Kind::Flag, Is("false"), Instant, "true",
        "With \"security-headers\": whether that holds for every name below the host, too."),
    row("routes[].filters[].nosniff", Kind::Flag, Is("true"), Instant, "false",
        "With \"security-headers\": X-Content-Type-Options: nosniff."),
    row("routes[].filters[].frame_options", Kind::Choice(&FRAME), Is("\"sameorigin\""), Instant, "\"deny\"",
        "With \"security-headers\": X-Frame-Options: who may show a page in a frame."),
    row("routes[].filters[].referrer_policy", Kind::Choice(&REFERRER), Is("\"strict-origin-when-cross-origin\""), Instant, "\"no-referrer\"",
        "With \"security-headers\": Referrer-Policy: what other places are told of where a visitor came from."),
    row("routes[].filters[].content_security_policy", Kind::Text(&ANY_TEXT), Means("not sent"), Instant, "\"default-src 'self'\"",
        "With \"security-headers\": Content-Security-Policy."),
    row("routes[].filters[].permissions_policy", Kind::Text(&ANY_TEXT), Means("not sent"), Instant, "\"camera=()\"",
        "With \"security-headers\": Permissions-Policy. A header that the backend sends stays as it is, be it this or another of them."),
    row("routes[].filters[].pages", Kind::Texts(&PAGES), Means("none; \"error-pages\" needs it"), Instant, "{ \"503\" = \"errors/503.html\", \"5xx\" = \"errors/5xx.html\" }",
        "With \"error-pages\": files of at most 64 KiB that weir answers with where it answers such a status itself; {request_id} in them is the request's. Read at every load; what cannot be read refuses it."),
    row("routes[].filters[].realm", Kind::Text(&ANY_TEXT), Is("\"Restricted\""), Instant, "\"Staging\"",
        "With \"basic-auth\": what the browser's dialogue shows."),
    row("routes[].filters[].users_file", Kind::Text(&FILE_PATH), Means("none; \"basic-auth\" needs it"), Instant, "\"/etc/weir/users\"",
        "With \"basic-auth\": lines of name:hash, each hash argon2id or bcrypt. Read at every load; what cannot be read refuses it."),
    row("routes[].filters[].forward", Kind::Flag, Is("false"), Instant, "true",
        "With \"basic-auth\": whether the backend gets the Authorization header, too."),
    row("routes[].filters[].allow", Kind::List(&NETWORK), Means("everybody who is not denied"), Instant, "[\"10.0.0.0/8\"]",
        "With \"access\": networks and addresses of clients that may come in; nobody else may then, and is answered 403."),
    row("routes[].filters[].deny", Kind::List(&NETWORK), Is("[]"), Instant, "[\"192.0.2.0/24\"]",
        "With \"access\": networks and addresses of clients that may not, whatever `allow` says."),
    row("routes[].filters[].rate", Kind::Text(&RATE), Means("none; \"rate-limit\" needs it"), Instant, "\"10/s\"",
        "With \"rate-limit\": requests in the long run, as a number for each second (s), minute (m) or hour (h); what comes above is answered 429."),
    row("routes[].filters[].burst", Kind::Count { min: 1, max: 1_000_000 }, Means("the number of the rate"), Instant, "20",
        "With \"rate-limit\": requests at once after a rest."),
    row("routes[].filters[].key", Kind::Text(&LIMIT_KEY), Is("\"source\""), Instant, "\"header:x-api-key\"",
        "With \"rate-limit\": what is counted together: clients of one address (\"source\"), requests with one value of a header (\"header:NAME\") or cookie (\"cookie:NAME\"), where those without it count together too, or all requests (\"route\")."),
    row("routes[].filters[].prefix_v4", Kind::Count { min: 1, max: 32 }, Is("32"), Instant, "24",
        "With \"rate-limit\" and key = \"source\": how many bits of an IPv4 address tell clients apart."),
    row("routes[].filters[].prefix_v6", Kind::Count { min: 1, max: 128 }, Is("64"), Instant, "56",
        "With \"rate-limit\" and key = \"source\": how many bits of an IPv6 address tell clients apart."),
    row("routes[].filters[].max_keys", Kind::Count { min: 64, max: 10_000_000 }, Is("65536"), Instant, "500000",
        "With \"rate-limit\": how many are told apart at once; see listeners.*.rate_limit.max_keys."),
    row("routes[].filters[].algorithms", Kind::List(&ALGORITHMS), Means("all: \"zstd\", \"br\", \"gzip\""), Instant, "[\"gzip\"]",
        "With \"compress\": the codings that clients are offered; of several that a client likes alike the first is taken. A page that holds a secret beside what a request brought gives the secret away by its compressed size (BREACH): leave it out on such routes."),
    row("routes[].filters[].min_size", Kind::Size { min: 0, max: 1 << 30 }, Is("\"1KiB\""), Instant, "\"4KiB\"",
        "With \"compress\": bytes that a body of known length has at least."),
    row("routes[].filters[].types", Kind::List(&MEDIA_RANGE), Means("text/*, and the usual ones of JSON, JavaScript, XML, SVG and WebAssembly"), Instant, "[\"text/*\", \"application/json\"]",
        "With \"compress\": the media types of answers that are compressed. text/event-stream only by its full name: each open stream then holds a compressor."),
    row("routes[].filters[].level", Kind::Count { min: 1, max: 9 }, Means("3 for zstd, 1 for br, 2 for gzip"), Instant, "5",
        "With \"compress\": how hard each algorithm tries. Without it one answer costs about as much as a gzip of level 1 does elsewhere, zstd half of that; br of level 4 costs three times as much as gzip of level 2 for a twentieth less."),
];

/// Keys of later versions, so that a reader of the documentation learns why they are refused.
pub const LATER: &[&str] = &[
    "discovery",
    "datapath",
    "listeners.*.sni",
    "pools.*.discovery",
    "pools.*.outlier",
    "pools.*.queue",
    "routes[].rewrite",
    "routes[].redirect",
    "routes[].limits",
    "routes[].retries",
];

const WAIT: Kind = Kind::Duration { min: 1 };

const fn row(
    path: &'static str,
    kind: Kind,
    default: Default,
    reload: Reload,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        reload,
        doc,
        example,
    }
}

/// A route's own setting of one of the file's timeouts.
const fn again(path: &'static str, example: &'static str, doc: &'static str) -> Key {
    let default = Means("that of the file");
    row(path, WAIT, default, NewConnections, example, doc)
}

const fn form(what: &'static str, pattern: &'static str) -> Form {
    Form { what, pattern }
}

const fn words(words: &'static [&'static str]) -> Choice {
    Choice { words, later: &[] }
}
