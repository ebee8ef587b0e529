use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::control::sample::{self, free_port};

/// A server that says the same whatever it is asked, to one connection after another.
async fn says(port: u16, replies: &'static [&'static str]) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("a port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, replies));
        }
    })
}

/// One reply to each thing that is received; an empty one is silence.
async fn answer(mut stream: TcpStream, replies: &[&str]) {
    let mut received = [0; 4096];
    for reply in replies {
        match stream.read(&mut received).await {
            Ok(1..) if !reply.is_empty() => {}
            _ => break,
        }
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
    while stream
        .read(&mut received)
        .await
        .is_ok_and(|count| count > 0)
    {}
}

fn store(port: u16) -> model::Store {
    model::Store {
        port,
        password: None,
        ..sample::store()
    }
}

async fn becomes(end: &StoreEnd, standing: Standing) {
    let reached = async {
        while end.health.standing() != standing {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(Duration::from_secs(5), reached).await;
    assert!(reached.is_ok(), "it is {:?}", end.health.standing());
}

async fn asked(end: &StoreEnd) -> Option<Found> {
    let answer: oneshot::Receiver<_> = end.find(|| vec!["weir:was:00".to_owned()])?;
    answer.await.ok().flatten()
}

fn count(end: &StoreEnd, outcome: Outcome) -> u64 {
    end.health.counts()[outcome as usize]
}

const UP: &str = "+PONG\r\n";

#[tokio::test]
async fn what_a_server_knows_is_found() {
    let port = free_port();
    let replies = &[
        UP,
        UP,
        "*2\r\n$-1\r\n$14\r\n1 1700000 was2\r\n",
        "*1\r\n$-1\r\n",
        // What another version of weir wrote.
        "*1\r\n$6\r\n2 x y \r\n",
        "*1\r\n$3\r\n\u{0}\u{1}\u{2}\r\n",
        // A list was asked for.
        "+OK\r\n",
    ];
    let _server = says(port, replies).await;
    let end = start(store(port));
    let found = Found {
        backend: "was2".to_owned(),
        opened: 1_700_000,
    };
    assert_eq!(asked(&end).await, Some(found));
    for _ in 0..4 {
        assert_eq!(asked(&end).await, None);
    }
    let counts = [Outcome::Found, Outcome::Unknown].map(|outcome| count(&end, outcome));
    assert_eq!(counts, [1, 4]);
    assert_eq!(end.health.standing(), Standing::Up);
}

#[tokio::test]
async fn whatever_a_server_says_it_is_up_or_down() {
    for (replies, standing) in [
        (
            &["-NOAUTH Authentication required.\r\n"][..],
            Standing::Down,
        ),
        (&["HTTP/1.1 400 Bad Request\r\n\r\n"], Standing::Down),
        (&[":1\r\n"], Standing::Down),
        (&["$99999999999\r\n"], Standing::Down),
        (&["\u{0}\u{0}\u{0}\n"], Standing::Down),
        (&[""], Standing::Down),
        (&[UP, ""], Standing::Down),
        (&[UP, UP], Standing::Up),
    ] {
        let port = free_port();
        let _server = says(port, replies).await;
        let end = start(store(port));
        becomes(&end, standing).await;
    }
    let end = start(store(free_port()));
    becomes(&end, Standing::Down).await;
    assert_eq!(asked(&end).await, None);
    assert_eq!(count(&end, Outcome::Skipped), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_down_and_asked_again() {
    let port = free_port();
    let server = says(port, &[UP, UP, ""]).await;
    let end = start(store(port));
    becomes(&end, Standing::Up).await;
    let began = Instant::now();
    assert_eq!(asked(&end).await, None);
    assert!(began.elapsed() < Duration::from_millis(400));
    becomes(&end, Standing::Down).await;
    assert_eq!(count(&end, Outcome::Failed), 1);
    server.abort();
    let _ = server.await;
    let _server = says(port, &[UP, UP, "*1\r\n$7\r\n1 5 was\r\n"]).await;
    becomes(&end, Standing::Up).await;
    assert!(asked(&end).await.is_some());
}

#[tokio::test]
async fn refusals_in_a_row_are_trouble() {
    let port = free_port();
    const REFUSAL: &str = "-READONLY You can't write against a read only replica.\r\n";
    let _server = says(port, &[UP, UP, REFUSAL, REFUSAL, REFUSAL]).await;
    let end = start(store(port));
    becomes(&end, Standing::Up).await;
    for _ in 0..STRIKES {
        assert_eq!(end.health.standing(), Standing::Up);
        assert_eq!(asked(&end).await, None);
    }
    becomes(&end, Standing::Down).await;
}

#[tokio::test]
async fn a_task_ends_with_the_last_generation_that_uses_its_store() {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("a port");
    let end = start(store(port));
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut received = [0; 100];
    for _ in 0..2 {
        assert!(
            stream
                .read(&mut received)
                .await
                .is_ok_and(|count| count > 0)
        );
        stream.write_all(UP.as_bytes()).await.expect("it listens");
    }
    drop(end);
    assert_eq!(stream.read(&mut received).await.ok(), Some(0));
}
