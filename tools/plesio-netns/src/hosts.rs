//! Several hosts around one switch: a network namespace for each and one for the switch, whose ways can be cut one by one.
//!
//! A cut is a rule of the receiving host's own packet filter, so that nobody is told of it. Everything goes when the value is
//! dropped, on a panic too.

use crate::pair::{CABLE, NEXT, PREFIX, ip, run, run_in, sweep, wait_for_carrier};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

/// Hosts 0 to n - 1 and the switch between them.
#[derive(Debug)]
pub struct Hosts {
    names: Vec<String>,
    switch: String,
}

impl Hosts {
    /// So many hosts that all reach each other.
    ///
    /// # Errors
    /// What this machine refuses, in words.
    pub fn open(count: u8) -> Result<Self, String> {
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("{PREFIX}{}-{number}{what}", std::process::id());
        let mut hosts = Self { names: Vec::new(), switch: name("switch") };
        ip(&["netns", "add", &hosts.switch])?;
        ip(&["-n", &hosts.switch, "link", "add", SWITCH, "type", "bridge"])?;
        ip(&["-n", &hosts.switch, "link", "set", SWITCH, "up"])?;
        for host in 0..count {
            let (host_name, port) = (name(&host.to_string()), format!("port{host}"));
            ip(&["netns", "add", &host_name])?;
            hosts.names.push(host_name);
            let (host_name, switch) = (hosts.name(host), hosts.switch.as_str());
            let cable = ["link", "add", CABLE, "type", "veth", "peer", "name", &port, "netns", switch];
            ip(&[&["-n", host_name][..], &cable].concat())?;
            ip(&["-n", switch, "link", "set", &port, "master", SWITCH, "up"])?;
            ip(&["-n", host_name, "link", "set", "lo", "up"])?;
            let address = format!("{}/24", hosts.address(host));
            ip(&["-n", host_name, "address", "add", &address, "dev", CABLE])?;
            ip(&["-n", host_name, "link", "set", CABLE, "up"])?;
        }
        hosts.names.iter().try_for_each(|name| wait_for_carrier(name))?;
        hosts.heal()?; // Without a packet filter nothing can be cut.
        Ok(hosts)
    }

    fn name(&self, host: u8) -> &str {
        &self.names[usize::from(host)]
    }

    /// Where a host is.
    #[must_use]
    pub fn address(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 78, 0, 1 + host).into()
    }

    /// From here on `to` hears nothing of those hosts, and of everybody else what it did not hear before.
    ///
    /// # Errors
    /// There is no `nft` here, or the kernel has no packet filter.
    pub fn deafen(&self, to: u8, from: &[u8]) -> Result<(), String> {
        let table = "table inet plesio";
        let rules: String =
            from.iter().map(|host| format!("ip saddr {} counter drop\n", self.address(*host))).collect();
        let chain = format!("chain cut {{\ntype filter hook input priority 0; policy accept;\n{rules}}}");
        let script = format!("{table}\ndelete {table}\n{table} {{\n{chain}\n}}\n");
        run("ip", ["netns", "exec", self.name(to), "nft", "-f", "-"].iter(), &script)
    }

    /// From here on no host of one side hears any of the other.
    ///
    /// # Errors
    /// As [`Self::deafen`].
    pub fn cut(&self, one: &[u8], other: &[u8]) -> Result<(), String> {
        one.iter().try_for_each(|host| self.deafen(*host, other))?;
        other.iter().try_for_each(|host| self.deafen(*host, one))
    }

    /// Everybody hears everybody.
    ///
    /// # Errors
    /// As [`Self::deafen`].
    pub fn heal(&self) -> Result<(), String> {
        (0..self.names.len() as u8).try_for_each(|host| self.deafen(host, &[]))
    }

    /// Runs `body` on a host, on a thread of its own; sockets opened there stay there.
    ///
    /// # Errors
    /// The kernel does not let this process in.
    ///
    /// # Panics
    /// When `body` does.
    pub fn run<T: Send>(&self, host: u8, body: impl FnOnce() -> T + Send) -> Result<T, String> {
        run_in(self.name(host), body)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.switch]) {
            // Cables go with their namespaces. One that was never made needs no end.
            let _never = ip(&["netns", "delete", name]);
        }
    }
}

const SWITCH: &str = "switch";
