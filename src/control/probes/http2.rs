//! Checks over HTTP/2: a GET whose status lies in an expected range, and a call of the gRPC health service (its protocol, version 1).
//! It reads no more than a status needs, and uses a connection once.
//! The walk goes back to `task.rs`.

use std::future::poll_fn;
use std::pin::Pin;

use ::http::{Method, Request, Response, Uri, header};
use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;

use super::{AGENT, Failure, Outcome, Probe, Target, http};

/// Bytes of a body that are looked at; the answer of a health service has two.
const BODY: usize = 1024;

/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;

/// What to call.
#[derive(Debug)]
pub(super) struct Grpc {
    pub(super) service: String,
    pub(super) host: Option<String>,
}

impl Probe for Grpc {
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let mut request = request(
                Method::POST,
                "/grpc.health.v1.Health/Check",
                self.host.as_deref(),
                target,
            )?;
            let fields = request.headers_mut();
            fields.insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/grpc"),
            );
            fields.insert(header::TE, header::HeaderValue::from_static("trailers"));
            let answer = call(target, request, Some(ask_for(&self.service))).await?;
            judge(answer).await
        })
    }
}

/// A GET.
pub(super) async fn get(
    target: &Target,
    path: &str,
    host: Option<&str>,
    wants: http::Wants<'_>,
) -> Result<http::Answer, Failure> {
    let request = request(Method::GET, path, host, target)?;
    let answer = call(target, request, None).await?;
    let (status, load) = (answer.status().as_u16(), wants.load_in(answer.headers()));
    let mut body = answer.into_body();
    let mut read = Vec::new();
    while wants.body
        && read.len() < http::BODY
        && let Some(Ok(piece)) = poll_fn(|cx| body.poll_data(cx)).await
    {
        // It cannot fail: so much has arrived.
        let _ = body.flow_control().release_capacity(piece.len());
        read.extend_from_slice(&piece[..piece.len().min(http::BODY - read.len())]);
    }
    Ok(http::Answer {
        status,
        body: read,
        load,
    })
}

fn request(
    method: Method,
    path: &str,
    host: Option<&str>,
    target: &Target,
) -> Result<Request<()>, Failure> {
    let address = target.address.to_string();
    let uri = Uri::builder()
        .scheme(if target.tls.is_some() {
            "https"
        } else {
            "http"
        })
        .authority(host.unwrap_or(&address))
        .path_and_query(path)
        .build();
    let request = Request::builder()
        .method(method)
        .uri(uri.map_err(|error| Failure::Local(error.to_string()))?)
        .header(header::USER_AGENT, AGENT);
    let request = request.body(());
    request.map_err(|error| Failure::Local(error.to_string()))
}

/// Sends a request on a connection of its own. The connection ends with the answer's last part.
async fn call(
    target: &Target,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Response<RecvStream>, Failure> {
    let stream = target.connect().await?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(unreadable)?;
    tokio::spawn(async move {
        // Whoever waits for the answer is told.
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.map_err(unreadable)?;
    let (answer, mut upload) = sender
        .send_request(request, body.is_none())
        .map_err(unreadable)?;
    if let Some(body) = body {
        upload.send_data(body, true).map_err(unreadable)?;
    }
    answer.await.map_err(unreadable)
}

/// A `HealthCheckRequest` with its one field, as a gRPC message: no compression, length, message.
fn ask_for(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(service.len(), &mut message);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(mut value: usize, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Health is an answer 200, a message that says SERVING, and a gRPC status of 0.
async fn judge(answer: Response<RecvStream>) -> Outcome {
    if answer.status() != 200 {
        return Err(Failure::Status(answer.status().as_u16()));
    }
    let told = grpc_status(answer.headers());
    let mut body = answer.into_body();
    let mut message = Vec::new();
    while let Some(piece) = poll_fn(|cx| body.poll_data(cx)).await {
        let piece = piece.map_err(unreadable)?;
        // It cannot fail: so much has arrived.
        let _ = body.flow_control().release_capacity(piece.len());
        message.extend_from_slice(&piece[..piece.len().min(BODY - message.len())]);
    }
    let trailers = poll_fn(|cx| body.poll_trailers(cx)).await;
    let trailers = trailers.map_err(unreadable)?;
    let status = told.or_else(|| trailers.as_ref().and_then(grpc_status));
    match (status.as_deref(), serving_status(&message)) {
        (Some("0"), Some(SERVING)) => Ok(()),
        (Some("0"), Some(other)) => Err(Failure::Protocol(format!(
            "the health service says {}",
            match other {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            }
        ))),
        (Some("5"), _) => Err(Failure::Protocol(
            "the health service does not know the service".into(),
        )),
        (Some("12"), _) => Err(Failure::Protocol("there is no health service".into())),
        (Some(status), _) => Err(Failure::Protocol(format!("gRPC status {status}"))),
        (None, _) => Err(Failure::Protocol("the answer has no gRPC status".into())),
    }
}

fn grpc_status(fields: &::http::HeaderMap) -> Option<String> {
    Some(fields.get("grpc-status")?.to_str().ok()?.to_owned())
}

/// Field 1 of a `HealthCheckResponse`; absent, it is 0.
fn serving_status(framed: &[u8]) -> Option<u8> {
    match framed.get(5..)? {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

fn unreadable(error: h2::Error) -> Failure {
    Failure::Protocol(match error.get_io() {
        Some(_) => "connection closed before an answer".into(),
        None => format!("HTTP/2: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one call with the given message and trailing status.
    async fn backend(status: u16, message: &'static [u8], grpc: &'static str) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(asked) = connection.accept().await {
                let (_, mut respond) = asked.unwrap();
                let answer = Response::builder().status(status).body(()).unwrap();
                let mut stream = respond.send_response(answer, false).unwrap();
                stream.send_data(message.into(), false).unwrap();
                let mut trailers = ::http::HeaderMap::new();
                trailers.insert("grpc-status", grpc.parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
        });
        Target {
            address,
            tls: None,
            proxy_protocol: None,
            live: None,
        }
    }

    #[tokio::test]
    async fn what_a_health_service_says() {
        let failure = |text: &str| Err(Failure::Protocol(text.into()));
        for (status, message, grpc, outcome) in [
            (200, &b"\0\0\0\0\x02\x08\x01"[..], "0", Ok(())),
            (
                200,
                b"\0\0\0\0\x02\x08\x02",
                "0",
                failure("the health service says NOT_SERVING"),
            ),
            (
                200,
                b"\0\0\0\0\0",
                "0",
                failure("the health service says UNKNOWN"),
            ),
            (
                200,
                b"",
                "5",
                failure("the health service does not know the service"),
            ),
            (200, b"", "12", failure("there is no health service")),
            (503, b"", "14", Err(Failure::Status(503))),
        ] {
            let target = backend(status, message, grpc).await;
            let probe = Grpc {
                service: "shop.v1.Cart".into(),
                host: None,
            };
            assert_eq!(probe.probe(&target).await, outcome, "{message:?} {grpc}");
        }
    }

    #[test]
    fn a_request_is_a_framed_message() {
        assert_eq!(&ask_for("")[..], b"\0\0\0\0\0");
        assert_eq!(&ask_for("ab")[..], b"\0\0\0\0\x04\x0a\x02ab");
        assert_eq!(ask_for(&"x".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
    }
}
