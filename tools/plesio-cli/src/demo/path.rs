//! The bad path of a demo: a relay in the launcher, with two ends for every member.
//!
//! A member is told to advertise its ends' addresses; the relay learns where the member really is from its hello,
//! before anybody else hears of it.

use super::protocol::Addresses;
use crate::args::ImpairArgs;
use crate::failure::Failure;
use plesio_relay::{EndId, Relay, RelayConfig, RelayError, Report};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

pub(crate) struct BadPath {
    relay: Relay,
    /// Of every member that was started: data and sideband.
    ends: BTreeMap<usize, [EndId; 2]>,
}

impl BadPath {
    /// A path as the flags say; none when they say nothing.
    pub(crate) fn start(flags: &ImpairArgs, seed: u64) -> Result<Option<Self>, Failure> {
        if flags.is_none() {
            return Ok(None);
        }
        let config = RelayConfig { impairment: flags.impairment(), seed, ..RelayConfig::default() };
        let relay = Relay::start(config).map_err(failed)?;
        Ok(Some(Self { relay, ends: BTreeMap::new() }))
    }

    /// Where a member will be for the others.
    pub(crate) fn advertise(&mut self, member: usize) -> Result<Addresses, Failure> {
        let open = || self.relay.open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(failed);
        let ((data_end, data), (sideband_end, sideband)) = (open()?, open()?);
        self.ends.insert(member, [data_end, sideband_end]);
        Ok(Addresses { data, sideband })
    }

    /// Where a member really is.
    pub(crate) fn stands_for(&self, member: usize, listens: Addresses) {
        if let Some([data, sideband]) = self.ends.get(&member) {
            self.relay.stands_for(*data, listens.data);
            self.relay.stands_for(*sideband, listens.sideband);
        }
    }

    /// What became of all datagrams; none when the relay is gone.
    pub(crate) fn report(&self) -> Option<Report> {
        self.relay.report().ok()
    }
}

fn failed(error: RelayError) -> Failure {
    Failure::run("relay", "cannot make the path between the nodes bad", error)
        .fix("leave out --loss, --delay and the other flags of a bad path")
}
