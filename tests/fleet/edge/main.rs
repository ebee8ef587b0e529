//! weir as an edge between real programs: gRPC's own library on both sides, curl and nghttp, Tomcat's examples, a browser, PostgreSQL, Redis,
//! OpenSSH.
//! It must speak with each of them as a user would, and never look into weir but through its admin server.
//! Its own runner, so that what is missing is a skipped scenario. Read `stage.rs` for the parties, then the file of each.

mod bytes;
#[path = "../claims.rs"]
mod claims;
mod grpc;
#[allow(dead_code)]
#[path = "../ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../process.rs"]
mod process;
mod ssh;
mod stage;
mod web;

use std::process::ExitCode;

use claims::Claim;

const CLAIMS: &[Claim] = &[
    ("edge::grpc_calls", grpc::missing, grpc::calls),
    ("edge::grpc_spread", grpc::missing, grpc::spread),
    ("edge::grpc_deadline", grpc::missing, grpc::deadline),
    ("edge::grpc_cancel", grpc::missing, grpc::cancel),
    ("edge::grpc_refusals", grpc::missing, grpc::refusals),
    ("edge::grpc_killed", grpc::missing, grpc::killed),
    ("edge::grpc_restart", grpc::missing, grpc::restart),
    ("edge::grpc_health", grpc::missing, grpc::health),
    ("edge::tomcat_servlets", web::missing_tools, web::servlets),
    ("edge::tls_tools", web::missing_tools, web::tools),
    (
        "edge::tomcat_websocket",
        web::missing_websockets,
        web::websocket,
    ),
    ("edge::browser", web::missing_browser, web::browser),
    (
        "edge::postgresql",
        bytes::missing_postgres,
        bytes::postgresql,
    ),
    ("edge::redis", bytes::missing_redis, bytes::redis),
    ("edge::ssh_sessions", ssh::missing, ssh::sessions),
    ("edge::ssh_copies", ssh::missing, ssh::copies),
    ("edge::ssh_idle", ssh::missing, ssh::idle),
    ("edge::ssh_drain", ssh::missing, ssh::drain),
];

fn main() -> ExitCode {
    claims::run(CLAIMS)
}
