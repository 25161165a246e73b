//! Something for every channel of a session that may be in use: the standing ones and the newest others.
//!
//! Channels 0 and 1 live as long as the session and always have their place. Of the others, whose numbers rise,
//! the largest that were seen are kept. Keeps: a channel that lost its place never gets one again, so what was
//! known of it cannot be forgotten and then begun anew.

use alloc::boxed::Box;

/// Channels kept at once.
pub(crate) const CHANNELS_KEPT: usize = 8;
/// Channels that always have their place.
const STANDING: usize = 2;

/// Where a channel stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// Here.
    Kept(usize),
    /// Nowhere yet; it may have this place, whose channel is then old.
    Fresh(usize),
    /// Older than all that are kept.
    Old,
}

/// A `T` for each kept channel, all in memory from the start.
#[derive(Debug)]
pub(crate) struct Channels<T> {
    kept: Box<[(Option<u32>, T)]>,
}

impl<T: Default> Channels<T> {
    pub(crate) fn new() -> Self {
        Self { kept: (0..CHANNELS_KEPT).map(|_| (None, T::default())).collect() }
    }

    /// Where `channel` stands; changes nothing.
    pub(crate) fn find(&self, channel: u32) -> Place {
        let standing = channel as usize;
        if standing < STANDING {
            return if self.kept[standing].0.is_some() {
                Place::Kept(standing)
            } else {
                Place::Fresh(standing)
            };
        }
        let mut oldest = STANDING;
        for at in STANDING..CHANNELS_KEPT {
            if self.kept[at].0 == Some(channel) {
                return Place::Kept(at);
            }
            // `None` is less than every channel: empty places go first.
            if self.kept[at].0 < self.kept[oldest].0 {
                oldest = at;
            }
        }
        if self.kept[oldest].0 < Some(channel) { Place::Fresh(oldest) } else { Place::Old }
    }

    /// What is kept at a place; `None` where nothing is yet.
    pub(crate) fn at(&self, place: Place) -> Option<&T> {
        match place {
            Place::Kept(at) => Some(&self.kept[at].1),
            Place::Fresh(_) | Place::Old => None,
        }
    }

    /// Gives `channel` its place, if it has none, and what is kept there. For `Place::Old` there is nothing.
    pub(crate) fn enter(&mut self, channel: u32, place: Place) -> Option<&mut T> {
        match place {
            Place::Kept(at) => Some(&mut self.kept[at].1),
            Place::Fresh(at) => {
                self.kept[at] = (Some(channel), T::default());
                Some(&mut self.kept[at].1)
            }
            Place::Old => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(channels: &mut Channels<u32>, channel: u32) -> bool {
        let place = channels.find(channel);
        channels.enter(channel, place).is_some_and(|value| {
            assert!(*value == 0 || *value == channel, "channel {channel} found what {value} left");
            *value = channel;
            true
        })
    }

    #[test]
    fn the_newest_six_and_the_standing_two_are_kept_and_no_other_comes_back() {
        let mut channels = Channels::<u32>::new();
        for view in 2..100 {
            assert!(enter(&mut channels, view), "view {view} is newer than all before");
            for newer in (2..=view).rev().take(6) {
                assert!(enter(&mut channels, newer), "{newer} of {view}");
            }
            if view >= 8 {
                assert!(!enter(&mut channels, view - 6), "what lost its place stays without");
            }
        }
        assert!(enter(&mut channels, 0) && enter(&mut channels, 1), "the standing ones have theirs");
        assert!(enter(&mut channels, 0) && enter(&mut channels, 99) && !enter(&mut channels, 93));
    }

    #[test]
    fn looking_changes_nothing() {
        let channels = Channels::<u32>::new();
        assert_eq!(channels.find(5), Place::Fresh(2));
        assert_eq!(channels.find(5), Place::Fresh(2));
        assert_eq!(channels.at(channels.find(0)), None);
    }
}
