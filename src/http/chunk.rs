//! Puts the chunked coding (RFC 9112 section 7.1) around data where it lies, so that a chunk is one run of bytes without a copy.
//! It never reads a chunk: that is `framing.rs`.
//! The walk goes on in `l7/body.rs`.

use std::ops::Range;

/// Bytes before the data: the size in hexadecimal digits and a line end.
pub const BEFORE: usize = 10;

/// Bytes behind it.
const AFTER: usize = 2;

/// Where data must lie in `memory` so that a chunk can be made of it.
pub fn room(memory: &[u8]) -> Range<usize> {
    BEFORE..memory.len() - AFTER
}

/// Makes a chunk of the first `count` bytes in the room of `memory`, more than none; returns where it lies.
pub fn frame(memory: &mut [u8], count: usize) -> Range<usize> {
    let end = BEFORE + count;
    memory[end..end + AFTER].copy_from_slice(b"\r\n");
    let mut start = BEFORE - 2;
    memory[start..BEFORE].copy_from_slice(b"\r\n");
    let mut left = count;
    while left > 0 {
        start -= 1;
        memory[start] = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    start..end + AFTER
}

/// The data as one chunk, with the last chunk behind it if it `is_whole`; of no data there is no chunk.
pub fn framed(data: &[u8], is_whole: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if !data.is_empty() {
        out.resize(BEFORE, 0);
        out.extend_from_slice(data);
        close(&mut out, 0);
    }
    if is_whole {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    out
}

/// Makes a chunk of what stands behind [`BEFORE`] bytes at `start`, to the end of `out`; of nothing it makes none.
pub fn close(out: &mut Vec<u8>, start: usize) {
    let count = out.len() - start - BEFORE;
    if count == 0 {
        return out.truncate(start);
    }
    out.extend_from_slice(&[0; AFTER]);
    let chunk = frame(&mut out[start..], count);
    out.copy_within(start + chunk.start.., start);
    out.truncate(start + chunk.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::framing::{Chunked, Framing, TrailerLimits};

    #[test]
    fn kept_data_is_framed_as_far_as_it_goes() {
        assert_eq!(framed(b"", false), b"");
        assert_eq!(framed(b"hello world", false), b"b\r\nhello world\r\n");
        assert_eq!(framed(b"hi", true), b"2\r\nhi\r\n0\r\n\r\n");
        assert_eq!(framed(b"", true), b"0\r\n\r\n");
    }

    #[test]
    fn what_is_framed_is_read_again() {
        for count in [1, 15, 16, 255, 256, 4096, 65_535, 139_000] {
            let mut memory = vec![7; 139_264];
            let chunk = frame(&mut memory, count);
            let limits = TrailerLimits {
                bytes: 64,
                lines: 1,
            };
            let mut framing = Framing::Chunked(Chunked::new(limits));
            let mut wire = [&memory[chunk], b"0\r\n\r\n"].concat();
            let (taken, kept) = framing.advance_and_decode(&mut wire).unwrap();
            assert_eq!((taken, kept), (wire.len(), count));
            assert!(framing.is_done() && wire[..kept].iter().all(|&byte| byte == 7));
            let mut out = [&b"head"[..], &[0; BEFORE], &vec![8; count]].concat();
            close(&mut out, 4);
            let expected = format!("head{count:x}\r\n").into_bytes();
            assert_eq!(out, [&expected[..], &vec![8; count], b"\r\n"].concat());
        }
    }
}
