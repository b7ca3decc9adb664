//! Windows (RFC 9113 §5.2 and §6.9): what a side may send before it is granted
//! more.

/// The largest window there is (RFC 9113 §6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// A window would become larger than [`MAX_WINDOW`], or more came than it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// What may still be sent. Never more than [`MAX_WINDOW`]; below zero when it
/// was made smaller while it was in use (§6.9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window(i32);

impl Window {
    /// A window of so many bytes.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self(i32::try_from(size).unwrap_or(i32::MAX))
    }

    /// Bytes that may be sent.
    #[must_use]
    pub fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Uses so many bytes up.
    ///
    /// # Errors
    /// It holds less; it is then as before.
    pub fn take(&mut self, count: usize) -> Result<(), Overflow> {
        if count > self.available() {
            return Err(Overflow);
        }
        // Fits, because it is at most what there is.
        self.0 -= i32::try_from(count).map_err(|_| Overflow)?;
        Ok(())
    }

    /// Adds what a WINDOW_UPDATE, or a changed setting, says.
    ///
    /// # Errors
    /// It would become too large; it is then as before.
    pub fn shift(&mut self, by: i64) -> Result<(), Overflow> {
        let sum = i64::from(self.0).saturating_add(by);
        self.0 = i32::try_from(sum).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// What a peer may send to us, and what of it has been taken and not been
/// granted anew.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    window: Window,
    /// Taken, to be granted. With the window, and what has come and not been
    /// taken, it makes up `size`.
    taken: u32,
    /// At its largest.
    size: u32,
}

impl Grant {
    /// A window of so many bytes, all granted.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self {
            window: Window::new(size),
            taken: 0,
            size,
        }
    }

    /// Bytes that the peer may send.
    #[must_use]
    pub fn available(self) -> usize {
        self.window.available()
    }

    /// Counts what has come, padding included.
    ///
    /// # Errors
    /// The peer was not granted so much.
    pub fn receive(&mut self, count: usize) -> Result<(), Overflow> {
        self.window.take(count)
    }

    /// So much has been taken. What to grant now, if it is worth a frame: when
    /// half of the window is used up.
    pub fn release(&mut self, count: usize) -> Option<u32> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.taken = self.taken.saturating_add(count).min(self.size);
        if self.taken < self.size / 2 || self.taken == 0 {
            return None;
        }
        let taken = std::mem::take(&mut self.taken);
        // Within its size, so it cannot overflow.
        self.window.shift(i64::from(taken)).ok()?;
        Some(taken)
    }

    /// Its size becomes another, as the peer knows by now.
    pub fn resize(&mut self, size: u32) {
        // Both are sizes of windows, so the sum is one.
        let _ = self.window.shift(i64::from(size) - i64::from(self.size));
        self.size = size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_window_grows_beyond_what_thirty_one_bits_hold() {
        let mut window = Window::new(MAX_WINDOW);
        assert_eq!(window.shift(1), Err(Overflow));
        assert_eq!(window.available(), MAX_WINDOW as usize);
        assert_eq!(window.take(1), Ok(()));
        assert_eq!(window.shift(1), Ok(()));
        assert_eq!(window.shift(i64::MAX), Err(Overflow));
    }

    #[test]
    fn a_window_made_smaller_in_use_must_be_filled_before_it_opens() {
        let mut window = Window::new(100);
        window.take(100).unwrap();
        window.shift(-60).unwrap();
        assert_eq!((window.available(), window.take(1)), (0, Err(Overflow)));
        window.shift(61).unwrap();
        assert_eq!(window.available(), 1);
    }

    proptest! {
        #[test]
        fn what_is_granted_never_exceeds_the_size(
            size in 1..100_000_u32,
            steps in proptest::collection::vec((0..50_000_usize, 0..50_000_usize), 0..50),
        ) {
            let mut grant = Grant::new(size);
            let (mut sent, mut granted, mut held) = (0_u64, u64::from(size), 0);
            for (send, take) in steps {
                let may = granted - sent;
                prop_assert_eq!(grant.window.available() as u64, may);
                let came = grant.receive(send);
                prop_assert_eq!(came.is_ok(), send as u64 <= may);
                if came.is_ok() {
                    sent += send as u64;
                    held += send;
                }
                let take = take.min(held);
                held -= take;
                granted += u64::from(grant.release(take).unwrap_or(0));
                prop_assert!(granted - sent + held as u64 <= u64::from(size));
                // Whoever has taken all of it is never left without a window.
                prop_assert!(held > 0 || granted > sent);
            }
        }
    }
}
