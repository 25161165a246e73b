//! `plesio bench --listen` and `--connect`: two commands started by hand, and what strangers cannot do to them.

use crate::common::{SHORT, bench, document, ends, moving, output, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

/// A listening side, where it listens, and what else it says.
struct Listening {
    child: Child,
    address: String,
    /// What it says to type on the other machine, without the program's name.
    line: Vec<String>,
    said: BufReader<ChildStderr>,
}

impl Listening {
    fn start(more: &[&str]) -> Self {
        let line = [&["udp", "--listen", "127.0.0.1:0"], more].concat();
        let mut child = bench(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut first = String::new();
        said.read_line(&mut first).expect("it says where it listens");
        let line = first.split("plesio bench ").nth(1).expect("it says what to type");
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let address = line.iter().skip_while(|word| *word != "--connect").nth(1);
        let address = address.expect("an address").to_owned();
        Self { child, address, line, said }
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it goes on");
        line
    }

    fn end(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it lives");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(130));
    }
}

fn key_file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("plesio-{name}-{}.key", std::process::id()));
    let mut make = std::process::Command::new(env!("CARGO_BIN_EXE_plesio"));
    let made = make.args(["key", "gen", "pool", "-o"]).arg(&path).output().expect("it runs");
    assert!(made.status.success(), "{}", text(&made.stderr));
    path
}

#[test]
fn two_commands_that_hold_one_key_measure_each_other() {
    let (right, wrong) = (key_file("right"), key_file("wrong"));
    let (right_path, wrong_path) = (right.to_str().expect("text"), wrong.to_str().expect("text"));
    let mut listening = Listening::start(&["--key-file", right_path]);
    let address = listening.address.clone();
    for command in ["udp", "pingpong"] {
        let line =
            [command, "--connect", &address, "--key-file", right_path, "--size", "1000", "--vs", "tcp"];
        let document = document(&[&line, SHORT].concat());
        assert_eq!(document["results"][0]["wrong_bytes"], 0, "{command}");
        let rate = if command == "udp" { "goodput_bps" } else { "p50_ns" };
        for rows in ["results", "baseline"] {
            assert!(document[rows][0][rate].as_f64().is_some_and(|rate| rate > 0.0), "{command} {rows}");
        }
        assert!(listening.next_line().contains("done"));
    }
    for key in [&["--key-file", wrong_path][..], &["--protection", "plaintext"]] {
        let refused = output(&[&["udp", "--connect", &address], key, SHORT].concat());
        assert_eq!(refused.status.code(), Some(4), "{key:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("does not hold the same key"), "{}", text(&refused.stderr));
        assert!(listening.next_line().contains("does not hold the same key"), "{key:?}");
    }
    listening.end();
    fs::remove_file(right).expect("it is there");
    fs::remove_file(wrong).expect("it is there");
}

#[test]
fn hostile_bytes_end_their_connection_and_nothing_else() {
    let mut listening = Listening::start(&[]);
    let address = listening.address.clone();
    let long = [b"plesio-bench 3 ".as_slice(), &[b'0'; 4096]].concat();
    let nonce = [b"plesio-bench 3 ".as_slice(), &[b'7'; 64], b"\n"].concat();
    let order = [&nonce[..], b"00 {\"open\":[]}\n"].concat();
    for (bytes, said) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "what connected is no `plesio bench"),
        (b"\xff\xfe\x00\n", "what connected is no `plesio bench"),
        (b"plesio-bench 1 00\n", "version 1"),
        (&long, "too long"),
        (&order, "does not hold the same key"),
    ] {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        let line = listening.next_line();
        assert!(line.contains(said), "{line}");
        // It is let go: what was sent has an end.
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.len() < 200, "nothing is handed out: {}", text(&rest));
    }
    let line = ["udp", "--connect", &address, "--size", "1000", "--protection", "plaintext"];
    assert_eq!(document(&[&line, SHORT].concat())["results"][0]["wrong_bytes"], 0, "it serves as before");
    listening.end();
}

#[test]
fn a_peer_that_is_no_bench_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number").to_string();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        stream.write_all(b"220 mail ready\r\n").expect("it reads");
    });
    let line = ["udp", "--connect", &address, "--protection", "plaintext"];
    let refused = output(&[&line, SHORT].concat());
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("no `plesio bench --listen`"), "{}", text(&refused.stderr));
    stranger.join().expect("no panic");
    let nobody = output(&[&line, SHORT].concat());
    assert_eq!(nobody.status.code(), Some(4), "{}", text(&nobody.stderr));
}

#[test]
fn plaintext_stays_on_this_machine_unless_the_network_is_trusted() {
    for (line, said) in [
        (&["udp", "--listen", "0.0.0.0:0", "--protection", "plaintext"][..], "--trust captive"),
        (&["udp", "--connect", "192.0.2.1:7470", "--protection", "both"], "--trust captive"),
        (&["udp", "--listen", "0.0.0.0:0"], "--key-file"),
        (&["udp", "--connect", "192.0.2.1:7470"], "--key-file"),
    ] {
        let refused = output(line);
        assert_eq!(refused.status.code(), Some(2), "{line:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(said), "{line:?}: {}", text(&refused.stderr));
    }
}

#[test]
fn an_address_in_use_is_said() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("its number").to_string();
    let refused = output(&["udp", "--listen", &address]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let said = text(&refused.stderr);
    assert!(said.contains("in use") && said.contains(&address), "{said}");
}

#[test]
fn what_the_listening_side_says_to_type_works_as_it_stands() {
    let key = key_file("typed");
    for flags in [&[][..], &["--key-file", key.to_str().expect("text")], &["--trust", "captive"]] {
        let listening = Listening::start(flags);
        let line: Vec<&str> = listening.line.iter().map(String::as_str).collect();
        let document = document(&[&line[..], SHORT, &["--size", "1000"]].concat());
        assert_eq!(document["results"][0]["wrong_bytes"], 0, "{flags:?}");
        listening.end();
    }
    fs::remove_file(key).expect("it is there");
}

#[test]
fn who_says_nothing_keeps_nobody_from_being_served() {
    let mut listening = Listening::start(&[]);
    let connect = || TcpStream::connect(&listening.address).expect("it listens");
    let silent = [connect(), connect(), connect()];
    let line = ["udp", "--connect", &listening.address, "--size", "1000", "--protection", "plaintext"];
    assert_eq!(document(&[&line, SHORT].concat())["results"][0]["wrong_bytes"], 0);
    drop(silent);
    let said: Vec<String> = (0..4).map(|_| listening.next_line()).collect();
    assert_eq!(said.iter().filter(|line| line.contains("done")).count(), 1, "{said:?}");
    listening.end();
}

#[test]
fn a_bench_that_is_killed_is_not_done_and_one_at_a_time_is_served() {
    let mut listening = Listening::start(&[]);
    let address = listening.address.clone();
    let line = ["udp", "--connect", &address, "--protection", "plaintext", "--working-set", "hot"];
    let long = || {
        let line = [&line[..], &["--size", "64k", "--seconds", "60"]].concat();
        let child = bench(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        moving(ends::<1>(child.id()));
        child
    };
    let mut first = long();
    let second = output(&[&line[..], &["--repeats", "1", "--seconds", "0.1"]].concat());
    assert_eq!(second.status.code(), Some(2), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains("another machine"), "{}", text(&second.stderr));
    first.kill().expect("it lives");
    first.wait().expect("it ends");
    let said = [listening.next_line(), listening.next_line()];
    assert!(said[0].contains("sent away"), "{said:?}");
    assert!(said[1].contains("in the middle of a run"), "{said:?}");
    let third = long();
    listening.end();
    let third = third.wait_with_output().expect("it ends");
    assert_eq!(third.status.code(), Some(4), "{}", text(&third.stderr));
}
