//! The ClientHello at the start of a connection: found alike in whatever pieces and records it comes, never later than its bound, and with
//! a name that is one of a host. Whatever rustls takes is taken too, and read in the same way.

use rustls::server::Acceptor;
use weir::net::client_hello::{Fault, MOST, Reader};

use super::support::pieces;

/// What is found, owned.
type Found = Result<Option<(Option<String>, Vec<Vec<u8>>)>, Fault>;

fn read(reader: &mut Reader, bytes: &[u8]) -> Found {
    let found = reader.read(bytes)?;
    Ok(found.map(|hello| {
        let protocols = hello.protocols().map(<[u8]>::to_vec).collect();
        (hello.server_name.map(str::to_owned), protocols)
    }))
}

pub fn run(bytes: &[u8]) {
    let whole = read(&mut Reader::default(), bytes);
    let (mut reader, mut end) = (Reader::default(), 0);
    let mut first = Ok(None);
    for piece in pieces(bytes) {
        end += piece.len();
        first = read(&mut reader, &bytes[..end]);
        if first != Ok(None) {
            break;
        }
    }
    assert_eq!(first, whole, "after {end} bytes of {}", bytes.len());
    match &whole {
        Ok(Some((name, protocols))) => {
            let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if let Some(name) = name {
                assert!(!name.is_empty() && name.len() <= 253 && name.bytes().all(is_fine));
                assert!(!name.starts_with('.') && !name.ends_with('.') && !name.contains(".."));
            }
            assert!(protocols.iter().all(|name| (1..=255).contains(&name.len())));
        }
        Ok(None) => assert!(bytes.len() < MOST),
        Err(_) => {}
    }
    compare(bytes, &whole);
}

/// What rustls makes of it.
fn compare(bytes: &[u8], whole: &Found) {
    let mut acceptor = Acceptor::default();
    let mut left = bytes;
    loop {
        if !matches!(acceptor.read_tls(&mut left), Ok(1..)) {
            return;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let theirs = hello.server_name();
                let Ok(Some((name, protocols))) = whole else {
                    let is_usual = theirs.is_some_and(|name| is_the_only(name, bytes));
                    assert!(!is_usual, "rustls takes it: {whole:?}");
                    return;
                };
                let folded = name.as_ref().map(|name| name.to_ascii_lowercase());
                let theirs = theirs.map(|name| name.strip_suffix('.').unwrap_or(name));
                assert_eq!(theirs, folded.as_deref());
                let offered = hello.alpn().into_iter().flatten();
                assert!(offered.eq(protocols.iter().map(Vec::as_slice)));
                return;
            }
            Err(_) => return,
        }
    }
}

/// Whether a list of one name stands there in one record. Of longer lists rustls takes what it knows.
fn is_the_only(name: &str, bytes: &[u8]) -> bool {
    let length = |more: usize| ((name.len() + more) as u16).to_be_bytes();
    let start = [[0, 0], length(5), length(3)].concat();
    let whole = [&start[..], &[0], &length(0), name.as_bytes()].concat();
    (bytes.windows(whole.len())).any(|window| window.eq_ignore_ascii_case(&whole))
}
