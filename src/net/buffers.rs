//! Receive and send buffers, pooled per worker: the crate's only `unsafe`.
//!
//! Storage is initialised when it is made and never shrinks, which leaves four
//! things for `unsafe`: using the memory of one future for the next, lending a
//! descriptor that monoio only shows as a number, asking the kernel about a TCP
//! connection, and reading what it writes about a ring.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::IoSliceMut;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

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
    static SEGMENTS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
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

/// A bulk buffer that one reception fills with gaps left open.
///
/// Record `n` starts at `n × (head + SEGMENT_PAYLOAD + tail)`, so once each
/// payload has been sealed where it lies, header before it and tag behind it,
/// the records are contiguous and leave in one send. The alternative, reading
/// contiguously and sealing into a second buffer, costs one more pass over
/// every byte.
#[derive(Debug)]
pub struct Segments {
    /// Empty while an operation has it.
    bytes: Box<[u8]>,
    gaps: Gaps,
}

impl Segments {
    /// From the pool, with these gaps round each payload.
    pub fn take(gaps: Gaps) -> Self {
        assert!(
            gaps.head <= 32 && gaps.lead <= 32 && gaps.tail <= 32,
            "gaps are headers and a tag"
        );
        let bytes = SEGMENTS
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| vec![0; Class::Large.size()].into_boxed_slice());
        Self { bytes, gaps }
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

    /// The payloads, for at most `limit` bytes, and how many they are.
    pub(super) fn payloads<'a>(
        &'a mut self,
        limit: usize,
        payloads: &mut [IoSliceMut<'a>; SEGMENTS_EACH],
    ) -> usize {
        let (stride, size) = (self.stride(), self.payload_size());
        let start = self.gaps.head + self.gaps.lead;
        let mut left = limit;
        let mut used = 0;
        for (place, segment) in payloads.iter_mut().zip(self.bytes.chunks_mut(stride)) {
            let length = left.min(size);
            if length == 0 {
                break;
            }
            *place = IoSliceMut::new(&mut segment[start..start + length]);
            left -= length;
            used += 1;
        }
        used
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
        &self.bytes
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn stride(&self) -> usize {
        self.gaps.head + SEGMENT_PAYLOAD + self.gaps.tail
    }

    /// The bare storage, for an operation of the ring.
    pub(super) fn storage_mut(&mut self) -> &mut Box<[u8]> {
        &mut self.bytes
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        // Storage that is still with an operation is not kept.
        if self.bytes.is_empty() {
            return;
        }
        let bytes = mem::take(&mut self.bytes);
        let _ = SEGMENTS.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < SEGMENTS_KEPT {
                pool.push(bytes);
            }
        });
    }
}

/// A future on the heap, in room that is kept for the next one: of all that
/// serving a request takes, this is the only thing whose size is not known to
/// anybody else.
#[derive(Debug)]
pub struct Hosted<F> {
    /// Holds an `F` for as long as this lives.
    lines: Option<Box<[Line]>>,
    holds: PhantomData<F>,
}

/// As large as the strictest alignment that a future is granted: something in
/// that of a request wants a cache line for itself, which makes the allocator
/// take five times as long over it.
#[derive(Debug, Clone, Copy)]
#[repr(align(128))]
struct Line {
    _bytes: [MaybeUninit<u8>; 128],
}

/// How many unused rooms a worker keeps: more requests than that are seldom in
/// the middle of something at the same time.
const ROOMS_KEPT: usize = 64;

impl<F> Hosted<F> {
    const LINES: usize = size_of::<F>().div_ceil(size_of::<Line>());

    /// Makes a future in its place. The room is there before the future, and
    /// between its making and its being there nothing can panic: the compiler then
    /// writes what it begins with where it belongs. Else the future is made
    /// elsewhere and moved, all of its kilobytes.
    #[allow(unsafe_code, reason = "memory is used again by another type")]
    #[inline(always)]
    pub fn make(future: impl FnOnce() -> F) -> Self {
        const { assert!(align_of::<F>() <= align_of::<Line>()) };
        let mut lines = take_room(Self::LINES);
        let place = lines.as_mut_ptr().cast::<F>();
        // SAFETY: The allocation has at least `LINES` lines and so the size of
        // an `F`, its alignment was checked above, and it is ours alone.
        unsafe { place.write(future()) };
        Self {
            lines: Some(lines),
            holds: PhantomData,
        }
    }
}

/// Room that was used before, or new.
#[inline]
fn take_room(lines: usize) -> Box<[Line]> {
    let used = ROOMS.with_borrow_mut(|rooms| {
        let last = rooms.pop()?;
        // There is one kind of future in nearly all cases.
        (last.len() >= lines).then_some(last)
    });
    used.unwrap_or_else(|| new_room(lines))
}

/// Apart, so that the alignment is not that of its callers' stack frames.
#[cold]
#[inline(never)]
fn new_room(lines: usize) -> Box<[Line]> {
    vec![EMPTY_LINE; lines].into_boxed_slice()
}

const EMPTY_LINE: Line = Line {
    _bytes: [MaybeUninit::uninit(); 128],
};

thread_local! {
    static ROOMS: RefCell<Vec<Box<[Line]>>> = const { RefCell::new(Vec::new()) };
}

// The future does not move when this does.
impl<F> Unpin for Hosted<F> {}

#[allow(unsafe_code, reason = "memory is used again by another type")]
impl<F: Future> Future for Hosted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let lines = self.lines.as_mut().expect("there until it is dropped");
        let future = lines.as_mut_ptr().cast::<F>();
        // SAFETY: `make` put an `F` there, which stays until `drop`; the
        // box is borrowed for the whole call. It is pinned: it is on the heap,
        // and nothing moves it out of there.
        unsafe { Pin::new_unchecked(&mut *future) }.poll(context)
    }
}

#[allow(unsafe_code, reason = "memory is used again by another type")]
impl<F> Drop for Hosted<F> {
    fn drop(&mut self) {
        let Some(mut lines) = self.lines.take() else {
            return;
        };
        // SAFETY: `make` put an `F` there, and nobody uses it after this.
        unsafe { lines.as_mut_ptr().cast::<F>().drop_in_place() };
        let _ = ROOMS.try_with(|rooms| {
            let mut rooms = rooms.borrow_mut();
            if rooms.len() < ROOMS_KEPT {
                rooms.push(lines);
            }
        });
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
    // so it cannot be closed meanwhile, or is the number of one that nobody
    // closes meanwhile; the borrow cannot leave `call`.
    call(unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) })
}

/// What the kernel knows of a TCP connection; older kernels leave zeros where
/// they know less.
#[allow(unsafe_code, reason = "rustix and socket2 do not have this option")]
pub(super) fn tcp_info(socket: &impl AsRawFd) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&info)).ok()?;
    // SAFETY: `socket` owns the descriptor and is borrowed for the call. The kernel
    // writes `length` bytes at the most, which is what `info` has, and the two
    // pointers are to locals of ours that nobody else sees.
    let refused = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // SAFETY: it is made of integers alone, was zeroed, and is a value whatever of
    // it the kernel has written over.
    (refused == 0).then(|| unsafe { info.assume_init() })
}

/// Tells the kernel how many bytes are worth waking a receiver for
/// (`SO_RCVLOWAT`, socket(7)); for TCP it makes room for them.
///
/// # Errors
/// Whatever `setsockopt(2)` reports.
pub(super) fn set_receive_low_water(socket: &impl AsRawFd, bytes: usize) -> std::io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_number(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

/// Has a listening socket give out connections only once they have data, or once
/// so many seconds have passed, in whole repetitions of the kernel's SYN-ACK
/// (`TCP_DEFER_ACCEPT`, tcp(7)); 0 is at once.
///
/// # Errors
/// Whatever `setsockopt(2)` reports.
pub(super) fn set_defer_accept(socket: &impl AsRawFd, seconds: u8) -> std::io::Result<()> {
    let seconds = libc::c_int::from(seconds);
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

#[allow(unsafe_code, reason = "rustix and socket2 do not have these options")]
fn set_number(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    number: libc::c_int,
) -> std::io::Result<()> {
    let length = mem::size_of_val(&number) as libc::socklen_t;
    // SAFETY: `socket` owns the descriptor and is borrowed for the call, in which
    // the kernel reads `length` bytes: those of a local of ours, all initialized.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const number).cast(),
            length,
        )
    };
    match refused {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The last descriptor that every process has; -1 is none at all.
pub(super) const STANDARD: RawFd = 2;

/// Takes a descriptor that this process was started with, if it is one: what
/// was opened since is closed on exec, and what was started with is not, until
/// it has been taken.
#[allow(
    unsafe_code,
    reason = "the starting process passes descriptors as numbers"
)]
pub(super) fn take_inherited(number: RawFd) -> Option<OwnedFd> {
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

/// The head of a ring, which the kernel writes and this process may read:
/// io_uring_setup(2).
#[derive(Debug)]
pub(super) struct RingHead {
    words: NonNull<AtomicU32>,
    places: RingPlaces,
}

/// Where the words are, counted in words.
#[derive(Debug, Clone, Copy)]
struct RingPlaces {
    /// Of the submission queue.
    flags: usize,
    /// Of the completion queue.
    tail: usize,
    /// Of the completion queue.
    overflow: usize,
}

impl RingHead {
    /// What is read lies within it; every page is at least as large.
    const LENGTH: usize = 4096;
    /// `IORING_SQ_CQ_OVERFLOW`
    const OVERFLOWN: u32 = 1 << 1;

    /// Of the ring that this is a descriptor of, which it keeps alive. `None`
    /// where the kernel does not show it (before Linux 5.4).
    #[allow(unsafe_code, reason = "memory is shared with the kernel")]
    pub(super) fn of(ring: BorrowedFd<'_>) -> Option<Self> {
        let places = Self::places()?;
        // SAFETY: A new mapping, at an address that the kernel chooses.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::LENGTH,
                libc::PROT_READ,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                0, // IORING_OFF_SQ_RING
            )
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let words = NonNull::new(mapped.cast())?;
        Some(Self { words, places })
    }

    /// The same for all rings of a kernel, and only told to who makes one.
    #[allow(unsafe_code, reason = "monoio does not tell where they are")]
    fn places() -> Option<RingPlaces> {
        /// `struct io_uring_params`, 120 bytes, and its members of interest.
        const PARAMS: usize = 30;
        const FEATURES: usize = 5;
        const SQ_FLAGS: usize = 10 + 4;
        const CQ_TAIL: usize = 20 + 1;
        const CQ_OVERFLOW: usize = 20 + 4;
        /// `IORING_FEAT_SINGLE_MMAP`: both queues are in one mapping.
        const SINGLE_MMAP: u32 = 1;
        let mut params = [0_u32; PARAMS];
        // SAFETY: The kernel reads and writes as much as a `struct
        // io_uring_params`, for whose size there is room.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
        let ring = RawFd::try_from(ring).ok().filter(|ring| *ring >= 0)?;
        // SAFETY: The kernel has just opened it for us.
        drop(unsafe { OwnedFd::from_raw_fd(ring) });
        let place = |member: usize| {
            let offset = params[member] as usize;
            let fits = offset.is_multiple_of(4) && offset + 4 <= Self::LENGTH;
            (fits && params[FEATURES] & SINGLE_MMAP != 0).then_some(offset / 4)
        };
        Some(RingPlaces {
            flags: place(SQ_FLAGS)?,
            tail: place(CQ_TAIL)?,
            overflow: place(CQ_OVERFLOW)?,
        })
    }

    /// Whether completions wait for room in the completion queue; if so, how
    /// many were put there in all, modulo 2³².
    pub(super) fn overflown_at(&self) -> Option<u32> {
        let overflown = self.word(self.places.flags) & Self::OVERFLOWN != 0;
        overflown.then(|| self.word(self.places.tail))
    }

    /// Completions that the kernel has thrown away, modulo 2³².
    pub(super) fn lost(&self) -> u32 {
        self.word(self.places.overflow)
    }

    #[allow(unsafe_code, reason = "memory is shared with the kernel")]
    fn word(&self, place: usize) -> u32 {
        // SAFETY: The mapping is there until `drop`, `places` has checked that
        // the word is inside and aligned, and who else writes it is the kernel,
        // atomically.
        unsafe { self.words.add(place).as_ref() }.load(Ordering::Relaxed)
    }
}

#[allow(unsafe_code, reason = "memory is shared with the kernel")]
impl Drop for RingHead {
    fn drop(&mut self) {
        // SAFETY: `of` made this mapping, and nobody has a reference into it.
        unsafe { libc::munmap(self.words.as_ptr().cast(), Self::LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::task::Waker;

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
    fn a_future_is_dropped_once_and_its_room_is_taken_again() {
        let dropped = Rc::new(Cell::new(0));
        let counter = Rc::clone(&dropped);
        let poll = |future: &mut (dyn Future<Output = usize> + Unpin)| {
            Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
        };
        let make = |counter: &Rc<Cell<usize>>| {
            let counter = scopeguard(Rc::clone(counter));
            async move {
                let mut local = [7_u8; 100];
                std::future::poll_fn(|_| match local[99] {
                    7 => {
                        local[99] = 8;
                        Poll::Pending
                    }
                    _ => Poll::Ready(()),
                })
                .await;
                let _held = &counter;
                local.len()
            }
        };
        let mut places = Vec::new();
        for round in 0..3 {
            let mut hosted = Hosted::make(|| make(&counter));
            places.push(hosted.lines.as_ref().unwrap().as_ptr());
            assert_eq!(poll(&mut hosted), Poll::Pending);
            let mut moved = hosted;
            if round > 0 {
                assert_eq!(poll(&mut moved), Poll::Ready(100));
            }
            drop(moved);
            assert_eq!(dropped.get(), round + 1);
        }
        assert_eq!(places[0], places[2]);
    }

    /// Counts its drop.
    fn scopeguard(counter: Rc<Cell<usize>>) -> impl Sized {
        struct Guard(Rc<Cell<usize>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        Guard(counter)
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
    fn the_payloads_cover_exactly_what_was_asked_for() {
        for limit in [1, SEGMENT_PAYLOAD, SEGMENT_PAYLOAD + 1, 1 << 20] {
            let mut segments = Segments::take(gaps(13, 0, 16));
            let mut payloads = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let used = segments.payloads(limit, &mut payloads);
            let total: usize = payloads[..used].iter().map(|payload| payload.len()).sum();
            assert_eq!(total, limit.min(SEGMENTS_EACH * SEGMENT_PAYLOAD));
        }
    }
}
