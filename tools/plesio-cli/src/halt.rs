//! `plesio halt | resume`: signs an order of the operators, or puts together what they signed, sends it to nodes, and says
//! which of them have it on disk.
//!
//! ```text
//!   keys, signed files --> enough signatures? --> sequence: given, or one above what the nodes prove --> send, wait
//! ```
//!
//! What a node says of sequences is believed only as an order that the operators signed; an acknowledgement is a word of
//! whoever saw the request, and changes nothing but what is printed.

mod wire;

use crate::args::HaltArgs;
use crate::failure::{Exit, Failure};
use crate::hex::hex;
use crate::keyfile::{self, Kind};
use crate::up::file;
use crate::up::settings::{operators, read_operators};
use crate::{random, stdout};
use plesio::Operators;
use plesio_session::{OperatorSecret, PoolKey, SignedOrder};
use plesio_wire::Bounded;
use plesio_wire::sideband::{Order, OrderKind, OrderSignature};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use wire::{Asked, Line};

pub(crate) fn run(kind: OrderKind, args: &HaltArgs) -> Result<Exit, Failure> {
    let secrets = args
        .operator_key
        .iter()
        .map(|path| keyfile::read(path, Kind::Secret, OperatorSecret::from_text))
        .collect::<Result<Vec<_>, _>>()?;
    let signed = args.signed.iter().map(|path| read_signed(path, kind)).collect::<Result<Vec<_>, _>>()?;
    let said = match &args.config {
        Some(path) => crate::up::settings::read_file(path)?,
        None => file::Settings::default(),
    };
    if let Some(sequence) = args.sequence.filter(|sequence| u64::from(*sequence) >= plesio::SEQUENCE_MAX) {
        return Err(Failure::usage(
            "sequence",
            format!("cannot give an order of sequence {sequence}"),
            "it is the last there is: no RESUME could lift a HALT, and no HALT follow a RESUME",
        )
        .fix("leave --sequence out, or take one above that of the last order (plesio status says it)"));
    }
    let mesh = mesh(args, &said, &signed)?;
    if let Some(path) = &args.sign {
        return sign(path, &secrets, mesh, kind, args).map(|()| Exit::Ok);
    }
    let listed = if args.operator.is_empty() { &said.operator } else { &args.operator };
    let operators = operators(&read_operators(listed)?, args.threshold.or(said.threshold))?;
    let desk = Desk { mesh, kind, operators, secrets, signed };
    desk.check()?;
    let to = addresses(args, &said)?;
    let mut line = Line::open(&to, mesh)?;
    let sequence = desk.sequence(args, &mut line)?;
    let order = desk.order(kind, sequence);
    let asked = line.send(&desk, kind, &order, Duration::from_secs(args.seconds.into()))?;
    tell(args, &desk, sequence, &asked)
}

/// What signs and what was signed.
pub(crate) struct Desk {
    mesh: u64,
    kind: OrderKind,
    operators: Operators,
    secrets: Vec<OperatorSecret>,
    signed: Vec<SignedOrder>,
}

impl Desk {
    /// Whether there are enough different signers, all of them listed.
    fn check(&self) -> Result<(), Failure> {
        let own = self.secrets.iter().map(OperatorSecret::public);
        let mut keys: Vec<[u8; 32]> = own.chain(self.signed.iter().map(|signed| signed.operator)).collect();
        keys.sort_unstable();
        keys.dedup();
        let refuse =
            |cause: String, fix: &str| Err(Failure::usage("signers", "cannot give an order", cause).fix(fix));
        if let Some(key) = keys.iter().find(|key| self.operators.index_of(key).is_none()) {
            return refuse(
                format!("the operator {} is not one of those that are listed", hex(&key[..8])),
                "name all operators of the mesh with --operator, as its nodes do",
            );
        }
        let (found, needed) = (keys.len(), self.operators.threshold());
        if found < needed {
            return refuse(
                format!("{needed} operators have to sign, and {found} did"),
                "give more of --operator-key, or of --signed with what the others signed with --sign",
            );
        }
        Ok(())
    }

    /// An order with as many signatures as it takes.
    fn order(&self, kind: OrderKind, sequence: u64) -> Order {
        let own = self.secrets.iter().map(|secret| SignedOrder::sign(secret, self.mesh, kind, sequence));
        let whole = self.signed.iter().copied().filter(|signed| signed.order.sequence == sequence);
        let signature = |signed: SignedOrder| {
            let signer = self.operators.index_of(&signed.operator)?;
            Some(OrderSignature { signer, signature: signed.signature })
        };
        let mut signatures: Vec<_> = own.chain(whole).filter_map(signature).collect();
        signatures.sort_by_key(|one| one.signer);
        signatures.dedup_by_key(|one| one.signer);
        signatures.truncate(self.operators.threshold());
        Order { sequence, signatures: Bounded::from_slice(&signatures), ..Order::default() }
    }

    /// The sequence that was said or signed, or one above the highest that the nodes show.
    fn sequence(&self, args: &HaltArgs, line: &mut Line) -> Result<u64, Failure> {
        let said = args.sequence.map(u64::from);
        if let Some(first) = self.signed.first().map(|signed| signed.order.sequence) {
            let others = self.signed.iter().map(|signed| signed.order.sequence).chain(said);
            return match others.into_iter().find(|other| *other != first) {
                None => Ok(first),
                Some(other) => Err(Failure::usage(
                    "signers",
                    "cannot give an order",
                    format!("one signature is of sequence {first} and another of {other}"),
                )
                .fix("let all operators sign the same --sequence")),
            };
        }
        if let Some(said) = said {
            return Ok(said);
        }
        // Nothing is below the first order, so this one is obeyed by nobody; it only shows who asks.
        let question = self.order(OrderKind::Halt, 0);
        let highest = line.highest(self, &question)?;
        // The last one is kept for a HALT: there is one as long as a mesh works.
        let last = plesio::SEQUENCE_MAX - u64::from(self.kind == OrderKind::Resume);
        if highest >= last {
            return Err(Failure::run("sequence", "cannot give an order", "no sequence is left")
                .fix("begin a mesh with another id (plesio key gen pool)"));
        }
        Ok(highest + 1)
    }

    /// Whether the operators signed it.
    pub(crate) fn is_genuine(&self, kind: OrderKind, order: &Order) -> bool {
        self.operators.have_signed(plesio_session::verify_signature, self.mesh, kind, order)
    }
}

fn read_signed(path: &Path, kind: OrderKind) -> Result<SignedOrder, Failure> {
    let signed = keyfile::read(path, Kind::Public, SignedOrder::from_text)?;
    if signed.kind != kind {
        return Err(keyfile::damaged(path, "it is signed for the other of halt and resume"));
    }
    if (signed.order.scope, signed.order.action) != (0, 0) || !signed.verify() {
        return Err(keyfile::damaged(path, "its signature does not fit what it says"));
    }
    Ok(signed)
}

/// Which mesh: as said, as signed, or as the file's pool key has it.
fn mesh(args: &HaltArgs, said: &file::Settings, signed: &[SignedOrder]) -> Result<u64, Failure> {
    let pool = args.pool.as_ref().or(said.pool.as_ref());
    let first = signed.first().map(|signed| signed.mesh);
    let mesh = match (args.mesh, pool, first) {
        (Some(mesh), _, _) => mesh,
        (None, Some(pool), _) => keyfile::read(pool, Kind::Secret, PoolKey::from_text)?.mesh,
        (None, None, Some(mesh)) => mesh,
        (None, None, None) if said.plaintext => crate::up::settings::MESH,
        (None, None, None) => {
            return Err(Failure::usage("usage", "cannot tell which mesh it is for", "no mesh was named")
                .fix("give --mesh HEX (plesio status says it), --pool FILE, or -c plesio.toml"));
        }
    };
    match signed.iter().find(|signed| signed.mesh != mesh) {
        None => Ok(mesh),
        Some(other) => Err(Failure::usage(
            "signers",
            "cannot give an order",
            format!("one signature is for the mesh {:016x}, and this is {mesh:016x}", other.mesh),
        )
        .fix("let all operators sign for the same mesh")),
    }
}

fn sign(
    path: &Path,
    secrets: &[OperatorSecret],
    mesh: u64,
    kind: OrderKind,
    args: &HaltArgs,
) -> Result<(), Failure> {
    let ([secret], Some(sequence)) = (secrets, args.sequence) else {
        return Err(Failure::usage("usage", "cannot sign", format!("{} keys were given", secrets.len()))
            .fix("give one --operator-key: a file holds one signature"));
    };
    let signed = SignedOrder::sign(secret, mesh, kind, sequence.into());
    let text = signed.to_text();
    match (keyfile::is_stdout(path), args.json) {
        (true, true) => {}
        (true, false) => stdout::text(&text),
        (false, _) => keyfile::write_new(path, Kind::Public, &text)?,
    }
    if args.json {
        stdout::document(&json!({
            "schema": schema(kind),
            "config": args,
            "mesh": format!("{mesh:016x}"),
            "sequence": sequence,
            "operator": hex(&signed.operator),
            "signature": hex(&signed.signature),
        }));
    }
    Ok(())
}

/// The addresses on the line, or those that the file names.
fn addresses(args: &HaltArgs, said: &file::Settings) -> Result<Vec<SocketAddr>, Failure> {
    let mut to: Vec<SocketAddr> = args.to.iter().map(|seed| seed.sideband).collect();
    if to.is_empty() {
        to.extend(said.listen.filter(|listen| listen.port() != 0));
        to.extend(crate::up::settings::joined_by_file(said)?.iter().map(|seed| seed.sideband));
    }
    to.sort_unstable();
    to.dedup();
    if to.is_empty() {
        return Err(Failure::usage("usage", "cannot send the order", "no address of a node is known")
            .fix("give --to IP:PORT, the sideband address that a node says at its start"));
    }
    Ok(to)
}

const fn schema(kind: OrderKind) -> &'static str {
    match kind {
        OrderKind::Halt => "plesio.halt/1",
        OrderKind::Resume => "plesio.resume/1",
    }
}

fn tell(args: &HaltArgs, desk: &Desk, sequence: u64, asked: &[Asked]) -> Result<Exit, Failure> {
    let silent: Vec<String> =
        asked.iter().filter(|one| one.node.is_none()).map(|one| one.address.to_string()).collect();
    let kind = desk.kind;
    if args.json {
        let node = |one: &Asked| -> Value {
            json!({
                "address": one.address.to_string(),
                "node": one.node.map(|id| hex(&id.0)),
                "acknowledged": one.node.is_some(),
                "wait_ns": one.node.map(|_| one.wait.as_nanos() as u64),
            })
        };
        stdout::document(&json!({
            "schema": schema(kind),
            "config": args,
            "mesh": format!("{:016x}", desk.mesh),
            "sequence": sequence,
            "threshold": desk.operators.threshold(),
            "acknowledged": asked.len() - silent.len(),
            "nodes": asked.iter().map(node).collect::<Vec<_>>(),
        }));
    } else {
        let name = if kind == OrderKind::Halt { "HALT" } else { "RESUME" };
        let mut text = format!("{name} {sequence} of the mesh {:016x}\n", desk.mesh);
        for one in asked {
            let said = match one.node {
                Some(id) => format!("on disk at {}, {:.1} ms", hex(&id.0[..8]), one.wait.as_secs_f64() * 1e3),
                None => "no acknowledgement".into(),
            };
            text.push_str(&format!("  {:<24} {said}\n", one.address.to_string()));
        }
        stdout::text(&text);
    }
    if silent.is_empty() {
        return Ok(Exit::Ok);
    }
    let acknowledged = asked.len() - silent.len();
    let cause = match acknowledged {
        0 => format!("no answer within {} s from {}", args.seconds, silent.join(", ")),
        _ => format!(
            "{acknowledged} acknowledged, and every node that hears of it tells the others; no answer from {}",
            silent.join(", ")
        ),
    };
    let failure = Failure::run("order", "not every node acknowledged the order", cause)
        .fix("see plesio status there: mesh, operators and threshold have to be the same, and its disk has to take it");
    Err(Failure { exit: Exit::Unreachable, ..failure })
}

/// A token that whoever did not see the request cannot know.
pub(crate) fn token() -> Result<u32, Failure> {
    random::number().map(|number| number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_session::{Entropy, Secret};

    fn desk(own: usize, signed: &[u64]) -> Desk {
        let mut entropy = Entropy::new(&Secret::new([9; 32]));
        let secrets: Vec<_> = (0..3).map(|_| OperatorSecret::generate(&mut entropy)).collect();
        let keys: Vec<[u8; 32]> = secrets.iter().map(OperatorSecret::public).collect();
        let signed = signed.iter().zip(secrets.iter().rev());
        let signed =
            signed.map(|(sequence, secret)| SignedOrder::sign(secret, 5, OrderKind::Halt, *sequence));
        let signed = signed.collect();
        let operators = Operators::new(&keys, 2).expect("two of three");
        Desk { mesh: 5, kind: OrderKind::Halt, operators, secrets: secrets[..own].to_vec(), signed }
    }

    #[test]
    fn signatures_come_together_from_keys_and_files() {
        for (own, signed) in [(2, &[][..]), (1, &[7][..]), (0, &[7, 7][..]), (3, &[7, 7][..])] {
            let desk = desk(own, signed);
            desk.check().expect("two signers");
            let order = desk.order(OrderKind::Halt, 7);
            assert_eq!(order.signatures.len(), 2, "as many as it takes: {own} {signed:?}");
            assert!(desk.is_genuine(OrderKind::Halt, &order));
            assert!(!desk.is_genuine(OrderKind::Resume, &order));
        }
        assert_eq!(desk(1, &[]).check().expect_err("one signer").code, "signers");
        // The same operator by key and by file is one signer.
        let mut twice = desk(3, &[7]);
        twice.secrets.drain(..2);
        assert_eq!(twice.check().expect_err("one signer").code, "signers");
        let mut stranger = desk(2, &[]);
        stranger.operators = Operators::new(&[[1; 32], [2; 32]], 2).expect("two");
        assert!(stranger.check().expect_err("not listed").cause.contains("listed"));
    }
}
