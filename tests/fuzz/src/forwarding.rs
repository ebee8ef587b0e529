//! For whom a request is forwarded: nothing that a stranger says of itself goes on, and what a trusted proxy says is read from the
//! right. The head that goes on is read again as one head.

use std::net::{IpAddr, SocketAddr};

use weir::config::model::{Cidr, Forwarding, Limits};
use weir::http::edits::Edits;
use weir::http::forwarding::{Source, edit, remove_hop_by_hop};
use weir::http::request;

use super::support::{LIMITS, Numbers, folded, read_plainly, values};

/// Room for what is added.
const ROOM: Limits = Limits {
    head: 16_384,
    header_lines: 64,
};

pub fn run(bytes: &[u8]) {
    let mut lines = Vec::new();
    let Ok(Some(request)) = request::parse(bytes, &mut lines, &LIMITS) else {
        return;
    };
    let head = &request.head;
    let remotes = [
        "10.0.0.1:5",
        "192.0.2.1:5",
        "[::ffff:10.0.0.2]:5",
        "[2001:db8::1]:5",
    ];
    let which = Numbers::of(bytes).up_to(remotes.len() - 1);
    let remote: SocketAddr = remotes[which].parse().expect("an address");
    let trusted = [Cidr {
        network: [10, 0, 0, 0].into(),
        prefix: 8,
    }];
    let source = Source::of(head, remote, which % 2 == 1, &trusted);
    let ip = remote.ip().to_canonical();
    assert_eq!(source.remote, ip);
    assert_eq!(source.trusted, is_ten(ip));
    let (_, fields) = read_plainly(head.bytes, head.lines);
    let said = values(&fields, "x-forwarded-for").join(&b","[..]);
    assert_eq!(source.client, client(&said, ip));

    let (mut edits, mut out) = (Edits::default(), b"GET / HTTP/1.1\r\n".to_vec());
    let options = Forwarding {
        forwarded: which.is_multiple_of(2),
        via: true,
    };
    edit(head, &source, options, &mut edits);
    remove_hop_by_hop(
        head.bytes,
        head.lines,
        request.connection_options,
        &mut edits,
    );
    if values(&fields, "host").is_empty() {
        // HTTP/1.0 may lack it; it is not what this is about.
        edits.append("Host", b"a");
    }
    edits.apply(head.bytes, head.lines, &mut out);
    out.extend_from_slice(b"\r\n");
    let mut lines = Vec::new();
    let sent = request::parse(&out, &mut lines, &ROOM).expect("no fault");
    let sent = sent.expect("a whole head");
    assert_eq!(sent.head.bytes.len(), out.len(), "one head");
    assert_eq!(request.body, sent.body);
    let (_, fields) = read_plainly(sent.head.bytes, sent.head.lines);
    check_sent(&fields, &source, options);
}

fn check_sent(fields: &[(&[u8], &[u8])], source: &Source, options: Forwarding) {
    let last = values(fields, "x-forwarded-for").pop().expect("for whom");
    assert!(last.ends_with(source.remote.to_string().as_bytes()));
    if !source.trusted {
        for (name, value) in fields {
            let name = folded(name);
            let prefixes = ["x-forwarded-", "client-cert", "x-client-cert"];
            let starts = prefixes.iter().any(|prefix| name.starts_with(prefix));
            let speaks = starts || name == "x-real-ip";
            let own = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
            assert!(
                !speaks || own.contains(&&*name),
                "{name}: {}",
                value.escape_ascii()
            );
        }
        assert_eq!(
            values(fields, "x-forwarded-for"),
            [source.client.to_string().as_bytes()]
        );
        let scheme = if source.secure { "https" } else { "http" };
        assert_eq!(values(fields, "x-forwarded-proto"), [scheme.as_bytes()]);
        assert_eq!(
            values(fields, "forwarded").len(),
            usize::from(options.forwarded)
        );
    }
    for name in [
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
    ] {
        assert!(values(fields, name).is_empty(), "{name}");
    }
}

fn is_ten(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// The rightmost entry that no trusted proxy is; an entry that is none ends the search.
fn client(said: &[u8], remote: IpAddr) -> IpAddr {
    let mut client = remote;
    let entries: Vec<&[u8]> = said
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .collect();
    for entry in entries.into_iter().rev().filter(|entry| !entry.is_empty()) {
        if !is_ten(client) {
            break;
        }
        let text = String::from_utf8_lossy(entry).into_owned();
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(&text).parse::<IpAddr>().ok();
        let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
        match address {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}
