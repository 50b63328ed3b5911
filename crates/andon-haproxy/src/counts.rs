//! HAProxy's counts as golden signals. Pure.
//!
//! They live in HAProxy under the name of release, epoch and weight that were in force for the request itself, so they outlive
//! Andon, and belong together whenever they are read.

use std::collections::BTreeMap;

use andon_traffic::{Arm, ArmSignals, Latency, Route, ServiceSignals};

use crate::config::{SLOTS, backend};
use crate::seen::{Count, Seen};
use crate::steer::{plain, salt};

/// All epochs of the release (or of the time without one) that the route is in.
pub(crate) fn signals(route: &Route, seen: &Seen) -> Vec<ServiceSignals> {
    let Some(line) = seen.lines.get(&route.service) else { return Vec::new() };
    let salt = salt(route);
    let mut epochs: BTreeMap<(u64, u16), Vec<&Count>> = BTreeMap::new();
    for count in seen.counts.iter().filter(|count| count.salt == salt) {
        epochs.entry((count.epoch, count.weight_bp)).or_default().push(count);
    }
    // Before the first request of an epoch, too, its weight is known.
    if line.salt == salt {
        epochs.entry((line.epoch, line.weight_bp)).or_default();
    }
    let arm = |which: Arm, revision: &andon_traffic::RevisionName, counts: &[&Count]| {
        let slot = line.slot_of(&plain(&revision.0))?;
        let name = backend(&route.service, slot);
        let values = counts.iter().find(|count| count.backend == name).map_or([0; 6], |count| count.values);
        let under_way = seen.backends.get(&name).map_or(0, |backend| backend.under_way);
        Some(arm(which, revision.clone(), values, under_way))
    };
    let of = |((epoch, weight_bp), counts): ((u64, u16), Vec<&Count>)| {
        let stable = arm(Arm::Stable, &route.stable, &counts);
        let candidate = route.candidate.as_ref().and_then(|c| arm(Arm::Candidate, &c.revision, &counts));
        ServiceSignals {
            service: route.service.clone(),
            epoch: epoch - 1,
            weight_bp,
            salt: route.candidate.as_ref().map(|candidate| candidate.salt.clone()),
            estimated: false,
            arms: stable.into_iter().chain(candidate).collect(),
        }
    };
    epochs.into_iter().filter(|((epoch, _), _)| *epoch > 0).map(of).collect()
}

fn arm(arm: Arm, revision: andon_traffic::RevisionName, values: [u64; 6], in_flight: usize) -> ArmSignals {
    let [requests, subjects, errors, one, three, ten] = values;
    ArmSignals {
        revision,
        arm,
        requests,
        abandoned: 0,
        subjects,
        errors,
        reached_errors: [one, three, ten],
        slow_thresholds_us: Vec::new(),
        slow_subjects: Vec::new(),
        // Not counted there: without an event a comparison says nothing.
        came: 0,
        first_slow: Vec::new(),
        good_subjects: 0,
        status: [0, requests.saturating_sub(errors), 0, 0, errors],
        connect_failures: 0,
        timeouts: 0,
        retries: 0,
        bytes_in: 0,
        bytes_out: 0,
        in_flight,
        latency: Latency::default(),
    }
}

/// Requests of a revision under way. None: what HAProxy does for it is not known.
pub(crate) fn in_flight(service: &str, revision: &str, seen: &Seen) -> Option<usize> {
    let line = seen.lines.get(service)?;
    let under_way = |slot: &str| seen.backends.get(&backend(service, slot)).map(|backend| backend.under_way);
    if let Some(slot) = line.slot_of(&plain(revision)) {
        return under_way(slot);
    }
    // It left the map: whatever still drains may be its.
    let led_to =
        |slot: &str| line.stable.0 == slot || line.candidate.as_ref().is_some_and(|(other, _)| other == slot);
    SLOTS.iter().filter(|slot| !led_to(slot)).map(|slot| under_way(slot)).sum()
}
