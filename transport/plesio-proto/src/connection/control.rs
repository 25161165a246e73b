//! The path as the congestion controller sees it: what is reported to it, and the window and pace it gives.

use super::Connection;
use crate::config::Config;
use crate::congestion::{Congestion, CongestionController, Report};
use crate::delivery::Delivery;
use crate::flight::{Fate, Record};
use crate::pacer::Pacer;
use alloc::boxed::Box;
use plesio_wire::Instant;

/// Controller, estimator and pacer of one direction.
#[derive(Debug)]
pub(super) struct Path {
    controller: Box<dyn CongestionController>,
    /// Whether anybody wants to know how fast payload arrives.
    watched: bool,
    delivery: Delivery,
    pacer: Pacer,
    /// What has happened since the last report.
    report: Report,
    window_bytes_max: u64,
    /// As the controller said last.
    window_bytes: u64,
    rate: Option<u64>,
    /// Something waits for its turn until then.
    paced: Option<Instant>,
}

impl Path {
    pub(super) fn new(config: &Config, controller: Box<dyn CongestionController>, now: Instant) -> Self {
        let watched = config.congestion != Congestion::Credit || controller.rate().is_some();
        let (window_bytes, rate) = (controller.window_bytes().min(config.window_bytes), controller.rate());
        Self {
            controller,
            watched,
            delivery: Delivery::new(if watched { config.packets_max(config.chunk_bytes) } else { 1 }),
            pacer: Pacer::new(now),
            report: Report::default(),
            window_bytes_max: config.window_bytes,
            window_bytes,
            rate,
            paced: None,
        }
    }

    /// Whether the controller learns from how long acknowledgements take.
    pub(super) const fn is_watched(&self) -> bool {
        self.watched
    }

    pub(super) const fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    pub(super) const fn rate(&self) -> Option<u64> {
        self.rate
    }

    pub(super) const fn timeout(&self) -> Option<Instant> {
        self.paced
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.paced = self.paced.filter(|at| *at > now);
    }

    /// As many trains may fly from now on; those that do give no samples.
    pub(super) fn handle_packets_max(&mut self, packets_max: usize) {
        if self.watched {
            self.delivery.forget_trains(packets_max);
        }
    }

    /// Whether a train has to wait for its turn.
    pub(super) fn is_paced(&mut self, now: Instant) -> bool {
        let waits = self.rate.is_some() && self.pacer.next() > now;
        self.paced = waits.then(|| self.pacer.next());
        waits
    }

    /// Payload of the next train at most; `idle`: nothing flies.
    pub(super) fn train_bytes(&self, now: Instant, idle: bool) -> u64 {
        self.rate.map_or(u64::MAX, |rate| self.pacer.train_bytes(now, rate, idle))
    }

    /// A train of so much payload left; `idle`: nothing flew before it.
    pub(super) fn handle_sent(&mut self, now: Instant, train: u32, bytes: u64, idle: bool) {
        if self.watched {
            self.delivery.handle_sent(now, train, idle);
        }
        if let Some(rate) = self.rate {
            self.pacer.handle_sent(now, bytes, rate, idle);
        }
    }

    /// Its turn came with nothing to send, or will: nobody waits for it.
    pub(super) fn rest(&mut self, in_flight_bytes: u64) {
        self.paced = None;
        self.handle_limited(in_flight_bytes);
    }

    /// There was nothing to send, though the path would have taken it.
    pub(super) fn handle_limited(&mut self, in_flight_bytes: u64) {
        if self.watched {
            self.delivery.handle_limited(in_flight_bytes);
        }
    }

    /// A packet arrived; `record` is as it was before that was known.
    pub(super) fn handle_acked(&mut self, now: Instant, record: &Record) {
        if !self.watched {
            return;
        }
        let payload_bytes = u64::from(record.payload_bytes);
        self.delivery.handle_acked(now, record.train, payload_bytes);
        self.report.acked_bytes += payload_bytes;
        self.report.packets += 1;
        self.report.rtt_sum_ns = self.report.rtt_sum_ns.saturating_add(now.since(record.sent));
        if record.fate == Fate::Lost {
            self.report.late_bytes += payload_bytes;
        }
    }

    pub(super) const fn handle_lost(&mut self, record: &Record) {
        self.report.lost_bytes += record.payload_bytes as u64;
    }
}

impl Connection {
    /// Tells the controller what an acknowledgement, or silence, brought, and asks what follows.
    pub(super) fn report(&mut self, now: Instant) {
        let path = &mut self.path;
        if !path.watched {
            return;
        }
        let report = core::mem::take(&mut path.report);
        path.controller.handle_report(&Report {
            now,
            chunk_bytes: self.search.chunk_bytes(),
            in_flight_bytes: self.flight.in_flight_bytes(),
            delivered_bytes: path.delivery.delivered_bytes(),
            rate: path.delivery.sample(now, self.rtt.min_ns()),
            ..report
        });
        path.window_bytes = path.controller.window_bytes().min(path.window_bytes_max);
        path.rate = path.controller.rate();
    }
}
