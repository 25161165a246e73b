//! When all has to be over: at a time that was given, or as soon as somebody says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::report::Ended;

/// The same for everybody who has a copy, but for the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    stopped: &'static AtomicBool,
}

impl Deadline {
    /// So long from now. What it remembers stays for as long as the process.
    pub(crate) fn new(time: Duration) -> Self {
        Self { at: Instant::now() + time, stopped: Box::leak(Box::default()) }
    }

    /// What is left of the time.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// An earlier one for a part: so long, unless less is left.
    pub(crate) fn within(self, time: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + time), ..self }
    }

    /// One that leaves so much of the time to what comes after.
    pub(crate) fn without(self, time: Duration) -> Self {
        Self { at: self.at.checked_sub(time).unwrap_or(self.at), ..self }
    }

    /// Ends it now, for all copies.
    pub(crate) fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(self) -> bool {
        self.is_stopped() || self.left().is_zero()
    }

    /// How whoever ends because of it ends.
    pub(crate) fn ended(self) -> Ended {
        if self.is_stopped() { Ended::Interrupted } else { Ended::Late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_over_no_later_than_the_whole_and_stops_with_it() {
        let whole = Deadline::new(Duration::from_secs(50));
        let (part, early) = (whole.within(Duration::from_secs(500)), whole.without(Duration::from_secs(10)));
        assert!(part.left() <= Duration::from_secs(50) && early.left() <= Duration::from_secs(40));
        assert!(early.left() > Duration::from_secs(20) && !early.is_over());
        assert!(whole.within(Duration::ZERO).is_over() && !whole.is_over());
        part.stop();
        assert!(whole.is_over() && early.is_over() && !whole.left().is_zero());
        assert!(!Deadline::new(Duration::from_secs(50)).is_over(), "of another run");
    }
}
