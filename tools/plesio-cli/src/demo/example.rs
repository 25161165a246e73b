//! A run as nodes would tell it, for the tests of what is made from one.

use super::checks::{self, Check};
use super::document::Parts;
use super::evaluate::{Alone, Losses};
use super::launcher::Ended;
use super::plan::{PERIOD_NS, Plan};
use super::protocol::{Addresses, Bytes, Copies, Entry, Final, Found, Hello, Progress, Said};
use super::record::{Fate, Kind, Record};
use crate::args::{Cli, Command, DemoArgs};
use crate::host::Host;
use clap::Parser;

const SECONDS: u16 = 20;

impl Record {
    pub(crate) fn default_for(plan: &Plan) -> Self {
        Self::new(plan.members.iter().map(|member| (member.name.clone(), member.key().0)))
    }
}

/// A run and all else that a document is made of.
pub(crate) struct Example {
    pub(crate) args: DemoArgs,
    pub(crate) plan: Plan,
    pub(crate) record: Record,
    pub(crate) losses: Losses,
    host: Host,
    checks: Vec<Check>,
}

impl Example {
    pub(crate) fn new() -> Self {
        let (plan, record, losses) = run();
        let checks = checks::judge(&plan, &record, &losses);
        Self { args: args(), plan, record, losses, host: Host::look("mio".into(), "a test".into()), checks }
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            args: &self.args,
            host: &self.host,
            plan: &self.plan,
            record: &self.record,
            losses: &self.losses,
            checks: &self.checks,
            ended: &Ended::Whole,
            wall_s: 60.0,
            report: None,
        }
    }
}

/// A command line as a person would type it.
pub(crate) fn args() -> DemoArgs {
    match Cli::try_parse_from(["plesio", "demo", "--seed", "9"]).expect("a good line").command {
        Command::Demo(args) => args,
        other => panic!("{other:?}"),
    }
}

/// Four founders, one of them killed at 8 s; a fifth joins at 12 s; a version every frame, except for the
/// second after the kill; one step in each slot of every member.
pub(crate) fn run() -> (Plan, Record, Losses) {
    let plan = Plan::draw(1, 4, SECONDS, 2);
    let mut record = Record::default_for(&plan);
    let keys: Vec<u64> = plan.members.iter().map(|member| member.key().0).collect();
    let frames = u64::from(SECONDS) * 4;
    let mut version = 0;
    for index in 0..5 {
        hello(&plan, &mut record, index);
    }
    for frame in 1..=frames {
        let t_s = frame as f64 / 4.0;
        let dead = t_s >= plan.kill_s;
        let joined = t_s >= plan.join_s;
        if dead && record.killed_s.is_none() {
            record.killed_s = Some(plan.kill_s);
            record.nodes[plan.victim].fate = Fate::Killed;
            record.event(plan.kill_s, plan.victim, Kind::Crash, "killed with SIGKILL by the demo");
        }
        if joined && record.nodes[plan.joiner()].attached.is_none() {
            record.handle_said(t_s, plan.joiner(), Said::Attached { version });
            record.handle_said(t_s, 0, view(&keys, plan.victim));
        }
        let here: Vec<usize> =
            (0..5).filter(|&index| if index == 4 { joined } else { index != plan.victim || !dead }).collect();
        let gap = dead && t_s < plan.kill_s + 1.0;
        version += u64::from(!gap);
        for &index in &here {
            let steps = record.nodes[index].steps + u64::from(!gap);
            let loss = 3.0 - 0.01 * steps as f32;
            record.handle_said(
                t_s,
                index,
                Said::Step { steps, loss, version, phase_error_ns: Some(5_000_000 * (frame as i64 % 5 - 2)) },
            );
            record.handle_said(t_s, index, Said::Progress(progress(frame, index, version)));
            if !gap {
                let entries = here.iter().map(|&from| entry(keys[from], frame)).collect();
                record.handle_said(t_s, index, Said::Manifest { raw_ns: 0, version, frame, entries });
                let digest = format!("{version:032x}");
                record.handle_said(t_s + 0.01, index, Said::Version { raw_ns: 0, version, digest });
            }
        }
    }
    for index in (0..5).filter(|&index| index != plan.victim) {
        let last = last(version, record.nodes[index].steps);
        record.nodes[index].state = Some(vec![0.0; 4]);
        record.handle_said(20.5, index, Said::Final(last));
        record.nodes[index].fate = Fate::Stopped;
        record.event(20.6, index, Kind::Leave, "the run is over");
    }
    record.trained_s = f64::from(SECONDS);
    let losses = losses(&record);
    (plan, record, losses)
}

fn hello(plan: &Plan, record: &mut Record, index: usize) {
    let port = 40_000 + 2 * index as u16;
    let hello = Hello {
        id: crate::hex::hex(&plan.members[index].id.0),
        incarnation: index as u64,
        data: ([127, 0, 0, 1], port).into(),
        sideband: ([127, 0, 0, 1], port + 1).into(),
    };
    let found = Found { backend: "mio".into(), backend_reason: "asked for".into(), ..Found::default() };
    let listens = Addresses { data: hello.data, sideband: hello.sideband };
    record.handle_said(0.0, index, Said::Hello { hello, listens, pid: 100 + index as u32, found });
    record.nodes[index].fate = Fate::Alive;
    if index < plan.founders() {
        record.handle_said(0.1, index, Said::Attached { version: 0 });
    }
}

fn view(keys: &[u64], victim: usize) -> Said {
    let members =
        keys.iter().enumerate().filter(|(index, _)| *index != victim).map(|(_, key)| *key).collect();
    Said::View {
        raw_ns: 0,
        number: 2,
        members,
        added: vec![keys[4]],
        removed: vec![],
        shares: vec![],
        seated: true,
    }
}

fn entry(node: u64, frame: u64) -> Entry {
    Entry { node, steps: 1, staleness: (frame % 2) as u32, margin_frames: 0.1 + 0.01 * (frame % 7) as f32 }
}

fn progress(frame: u64, index: usize, version: u64) -> Progress {
    let raw_ns = (frame * PERIOD_NS) as i64;
    Progress {
        raw_ns,
        mesh_ns: raw_ns - 77 + 900 * index as i64,
        eps_ns: 20_000,
        state: 1,
        lead_ns: 30_000_000,
        version,
        bytes: Bytes { data_sent: frame * 600_000, ..Bytes::default() },
    }
}

fn last(version: u64, steps: u64) -> Final {
    Final {
        version,
        digest: format!("{version:032x}"),
        steps,
        steps_committed: steps,
        bytes: Bytes {
            data_sent: 1 << 24,
            data_received: 1 << 24,
            sideband_sent: 1 << 18,
            ..Bytes::default()
        },
        copies: Copies {
            sent_payload: 1 << 23,
            sent_copied: 0,
            received_payload: 1 << 23,
            received_copied: 1000,
        },
        state_bytes: 16,
    }
}

fn losses(record: &Record) -> Losses {
    let survivors = record.nodes.iter().filter(|node| node.last.is_some());
    let alone = survivors.enumerate().map(|(index, node)| Alone {
        name: node.name.clone(),
        steps: node.steps,
        loss: Some(2.9 - 0.01 * index as f64),
        curve: (0..node.steps).step_by(4).map(|step| (step + 1, 3.0 - 0.01 * step as f32)).collect(),
    });
    Losses { base: Some(3.0), mesh: Some(2.5), alone: alone.collect() }
}
