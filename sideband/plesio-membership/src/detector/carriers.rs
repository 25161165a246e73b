//! Who brings word to whom where one direction between two members is dead (F6), from what beats say of it.
//!
//! ```text
//!   A ---x--> B     B does not hear A, and its beats say so to everybody: it accuses A
//!   A --> C --> B   C hears both, and both hear C: A hands C what is for B, C passes on what B misses
//! ```
//!
//! Nobody is asked and nothing is agreed: accusations are in every beat. C passes nothing on that its receiver does not
//! accuse the sender of, so there is no loop, and nobody has more sent to him than he says he lacks.

use super::Membership;
use plesio_wire::{MemberIndex, MemberSet};

impl Membership {
    /// Whether member `to` does not hear us, or may not: its beats say so, or it is silent and nobody brought one that
    /// says otherwise.
    #[must_use]
    pub fn lacks_us(&self, to: MemberIndex) -> bool {
        let (Some(me), Some(member)) = (self.me, self.members.get(usize::from(to))) else { return false };
        to != me && (member.accuses.contains(me) || member.silent && member.mute)
    }

    /// Whether we do not hear member `from`, so that somebody has to bring what it says.
    #[must_use]
    pub fn lacks(&self, from: MemberIndex) -> bool {
        self.me != Some(from) && self.members.get(usize::from(from)).is_some_and(|member| member.silent)
    }

    /// Who can bring member `to` what we say: we hear it, and it hears us, and so do it and `to`; the `turn`-th of them.
    #[must_use]
    pub fn carrier(&self, to: MemberIndex, turn: u32) -> Option<MemberIndex> {
        let me = self.me?;
        let receiver = self.members.get(usize::from(to))?;
        let carries = |index: MemberIndex| {
            let member = &self.members[usize::from(index)];
            let hears_both = !member.accuses.contains(me) && !member.accuses.contains(to);
            index != me && index != to && !member.silent && hears_both && !receiver.accuses.contains(index)
        };
        let carriers: MemberSet = self.set(|_| true);
        let count = carriers.iter().filter(|index| carries(*index)).count() as u32;
        let turn = turn.checked_rem(count)?;
        carriers.iter().filter(|index| carries(*index)).nth(turn as usize)
    }

    /// Whether what member `from` says is to be passed on to member `to`: we hear both, and `to` says that it does not
    /// hear `from`.
    #[must_use]
    pub fn carries(&self, from: MemberIndex, to: MemberIndex) -> bool {
        let heard = |index: MemberIndex| self.members.get(usize::from(index)).filter(|member| !member.silent);
        let (Some(_), Some(receiver)) = (heard(from), heard(to)) else { return false };
        from != to && self.me != Some(to) && receiver.accuses.contains(from)
    }
}
