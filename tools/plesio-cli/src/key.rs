//! `plesio key gen | pub | ticket`: keys of nodes, pools and operators, and tickets.
//!
//! A secret goes from the system's randomness into a new file and is never shown, unless the file is `-`.

use crate::args::{GenArgs, KeyArgs, KeyCommand, KeyKind, PubArgs, TicketArgs};
use crate::failure::{Exit, Failure};
use crate::hex::hex;
use crate::keyfile::{self, Kind};
use crate::{random, stdout};
use plesio_session::{
    NodePublic, NodeSecret, OperatorPublic, OperatorSecret, PoolKey, SecretText, TextError, Ticket,
};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

const SCHEMA: &str = "plesio.key/1";

pub(crate) fn run(args: &KeyArgs) -> Result<Exit, Failure> {
    match &args.command {
        KeyCommand::Gen(args) => generate(args),
        KeyCommand::Pub(args) => print_public(args),
        KeyCommand::Ticket(args) => sign_ticket(args),
    }
    .map(|()| Exit::Ok)
}

/// A secret key of any kind.
enum Key {
    Node(NodeSecret),
    Pool(PoolKey),
    Operator(OperatorSecret),
}

impl Key {
    fn generate(kind: KeyKind, mesh: Option<u64>) -> Result<Self, Failure> {
        let mut entropy = random::entropy()?;
        Ok(match kind {
            KeyKind::Node => Self::Node(NodeSecret::generate(&mut entropy)),
            KeyKind::Operator => Self::Operator(OperatorSecret::generate(&mut entropy)),
            KeyKind::Pool => {
                let mesh = mesh.map_or_else(random::number, Ok)?;
                Self::Pool(PoolKey::generate(mesh, &mut entropy))
            }
        })
    }

    /// Whatever kind the text says it is.
    fn from_text(text: &str) -> Result<Self, String> {
        let node = NodeSecret::from_text(text).map(Self::Node);
        let pool = || PoolKey::from_text(text).map(Self::Pool);
        let operator = || OperatorSecret::from_text(text).map(Self::Operator);
        let another = |error: &TextError| matches!(error, TextError::Kind { .. });
        match node {
            Err(error) if another(&error) => match pool() {
                Err(error) if another(&error) => operator(),
                read => read,
            },
            read => read,
        }
        .map_err(|error| {
            if another(&error) { "its first line names no secret key".into() } else { error.to_string() }
        })
    }

    fn secret_text(&self) -> SecretText {
        match self {
            Self::Node(key) => key.to_text(),
            Self::Pool(key) => key.to_text(),
            Self::Operator(key) => key.to_text(),
        }
    }

    /// What others may know: a whole file for a node and an operator, the mesh's id for a pool.
    fn public_text(&self) -> String {
        match self {
            Self::Node(key) => key.public().to_text(),
            Self::Pool(key) => format!("mesh {:016x}\n", key.mesh),
            Self::Operator(key) => OperatorPublic(key.public()).to_text(),
        }
    }

    fn public_value(&self) -> Value {
        match self {
            Self::Node(key) => {
                let NodePublic { x25519, ed25519 } = key.public();
                json!({ "kind": "node", "x25519": hex(&x25519), "ed25519": hex(&ed25519) })
            }
            Self::Pool(key) => json!({ "kind": "pool", "mesh": mesh_text(key.mesh) }),
            Self::Operator(key) => json!({ "kind": "operator", "ed25519": hex(&key.public()) }),
        }
    }
}

fn generate(args: &GenArgs) -> Result<(), Failure> {
    if args.mesh.is_some() && args.kind != KeyKind::Pool {
        return Err(Failure::usage("usage", "cannot use --mesh", "only a pool key belongs to one mesh")
            .fix("leave --mesh out, or make a pool key: plesio key gen pool"));
    }
    let to_stdout = keyfile::is_stdout(&args.out);
    if to_stdout && args.json.json {
        return Err(Failure::usage("usage", "cannot print --json", "-o - prints the secret on stdout")
            .fix("give -o a file"));
    }
    let key = Key::generate(args.kind, args.mesh)?;
    let text = key.secret_text();
    if to_stdout {
        stdout::text(text.expose());
        return Ok(());
    }
    keyfile::write_new(&args.out, Kind::Secret, text.expose())?;
    if args.json.json {
        let file = args.out.display().to_string();
        let public = key.public_value();
        stdout::document(
            &json!({ "schema": SCHEMA, "command": "gen", "config": args, "file": file, "public": public }),
        );
    } else {
        let file = args.out.display();
        say(&format!("{file}: secret, mode 0600; `plesio key pub {file}` prints what others may know"));
    }
    Ok(())
}

fn print_public(args: &PubArgs) -> Result<(), Failure> {
    let text = keyfile::text(&args.key, Kind::Secret)?;
    let key = Key::from_text(&text).map_err(|cause| keyfile::damaged(&args.key, cause))?;
    put(&args.out, args.json.json, &key.public_text())?;
    if args.json.json {
        let public = key.public_value();
        stdout::document(&json!({ "schema": SCHEMA, "command": "pub", "config": args, "public": public }));
    }
    Ok(())
}

fn sign_ticket(args: &TicketArgs) -> Result<(), Failure> {
    let node = keyfile::read(&args.node, Kind::Public, NodePublic::from_text)?;
    let mesh = match (args.mesh, &args.pool) {
        (Some(mesh), _) => mesh,
        (None, Some(pool)) => keyfile::read(pool, Kind::Secret, PoolKey::from_text)?.mesh,
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    let operator = keyfile::read(&args.operator, Kind::Secret, OperatorSecret::from_text)?;
    let ticket = Ticket::sign(&operator, mesh, node, args.role.into(), args.not_after_view);
    put(&args.out, args.json.json, &ticket.to_text())?;
    if args.json.json {
        let what = json!({
            "mesh": mesh_text(mesh),
            "x25519": hex(&node.x25519),
            "ed25519": hex(&node.ed25519),
            "role": args.role,
            "not_after_view": args.not_after_view,
            "signature": hex(&ticket.signature),
        });
        stdout::document(&json!({ "schema": SCHEMA, "command": "ticket", "config": args, "ticket": what }));
    }
    Ok(())
}

/// A public text where it was asked for; a document takes its place on stdout.
fn put(out: &Path, json: bool, text: &str) -> Result<(), Failure> {
    match keyfile::is_stdout(out) {
        true if json => Ok(()),
        true => {
            stdout::text(text);
            Ok(())
        }
        false => keyfile::write_new(out, Kind::Public, text),
    }
}

/// A line for a person.
fn say(line: &str) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}

/// A mesh's id as key files write it.
fn mesh_text(mesh: u64) -> String {
    format!("{mesh:016x}")
}
