//! Two hosts on one machine: two network namespaces and a virtual cable between them, with the kernel's own rate and
//! loss on it.
//!
//! Needs the right to make namespaces and the `ip` command, `tc` for a rate and `nft` for loss; who asks is told what is missing. Names are this process's own, and everything goes when the pair is dropped, on a panic too; what a killed
//! process left behind is taken away by the next one.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// One of the two hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// 10.77.0.1
    Left,
    /// 10.77.0.2
    Right,
}

/// Two hosts and the cable between them.
#[derive(Debug)]
pub struct Pair {
    names: [String; 2],
}

impl Pair {
    /// Two hosts whose cable carries packets of `mtu` bytes, one by one: trains are cut before they reach it, so that a
    /// lost packet is one datagram.
    ///
    /// # Errors
    /// What this machine refuses, in words.
    pub fn open(mtu: u32) -> Result<Self, String> {
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let pair = Self { names: ["a", "b"].map(|side| format!("{PREFIX}{process}-{number}{side}")) };
        let [left, right] = &pair.names;
        for name in &pair.names {
            ip(&["netns", "add", name])?;
        }
        ip(&["-n", left, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", right])?;
        let mtu = mtu.to_string();
        for side in [Side::Left, Side::Right] {
            let name = pair.name(side);
            let address = format!("{}/24", side.address());
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", CABLE, "mtu", &mtu, "gso_max_segs", "1"])?;
            ip(&["-n", name, "address", "add", &address, "dev", CABLE])?;
            ip(&["-n", name, "link", "set", CABLE, "up"])?;
        }
        pair.wait_for_carrier()?;
        Ok(pair)
    }

    /// The kernel takes up to a second to see that a cable has been plugged in, and drops what is sent before.
    fn wait_for_carrier(&self) -> Result<(), String> {
        self.names.iter().try_for_each(|name| wait_for_carrier(name))
    }

    /// The namespace of a host.
    #[must_use]
    pub fn name(&self, side: Side) -> &str {
        &self.names[side as usize]
    }

    /// From here on a host sends no faster than that, with a queue of `latency_ms`. Counted is what a frame takes on
    /// Ethernet: its header, and 24 bytes around it.
    ///
    /// # Errors
    /// There is no `tc` here, or the kernel has no such queue.
    pub fn shape(&self, side: Side, rate_mbit: u32, latency_ms: u32) -> Result<(), String> {
        let (rate, latency) = (format!("{rate_mbit}mbit"), format!("{latency_ms}ms"));
        // The bucket holds what the link carries in a millisecond, and two jumbo packets at least.
        let burst = (rate_mbit * 125).max(20_000).to_string();
        let line = ["-n", self.name(side), "qdisc", "replace", "dev", CABLE, "root", "tbf", "rate", &rate];
        run("tc", line.iter().chain(&["burst", &burst, "latency", &latency, "overhead", "24"]), "")
    }

    /// From here on a host loses so many of a thousand UDP and TCP packets before anybody hears of them; with 0 none.
    ///
    /// # Errors
    /// There is no `nft` here, or the kernel has no packet filter.
    pub fn lose(&self, side: Side, of_a_thousand: u32) -> Result<(), String> {
        let what = format!("meta l4proto {{ tcp, udp }} numgen random mod 1000 < {of_a_thousand}");
        self.filter(side, &what)
    }

    /// How many packets the newest rule, [`Self::lose`] or [`Self::narrow`], has taken so far.
    ///
    /// # Errors
    /// The packet filter does not answer.
    pub fn lost(&self, side: Side) -> Result<u64, String> {
        let line = ["netns", "exec", self.name(side), "nft", "list", "table", "inet", "plesio"];
        let text = output("ip", line.iter(), "")?;
        let count = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).ok_or_else(|| format!("no counter in {text:?}"))
    }

    /// From here on packets above `mtu` bytes vanish at a host without a word: a black hole.
    ///
    /// # Errors
    /// There is no `nft` here, or the kernel has no packet filter.
    pub fn narrow(&self, side: Side, mtu: u32) -> Result<(), String> {
        self.filter(side, &format!("meta length > {mtu}"))
    }

    /// From here on a host's end of the cable takes packets of `mtu` bytes, and its kernel says so to who sends more.
    ///
    /// # Errors
    /// The kernel does not let this process.
    pub fn set_mtu(&self, side: Side, mtu: u32) -> Result<(), String> {
        ip(&["-n", self.name(side), "link", "set", CABLE, "mtu", &mtu.to_string()])
    }

    /// A rule in place of the one before; the table is made and emptied first, whether it was there or not.
    fn filter(&self, side: Side, what: &str) -> Result<(), String> {
        let table = "table inet plesio";
        let chain = "type filter hook input priority 0; policy accept;";
        let rule = format!("iifname \"{CABLE}\" {what} counter drop");
        let rules = format!("{table}\ndelete {table}\n{table} {{\nchain bad {{\n{chain}\n{rule}\n}}\n}}\n");
        run("ip", ["netns", "exec", self.name(side), "nft", "-f", "-"].iter(), &rules)
    }

    /// A command that will run on a host.
    #[must_use]
    pub fn command(&self, side: Side, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(side)]).arg(program);
        command
    }

    /// Runs `body` on a host, on a thread of its own; sockets opened there stay there.
    ///
    /// # Errors
    /// The kernel does not let this process in.
    ///
    /// # Panics
    /// When `body` does.
    pub fn run<T: Send>(&self, side: Side, body: impl FnOnce() -> T + Send) -> Result<T, String> {
        run_in(self.name(side), body)
    }
}

/// Runs `body` in a namespace, on a thread of its own.
pub(crate) fn run_in<T: Send>(name: &str, body: impl FnOnce() -> T + Send) -> Result<T, String> {
    let path = format!("/run/netns/{name}");
    let namespace = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let enter = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("setns: {error}"))?;
        Ok(body())
    };
    std::thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            // The cable goes with its namespaces. One that was never made needs no end.
            let _never = ip(&["netns", "delete", name]);
        }
    }
}

impl Side {
    /// Its address on the cable.
    #[must_use]
    pub fn address(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, 1 + self as u8).into()
    }
}

pub(crate) fn wait_for_carrier(name: &str) -> Result<(), String> {
    let line = ["-n", name, "-o", "link", "show", "dev", CABLE];
    let begun = Instant::now();
    while !output("ip", line.iter(), "")?.contains("state UP") {
        if begun.elapsed() > CARRIER_LIMIT {
            return Err(format!("the cable of {name} does not come up"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Takes away what processes that are gone have left.
pub(crate) fn sweep() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(process) = process.and_then(|process| process.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{process}")).exists() {
            // Another one may sweep at the same time.
            let _swept = ip(&["netns", "delete", &name]);
        }
    }
}

pub(crate) fn ip(line: &[&str]) -> Result<(), String> {
    run("ip", line.iter(), "")
}

pub(crate) fn run<'a>(
    program: &str,
    line: impl Iterator<Item = &'a &'a str>,
    input: &str,
) -> Result<(), String> {
    output(program, line, input).map(drop)
}

/// What a command prints; an error is in its own words.
fn output<'a>(program: &str, line: impl Iterator<Item = &'a &'a str>, input: &str) -> Result<String, String> {
    let line: Vec<&str> = line.copied().collect();
    let said = format!("{program} {}", line.join(" "));
    let failed = |error: std::io::Error| format!("{said}: {error}");
    let mut command = Command::new(program);
    command.args(&line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ended early says why.
        let _early = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{said}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

const CARRIER_LIMIT: Duration = Duration::from_secs(10);
pub(crate) const PREFIX: &str = "plesio-net-";
/// Name of the interface at each end of a cable, each in its own namespace.
pub const CABLE: &str = "cable";
pub(crate) static NEXT: AtomicU32 = AtomicU32::new(0);
