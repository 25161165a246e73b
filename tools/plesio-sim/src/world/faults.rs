//! How faults begin and end: what happens to hosts at once, and what is wrong with links while they last.

use super::World;
use crate::fault::Fault;
use crate::process::{Process, sideband_address};
use crate::queue::Due;
use plesio::engine::Entrance;

impl World {
    /// How slow a host is, per cent.
    pub(super) fn slowness(&self, host: u8) -> u64 {
        let slow = self.plan.faults.iter().zip(&self.active);
        let slow = slow.filter(|(fault, active)| **active && fault.kind == Fault::Slow && fault.host == host);
        slow.map(|(fault, _)| 100 + 5 * fault.level).max().unwrap_or(100)
    }

    /// Whether somebody who wants to stay is left when one more goes.
    fn stays_without(&self, number: u8) -> bool {
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != usize::from(number));
        let view = self.checker.newest_view();
        others.filter(|(_, host)| host.leaving.is_none() && host.lives_in(view)).count() >= 2
    }

    pub(super) fn begin(&mut self, at: u16) {
        let fault = self.plan.faults[usize::from(at)];
        let number = fault.host;
        let host = &mut self.hosts[usize::from(number)];
        let runs = host.process.is_some();
        let done = match fault.kind {
            Fault::Crash => {
                let allowed = runs && (self.plan.brutal || self.has_quorum(Some(number)));
                if allowed {
                    self.hosts[usize::from(number)].end_process();
                }
                allowed
            }
            Fault::Pause => {
                if runs {
                    host.pauses.push(at);
                }
                runs
            }
            Fault::Clock => {
                let rate_ppb = fault.level as i64 * 5_000 * if at.is_multiple_of(2) { 1 } else { -1 };
                host.clock.change_rate(self.now_ns, rate_ppb);
                self.rearm(number);
                true
            }
            Fault::Join => {
                if !runs {
                    self.enter(number);
                }
                !runs
            }
            Fault::Leave => {
                let free = runs && host.leaving.is_none() && !host.is_stopped();
                let allowed = free && self.stays_without(number) && self.has_quorum(Some(number));
                if allowed {
                    self.hosts[usize::from(number)].leaving = Some((self.now_ns, false));
                    self.with(number, Process::handle_stop);
                }
                allowed
            }
            _ => true,
        };
        self.active[usize::from(at)] = done;
        if done {
            *self.injected.entry(fault.kind).or_default() += 1;
            self.trace.record(self.now_ns, number, 30 + fault.kind as u8, &at.to_le_bytes());
            self.trace.tell(self.now_ns, number, || {
                let until = fault.end_ns as f64 / 1e9;
                format!(
                    "FAULT {} level {} {:?} until {until:.3}",
                    fault.kind.name(),
                    fault.level,
                    fault.scope
                )
            });
            self.impair();
        }
    }

    pub(super) fn end(&mut self, at: u16) {
        let fault = self.plan.faults[usize::from(at)];
        if !std::mem::take(&mut self.active[usize::from(at)]) {
            return;
        }
        let number = fault.host;
        self.trace.record(self.now_ns, number, 60 + fault.kind as u8, &at.to_le_bytes());
        self.trace.tell(self.now_ns, number, || format!("end of {}", fault.kind.name()));
        match fault.kind {
            // Some machines stay down.
            Fault::Crash if fault.level > 15 => self.enter(number),
            Fault::Pause => self.wake(number, at),
            Fault::Clock => {
                let host = &mut self.hosts[usize::from(number)];
                host.clock.change_rate(self.now_ns, host.rate_ppb);
                self.rearm(number);
            }
            _ => {}
        }
        self.impair();
    }

    /// A clock runs differently: what was arranged on it comes at another moment.
    fn rearm(&mut self, number: u8) {
        self.hosts[usize::from(number)].timer_ns = None;
        if !self.hosts[usize::from(number)].is_stopped() {
            self.with(number, |_, _| ());
        }
    }

    fn wake(&mut self, number: u8, at: u16) {
        let host = &mut self.hosts[usize::from(number)];
        host.pauses.retain(|pause| *pause != at);
        if host.is_stopped() || host.process.is_none() {
            return;
        }
        let life = host.life;
        if std::mem::take(&mut host.step_waits) {
            self.queue.push(self.now_ns, Due::Step { host: number, life });
        }
        self.queue.push(self.now_ns, Due::Look { host: number, life });
        let inbox = std::mem::take(&mut host.inbox);
        // Whether timers or datagrams come first is the scheduler's choice.
        let timers_first = self.random.chance(500_000);
        if timers_first {
            self.with(number, Process::handle_timeout);
        }
        for (packet, stamp) in inbox {
            self.with(number, |process, scene| process.handle_packet(scene, packet, stamp));
        }
        self.with(number, Process::handle_timeout);
        self.with(number, Process::handle_turn);
    }

    /// A new process asks to be let in.
    pub(super) fn enter(&mut self, number: u8) {
        let others = (0..self.hosts.len() as u8).filter(|other| *other != number);
        let seeds = others.filter(|other| self.hosts[usize::from(*other)].process.is_some());
        let seeds: Vec<_> = seeds.map(sideband_address).collect();
        self.spawn(number, Entrance::Join(seeds));
    }

    pub(super) fn impair(&mut self) {
        let active: Vec<_> = self
            .plan
            .faults
            .iter()
            .zip(&self.active)
            .filter(|(_, active)| **active)
            .map(|(fault, _)| *fault)
            .collect();
        self.net.impair(|from, to| {
            let mut link = self.links;
            for fault in &active {
                fault.impair(from, to, &mut link);
            }
            link
        });
    }
}
