//! Where the body of a message ends: length, chunked coding or the end of the connection (RFC 9112 sections 6 and 7).
//! Bytes pass untouched; this only counts them, and refuses what another reader could frame differently.
//! The walk goes on in `l7/body.rs`, which moves the bytes.

use std::ops::Range;

use super::fault::Fault;
use super::head::Field;

/// Digits of a chunk size, leading zeros among them: enough for an exbibyte, and no overflow.
const MAX_DIGITS: u8 = 15;

/// Bytes that chunk extensions of one chunk may have.
const MAX_EXTENSION: u32 = 1024;

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; 0 also stands for no body at all.
    Length(u64),
    /// The chunked coding, at this point of it.
    Chunked(Chunked),
    /// All bytes until the connection ends.
    Close,
}

impl Framing {
    /// No body.
    pub const NONE: Framing = Framing::Length(0);

    /// Whether the message is complete. A close-delimited one is complete when the connection says so.
    #[inline]
    pub fn is_done(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.state == State::Done,
            Framing::Close => false,
        }
    }

    /// How many of `bytes` belong to this message; counts them.
    ///
    /// # Errors
    /// [`Fault::Chunk`], [`Fault::Trailer`] or [`Fault::BareLineEnd`]; the message must then not be passed on further.
    #[inline]
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match self {
            Framing::Length(left) => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                Ok(taken as usize)
            }
            Framing::Chunked(chunked) => chunked.advance(bytes),
            Framing::Close => Ok(bytes.len()),
        }
    }

    /// Like [`Framing::advance`], and moves the data without its chunk framing to the front of `bytes`, for a client that does not
    /// know the chunked coding. Returns the bytes taken and the bytes of data among them.
    ///
    /// # Errors
    /// As [`Framing::advance`].
    pub fn advance_and_decode(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let Framing::Chunked(chunked) = self else {
            return self.advance(bytes).map(|taken| (taken, taken));
        };
        let (mut taken, mut kept) = (0, 0);
        while taken < bytes.len() && chunked.state != State::Done {
            let data = chunked.next_run(bytes, taken)?;
            taken = data.end;
            let length = data.len();
            bytes.copy_within(data, kept);
            kept += length;
        }
        Ok((taken, kept))
    }

    /// Bytes of the trailer section that were taken, the empty line at its end among them: the last ones of all that was.
    pub fn trailer_bytes(&self) -> usize {
        match self {
            Framing::Chunked(chunked) => chunked.trailer.bytes as usize,
            Framing::Length(_) | Framing::Close => 0,
        }
    }

    /// Whether the body has, or will have, more than `limit` bytes of data, as far as is known by now.
    #[inline]
    pub fn exceeds(&self, limit: u64) -> bool {
        match self {
            Framing::Length(left) => *left > limit,
            Framing::Chunked(chunked) => chunked.data > limit,
            Framing::Close => false,
        }
    }
}

/// The chunked coding, a byte at a time but for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    data: u64,
    trailer: Trailer,
    limits: TrailerLimits,
}

/// What a trailer section may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailerLimits {
    /// Bytes.
    pub bytes: u32,
    /// Field lines.
    pub lines: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trailer {
    bytes: u32,
    lines: u32,
    /// The first bytes of the name, lower case, to know the fields that no trailer may carry.
    name: [u8; NAME],
    length: u8,
}

/// Longer than any name that matters: a name cut to this length is none of them.
const NAME: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    /// Within a size, after this many digits.
    Size(u64, u8),
    /// After a size and so many blanks: only an extension may follow.
    SizeBlank(u64, u32),
    /// Within an extension.
    Extension(u64, u32),
    /// After the CR of a size line.
    SizeEnd(u64),
    /// Within data.
    Data(u64),
    /// After data.
    DataEnd,
    /// After the CR that follows data.
    DataEndLf,
    /// Before a trailer line or the end.
    TrailerStart,
    /// Within a trailer's name.
    TrailerName,
    /// Within a trailer's value.
    TrailerValue,
    /// After the CR of a trailer line.
    TrailerEnd,
    /// After the CR of the last empty line.
    LastLf,
    /// Complete.
    Done,
}

impl Chunked {
    /// Before the first chunk.
    pub fn new(limits: TrailerLimits) -> Self {
        let trailer = Trailer {
            bytes: 0,
            lines: 0,
            name: [0; NAME],
            length: 0,
        };
        Chunked {
            state: State::SizeStart,
            data: 0,
            trailer,
            limits,
        }
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut taken = 0;
        while taken < bytes.len() && self.state != State::Done {
            taken = self.next_run(bytes, taken)?.end;
        }
        Ok(taken)
    }

    /// Counts framing from `at` on, then one run of data, whose range is the result; everything before its end is taken.
    fn next_run(&mut self, bytes: &[u8], mut at: usize) -> Result<Range<usize>, Fault> {
        while at < bytes.len() && self.state != State::Done {
            if let State::Data(left) = self.state {
                let run = left.min((bytes.len() - at) as u64);
                self.data += run;
                self.state = if run == left {
                    State::DataEnd
                } else {
                    State::Data(left - run)
                };
                return Ok(at..at + run as usize);
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at..at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (
                State::SizeStart
                | State::Size(..)
                | State::SizeBlank(..)
                | State::Extension(..)
                | State::DataEnd,
                b'\n',
            ) => {
                return Err(Fault::BareLineEnd);
            }
            (State::SizeStart, _) => State::Size(digit(byte).ok_or(Fault::Chunk)?, 1),
            (State::Size(size, _), b'\r') => State::SizeEnd(size),
            (State::Size(size, _) | State::SizeBlank(size, _), b';') => State::Extension(size, 0),
            // Blanks before an extension are bad white space that RFC 9112 section 7.1.1 has a recipient accept.
            (State::Size(size, _), b' ' | b'\t') => State::SizeBlank(size, 1),
            (State::SizeBlank(size, blanks), b' ' | b'\t') if blanks < MAX_EXTENSION => {
                State::SizeBlank(size, blanks + 1)
            }
            (State::Size(size, digits), _) if digits < MAX_DIGITS => {
                State::Size((size << 4) | digit(byte).ok_or(Fault::Chunk)?, digits + 1)
            }
            (State::Extension(size, _), b'\r') => State::SizeEnd(size),
            (State::Extension(size, length), _) if is_text(byte) && length < MAX_EXTENSION => {
                State::Extension(size, length + 1)
            }
            (State::SizeEnd(0), b'\n') => State::TrailerStart,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::SizeStart,
            (State::SizeEnd(_) | State::DataEndLf | State::TrailerEnd | State::LastLf, _)
                if byte != b'\n' =>
            {
                return Err(Fault::BareLineEnd);
            }
            (
                State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerEnd
                | State::LastLf,
                _,
            ) => {
                return self.step_trailer(byte);
            }
            _ => return Err(Fault::Chunk),
        })
    }

    fn step_trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailer.bytes += 1;
        if self.trailer.bytes > self.limits.bytes {
            return Err(Fault::Trailer);
        }
        Ok(match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart, _) if is_token(byte) => {
                self.trailer.lines += 1;
                if self.trailer.lines > self.limits.lines {
                    return Err(Fault::Trailer);
                }
                self.trailer.length = 0;
                self.trailer.push(byte);
                State::TrailerName
            }
            (State::TrailerName, b':') if !self.trailer.is_forbidden() => State::TrailerValue,
            (State::TrailerName, _) if is_token(byte) => {
                self.trailer.push(byte);
                State::TrailerName
            }
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if is_text(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            (_, b'\n') => return Err(Fault::BareLineEnd),
            _ => return Err(Fault::Trailer),
        })
    }
}

impl Trailer {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(usize::from(self.length)) {
            *place = byte;
            self.length += 1;
        }
    }

    /// Fields that frame, route or vouch for a message have no meaning after its body (RFC 9110 section 6.5.1); a server that
    /// merges trailers into its header must not find them there.
    fn is_forbidden(&self) -> bool {
        // The beginning of a longer name is no whole name that matters, and enough of `X-Forwarded-*`.
        let field = Field::from_name(&self.name[..usize::from(self.length)]);
        field.is_hop_by_hop()
            || field.is_forwarding()
            || matches!(
                field,
                Field::ContentLength | Field::TransferEncoding | Field::Host | Field::Cookie
            )
    }
}

fn digit(byte: u8) -> Option<u64> {
    (byte as char).to_digit(16).map(u64::from)
}

/// Bytes of a field value or chunk extension: visible, blank, tab and obs-text.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Bytes of a token (RFC 9110 section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: TrailerLimits = TrailerLimits {
        bytes: 1024,
        lines: 8,
    };

    fn chunked() -> Framing {
        Framing::Chunked(Chunked::new(LIMITS))
    }

    fn take(wire: &[u8]) -> Result<(usize, bool), Fault> {
        let mut framing = chunked();
        let taken = framing.advance(wire)?;
        Ok((taken, framing.is_done()))
    }

    #[test]
    fn a_body_ends_where_it_says() {
        assert_eq!(take(b"3\r\nabc\r\n0\r\n\r\nGET"), Ok((13, true)));
        assert_eq!(
            take(b"A;x=\"y\"\r\n0123456789\r\n0\r\nEtag: x\r\n\r\n"),
            Ok((35, true))
        );
        assert_eq!(take(b"3 ;x\r\nabc\r\n0\r\n"), Ok((14, false)));
    }

    #[test]
    fn what_could_be_framed_differently_is_refused() {
        let cases: &[(&[u8], Fault)] = &[
            (b"\r\n", Fault::Chunk),
            (b"-1\r\n", Fault::Chunk),
            (b"+1\r\n", Fault::Chunk),
            (b"0x1\r\n", Fault::Chunk),
            (b"1_0\r\n", Fault::Chunk),
            (b" 1\r\n", Fault::Chunk),
            (b"1 1\r\n", Fault::Chunk),
            (b"1 \r\n", Fault::Chunk),
            (b"10000000000000000\r\n", Fault::Chunk),
            (b"1\n", Fault::BareLineEnd),
            (b"1\rx", Fault::BareLineEnd),
            (b"1;a\nb\r\n", Fault::BareLineEnd),
            (b"1;a\0\r\n", Fault::Chunk),
            (b"1\r\nabc", Fault::Chunk),
            (b"1\r\na\n", Fault::BareLineEnd),
            (b"1\r\na\rx", Fault::BareLineEnd),
            (b"0\r\n\n", Fault::BareLineEnd),
            (b"0\r\n a: b\r\n", Fault::Trailer),
            (b"0\r\na : b\r\n", Fault::Trailer),
            (b"0\r\na: b\n", Fault::BareLineEnd),
            (b"0\r\na: b\rc", Fault::BareLineEnd),
            (b"0\r\na\r\n", Fault::Trailer),
            (b"0\r\n: b\r\n", Fault::Trailer),
            (b"0\r\na: \x01\r\n", Fault::Trailer),
            (b"0\r\nContent-Length: 5\r\n", Fault::Trailer),
            (b"0\r\nx_forwarded_for: 5\r\n", Fault::Trailer),
            (b"0\r\nX-Forwarded-Client-Cert: 5\r\n", Fault::Trailer),
            (b"0\r\nTransfer-Encoding: chunked\r\n", Fault::Trailer),
        ];
        for (wire, fault) in cases {
            assert_eq!(take(wire), Err(*fault), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn trailers_and_extensions_are_bounded() {
        let long = [b"1;".as_slice(), &vec![b'x'; 2000], b"\r\n"].concat();
        assert_eq!(take(&long), Err(Fault::Chunk));
        let many = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(9)].concat();
        assert_eq!(take(&many), Err(Fault::Trailer));
        let large = [b"0\r\na: ".as_slice(), &vec![b'x'; 2000], b"\r\n"].concat();
        assert_eq!(take(&large), Err(Fault::Trailer));
    }

    fn encode(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nx-checksum: 1\r\n\r\n");
        wire
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..700, 1..200),
        ) {
            let wire = [encode(&chunks), b"next".to_vec()].concat();
            let (mut framing, mut plain, mut data) = (chunked(), chunked(), Vec::new());
            let mut from = 0;
            for cut in cuts.iter().cycle() {
                let end = (from + cut).min(wire.len());
                let mut piece = wire[from..end].to_vec();
                let taken = plain.advance(&piece).unwrap();
                let (decoded, kept) = framing.advance_and_decode(&mut piece).unwrap();
                prop_assert_eq!(taken, decoded);
                data.extend_from_slice(&piece[..kept]);
                from += taken;
                if plain.is_done() { break; }
            }
            prop_assert_eq!(&wire[from..], b"next");
            prop_assert!(framing.is_done());
            prop_assert_eq!(data, chunks.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = chunked().advance(&bytes);
            let _ = chunked().advance_and_decode(&mut bytes.clone());
        }
    }
}
