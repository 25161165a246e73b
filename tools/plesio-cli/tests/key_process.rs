//! `plesio key` as a process: what it writes, who may read it, and what it refuses.

use plesio_session::{NodePublic, NodeSecret, OperatorPublic, PoolKey, Ticket, TicketError};
use plesio_wire::handshake::Role;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

/// Runs the command in `folder`; every word is an argument.
fn key(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.arg("key").args(line.split_whitespace()).stdin(Stdio::null()).current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command.output().expect("the program runs")
}

fn done(folder: &Path, line: &str) -> String {
    let output = key(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What a refusal says: it ends with `code` and names one fix.
fn refused(folder: &Path, line: &str, code: i32) -> String {
    let output = key(folder, line);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{line}: {said}");
    assert!(output.stdout.is_empty(), "{line}");
    assert!(said.contains("cause: ") && said.contains("fix:   "), "{line}: {said}");
    said
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn keys_and_a_ticket_are_made_and_admit_that_node_alone() {
    let at = folder("key-made");
    assert_eq!(done(&at, "gen operator -o operator.key"), "", "no secret on stdout");
    assert_eq!(done(&at, "gen pool -o pool.key --mesh 2f"), "");
    assert_eq!(done(&at, "gen -o a.key"), "");
    for name in ["operator.key", "pool.key", "a.key"] {
        let mode = fs::metadata(at.join(name)).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    done(&at, "pub a.key -o a.pub");
    let node = NodeSecret::from_text(&text(at.join("a.key"))).expect("a node's key").public();
    assert_eq!(NodePublic::from_text(&text(at.join("a.pub"))), Ok(node));
    assert_eq!(PoolKey::from_text(&text(at.join("pool.key"))).expect("a pool's key").mesh, 0x2F);
    assert_eq!(done(&at, "pub pool.key"), "mesh 000000000000002f\n");
    let operator = OperatorPublic::from_text(&done(&at, "pub operator.key")).expect("an operator's key");

    let line = "ticket --operator operator.key --pool pool.key --node a.pub --not-after-view 9";
    let ticket = Ticket::from_text(&done(&at, line)).expect("a ticket");
    assert_eq!((ticket.mesh, ticket.node, ticket.role), (0x2F, node, Role::Member));
    assert_eq!(ticket.verify(&[operator.0], 9), Ok(()));
    assert!(matches!(ticket.verify(&[operator.0], 10), Err(TicketError::Expire { .. })));
    assert_eq!(ticket.verify(&[node.ed25519], 0), Err(TicketError::Signature));
    // Where the pool key is not at hand, the mesh's id does; the file is the same as what is printed.
    let line = "ticket --operator operator.key --mesh 2f --node a.pub --not-after-view 9 -o a.ticket";
    assert_eq!(done(&at, line), "");
    assert_eq!(Ticket::from_text(&text(at.join("a.ticket"))), Ok(ticket));
    let line = "ticket --operator operator.key --mesh 2f --node a.pub --not-after-view 9 --role observer";
    assert_eq!(Ticket::from_text(&done(&at, line)).expect("a ticket").role, Role::Observer);
}

#[test]
fn no_key_file_is_overwritten_and_secrets_are_shown_only_when_asked_for() {
    let at = folder("key-kept");
    done(&at, "gen -o a.key");
    let before = text(at.join("a.key"));
    let said = refused(&at, "gen -o a.key", 2);
    assert!(said.contains("key-exists") && said.contains("a.key"), "{said}");
    assert!(refused(&at, "pub a.key -o a.key", 2).contains("key-exists"));
    assert_eq!(text(at.join("a.key")), before);
    // A link that leads nowhere is a name that is taken.
    std::os::unix::fs::symlink("elsewhere", at.join("link")).expect("links are allowed here");
    assert!(refused(&at, "gen -o link", 2).contains("key-exists"));
    assert!(!at.join("elsewhere").exists());

    let shown = NodeSecret::from_text(&done(&at, "gen -o -")).expect("a secret on stdout");
    assert_ne!(shown.public(), NodeSecret::from_text(&before).expect("a key").public());
    refused(&at, "gen -o - --json", 2);
    let document: Value = serde_json::from_str(&done(&at, "gen operator -o b.key --json")).expect("JSON");
    assert_eq!(document["schema"], "plesio.key/1");
    let listed = OperatorPublic::from_text(&done(&at, "pub b.key")).expect("an operator's key");
    let digits: String = listed.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(document["public"]["ed25519"], digits);
    let secret =
        text(at.join("b.key")).lines().nth(1).and_then(|line| line.split(' ').nth(1)).map(str::to_owned);
    assert!(!document.to_string().contains(&secret.expect("a secret is in it")));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let at = folder("key-mode");
    done(&at, "gen -o a.key");
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(at.join("a.key"), fs::Permissions::from_mode(mode)).expect("it is ours");
        let said = refused(&at, "pub a.key", 2);
        assert!(said.contains("key-mode") && said.contains("chmod 600 a.key"), "{mode:o}: {said}");
    }
    fs::set_permissions(at.join("a.key"), fs::Permissions::from_mode(0o400)).expect("it is ours");
    done(&at, "pub a.key");
}

#[test]
fn what_is_not_a_key_is_named() {
    let at = folder("key-wrong");
    done(&at, "gen -o a.key");
    done(&at, "gen operator -o operator.key");
    done(&at, "gen pool -o pool.key");
    done(&at, "pub a.key -o a.pub");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(at.join(name), bytes).expect("the folder is writable");
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
    };
    write("short.key", text(at.join("a.key")).lines().take(2).collect::<Vec<_>>().join("\n").as_bytes());
    assert!(refused(&at, "pub short.key", 2).contains("line ed25519"));
    write("noise.key", &[0xFF; 64]);
    assert!(refused(&at, "pub noise.key", 2).contains("not text"));
    write("long.key", &vec![b'x'; 1 << 20]);
    assert!(refused(&at, "pub long.key", 2).contains("longer than"));
    write("empty.key", b"");
    assert!(refused(&at, "pub empty.key", 2).contains("names no secret key"));
    assert!(refused(&at, "pub absent.key", 2).contains("absent.key"));
    assert!(refused(&at, "pub .", 2).contains("regular file"));
    nix::unistd::mkfifo(&at.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("the folder is writable");
    assert!(refused(&at, "pub pipe", 2).contains("regular file"));
    assert!(refused(&at, "gen -o absent/b.key", 2).contains("absent/b.key"));

    let ticket = |operator: &str, pool: &str, node: &str| {
        let line = format!("ticket --operator {operator} --pool {pool} --node {node} --not-after-view 1");
        refused(&at, &line, 2)
    };
    assert!(ticket("a.key", "pool.key", "a.pub").contains("plesio-operator-key"));
    assert!(ticket("operator.key", "operator.key", "a.pub").contains("plesio-pool-key"));
    assert!(ticket("operator.key", "pool.key", "a.key").contains("plesio-node-public"));
    assert!(refused(&at, "gen --mesh 1 -o b.key", 2).contains("--mesh"));
    // The command line's own refusals have its own form.
    assert_eq!(key(&at, "gen pool --mesh 0x1 -o b.key").status.code(), Some(2));
    assert_eq!(
        key(&at, "ticket --operator operator.key --node a.pub --not-after-view 1").status.code(),
        Some(2)
    );
    assert!(!at.join("b.key").exists());
}
