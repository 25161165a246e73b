//! The keys of a sealed run: a real handshake between two nodes that exist for this run only.
//!
//! ```text
//!  word of each end: its public keys, and an operator's of its own        (over the control connection)
//!  then Noise IKpsk2 over the data port: pool key, the beginner's ticket signed by its operator
//! ```

use crate::args::SuiteArg;
use crate::failure::{Exit, Failure};
use crate::hex::hex;
use crate::random;
use plesio_session::{
    Config, Event, Limits, NodePublic, NodeSecret, OperatorSecret, PoolKey, Sessions, Suites, Ticket,
};
use plesio_udp::{DatagramIo, Peer};
use plesio_wire::Incarnation;
use plesio_wire::Instant as Moment;
use plesio_wire::handshake::{Role, Suite};
use std::net::SocketAddr;

/// A new key for both ends of one command on one machine.
pub(crate) fn pool() -> Result<String, Failure> {
    let mut entropy = random::entropy()?;
    Ok(PoolKey::generate(MESH, &mut entropy).to_text().expose().to_owned())
}

pub(crate) struct Keys {
    node: NodeSecret,
    operator: OperatorSecret,
    pool: PoolKey,
    sessions: Option<Sessions>,
    lane: Option<Peer>,
    suites: Suites,
    /// What payload is sealed with, once it can be.
    suite: Option<Suite>,
    failed: bool,
    /// Something came that may have made events.
    moved: bool,
    due: Moment,
    fix: &'static str,
}

impl Keys {
    /// `fix` is what to say where there is no session.
    pub(crate) fn new(pool: &str, suite: SuiteArg, fix: &'static str) -> Result<Self, Failure> {
        let mut entropy = random::entropy()?;
        let suites = suites(suite)?;
        let pool = PoolKey::from_text(pool)
            .map_err(|cause| Failure::usage("key-file", "cannot use the pool key of this run", cause))?;
        Ok(Self {
            node: NodeSecret::generate(&mut entropy),
            operator: OperatorSecret::generate(&mut entropy),
            pool,
            sessions: None,
            lane: None,
            suites,
            suite: None,
            failed: false,
            moved: true,
            due: Moment(0),
            fix,
        })
    }

    /// What the other end has to know.
    pub(crate) fn word(&self) -> String {
        let NodePublic { x25519, ed25519 } = self.node.public();
        hex(&[x25519, ed25519, self.operator.public()].concat())
    }

    /// Whether payload can be sealed.
    pub(crate) const fn are_there(&self) -> bool {
        self.suite.is_some()
    }

    pub(crate) const fn suite(&self) -> Option<Suite> {
        self.suite
    }

    /// Ready for a handshake with the end that said `word`; who begins asks for it.
    pub(crate) fn meet(
        &mut self,
        now: Moment,
        lane: Peer,
        address: SocketAddr,
        word: &str,
        begins: bool,
    ) -> Result<(), Failure> {
        let failure = |cause: &str| Failure::run("bench", "cannot begin a sealed run", cause);
        let (node, operator) = read(word).ok_or_else(|| failure("the other end's keys are not keys"))?;
        let mut entropy = random::entropy()?;
        let config = Config {
            ticket: Ticket::sign(&self.operator, self.pool.mesh, self.node.public(), Role::Member, u32::MAX),
            node: self.node.clone(),
            pool: self.pool.clone(),
            operators: vec![operator],
            incarnation: Incarnation(1),
            mtu: u16::MAX,
            suites: self.suites,
            peers_max: 1,
            limits: Limits::default(),
            seed: entropy.draw(),
        };
        let mut sessions = Sessions::new(now, config);
        self.lane = Some(lane);
        if begins {
            sessions.handle_connect(now, node, address).map_err(|cause| failure(&cause.to_string()))?;
        }
        self.sessions = Some(sessions);
        Ok(())
    }

    // What a session refuses is counted there.
    pub(crate) fn handle_stranger(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) {
        if let Some(sessions) = &mut self.sessions {
            let _counted = sessions.handle_datagram(now, from, datagram);
            self.moved = true;
        }
    }

    pub(crate) fn handle_confirmed(&mut self, now: Moment, local: u32) {
        if let Some(sessions) = &mut self.sessions {
            sessions.handle_confirmed(now, local);
            self.moved = true;
        }
    }

    pub(crate) fn handle_own(&mut self, now: Moment, local: u32) {
        if let Some(sessions) = &mut self.sessions {
            sessions.handle_own(now, local);
            self.moved = true;
        }
    }

    /// Hands keys to the port and handshakes to the network.
    pub(crate) fn turn(&mut self, now: Moment, io: &mut dyn DatagramIo) -> Result<(), Failure> {
        if !self.moved && now < self.due {
            return Ok(());
        }
        let (Some(sessions), Some(lane)) = (&mut self.sessions, self.lane) else { return Ok(()) };
        sessions.handle_timeout(now);
        while let Some(event) = sessions.poll_event() {
            match event {
                Event::Open { data, .. } => io.add_opener(lane, data, 0),
                Event::Seal { data, .. } => {
                    self.suite = Some(data.suite());
                    io.set_sealer(lane, data);
                }
                Event::Close { local, .. } => io.remove_opener(lane, local),
                Event::Fail { .. } => self.failed = true,
                Event::Expire { .. } => {
                    io.remove_sealer(lane);
                    self.failed = true;
                }
                _ => {}
            }
        }
        while let Some(transmit) = sessions.poll_transmit() {
            // What is not sent is sent again by the handshake's own timer.
            let _again = io.send_stranger(transmit.to, transmit.as_bytes());
        }
        self.moved = false;
        // How much the keys have carried shows only to who looks.
        let look = now.after(LOOK_NS);
        self.due = sessions.poll_timeout(now).map_or(look, |at| at.min(look));
        if self.failed {
            let cause = "the handshake found no answer, or the session ended";
            return Err(Failure {
                exit: Exit::Unreachable,
                ..Failure::run("bench-peer", "there is no session", cause)
            }
            .fix(self.fix));
        }
        Ok(())
    }
}

/// # Errors
/// A suite that this machine does not have.
pub(crate) fn suites(asked: SuiteArg) -> Result<Suites, Failure> {
    let suite = match asked {
        SuiteArg::Auto => return Ok(Suites::available()),
        SuiteArg::Aegis => Suite::Aegis128L,
        SuiteArg::Aes => Suite::Aes128Gcm,
        SuiteArg::ChaCha => Suite::ChaCha20Poly1305,
    };
    Suites::only(suite).ok_or_else(|| {
        let cause = format!("this build, or this CPU, lacks {suite}");
        Failure { exit: Exit::Missing, ..Failure::run("suite", "cannot seal as asked", cause) }
            .fix("say --suite auto")
    })
}

/// The public keys and the operator of the other end.
fn read(word: &str) -> Option<(NodePublic, [u8; 32])> {
    let digits = word.as_bytes();
    let key = |index: usize| -> Option<[u8; 32]> {
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.get(index * 64..index * 64 + 64)?.chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(key)
    };
    let node = NodePublic { x25519: key(0)?, ed25519: key(1)? };
    (digits.len() == 192).then_some((node, key(2)?))
}

/// Of runs on one machine; between machines the key file names it.
const MESH: u64 = 1;
const LOOK_NS: u64 = 5_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_back_and_another_is_refused() {
        let keys = Keys::new(&pool().expect("randomness"), SuiteArg::Auto, "").expect("a key");
        let word = keys.word();
        let (node, operator) = read(&word).expect("a word");
        assert_eq!((node, operator), (keys.node.public(), keys.operator.public()));
        for wrong in ["", "00", &word[1..], &format!("{word}0"), &word.replace('0', "g"), &"é".repeat(96)] {
            assert!(wrong == word || read(wrong).is_none(), "{wrong}");
        }
        assert!(Keys::new("plesio-pool-key 1", SuiteArg::Auto, "").is_err());
    }
}
