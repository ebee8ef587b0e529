//! Both sides of a connection against one another, over sockets of this machine.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{Handshake, Refusal};
use super::sample::{VERSIONS, configs, name, sockets};
use crate::net::backlog::Backlog;
use crate::net::stream::Stream;

const SOON: Duration = Duration::from_secs(10);

async fn shake(stream: &mut Stream) -> Result<(), Refusal> {
    let shaken = poll_fn(|cx| stream.poll_handshake(cx));
    timeout(SOON, shaken).await.expect("in time")?;
    Ok(poll_fn(|cx| stream.poll_flush(cx)).await?)
}

fn ends(
    (server, client): (TcpStream, TcpStream),
    (server_config, client_config): &(Arc<ServerConfig>, Arc<ClientConfig>),
) -> (Stream, Stream) {
    let server = Stream::accepted(server).serve_tls(server_config.clone(), Vec::new());
    let client = Stream::accepted(client).begin_tls(client_config.clone(), name("shop.test"));
    (server.expect("a config"), client.expect("a config"))
}

/// A connection after its handshake.
async fn pair(configs: &(Arc<ServerConfig>, Arc<ClientConfig>)) -> (Stream, Stream) {
    let (mut server, mut client) = ends(sockets().await, configs);
    let (one, two) = tokio::join!(shake(&mut server), shake(&mut client));
    one.expect("a client");
    two.expect("a server");
    (server, client)
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let mut backlog = Backlog::default();
    poll_fn(|cx| Poll::Ready(backlog.send(stream, cx, bytes, &[]))).await?;
    poll_fn(|cx| backlog.poll_flush(stream, cx)).await
}

async fn read(stream: &mut Stream, most: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let count = timeout(SOON, poll_fn(|cx| stream.poll_read(cx, &mut buffer)))
        .await
        .expect("in time")?;
    buffer.truncate(count);
    Ok(buffer)
}

async fn read_whole(stream: &mut Stream, length: usize, most: usize) -> Vec<u8> {
    let mut whole = Vec::new();
    while whole.len() < length {
        let piece = read(stream, most).await.expect("more");
        assert!(!piece.is_empty(), "an end after {} bytes", whole.len());
        whole.extend(piece);
    }
    whole
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_in_every_version() {
    for version in VERSIONS {
        let (mut server, mut client) = pair(&configs(version, false)).await;
        for length in [1, 100, 16 * 1024, 16 * 1024 + 1, 200_000] {
            let bytes = pattern(length);
            send(&mut client, &bytes[..1]).await.expect("sent");
            assert_eq!(read(&mut server, 9).await.expect("read"), bytes[..1]);
            let (sent, got) = tokio::join!(
                send(&mut server, &bytes),
                read_whole(&mut client, length, 4096)
            );
            sent.expect("sent");
            assert!(got == bytes, "{length} bytes");
        }
        let facts = server.tls().and_then(Handshake::of).expect("facts");
        assert_eq!(facts.server_name.as_deref(), Some("shop.test"));
        assert_eq!(facts.is_tls13, version == VERSIONS[1]);
        assert!(facts.is_for(b"shop.TEST") && !facts.is_for(b"other.test"));
    }
}

#[tokio::test]
async fn two_pieces_leave_in_order() {
    let (mut server, mut client) = pair(&configs(VERSIONS[1], false)).await;
    let (head, body) = (pattern(300), pattern(150_000));
    let whole = [head.clone(), body.clone()].concat();
    let mut backlog = Backlog::default();
    let sending = async {
        poll_fn(|cx| Poll::Ready(backlog.send(&mut server, cx, &head, &body))).await?;
        poll_fn(|cx| backlog.poll_flush(&mut server, cx)).await
    };
    let (sent, got) = tokio::join!(sending, read_whole(&mut client, whole.len(), 70_000));
    sent.expect("sent");
    assert!(got == whole);
}

/// What is on its way must leave without another write of the application, and not be counted before it has.
#[tokio::test]
async fn nothing_is_claimed_to_be_written_that_has_not_left() {
    let (mut server, mut client) = pair(&configs(VERSIONS[1], false)).await;
    let bytes = pattern(64 * 1024);
    let mut cx = Context::from_waker(Waker::noop());
    let mut written = Vec::new();
    // Until the socket takes no more.
    while let Poll::Ready(count) =
        server.poll_write(&mut cx, &bytes[written.len() % bytes.len()..], &[])
    {
        let from = written.len() % bytes.len();
        written.extend_from_slice(&bytes[from..from + count.expect("open")]);
        assert!(written.len() < 64 << 20, "the socket is full at last");
    }
    // All that was counted is there without another poll of the writer; some of the rest may be, too.
    let mut got = read_whole(&mut client, written.len(), 70_000).await;
    let rest = &bytes[written.len() % bytes.len()..];
    written.extend_from_slice(rest);
    let left = written.len() - got.len();
    let (sent, more) = tokio::join!(
        send(&mut server, rest),
        read_whole(&mut client, left, 70_000)
    );
    sent.expect("sent");
    got.extend(more);
    assert!(got == written);
}

#[tokio::test]
async fn both_ways_at_once_under_back_pressure() {
    let (server, client) = sockets().await;
    for socket in [&server, &client] {
        let socket = socket2::SockRef::from(socket);
        socket.set_send_buffer_size(16 * 1024).expect("a size");
        socket.set_recv_buffer_size(16 * 1024).expect("a size");
    }
    let (mut server, mut client) = ends((server, client), &configs(VERSIONS[1], false));
    let (one, two) = tokio::join!(shake(&mut server), shake(&mut client));
    one.and(two).expect("a handshake");
    let bytes = pattern(300_000);
    async fn exchange(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
        let (mut backlog, mut got) = (Backlog::default(), Vec::new());
        backlog.push(bytes);
        let mut buffer = vec![0; 5000];
        poll_fn(|cx| {
            let flushed = backlog.poll_flush(stream, cx);
            while got.len() < bytes.len() {
                match stream.poll_read(cx, &mut buffer) {
                    Poll::Ready(count) => got.extend_from_slice(&buffer[..count.expect("open")]),
                    Poll::Pending => return Poll::Pending,
                }
            }
            flushed.map(|flushed| flushed.expect("open"))
        })
        .await;
        got
    }
    let both = async { tokio::join!(exchange(&mut server, &bytes), exchange(&mut client, &bytes)) };
    let (one, two) = timeout(SOON * 3, both).await.expect("in time");
    assert!(one == bytes && two == bytes);
}

#[tokio::test]
async fn an_end_is_told_and_a_cut_is_not_an_end() {
    for version in VERSIONS {
        let configs = configs(version, false);
        let (mut server, mut client) = pair(&configs).await;
        send(&mut client, b"ask").await.expect("sent");
        client.shutdown_write();
        assert_eq!(read(&mut server, 99).await.expect("read"), b"ask");
        assert_eq!(read(&mut server, 99).await.expect("an end"), b"");
        // The other way is still open.
        send(&mut server, b"answer").await.expect("sent");
        drop(server);
        if version == VERSIONS[1] {
            assert_eq!(read(&mut client, 99).await.expect("read"), b"answer");
            assert_eq!(read(&mut client, 99).await.expect("an end"), b"");
        }

        let (mut server, mut client) = pair(&configs).await;
        if version == VERSIONS[1] {
            // Tickets that are unread would make a reset of it.
            let Stream::Tls(inside) = &client else {
                panic!()
            };
            inside.readable().await;
        }
        assert!(client.is_quiet());
        let Stream::Tls(client) = client else {
            panic!()
        };
        client.cut();
        let error = read(&mut server, 99).await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_handshake_may_come_a_byte_at_a_time() {
    for version in VERSIONS {
        let configs = configs(version, false);
        let (server, relayed) = sockets().await;
        let (relaying, client) = sockets().await;
        for socket in [&server, &relayed, &relaying, &client] {
            socket.set_nodelay(true).expect("no delay");
        }
        let (mut server, mut client) = ends((server, client), &configs);
        async fn trickle(
            from: &mut (impl AsyncReadExt + Unpin),
            to: &mut (impl AsyncWriteExt + Unpin),
        ) {
            while let Ok(byte) = from.read_u8().await {
                if to.write_u8(byte).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
        let (mut relayed, mut relaying) = (relayed.into_split(), relaying.into_split());
        let relay = async {
            tokio::join!(
                trickle(&mut relaying.0, &mut relayed.1),
                trickle(&mut relayed.0, &mut relaying.1)
            )
        };
        let talk = async {
            let (one, two) = tokio::join!(shake(&mut server), shake(&mut client));
            one.and(two).expect("a handshake");
            send(&mut client, b"ask").await.expect("sent");
            assert_eq!(read_whole(&mut server, 3, 99).await, b"ask");
            send(&mut server, &pattern(20_000)).await.expect("sent");
            assert_eq!(
                read_whole(&mut client, 20_000, 20_000).await,
                pattern(20_000)
            );
        };
        tokio::select! {
            _ = relay => panic!("the relay ended"),
            () = talk => {}
        }
    }
}

#[tokio::test]
async fn a_connection_is_quiet_until_something_for_the_application_arrives() {
    let (mut server, mut client) = pair(&configs(VERSIONS[1], false)).await;
    assert!(server.is_quiet());
    // Its tickets leave with what is written first, and are of no interest to who waits.
    send(&mut server, b"x").await.expect("sent");
    assert_eq!(read(&mut client, 9).await.expect("read"), b"x");
    assert!(client.is_quiet());
    send(&mut server, b"y").await.expect("sent");
    let Stream::Tls(inside) = &client else {
        panic!()
    };
    inside.readable().await;
    assert!(!client.is_quiet());
}

#[tokio::test]
async fn tickets_alone_leave_a_connection_quiet() {
    let (server, mut client) = pair(&configs(VERSIONS[1], false)).await;
    let Stream::Tls(inside) = &client else {
        panic!()
    };
    inside.readable().await;
    assert!(client.is_quiet());
    assert!(client.is_quiet());
    drop(server);
    let Stream::Tls(inside) = &client else {
        panic!()
    };
    inside.readable().await;
    assert!(!client.is_quiet(), "an end");
}

#[tokio::test]
async fn plain_http_is_recognized_and_can_be_answered() {
    let (server, mut client) = sockets().await;
    let (config, _) = configs(VERSIONS[1], false);
    let mut server = Stream::accepted(server)
        .serve_tls(config, Vec::new())
        .expect("a config");
    client
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    let refusal = shake(&mut server).await.expect_err("no TLS");
    assert!(matches!(refusal, Refusal::PlainHttp), "{refusal:?}");
    send(&mut server, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .expect("sent");
    server.shutdown_write();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("text");
    assert_eq!(answer, "HTTP/1.1 400 Bad Request\r\n\r\n");
}

#[tokio::test]
async fn an_unknown_name_is_refused_with_its_alert() {
    for version in VERSIONS {
        let (server_config, client_config) = configs(version, true);
        let (server, client) = sockets().await;
        let mut server = Stream::accepted(server)
            .serve_tls(server_config, Vec::new())
            .expect("a config");
        let client = Stream::accepted(client).begin_tls(client_config, name("other.test"));
        let mut client = client.expect("a config");
        let (server, client) = tokio::join!(shake(&mut server), shake(&mut client));
        assert!(matches!(server, Err(Refusal::UnknownName)), "{server:?}");
        let Err(Refusal::Tls(error)) = client else {
            panic!("{client:?}")
        };
        let alert = rustls::AlertDescription::UnrecognisedName;
        assert_eq!(error, rustls::Error::AlertReceived(alert));
    }
}

#[tokio::test]
async fn garbage_oversize_records_and_cut_handshakes_are_refused() {
    let (config, _) = configs(VERSIONS[1], false);
    let oversize = [&[22, 3, 1, 0xff, 0xff][..], &[1; 0xffff]].concat();
    let endless = [
        &[22, 3, 1, 0x40, 0][..],
        &[1, 0xff, 0xff, 0xff],
        &[0; 16380],
    ]
    .concat();
    for (bytes, expected) in [
        (&b"\0\0\0\0\0\0\0\0\0\0"[..], "other"),
        (&oversize, "other"),
        (&endless.repeat(8), "other"),
        (&[22, 3, 1, 0, 200, 1, 0][..], "closed"),
        (&[][..], "closed"),
    ] {
        let (server, mut client) = sockets().await;
        let server = Stream::accepted(server).serve_tls(config.clone(), Vec::new());
        let mut server = server.expect("a config");
        let sending = async {
            // It may be refused before all of it was sent.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
        };
        let ((), refused) = tokio::join!(sending, shake(&mut server));
        let refusal = refused.expect_err("no handshake");
        assert_eq!(refusal.reason().as_str(), expected, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_record_that_was_changed_ends_the_connection_after_what_came_before() {
    let (server, relayed) = sockets().await;
    let (mut relaying, client) = sockets().await;
    let mut relayed = relayed;
    let (mut server, mut client) = ends((server, client), &configs(VERSIONS[1], false));
    {
        let shaking = async { tokio::join!(shake(&mut server), shake(&mut client)) };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut relayed, &mut relaying) => panic!("the relay ended"),
            (one, two) = shaking => one.and(two).expect("a handshake"),
        }
    }
    send(&mut client, b"good").await.expect("sent");
    send(&mut client, b"bad").await.expect("sent");
    let mut buffer = vec![0; 4096];
    let mut got = 0;
    // The end of the handshake may stand before both.
    while got < 2 * 22 + 7 {
        got += relaying.read(&mut buffer[got..]).await.expect("records");
    }
    buffer[got - 1] ^= 1;
    relayed.write_all(&buffer[..got]).await.expect("sent");
    assert_eq!(read(&mut server, 99).await.expect("the good one"), b"good");
    let error = read(&mut server, 99).await.expect_err("a bad record");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(!server.is_quiet());
}

#[test]
fn a_connection_with_tls_is_hardly_larger_than_one_without() {
    assert!(size_of::<Stream>() <= size_of::<TcpStream>() + 16);
    let size = size_of::<super::stream::TlsStream>();
    assert!(size <= 1536, "{size} bytes");
}
