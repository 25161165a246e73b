//! A sealed mesh of `plesio up` whose three operators may halt it, any two together; on this host, or in a namespace of it.

use super::common::{Node, clean, folder, key, output, plesio, wait};
use plesio_session::{OperatorSecret, SignedOrder};
use plesio_wire::Bounded;
use plesio_wire::sideband::{
    DATAGRAM_BYTES_MAX, Header, INDEX_NONE, Message, Order, OrderKind, OrderSignature, encode,
};
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const OPERATORS: [&str; 3] = ["one", "two", "three"];

pub(crate) struct Mesh {
    pub(crate) at: PathBuf,
    pub(crate) id: u64,
    pub(crate) names: &'static [&'static str],
    pub(crate) nodes: Vec<Node>,
    /// The network namespace that the nodes are in, if it is another one.
    pub(crate) inside: Option<String>,
}

impl Mesh {
    /// Keys and tickets of nodes with these names.
    pub(crate) fn new(name: &str, names: &'static [&'static str]) -> Self {
        let at = folder(name);
        for operator in OPERATORS {
            key(&at, &format!("gen operator -o {operator}.key"));
            key(&at, &format!("pub {operator}.key -o {operator}.pub"));
        }
        key(&at, "gen pool -o pool.key");
        for name in names {
            key(&at, &format!("gen -o {name}.key"));
            key(&at, &format!("pub {name}.key -o {name}.pub"));
            let ticket = "ticket --operator one.key --pool pool.key --not-after-view 1000";
            key(&at, &format!("{ticket} --node {name}.pub -o {name}.ticket"));
        }
        let pool = fs::read_to_string(at.join("pool.key")).expect("it was made");
        let id = pool.lines().find_map(|line| line.strip_prefix("mesh ")).expect("a pool key names its mesh");
        let id = u64::from_str_radix(id, 16).expect("as key files write it");
        Self { at, id, names, nodes: Vec::new(), inside: None }
    }

    /// Founder first, the others by it.
    pub(crate) fn start(&mut self) {
        let mut join = String::new();
        for (number, name) in self.names.iter().enumerate() {
            let file = |kind: &str| format!("{name}.{kind}");
            let own = [file("key"), file("ticket"), file("sock")];
            let mut line =
                vec!["up", "--json-stream", "--duty", "0.05", "--path", "udp", "--pool", "pool.key"];
            line.extend(["--operator", "one.pub,two.pub,three.pub", "--threshold", "2", "--out", name]);
            line.extend(["--key", &own[0], "--ticket", &own[1], "--socket", &own[2]]);
            if number == 0 {
                line.push("--found");
            } else {
                line.extend(["--join", &join]);
            }
            let mut node = Node::start(self.plesio(&line));
            let reached = node.started("join");
            if number == 0 {
                join = reached;
            }
            self.nodes.push(node);
        }
    }

    /// The program, where the nodes are.
    pub(crate) fn plesio(&self, line: &[&str]) -> Command {
        let Some(name) = &self.inside else { return plesio(&self.at, line) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(env!("CARGO_BIN_EXE_plesio"));
        clean(command, &self.at, line)
    }

    /// Where the nodes listen: `sideband` or `data`.
    pub(crate) fn addresses(&self, plane: &str) -> Vec<SocketAddr> {
        let of = |event: &str, data: &Value| {
            (event == "start").then(|| data[plane].as_str()?.parse().ok()).flatten()
        };
        self.nodes.iter().map(|node| node.newest(of).expect("it has started")).collect()
    }

    /// Waits until all are members and hold the same bits for some versions of all of them.
    pub(crate) fn agree(&self) {
        wait("a view of all", || self.nodes.iter().all(|node| node.members() == self.names.len()));
        let before = self.nodes.iter().map(Node::version).max().expect("there are nodes");
        wait("versions of all", || self.nodes.iter().all(|node| node.version() > before + 4));
        let digests: Vec<_> = self.nodes.iter().map(Node::digests).collect();
        let shared = digests[0].keys().filter(|version| digests.iter().all(|one| one.contains_key(version)));
        let shared: Vec<_> = shared.collect();
        assert!(shared.len() >= 4, "{shared:?}");
        for version in shared {
            assert!(digests.iter().all(|one| one[version] == digests[0][version]), "version {version}");
        }
    }

    pub(crate) fn status(&self, name: &str) -> Value {
        let asked = output(&self.at, &["status", "--socket", &format!("{name}.sock"), "--json"]);
        serde_json::from_slice(&asked.stdout).expect("one document")
    }

    pub(crate) fn statuses(&self, field: &str) -> Vec<Value> {
        self.names.iter().map(|name| self.status(name)[field].clone()).collect()
    }

    pub(crate) fn order(&self, kind: OrderKind, sequence: u64, signers: &[&str]) -> Order {
        let mut keys: Vec<[u8; 32]> = OPERATORS.iter().map(|name| secret(&self.at, name).public()).collect();
        keys.sort_unstable();
        let sign = |name: &&str| {
            let signed = SignedOrder::sign(&secret(&self.at, name), self.id, kind, sequence);
            let signer = keys.iter().position(|key| *key == signed.operator).expect("it is listed") as u8;
            OrderSignature { signer, signature: signed.signature }
        };
        let mut signatures: Vec<_> = signers.iter().map(sign).collect();
        signatures.sort_by_key(|one| one.signer);
        Order { sequence, signatures: Bounded::from_slice(&signatures), ..Order::default() }
    }

    /// Somebody says it to every node, some times.
    pub(crate) fn say(&self, message: &Message) {
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let header = Header { mesh: self.id, src: INDEX_NONE, dst: INDEX_NONE, ..Header::default() };
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let datagram = encode(&header, message, &mut buffer);
        for to in self.addresses("sideband") {
            for _ in 0..3 {
                stranger.send_to(datagram, to).expect("loopback takes it");
            }
        }
    }
}

fn secret(at: &Path, name: &str) -> OperatorSecret {
    let text = fs::read_to_string(at.join(format!("{name}.key"))).expect("it was made");
    OperatorSecret::from_text(&text).expect("a key file")
}
