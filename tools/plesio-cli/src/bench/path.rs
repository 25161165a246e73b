//! The bad path of a bench: a relay in the driver's process, with an end for each end of each flow.
//!
//! ```text
//!  begin ──▶ [stands for answer]  link  [stands for begin] ──▶ answer      both sockets at the driver's own address
//! ```
//!
//! The ends hear the relay's ports in place of each other's, so they run as they always do. What carries no datagrams
//! cannot go through here.

use super::link::Address;
use crate::args::ImpairArgs;
use crate::failure::Failure;
use plesio_relay::{Relay, RelayConfig, RelayError, Report};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};

/// What lies between the ends of every run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadPath {
    config: RelayConfig,
}

impl BadPath {
    /// As the flags say; none when they say nothing.
    pub(crate) fn new(flags: &ImpairArgs, seed: u64) -> Option<Self> {
        let config = RelayConfig { impairment: flags.impairment(), seed, ..RelayConfig::default() };
        (!flags.is_none()).then_some(Self { config })
    }

    /// Stands between two ends, each of which hears the relay's address in place of the other's: the real ones go in,
    /// the relay's come out.
    pub(crate) fn between(
        &self,
        own: IpAddr,
        begin: &mut Address,
        answer: &mut Address,
    ) -> Result<Relay, Failure> {
        let relay = Relay::start(self.config).map_err(failed)?;
        for address in [begin, answer] {
            let real = std::mem::replace(&mut address.ip, own);
            // Several flows may end at one port.
            let mut stands = BTreeMap::new();
            for port in &mut address.ports {
                if let Entry::Vacant(entry) = stands.entry(*port) {
                    let (end, bound) = relay.open(SocketAddr::new(own, 0)).map_err(failed)?;
                    relay.stands_for(end, SocketAddr::new(real, *port));
                    entry.insert(bound.port());
                }
                *port = stands[port];
            }
        }
        Ok(relay)
    }
}

/// What became of the datagrams of several runs.
pub(crate) fn sum(reports: impl Iterator<Item = Report>) -> Report {
    reports.fold(Report::default(), |sum, report| Report {
        tally: sum.tally.and(report.tally),
        strangers: sum.strangers + report.strangers,
        unsent: sum.unsent + report.unsent,
        overflowed: sum.overflowed + report.overflowed,
    })
}

pub(crate) fn failed(error: RelayError) -> Failure {
    Failure::run("relay", "cannot make the path between the ends bad", error)
        .fix("leave out --loss, --delay and the other flags of a bad path")
}
