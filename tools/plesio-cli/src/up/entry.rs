//! Why a node did not get into a mesh, as far as that can be known from here.
//!
//! Members answer nobody whom they do not admit, so most of it is said by their own output. What can be known here: who
//! answered what, and whether anything listens at the address at all.

use super::ender::Why;
use super::settings::Settings;
use crate::args::Seed;
use crate::failure::{Exit, Failure};
use plesio::{Entering, Protection};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// How long a machine on the way may take to say that nothing listens.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a node that never was a member ends with. Ctrl-C stays an interruption for whoever reads the exit code.
pub(super) fn failure(settings: &Settings, entering: &Entering, why: Why, waited: Duration) -> Failure {
    let seeds: Vec<String> = settings.join.iter().map(ToString::to_string).collect();
    let at = if seeds.is_empty() {
        format!("the addresses in {}", its_folder(settings))
    } else {
        seeds.join(", ")
    };
    let what = format!("cannot join the mesh at {at}");
    let within = match why {
        Why::Signal => format!("before it was interrupted, after {:.1} s", waited.as_secs_f64()),
        _ => format!("within {:.0} s", waited.as_secs_f64()),
    };
    let (cause, fix) = cause(settings, entering, &within);
    let exit = if why == Why::Signal { Exit::Interrupted } else { Exit::Unreachable };
    Failure { exit, ..Failure::run("join", what, cause).fix(fix) }
}

fn cause(settings: &Settings, entering: &Entering, within: &str) -> (String, String) {
    if let Some(what) = entering.differs {
        return (
            format!(
                "a member refused this node: it was started with other parameters than the mesh ({what})"
            ),
            match what {
                "chunk_bytes" => "let all nodes --listen on addresses of the network, or all on 127.0.0.1",
                "the codec" => "give all nodes the same --codec",
                "how much a member may own" => "give all nodes the same --shares",
                "what staleness leaves of a weight" => "give all nodes the same --lambda",
                "the outer step" => "give all nodes the same --outer, --outer-mu and --outer-eta",
                "tau" => "give all nodes the same --tau",
                "ring_depth" => "give all nodes the same --ring-depth",
                "how contributions weigh" => "give all nodes the same --weights",
                _ => "start all nodes alike: the same version of plesio, model and adapter",
            }
            .into(),
        );
    }
    if let Some(address) = entering.namesake {
        return (
            format!(
                "no view named this node {within}; the mesh knows its key at {address}: \
                another process runs with the same key file, or an earlier life of this one is not given up yet"
            ),
            format!(
                "end the process at {address}, or give this node a key and a ticket of its own (plesio key gen)"
            ),
        );
    }
    if let Some((number, members)) = entering.view {
        let missing = if entering.state {
            "its state came, and no view named this node"
        } else {
            "its state did not come"
        };
        return (
            format!("a member answered with view {number} of {members} nodes; {missing} {within}"),
            format!(
                "give --listen an address that all members reach, and let UDP through; this was {}",
                settings.listen
            ),
        );
    }
    if settings.join.is_empty() {
        return unheard_by_known(settings, entering, within);
    }
    if entering.session {
        let sidebands: Vec<String> = settings.join.iter().map(|seed| seed.sideband.to_string()).collect();
        let at = sidebands.join(", ");
        return (
            format!("a member answered the handshake, and nothing came from its sideband at {at} {within}"),
            format!(
                "let UDP through to {at} and back to {}, as to the port of --listen-data",
                settings.listen
            ),
        );
    }
    unheard(settings, within)
}

/// It came back by its folder alone, and those whom that names told it no view.
fn unheard_by_known(settings: &Settings, entering: &Entering, within: &str) -> (String, String) {
    let folder = its_folder(settings);
    let mut cause = if entering.session {
        format!(
            "a member that {folder} names answered the handshake, and no view came {within}: fewer than a majority are \
            back, or its sideband is not heard here"
        )
    } else {
        format!(
            "none of the members that {folder} names answered {within}: none of them is back, or they listen elsewhere \
            than they did"
        )
    };
    if let (Protection::Sealed(identity), false) = (&settings.protection, entering.session) {
        let last = identity.ticket.not_after_view;
        cause.push_str(&format!(", or this node's ticket has ended (it counts up to view {last})"));
    }
    let fix = "start the other members as they were, a majority at least; if they listen elsewhere now, give this node \
        --join KEY@ADDR of one of them";
    (cause, fix.into())
}

/// Where a node keeps the members that it knew.
fn its_folder(settings: &Settings) -> String {
    let folder = settings.state.as_ref().map(|state| state.folder.display().to_string());
    folder.map_or("its state folder".into(), |folder| format!("its state folder {folder}"))
}

/// Nobody said a word.
fn unheard(settings: &Settings, within: &str) -> (String, String) {
    // Sealed, the first word goes to the data socket; in plaintext, to the sideband.
    let sealed = matches!(settings.protection, Protection::Sealed(_));
    let port = |seed: &Seed| if sealed { seed.data } else { seed.sideband };
    let addresses: Vec<SocketAddr> = settings.join.iter().map(port).collect();
    let errors: Vec<Option<io::Error>> =
        addresses.iter().map(|address| refusal(settings.listen, *address)).collect();
    let named = |address: &SocketAddr, error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens on UDP port {} of {}", address.port(), address.ip())
        }
        _ => format!("nothing can be sent to {address}: {error}"),
    };
    let told: Vec<String> = addresses
        .iter()
        .zip(&errors)
        .filter_map(|(address, error)| Some(named(address, error.as_ref()?)))
        .collect();
    if told.len() == addresses.len() {
        return (
            told.join("; "),
            "start the node there, or take the address from the line that it printed at its last start"
                .into(),
        );
    }
    let silent: Vec<String> = addresses
        .iter()
        .zip(&errors)
        .filter(|(_, error)| error.is_none())
        .map(|(address, _)| address.to_string())
        .collect();
    let silent = silent.join(", ");
    let maybe = match &settings.protection {
        Protection::Sealed(identity) => format!(
            "no node is there, or one that does not admit this one: its key is not the one before the @, its --pool \
            is another, its --operator did not sign this ticket, the ticket has ended (it counts up to view {}), or \
            it runs with --plaintext",
            identity.ticket.not_after_view
        ),
        Protection::Plaintext => {
            "no node is there, or one that is no member itself, or one whose mesh is sealed (without --plaintext)"
                .into()
        }
    };
    (
        format!("no answer from {silent} {within}: {maybe}"),
        "read what the node there says: it names the handshakes that it refuses; if it says nothing, let UDP through \
        both ways"
            .into(),
    )
}

/// What the kernel, here or there, says of a datagram to `address`; `None`: nothing, or somebody listens.
fn refusal(own: SocketAddr, address: SocketAddr) -> Option<io::Error> {
    let ask = || {
        let socket = UdpSocket::bind(SocketAddr::new(own.ip(), 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Empty: every node drops it unread.
        socket.send(&[])?;
        socket.recv(&mut [0])
    };
    let quiet =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    ask().err().filter(|error| !quiet(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{UpArgs, parse_seed};
    use plesio::StateConfig;

    fn settings(join: &[SocketAddr]) -> Settings {
        let join = join.iter().map(|address| parse_seed(&address.to_string()).expect("an address")).collect();
        Settings::gather(&UpArgs { plaintext: true, join, ..UpArgs::default() }).expect("loopback")
    }

    #[test]
    fn what_is_known_is_named() {
        let there = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let gone = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("it was bound");
        let at = there.local_addr().expect("it is bound");
        let said = |join: &[SocketAddr], entering: &Entering| {
            let failure = failure(&settings(join), entering, Why::Time, Duration::from_secs(3));
            assert_eq!((failure.exit, failure.code), (Exit::Unreachable, "join"));
            assert!(failure.what.starts_with("cannot join the mesh at 127.0.0.1:"), "{failure}");
            failure.cause
        };
        let nobody = Entering::default();
        assert!(said(&[gone], &nobody).contains(&format!("nothing listens on UDP port {}", gone.port())));
        let silent = said(&[gone, at], &nobody);
        assert!(silent.contains(&at.to_string()) && !silent.contains(&gone.to_string()), "{silent}");
        assert!(silent.contains("within 3 s") && silent.contains("sealed"), "{silent}");
        let told = Entering { view: Some((4, 3)), ..nobody };
        assert!(said(&[at], &told).contains("view 4 of 3 nodes; its state did not come"));
        assert!(said(&[at], &Entering { state: true, ..told }).contains("no view named this node"));
        assert!(said(&[at], &Entering { namesake: Some(at), ..told }).contains("same key file"));
        assert!(said(&[at], &Entering { differs: Some("tau"), ..told }).contains("(tau)"));
        assert!(said(&[at], &Entering { session: true, ..nobody }).contains("sideband"));
        let interrupted = failure(&settings(&[gone]), &nobody, Why::Signal, Duration::from_secs(3));
        assert_eq!(interrupted.exit, Exit::Interrupted);
    }
    /// The founder's `--found` names nobody, and so the cause was empty.
    #[test]
    fn who_comes_back_by_its_folder_says_whom_it_asked() {
        let args = UpArgs { plaintext: true, found: true, ..UpArgs::default() };
        let mut founder = Settings::gather(&args).expect("loopback");
        founder.state = Some(StateConfig { folder: "a.state".into(), checkpoint_ns: 1 });
        let said = |entering: &Entering| {
            failure(&founder, entering, Why::Signal, Duration::from_secs(3)).to_string()
        };
        let unheard = said(&Entering::default());
        assert!(unheard.contains("at the addresses in its state folder a.state"), "{unheard}");
        assert!(
            unheard.contains("none of the members that its state folder a.state names answered"),
            "{unheard}"
        );
        let greeted = said(&Entering { session: true, ..Entering::default() });
        assert!(greeted.contains("answered the handshake, and no view came before"), "{greeted}");
        for said in [unheard, greeted] {
            assert!(said.contains("a majority at least") && !said.contains(" at  "), "{said}");
        }
    }
}
