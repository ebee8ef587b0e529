//! What the fuzz targets do with their bytes: one file a target, and each is also an ordinary test (`test.rs`).
//! A target never looks at how weir does a thing, only at what it promises; it panics when a promise is broken.
//! Read `support.rs` first: it reads heads the plain way.

mod chunked_body;
mod client_hello;
mod config_text;
mod cookie_line;
mod cookie_token;
mod filters;
mod flow_table;
mod forwarding;
mod frame_meter;
mod framing_against_hyper;
mod http2_conversion;
mod limits;
mod path_normal_form;
mod proxy_header;
mod request_head;
mod response_head;
mod route_choice;
mod support;

/// A name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; each has a file of its name in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: [Target; 17] = [
    ("chunked_body", chunked_body::run),
    ("client_hello", client_hello::run),
    ("config_text", config_text::run),
    ("cookie_line", cookie_line::run),
    ("cookie_token", cookie_token::run),
    ("filters", filters::run),
    ("flow_table", flow_table::run),
    ("forwarding", forwarding::run),
    ("frame_meter", frame_meter::run),
    ("framing_against_hyper", framing_against_hyper::run),
    ("http2_conversion", http2_conversion::run),
    ("limits", limits::run),
    ("path_normal_form", path_normal_form::run),
    ("proxy_header", proxy_header::run),
    ("request_head", request_head::run),
    ("response_head", response_head::run),
    ("route_choice", route_choice::run),
];

/// Does what the target of this name does, for the fuzzers; the tests take all of [`TARGETS`].
#[allow(dead_code)]
pub fn run(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|target| target.0 == name);
    found.expect("a target of this name").1(bytes);
}
