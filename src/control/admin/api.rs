//! What the admin server serves, by path and method.
//! It must answer `/healthz` as long as the process lives, and it changes nothing but by POST.
//! The walk goes on in `status.rs` and `backend_state.rs`.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Context;
use super::answer::{Answer, Problem, content, json};
use super::backend_state::BackendState;
use super::diff::{diff, diff_with};
use super::door::Door;
use super::explain::explain;
use super::status::status;
use crate::control::shared::{Lifecycle, Order, ReloadRequest, Shared, verdicts_in};

/// Bytes of a request body that are read where no body is wanted, and thrown away.
const BODY: usize = 64 * 1024;
/// Bytes of a request body that carries a configuration file.
const CANDIDATE: usize = 4 << 20;
/// How long a client waits for the outcome of a reload.
const RELOAD_WAIT: Duration = Duration::from_secs(20);
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const READING: &str = "GET, HEAD";
const ROOT: &str = "\
weir admin

GET  /metrics         metrics for Prometheus
GET  /healthz         200 while the process lives
GET  /readyz          200 while it serves, 503 with the reason when it does not
GET  /api/v1/diff     what a reload would change
POST /api/v1/diff     what another file would change: file and text, as JSON
GET  /api/v1/explain  where a request would go and why: url, and perhaps method, header, client, listener
GET  /api/v1/status   listeners, routes, pools and backends as JSON
POST /api/v1/reload   reads the configuration file again (Content-Type: application/json)
POST /api/v1/upgrade  starts the program anew and hands over to it (Content-Type: application/json)
POST /api/v1/pools/{pool}/backends/{backend}/{drain|ready|maint}
                      sets the state of a backend (Content-Type: application/json)
";

enum Resource<'a> {
    Root,
    Metrics,
    Healthz,
    Readyz,
    Status,
    Diff,
    Explain,
    Reload,
    Upgrade,
    BackendState(BackendState<'a>),
}

/// The one answer to one request, which comes from an address or over the Unix socket.
pub(super) async fn answer(
    request: Request<Incoming>,
    from: Option<IpAddr>,
    door: &Door,
    context: &Context,
) -> Answer {
    let (parts, body) = request.into_parts();
    if let Err(problem) = door.check(&parts) {
        return problem.into_answer();
    }
    let resource = match find(parts.uri.path(), &parts.method) {
        Ok(resource) => resource,
        Err(problem) => return problem.into_answer(),
    };
    // An unread body would turn the end of the connection into a reset.
    let limit = match resource {
        Resource::Diff => CANDIDATE,
        _ => BODY,
    };
    let body = Limited::new(body, limit).collect().await;
    let answered = match resource {
        Resource::Root => Ok(content(StatusCode::OK, "text/plain; charset=utf-8", ROOT)),
        Resource::Metrics => metrics(context).await,
        Resource::Healthz => Ok(content(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")),
        Resource::Readyz => Ok(readyz(&context.shared)),
        Resource::Status => Ok(json(StatusCode::OK, &status(&context.shared))),
        Resource::Diff if parts.method == Method::POST => match body {
            Ok(body) => diff_with(&context.shared, &body.to_bytes()).await,
            Err(_) => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "a file to compare may have about 4 MiB",
            )),
        },
        Resource::Diff => diff(&context.shared).await,
        Resource::Explain => explain(&context.shared, parts.uri.query().unwrap_or_default()),
        Resource::Reload => reload(&context.shared).await,
        Resource::Upgrade => upgrade(&context.shared).await,
        Resource::BackendState(asked) => asked.set(&context.shared, from).await,
    };
    answered.unwrap_or_else(Problem::into_answer)
}

fn find<'a>(path: &'a str, method: &Method) -> Result<Resource<'a>, Problem> {
    let (resource, allowed) = match path {
        "/" => (Resource::Root, READING),
        "/metrics" => (Resource::Metrics, READING),
        "/healthz" => (Resource::Healthz, READING),
        "/readyz" => (Resource::Readyz, READING),
        "/api/v1/status" => (Resource::Status, READING),
        "/api/v1/diff" => (Resource::Diff, "GET, HEAD, POST"),
        "/api/v1/explain" => (Resource::Explain, READING),
        "/api/v1/reload" => (Resource::Reload, "POST"),
        "/api/v1/upgrade" => (Resource::Upgrade, "POST"),
        _ => match BackendState::of(path) {
            Some(asked) => (Resource::BackendState(asked), "POST"),
            None => {
                return Err(Problem::new(
                    StatusCode::NOT_FOUND,
                    "there is no such resource; / names those there are",
                ));
            }
        },
    };
    match allowed
        .split(", ")
        .any(|allowed| allowed == method.as_str())
    {
        true => Ok(resource),
        false => Err(Problem::method_not_allowed(allowed)),
    }
}

async fn metrics(context: &Context) -> Result<Answer, Problem> {
    let failed = |error: prometheus::Error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let text = context.metrics.text().await.map_err(failed)?;
    Ok(content(StatusCode::OK, METRICS_TYPE, text))
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

fn readyz(shared: &Shared) -> Answer {
    let lifecycle = *shared.lifecycle.borrow();
    let reason = match lifecycle {
        Lifecycle::Ready => None,
        Lifecycle::Draining => Some("draining"),
        Lifecycle::Starting if verdicts_in(&shared.current.borrow()) => Some("starting"),
        Lifecycle::Starting => Some("not every backend has its first verdict"),
    };
    let status = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let ready = reason.is_none();
    json(status, &Readiness { ready, reason })
}

async fn reload(shared: &Shared) -> Result<Answer, Problem> {
    let (reply, outcome) = oneshot::channel();
    let asked = async {
        shared
            .reload_requests
            .send(ReloadRequest { reply })
            .await
            .ok()?;
        outcome.await.ok()
    };
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    match timeout(RELOAD_WAIT, asked).await {
        Ok(Some(Ok(reloaded))) => Ok(json(StatusCode::OK, &reloaded)),
        Ok(Some(Err(refusal))) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            refusal.text.trim_end(),
        )),
        Ok(None) => Err(unavailable("weir is ending and reloads no more")),
        Err(_) => Err(unavailable(
            "the reload goes on; /api/v1/status will tell its outcome",
        )),
    }
}

/// The new process is ready within half of the time that a connection has, or there is none.
async fn upgrade(shared: &Shared) -> Result<Answer, Problem> {
    let (reply, outcome) = oneshot::channel();
    let asked = async {
        shared.orders.send(Order::Upgrade { reply }).await.ok()?;
        outcome.await.ok()
    };
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    match timeout(RELOAD_WAIT, asked).await {
        Ok(Some(Ok(upgraded))) => Ok(json(StatusCode::OK, &upgraded)),
        Ok(Some(Err(why))) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Ok(None) => Err(unavailable("weir is ending and hands over no more")),
        Err(_) => Err(unavailable(
            "the upgrade goes on; /api/v1/status will tell its outcome",
        )),
    }
}
