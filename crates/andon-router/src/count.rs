//! Counting golden signals: one lock for each service, atomics for what needs none. What the counts mean is said in
//! `signals`.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::signals::{Arm, ArmSignals, ERROR_LEVELS, Latency, ServiceSignals};
use crate::table::{RevisionName, Route};

/// Epochs that are remembered for each service.
const EPOCHS: usize = 32;
/// Subjects that are told apart for each service; beyond, a random part of them stands for all.
const SUBJECTS: usize = 1_000_000;
/// The longest latency that is told apart, in µs.
const LONGEST_US: u64 = 60_000_000;

/// Counters that need no lock.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub connect_failures: AtomicU64,
    pub timeouts: AtomicU64,
    pub retries: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

impl Tally {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// How a request ended, as far as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    /// An answer began with this status.
    Answered(u16),
    /// The client went away first.
    Abandoned,
}

impl Place {
    /// The key of what is counted in no epoch.
    pub const NOWHERE: u64 = u64::MAX;
}

/// Where a request is counted: fixed when it is assigned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub key: u64,
    pub arm: Arm,
    pub subject: u64,
}

struct ArmState {
    revision: RevisionName,
    slow_us: Vec<u64>,
    tally: Arc<Tally>,
    requests: u64,
    abandoned: u64,
    subjects: u64,
    errors: u64,
    reached_errors: [u64; 3],
    slow_subjects: Vec<u64>,
    status: [u64; 5],
    latency: Latencies,
}

impl ArmState {
    fn new(revision: &RevisionName, slow_us: &[u64]) -> ArmState {
        ArmState {
            revision: revision.clone(),
            slow_us: slow_us.to_vec(),
            tally: Arc::default(),
            requests: 0,
            abandoned: 0,
            subjects: 0,
            errors: 0,
            reached_errors: [0; 3],
            slow_subjects: vec![0; slow_us.len()],
            status: [0; 5],
            latency: Latencies::Live(Histogram::new(3).expect("3 digits are a valid precision")),
        }
    }
}

/// A histogram grows with its longest value up to 150 KB: only the last two epochs keep theirs.
enum Latencies {
    Live(Histogram<u32>),
    Frozen(Latency),
}

struct Epoch {
    key: u64,
    number: u64,
    weight_bp: u16,
    salt: Option<String>,
    release: u64,
    arms: Vec<ArmState>,
}

impl Epoch {
    fn is(&self, route: &Route) -> bool {
        let arm = |at: usize, revision: &RevisionName, slow: &[u64]| {
            self.arms.get(at).is_some_and(|arm| arm.revision == *revision && arm.slow_us == slow)
        };
        let candidate = match &route.candidate {
            None => self.arms.len() == 1,
            Some(c) => {
                self.weight_bp == c.weight_bp
                    && self.salt.as_ref() == Some(&c.salt)
                    && arm(1, &c.revision, &route.candidate_slow_thresholds_us)
            }
        };
        candidate && self.number == route.epoch && arm(0, &route.stable, &route.slow_thresholds_us)
    }
}

#[derive(Default)]
struct Subject {
    epoch: u64,
    errors: u32,
    slow: u32,
}

#[derive(Default)]
struct State {
    epochs: VecDeque<Epoch>,
    next_key: u64,
    release: u64,
    subjects: HashMap<u64, Subject, Plain>,
    /// Only subjects whose hash has zeros in this many bits, from bit 32 up, are told apart.
    thinning: u32,
}

/// The keys are hashes already.
#[derive(Default, Clone)]
struct Plain;
impl std::hash::BuildHasher for Plain {
    type Hasher = Same;
    fn build_hasher(&self) -> Same {
        Same(0)
    }
}
struct Same(u64);
impl std::hash::Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The signals of one service.
#[derive(Default)]
pub(crate) struct Signals {
    state: Mutex<State>,
}

impl Signals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts go to the epoch of this route from now on; the same epoch again goes on counting. Gives its key and the
    /// tallies of its arms.
    pub fn enter(&self, route: &Route) -> (u64, Vec<Arc<Tally>>) {
        let mut state = self.lock();
        let known = state.epochs.back().filter(|epoch| epoch.is(route));
        if let Some(epoch) = known {
            return (epoch.key, epoch.arms.iter().map(|arm| arm.tally.clone()).collect());
        }
        let salt = route.candidate.as_ref().map(|candidate| candidate.salt.clone());
        if state.epochs.back().is_none_or(|epoch| epoch.salt != salt) {
            state.release += 1;
            state.subjects = HashMap::default();
            state.thinning = 0;
        }
        state.next_key += 1;
        let mut arms = vec![ArmState::new(&route.stable, &route.slow_thresholds_us)];
        arms.extend(
            route.candidate.iter().map(|c| ArmState::new(&c.revision, &route.candidate_slow_thresholds_us)),
        );
        let tallies = arms.iter().map(|arm| arm.tally.clone()).collect();
        let weight_bp = route.candidate.as_ref().map_or(0, |candidate| candidate.weight_bp);
        let (key, release) = (state.next_key, state.release);
        let old = state.epochs.iter_mut().rev().skip(1).flat_map(|epoch| &mut epoch.arms);
        old.for_each(|arm| arm.latency = Latencies::Frozen(arm.latency.read()));
        if state.epochs.len() == EPOCHS {
            state.epochs.pop_front();
        }
        state.epochs.push_back(Epoch { key, number: route.epoch, weight_bp, salt, release, arms });
        (key, tallies)
    }

    /// Counts a request whose answer began, or never will.
    pub fn count(&self, place: Place, ended: Ended, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US);
        let error = matches!(ended, Ended::Answered(500..));
        self.lock().with(place, |arm, subject, weight| {
            match ended {
                Ended::Answered(status) => {
                    arm.requests += 1;
                    arm.status[usize::from(status / 100).clamp(1, 5) - 1] += 1;
                }
                Ended::Abandoned => arm.abandoned += 1,
            }
            // An abandoned request was at least this slow: leaving it out would make a slow revision look fast.
            if let Latencies::Live(histogram) = &mut arm.latency {
                // It grows as needed; `saturating_record` would not let it.
                histogram.record(micros).unwrap_or_else(|_| histogram.saturating_record(micros));
            }
            if error {
                arm.errors += 1;
            }
            let Some((subject, new)) = subject else { return };
            if new {
                arm.subjects += weight;
            }
            if error {
                fail(arm, subject);
            }
            for (at, threshold) in arm.slow_us.iter().enumerate() {
                if micros > *threshold && subject.slow & (1 << at) == 0 {
                    subject.slow |= 1 << at;
                    arm.slow_subjects[at] += 1;
                }
            }
        });
    }

    /// An answer that had begun well broke off.
    pub fn broke_off(&self, place: Place) {
        self.lock().with(place, |arm, subject, _| {
            arm.errors += 1;
            if let Some((subject, _)) = subject {
                fail(arm, subject);
            }
        });
    }

    /// All epochs remembered, oldest first.
    pub fn read(&self, service: &str, in_flight: impl Fn(&RevisionName) -> usize) -> Vec<ServiceSignals> {
        let state = self.lock();
        let estimated = state.thinning > 0;
        let arm = |arm: &ArmState, side: Arm| {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            ArmSignals {
                revision: arm.revision.clone(),
                arm: side,
                requests: arm.requests,
                abandoned: arm.abandoned,
                subjects: arm.subjects,
                errors: arm.errors,
                reached_errors: arm.reached_errors,
                slow_thresholds_us: arm.slow_us.clone(),
                slow_subjects: arm.slow_subjects.clone(),
                status: arm.status,
                connect_failures: load(&arm.tally.connect_failures),
                timeouts: load(&arm.tally.timeouts),
                retries: load(&arm.tally.retries),
                bytes_in: load(&arm.tally.bytes_in),
                bytes_out: load(&arm.tally.bytes_out),
                in_flight: in_flight(&arm.revision),
                latency: arm.latency.read(),
            }
        };
        let epoch = |epoch: &Epoch| ServiceSignals {
            service: service.to_owned(),
            epoch: epoch.number,
            weight_bp: epoch.weight_bp,
            salt: epoch.salt.clone(),
            estimated: estimated && epoch.release == state.release,
            arms: epoch
                .arms
                .iter()
                .zip([Arm::Stable, Arm::Candidate])
                .map(|(a, side)| arm(a, side))
                .collect(),
        };
        state.epochs.iter().map(epoch).collect()
    }
}

fn fail(arm: &mut ArmState, subject: &mut Subject) {
    subject.errors = subject.errors.saturating_add(1);
    if let Some(at) = ERROR_LEVELS.iter().position(|level| *level == subject.errors) {
        arm.reached_errors[at] += 1;
    }
}

impl Latencies {
    fn read(&self) -> Latency {
        let histogram = match self {
            Latencies::Frozen(latency) => return *latency,
            Latencies::Live(histogram) if histogram.is_empty() => return Latency::default(),
            Latencies::Live(histogram) => histogram,
        };
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p75_us: at(0.75),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            max_us: histogram.max(),
        }
    }
}

/// Bits from the middle: the map finds its places by the low ones and tells neighbours apart by the high ones.
fn stays(subject: u64, thinning: u32) -> bool {
    (subject >> 32) & ((1 << thinning) - 1) == 0
}

impl State {
    /// Gives the arm, the subject if it is told apart (and whether this epoch sees it for the first time), and how many
    /// subjects it stands for.
    fn with(&mut self, place: Place, act: impl FnOnce(&mut ArmState, Option<(&mut Subject, bool)>, u64)) {
        let Some(epoch) = self.epochs.iter_mut().rev().find(|epoch| epoch.key == place.key) else { return };
        // Those who began before this release are not witnesses of it.
        let current = epoch.release == self.release;
        let Some(arm) = epoch.arms.get_mut(place.arm as usize) else { return };
        if !current || !stays(place.subject, self.thinning) {
            return act(arm, None, 1);
        }
        let subject = self.subjects.entry(place.subject).or_default();
        let new = subject.epoch < place.key;
        subject.epoch = subject.epoch.max(place.key);
        act(arm, Some((subject, new)), 1 << self.thinning);
        if self.subjects.len() > SUBJECTS {
            self.thinning += 1;
            let thinning = self.thinning;
            self.subjects.retain(|subject, _| stays(*subject, thinning));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Candidate;

    fn route(epoch: u64, weight_bp: u16, salt: &str) -> Route {
        let name = |text: &str| RevisionName(text.to_owned());
        Route {
            candidate: Some(Candidate { revision: name("b"), weight_bp, salt: salt.to_owned() }),
            epoch,
            slow_thresholds_us: vec![1000],
            candidate_slow_thresholds_us: vec![2000],
            ..Route::to("s", &["h"], name("a"), vec![])
        }
    }

    fn micros(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn a_user_who_fails_ten_times_is_one_witness() {
        let signals = Signals::default();
        let (key, _) = signals.enter(&route(1, 500, "R1"));
        for _ in 0..10 {
            signals.count(Place { key, arm: Arm::Candidate, subject: 7 }, Ended::Answered(500), micros(10));
        }
        let seen = signals.read("s", |_| 0).remove(0);
        assert_eq!(seen.weight_bp, 500);
        assert_eq!((seen.arms[1].errors, seen.arms[1].subjects), (10, 1));
        assert_eq!(seen.arms[1].reached_errors, [1, 1, 1]);
        assert_eq!(seen.arms[0].subjects, 0);
    }

    #[test]
    fn a_user_is_a_witness_once_in_a_release_whatever_the_weight_does() {
        let signals = Signals::default();
        let (one, _) = signals.enter(&route(1, 500, "R1"));
        signals.count(
            Place { key: one, arm: Arm::Candidate, subject: 7 },
            Ended::Answered(502),
            micros(5000),
        );
        let (two, _) = signals.enter(&route(2, 2500, "R1"));
        signals.count(
            Place { key: two, arm: Arm::Candidate, subject: 7 },
            Ended::Answered(502),
            micros(5000),
        );
        let seen = signals.read("s", |_| 0);
        assert_eq!(seen.iter().map(|s| s.arms[1].subjects).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(seen.iter().map(|s| s.arms[1].reached_errors[0]).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(seen.iter().map(|s| s.arms[1].slow_subjects[0]).collect::<Vec<_>>(), [1, 0]);
        // The next release begins with a clean slate, and a late answer of the last one is no witness of it.
        let (three, _) = signals.enter(&route(3, 500, "R2"));
        signals.count(Place { key: two, arm: Arm::Candidate, subject: 9 }, Ended::Answered(502), micros(10));
        signals.count(
            Place { key: three, arm: Arm::Candidate, subject: 7 },
            Ended::Answered(502),
            micros(10),
        );
        let seen = signals.read("s", |_| 0);
        assert_eq!(seen.iter().map(|s| s.arms[1].reached_errors[0]).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(seen.iter().map(|s| s.arms[1].errors).collect::<Vec<_>>(), [1, 2, 1]);
    }

    #[test]
    fn the_same_route_again_goes_on_counting() {
        let signals = Signals::default();
        let (first, _) = signals.enter(&route(1, 500, "R1"));
        assert_eq!(signals.enter(&route(1, 500, "R1")).0, first);
        // A weight that changes without a new epoch must not mix two weights in one count.
        assert_ne!(signals.enter(&route(1, 600, "R1")).0, first);
    }

    #[test]
    fn an_abandoned_request_counts_as_slow_as_it_was() {
        let signals = Signals::default();
        let (key, _) = signals.enter(&route(1, 500, "R1"));
        signals.count(Place { key, arm: Arm::Stable, subject: 1 }, Ended::Abandoned, Duration::from_secs(9));
        let arm = signals.read("s", |_| 0).remove(0).arms.remove(0);
        assert_eq!((arm.requests, arm.abandoned, arm.errors), (0, 1, 0));
        assert_eq!(arm.slow_subjects, [1]);
        assert!(arm.latency.p50_us > 8_900_000);
    }

    #[test]
    fn an_old_epoch_keeps_its_quantiles() {
        let signals = Signals::default();
        for epoch in 1..=4 {
            let (key, _) = signals.enter(&route(epoch, 500, "R1"));
            signals.count(
                Place { key, arm: Arm::Stable, subject: 1 },
                Ended::Answered(200),
                micros(epoch * 100),
            );
        }
        let medians: Vec<u64> = signals.read("s", |_| 0).iter().map(|s| s.arms[0].latency.p50_us).collect();
        assert_eq!(medians, [100, 200, 300, 400]);
    }

    #[test]
    fn beyond_a_million_subjects_a_part_stands_for_all() {
        let signals = Signals::default();
        let (key, _) = signals.enter(&route(1, 500, "R1"));
        let total = 2_500_000u64;
        for n in 0..total {
            let subject =
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            signals.count(Place { key, arm: Arm::Stable, subject }, Ended::Answered(200), micros(10));
        }
        let seen = signals.read("s", |_| 0).remove(0);
        assert!(seen.estimated);
        let off = seen.arms[0].subjects as f64 / total as f64 - 1.0;
        assert!(off.abs() < 0.02, "estimate is off by {off}");
        assert_eq!(seen.arms[0].requests, total);
    }
}
