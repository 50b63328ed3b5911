//! What is known of backups and drills, as the journal tells it, and whether the last drill was worse than those before. Makes neither.

use andon_model::event::{Event, Recorded};
use andon_model::{Span, Time};
use serde::{Deserialize, Serialize};

/// Backups and drills remembered.
const REMEMBERED: usize = 50;
/// A drill that takes this much of the usual time, in hundredths, is red.
const SLOWER: u64 = 120;
/// Less than this is the machine's mood.
const NOTICED: Span = Span::secs(5);

/// A backup, as the journal tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// When.
    pub at: Time,
    /// Its name below `backups`.
    pub name: String,
    /// The last event in it.
    pub seq: u64,
    /// Its size.
    pub bytes: u64,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// When it ended.
    pub at: Time,
    /// The backup that it used.
    pub backup: String,
    /// Until the server was back.
    pub opened: Span,
    /// Until every environment was as before; none: it was not.
    pub served: Option<Span>,
    /// Environments made again.
    pub environments: u32,
    /// Instances started.
    pub instances: u32,
    /// What went wrong.
    pub why: Option<String>,
}

/// All of it, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Backups.
    pub backups: Vec<Made>,
    /// Drills.
    pub drills: Vec<Drill>,
}

impl Recovery {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::BackupMade { name, seq, bytes } => {
                push(&mut self.backups, Made { at, name: name.clone(), seq: *seq, bytes: *bytes });
            }
            Event::DrillFinished { backup, opened, served, environments, instances, why } => {
                let drill = Drill {
                    at,
                    backup: backup.clone(),
                    opened: *opened,
                    served: *served,
                    environments: *environments,
                    instances: *instances,
                    why: why.clone(),
                };
                push(&mut self.drills, drill);
            }
            _ => {}
        }
    }

    /// Why the drill at this place is red: it failed, or took a fifth longer than the middle one of those before.
    pub fn trouble(&self, place: usize) -> Option<String> {
        let drill = self.drills.get(place)?;
        let Some(served) = drill.served else {
            return Some(drill.why.clone().unwrap_or_else(|| "not everything came back".into()));
        };
        let mut before: Vec<Span> = self.drills[..place].iter().filter_map(|drill| drill.served).collect();
        before.sort();
        let usual = before.get(before.len() / 2)?;
        let slower = served.0 * 100 > usual.0 * SLOWER && served.0 > usual.0 + NOTICED.0;
        slower.then(|| format!("it took {served}, and {usual} is usual"))
    }
}

fn push<T>(list: &mut Vec<T>, one: T) {
    if list.len() == REMEMBERED {
        list.remove(0);
    }
    list.push(one);
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::Actor;

    #[test]
    fn a_drill_is_red_when_it_fails_or_takes_a_fifth_longer_than_usual() {
        let mut recovery = Recovery::default();
        for served in [Some(30), Some(31), Some(32), Some(33), Some(37), None] {
            let event = Event::DrillFinished {
                backup: "b".into(),
                opened: Span::secs(1),
                served: served.map(Span::secs),
                environments: 1,
                instances: 1,
                why: None,
            };
            recovery.evolve(&Recorded { seq: 1, at: Time(0), by: Actor::line("t"), project: None, event });
        }
        let red: Vec<bool> = (0..6).map(|place| recovery.trouble(place).is_some()).collect();
        assert_eq!(red, [false, false, false, false, false, true]);
        // A fifth more than the middle one, which is 32 s.
        recovery.drills[4].served = Some(Span::secs(39));
        assert!(recovery.trouble(4).is_some());
        recovery.drills.iter_mut().take(4).for_each(|drill| drill.served = Some(Span::secs(1)));
        recovery.drills[4].served = Some(Span::secs(5));
        assert_eq!(recovery.trouble(4), None, "four seconds are the machine's mood");
    }
}
