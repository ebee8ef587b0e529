//! Much through tcp listeners: long streams, slow readers, many connections; nothing is lost, and memory stays flat.
//! The long form (`WEIR_FULL=1`) moves 10 GiB each way and opens 5,000 connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::random::{Random, checksum};
use crate::support::{Client, Origin, Weir, process, until};
use crate::tcp::{client, relay, send_back};

const MIB: usize = 1 << 20;

/// What weir may take of memory, in KiB.
const MEMORY: u64 = 64 * 1024;

fn is_full() -> bool {
    std::env::var_os("WEIR_FULL").is_some()
}

/// So many bytes of a stream that the other side can check, then its end; their sum.
fn pour(mut stream: TcpStream, seed: u64, length: usize) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let block = Random(seed).bytes(MIB);
        let sum = (0..length / MIB).fold(0, |sum, _| {
            stream.write_all(&block).expect("taken");
            checksum(sum, &block)
        });
        stream.shutdown(Shutdown::Write).expect("the end is taken");
        sum
    })
}

/// The sum of a stream up to its end, which comes after so many bytes.
fn sum(mut stream: TcpStream, length: usize) -> u64 {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut block = vec![0; MIB];
    let sum = (0..length / MIB).fold(0, |sum, _| {
        stream.read_exact(&mut block).expect("more");
        checksum(sum, &block)
    });
    assert_eq!(stream.read(&mut block).expect("an orderly end"), 0);
    sum
}

#[test]
fn much_streams_both_ways_with_equal_checksums_in_flat_memory() {
    let total = if is_full() { 10 << 30 } else { 256 * MIB };
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::start(move |visit| {
        let stream = &visit.reader.stream;
        let sent = pour(stream.try_clone().unwrap(), 3, total);
        let got = sum(stream.try_clone().unwrap(), total);
        let _ = tell.lock().unwrap().send((sent.join().unwrap(), got));
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let began = Instant::now();
    let stream = client(&weir).reader.stream.try_clone().unwrap();
    let sent = pour(stream.try_clone().unwrap(), 4, total);
    let got = sum(stream, total);
    let sent = sent.join().unwrap();
    assert_eq!(
        told.recv_timeout(Duration::from_secs(60)).unwrap(),
        (got, sent)
    );
    let line = weir.access(|line| line["protocol"] == "tcp");
    assert_eq!(line["bytes_in"], total, "{line}");
    assert_eq!(line["bytes_out"], total, "{line}");
    let peak = peak(&weir);
    assert!(peak < MEMORY, "{peak} KiB");
    let (mib, took) = (total / MIB, began.elapsed());
    println!("{mib} MiB each way in {took:.1?}, {peak} KiB of memory at most");
}

/// The highest resident memory so far, in KiB.
fn peak(weir: &Weir) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", weir.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A reader that does not read stops the sender, and loses nothing by that.
#[test]
fn a_slow_reader_slows_the_sender_down() {
    let total = 64 * MIB;
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::start(move |visit| {
        let sent = pour(visit.reader.stream.try_clone().unwrap(), 5, total);
        let _ = tell.lock().unwrap().send(sent.join().unwrap());
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let client = client(&weir);
    let bytes = || weir.metric("weir_tcp_bytes_total", &[("direction", "out")]);
    let mut last = -1.0;
    until("the sender to stand still", || {
        thread::sleep(Duration::from_millis(200));
        let now = bytes();
        (now > 0.0 && std::mem::replace(&mut last, now) == now).then_some(())
    });
    assert!(last < total as f64, "{last} bytes went nowhere");
    assert!(told.try_recv().is_err());
    let got = sum(client.reader.stream.try_clone().unwrap(), total);
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), got);
}

#[test]
fn many_connections_at_once() {
    let count = if is_full() { 5000 } else { 500 };
    process::raise_descriptors();
    let origin = Origin::start(send_back);
    let weir = Weir::start(&relay(&[origin.address], "[log]\naccess = \"off\""));
    let mut first = client(&weir);
    first.send("x");
    assert_eq!(first.reader.exactly(1).expect("an echo"), b"x");
    let before = weir.resident();
    let mut open: Vec<Client> = (0..count).map(|_| client(&weir)).collect();
    for round in 0..3 {
        for (number, client) in open.iter_mut().enumerate() {
            client.send(format!("{round} {number:>8}"));
        }
        for (number, client) in open.iter_mut().enumerate() {
            let back = client.reader.exactly(10).expect("an echo");
            assert_eq!(back, format!("{round} {number:>8}").as_bytes());
        }
    }
    assert_eq!(
        weir.metric("weir_backend_in_flight", &[("pool", "pg")]),
        f64::from(count) + 1.0
    );
    if is_full() {
        let each = (weir.resident() - before) * 1024 / count as u64;
        assert!(each < 4 * 1024, "{each} bytes a connection");
        println!("{count} connections, {each} bytes of memory each");
    }
    assert!(peak(&weir) < MEMORY);
    for client in &mut open {
        client.finish();
    }
    for client in &mut open {
        client.expect_close();
    }
    weir.settles("weir_backend_in_flight", &[("pool", "pg")], 1.0);
    weir.settles(
        "weir_tcp_connections_total",
        &[("end", "client")],
        f64::from(count),
    );
}

/// The system asks after the other ends of a connection that rests; `ss` shows when it will.
#[test]
fn a_resting_connection_is_kept_alive() {
    if !is_full() {
        // It rests for a minute first.
        return;
    }
    let origin = Origin::start(send_back);
    let weir = Weir::start(&relay(&[origin.address], ""));
    let client = client(&weir);
    let port = client.reader.stream.local_addr().unwrap().port();
    let shown = |filter: String| {
        let out = Command::new("ss")
            .args(["-tnoH", &filter])
            .output()
            .expect("ss runs");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let kept = |filter: String| shown(filter).contains("timer:(keepalive");
    assert!(!kept(format!("dport = :{port}")));
    let end = Instant::now() + Duration::from_secs(90);
    while !kept(format!("dport = :{port}")) {
        assert!(Instant::now() < end, "no keep-alive");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(kept(format!("dport = :{}", origin.address.port())));
}
