//! What a node is told, from flags, environment, file and defaults, in this order; and what does not go together.

use super::{file, input};
use crate::args::{
    BackendArg, CodecArg, DataPathArg, RulesArgs, Seed, SharesArg, TrustArg, UpArgs, data_beside, parse_seed,
    refused, said,
};
use crate::bench::Wait;
use crate::demo::child::requested;
use crate::failure::Failure;
use crate::keyfile::{self, Kind};
use crate::random;
use plesio::DeviceChoice;
use plesio::{HaltConfig, Identity, Operators, Period, Protection, Rules, StateConfig, Steering, Trust};
use plesio_session::{NodePublic, NodeSecret, OPERATORS_MAX, OperatorPublic, PoolKey, Ticket};
use plesio_udp::{Requested, WaitMode};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that `plesio up` goes by.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Members to join by; none: this node begins the mesh.
    pub(super) join: Vec<Seed>,
    pub(super) public: NodePublic,
    pub(super) protection: Protection,
    pub(super) trust: Trust,
    pub(super) listen: SocketAddr,
    pub(super) listen_data: SocketAddr,
    pub(super) backend: Requested,
    pub(super) device: DeviceChoice,
    pub(super) kernels: Option<PathBuf>,
    pub(super) wait: WaitMode,
    pub(super) path: DataPathArg,
    pub(super) codec: CodecArg,
    pub(super) shares: SharesArg,
    pub(super) rules: Rules,
    /// As a command line says them.
    pub(super) said_rules: RulesArgs,
    pub(super) ring_depth: u8,
    pub(super) steering: Steering,
    pub(super) data: Option<PathBuf>,
    pub(super) duty: f64,
    pub(super) period: Period,
    pub(super) seconds: Option<u32>,
    /// Order of the data.
    pub(super) seed: u64,
    pub(super) out: PathBuf,
    pub(super) socket: Option<PathBuf>,
    /// Where it keeps what outlives it.
    pub(super) state: Option<StateConfig>,
    pub(super) trace: Option<PathBuf>,
    /// Whose HALT and RESUME count; none in plaintext without operators.
    pub(super) halt: Option<HaltConfig>,
    /// As it was said; others need the same.
    threshold: Option<u8>,
    /// As files; others need the same.
    pool: Option<PathBuf>,
    operator: Vec<PathBuf>,
    /// Held as long as this node runs: no other of this machine takes the same key file.
    _hold: Option<Arc<keyfile::Hold>>,
}

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Settings {
    /// Puts together what was said, and reads the keys.
    pub(super) fn gather(args: &UpArgs) -> Result<Self, Failure> {
        let said = match &args.config {
            Some(path) => read_file(path)?,
            None => file::Settings::default(),
        };
        let join = joined(args, &said)?;
        if join.is_empty() && !args.found && !said.found {
            return Err(Failure::usage(
                "usage",
                "cannot tell which mesh this node belongs to",
                "neither --join nor --found was given",
            )
            .fix("give --join KEY@ADDR to join a mesh, or --found to begin one"));
        }
        let plaintext = args.plaintext || said.plaintext;
        let listen = args.listen.or(said.listen).unwrap_or(LISTEN);
        let listen_data = args.listen_data.or(said.listen_data).unwrap_or_else(|| data_beside(listen));
        let captive = args.trust.or(said.trust) == Some(TrustArg::Captive);
        refuse_wildcards([listen, listen_data])?;
        let said_state = (said.state.clone(), said.checkpoint_s);
        let said_rules = args.rules.or(said.rules());
        let rules = said_rules.rules()?;
        let ring_depth = ring_depth(args.ring_depth.or(said.ring_depth).unwrap_or(RING_DEPTH))?;
        let steering = steering(args.lo.or(said.lo), args.hi.or(said.hi), args.dwell.or(said.dwell))?;
        let key = args.key.clone().or(said.key);
        let _hold = key.as_deref().map(keyfile::hold).transpose()?.map(Arc::new);
        let pool = args.pool.clone().or(said.pool);
        let operator = if args.operator.is_empty() { said.operator } else { args.operator.clone() };
        let mut operators = Vec::new();
        let (threshold, record) =
            (args.threshold.or(said.threshold), args.halt_record.clone().or(said.halt_record));
        let record = record.or_else(|| key.as_ref().map(|key| beside(key)));
        let state = state(args, &said_state, key.is_some())?;
        let (public, protection) = if plaintext {
            check_plaintext(captive, [listen, listen_data], &join)?;
            operators = read_operators(&operator)?;
            let secret = match key {
                Some(path) => keyfile::read(&path, Kind::Secret, NodeSecret::from_text)?,
                None => NodeSecret::generate(&mut random::entropy()?),
            };
            (secret.public(), Protection::Plaintext)
        } else {
            let files = Files {
                key,
                ticket: args.ticket.clone().or(said.ticket),
                pool: pool.clone(),
                operator: operator.clone(),
            };
            let identity = files.read()?;
            operators.clone_from(&identity.operators);
            if let Some(seed) = join.iter().find(|seed| seed.key.is_none()) {
                return Err(Failure::usage(
                    "usage",
                    format!("cannot join by {seed}"),
                    "a handshake is sealed for the member's key, and none stands before its address",
                )
                .fix("write KEY@IP:PORT, as that member says at its start"));
            }
            (identity.node.public(), Protection::Sealed(Box::new(identity)))
        };
        if let Some(seed) = join.iter().find(|seed| seed.key == Some(public.x25519)) {
            return Err(Failure::usage(
                "usage",
                format!("cannot join by {seed}"),
                "that is this node's own key: a mesh takes two nodes with one key for the same",
            )
            .fix("make this node a key and a ticket of its own (plesio key gen), or name another member"));
        }
        let [low, ..] = public.x25519;
        let halt = halt(&operators, threshold, record)?;
        Ok(Self {
            join,
            public,
            protection,
            trust: if captive { Trust::Captive } else { Trust::Open },
            listen,
            listen_data,
            backend: requested(args.backend.or(said.backend).unwrap_or(BackendArg::Auto)),
            device: args.device.or(said.device).unwrap_or_default().0,
            kernels: args.kernels_dir.clone().or(said.kernels_dir),
            wait: args.wait.or(said.wait).map_or(WaitMode::Block, Wait::mode),
            path: args.path.or(said.path).unwrap_or_default(),
            codec: args.codec.or(said.codec).unwrap_or_default(),
            shares: args.shares.or(said.shares).unwrap_or_default(),
            rules,
            said_rules,
            ring_depth,
            steering,
            data: args.data.clone().or(said.data),
            duty: share(args.duty.or(said.duty).unwrap_or(1.0))?,
            period: period(
                args.period_ms.or(said.period_ms),
                args.period_min_ms.or(said.period_min_ms),
                args.period_max_ms.or(said.period_max_ms),
            )?,
            seconds: args.seconds.or(said.seconds),
            seed: args.seed.or(said.seed).unwrap_or(u64::from(low)),
            out: args.out.clone().or(said.out).unwrap_or_else(|| "plesio-up".into()),
            socket: args.socket.clone().or(said.socket),
            state,
            trace: args.trace.clone().or(said.trace),
            halt,
            threshold,
            pool,
            operator,
            _hold,
        })
    }

    /// Which mesh: the pool key's, or the one of all that go without.
    pub(super) fn mesh(&self) -> u64 {
        match &self.protection {
            Protection::Sealed(identity) => identity.pool.mesh,
            Protection::Plaintext => MESH,
        }
    }

    /// A command line for the next node. What is its own stands in capitals; on this host, without keys, nothing does.
    pub(super) fn invitation(&self, reach: &str) -> String {
        let mut line = format!("plesio up --join {reach}");
        if !self.on_host() {
            line.push_str(" --listen ITS_IP:7000");
        }
        match &self.protection {
            Protection::Sealed(_) => {
                line.push_str(" --key ITS.key --ticket ITS.ticket");
                let shared = self.pool.iter().map(|path| ("pool", path));
                for (flag, path) in shared.chain(self.operator.iter().map(|path| ("operator", path))) {
                    line.push_str(&format!(" --{flag} {}", path.display()));
                }
            }
            Protection::Plaintext => line.push_str(" --plaintext"),
        }
        if let Some(threshold) = self.threshold {
            line.push_str(&format!(" --threshold {threshold}"));
        }
        line.push_str(&(said("codec", self.codec) + &said("shares", self.shares)));
        line.push_str(&self.said_rules.to_string());
        if self.ring_depth != RING_DEPTH {
            line.push_str(&format!(" --ring-depth {}", self.ring_depth));
        }
        if self.trust == Trust::Captive {
            line.push_str(" --trust captive");
        }
        line
    }

    /// Whether everything stays on this machine.
    pub(super) fn on_host(&self) -> bool {
        self.listen.ip().is_loopback() && self.listen_data.ip().is_loopback()
    }
}

pub(crate) const MESH: u64 = 1;
const PERIOD_MS: u32 = 250;
const RING_DEPTH: u8 = 4;
const CHECKPOINT_S: u32 = 10;

pub(crate) fn read_file(path: &Path) -> Result<file::Settings, Failure> {
    let what = || format!("cannot use --config {}", path.display());
    let bytes = input::read(path, file::BYTES_MAX).map_err(|cause| {
        Failure::usage("config", what(), cause).fix("give the path of a plesio.toml that you may read")
    })?;
    file::read(&bytes).map_err(|cause| {
        Failure::usage("config", what(), cause).fix("mend that line; `plesio up --help` names the settings")
    })
}

/// Whom to join by: the flag's, or the file's if the flags say nothing of how to enter.
fn joined(args: &UpArgs, said: &file::Settings) -> Result<Vec<Seed>, Failure> {
    if args.found || !args.join.is_empty() {
        return Ok(args.join.clone());
    }
    if said.found && !said.join.is_empty() {
        return Err(Failure::usage("config", "cannot both join a mesh and begin one", "the file says both")
            .fix("take out found or join"));
    }
    joined_by_file(said)
}

/// The members that a file names.
pub(crate) fn joined_by_file(said: &file::Settings) -> Result<Vec<Seed>, Failure> {
    let read = |text: &String| {
        parse_seed(text).map_err(|cause| {
            Failure::usage("config", format!("cannot use join = {text:?}"), cause)
                .fix("write KEY@IP:PORT, as the member says at its start")
        })
    };
    said.join.iter().map(read).collect()
}

/// What a sealed node shows and knows, as files.
struct Files {
    key: Option<PathBuf>,
    ticket: Option<PathBuf>,
    pool: Option<PathBuf>,
    operator: Vec<PathBuf>,
}

impl Files {
    fn read(self) -> Result<Identity, Failure> {
        let (Some(key), Some(ticket_path), Some(pool), false) =
            (&self.key, &self.ticket, &self.pool, self.operator.is_empty())
        else {
            let named = [
                ("--key", self.key.is_some()),
                ("--ticket", self.ticket.is_some()),
                ("--pool", self.pool.is_some()),
                ("--operator", !self.operator.is_empty()),
            ];
            let missing: Vec<&str> =
                named.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
            return Err(Failure::usage(
                "keys",
                "cannot seal what this node sends",
                format!("{} was not given", missing.join(", ")),
            )
            .fix(
                "make the files with `plesio key` (its --help shows how), or say --plaintext on one machine",
            ));
        };
        if self.operator.len() > OPERATORS_MAX {
            let what = format!("cannot take {} operators", self.operator.len());
            return Err(Failure::usage("keys", what, format!("at most {OPERATORS_MAX} are looked at"))
                .fix("leave out those who sign no tickets any more"));
        }
        let operators = read_operators(&self.operator)?;
        let identity = Identity {
            node: keyfile::read(key, Kind::Secret, NodeSecret::from_text)?,
            ticket: keyfile::read(ticket_path, Kind::Public, Ticket::from_text)?,
            pool: keyfile::read(pool, Kind::Secret, PoolKey::from_text)?,
            operators,
            seed: random::seed()?,
        };
        check_ticket(&identity, ticket_path)?;
        Ok(identity)
    }
}

/// The public keys in some files.
pub(crate) fn read_operators(paths: &[PathBuf]) -> Result<Vec<[u8; 32]>, Failure> {
    let read = |path: &PathBuf| keyfile::read(path, Kind::Public, OperatorPublic::from_text);
    paths.iter().map(|path| read(path).map(|operator| operator.0)).collect()
}

/// The operators of a mesh, any `threshold` of whom stop it.
pub(crate) fn operators(keys: &[[u8; 32]], threshold: Option<u8>) -> Result<Operators, Failure> {
    let threshold = threshold.unwrap_or_else(|| Operators::majority(keys.len()));
    Operators::new(keys, threshold).map_err(|cause| {
        Failure::usage("operators", "cannot take these operators", cause)
            .fix("give every operator once, and a threshold that they can reach, the same at all nodes")
    })
}

/// Whose HALT counts, and where it is kept.
fn halt(
    keys: &[[u8; 32]],
    threshold: Option<u8>,
    record: Option<PathBuf>,
) -> Result<Option<HaltConfig>, Failure> {
    if keys.is_empty() {
        return match threshold {
            None => Ok(None),
            Some(_) => Err(Failure::usage("operators", "cannot use --threshold", "no --operator was given")
                .fix("name the operators, or leave --threshold out")),
        };
    }
    let operators = operators(keys, threshold)?;
    let Some(record) = record else {
        return Err(Failure::usage(
            "halt-record",
            "cannot keep a HALT of the operators through a restart",
            "this node has no --key, beside which it would be kept",
        )
        .fix("give --halt-record FILE"));
    };
    Ok(Some(HaltConfig { operators, record }))
}

/// Where it keeps what outlives it, as the flags or else the file say.
fn state(
    args: &UpArgs,
    said: &(Option<PathBuf>, Option<u32>),
    has_key: bool,
) -> Result<Option<StateConfig>, Failure> {
    let every = args.checkpoint_s.or(said.1);
    let Some(folder) = args.state.clone().or(said.0.clone()) else {
        return match every {
            None => Ok(None),
            Some(_) => Err(refused_alone("checkpoint_s", "there is no --state that it could go to")),
        };
    };
    if !has_key {
        return Err(Failure::usage(
            "config",
            format!("cannot keep state in {}", folder.display()),
            "a node without --key is another node at its next start, and its folder would refuse it",
        )
        .fix("give --key FILE (plesio key gen node -o FILE), or leave --state out"));
    }
    let every = every.unwrap_or(CHECKPOINT_S);
    if !(1..=86_400).contains(&every) {
        return Err(refused("checkpoint_s", every, "it must be 1 to 86400"));
    }
    Ok(Some(StateConfig { folder, checkpoint_ns: u64::from(every) * 1_000_000_000 }))
}

fn refused_alone(name: &str, cause: &str) -> Failure {
    Failure::usage("config", format!("cannot use {name}"), cause).fix("give --state DIR, or leave it out")
}

/// The record that belongs to a key file.
fn beside(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".halt");
    name.into()
}

/// A ticket that no member would take is told from here, with its file.
fn check_ticket(identity: &Identity, path: &Path) -> Result<(), Failure> {
    let Identity { node, ticket, pool, operators, .. } = identity;
    let cause = if ticket.mesh != pool.mesh {
        format!("it admits to the mesh {:016x}, and the pool key is of {:016x}", ticket.mesh, pool.mesh)
    } else if ticket.node != node.public() {
        "it admits another node than the one of --key".into()
    } else if let Err(error) = ticket.verify(operators, 0) {
        error.to_string()
    } else {
        return Ok(());
    };
    Err(Failure::usage("ticket", format!("cannot be admitted with {}", path.display()), cause)
        .fix("ask the operator for a ticket for `plesio key pub` of this node and this mesh"))
}

/// What stands in the roster is what others send to.
fn refuse_wildcards(addresses: [SocketAddr; 2]) -> Result<(), Failure> {
    match addresses.iter().find(|address| address.ip().is_unspecified()) {
        Some(address) => Err(Failure::usage(
            "address",
            format!("cannot listen on {address}"),
            "others send to the address that a node names, and this one names none",
        )
        .fix("give an address of this machine that the others reach; see `ip address`")),
        None => Ok(()),
    }
}

/// The rules for plaintext.
fn check_plaintext(captive: bool, own: [SocketAddr; 2], join: &[Seed]) -> Result<(), Failure> {
    let mut all = own.into_iter().chain(join.iter().flat_map(|seed| [seed.sideband, seed.data]));
    match all.find(|address| !address.ip().is_loopback()) {
        Some(address) if !captive => Err(Failure::usage(
            "plaintext",
            format!("cannot send plaintext to and from {address}"),
            "it is not an address of this host alone: anybody on the network could read and change everything",
        )
        .fix("leave --plaintext out, or say --trust captive where nobody else is on the network")),
        _ => Ok(()),
    }
}

fn share(share: f64) -> Result<f64, Failure> {
    if (0.01..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(Failure::usage(
        "config",
        format!("cannot use duty = {share}"),
        "it is a share of one core, 0.01 to 1",
    )
    .fix("take 1 for all of it"))
}

fn ring_depth(depth: u8) -> Result<u8, Failure> {
    if matches!(depth, 2 | 4 | 8 | 16) {
        return Ok(depth);
    }
    Err(refused("ring_depth", depth, "it must be 2, 4, 8 or 16"))
}

fn steering(lo: Option<f64>, hi: Option<f64>, dwell: Option<u32>) -> Result<Steering, Failure> {
    let usual = Steering::default();
    let (lo, hi) = (lo.unwrap_or(usual.lo), hi.unwrap_or(usual.hi));
    let dwell = dwell.unwrap_or(usual.dwell);
    if !(0.0..=0.9).contains(&lo) {
        return Err(refused("lo", lo, "it must be 0 to 0.9"));
    }
    if !(hi <= 1.0 && hi - lo >= 0.1) {
        return Err(refused("hi", hi, "it must be at least 0.1 above lo, and at most 1"));
    }
    if !(1..=64).contains(&dwell) {
        return Err(refused("dwell", dwell, "it must be 1 to 64"));
    }
    let steering = Steering { lo, hi, dwell };
    steering.check().map_err(|range| refused("lo, hi, dwell", format!("{lo}, {hi}, {dwell}"), &range))?;
    Ok(steering)
}

fn period(first: Option<u32>, min: Option<u32>, max: Option<u32>) -> Result<Period, Failure> {
    let said = [("period_ms", first), ("period_min_ms", min), ("period_max_ms", max)];
    let ns = |ms: u32| u64::from(ms) * 1_000_000;
    let whole = Period::of(ns(first.unwrap_or(PERIOD_MS)));
    let period =
        Period { min_ns: min.map_or(whole.min_ns, ns), max_ns: max.map_or(whole.max_ns, ns), ..whole };
    period.check().map(|()| period).map_err(|cause| {
        let said = said.iter().filter_map(|(name, ms)| Some(format!("{name} = {}", (*ms)?)));
        let what = format!("cannot use {}", said.collect::<Vec<_>>().join(", "));
        Failure::usage("config", what, cause).fix("leave them out for 250 ms, followed by 500 ms and so on")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn seed(text: &str) -> Seed {
        parse_seed(text).expect("a seed")
    }

    fn args() -> UpArgs {
        UpArgs { plaintext: true, ..UpArgs::default() }
    }

    #[test]
    fn a_node_joins_or_founds() {
        let refused = Settings::gather(&args()).expect_err("neither");
        assert_eq!((refused.exit, refused.code), (Exit::Usage, "usage"));
        let founded = Settings::gather(&UpArgs { found: true, ..args() }).expect("loopback");
        assert!(founded.join.is_empty() && founded.on_host());
        let join = vec![seed("127.0.0.1:7000")];
        let joined = Settings::gather(&UpArgs { join: join.clone(), ..args() }).expect("loopback");
        assert_eq!(joined.join, join);
        // Two nodes without key files are two nodes.
        assert_ne!(founded.public, joined.public);
    }

    #[test]
    fn a_sealed_node_says_what_it_lacks() {
        let refused = Settings::gather(&UpArgs { found: true, ..UpArgs::default() }).expect_err("no keys");
        assert_eq!(refused.code, "keys");
        for flag in ["--key", "--ticket", "--pool", "--operator"] {
            assert!(refused.cause.contains(flag), "{}", refused.cause);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_name_value_and_range() {
        let founder = UpArgs { found: true, ..args() };
        let whole = Settings::gather(&founder).expect("defaults");
        assert_eq!(
            (whole.ring_depth, whole.steering, whole.rules),
            (4, Steering::default(), Rules::default())
        );
        assert!(!whole.invitation("there").contains("tau"), "{}", whole.invitation("there"));
        for (args, what, range) in [
            (UpArgs { ring_depth: Some(3), ..founder.clone() }, "ring_depth = 3", "2, 4, 8 or 16"),
            (UpArgs { lo: Some(-0.1), ..founder.clone() }, "lo = -0.1", "0 to 0.9"),
            (UpArgs { lo: Some(0.25), ..founder.clone() }, "hi = 0.3", "0.1 above lo"),
            (UpArgs { hi: Some(f64::NAN), ..founder.clone() }, "hi = NaN", "at most 1"),
            (UpArgs { dwell: Some(0), ..founder.clone() }, "dwell = 0", "1 to 64"),
            (UpArgs { period_ms: Some(49), ..founder.clone() }, "period_ms = 49", "50 to 60000"),
            (UpArgs { period_min_ms: Some(251), ..founder.clone() }, "period_min_ms = 251", "50 to 250"),
            (UpArgs { period_max_ms: Some(249), ..founder.clone() }, "period_max_ms = 249", "250 to 60000"),
        ] {
            let refused = Settings::gather(&args).expect_err(what);
            assert!(
                refused.what.contains(what) && refused.cause.contains(range),
                "{} {}",
                refused.what,
                refused.cause
            );
        }
        let said = RulesArgs { tau: Some(9), ..RulesArgs::default() };
        let told = UpArgs { rules: said, ring_depth: Some(8), ..founder };
        let line = Settings::gather(&told).expect("in range").invitation("there");
        assert!(line.ends_with(" --tau 9 --ring-depth 8"), "{line}");
    }

    #[test]
    fn plaintext_stays_on_the_host_unless_the_network_is_captive() {
        let listen = Some("10.0.0.1:7000".parse().expect("an address"));
        let away = UpArgs { found: true, listen, ..args() };
        assert_eq!(Settings::gather(&away).expect_err("off host").code, "plaintext");
        let joining = UpArgs { join: vec![seed("10.0.0.1:7000")], ..args() };
        assert_eq!(Settings::gather(&joining).expect_err("off host").code, "plaintext");
        let captive = UpArgs { trust: Some(TrustArg::Captive), ..away };
        assert!(!Settings::gather(&captive).expect("it was said").on_host());
        let wildcard = UpArgs { found: true, listen: Some("0.0.0.0:7000".parse().expect("one")), ..args() };
        assert_eq!(Settings::gather(&wildcard).expect_err("names nobody").code, "address");
    }
}
