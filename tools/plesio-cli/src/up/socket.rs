//! Answers `plesio status`: one document to every client of the same user, one client at a time, nothing heard.

use super::seen::Seen;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::json;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

/// How long a client may take to make room for its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until the process ends.
pub(super) fn serve(listener: &UnixListener, seen: &Arc<Seen>) {
    loop {
        match listener.accept() {
            // A client that went away needs no answer.
            Ok((client, _)) => drop(answer(client, seen)),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn answer(mut client: UnixStream, seen: &Seen) -> std::io::Result<()> {
    let user = getsockopt(&client, PeerCredentials)?.uid();
    if user != rustix::process::geteuid().as_raw() && user != 0 {
        return Ok(());
    }
    client.set_write_timeout(Some(PATIENCE))?;
    client.write_all(json!(seen.status()).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{SCHEMA, Status};
    use std::io::Read;

    #[test]
    fn clients_get_one_document_whatever_they_say() {
        let path = std::env::temp_dir().join(format!("plesio-serve-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a socket");
        let seen = Arc::new(Seen::new(Status { schema: SCHEMA.into(), pid: 7, ..Status::default() }, None));
        let served = Arc::clone(&seen);
        // It serves until the process ends, as in a node.
        std::thread::spawn(move || serve(&listener, &served));
        let long = vec![0xFF; 1 << 20];
        for said in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0", &long] {
            let mut client = UnixStream::connect(&path).expect("it listens");
            client.set_write_timeout(Some(Duration::from_millis(50))).expect("a socket takes one");
            // Nobody reads what it says: it may be refused, or take no more.
            let _unheard = client.write_all(said);
            let mut answer = Vec::new();
            // What was said and not heard ends the connection by a reset, behind the answer.
            let _reset = client.read_to_end(&mut answer);
            let status: Status = serde_json::from_slice(&answer).expect("a whole document");
            assert_eq!(status.pid, 7);
        }
        // Clients that go away at once, and one that stays and never reads, hold nobody up.
        let silent = UnixStream::connect(&path).expect("it listens");
        (0..50).for_each(|_| drop(UnixStream::connect(&path)));
        let mut answer = Vec::new();
        UnixStream::connect(&path).expect("it listens").read_to_end(&mut answer).expect("an answer");
        assert!(!answer.is_empty());
        drop(silent);
        std::fs::remove_file(&path).expect("our own socket");
    }
}
