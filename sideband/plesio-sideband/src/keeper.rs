//! The thread that writes orders down, so that no beat waits for a disk.

use crate::Record;
use plesio_membership::Given;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Writes orders down in turn. Dropping it waits for the one that is being written.
pub(crate) struct Keeper {
    orders: Option<Sender<Given>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// `kept` hears of every order whether it is on the disk.
    pub(crate) fn start(mut record: Record, kept: impl Fn(u64, bool) + Send + 'static) -> io::Result<Self> {
        let (orders, given) = channel::<Given>();
        let run = move || {
            while let Ok(given) = given.recv() {
                let stored = record.store(&given);
                kept(given.order.sequence, stored.is_ok());
            }
        };
        let thread = std::thread::Builder::new().name("halt-record".into()).spawn(run)?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// The machine hands out one order at a time, and another only when the operators gave one.
    pub(crate) fn store(&self, given: Given) {
        if let Some(orders) = &self.orders {
            // A thread that has ended was reported by its own hook.
            let _ended = orders.send(given);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ended = thread.join();
        }
    }
}
