//! Memory that records pass through, one piece per thread: borrowed within one poll only, so that no connection owns a buffer.
//! It is made when a thread first meets TLS; a weir without TLS has none.
//! The walk goes back to `stream.rs`.

use std::cell::RefCell;

/// Bytes of application data that are sealed for one system call: four full records.
pub(super) const BATCH: usize = 64 * 1024;

/// Bytes of application data that a record holds (RFC 8446 section 5.1).
pub(super) const PLAIN: usize = 16 * 1024;

/// Bytes that go out in front of application data at most, such as the end of a handshake.
pub(super) const FRONT: usize = 4 * 1024;

/// What the framing of a batch may add: two pieces, cut into records of 16 KiB, some 30 bytes each, and a key update.
const FRAMING: usize = 1024;

/// Bytes of records that are read at once.
pub(super) const INCOMING: usize = 136 * 1024;

/// What a thread lends.
pub(super) struct Memory {
    /// Records as they came, opened in place.
    pub(super) incoming: Box<[u8]>,
    /// Records on their way out.
    pub(super) outgoing: Box<[u8]>,
    /// Application data of two pieces that go into one record.
    pub(super) joined: Box<[u8]>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory {
        incoming: vec![0; INCOMING].into(),
        outgoing: vec![0; FRONT + BATCH + FRAMING].into(),
        joined: vec![0; PLAIN].into(),
    });
}

/// Lends the thread's memory. It must not be asked for again within `use_it`.
pub(super) fn with<T>(use_it: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with(|memory| use_it(&mut memory.borrow_mut()))
}
