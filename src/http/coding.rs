//! Codings of content (RFC 9110 section 8.4.1) put on a piece at a time: gzip, brotli and zstd, each with bounded memory.
//! It frames nothing and chooses nothing; what to code, and how, is said in `policy/filter/compress.rs`.
//! The walk goes back to `l7/compress.rs`.

use std::fmt;
use std::io::Write;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd_safe::zstd_sys::ZSTD_EndDirective::{ZSTD_e_continue, ZSTD_e_end, ZSTD_e_flush};
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use crate::config::model::Algorithm;

/// Bytes that brotli and zstd look back, as a power of two: enough for pages and documents, and a bound for what one answer takes.
const WINDOW: u32 = 17;

/// Bytes that brotli gathers before it works.
const BROTLI_PIECE: usize = 16 * 1024;

/// Room that output is given at least, so that an end and a flush fit.
const ROOM: usize = 1024;

/// Codes one message; then it may be reset for the next.
pub enum Coder {
    /// DEFLATE within the gzip format (RFC 1952).
    Gzip(Box<Compress>),
    /// Brotli (RFC 7932); `None` after its end.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    /// Zstandard (RFC 8878), with a window that every client takes (RFC 9659).
    Zstd(CCtx<'static>),
}

/// What comes after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More, so that the coder may hold back what it likes.
    More,
    /// Nothing for a while: whoever reads what came out must be able to decode all that went in.
    Pause,
    /// The end.
    End,
}

/// A coder failed, which it can only do by a fault in it or without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Coder {
    /// A coder of this level; `None` when the system has no memory for one.
    pub fn new(algorithm: Algorithm, level: u8) -> Option<Coder> {
        Some(match algorithm {
            Algorithm::Gzip => {
                let level = Compression::new(u32::from(level));
                Coder::Gzip(Box::new(Compress::new_gzip(level, 15)))
            }
            Algorithm::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: i32::from(level),
                    lgwin: WINDOW as i32,
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), BROTLI_PIECE, &parameters);
                Coder::Brotli(Some(Box::new(writer)))
            }
            Algorithm::Zstd => {
                let mut context = CCtx::try_create()?;
                let level = CParameter::CompressionLevel(i32::from(level));
                context.set_parameter(level).ok()?;
                context.set_parameter(CParameter::WindowLog(WINDOW)).ok()?;
                Coder::Zstd(context)
            }
        })
    }

    /// Codes `bytes` and appends what comes out of it.
    ///
    /// # Errors
    /// [`Broken`]; the message cannot be ended any more.
    pub fn code(&mut self, bytes: &[u8], then: Then, out: &mut Vec<u8>) -> Result<(), Broken> {
        match self {
            Coder::Gzip(state) => deflate(state, bytes, then, out),
            Coder::Brotli(writer) => brotli(writer, bytes, then, out),
            Coder::Zstd(context) => zstd(context, bytes, then, out),
        }
    }

    /// Makes it ready for another message; false when it is of no more use.
    pub fn reset(&mut self) -> bool {
        match self {
            Coder::Gzip(state) => {
                state.reset();
                true
            }
            Coder::Brotli(_) => false,
            Coder::Zstd(context) => context.reset(ResetDirective::SessionOnly).is_ok(),
        }
    }
}

impl fmt::Debug for Coder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Coder::Gzip(_) => "Gzip",
            Coder::Brotli(_) => "Brotli",
            Coder::Zstd(_) => "Zstd",
        })
    }
}

fn deflate(
    state: &mut Compress,
    mut bytes: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    let flush = match then {
        Then::More => FlushCompress::None,
        Then::Pause => FlushCompress::Sync,
        Then::End => FlushCompress::Finish,
    };
    loop {
        out.reserve(bytes.len() / 2 + ROOM);
        let (taken, made) = (state.total_in(), out.len());
        let status = state.compress_vec(bytes, out, flush).map_err(|_| Broken)?;
        let taken = (state.total_in() - taken) as usize;
        bytes = &bytes[taken..];
        let is_stuck = taken == 0 && out.len() == made;
        match (status, then) {
            (Status::StreamEnd, _) => return Ok(()),
            // With room left there is no more to come.
            (_, Then::More | Then::Pause) if bytes.is_empty() && out.len() < out.capacity() => {
                return Ok(());
            }
            _ if is_stuck => return Err(Broken),
            _ => {}
        }
    }
}

fn brotli(
    writer: &mut Option<Box<CompressorWriter<Vec<u8>>>>,
    bytes: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    let state = writer.as_mut().ok_or(Broken)?;
    state.write_all(bytes).map_err(|_| Broken)?;
    if then == Then::Pause {
        state.flush().map_err(|_| Broken)?;
    }
    out.append(state.get_mut());
    if then == Then::End {
        let state = writer.take().ok_or(Broken)?;
        out.append(&mut state.into_inner());
    }
    Ok(())
}

fn zstd(
    context: &mut CCtx<'static>,
    bytes: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    let mut input = InBuffer::around(bytes);
    loop {
        out.reserve((bytes.len() - input.pos()) / 2 + ROOM);
        let made = out.len();
        let mut output = OutBuffer::around_pos(out, made);
        let directive = match then {
            Then::More => ZSTD_e_continue,
            Then::Pause => ZSTD_e_flush,
            Then::End => ZSTD_e_end,
        };
        let left = context.compress_stream2(&mut output, &mut input, directive);
        let left = left.map_err(|_| Broken)?;
        if input.pos() == bytes.len() && (left == 0 || then == Then::More) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// Decodes what is there, be it whole or not.
    fn decoded(algorithm: Algorithm, coded: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        let mut source: Box<dyn Read> = match algorithm {
            Algorithm::Gzip => Box::new(flate2::read::GzDecoder::new(coded)),
            Algorithm::Brotli => Box::new(brotli::Decompressor::new(coded, 4096)),
            Algorithm::Zstd => return unzstd(coded),
        };
        while let Ok(count @ 1..) = source.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes
    }

    fn unzstd(coded: &[u8]) -> Vec<u8> {
        let mut context = zstd_safe::DCtx::create();
        let mut bytes = Vec::new();
        let mut input = InBuffer::around(coded);
        loop {
            bytes.reserve(64 * 1024);
            let at = bytes.len();
            let mut output = OutBuffer::around_pos(&mut bytes, at);
            context.decompress_stream(&mut output, &mut input).unwrap();
            if output.pos() == at {
                return bytes;
            }
        }
    }

    const ALL: [Algorithm; 3] = [Algorithm::Gzip, Algorithm::Brotli, Algorithm::Zstd];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_coded_is_decoded(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..400), 1..200usize, any::<bool>()), 0..12),
            level in 1..10u8,
        ) {
            for algorithm in ALL {
                let mut coder = Coder::new(algorithm, level).unwrap();
                for _ in 0..2 {
                    let (mut out, mut whole) = (Vec::new(), Vec::new());
                    for (bytes, times, pauses) in &pieces {
                        let piece = bytes.repeat(*times);
                        let then = if *pauses { Then::Pause } else { Then::More };
                        coder.code(&piece, then, &mut out).unwrap();
                        whole.extend_from_slice(&piece);
                        if *pauses {
                            prop_assert!(decoded(algorithm, &out) == whole, "{algorithm:?} held something back");
                        }
                    }
                    coder.code(b"", Then::End, &mut out).unwrap();
                    prop_assert!(decoded(algorithm, &out) == whole, "{algorithm:?}");
                    if !coder.reset() {
                        coder = Coder::new(algorithm, level).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_made_smaller_hardly_grows() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for algorithm in ALL {
            let mut out = Vec::new();
            let mut coder = Coder::new(algorithm, algorithm.usual_level()).unwrap();
            coder.code(&noise, Then::End, &mut out).unwrap();
            assert!(
                out.len() < noise.len() + noise.len() / 16,
                "{algorithm:?} {}",
                out.len()
            );
            assert_eq!(decoded(algorithm, &out), noise);
        }
    }
}
