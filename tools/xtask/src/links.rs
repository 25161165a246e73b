//! `links`: sums between network namespaces whose links carry what is asked for, with shares by rate and with equal ones,
//! beside what the slowest link needs at least.
//!
//! Every rank has a namespace of its own, joined to the others by a bridge; token buckets bound what it sends and what it
//! receives. Everything that was made is taken away at the end, also after an error.

use std::path::Path;
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask links [--links 1G,1G,1G,100M] [--size 16M] [--codec none,int8] [--repeats N]

Runs plesio bench allreduce between network namespaces whose links carry so many bits a second each way. As root.";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (mut links, mut size, mut codec, mut repeats) =
        ("1G,1G,1G,100M".to_owned(), "16M".to_owned(), "none,int8".to_owned(), "3".to_owned());
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        if matches!(flag.as_str(), "-h" | "--help") {
            println!("{USAGE}");
            return Ok(());
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} wants a value\n\n{USAGE}"))?;
        *(match flag.as_str() {
            "--links" => &mut links,
            "--size" => &mut size,
            "--codec" => &mut codec,
            "--repeats" => &mut repeats,
            _ => return Err(format!("unknown flag {flag}\n\n{USAGE}")),
        }) = value.clone();
    }
    let rates: Vec<&str> = links.split(',').collect();
    if !(2..=32).contains(&rates.len()) || rates.iter().any(|rate| bits(rate).is_none()) {
        return Err(format!("--links {links}: 2 to 32 rates like 100M or 1G\n\n{USAGE}"));
    }
    let program = crate::rivals::build_ours(root)?;
    let lab = Lab::build(&rates)?;
    for shares in ["rate", "equal"] {
        println!("shares: {shares}");
        let output = Command::new(&program)
            .args(["bench", "allreduce", "--path", "udp", "--protection", "plaintext", "--json", "--quiet"])
            .args(["--ranks", &rates.len().to_string(), "--links", &links, "--shares", shares])
            .args(["--namespaces", &lab.names.join(","), "--size", &size, "--codec", &codec])
            .args(["--repeats", &repeats, "--iterations", "3"])
            .output()
            .map_err(|cause| format!("cannot start {}: {cause}", program.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let document = String::from_utf8_lossy(&output.stdout);
        let fields =
            ["bytes", "codec", "time_ns", "links_bound_ns", "shares_bound_ns", "of_links_bound", "wrong"];
        // A row begins with its operation; what the command line said of operations is a list.
        let compact: String = document.split_whitespace().collect();
        for row in compact.split("\"operation\":\"").skip(1) {
            let found = fields.iter().filter_map(|field| {
                let name = format!("\"{field}\":");
                let (_, rest) = row.split_once(&name)?;
                let end = rest.find([',', '}'])?;
                Some(format!("{field} {}", &rest[..end]))
            });
            println!("  {}", found.collect::<Vec<_>>().join("  "));
        }
    }
    Ok(())
}

/// Bits a second.
fn bits(rate: &str) -> Option<u64> {
    let (digits, scale) = match rate.strip_suffix('G') {
        Some(digits) => (digits, 1_000_000_000),
        None => (rate.strip_suffix('M')?, 1_000_000),
    };
    digits.parse::<u64>().ok()?.checked_mul(scale).filter(|bits| *bits > 0)
}

/// Namespaces and their bridge, until it is dropped.
struct Lab {
    names: Vec<String>,
    bridge: String,
}

impl Lab {
    fn build(rates: &[&str]) -> Result<Self, String> {
        let tag = std::process::id() % 100_000;
        let mut lab = Self { names: Vec::new(), bridge: format!("pb{tag}") };
        ip(&["link", "add", &lab.bridge, "type", "bridge"])?;
        ip(&["link", "set", &lab.bridge, "up"])?;
        for (rank, rate) in rates.iter().enumerate() {
            let (name, outer, inner) =
                (format!("plesio{tag}-{rank}"), format!("po{tag}-{rank}"), format!("pi{tag}-{rank}"));
            ip(&["netns", "add", &name])?;
            lab.names.push(name.clone());
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &name])?;
            ip(&["link", "set", &outer, "master", &lab.bridge, "up"])?;
            ip(&[
                "-n",
                &name,
                "addr",
                "add",
                &format!("10.77.{}.{}/16", tag % 256, rank + 1),
                "dev",
                &inner,
            ])?;
            ip(&["-n", &name, "link", "set", &inner, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            let rate = format!("{}bit", bits(rate).unwrap_or_default());
            let bucket = ["root", "tbf", "rate", &rate, "burst", "64k", "latency", "20ms"];
            tc(&["qdisc", "add", "dev", &outer], &bucket)?;
            tc(&["-n", &name, "qdisc", "add", "dev", &inner], &bucket)?;
        }
        Ok(lab)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // With a namespace its end of the pair goes, and with that the other one.
        for name in &self.names {
            let _gone = ip(&["netns", "del", name]);
        }
        let _gone = ip(&["link", "del", &self.bridge]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    call("ip", arguments)
}

fn tc(device: &[&str], discipline: &[&str]) -> Result<(), String> {
    call("tc", &[device, discipline].concat())
}

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|cause| format!("{}: {cause}; install iproute2, and run this as root", line()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {}", line(), said.trim())) }
}
