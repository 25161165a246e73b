//! HALT of eight sealed processes of which two keep it to themselves, with a tenth of all datagrams lost: silence is what a
//! packet socket sees, not what the nodes say of themselves.
//!
//! ```text
//!   one namespace, its loopback                    packet filter: 1 of 10 UDP datagrams is lost where it comes in
//!     8 x plesio up, their own ports               of two nodes no HALT or RESUME goes out or comes in
//!     plesio halt --to one of the other six        t0: its first datagram on the wire
//!     AF_PACKET                                    every datagram by the port that it comes from
//! ```
//!
//! Silence is of payload and of what steers it: sessions renew their keys every two minutes, halted or not, from the same port.
//!
//! The two liars are real nodes on a network that keeps orders from and to them: the type of a sealed datagram is in clear, what
//! their beats say is not, and that tells nobody anything (a beat is answered, never obeyed). They work on, at their worst: the
//! others' silence is judged while the liars send to them.

use super::common::wait;
use super::mesh::Mesh;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, recvfrom, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use plesio_wire::data;
use plesio_wire::sideband::OrderKind;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Keep orders to themselves.
const LIARS: [usize; 2] = [2, 5];
/// Whole: 20, by `cargo xtask halts`.
const TRIALS: &str = "PLESIO_TEST_HALT_TRIALS";
const TRIALS_SHORT: u32 = 3;

/// A namespace with a loopback of its own.
struct Place(String);

impl Place {
    fn open() -> Result<Self, String> {
        let place = Self(format!("plesio-halt-{}", std::process::id()));
        run("ip", &["netns", "add", &place.0], "")?;
        run("ip", &["-n", &place.0, "link", "set", "lo", "up"], "")?;
        place.filter("")?;
        Ok(place)
    }

    /// Rules in place of those before, where datagrams come in.
    fn filter(&self, rules: &str) -> Result<(), String> {
        let table = "table inet plesio";
        let chain = format!("chain halt {{\ntype filter hook input priority 0; policy accept;\n{rules}}}");
        let script = format!("{table}\ndelete {table}\n{table} {{\n{chain}\n}}\n");
        run("ip", &["netns", "exec", &self.0, "nft", "-f", "-"], &script)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _never = run("ip", &["netns", "delete", &self.0], "");
    }
}

fn run(program: &str, line: &[&str], input: &str) -> Result<(), String> {
    let said = format!("{program} {}", line.join(" "));
    let failed = |error: std::io::Error| format!("{said}: {error}");
    let mut command = Command::new(program);
    command.args(line).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        let _early = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let error = || format!("{said}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(error)
}

/// What was sent, by the port that it came from.
#[derive(Clone, Copy)]
struct Sent {
    count: u64,
    last: Instant,
}

#[derive(Default)]
struct Seen {
    /// Datagrams since the last look.
    by_port: BTreeMap<u16, Sent>,
    /// First order since the last look that came from none of these ports.
    order: Option<Instant>,
    nodes: Vec<u16>,
}

/// A packet socket that sees all that is sent in a namespace.
struct Capture {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn open(place: &Place, nodes: Vec<u16>) -> Result<Self, String> {
        let path = format!("/run/netns/{}", place.0);
        let namespace = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        let seen = Arc::new(Mutex::new(Seen { nodes, ..Seen::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, ends) = (Arc::clone(&seen), Arc::clone(&stop));
        let (told, opened) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let open = || {
                nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
                let all = nix::sys::socket::SockProtocol::EthAll;
                let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
                setsockopt(&raw, sockopt::RcvBuf, &(8 << 20))?;
                setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
                Ok(raw)
            };
            match open() {
                Err(error) => drop(told.send(Err::<(), nix::Error>(error))),
                Ok(raw) => {
                    let _waits = told.send(Ok(()));
                    let mut buffer = [0; 128];
                    while !ends.load(Ordering::Relaxed) {
                        let Ok((len, from)) = recv(raw.as_raw_fd(), &mut buffer) else { continue };
                        // What is sent over a loopback is seen twice, going out and coming in.
                        if from.is_some_and(|from| from.pkttype() == OUTGOING) {
                            log.lock().unwrap_or_else(PoisonError::into_inner).take(&buffer[..len]);
                        }
                    }
                }
            }
        });
        let told = opened.recv().map_err(|error| error.to_string())?;
        told.map_err(|error| format!("a packet socket: {error}"))?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Everything since the last look.
    fn look(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = seen.nodes.clone();
        std::mem::replace(&mut *seen, Seen { nodes, ..Seen::default() })
    }
}

fn recv(raw: i32, buffer: &mut [u8]) -> nix::Result<(usize, Option<LinkAddr>)> {
    // Its length may be more than what was kept of it.
    let kept = buffer.len();
    let (len, from) = recvfrom::<LinkAddr>(raw, buffer)?;
    Ok((len.min(kept), from))
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Seen {
    /// An Ethernet frame, as the loopback has it.
    fn take(&mut self, frame: &[u8]) {
        let Some(udp) = frame.get(14 + 20..).filter(|_| frame[12..14] == [8, 0] && frame[23] == 17) else {
            return;
        };
        let [high, low, ..] = udp else { return };
        if udp.get(8..).is_some_and(is_of_a_session) {
            return;
        }
        let (port, now) = (u16::from_be_bytes([*high, *low]), Instant::now());
        let sent = self.by_port.entry(port).or_insert(Sent { count: 0, last: now });
        (sent.count, sent.last) = (sent.count + 1, now);
        let is_order = udp
            .get(8..12)
            .is_some_and(|head| head[..3] == MAGIC_AND_VERSION && head[3] == OrderKind::Halt.code());
        if is_order && !self.nodes.contains(&port) {
            self.order.get_or_insert(now);
        }
    }
}

/// Handshakes, and the first datagram under new keys: what keeps a session and moves nothing.
fn is_of_a_session(datagram: &[u8]) -> bool {
    const HANDSHAKES: std::ops::RangeInclusive<u8> = 1..=3;
    let Some((first, packet)) = datagram.first().zip(datagram.get(8..16)) else { return false };
    let packet = u64::from_le_bytes(packet.try_into().expect("eight bytes"));
    let is_data_plane = first >> 4 == data::VERSION;
    is_data_plane && (HANDSHAKES.contains(&(first & 15)) || packet >= data::OWN_PACKET_FIRST)
}

/// 10 % of what comes in is lost, and no order passes these nodes.
fn weather(sidebands: &[SocketAddr]) -> String {
    let liars: Vec<String> = LIARS.iter().map(|liar| sidebands[*liar].port().to_string()).collect();
    let liars = liars.join(", ");
    let orders = [OrderKind::Halt, OrderKind::Resume].map(|kind| kind.code().to_string()).join(", ");
    format!(
        "udp sport {{ {liars} }} @th,88,8 {{ {orders} }} counter drop\n\
         udp dport {{ {liars} }} @th,88,8 {{ {orders} }} counter drop\n\
         meta l4proto udp numgen random mod 1000 < 100 counter drop\n"
    )
}

struct Scenario {
    mesh: Mesh,
    place: Place,
    capture: Capture,
    sequence: u64,
}

impl Scenario {
    fn honest() -> impl Iterator<Item = usize> {
        (0..NAMES.len()).filter(|node| !LIARS.contains(node))
    }

    /// The operators order it of those nodes; whether anybody acknowledged it is theirs to ask.
    fn order(&mut self, what: &str, to: &[SocketAddr]) {
        self.sequence += 1;
        let to: Vec<String> = to.iter().map(ToString::to_string).collect();
        let (to, sequence) = (to.join(","), self.sequence.to_string());
        let line = [what, "--operator-key", "one.key,three.key", "--pool", "pool.key", "--to", &to];
        let listed = ["--operator", "one.pub,two.pub,three.pub", "--threshold", "2", "--sequence", &sequence];
        let output = self.mesh.plesio(&[&line[..], &listed].concat()).output().expect("it runs");
        // Nodes that nothing reaches do not answer.
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1 | 4)), "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn is_halted(&self, node: usize) -> bool {
        let newest = |event: &str, _: &_| match event {
            "halt" => Some(true),
            "resume" => Some(false),
            _ => None,
        };
        self.mesh.nodes[node].newest(newest).unwrap_or(false)
    }

    /// HALT of one honest node; how long until the last datagram of payload of any honest one.
    fn halt(&mut self, origin: usize) -> Duration {
        let ports: Vec<u16> = self.mesh.addresses("data").iter().map(SocketAddr::port).collect();
        let origin = self.mesh.addresses("sideband")[origin];
        let before = self.capture.look();
        self.order("halt", &[origin]);
        let given = self.capture.seen.lock().unwrap_or_else(PoisonError::into_inner).order;
        let given = given.expect("an order was on the wire");
        std::thread::sleep((given + Duration::from_secs(1)).saturating_duration_since(Instant::now()));
        let during = self.capture.look();
        std::thread::sleep(Duration::from_secs(1));
        let after = self.capture.look();
        let sent = |seen: &Seen, node: usize| seen.by_port.get(&ports[node]).copied();
        assert!(Self::honest().all(|node| sent(&before, node).is_some()), "all of them sent before it");
        for node in Self::honest() {
            assert!(self.is_halted(node), "{} was not halted in two seconds", NAMES[node]);
            assert_eq!(sent(&after, node).map(|sent| sent.count), None, "{} sends on", NAMES[node]);
        }
        // What is silent is the mesh and not the camera.
        assert!(after.by_port.values().map(|sent| sent.count).sum::<u64>() > 100, "beats go on");
        let last = Self::honest().filter_map(|node| sent(&during, node)).map(|sent| sent.last).max();
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(given))
    }

    fn resume(&mut self) {
        let to: Vec<SocketAddr> = self.mesh.addresses("sideband");
        self.order("resume", &to);
        let before = self.mesh.nodes.iter().map(|node| node.version()).max().expect("there are nodes");
        wait("versions again", || Self::honest().all(|node| self.mesh.nodes[node].version() > before + 1));
    }

    fn versions(&self) -> Vec<u64> {
        self.mesh.nodes.iter().map(|node| node.version()).collect()
    }
}

fn scenario() -> Result<Scenario, String> {
    let place = Place::open()?;
    let probe = Capture::open(&place, Vec::new())?;
    drop(probe);
    let mut mesh = Mesh::new("up-silence", &NAMES);
    mesh.inside = Some(place.0.clone());
    mesh.start();
    mesh.agree();
    place.filter(&weather(&mesh.addresses("sideband")))?;
    let capture = Capture::open(&place, mesh.addresses("sideband").iter().map(SocketAddr::port).collect())?;
    // Something of everybody, so that silence is not what was there before.
    let (ports, begun) = (mesh.addresses("data"), Instant::now());
    let seen = || capture.seen.lock().unwrap_or_else(PoisonError::into_inner).by_port.len();
    while seen() < 2 * ports.len() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Scenario { mesh, place, capture, sequence: 0 })
}

/// P8, T17.
#[test]
fn eight_of_which_two_keep_halt_to_themselves_are_silent_within_a_second() {
    let mut scenario = match scenario() {
        Ok(scenario) => scenario,
        Err(why) => {
            // To stderr itself: what a passing test prints is kept from the reader.
            let _unheard =
                writeln!(std::io::stderr(), "skipped: no namespace, packet filter or socket here: {why}");
            return;
        }
    };
    let trials = std::env::var(TRIALS).ok().and_then(|text| text.parse().ok()).unwrap_or(TRIALS_SHORT);
    let honest: Vec<usize> = Scenario::honest().collect();
    let mut took = Vec::new();
    for trial in 0..trials {
        took.push(scenario.halt(honest[trial as usize % honest.len()]));
        let halted = scenario.versions();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(scenario.versions(), halted, "a halted mesh decides nothing");
        scenario.resume();
    }
    took.sort_unstable();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{trials} trials: silent after {median:?} (median), {most:?} (most): {took:?}");
    assert!(most <= Duration::from_secs(1), "{took:?}");

    // Killed and started again while it is in force: halted before anybody could say so.
    scenario.halt(honest[0]);
    scenario.mesh.nodes.clear();
    scenario.place.filter("").expect("it could before");
    scenario.mesh.start();
    wait("the halt after the restart", || honest.iter().all(|node| scenario.is_halted(*node)));
    let ports: Vec<u16> = scenario.mesh.addresses("data").iter().map(SocketAddr::port).collect();
    std::thread::sleep(Duration::from_secs(1));
    scenario.capture.look();
    std::thread::sleep(Duration::from_secs(1));
    let seen = scenario.capture.look();
    assert!(honest.iter().all(|node| !seen.by_port.contains_key(&ports[*node])), "silent after the restart");
    scenario.resume();
    scenario.mesh.agree();
}

const OUTGOING: u8 = 4;
/// 0x4350, little endian, and 1.
const MAGIC_AND_VERSION: [u8; 3] = [0x50, 0x43, 1];
