//! weir from outside: each test holds the configuration, the origin servers, the client and the expectation in one function.
//! No test knows weir's code, sleeps to synchronise or shares a process with another test.
//! Run with `cargo test --test it`; `WEIR_FULL=1` makes the streams longer. Most tests wait more than they work, so more threads
//! than cores help: `-- --test-threads 8`.

mod bodies;
mod framing;
mod headers;
mod limits;
mod machinery;
mod retries;
mod routing;
mod smuggling;
mod support;
