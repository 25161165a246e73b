//! What can go wrong, by name.

use crate::config::ConfigError;
use std::fmt;
use std::str::FromStr;

/// What goes wrong. The first nine concern links, the next sixteen hosts; the two after them are lies that the agreement
/// does not promise to survive, the next two are about orders of the operators, and the last one narrows lines: these five are
/// drawn only where they are named.
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
    /// A process stands still for 0.2 to 5 s and does not know.
    Pause,
    /// A host's clock changes its rate by up to 500 ppm, or by 10,000.
    Clock,
    /// A host works several times slower.
    Slow,
    /// A new node comes.
    Join,
    /// A node goes in good order.
    Leave,
    /// Long datagrams vanish, or are refused as a kernel does that knows of it (F12).
    Mtu,
    /// A host's sockets keep and send a handful of datagrams at a time; the rest is lost, the sideband's last (F17).
    Buffers,
    /// A host gets 5 to 30 % of its time, in slices (F18).
    Starve,
    /// A machine sleeps for 0.2 to 5 s: process, network and clock stand still, and it does not know (F11).
    Suspend,
    /// The newest view falls into two halves that do not hear each other (F5).
    Split,
    /// A process dies and begins anew at once, while datagrams of its earlier life are under way (F2).
    Restart,
    /// Whose ballot runs dies, or whose turn is next: in the middle of a view change as well (F26).
    Proposer,
    /// A member lies in its beats: it accuses everybody else. So many at once as are no majority (T14).
    Accuse,
    /// A member beats and answers, and sends no data (T15).
    Stall,
    /// A process dies as in a crash, and its host says so to whoever sends there (F1).
    Exit,
    /// A member sends owners another contribution than it announced, each its own (T11).
    Forge,
    /// A member tells some of the others another proposal, and other sums, than the rest (T11).
    Equivocate,
    /// The operators order HALT, and RESUME at its end; strangers forge and replay both meanwhile (T16).
    Halt,
    /// A member keeps the operators' orders to itself, and does not follow them (T17).
    Suppress,
    /// The uplink of a host, or of all, carries little: 1 MB/s at level 1, 10 kB/s at level 100. What keeps clocks and
    /// agreement together goes ahead of payload there.
    Narrow,
}

impl Fault {
    /// What `all` means: whatever the promises hold under.
    pub const ALL: [Self; 25] = [
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
        Self::Mtu,
        Self::Buffers,
        Self::Starve,
        Self::Suspend,
        Self::Split,
        Self::Restart,
        Self::Proposer,
        Self::Accuse,
        Self::Stall,
        Self::Exit,
    ];

    /// Lies after which some promises end: honest members stay together after the first, and notice the second.
    pub const LIES: [Self; 2] = [Self::Forge, Self::Equivocate];

    /// What the operators do, and who is against it: a mesh that is ordered to stand still makes no version.
    pub const ORDERS: [Self; 2] = [Self::Halt, Self::Suppress];

    /// What makes frames longer: a mesh whose versions take so long is not held to the times of the others.
    pub const LINES: [Self; 1] = [Self::Narrow];

    /// All of them.
    pub(crate) fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Self::LIES).chain(Self::ORDERS).chain(Self::LINES)
    }

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
            Self::Mtu => "mtu",
            Self::Buffers => "buffers",
            Self::Starve => "starve",
            Self::Suspend => "suspend",
            Self::Split => "split",
            Self::Restart => "restart",
            Self::Proposer => "proposer",
            Self::Accuse => "accuse",
            Self::Stall => "stall",
            Self::Exit => "exit",
            Self::Forge => "forge",
            Self::Equivocate => "equivocate",
            Self::Halt => "halt",
            Self::Suppress => "suppress",
            Self::Narrow => "narrow",
        }
    }
}

/// Kinds of faults that a run may draw from: `all`, `none`, or names with commas between them; `all` may be one of them,
/// and what has a `-` before its name is taken out again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(0);
    /// Everything may.
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// Kinds after which everybody is heard all the same: nobody may be left out because of them.
    pub(crate) const GENTLE: Self = {
        let mut set = Self::NONE;
        let kinds = [
            Fault::Loss,
            Fault::Delay,
            Fault::Jitter,
            Fault::Reorder,
            Fault::Duplicate,
            Fault::Corrupt,
            Fault::Slow,
            Fault::Join,
            Fault::Leave,
            Fault::Mtu,
            Fault::Accuse,
            Fault::Forge,
            Fault::Halt,
            Fault::Suppress,
        ];
        let mut at = 0;
        while at < kinds.len() {
            set.insert(kinds[at]);
            at += 1;
        }
        set
    };

    /// Adds a kind.
    pub const fn insert(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u8;
    }

    /// Takes a kind out.
    pub const fn remove(&mut self, fault: Fault) {
        self.0 &= !(1 << fault as u8);
    }

    /// Whether a kind is in it.
    #[must_use]
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u8 != 0
    }

    /// Whether every kind is one of `others`.
    #[must_use]
    pub const fn is_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
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

    /// The kinds, in the order of [`Fault::ALL`], then [`Fault::LIES`], [`Fault::ORDERS`], [`Fault::LINES`].
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::every().filter(move |fault| self.contains(*fault))
    }
}

impl FromStr for FaultSet {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        let mut set = Self::NONE;
        for name in text.split(',').map(str::trim) {
            let (name, out) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
            let named = if name == "all" {
                Self::ALL
            } else {
                let fault = Fault::every().find(|fault| fault.name() == name);
                let fault = fault.ok_or_else(|| ConfigError::Fault(name.to_string()))?;
                let mut one = Self::NONE;
                one.insert(fault);
                one
            };
            set.0 = if out { set.0 & !named.0 } else { set.0 | named.0 };
        }
        Ok(set)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let whole = Self::ALL.is_within(*self);
        let rest = self.iter().filter(|fault| !whole || !Self::ALL.contains(*fault)).map(Fault::name);
        for (at, name) in whole.then_some("all").into_iter().chain(rest).enumerate() {
            write!(f, "{}{name}", if at > 0 { "," } else { "" })?;
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
        assert_eq!(FaultSet::ALL.to_string(), "all");
        let mut lying = FaultSet::ALL;
        lying.insert(Fault::Forge);
        assert_eq!((lying.to_string().as_str(), "forge,all".parse()), ("all,forge", Ok(lying)));
        assert!(set.is_within(FaultSet::ALL) && !lying.is_within(FaultSet::ALL));
        let error = "loss,fire".parse::<FaultSet>().unwrap_err();
        assert!(error.to_string().contains("\"fire\"") && error.to_string().contains("one-way"));
        let most: FaultSet = "all,-exit".parse().unwrap();
        assert_eq!((most.len(), most.contains(Fault::Exit)), (FaultSet::ALL.len() - 1, false));
        assert_eq!("forge,all,-all".parse(), Ok("forge".parse().unwrap_or(FaultSet::NONE)));
        assert!("".parse::<FaultSet>().is_err());
    }
}
