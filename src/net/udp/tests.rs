//! Datagrams over loopback: what is sent arrives as it was, however it is put together on the way.
//! They need a kernel that knows UDP_SEGMENT and UDP_GRO (5.0), and no privileges.
//! Nothing follows from here.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::batch::{Batch, MAX_DATAGRAMS};
use super::parcels::{Outbox, Parcel, Sent};
use super::poller::Poller;
use super::*;
use crate::net::proxy_protocol::Ends;

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A socket that knows nothing of datagrams put together.
fn plain() -> UdpSocket {
    let socket = UdpSocket::bind(here()).unwrap();
    let patience = Duration::from_secs(5);
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// Receives until there are as many datagrams as wanted.
fn gather(socket: &UdpSocket, batch: &mut Batch, wanted: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let count = |batch: &Batch| {
        batch
            .received()
            .iter()
            .map(|one| one.datagrams())
            .sum::<u32>()
    };
    while (count(batch) as usize) < wanted {
        assert!(Instant::now() < deadline, "{} of {wanted}", count(batch));
        match batch.receive(socket, MAX_DATAGRAMS) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

fn parcels(batch: &Batch, to: Option<SocketAddr>) -> Vec<Parcel> {
    let places = 0..batch.received().len();
    let parcel = |place| Parcel {
        place,
        to,
        local: batch.received()[place].local,
    };
    places.map(parcel).collect()
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut memory = vec![0; 70_000];
    let length = socket.recv(&mut memory).expect("a datagram in time");
    memory.truncate(length);
    memory
}

#[test]
fn datagrams_of_any_size_arrive_whole_with_their_senders() {
    let listener = bind(here(), 1).unwrap().remove(0);
    let (one, two) = (plain(), plain());
    let address = listener.local_addr().unwrap();
    let sizes = [0, 1, 1200, 9000, 65_507, 3];
    for size in sizes {
        one.send_to(&vec![size as u8; size], address).unwrap();
    }
    two.send_to(b"two", address).unwrap();
    let mut batch = Batch::default();
    gather(&listener, &mut batch, 7);
    for (place, size) in sizes.into_iter().enumerate() {
        assert_eq!(batch.bytes(place), vec![size as u8; size]);
        let received = batch.received()[place];
        assert_eq!(received.from, one.local_addr().ok());
        assert_eq!(received.local, None);
    }
    assert_eq!(batch.bytes(6), b"two");
    assert_eq!(batch.received()[6].from, two.local_addr().ok());
    let mut outbox = Outbox::new(true);
    let sent = outbox.send(
        &listener,
        &batch,
        &parcels(&batch, one.local_addr().ok()),
        b"",
    );
    assert_eq!((sent.parcels, sent.datagrams, sent.lost), (7, 7, 0));
    for size in sizes {
        assert_eq!(receive(&one), vec![size as u8; size]);
    }
    assert_eq!(receive(&one), b"two");
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    let listener = bind((Ipv4Addr::UNSPECIFIED, 0).into(), 1)
        .unwrap()
        .remove(0);
    let port = listener.local_addr().unwrap().port();
    let client = plain();
    let mut batch = Batch::default();
    for last in [1, 5] {
        let asked = SocketAddr::from(([127, 0, 0, last], port));
        batch.clear();
        client.send_to(b"who", asked).unwrap();
        gather(&listener, &mut batch, 1);
        assert_eq!(batch.received()[0].local, Some(asked.ip()));
        Outbox::new(true).send(
            &listener,
            &batch,
            &parcels(&batch, client.local_addr().ok()),
            b"",
        );
        assert_eq!(client.recv_from(&mut [0; 10]).unwrap().1, asked);
    }
}

#[test]
fn the_same_over_the_newer_protocol() {
    let any = (std::net::Ipv6Addr::UNSPECIFIED, 0).into();
    let Ok(mut listeners) = bind(any, 1) else {
        return; // a machine without IPv6
    };
    let listener = listeners.remove(0);
    let asked = SocketAddr::from((
        std::net::Ipv6Addr::LOCALHOST,
        listener.local_addr().unwrap().port(),
    ));
    let client = connect(asked).unwrap();
    client.send(b"who").unwrap();
    let mut batch = Batch::default();
    gather(&listener, &mut batch, 1);
    assert_eq!(batch.received()[0].local, Some(asked.ip()));
    assert_eq!(batch.received()[0].from, client.local_addr().ok());
    Outbox::new(true).send(
        &listener,
        &batch,
        &parcels(&batch, client.local_addr().ok()),
        b"",
    );
    batch.clear();
    gather(&client, &mut batch, 1);
    assert_eq!(batch.bytes(0), b"who");
}

/// What comes put together is sent on put together, or in pieces by an outbox that does not join.
#[test]
fn a_train_of_datagrams_passes_as_one_and_ends_in_pieces() {
    let listener = bind(here(), 1).unwrap().remove(0);
    let sender = connect(listener.local_addr().unwrap()).unwrap();
    let source = plain();
    let mut batch = Batch::default();
    let wanted: Vec<Vec<u8>> = (0..20_u8)
        .map(|n| vec![n; if n == 19 { 500 } else { 1000 }])
        .collect();
    let filling = bind(here(), 1).unwrap().remove(0);
    for one in &wanted {
        source.send_to(one, filling.local_addr().unwrap()).unwrap();
    }
    gather(&filling, &mut batch, 20);
    let sent = Outbox::new(true).send(&sender, &batch, &parcels(&batch, None), b"");
    assert_eq!((sent.parcels, sent.datagrams), (20, 20));
    batch.clear();
    gather(&listener, &mut batch, 20);
    assert_eq!(batch.received().len(), 1, "it came as one");
    for joins in [true, false] {
        let sent = Outbox::new(joins).send(
            &listener,
            &batch,
            &parcels(&batch, source.local_addr().ok()),
            b"",
        );
        assert_eq!((sent.parcels, sent.datagrams, sent.lost), (1, 20, 0));
        for one in &wanted {
            assert_eq!(receive(&source), *one);
        }
    }
    let to_source = parcels(&batch, source.local_addr().ok());
    let sent = Outbox::new(true).send(&listener, &batch, &to_source, b"from: ");
    assert_eq!((sent.parcels, sent.datagrams, sent.lost), (1, 20, 0));
    for one in &wanted {
        assert_eq!(receive(&source), [b"from: ", &**one].concat());
    }
}

/// Each datagram of a train is cut by itself, and what is sent on is what is left.
#[test]
fn what_came_as_one_is_taken_apart() {
    let (listener, filling) = (
        bind(here(), 1).unwrap().remove(0),
        bind(here(), 1).unwrap().remove(0),
    );
    let sender = connect(listener.local_addr().unwrap()).unwrap();
    let source = plain();
    let mut batch = Batch::default();
    for n in 0..20_u8 {
        let size = if n == 19 { 3 } else { 10 };
        source
            .send_to(&vec![n; size], filling.local_addr().unwrap())
            .unwrap();
    }
    gather(&filling, &mut batch, 20);
    Outbox::new(true).send(&sender, &batch, &parcels(&batch, None), b"");
    batch.clear();
    gather(&listener, &mut batch, 20);
    assert_eq!(batch.received().len(), 1, "it came as one");
    let ends = |n: u8| {
        let end = SocketAddr::from(([192, 0, 2, n], 53));
        Some(Ends {
            source: end,
            destination: end,
        })
    };
    let mut seen = Vec::new();
    batch.part(|from, bytes| {
        assert_eq!(Some(from), sender.local_addr().ok());
        seen.push(bytes.to_vec());
        (bytes[0] % 2 == 0 || bytes[0] == 19).then(|| (3, ends(bytes[0])))
    });
    assert_eq!(seen.len(), 20);
    assert_eq!((&*seen[7], &*seen[19]), (&[7; 10][..], &[19; 3][..]));
    let kept: Vec<u8> = (0..20).filter(|n| n % 2 == 0 || *n == 19).collect();
    assert_eq!(batch.received().len(), kept.len());
    for (place, &n) in kept.iter().enumerate() {
        let (one, length) = (batch.received()[place], if n == 19 { 0 } else { 7 });
        assert_eq!(
            (one.announced, one.length, one.datagrams()),
            (ends(n), length, 1)
        );
        assert_eq!(
            (batch.header(place), batch.bytes(place)),
            (&[n; 3][..], &vec![n; length][..])
        );
    }
    let to_source = parcels(&batch, source.local_addr().ok());
    let sent = Outbox::new(true).send(&listener, &batch, &to_source, b"");
    assert_eq!((sent.parcels, sent.datagrams, sent.lost), (11, 11, 0));
    for n in kept {
        assert_eq!(receive(&source), vec![n; if n == 19 { 0 } else { 7 }]);
    }
    batch.clear();
    gather_nothing(&listener, &mut batch);
}

/// A batch that was taken apart begins anew.
fn gather_nothing(socket: &UdpSocket, batch: &mut Batch) {
    let error = batch.receive(socket, MAX_DATAGRAMS).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(batch.received().is_empty() && !batch.is_full());
}

/// The kernel cuts nothing for a socket without checksums, as it does not for devices that cannot: it says so, and all goes in pieces.
#[test]
fn where_cutting_is_refused_datagrams_go_one_by_one() {
    let (listener, target) = (bind(here(), 1).unwrap().remove(0), plain());
    let sender = connect(target.local_addr().unwrap()).unwrap();
    let source = plain();
    for n in 0..10 {
        source
            .send_to(&[n; 100], listener.local_addr().unwrap())
            .unwrap();
    }
    let mut batch = Batch::default();
    gather(&listener, &mut batch, 10);
    let raw = socket2::SockRef::from(&sender);
    set_flag_of(&raw, libc::SOL_SOCKET, libc::SO_NO_CHECK);
    let mut outbox = Outbox::new(true);
    for _ in 0..2 {
        let sent = outbox.send(&sender, &batch, &parcels(&batch, None), b"");
        assert_eq!((sent.parcels, sent.datagrams, sent.lost), (10, 10, 0));
        for n in 0..10 {
            assert_eq!(receive(&target), [n; 100]);
        }
    }
}

/// Ten small datagrams, sent on to one place: how many pieces they arrive in where they are put together, and what was lost.
fn send_on(outbox: &mut Outbox, sender: &UdpSocket, target: &UdpSocket) -> (usize, u32) {
    let (listener, source) = (bind(here(), 1).unwrap().remove(0), plain());
    for n in 0..10 {
        let to = listener.local_addr().unwrap();
        source.send_to(&[n; 100], to).unwrap();
    }
    let mut batch = Batch::default();
    gather(&listener, &mut batch, 10);
    let to = target.local_addr().unwrap();
    let sent = outbox.send(sender, &batch, &parcels(&batch, Some(to)), b"");
    batch.clear();
    gather(target, &mut batch, sent.datagrams as usize);
    (batch.received().len(), sent.lost)
}

#[test]
fn what_one_socket_cannot_is_tried_again_for_others() {
    let (target, narrow, wide) = (bind(here(), 1).unwrap().remove(0), plain(), plain());
    let raw = socket2::SockRef::from(&narrow);
    set_flag_of(&raw, libc::SOL_SOCKET, libc::SO_NO_CHECK);
    let mut outbox = Outbox::new(true);
    assert_eq!(send_on(&mut outbox, &wide, &target), (1, 0));
    assert_eq!(send_on(&mut outbox, &narrow, &target), (10, 0));
    assert_eq!(send_on(&mut outbox, &wide, &target), (10, 0));
    for _ in 0..super::parcels::WARY {
        outbox.send(&wide, &Batch::default(), &[], b"");
    }
    assert_eq!(send_on(&mut outbox, &wide, &target), (1, 0));
}

/// A socket may not send to everybody unless it says so: that tells nothing of what can be cut.
#[test]
fn what_may_not_be_sent_is_lost_and_others_are_joined_as_before() {
    let (listener, source) = (bind(here(), 1).unwrap().remove(0), plain());
    for n in 0..10 {
        let to = listener.local_addr().unwrap();
        source.send_to(&[n; 100], to).unwrap();
    }
    let mut batch = Batch::default();
    gather(&listener, &mut batch, 10);
    let (mut outbox, target) = (Outbox::new(true), bind(here(), 1).unwrap().remove(0));
    let everybody = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
    let sent = outbox.send(&listener, &batch, &parcels(&batch, Some(everybody)), b"");
    assert_eq!((sent.datagrams, sent.lost), (0, 10));
    assert_eq!(send_on(&mut outbox, &source, &target), (1, 0));
}

fn set_flag_of(socket: &Socket, level: libc::c_int, name: libc::c_int) {
    set_flag(socket, level, name).unwrap();
}

#[test]
fn a_refusal_is_told_and_costs_no_parcel() {
    // No other test has a socket at that address, which might be given the port.
    let gone = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).unwrap();
    let listener = bind(here(), 1).unwrap().remove(0);
    let toward_nobody = connect(gone.local_addr().unwrap()).unwrap();
    let source = plain();
    drop(gone);
    source
        .send_to(b"hello", listener.local_addr().unwrap())
        .unwrap();
    let mut batch = Batch::default();
    gather(&listener, &mut batch, 1);
    let mut outbox = Outbox::new(true);
    let mut send = || outbox.send(&toward_nobody, &batch, &parcels(&batch, None), b"");
    let first = send();
    assert_eq!((first.parcels, first.refused), (1, false));
    let refused = Sent {
        refused: true,
        ..Sent::default()
    };
    assert_eq!(send(), refused);
    send();
    let read = Batch::default().receive(&toward_nobody, 1);
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn another_process_on_the_port_is_noticed() {
    let bound = bind(here(), 2).unwrap();
    let address = bound[0].local_addr().unwrap();
    assert_eq!(
        bind(address, 1).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    bind_beside_own(address, 1).unwrap();
}

#[tokio::test]
async fn a_poller_finds_who_can_be_read_and_forgets_who_is_closed() {
    let poller = Poller::new().unwrap();
    // An address of its own: what other tests still send to ports that they had before must not come here.
    let apart = SocketAddr::from(([127, 0, 7, 7], 0));
    let sockets: Vec<UdpSocket> = (0..100).map(|_| UdpSocket::bind(apart).unwrap()).collect();
    for (number, socket) in (0..).zip(&sockets) {
        poller.add(socket, number).unwrap();
    }
    let client = plain();
    for socket in &sockets {
        client
            .send_to(b"hello", socket.local_addr().unwrap())
            .unwrap();
    }
    let (mut numbers, mut found) = (Vec::new(), Vec::new());
    let mut batch = Batch::default();
    while found.len() < 100 {
        std::future::poll_fn(|cx| poller.poll(cx, &mut numbers))
            .await
            .unwrap();
        for &number in &numbers {
            batch.clear();
            assert_eq!(batch.receive(&sockets[number as usize], 2).unwrap(), 1);
        }
        found.append(&mut numbers);
    }
    found.sort_unstable();
    assert_eq!(found, (0..100).collect::<Vec<_>>());
    client
        .send_to(b"again", sockets[7].local_addr().unwrap())
        .unwrap();
    std::future::poll_fn(|cx| poller.poll(cx, &mut numbers))
        .await
        .unwrap();
    assert_eq!(numbers, [7]);
    drop(sockets);
    poller.look_again(&mut numbers).unwrap();
    assert!(numbers.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is joined or cut: each place gets its datagrams in order, and all are accounted for.
    #[test]
    fn joining_changes_nothing(
        datagrams in proptest::collection::vec((0..3_usize, prop_oneof![Just(100_usize), Just(100), 0..200_usize, Just(2000)]), 1..=64),
        joins in any::<bool>(),
        prefix in prop_oneof![Just(Vec::new()), proptest::collection::vec(any::<u8>(), 1..30)],
    ) {
        let listener = bind(here(), 1).unwrap().remove(0);
        let (source, targets) = (plain(), [plain(), plain(), plain()]);
        let mut batch = Batch::default();
        let mut places = Vec::new();
        let mut wanted = [const { Vec::new() }; 3];
        for (number, (target, size)) in datagrams.into_iter().enumerate() {
            let bytes = vec![number as u8; size];
            source.send_to(&bytes, listener.local_addr().unwrap()).unwrap();
            wanted[target].push(bytes);
            places.push(target);
            gather(&listener, &mut batch, number + 1);
        }
        let parcels = (0..).zip(&places).map(|(place, &target)| Parcel {
            place,
            to: targets[target].local_addr().ok(),
            local: None,
        });
        let sent = Outbox::new(joins).send(&listener, &batch, &parcels.collect::<Vec<_>>(), &prefix);
        prop_assert_eq!((sent.parcels, sent.datagrams as usize, sent.lost), (places.len(), places.len(), 0));
        for (target, wanted) in targets.iter().zip(wanted) {
            for bytes in wanted {
                prop_assert_eq!(receive(target), [&*prefix, &*bytes].concat());
            }
        }
    }
}
