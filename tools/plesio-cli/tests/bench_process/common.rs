//! What the process tests of `plesio bench` share.

use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A run that is over soon and fits into a cache.
pub(crate) const SHORT: &[&str] = &["--working-set", "hot", "--repeats", "1", "--seconds", "0.1"];

/// The command without any setting of whoever runs the tests.
pub(crate) fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.arg("bench").args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn output(arguments: &[&str]) -> Output {
    bench(arguments).output().expect("the program runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it, expects success, and gives its document.
pub(crate) fn document(arguments: &[&str]) -> Value {
    let output = output(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one document")
}

/// The ends of a bench on this machine, once they run: the one that begins, and the one that answers if it is here.
pub(crate) fn ends<const COUNT: usize>(pid: u32) -> [i32; COUNT] {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        if let Ok(ends) = children.try_into() {
            return ends;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no ends were started");
}

/// Waits until these ends have used some CPU time: bytes move.
pub(crate) fn moving<const COUNT: usize>(ends: [i32; COUNT]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let ticks = |pid: i32| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.iter().skip(11).take(2).flat_map(|field| field.parse::<u64>()).sum()
    };
    while Instant::now() < deadline {
        if ends.into_iter().all(|pid| ticks(pid) >= 10) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the ends do nothing");
}
