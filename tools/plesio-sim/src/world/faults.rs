//! How faults begin and end: what happens to hosts at once, and what is wrong with links while they last.

use super::World;
use crate::fault::Fault;
use crate::mass::End;
use crate::phase::Phase;
use crate::plan::Scope;
use crate::process::{Lies, Process, sideband_address};
use crate::queue::Due;
use crate::trace::Happened;
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

    /// A fault's time has come: it strikes, or begins to wait.
    pub(super) fn begin(&mut self, at: u16) {
        let fault = self.plan.faults[usize::from(at)];
        if fault.aim.is_none() && fault.patience_ns == 0 {
            self.strike(at);
            return;
        }
        self.armed.push(at);
        self.looked = None;
        self.queue.push(self.now_ns + fault.patience_ns, Due::Strike { fault: at });
        if fault.kind == Fault::Restart {
            self.impair();
        }
    }

    /// It has waited long enough.
    pub(super) fn strike_late(&mut self, at: u16) {
        if self.armed.contains(&at) {
            self.armed.retain(|armed| *armed != at);
            self.strike(at);
        }
    }

    /// Faults that wait for what the mesh does just now.
    pub(super) fn strike_armed(&mut self) {
        if self.armed.is_empty() {
            return;
        }
        let phases = self.phases();
        if self.looked.replace(phases) == Some(phases) {
            return;
        }
        for at in self.armed.clone() {
            let fault = self.plan.faults[usize::from(at)];
            if fault.aim.is_some_and(|aim| phases.contains(aim)) && self.strike(at) {
                self.armed.retain(|armed| *armed != at);
                return self.strike_armed();
            }
        }
    }

    /// Whether it could be done.
    fn strike(&mut self, at: u16) -> bool {
        let phases = self.phases();
        let done = self.try_strike(at);
        self.active[usize::from(at)] = done;
        if done {
            let fault = self.plan.faults[usize::from(at)];
            self.queue.push((self.now_ns + fault.lasts_ns).min(self.plan.quiet_ns), Due::End { fault: at });
            *self.injected.entry(fault.kind).or_default() += 1;
            self.coverage.hit(fault.kind, phases);
            self.trace.record(self.now_ns, fault.host, 30 + fault.kind as u8, &at.to_le_bytes());
            self.trace.happen(self.now_ns, fault.host, || Some(Happened::Begun(fault.kind)));
            self.trace.tell(self.now_ns, fault.host, || {
                let doing: Vec<&str> = phases.iter().map(Phase::name).collect();
                format!(
                    "FAULT {} level {} {:?} for {:.3} s, while {}",
                    fault.kind.name(),
                    fault.level,
                    fault.scope,
                    fault.lasts_ns as f64 / 1e9,
                    doing.join(", ")
                )
            });
            self.impair();
        }
        done
    }

    fn try_strike(&mut self, at: u16) -> bool {
        let fault = self.plan.faults[usize::from(at)];
        let number = fault.host;
        let runs = self.hosts[usize::from(number)].process.is_some();
        match fault.kind {
            Fault::Crash | Fault::Restart => self.kill(number),
            Fault::Exit => {
                let done = self.kill(number);
                self.hosts[usize::from(number)].refuses |= done;
                done
            }
            Fault::Proposer => {
                let victim = self.proposer();
                let done = victim.is_some_and(|victim| self.kill(victim));
                if let Some(victim) = victim.filter(|_| done) {
                    self.plan.faults[usize::from(at)].host = victim;
                }
                done
            }
            Fault::Pause => {
                if runs {
                    self.hosts[usize::from(number)].pauses.push(at);
                }
                runs
            }
            Fault::Starve => {
                if runs {
                    self.hosts[usize::from(number)].pauses.push(at);
                    self.queue.push(self.now_ns + SLICE_NS, Due::Slice { fault: at, runs: true });
                }
                runs
            }
            Fault::Suspend => {
                if runs {
                    let host = &mut self.hosts[usize::from(number)];
                    host.asleep += 1;
                    host.clock.stop(self.now_ns);
                }
                runs
            }
            Fault::Clock => {
                let most_ppb = if fault.level > 90 { 10_000_000 } else { fault.level as i64 * 500_000 / 90 };
                let rate_ppb = most_ppb * if at.is_multiple_of(2) { 1 } else { -1 };
                self.hosts[usize::from(number)].clock.change_rate(self.now_ns, rate_ppb);
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
                let host = &self.hosts[usize::from(number)];
                let free = runs && host.leaving.is_none() && !host.is_stopped();
                let allowed = free && self.stays_without(number) && self.has_quorum(Some(number));
                if allowed {
                    self.hosts[usize::from(number)].leaving = Some((self.now_ns, false));
                    self.with(number, Process::handle_stop);
                }
                allowed
            }
            Fault::Buffers => {
                self.hosts[usize::from(number)].buffers = Some(2 + fault.level as u32 / 4);
                true
            }
            Fault::Split => {
                let side = self.half(fault.level);
                self.plan.faults[usize::from(at)].scope = Scope::Between(side);
                true
            }
            Fault::Accuse | Fault::Stall | Fault::Forge | Fault::Equivocate | Fault::Suppress => {
                self.lie(number, fault.kind)
            }
            Fault::Halt => self.order_halt(number),
            _ => true,
        }
    }

    /// Ends a host's process without a word, if a quorum lives on, or if nobody cares.
    fn kill(&mut self, number: u8) -> bool {
        let runs = self.hosts[usize::from(number)].process.is_some();
        let allowed = runs && (self.plan.brutal || self.has_quorum(Some(number)));
        if allowed {
            self.watch_for(number);
            self.bury(number, End::Killed);
            self.note_ended(number);
        }
        allowed
    }

    /// Who is to see that this host's process is gone: whoever sits beside it in the newest view, and acts.
    fn watch_for(&mut self, number: u8) {
        let view = self.checker.newest_view();
        let victim = &self.hosts[usize::from(number)];
        if !victim.lives_in(view) || victim.is_stopped() {
            return;
        }
        let key = victim.key();
        let others = self.hosts.iter().filter(|host| host.key() != key && !host.is_stopped());
        let others = others.filter(|host| host.lives_in(view)).filter_map(|host| host.process.as_ref());
        self.watch.handle_killed(self.now_ns, key, others.map(Process::number));
    }

    /// Whose ballot runs, or who is next after the one that ran last.
    fn proposer(&self) -> Option<u8> {
        let (now, last) = self.phases.proposers(self.now_ns, self.checker.log_len());
        if now.is_some() {
            return now;
        }
        let view = self.checker.newest_view();
        let before = last.and_then(|host| view.index_of(self.hosts[usize::from(host)].key()));
        let next = before.map_or(0, |member| usize::from(member) + 1) % view.members.len().max(1);
        let key = view.members.get(next)?.key;
        self.hosts.iter().position(|host| host.key() == key).map(|host| host as u8)
    }

    /// One half of the newest view's hosts, bit by bit; of the others every second one.
    fn half(&self, level: u64) -> u32 {
        let view = self.checker.newest_view();
        let (mut member, mut other, mut side) = (level as usize, 0, 0);
        let (members, stride) = (view.members.len(), if level.is_multiple_of(2) { 1 } else { 2 });
        for (number, host) in self.hosts.iter().enumerate() {
            let inside = if view.index_of(host.key()).is_some() {
                member += 1;
                // Neighbours, or every second one; of an odd number the larger part.
                if stride == 1 { member % members < members / 2 } else { member.is_multiple_of(2) }
            } else {
                other += 1;
                other % 2 == 1
            };
            side |= u32::from(inside) << number;
        }
        side
    }

    /// Lets a host's process lie, as long as its like are no majority.
    fn lie(&mut self, number: u8, kind: Fault) -> bool {
        let liars = self.hosts.iter().filter(|host| host.lies != Lies::default()).count();
        let host = &mut self.hosts[usize::from(number)];
        let more = usize::from(host.lies == Lies::default());
        if liars + more > (self.checker.newest_view().members.len().saturating_sub(1)) / 2 {
            return false;
        }
        let told = telling(&mut host.lies, kind);
        !std::mem::replace(told, true)
    }

    /// A starved host gets its slice, or has had it.
    pub(super) fn slice(&mut self, at: u16, runs: bool) {
        if !self.active[usize::from(at)] {
            return;
        }
        let fault = self.plan.faults[usize::from(at)];
        let share_ns = SLICE_NS * (5 + fault.level / 4) / 100;
        let next_ns = if runs {
            self.wake(fault.host, at);
            share_ns
        } else {
            self.hosts[usize::from(fault.host)].pauses.push(at);
            SLICE_NS - share_ns
        };
        self.queue.push(self.now_ns + next_ns, Due::Slice { fault: at, runs: !runs });
    }

    pub(super) fn end(&mut self, at: u16) {
        let fault = self.plan.faults[usize::from(at)];
        if !std::mem::take(&mut self.active[usize::from(at)]) {
            return;
        }
        let number = fault.host;
        self.trace.record(self.now_ns, number, 60 + fault.kind as u8, &at.to_le_bytes());
        self.trace.happen(self.now_ns, number, || Some(Happened::Ended(fault.kind)));
        self.trace.tell(self.now_ns, number, || format!("end of {}", fault.kind.name()));
        match fault.kind {
            // Some machines stay down.
            Fault::Crash | Fault::Proposer | Fault::Exit if fault.level > 15 => self.enter_anew(number),
            Fault::Restart => self.enter_anew(number),
            Fault::Pause | Fault::Starve => self.wake(number, at),
            Fault::Suspend => {
                let host = &mut self.hosts[usize::from(number)];
                host.asleep = host.asleep.saturating_sub(1);
                host.clock.go_on(self.now_ns);
                host.timer_ns = None;
                self.wake(number, at);
                self.rearm(number);
            }
            Fault::Clock => {
                let host = &mut self.hosts[usize::from(number)];
                host.clock.change_rate(self.now_ns, host.rate_ppb);
                self.rearm(number);
            }
            Fault::Buffers => self.hosts[usize::from(number)].buffers = None,
            Fault::Halt => self.order_resume(),
            Fault::Accuse | Fault::Stall | Fault::Forge | Fault::Equivocate | Fault::Suppress => {
                *telling(&mut self.hosts[usize::from(number)].lies, fault.kind) = false;
            }
            _ => {}
        }
        self.impair();
    }

    /// A host whose process died gets another one, unless it has one already.
    fn enter_anew(&mut self, number: u8) {
        if self.hosts[usize::from(number)].process.is_none() {
            self.enter(number);
        }
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
        for host in 0..self.hosts.len() as u8 {
            self.net.narrow(host, active.iter().filter_map(|fault| fault.uplink(host)).min());
        }
        let waiting: Vec<_> = self.armed.iter().map(|at| self.plan.faults[usize::from(*at)]).collect();
        self.net.impair(|from, to| {
            let mut link = self.links;
            for fault in &active {
                fault.impair(from, to, &mut link);
            }
            waiting.iter().for_each(|fault| fault.hold_back(from, &mut link));
            link
        });
        self.note_disturbed();
    }
}

/// Which lie a kind of fault is.
fn telling(lies: &mut Lies, kind: Fault) -> &mut bool {
    match kind {
        Fault::Accuse => &mut lies.accuse,
        Fault::Stall => &mut lies.stall,
        Fault::Forge => &mut lies.forge,
        Fault::Suppress => &mut lies.suppress,
        _ => &mut lies.equivocate,
    }
}

/// What a starved host gets its part of.
const SLICE_NS: u64 = 100_000_000;
