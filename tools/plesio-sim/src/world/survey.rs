//! What a run is measured by, beside its promises: looked at, and nothing changed.

use super::World;

impl World {
    /// All clocks at one moment, when that is due.
    pub(super) fn survey_clocks(&mut self) {
        let Some(survey) = &mut self.survey else { return };
        if !survey.is_due(self.now_ns) {
            return;
        }
        let awake = self.hosts.iter().filter(|host| !host.is_stopped());
        let clocks = awake.filter_map(|host| host.process.as_ref()?.mesh_time(host.clock.at(self.now_ns)));
        survey.handle_clocks(&clocks.collect::<Vec<_>>());
    }

    /// What living processes have made.
    pub(super) fn survey_end(&mut self) {
        let Some(survey) = &mut self.survey else { return };
        for process in self.hosts.iter().filter_map(|host| host.process.as_ref()) {
            survey.handle_end(process.steps(), true);
        }
    }
}
