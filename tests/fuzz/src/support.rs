//! Heads read the plain way, and pieces of bytes that follow from the bytes alone.

use weir::config::model::Limits;
use weir::http::head::Line;

/// What a head may be: little, so that the limits are met.
pub const LIMITS: Limits = Limits {
    head: 4096,
    header_lines: 32,
};

/// Numbers that follow from the input, so that an input says everything about its run.
pub struct Numbers(u64);

impl Numbers {
    pub fn of(bytes: &[u8]) -> Numbers {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Numbers(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold) | 1)
    }

    /// One from 0 to `most`.
    pub fn up_to(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (most as u64 + 1)) as usize
    }
}

/// Cuts bytes into pieces, most of them short.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut numbers = Numbers::of(bytes);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let most = [1, 3, 16, 200][numbers.up_to(3)];
        let length = (1 + numbers.up_to(most)).min(rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Whether the byte may stand in a name (RFC 9110 section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A name as a server sees it that maps names to variables.
pub fn folded(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.to_ascii_lowercase().replace('_', "-")
}

/// A name and a value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// Reads a head that weir took, without its help, and holds `lines` against it; returns the first line and the fields.
pub fn read_plainly<'a>(head: &'a [u8], lines: &[Line]) -> (&'a [u8], Vec<Pair<'a>>) {
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .expect("an empty line ends it");
    let mut rows: Vec<&[u8]> = Vec::new();
    let mut from = 0;
    for at in 0..text.len() {
        if text[at..].starts_with(b"\r\n") {
            rows.push(&text[from..at]);
            from = at + 2;
        }
    }
    rows.push(&text[from..]);
    for row in &rows {
        let bad = |byte: &u8| *byte != b'\t' && (*byte < b' ' || *byte == 0x7f);
        assert!(
            !row.iter().any(bad),
            "a control character: {}",
            row.escape_ascii()
        );
    }
    let first = rows.remove(0);
    assert_eq!(rows.len(), lines.len(), "as many lines as there are");
    let mut fields = Vec::new();
    for (row, line) in rows.iter().zip(lines) {
        let colon = row.iter().position(|byte| *byte == b':');
        let (name, value) = row.split_at(colon.expect("a colon"));
        assert!(
            !name.is_empty() && name.iter().all(|byte| is_token(*byte)),
            "a name"
        );
        let value = value[1..].trim_ascii();
        assert_eq!(line.name.of(head), name);
        assert_eq!(line.value.of(head), value);
        assert_eq!(line.end as usize, line.name.start as usize + row.len() + 2);
        fields.push((name, value));
    }
    (first, fields)
}

/// The values of a field.
pub fn values<'a>(fields: &[(&'a [u8], &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    let found = fields.iter();
    let found = found.filter(|field| field.0.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|field| field.1).collect()
}

/// A number in decimal, and nothing else.
pub fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}
