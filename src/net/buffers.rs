//! Receive and send buffers, pooled per worker: the crate's only `unsafe`.
//!
//! io_uring owns a buffer while an operation is in flight, so buffers travel
//! by value. Storage is initialised when it is made and never shrinks, which
//! leaves two things for `unsafe`: handing the kernel an iovec array that
//! skips the gaps where TLS record headers will go, and lending a descriptor
//! that monoio only shows as a number.

use std::cell::{Cell, RefCell};
use std::mem;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use monoio::buf::IoVecBufMut;

/// What a [`Buffer`] is taken for; each class has its own free list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 4 KiB: request heads. What an idle connection holds.
    Small,
    /// 17 KiB: one TLS record of the largest size (16 KiB + 256 bytes of
    /// expansion + header) or one response head with the start of its body.
    Medium,
    /// 66 KiB: four such records, for bulk in either direction.
    Large,
}

impl Class {
    /// Usable bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Small => 4 << 10,
            Self::Medium => 17 << 10,
            Self::Large => 66 << 10,
        }
    }

    /// How many unused buffers a worker keeps: enough to serve a burst
    /// without the allocator, little enough (256 × 4 KiB + 64 × 17 KiB +
    /// 32 × 66 KiB, about 4 MiB) not to matter when it is over.
    const fn keep(self) -> usize {
        match self {
            Self::Small => 256,
            Self::Medium => 64,
            Self::Large => 32,
        }
    }

    const fn of_size(size: usize) -> Option<Self> {
        if size == Self::Small.size() {
            Some(Self::Small)
        } else if size == Self::Medium.size() {
            Some(Self::Medium)
        } else if size == Self::Large.size() {
            Some(Self::Large)
        } else {
            None
        }
    }
}

thread_local! {
    static ALLOCATED: [Cell<u64>; 3] = const { [const { Cell::new(0) }; 3] };
    static POOL: RefCell<[Vec<Box<[u8]>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
    #[allow(clippy::vec_box, reason = "the box is what moves to and from an operation")]
    static SEGMENTS: RefCell<Vec<Box<SegmentStorage>>> = const { RefCell::new(Vec::new()) };
}

/// A fixed block of initialised bytes; dropping it returns it to the worker's
/// pool. One that an operation still holds when its future is dropped goes to
/// the allocator instead, once the kernel is done with it.
#[derive(Debug)]
pub struct Buffer {
    storage: Box<[u8]>,
}

impl Buffer {
    /// From the pool, or freshly allocated and zeroed.
    pub fn take(class: Class) -> Self {
        let pooled = POOL.with_borrow_mut(|pool| pool[class as usize].pop());
        let storage = pooled.unwrap_or_else(|| {
            ALLOCATED.with(|counts| {
                let count = &counts[class as usize];
                count.set(count.get() + 1);
            });
            vec![0; class.size()].into_boxed_slice()
        });
        Self { storage }
    }

    /// The smallest class that holds `size` bytes; the largest if none does.
    pub fn for_size(size: usize) -> Self {
        let fits = [Class::Small, Class::Medium].into_iter();
        Self::take(
            fits.into_iter()
                .find(|class| class.size() >= size)
                .unwrap_or(Class::Large),
        )
    }

    /// The bare storage, for an operation.
    pub(super) fn into_storage(mut self) -> Box<[u8]> {
        mem::take(&mut self.storage)
    }

    /// Back from an operation.
    pub(super) fn from_storage(storage: Box<[u8]>) -> Self {
        Self { storage }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let storage = mem::take(&mut self.storage);
        if let Some(class) = Class::of_size(storage.len()) {
            // A thread that is ending has no pool any more.
            let _ = POOL.try_with(|pool| {
                let list = &mut pool.borrow_mut()[class as usize];
                if list.len() < class.keep() {
                    list.push(storage);
                }
            });
        }
    }
}

/// How this worker's pool does, by class, smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Buffers that had to be allocated, ever.
    pub allocated: [u64; 3],
    /// Buffers that wait to be taken.
    pub unused: [usize; 3],
}

/// Of the calling thread.
pub fn usage() -> Usage {
    Usage {
        allocated: ALLOCATED.with(|counts| [0, 1, 2].map(|class| counts[class].get())),
        unused: POOL.with_borrow(|pool| [0, 1, 2].map(|class| pool[class].len())),
    }
}

/// Payload bytes of one segment: the largest TLS plaintext (RFC 8446 §5.1).
pub const SEGMENT_PAYLOAD: usize = 16 << 10;
/// Segments in one [`Segments`] buffer.
pub const SEGMENTS_EACH: usize = 4;
/// How many unused segment buffers a worker keeps.
const SEGMENTS_KEPT: usize = 32;

/// What is left open round each payload of [`Segments`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gaps {
    /// For a record's header. 32 at the most.
    pub head: usize,
    /// For the header of a frame in the record, which is sealed with the
    /// payload and takes as much of its room. 32 at the most.
    pub lead: usize,
    /// For a record's tag. 32 at the most.
    pub tail: usize,
}

/// A bulk buffer that one `readv` fills with gaps left open.
///
/// Record `n` starts at `n × (head + SEGMENT_PAYLOAD + tail)`, so once each
/// payload has been sealed where it lies, header before it and tag behind it,
/// the records are contiguous and leave in one send. The alternative, reading
/// contiguously and sealing into a second buffer, costs one more pass over
/// every byte.
#[derive(Debug)]
pub struct Segments {
    inner: Option<Box<SegmentStorage>>,
    gaps: Gaps,
}

#[derive(Debug)]
struct SegmentStorage {
    iovecs: [libc::iovec; SEGMENTS_EACH],
    used: usize,
    bytes: Box<[u8]>,
}

impl Segments {
    /// From the pool, with these gaps round each payload.
    pub fn take(gaps: Gaps) -> Self {
        assert!(
            gaps.head <= 32 && gaps.lead <= 32 && gaps.tail <= 32,
            "gaps are headers and a tag"
        );
        let inner = SEGMENTS.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            Box::new(SegmentStorage {
                iovecs: [const {
                    libc::iovec {
                        iov_base: std::ptr::null_mut(),
                        iov_len: 0,
                    }
                }; SEGMENTS_EACH],
                used: 0,
                bytes: vec![0; Class::Large.size()].into_boxed_slice(),
            })
        });
        Self {
            inner: Some(inner),
            gaps,
        }
    }

    /// Bytes that one payload holds.
    pub fn payload_size(&self) -> usize {
        SEGMENT_PAYLOAD - self.gaps.lead
    }

    /// Bytes that all payloads hold.
    pub fn capacity(&self) -> usize {
        SEGMENTS_EACH * self.payload_size()
    }

    /// Where payload `index` lies, given that `filled` bytes were read.
    pub fn payload(&self, index: usize, filled: usize) -> Range<usize> {
        let start = index * self.stride() + self.gaps.head + self.gaps.lead;
        let before = index * self.payload_size();
        start..start + filled.saturating_sub(before).min(self.payload_size())
    }

    /// The same with the frame's header before it; empty where the payload is.
    pub fn plain(&self, index: usize, filled: usize) -> Range<usize> {
        let payload = self.payload(index, filled);
        match payload.is_empty() {
            true => payload,
            false => payload.start - self.gaps.lead..payload.end,
        }
    }

    /// Makes the gaps: moves `filled` bytes, read in one piece to where the
    /// first payload begins, to their payloads.
    pub(super) fn spread(&mut self, filled: usize) {
        let start = self.payload(0, 0).start;
        let targets: [_; SEGMENTS_EACH] = std::array::from_fn(|index| self.payload(index, filled));
        let size = self.payload_size();
        let bytes = self.bytes_mut();
        // From the last to the first, so that none is overwritten unread.
        for (index, target) in targets.into_iter().enumerate().skip(1).rev() {
            let from = start + index * size;
            if !target.is_empty() {
                bytes.copy_within(from..from + target.len(), target.start);
            }
        }
    }

    /// All bytes, gaps included.
    pub fn bytes(&self) -> &[u8] {
        self.inner.as_ref().map_or(&[], |inner| &inner.bytes)
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.inner
            .as_mut()
            .map_or(&mut [], |inner| &mut inner.bytes)
    }

    fn stride(&self) -> usize {
        self.gaps.head + SEGMENT_PAYLOAD + self.gaps.tail
    }

    /// Ready to receive at most `limit` bytes of payload.
    pub(super) fn into_receiver(mut self, limit: usize) -> SegmentReceiver {
        let stride = self.stride();
        let size = self.payload_size();
        let start = self.gaps.head + self.gaps.lead;
        let mut inner = self
            .inner
            .take()
            .expect("taken only by operations that give it back");
        let SegmentStorage {
            iovecs,
            used,
            bytes,
        } = &mut *inner;
        *used = 0;
        let mut left = limit.min(SEGMENTS_EACH * size);
        for (iovec, segment) in iovecs.iter_mut().zip(bytes.chunks_mut(stride)) {
            let length = left.min(size);
            if length == 0 {
                break;
            }
            let payload = &mut segment[start..start + length];
            *iovec = libc::iovec {
                iov_base: payload.as_mut_ptr().cast(),
                iov_len: length,
            };
            *used += 1;
            left -= length;
        }
        SegmentReceiver {
            inner,
            gaps: self.gaps,
        }
    }

    /// The bare storage, for a send.
    pub(super) fn storage_mut(&mut self) -> Option<&mut Box<[u8]>> {
        self.inner.as_mut().map(|inner| &mut inner.bytes)
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        // A storage whose bytes are still with an operation is not kept.
        if let Some(inner) = self.inner.take().filter(|inner| !inner.bytes.is_empty()) {
            let _ = SEGMENTS.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < SEGMENTS_KEPT {
                    pool.push(inner);
                }
            });
        }
    }
}

/// A [`Segments`] on its way through a `readv`.
#[derive(Debug)]
pub(super) struct SegmentReceiver {
    inner: Box<SegmentStorage>,
    gaps: Gaps,
}

impl SegmentReceiver {
    pub(super) fn into_segments(self) -> Segments {
        Segments {
            inner: Some(self.inner),
            gaps: self.gaps,
        }
    }
}

#[allow(
    unsafe_code,
    reason = "iovecs with gaps cannot be expressed by monoio's own buffer types"
)]
// SAFETY: the iovec array lives in the box `inner`, which moves with `self`
// but whose contents stay put, so the pointer is stable while the runtime
// owns the value. `used` iovecs were written by `into_receiver`, each from a
// distinct, bounds-checked sub-slice of `inner.bytes`, a heap allocation
// owned by the same box: valid, exclusively ours, and initialised. Nothing
// touches `inner` between `into_receiver` and `into_segments`.
unsafe impl IoVecBufMut for SegmentReceiver {
    fn write_iovec_ptr(&mut self) -> *mut libc::iovec {
        self.inner.iovecs.as_mut_ptr()
    }

    fn write_iovec_len(&mut self) -> usize {
        self.inner.used
    }

    unsafe fn set_init(&mut self, _: usize) {
        // All bytes are initialised from the start.
    }
}

/// Lends the descriptor of something that shows it only as a number, for one
/// call of a safe wrapper that wants `AsFd`.
#[allow(
    unsafe_code,
    reason = "monoio's streams implement AsRawFd but not AsFd"
)]
pub(super) fn with_fd<R>(owner: &impl AsRawFd, call: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
    // SAFETY: `owner` owns the descriptor and is borrowed for the whole call,
    // so it cannot be closed meanwhile; the borrow cannot leave `call`.
    call(unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) })
}

/// Takes a descriptor that this process was started with, if it is one: what
/// was opened since is closed on exec, and what was started with is not, until
/// it has been taken.
#[allow(
    unsafe_code,
    reason = "the starting process passes descriptors as numbers"
)]
pub(super) fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    const STANDARD: RawFd = 2;
    if number <= STANDARD {
        return None;
    }
    // SAFETY: fcntl(2) on a number that is not open says EBADF, and the borrow
    // ends before the descriptor has an owner.
    let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    if flags.contains(rustix::io::FdFlags::CLOEXEC) {
        return None;
    }
    // SAFETY: It is open and nobody here owns it: whatever this process opens
    // itself is closed on exec from the beginning, but for what monoio accepts,
    // and that only once workers run. It is marked before it is handed out, so
    // it cannot be taken twice.
    let taken = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&taken, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(head: usize, lead: usize, tail: usize) -> Gaps {
        Gaps { head, lead, tail }
    }

    #[test]
    fn a_dropped_buffer_is_taken_again() {
        let mut buffer = Buffer::take(Class::Small);
        buffer[0] = 7;
        let address = buffer.as_ptr();
        drop(buffer);
        assert_eq!(Buffer::take(Class::Small).as_ptr(), address);
    }

    #[test]
    fn payloads_and_gaps_tile_the_buffer() {
        let segments = Segments::take(gaps(5, 0, 17));
        let filled = 2 * SEGMENT_PAYLOAD + 10;
        assert_eq!(segments.payload(0, filled), 5..5 + SEGMENT_PAYLOAD);
        assert_eq!(
            segments.payload(1, filled).start,
            segments.payload(0, filled).end + 17 + 5
        );
        assert_eq!(segments.payload(2, filled).len(), 10);
        assert!(segments.payload(3, filled).is_empty());
    }

    #[test]
    fn a_frames_header_takes_of_the_payloads_room() {
        let segments = Segments::take(gaps(5, 9, 17));
        assert_eq!(segments.payload_size(), SEGMENT_PAYLOAD - 9);
        let filled = segments.payload_size() + 10;
        assert_eq!(segments.plain(0, filled), 5..5 + SEGMENT_PAYLOAD);
        assert_eq!(segments.payload(0, filled), 14..5 + SEGMENT_PAYLOAD);
        let second = segments.plain(1, filled);
        assert_eq!(second.start, 5 + SEGMENT_PAYLOAD + 17 + 5);
        assert_eq!(second.len(), 9 + 10);
        assert!(segments.plain(2, filled).is_empty());
    }

    #[test]
    fn bytes_read_in_one_piece_are_spread_over_the_payloads() {
        for filled in [
            0,
            1,
            SEGMENT_PAYLOAD,
            SEGMENT_PAYLOAD + 1,
            4 * SEGMENT_PAYLOAD,
        ] {
            let mut segments = Segments::take(gaps(5, 0, 17));
            for (position, byte) in segments.bytes_mut()[5..5 + filled].iter_mut().enumerate() {
                *byte = (position / 7) as u8;
            }
            segments.spread(filled);
            let mut seen = Vec::new();
            for index in 0..SEGMENTS_EACH {
                let range = segments.payload(index, filled);
                seen.extend_from_slice(&segments.bytes_mut()[range]);
            }
            let expected: Vec<u8> = (0..filled).map(|position| (position / 7) as u8).collect();
            assert!(seen == expected, "{filled}");
        }
    }

    #[test]
    fn the_iovecs_cover_exactly_what_was_asked_for() {
        for limit in [1, SEGMENT_PAYLOAD, SEGMENT_PAYLOAD + 1, 1 << 20] {
            let mut receiver = Segments::take(gaps(13, 0, 16)).into_receiver(limit);
            let count = receiver.write_iovec_len();
            let total: usize = receiver.inner.iovecs[..count]
                .iter()
                .map(|iovec| iovec.iov_len)
                .sum();
            assert_eq!(total, limit.min(SEGMENTS_EACH * SEGMENT_PAYLOAD));
        }
    }
}
