//! `plesio bench relay`: a bad path between two ends, by hand.

use crate::args::BenchRelayArgs;
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::{signals, stdout};
use plesio_relay::{Relay, RelayConfig, RelayError, Report};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the stream has an interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// Relays until its time is over or Ctrl-C.
pub(crate) fn run(args: &BenchRelayArgs) -> Result<Exit, Failure> {
    if args.to.port() == 0 || args.to.ip().is_unspecified() {
        let cause = format!("{} is no address that can be sent to", args.to);
        return Err(Failure::usage("relay", "cannot relay to there", cause)
            .fix("say --to ADDRESS:PORT of a socket that listens there"));
    }
    if args.to.is_ipv4() != args.listen.is_ipv4() {
        let cause = format!("{} and {} are addresses of two kinds", args.listen, args.to);
        let what = "cannot relay between them";
        return Err(Failure::usage("relay", what, cause).fix("say both as IPv4 or both as IPv6"));
    }
    if is_itself(args.listen, args.to) {
        let cause = format!("{} is where it listens itself, so everything would go round for ever", args.to);
        return Err(
            Failure::usage("relay", "cannot relay to there", cause).fix("say --to the address of an end")
        );
    }
    let (signal, heard) = mpsc::channel();
    signals::watch(args.output.json_stream, move || {
        let _ended = signal.send(());
    })?;
    let begun = Instant::now();
    let relay = Relay::start(RelayConfig {
        impairment: args.impair.impairment(),
        back: args.back,
        seed: args.seed,
        ..RelayConfig::default()
    })
    .map_err(failed)?;
    let (end, listen) = relay.open(args.listen).map_err(failed)?;
    relay.stands_for(end, args.to);
    relay.admit_at(end);
    if args.output.json_stream {
        let start = json!({ "schema": "plesio.bench.relay/1", "config": args, "listen": listen.to_string() });
        stdout::emit("start", &start);
    }
    if !args.output.quiet {
        let _gone = writeln!(std::io::stderr(), "relaying {listen} to {}; Ctrl-C ends it", args.to);
    }
    let limit = args.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let exit = loop {
        let left = limit.map_or(INTERVAL, |limit| limit.saturating_sub(begun.elapsed()).min(INTERVAL));
        match heard.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break Exit::Interrupted,
        }
        if limit.is_some_and(|limit| begun.elapsed() >= limit) {
            break Exit::Ok;
        }
        let report = relay.report().map_err(failed)?;
        if args.output.json_stream {
            stdout::emit("interval", &relay_figures(&report));
        }
    };
    let report = relay.report().map_err(failed)?;
    let document = document(args, listen, &report, begun.elapsed().as_secs_f64());
    if args.output.json_stream {
        stdout::emit("end", &document);
    } else if args.output.json {
        stdout::document(&document);
    } else {
        stdout::text(&format!("{report}\n"));
    }
    Ok(exit)
}

fn failed(error: RelayError) -> Failure {
    match &error {
        RelayError::Bind { .. } => Failure::usage("relay", "cannot relay", error)
            .fix("say --listen as an address of this machine and a free port, or leave it out"),
        RelayError::Impairment(_) => Failure::usage("relay", "cannot relay", error)
            .fix("see `plesio bench relay --help` for what a path can be"),
        _ => Failure::run("relay", "cannot relay", error),
    }
}

/// Whether what is sent there comes back here.
fn is_itself(listen: SocketAddr, to: SocketAddr) -> bool {
    // An address of this machine is one that a socket may have.
    let here = || UdpSocket::bind((to.ip(), 0)).is_ok();
    listen.port() == to.port() && (listen.ip() == to.ip() || listen.ip().is_unspecified() && here())
}

fn document(args: &BenchRelayArgs, listen: SocketAddr, report: &Report, wall_s: f64) -> Value {
    json!({
        "schema": "plesio.bench.relay/1",
        "config": args,
        "host": Host::look("none".into(), "plain sockets".into()),
        "listen": listen.to_string(),
        "datagrams": relay_figures(report),
        "wall_s": wall_s,
    })
}

/// The figures of a relay, as every document that has one tells them.
pub(crate) fn relay_figures(report: &Report) -> Value {
    json!(RelayFigures::from(report))
}

/// What became of all datagrams.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct RelayFigures {
    pub(crate) taken: u64,
    sent: u64,
    lost: u64,
    copied: u64,
    damaged: u64,
    late: u64,
    overrun: u64,
    refused: u64,
    strangers: u64,
    unsent: u64,
    /// Dropped by the kernel because the relay was too slow.
    pub(crate) overflowed: u64,
}

impl From<&Report> for RelayFigures {
    fn from(report: &Report) -> Self {
        let tally = report.tally;
        Self {
            taken: tally.taken,
            sent: tally.sent,
            lost: tally.lost,
            copied: tally.copied,
            damaged: tally.damaged,
            late: tally.late,
            overrun: tally.overrun,
            refused: tally.refused,
            strangers: report.strangers,
            unsent: report.unsent,
            overflowed: report.overflowed,
        }
    }
}

impl RelayFigures {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            taken: self.taken + other.taken,
            sent: self.sent + other.sent,
            lost: self.lost + other.lost,
            copied: self.copied + other.copied,
            damaged: self.damaged + other.damaged,
            late: self.late + other.late,
            overrun: self.overrun + other.overrun,
            refused: self.refused + other.refused,
            strangers: self.strangers + other.strangers,
            unsent: self.unsent + other.unsent,
            overflowed: self.overflowed + other.overflowed,
        }
    }
}
