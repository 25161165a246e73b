//! What can go wrong, by name.

use crate::config::ConfigError;
use std::fmt;
use std::str::FromStr;

/// What goes wrong. The first nine concern links, the rest hosts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Fault {
    /// Datagrams vanish, each for itself, up to three in ten.
    Loss,
    /// A link is silent for tens to hundreds of milliseconds, again and again.
    Burst,
    /// A path becomes longer.
    Delay,
    /// Every datagram takes a time of its own; the order stays.
    Jitter,
    /// Datagrams overtake each other.
    Reorder,
    /// Datagrams come twice, the copy up to 300 ms later.
    Duplicate,
    /// Bits flip, ends are cut off or added: every such datagram must be dropped.
    Corrupt,
    /// One direction between two hosts, or all directions into or out of one, is dead.
    OneWay,
    /// The hosts fall into two groups that do not hear each other.
    Partition,
    /// A process dies without a word; mostly another one is started in its place.
    Crash,
    /// A process stands still for 0.2 to 3 s and does not know.
    Pause,
    /// A host's clock changes its rate by up to 500 ppm.
    Clock,
    /// A host works several times slower.
    Slow,
    /// A new node comes.
    Join,
    /// A node goes in good order.
    Leave,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Loss,
        Self::Burst,
        Self::Delay,
        Self::Jitter,
        Self::Reorder,
        Self::Duplicate,
        Self::Corrupt,
        Self::OneWay,
        Self::Partition,
        Self::Crash,
        Self::Pause,
        Self::Clock,
        Self::Slow,
        Self::Join,
        Self::Leave,
    ];

    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Burst => "burst",
            Self::Delay => "delay",
            Self::Jitter => "jitter",
            Self::Reorder => "reorder",
            Self::Duplicate => "duplicate",
            Self::Corrupt => "corrupt",
            Self::OneWay => "one-way",
            Self::Partition => "partition",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Clock => "clock",
            Self::Slow => "slow",
            Self::Join => "join",
            Self::Leave => "leave",
        }
    }
}

/// Kinds of faults that a run may draw from: `all`, `none`, or names with commas between them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultSet(u16);

impl FaultSet {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(0);
    /// Everything may.
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// Adds a kind.
    pub const fn insert(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u8;
    }

    /// Whether a kind is in it.
    #[must_use]
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u8 != 0
    }

    /// How many kinds.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nothing may go wrong.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds, in the order of [`Fault::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.contains(*fault))
    }
}

impl FromStr for FaultSet {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        let mut set = Self::NONE;
        for name in text.split(',') {
            let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name.trim());
            set.insert(fault.ok_or_else(|| ConfigError::Fault(name.trim().to_string()))?);
        }
        Ok(set)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (at, fault) in self.iter().enumerate() {
            write!(f, "{}{}", if at > 0 { "," } else { "" }, fault.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_sets_are_read_and_written() {
        assert_eq!("all".parse(), Ok(FaultSet::ALL));
        assert_eq!("none".parse(), Ok(FaultSet::NONE));
        let set: FaultSet = "crash, loss".parse().unwrap();
        assert_eq!((set.to_string().as_str(), set.len()), ("loss,crash", 2));
        assert_eq!(FaultSet::ALL.to_string().parse(), Ok(FaultSet::ALL));
        let error = "loss,fire".parse::<FaultSet>().unwrap_err();
        assert!(error.to_string().contains("\"fire\"") && error.to_string().contains("one-way"));
        assert!("".parse::<FaultSet>().is_err());
    }
}
