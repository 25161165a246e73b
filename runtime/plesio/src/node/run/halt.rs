//! What the operators ordered, to the engine, the worker and the program.

use super::Runner;
use crate::event::What;
use plesio_sideband::HaltState;

impl Runner {
    /// What the operators ordered goes before everything else.
    pub(super) fn take_halt(&mut self) {
        let halt = self.sideband.halt_state();
        let before = std::mem::replace(&mut self.halt, halt);
        let told = |state: &HaltState| (state.halted, state.sequence, state.stored);
        if told(&before) == told(&halt) {
            return;
        }
        self.mailbox.halt(halt.halted);
        self.engine.handle_halt(self.clock.now(), halt.halted);
        let HaltState { halted, sequence, stored, .. } = halt;
        if halted {
            self.say(What::Halted { sequence, stored });
        } else if before.halted {
            self.say(What::Resumed { sequence });
        }
    }
}
