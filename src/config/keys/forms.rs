//! What a text of the configuration must look like, in words for people and as a pattern for editors.
//! It holds data only; whether a text is right is for `values/` to say.
//! The walk goes back to `keys.rs`, which uses it.

use crate::config::schema::Form;

pub(super) const FILE_PATH: Form = form("a file path", ".");
pub(super) const NETWORK: Form = form(
    "a network such as \"10.0.0.0/8\"",
    "^[0-9A-Fa-f:.]+(/[0-9]+)?$",
);
pub(super) const ADDRESS: Form = form(
    "an address such as \"192.0.2.10:80\" or \"[2001:db8::10]:80\"",
    r"^([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]+$",
);
pub(super) const DOMAIN_NAME: Form = form(
    "a name such as \"was.internal\"",
    r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$",
);
pub(super) const NAME_SERVER: Form = form(
    "the address of a name server, such as \"10.0.0.53\" or \"10.0.0.53:5353\"",
    r"^([0-9.]+(:[0-9]+)?|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\](:[0-9]+)?)$",
);
pub(super) const LIST_URL: Form = form(
    "a URL such as \"http://10.0.0.5:8500/backends.json\"",
    "^http://.+",
);
pub(super) const ADMIN_ADDRESS: Form = form(
    "an address such as \"127.0.0.1:9900\", or \"unix:/run/weir/admin.sock\"",
    r"^(unix:.+|([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]+)$",
);
pub(super) const ACCESS: Form = form("\"off\", \"stdout\" or a file path", "^(off|stdout|.*/.*)$");
pub(super) const NAME: Form = form("a name of a-z, 0-9, \"_\" and \"-\"", "^[a-z0-9_-]+$");
pub(super) const BACKEND_NAME: Form = form("a name without \"/\" and blanks", "^[!-.0-~]+$");
pub(super) const HOST: Form = form(
    "a host name such as \"shop.example.com\" or \"*.example.com\"",
    r"^(\*\.)?[A-Za-z0-9_.-]+$|^\[[0-9A-Fa-f:.]+\]$",
);
pub(super) const PATH: Form = form("a path such as \"/cart\"", "^/");
pub(super) const SNI: Form = form(
    "a server name such as \"db.example.com\" or \"*.example.com\"",
    r"^(\*\.)?[A-Za-z0-9_.-]+$",
);
pub(super) const ALPN: Form = form("a protocol such as \"h2\"", "^[!-~]{1,255}$");
pub(super) const METHOD: Form = form("a method such as \"GET\"", "^[!#$%&'*+.^_`|~0-9A-Z-]+$");
pub(super) const COOKIE_NAME: Form = form("a cookie name", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
pub(super) const COOKIE_PATH: Form = form("a path such as \"/\"", "^/[^;]*$");
pub(super) const COOKIE_DOMAIN: Form = form("a domain such as \"example.com\"", "^[A-Za-z0-9.-]+$");
pub(super) const HEADER_NAME: Form = form(
    "a header name such as \"x-user\"",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
);
pub(super) const HEADER_NAMES: Form = form(
    "header names, each with its value",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
);
pub(super) const REGEX: Form = form("a regular expression", ".");
pub(super) const REDIRECT_HOST: Form =
    form("a host such as \"www.{host}\"", r"^[A-Za-z0-9._:{}\[\]-]+$");
pub(super) const REDIRECT_PATH: Form = form("a path such as \"/new{path}\"", "^(/|\\{path\\})");
pub(super) const ORIGIN: Form = form(
    "an origin such as \"https://shop.example.com\" or \"https://*.example.com\", or \"*\"",
    "^([*]|[a-z][a-z0-9+.-]*://[^/]+)$",
);
pub(super) const PAGES: Form = form(
    "statuses such as \"503\" or \"5xx\"",
    "^[45]([0-9][0-9]|xx)$",
);
pub(super) const ANY_TEXT: Form = form("text", "");
pub(super) const ALGORITHMS: Form = form("\"zstd\", \"br\" or \"gzip\"", "^(zstd|br|gzip)$");
pub(super) const MEDIA_RANGE: Form = form(
    "a media type such as \"text/html\" or \"text/*\"",
    "^[^ ;*/]+/[^ ;/]+$",
);
pub(super) const MEDIA_TYPE: Form = form("a media type such as \"text/html\"", "^[!-~]+/[!-~]+");
pub(super) const STORE: Form = form(
    "an address such as \"redis://10.0.0.5:6379\"",
    "^redis://[!-~]+$",
);
pub(super) const SERVER_NAME: Form = form(
    "a host name such as \"was.internal\", or an IP address",
    "^[A-Za-z0-9._:-]+$",
);
pub(super) const TARGET: Form = form("a request target such as \"/healthz\"", "^/[!-\"$-~]*$");
pub(super) const AUTHORITY: Form =
    form("a host, with or without a port", r"^[A-Za-z0-9._:\[\]-]+$");
pub(super) const LIMIT_KEY: Form = form(
    "\"source\", \"header:NAME\", \"cookie:NAME\" or \"route\"",
    "^(source|route|(header|cookie):.+)$",
);
pub(super) const RATE: Form = form("a rate such as \"10/s\"", "^[0-9]+/[smh]$");
pub(super) const EXPECT: Form = form(
    "status codes such as \"200-399\" or \"200,204\", or with a tcp or udp check bytes",
    "^.+$",
);
pub(super) const RETRY_CAUSES: Form = form(
    "\"connect\", \"reset\", \"5xx\" or \"timeout\"",
    "^(connect|reset|5xx|timeout)$",
);
pub(super) const STATUSES: Form = form(
    "status codes such as \"502-504\" or \"500,503\"",
    "^[0-9, -]+$",
);
pub(super) const BYTES: Form = form("text, or bytes such as \"hex:000a ff\"", "^.+$");
pub(super) const SERVICE: Form = form(
    "the full name of a gRPC service, such as \"shop.v1.Cart\"",
    "^[A-Za-z0-9_.]*$",
);

const fn form(what: &'static str, pattern: &'static str) -> Form {
    Form { what, pattern }
}
