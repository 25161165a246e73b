//! A simulated machine: its addresses, its clock, how fast it is, and the process that runs on it, if one does.

use crate::clock::LocalClock;
use crate::config::SimConfig;
use crate::net::Packet;
use crate::process::{Lies, Process, SimDisk, data_address, sideband_address};
use crate::random::Random;
use plesio_membership::Given;
use plesio_wire::sideband::{Address, RosterEntry};
use plesio_wire::value::View;
use plesio_wire::{Incarnation, Instant, NodeKey};

/// See the module.
pub(crate) struct Host {
    number: u8,
    pub(crate) entry: RosterEntry,
    pub(crate) clock: LocalClock,
    pub(crate) rate_ppb: i64,
    pub(crate) step_ns: u64,
    pub(crate) stamps: bool,
    /// Longest time until a thread runs that has something to do.
    pub(crate) nap_ns: u64,
    pub(crate) process: Option<Process>,
    /// What outlives it, where nodes have disks.
    pub(crate) disk: Option<SimDisk>,
    /// Counts processes, so that what was arranged for an earlier one is recognised.
    pub(crate) life: u32,
    /// Faults that stop the process just now.
    pub(crate) pauses: Vec<u16>,
    /// What the kernel keeps for a stopped process, with its stamps.
    pub(crate) inbox: Vec<(Packet, Instant)>,
    /// When the next timer is arranged.
    pub(crate) timer_ns: Option<u64>,
    pub(crate) step_began: Instant,
    pub(crate) step_waits: bool,
    /// Since when the node wants to leave, and whether it has said so.
    pub(crate) leaving: Option<(u64, bool)>,
    /// The life that its process began with.
    pub(crate) born: Option<Incarnation>,
    /// A view left a living process of this host out: it may have to follow without a seat for a while.
    pub(crate) excluded: bool,
    /// Timers in a row that did not move time.
    pub(crate) spins: u32,
    /// Faults that let the machine sleep just now.
    pub(crate) asleep: u32,
    /// Datagrams that its sockets keep, if they are short of buffers.
    pub(crate) buffers: Option<u32>,
    /// While no process runs, whoever sends to its port is told so.
    pub(crate) refuses: bool,
    /// What its process says that is not so.
    pub(crate) lies: Lies,
    /// The order of the operators that its disk holds.
    pub(crate) order: Option<Given>,
    /// HALT reached it so long ago that it must send no data.
    pub(crate) hushed: bool,
}

impl Host {
    pub(crate) fn new(seed: u64, number: u8, random: &mut Random) -> Self {
        let mut material = seed.to_le_bytes().to_vec();
        material.push(number);
        let entry = RosterEntry {
            id: plesio::engine::node_id(&material),
            sideband: Address(sideband_address(number)),
            data: Address(data_address(number)),
            weight: 1_000,
        };
        let rate_ppb = random.below(100_001) as i64 - 50_000;
        Self {
            number,
            entry,
            clock: LocalClock::new(random.below(10_000_000_000), rate_ppb),
            rate_ppb,
            // From a board to a server: twelve to one.
            step_ns: random.between(10_000_000, 120_000_000),
            stamps: random.chance(850_000),
            nap_ns: random.pick(&[0, 0, 100_000, 3_000_000]),
            process: None,
            disk: None,
            life: 0,
            pauses: Vec::new(),
            inbox: Vec::new(),
            timer_ns: None,
            step_began: Instant(0),
            step_waits: false,
            leaving: None,
            born: None,
            excluded: false,
            spins: 0,
            asleep: 0,
            buffers: None,
            refuses: false,
            lies: Lies::default(),
            order: None,
            hushed: false,
        }
    }

    /// As a configuration has it, where it says so.
    pub(crate) fn given(mut self, config: &SimConfig) -> Self {
        let number = usize::from(self.number);
        if let Some(step_ns) = config.steps_ns.iter().cycle().nth(number) {
            self.step_ns = *step_ns;
        }
        if let Some(rate_ppb) = config.rates_ppb.iter().cycle().nth(number) {
            self.rate_ppb = *rate_ppb;
            self.clock = LocalClock::new(self.clock.at(0).0, *rate_ppb);
        }
        self
    }

    pub(crate) fn key(&self) -> NodeKey {
        self.entry.id.key()
    }

    /// The life that its process has just now.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.process.as_ref().map(|process| process.engine.incarnation())
    }

    /// Whether this life of it has a seat in `view`.
    pub(crate) fn lives_in(&self, view: &View) -> bool {
        let seat = view.index_of(self.key()).map(|at| view.members[usize::from(at)].incarnation);
        seat.is_some() && seat == self.incarnation()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.asleep > 0 || !self.pauses.is_empty()
    }

    /// The process is gone, and all it knew.
    pub(crate) fn end_process(&mut self) {
        // Killed between two events: what was given to the disk is on it.
        let disk = self.process.take().and_then(|process| process.disk);
        self.disk = disk.or(self.disk.take());
        (self.born, self.refuses) = (None, false);
        self.life += 1;
        self.pauses.clear();
        self.inbox.clear();
        self.timer_ns = None;
        self.step_waits = false;
        self.leaving = None;
        self.spins = 0;
    }
}

/// Datagrams that the kernel keeps for one process.
pub(crate) const INBOX_MAX: usize = 4_096;
