//! What can be wrong with a message, as one word per fault.
//! It never decides about an answer: `l7/reject.rs` has the table from fault to status.
//! The walk goes on in `request.rs`, `answer.rs` and `framing.rs`, which find these.

/// Why a message is refused. Where RFC 9112 lets a recipient choose between mending and refusing, weir refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request or status line is not one.
    StartLine,
    /// A well-formed protocol version that is not HTTP/1.0 or HTTP/1.1.
    Version,
    /// A request target of no known form, or with bytes that no target has.
    Target,
    /// CONNECT: weir is no forward proxy.
    Connect,
    /// A field line with white space before the colon, a fold, a bad name or a control character.
    FieldLine,
    /// A line that ends in LF without CR, or a CR without LF.
    BareLineEnd,
    /// HTTP/1.1 without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A `Host` or authority that is not one.
    HostInvalid,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// A `Content-Length` that is repeated, a list, or not a number.
    Length,
    /// A transfer coding that is unknown, misplaced or repeated.
    Coding,
    /// A registered transfer coding that weir does not speak, correctly used.
    CodingUnimplemented,
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingInHttp10,
    /// The request line is longer than a whole head may be.
    TargetTooLong,
    /// The head is longer than the limit.
    HeadTooLarge,
    /// The head has more field lines than the limit.
    TooManyLines,
    /// A chunk size, extension or line end that is none.
    Chunk,
    /// A trailer section that is too large or malformed.
    Trailer,
}
