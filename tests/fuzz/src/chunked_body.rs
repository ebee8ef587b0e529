//! A chunked body: counting and decoding agree, pieces make no difference, and what is taken is what a plain reader takes.

use weir::http::fault::Fault;
use weir::http::framing::{Chunked, Framing, TrailerLimits};

use super::support::{folded, pieces};

const LIMITS: TrailerLimits = TrailerLimits {
    bytes: 512,
    lines: 8,
};

pub fn run(bytes: &[u8]) {
    let mut counted = Framing::Chunked(Chunked::new(LIMITS));
    let mut decoded = counted;
    let whole = counted.advance(bytes);
    let mut copy = bytes.to_vec();
    match (whole, decoded.advance_and_decode(&mut copy)) {
        (Ok(taken), Ok((same, kept))) => {
            assert_eq!((taken, counted), (same, decoded));
            let data = &copy[..kept];
            if counted.is_done() {
                assert_eq!(plainly(bytes), (data.to_vec(), taken));
            } else {
                assert_eq!(taken, bytes.len());
            }
            assert_eq!(in_pieces(bytes), Ok((data.to_vec(), taken, counted)));
        }
        (Err(fault), Err(same)) => {
            assert_eq!(fault, same);
            assert_eq!(in_pieces(bytes), Err(fault));
        }
        (one, other) => panic!("{one:?} and {other:?}"),
    }
}

fn in_pieces(bytes: &[u8]) -> Result<(Vec<u8>, usize, Framing), Fault> {
    let mut counted = Framing::Chunked(Chunked::new(LIMITS));
    let mut decoded = counted;
    let (mut data, mut all) = (Vec::new(), 0);
    for piece in pieces(bytes) {
        let mut copy = piece.to_vec();
        let taken = counted.advance(piece)?;
        let (same, kept) = decoded.advance_and_decode(&mut copy)?;
        assert_eq!((taken, counted), (same, decoded));
        data.extend_from_slice(&copy[..kept]);
        all += taken;
        if taken < piece.len() {
            assert!(counted.is_done());
            break;
        }
    }
    Ok((data, all, counted))
}

/// The data of a whole body, and how long it is.
fn plainly(bytes: &[u8]) -> (Vec<u8>, usize) {
    let line = |from: usize| {
        let end = bytes[from..].windows(2).position(|two| two == b"\r\n");
        from + end.expect("a line end")
    };
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let end = line(at);
        let digits = bytes[at..end].split(|byte| b"; \t".contains(byte)).next();
        let digits = std::str::from_utf8(digits.unwrap_or_default()).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        at = end + 2;
        if size == 0 {
            break;
        }
        data.extend_from_slice(&bytes[at..at + size]);
        assert_eq!(&bytes[at + size..at + size + 2], b"\r\n");
        at += size + 2;
    }
    loop {
        let end = line(at);
        let trailer = &bytes[at..end];
        at = end + 2;
        if trailer.is_empty() {
            return (data, at);
        }
        let name = trailer
            .split(|byte| *byte == b':')
            .next()
            .unwrap_or_default();
        let name = folded(name);
        let forbidden = [
            "content-length",
            "transfer-encoding",
            "host",
            "cookie",
            "forwarded",
        ];
        let claims = ["x-forwarded-", "client-cert", "x-client-cert"];
        assert!(
            !claims.iter().any(|claim| name.starts_with(claim)),
            "{name}"
        );
        assert!(!forbidden.contains(&&*name), "{name}");
    }
}
