//! Where the operators sit: they order HALT of one node, and RESUME later; strangers forge and replay both meanwhile.
//!
//! ```text
//!   HALT at one honest node --1 s--> whoever it could reach on honest ways is silent --0.5 s--> and nothing is decided
//!   RESUME at one node, said again to one after another --> the judge's liveness: versions follow
//! ```
//!
//! A way is one of three steps at most, between members that live, run and lie not, over links that were whole all the time.
//! A process that is started again is halted by its disk before it says anything.

use super::World;
use crate::process::{Lies, Process};
use crate::queue::Due;
use plesio_membership::{Given, Operators};
use plesio_session::{Entropy, OperatorSecret, Secret, SignedOrder};
use plesio_wire::Bounded;
use plesio_wire::sideband::{
    DATAGRAM_BYTES_MAX, Header, INDEX_NONE, Order, OrderKind, OrderSignature, encode,
};
use std::array;

/// The operators, what they ordered last, and how far that is to be seen.
pub(crate) struct Desk {
    secrets: [OperatorSecret; 3],
    operators: Operators,
    mesh: u64,
    sequence: u64,
    given: Option<Given>,
    trial: Option<Trial>,
    /// Who hears of it next.
    next: u8,
    slowest_ns: u64,
}

/// An order to HALT whose way is followed.
#[derive(Debug)]
struct Trial {
    given_ns: u64,
    origin: u8,
    /// The processes that must be the same all the time.
    lives: Vec<u32>,
    disturbed: Vec<bool>,
    cut: Vec<bool>,
    /// How long the log was when all had stopped.
    log_len: Option<u64>,
}

impl Desk {
    pub(crate) fn new(seed: u64) -> Self {
        let mut material = [0; 32];
        material[..8].copy_from_slice(&seed.to_le_bytes());
        let mut entropy = Entropy::new(&Secret::new(material));
        let mut secrets = array::from_fn(|_| OperatorSecret::generate(&mut entropy));
        // Signers are numbered by their keys.
        secrets.sort_by_key(OperatorSecret::public);
        let keys = secrets.each_ref().map(OperatorSecret::public);
        let operators = Operators::new(&keys, 2).expect("three keys that differ, of which two sign");
        Self { secrets, operators, mesh: seed, sequence: 0, given: None, trial: None, next: 0, slowest_ns: 0 }
    }

    pub(crate) fn operators(&self) -> Operators {
        self.operators.clone()
    }

    pub(crate) fn slowest_ns(&self) -> u64 {
        self.slowest_ns
    }

    fn is_halt(&self) -> bool {
        self.given.is_some_and(|given| given.kind == OrderKind::Halt)
    }

    fn sign(&self, mesh: u64, kind: OrderKind, sequence: u64) -> Given {
        let mut signatures = Bounded::default();
        for signer in [0, 2] {
            let signature =
                SignedOrder::sign(&self.secrets[usize::from(signer)], mesh, kind, sequence).signature;
            signatures.push(OrderSignature { signer, signature }).expect("there is room for more than two");
        }
        Given { kind, order: Order { sequence, signatures, ..Order::default() } }
    }

    fn order(&mut self, kind: OrderKind) {
        self.sequence += 1;
        self.given = Some(self.sign(self.mesh, kind, self.sequence));
    }

    /// As a datagram of somebody who is no node.
    fn datagram(&self, given: &Given) -> Vec<u8> {
        let header = Header { mesh: self.mesh, src: INDEX_NONE, dst: INDEX_NONE, ..Header::default() };
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        encode(&header, &given.message(), &mut buffer).to_vec()
    }

    /// What is none, in turn: of another mesh, the other way, over, altered. `knows` is the order that the host follows: one
    /// that lags would be right to take what is over.
    fn forgery(&self, knows: u64) -> Given {
        let (kind, next) = (OrderKind::Resume, self.sequence + 1);
        match self.next % 4 {
            0 => self.sign(self.mesh ^ 1, kind, next),
            1 => Given { kind, ..self.sign(self.mesh, OrderKind::Halt, next) },
            2 if self.sequence > 1 && knows == self.sequence => self.sign(self.mesh, kind, self.sequence - 1),
            _ => {
                let mut given = self.sign(self.mesh, kind, next);
                given.order.signatures[1].signature[40] ^= 1;
                given
            }
        }
    }
}

impl World {
    /// The operators order HALT of host `number`, if it is one that will do.
    pub(super) fn order_halt(&mut self, number: u8) -> bool {
        let host = &self.hosts[usize::from(number)];
        let fit =
            !host.is_stopped() && host.lies == Lies::default() && host.lives_in(self.checker.newest_view());
        let desk = &mut self.desk;
        if !fit || desk.is_halt() {
            return false;
        }
        let is_first = desk.given.is_none();
        desk.order(OrderKind::Halt);
        let (hosts, sequence) = (self.hosts.len(), desk.sequence);
        desk.trial = Some(Trial {
            given_ns: self.now_ns,
            origin: number,
            lives: self.hosts.iter().map(|host| host.life).collect(),
            disturbed: vec![false; hosts],
            cut: vec![false; hosts * hosts],
            log_len: None,
        });
        self.note_disturbed();
        self.tell_order(number);
        self.queue.push(self.now_ns + OBEYED_NS, Due::Obeyed { sequence });
        self.queue.push(self.now_ns + SETTLED_NS, Due::Settled { sequence });
        if is_first {
            self.queue.push(self.now_ns + REMIND_FIRST_NS, Due::Remind);
        }
        true
    }

    /// They lift it.
    pub(super) fn order_resume(&mut self) {
        self.check_frozen();
        if !self.desk.is_halt() {
            return;
        }
        self.desk.order(OrderKind::Resume);
        self.desk.trial = None;
        self.hosts.iter_mut().for_each(|host| host.hushed = false);
        let honest = self
            .hosts
            .iter()
            .position(|host| host.process.is_some() && !host.is_stopped() && host.lies == Lies::default());
        if let Some(number) = honest {
            self.tell_order(number as u8);
        }
    }

    fn tell_order(&mut self, number: u8) {
        let Some(given) = self.desk.given else { return };
        let datagram = self.desk.datagram(&given);
        self.trace.tell(self.now_ns, number, || {
            format!("the operators: {:?} {}", given.kind, given.order.sequence)
        });
        let host = &self.hosts[usize::from(number)];
        if !host.is_stopped() && !host.lies.suppress {
            self.with(number, |process, scene| process.handle_operator(scene, &datagram));
        }
    }

    /// Again, to one after another; and somebody tries what he is not entitled to.
    pub(super) fn remind(&mut self) {
        self.queue.push(self.now_ns + REMIND_NS, Due::Remind);
        let desk = &mut self.desk;
        desk.next = (desk.next + 1) % self.hosts.len() as u8;
        let number = desk.next;
        self.tell_order(number);
        let host = &self.hosts[usize::from(number)];
        let Some(process) = host.process.as_ref().filter(|_| self.desk.is_halt() && !host.is_stopped())
        else {
            return;
        };
        let forgery = self.desk.datagram(&self.desk.forgery(process.order().1));
        self.with(number, |process, scene| {
            let before = process.order();
            process.handle_operator(scene, &forgery);
            let after = process.order();
            let is_same = (before.0, before.1) == (after.0, after.1);
            if !is_same || after.2.refused() != before.2.refused() + 1 {
                let what = format!("T16: n{} takes what is no order: {before:?}, {after:?}", scene.host);
                scene.checker.fail(what);
            }
        });
    }

    pub(super) fn handle_stored(&mut self, number: u8, process: u32) {
        if self.hosts[usize::from(number)].process.as_ref().is_some_and(|now| now.number() == process) {
            self.with(number, Process::handle_stored);
        }
    }

    /// Who cannot be held to account for an order that is on its way, and over which links it need not have come.
    pub(super) fn note_disturbed(&mut self) {
        let Some(trial) = &mut self.desk.trial else { return };
        let view = self.checker.newest_view();
        let hosts = self.hosts.len();
        for (number, host) in self.hosts.iter().enumerate() {
            let steady = host.life == trial.lives[number] && !host.is_stopped() && host.lives_in(view);
            trial.disturbed[number] |= !steady || host.lies != Lies::default();
        }
        for (at, cut) in trial.cut.iter_mut().enumerate() {
            *cut |= !self.net.carries((at / hosts) as u8, (at % hosts) as u8);
        }
    }

    /// P8, T17: a second after HALT whoever it could reach stands still.
    pub(super) fn check_obeyed(&mut self, sequence: u64) {
        self.note_disturbed();
        let desk = &mut self.desk;
        let Some(trial) = desk.trial.as_ref().filter(|_| desk.sequence == sequence) else { return };
        let hosts = self.hosts.len();
        let mut reached = vec![false; hosts];
        reached[usize::from(trial.origin)] = !trial.disturbed[usize::from(trial.origin)];
        for _ in 0..STEPS_MAX {
            let before = reached.clone();
            for at in (0..hosts * hosts).filter(|at| before[at / hosts] && !trial.cut[*at]) {
                reached[at % hosts] |= !trial.disturbed[at % hosts];
            }
        }
        for (number, host) in self.hosts.iter_mut().enumerate().filter(|(number, _)| reached[*number]) {
            let halted_ns = host.process.as_ref().and_then(|process| process.halted_ns);
            if let Some(halted_ns) = halted_ns {
                host.hushed = true;
                desk.slowest_ns = desk.slowest_ns.max(halted_ns.saturating_sub(trial.given_ns));
            } else {
                self.checker
                    .fail(format!("P8, T17: n{number} works on a second after HALT {sequence} was given"));
            }
        }
    }

    /// When nobody but liars goes on, what was decided until now is all.
    pub(super) fn check_settled(&mut self, sequence: u64) {
        let lives = |host: &crate::host::Host| host.process.is_some();
        let stands =
            self.hosts.iter().filter(|host| lives(host)).all(|host| host.hushed || host.lies.suppress);
        let log_len = self.checker.log_len();
        let is_newest = self.desk.sequence == sequence;
        if let Some(trial) = self.desk.trial.as_mut().filter(|_| stands && is_newest) {
            trial.log_len = Some(log_len);
        }
    }

    /// P8: a mesh that stands still decides nothing.
    fn check_frozen(&mut self) {
        if let Some(log_len) = self.desk.trial.as_ref().and_then(|trial| trial.log_len)
            && self.checker.log_len() != log_len
        {
            let more = self.checker.log_len() - log_len;
            self.checker.fail(format!("P8: a mesh that stands still has decided {more} entries"));
        }
    }
}

const OBEYED_NS: u64 = 1_000_000_000;
const SETTLED_NS: u64 = 1_500_000_000;
/// Not before it was seen how far an order comes by itself.
const REMIND_FIRST_NS: u64 = 1_600_000_000;
const REMIND_NS: u64 = 300_000_000;
const STEPS_MAX: usize = 3;
