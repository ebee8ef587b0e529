//! weir from outside: each test holds the configuration, the origin servers, the client and the expectation in one function.
//! No test knows weir's code, sleeps to synchronise or shares a process with another test.
//! Run with `cargo test --test it`; `WEIR_FULL=1` makes the streams longer, `WEIR_BINARY` names another binary to test. Most tests
//! wait more than they work, so more threads than cores help: `-- --test-threads 8`.

mod access_log;
mod admin;
mod balancing;
mod basic_auth;
mod bodies;
mod command_line;
mod compress;
mod drain;
mod edges;
mod explain;
mod filters;
mod framing;
mod headers;
mod http2;
mod http2_websocket;
mod learn;
mod learn_store;
mod limits;
mod limits_access;
mod limits_filters;
mod limits_forgery;
mod limits_rates;
mod live_sessions;
mod machinery;
mod placement;
mod proxy_protocol;
mod rebalance;
mod regressions;
mod reload;
mod retries;
mod robustness;
mod routing;
mod sessions;
mod shutdown;
mod slow;
mod smuggling;
mod splice;
mod stale;
mod sticky;
mod support;
mod tcp;
mod tcp_life;
mod tcp_streams;
mod tcp_tls;
mod tls;
mod tls_backends;
mod tls_files;
mod tls_openssl;
mod udp;
mod upgrade;
mod upstream_http2;
mod waiting;
