//! `plesio up` and `plesio status` as processes: two nodes adapt one model, one leaves, and what they refuse.

mod common;
mod halt;
mod mesh;
mod restart;
mod silence;
mod trace;

use common::{Node, clean, folder, key, keys, output, plesio, refused, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn two_nodes_with_keys_and_tickets_adapt_one_model() {
    let at = folder("up-sealed");
    keys(&at);
    let common = ["up", "--json-stream", "--duty", "0.3", "--pool", "pool.key", "--operator", "operator.pub"];
    two_nodes_adapt_one_model_and_one_leaves(&at, &common, "sealed", "ticket = \"b.ticket\"\n");
}

#[test]
fn two_nodes_in_plaintext_adapt_one_model() {
    let at = folder("up-plaintext");
    keys(&at);
    let common = ["up", "--plaintext", "--json-stream", "--duty", "0.3", "--wait", "adaptive"];
    two_nodes_adapt_one_model_and_one_leaves(&at, &common, "plaintext", "");
}

/// Waits until both are members and hold versions that both contributed to: the same bits. The version it began at.
fn agree(founder: &Node, joiner: &Node) -> u64 {
    wait("a view of both", || founder.members() == 2 && joiner.members() == 2);
    let before = joiner.version();
    wait("versions of both", || founder.version() > before + 8 && joiner.version() > before + 8);
    let (ours, theirs) = (founder.digests(), joiner.digests());
    let both: Vec<u64> = ours.keys().filter(|version| theirs.contains_key(version)).copied().collect();
    assert!(both.len() >= 8, "{both:?}");
    both.iter().for_each(|version| assert_eq!(ours[version], theirs[version], "version {version}"));
    before
}

fn two_nodes_adapt_one_model_and_one_leaves(at: &Path, common: &[&str], protection: &str, joiner: &str) {
    let alone = ["--found", "--key", "a.key", "--ticket", "a.ticket", "--socket", "a.sock", "--out", "a"];
    let mut founder = Node::start(plesio(at, &[common, &alone].concat()));
    let join = founder.started("join");
    let key = join.split_once('@').expect("KEY@ADDR").0.to_owned();
    let public = output(at, &["key", "pub", "a.key"]).stdout;
    assert!(String::from_utf8_lossy(&public).contains(&key), "the key in the file is the node's");
    fs::write(
        at.join("b.toml"),
        format!("join = [\"{join}\"]\nkey = \"b.key\"\n{joiner}socket = \"b.sock\"\nout = \"b\"\n"),
    )
    .expect("our own folder");
    let mut joiner = Node::start(plesio(at, &[common, &["-c", "b.toml"]].concat()));
    joiner.started("join");
    let before = agree(&founder, &joiner);

    // A member's own view of it, in its three forms.
    let asked = output(at, &["status", "--socket", "a.sock", "--json"]);
    let status: Value = serde_json::from_slice(&asked.stdout).expect("one document");
    assert_eq!((&status["schema"], &status["node"]), (&"plesio.status/1".into(), &key.as_str().into()));
    assert_eq!(status["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["protection"], protection);
    assert!(status["version"].as_u64() > Some(before) && status["steps_committed"].as_u64() > Some(0));
    assert!(status["data_sent_bytes"].as_u64() > Some(0) && status["loss"].as_f64() > Some(0.0));
    let dump =
        String::from_utf8(output(at, &["status", "--socket", "b.sock", "--dump"]).stdout).expect("text");
    assert!(dump.lines().all(|line| line.split('\t').count() == 2), "{dump}");
    assert!(dump.contains("\npid\t") && dump.contains("\nview\t"), "{dump}");
    let text = String::from_utf8(output(at, &["status", "--socket", "b.sock"]).stdout).expect("text");
    assert!(text.contains(&key[..16]) && text.contains("loss"), "{text}");

    let (code, end) = joiner.interrupt();
    assert_eq!(code, Some(130), "{end}");
    assert_eq!(end["interrupted"], true);
    assert!(at.join("b/adapter/adapter_model.safetensors").is_file() && !at.join("b.sock").exists());
    wait("a view without it", || founder.members() == 1);
    let before = founder.version();
    wait("versions without it", || founder.version() > before + 2);
    let (code, end) = founder.interrupt();
    assert_eq!((code, &end["schema"]), (Some(130), &"plesio.up/1".into()));
    assert!(end["version"].as_u64() > Some(before) && end["digest"].is_string(), "{end}");
    assert!(at.join("a/adapter/adapter_config.json").is_file() && !at.join("a.sock").exists());
    assert!(refused(at, &["status", "--socket", "a.sock"], 4).contains("no-node"));
}

/// An adapter of an earlier run, which only another adapter may replace.
fn precious(at: &Path) -> PathBuf {
    let file = at.join("kept/adapter/adapter_model.safetensors");
    fs::create_dir_all(at.join("kept/adapter")).expect("our own folder");
    fs::write(&file, b"precious").expect("our own folder");
    file
}

/// Such a node wrote the adapter that all begin with over the one of an earlier run, and ended well.
#[test]
fn who_is_not_let_in_writes_nothing_and_says_why() {
    let at = folder("up-outside");
    let kept = precious(&at);
    let join = |address: &str, out: &str| {
        let line = ["up", "--plaintext", "--join", address, "--out", out, "--seconds", "1"];
        refused(&at, &[&line[..], &["--socket", "it.sock"]].concat(), 4)
    };
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let heard = silent.local_addr().expect("it is bound").to_string();
    let said = join(&heard, "kept");
    assert!(said.contains("cannot join") && said.contains(&format!("no answer from {heard}")), "{said}");
    drop(silent);
    assert!(join(&heard, "absent").contains("nothing listens on UDP port"));
    assert!(!at.join("absent").exists());
    assert_eq!(fs::read(&kept).expect("still there"), b"precious");
    assert_eq!(fs::read_dir(at.join("kept/adapter")).expect("still there").count(), 1);
}

/// On a disk that was full at the end, the stream and the trace stopped without one, and half an adapter stayed.
#[test]
fn an_adapter_that_cannot_be_written_is_said_everywhere_and_leaves_no_half() {
    let at = folder("up-unwritten");
    // What keeps the tensors from their name, once they are written beside it.
    fs::create_dir_all(at.join("a/adapter/adapter_model.safetensors")).expect("our own folder");
    let line = ["up", "--found", "--plaintext", "--json-stream", "--duty", "0.3", "--out", "a"];
    let mut node =
        Node::start(plesio(&at, &[&line[..], &["--socket", "a.sock", "--trace", "a.jsonl"]].concat()));
    node.started("join");
    wait("a version", || node.version() > 0);
    let (code, end) = node.interrupt();
    assert_eq!((code, &end["adapter"]), (Some(1), &Value::Null), "{end}");
    assert!(end["cause"].as_str().is_some_and(|cause| cause.contains("adapter_model.safetensors")), "{end}");
    assert!(end["version"].as_u64() > Some(0) && end["interrupted"] == true, "{end}");
    let left: Vec<_> = fs::read_dir(at.join("a/adapter"))
        .expect("it stays")
        .map(|entry| entry.expect("our own folder").file_name())
        .collect();
    assert_eq!(left, ["adapter_model.safetensors"]);
    let trace = fs::read_to_string(at.join("a.jsonl")).expect("written");
    let last: Value = serde_json::from_str(trace.lines().last().expect("lines")).expect("one object a line");
    assert_eq!((&last["kind"], &last["cause"]), (&"end".into(), &end["cause"]), "{last}");
}

#[test]
fn a_mesh_that_refuses_a_node_keeps_it_from_writing() {
    let at = folder("up-locked-out");
    let kept = precious(&at);
    keys(&at);
    // Of the same mesh and with a good ticket, so that nothing is wrong as far as this node can see.
    let mesh = fs::read_to_string(at.join("pool.key")).expect("it was made");
    let mesh = mesh.lines().find_map(|line| line.strip_prefix("mesh ")).expect("a pool key names its mesh");
    key(&at, &format!("gen pool --mesh {mesh} -o other.key"));
    let common = ["up", "--operator", "operator.pub", "--duty", "0.3"];
    let founder =
        ["--found", "--json-stream", "--pool", "pool.key", "--key", "a.key", "--ticket", "a.ticket"];
    let more = ["--socket", "a.sock", "--out", "a"];
    let mut founder = Node::start(plesio(&at, &[&common[..], &founder, &more].concat()));
    let join = founder.started("join");
    founder.wait("a member of one", |event, data| (event == "view" && data["seated"] == true).then_some(()));
    let line =
        ["--join", &join, "--key", "b.key", "--ticket", "b.ticket", "--socket", "b.sock", "--out", "kept"];
    let locked_out = [&common[..], &line, &["--pool", "other.key", "--seconds", "2"]].concat();
    let said = refused(&at, &locked_out, 4);
    assert!(said.contains("cannot join") && said.contains("--pool"), "{said}");
    founder.wait("word of a refusal", |event, data| {
        (event == "note" && data["text"].as_str()?.contains("refused")).then_some(())
    });
    // One that is told to end before it is let in is an interruption, and as little a member.
    let waiting = [&common[..], &line, &["--pool", "other.key", "--json-stream"]].concat();
    let mut waiting = Node::start(plesio(&at, &waiting));
    waiting.started("join");
    let (code, end) = waiting.interrupt();
    assert_eq!((code, &end["adapter"], &end["version"]), (Some(130), &Value::Null, &Value::Null), "{end}");
    assert!(end["cause"].as_str().is_some_and(|cause| cause.contains("interrupted")), "{end}");
    assert_eq!(fs::read(&kept).expect("still there"), b"precious");
    assert_eq!(fs::read_dir(at.join("kept/adapter")).expect("still there").count(), 1);
    assert!(founder.version() > 0);
    assert_eq!(founder.interrupt().1["adapter"], "a/adapter");
}

/// A second node with the same key threw the first out of the mesh, and neither said why.
#[test]
fn a_key_serves_one_process_and_the_next_node_is_told_how_to_come() {
    let at = folder("up-key");
    keys(&at);
    // What a killed node left goes when the next one starts.
    DirBuilder::new().recursive(true).mode(0o700).create(at.join("run/plesio")).expect("our own folder");
    drop(std::os::unix::net::UnixListener::bind(at.join("run/plesio/dead.sock")).expect("our own folder"));
    fs::write(
        at.join("a.toml"),
        "found = true\nplaintext = true\nkey = \"a.key\"\nout = \"a\"\nduty = 0.3\n",
    )
    .expect("our own folder");
    let mut founder = plesio(&at, &["up", "-c", "a.toml"]);
    let mut founder = founder
        .env("XDG_RUNTIME_DIR", at.join("run"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = BufReader::new(founder.stderr.take().expect("it was piped")).lines().map_while(Result::ok);
    let line = said.find_map(|line| Some(line.strip_prefix("another node ")?.trim().to_owned()));
    // To the end, so that it never waits for us.
    let reader = std::thread::spawn(move || said.filter(|line| line.contains("two processes")).count());
    let line = line.expect("it says how others come");
    assert!(!at.join("run/plesio/dead.sock").exists());

    let again = ["up", "--found", "--plaintext", "--key", "a.key", "--socket", "b.sock", "--out", "b"];
    let busy = refused(&at, &again, 2);
    assert!(busy.contains("key-busy") && busy.contains("another process"), "{busy}");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let more = ["--json-stream", "--socket", "b.sock", "--out", "b", "--duty", "0.3", "--key", "b.key"];
    let mut joiner = Node::start(plesio(&at, &[&words[..], &more].concat()));
    joiner.wait("a view with it", |event, data| (event == "view" && data["seated"] == true).then_some(()));
    // A copy of a key file cannot be held: whoever runs with it is named, at both ends.
    fs::copy(at.join("b.key"), at.join("copy.key")).expect("our own folder");
    let more = ["--json-stream", "--socket", "c.sock", "--out", "c", "--duty", "0.3", "--key", "copy.key"];
    let mut copy = Node::start(plesio(&at, &[&words[..], &more].concat()));
    let told =
        |event: &str, data: &Value| (event == "note" && data["text"].as_str()?.contains("key")).then_some(());
    copy.wait("word of the other", told);
    drop(copy);
    drop(joiner);
    kill(Pid::from_raw(founder.id() as i32), Signal::SIGINT).expect("it runs");
    assert_eq!(founder.wait().expect("it is our child").code(), Some(130));
    assert_eq!(reader.join().expect("it only reads"), 1, "the member says it once");
}

/// Two network namespaces with a cable between them; they go when this does.
struct Hosts([String; 2]);

impl Hosts {
    /// The hosts 10.78.0.1 and 10.78.0.2, whose cable carries 9,000 bytes, or why there are none.
    fn open() -> Result<Self, String> {
        let ip = |line: &str| {
            let output = Command::new("ip").args(line.split_whitespace()).output();
            let output = output.map_err(|error| format!("ip: {error}"))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(()) } else { Err(format!("ip {line}: {said}")) }
        };
        let hosts = Self(["a", "b"].map(|side| format!("plesio-up-{}{side}", std::process::id())));
        let [a, b] = &hosts.0;
        hosts.0.iter().try_for_each(|name| ip(&format!("netns add {name}")))?;
        ip(&format!("-n {a} link add cable type veth peer name cable netns {b}"))?;
        for (number, name) in hosts.0.iter().enumerate() {
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} address add 10.78.0.{}/24 dev cable", number + 1))?;
            ip(&format!("-n {name} link set cable mtu 9000 up"))?;
        }
        Ok(hosts)
    }

    fn plesio(&self, host: usize, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[host]]).arg(env!("CARGO_BIN_EXE_plesio"));
        clean(command, folder, arguments)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.0 {
            let _gone = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

#[test]
fn two_hosts_with_keys_and_tickets_adapt_one_model() {
    let hosts = match Hosts::open() {
        Ok(hosts) => hosts,
        Err(why) => {
            use std::io::Write;
            // To stderr itself: what a passing test prints is kept from the reader.
            let _unheard = writeln!(std::io::stderr(), "skipped: no two hosts here: {why}");
            return;
        }
    };
    let at = folder("up-hosts");
    keys(&at);
    let common = ["up", "--json-stream", "--duty", "0.3", "--pool", "pool.key", "--operator", "operator.pub"];
    let founder = [
        &common[..],
        &["--found", "--listen", "10.78.0.1:7000", "--key", "a.key", "--ticket", "a.ticket"],
        &["--socket", "a.sock", "--out", "a"],
    ];
    let mut founder = Node::start(hosts.plesio(0, &at, &founder.concat()));
    let join = founder.started("join");
    assert!(join.ends_with("@10.78.0.1:7000"), "{join}");
    let joiner = [
        &common[..],
        &["--join", &join, "--listen", "10.78.0.2:7000", "--key", "b.key", "--ticket", "b.ticket"],
        &["--socket", "b.sock", "--out", "b"],
    ];
    let mut joiner = Node::start(hosts.plesio(1, &at, &joiner.concat()));
    joiner.started("join");
    agree(&founder, &joiner);
    let status = || -> Value {
        serde_json::from_slice(&output(&at, &["status", "--socket", "a.sock", "--json"]).stdout)
            .expect("JSON")
    };
    wait("chunks as large as the cable carries", || status()["ways"][0]["chunk_bytes"] == 8_832);
    assert_eq!(status()["ways"][0]["congestion"], "rate-delay");
    assert_eq!(joiner.interrupt().0, Some(130));
    assert_eq!(founder.interrupt().0, Some(130));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let at = folder("up-refused");
    let write = |name: &str, text: &str| fs::write(at.join(name), text).expect("our own folder");
    assert!(refused(&at, &["up", "--plaintext"], 2).contains("--found"));
    write("wrong.toml", "found = true\nlisen = \"127.0.0.1:0\"\n");
    assert!(refused(&at, &["up", "-c", "wrong.toml"], 2).contains("did you mean \"listen\""));
    write("broken.toml", "found = \n");
    assert!(refused(&at, &["up", "-c", "broken.toml"], 2).contains("line 1"));
    assert!(refused(&at, &["up", "-c", "absent.toml"], 2).contains("absent.toml"));
    let away = ["up", "--found", "--plaintext", "--listen", "192.0.2.1:7000"];
    assert!(refused(&at, &away, 2).contains("captive"));
    write("public.key", "plesio-node-key 1\n");
    assert!(refused(&at, &["up", "--found", "--plaintext", "--key", "public.key"], 2).contains("key-mode"));
    assert!(refused(&at, &["up", "--found"], 2).contains("--ticket"));
    keys(&at);
    let sealed = |ticket: &str, more: &[&str]| {
        let files =
            ["up", "--key", "a.key", "--pool", "pool.key", "--operator", "operator.pub", "--ticket", ticket];
        refused(&at, &[&files[..], more].concat(), 2)
    };
    assert!(sealed("b.ticket", &["--found"]).contains("another node"));
    assert!(sealed("a.pub", &["--found"]).contains("plesio-ticket"));
    assert!(sealed("a.ticket", &["--join", "127.0.0.1:7000"]).contains("KEY@IP:PORT"));
    let own = output(&at, &["key", "pub", "a.key"]).stdout;
    let own = String::from_utf8(own).expect("text");
    let own = own.lines().find_map(|line| line.strip_prefix("x25519 ")).expect("its first key");
    assert!(sealed("a.ticket", &["--join", &format!("{own}@127.0.0.1:7000")]).contains("own key"));
    let public = refused(&at, &["up", "--found", "--plaintext", "--key", "a.pub"], 2);
    assert!(public.contains("plesio-node-public") && !public.contains("chmod"), "{public}");
    key(&at, "gen pool -o other.key");
    key(&at, "gen operator -o mallory.key");
    let forged =
        "ticket --operator mallory.key --pool pool.key --node a.pub --not-after-view 9 -o forged.ticket";
    key(&at, forged);
    assert!(sealed("forged.ticket", &["--found"]).contains("not signed by an operator"));
    let elsewhere =
        "ticket --operator operator.key --pool other.key --node a.pub --not-after-view 9 -o other.ticket";
    key(&at, elsewhere);
    assert!(sealed("other.ticket", &["--found"]).contains("mesh"));
    write("short.txt", "short");
    assert!(refused(&at, &["up", "--found", "--plaintext", "--data", "short.txt"], 2).contains("short.txt"));
    for device in [["--data", "/dev/zero"], ["--config", "/dev/zero"]] {
        assert!(
            refused(&at, &[&["up", "--found", "--plaintext"][..], &device].concat(), 2).contains("a device")
        );
    }
    let nowhere = ["up", "--found", "--plaintext", "--socket", "nowhere/node.sock"];
    assert!(refused(&at, &nowhere, 2).contains("nowhere") && !at.join("nowhere").exists());
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound").to_string();
    assert!(refused(&at, &["up", "--found", "--plaintext", "--listen", &address], 1).contains(&address));
    fs::create_dir(at.join("open")).expect("our own folder");
    let open = ["up", "--found", "--plaintext", "--socket", "open/node.sock"];
    fs::set_permissions(at.join("open"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    assert!(refused(&at, &open, 2).contains("0755"));
    assert!(refused(&at, &["status", "--socket", "absent.sock"], 4).contains("absent.sock"));
    // A socket that says nonsense is no node.
    let listener = std::os::unix::net::UnixListener::bind(at.join("liar.sock")).expect("our own folder");
    let liar = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("it asks");
        std::io::Write::write_all(&mut client, b"\x1b[2J{\"schema\":").expect("it reads");
    });
    let said = refused(&at, &["status", "--socket", "liar.sock"], 4);
    assert!(said.contains("no status") && !said.contains('\u{1b}'), "{said}");
    liar.join().expect("it spoke once");
}
