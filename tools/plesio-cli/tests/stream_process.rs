//! `--json-stream` of every command that runs for a while: nobody works on for a reader that has gone away.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Reads one line of a command that would run for minutes, goes away, and sees it end.
fn read_one_line(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command.args(arguments).args(["--json-stream", "--quiet"]).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("is piped"));
    out.read_line(&mut line).expect("text");
    assert!(line.starts_with("{\"event\":\"start\""), "{arguments:?}: {line}");
    drop(out);
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
        if begin.elapsed() > Duration::from_secs(30) {
            child.kill().expect("it is ours");
            panic!("{arguments:?} works on for nobody");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    child.stderr.take().expect("is piped").read_to_string(&mut said).expect("text");
    assert_eq!((status.code(), said.as_str()), (Some(130), ""), "{arguments:?}");
}

#[test]
fn a_stream_that_nobody_reads_ends() {
    read_one_line(&["bench", "kernels", "--size", "4k", "--working-set", "1M", "--repeats", "1000"]);
    read_one_line(&["bench", "udp", "--working-set", "hot", "--seconds", "0.5", "--repeats", "1000"]);
    read_one_line(&["bench", "allreduce", "--ranks", "2", "--size", "1M", "--repeats", "1000"]);
    read_one_line(&["bench", "relay", "--to", "127.0.0.1:9"]);
    read_one_line(&["bench", "churn", "--nodes", "3", "--seconds", "600"]);
    let out = |name: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).display().to_string();
    read_one_line(&["sim", "--seeds", "0..1000000", "--out", &out("stream-sim")]);
    read_one_line(&["characterize", "--out", &out("stream-characterize")]);
    read_one_line(&["demo", "--seconds", "600", "--out", &out("stream-demo")]);
}
