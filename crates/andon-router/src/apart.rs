//! Routers apart from the server: tables on their way there, as snapshots and numbered deltas, and counts on their way back. Sends nothing; whoever has a
//! connection does.
//!
//! A table has a number under the name of the server's process that counted it. Whoever holds a table of the same process is told what changed
//! since; everybody else gets all of it. Counts are told as sums since the router began, so that telling them again adds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::router::Router;
use crate::signals::{ArmSignals, ServiceSignals};
use crate::table::{RevisionName, Route, RouteTable};

/// Routers whose counts are kept. More are a mistake.
const MOST: usize = 100;
/// The longest name of a router or of a process of one.
const NAME: usize = 64;

/// A table on its way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The process that counted.
    pub boot: String,
    /// What it is on top of; 0: of nothing, it is all.
    pub from: u64,
    /// The number of the table that results.
    pub number: u64,
    /// Routes that are new or changed.
    pub routes: Vec<Route>,
    /// Services that have none any more.
    pub gone: Vec<String>,
}

/// A table as a router apart holds it, on its disk too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// As in [`Delta`]; empty: none came yet.
    pub boot: String,
    /// As in [`Delta`].
    pub number: u64,
    routes: BTreeMap<String, Route>,
}

impl Held {
    /// Takes a delta in; false: it is on top of another table, and all has to be asked for.
    pub fn take(&mut self, delta: Delta) -> bool {
        if delta.from == 0 {
            self.routes.clear();
        } else if (&self.boot, self.number) != (&delta.boot, delta.from) {
            return false;
        }
        for gone in &delta.gone {
            self.routes.remove(gone);
        }
        self.routes.extend(delta.routes.into_iter().map(|route| (route.service.clone(), route)));
        (self.boot, self.number) = (delta.boot, delta.number);
        true
    }

    /// As a router is told it.
    pub fn table(&self) -> RouteTable {
        RouteTable { routes: self.routes.values().cloned().collect() }
    }
}

/// What a router apart has counted since it began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Which router; the same after a restart.
    pub router: String,
    /// Which process of it.
    pub process: String,
    /// The table that it holds.
    pub boot: String,
    /// Its number.
    pub number: u64,
    /// All that is remembered.
    pub signals: Vec<ServiceSignals>,
    /// Milliseconds since the last request, by service.
    pub idle_ms: BTreeMap<String, u64>,
    /// Sleeping services that somebody asked for since the last report.
    pub asked: BTreeSet<String>,
}

impl Report {
    /// What this router would report now.
    pub fn of(router: &Router, name: &str, process: &str, held: &Held, asked: BTreeSet<String>) -> Report {
        let idle = |service: &String| Some((service.clone(), router.idle(service)?.as_millis() as u64));
        Report {
            router: name.to_owned(),
            process: process.to_owned(),
            boot: held.boot.clone(),
            number: held.number,
            signals: router.signals(),
            idle_ms: held.routes.keys().filter_map(idle).collect(),
            asked,
        }
    }
}

/// The tables that routers apart are told, and what they report: the server's side.
#[derive(Debug)]
pub struct Apart {
    boot: String,
    routes: Mutex<BTreeMap<String, (u64, Option<Route>)>>,
    number: watch::Sender<u64>,
    reports: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Debug)]
struct Kept {
    last: Report,
    heard: Instant,
    /// Of its processes that have ended.
    earlier: Vec<ServiceSignals>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Apart {
    fn default() -> Apart {
        Apart {
            boot: crate::subject::fresh(),
            routes: Mutex::default(),
            number: watch::Sender::new(0),
            reports: Mutex::default(),
        }
    }
}

impl Apart {
    /// This is the table from now on. The same again has no new number.
    pub fn tell(&self, table: &RouteTable) {
        let mut routes = lock(&self.routes);
        let next = *self.number.borrow() + 1;
        let named: BTreeSet<&str> = table.routes.iter().map(|route| route.service.as_str()).collect();
        let mut changed = false;
        for (service, (number, route)) in routes.iter_mut() {
            if !named.contains(service.as_str()) && route.take().is_some() {
                (*number, changed) = (next, true);
            }
        }
        for route in &table.routes {
            let known = routes.get(&route.service).and_then(|(_, route)| route.as_ref());
            if known != Some(route) {
                routes.insert(route.service.clone(), (next, Some(route.clone())));
                changed = true;
            }
        }
        if changed {
            self.number.send_replace(next);
        }
    }

    /// What is new for who holds this table.
    pub fn since(&self, boot: &str, number: u64) -> Delta {
        let routes = lock(&self.routes);
        let now = *self.number.borrow();
        let from = if boot == self.boot && number <= now { number } else { 0 };
        let new = || routes.iter().filter(|(_, (changed, _))| *changed > from);
        Delta {
            boot: self.boot.clone(),
            from,
            number: now,
            routes: new().filter_map(|(_, (_, route))| route.clone()).collect(),
            gone: new()
                .filter(|(_, (_, route))| route.is_none())
                .map(|(service, _)| service.clone())
                .collect(),
        }
    }

    /// The same, once there is something new, or when this much time has passed.
    pub async fn news(&self, boot: &str, number: u64, within: Duration) -> Delta {
        let mut numbers = self.number.subscribe();
        if boot == self.boot {
            // Time that passes is no trouble: then nothing is new.
            let _ = tokio::time::timeout(within, numbers.wait_for(|now| *now != number)).await;
        }
        self.since(boot, number)
    }

    /// A router reports; the error says why it is not believed.
    pub fn hear(&self, mut report: Report) -> Result<(), String> {
        let named =
            |name: &str| (1..=NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !named(&report.router) || !named(&report.process) {
            return Err(format!("a router and its process have names of 1 to {NAME} letters"));
        }
        {
            let routes = lock(&self.routes);
            report.signals.retain(|signals| routes.contains_key(&signals.service));
        }
        let mut reports = lock(&self.reports);
        if reports.len() >= MOST && !reports.contains_key(&report.router) {
            return Err(format!("there are {MOST} routers already"));
        }
        let heard = Instant::now();
        match reports.get_mut(&report.router) {
            None => {
                drop(reports.insert(report.router.clone(), Kept { last: report, heard, earlier: Vec::new() }))
            }
            Some(kept) => {
                if kept.last.process != report.process {
                    let mut ended = std::mem::take(&mut kept.last.signals);
                    ended.iter_mut().flat_map(|signals| &mut signals.arms).for_each(|arm| arm.in_flight = 0);
                    kept.earlier = merge(std::mem::take(&mut kept.earlier).into_iter().chain(ended));
                }
                (kept.last, kept.heard) = (report, heard);
            }
        }
        Ok(())
    }

    /// What all routers apart have counted, added to this.
    pub fn with(&self, own: Vec<ServiceSignals>) -> Vec<ServiceSignals> {
        let reports = lock(&self.reports);
        if reports.is_empty() {
            return own;
        }
        let theirs = reports.values().flat_map(|kept| kept.earlier.iter().chain(&kept.last.signals));
        merge(own.into_iter().chain(theirs.cloned()))
    }

    /// Whether any router that was heard of within this time may still send requests to a revision, or has some under way.
    pub fn uses(&self, service: &str, revision: &RevisionName, within: Duration) -> bool {
        let now = *self.number.borrow();
        let changed = lock(&self.routes).get(service).map_or(now, |(number, _)| *number);
        let busy = |arm: &ArmSignals| arm.revision == *revision && arm.in_flight > 0;
        lock(&self.reports).values().filter(|kept| kept.heard.elapsed() < within).any(|kept| {
            let (last, behind) = (&kept.last, kept.last.boot != self.boot || kept.last.number < changed);
            behind || last.signals.iter().filter(|s| s.service == service).flat_map(|s| &s.arms).any(busy)
        })
    }

    /// How long ago the last request for a service came to any of them.
    pub fn idle(&self, service: &str) -> Option<Duration> {
        let reports = lock(&self.reports);
        let idle = |kept: &Kept| {
            let at_report = Duration::from_millis(*kept.last.idle_ms.get(service)?);
            Some(at_report.saturating_add(kept.heard.elapsed()))
        };
        reports.values().filter_map(idle).min()
    }
}

/// Adds up what belongs together: one service, one epoch, one weight, the same revisions. Oldest epoch of a service first.
fn merge(all: impl Iterator<Item = ServiceSignals>) -> Vec<ServiceSignals> {
    let mut sums: Vec<ServiceSignals> = Vec::new();
    for signals in all {
        match sums.iter_mut().find(|sum| together(sum, &signals)) {
            None => sums.push(signals),
            Some(sum) => {
                sum.estimated |= signals.estimated;
                sum.arms.iter_mut().zip(signals.arms).for_each(|(sum, arm)| add(sum, arm));
            }
        }
    }
    sums.sort_by(|a, b| a.service.cmp(&b.service).then(a.epoch.cmp(&b.epoch)));
    sums
}

fn together(a: &ServiceSignals, b: &ServiceSignals) -> bool {
    let same = |(a, b): (&ArmSignals, &ArmSignals)| {
        (a.arm, &a.revision, &a.slow_thresholds_us) == (b.arm, &b.revision, &b.slow_thresholds_us)
            && a.slow_subjects.len() == b.slow_subjects.len()
    };
    (&a.service, a.epoch, a.weight_bp, &a.salt) == (&b.service, b.epoch, b.weight_bp, &b.salt)
        && a.arms.len() == b.arms.len()
        && a.arms.iter().zip(&b.arms).all(same)
}

/// Sums add; of latencies, whose quantiles do not, those stay that more was measured for.
fn add(sum: &mut ArmSignals, arm: ArmSignals) {
    let more = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
    more(&mut sum.requests, arm.requests);
    more(&mut sum.abandoned, arm.abandoned);
    more(&mut sum.subjects, arm.subjects);
    more(&mut sum.errors, arm.errors);
    more(&mut sum.connect_failures, arm.connect_failures);
    more(&mut sum.timeouts, arm.timeouts);
    more(&mut sum.retries, arm.retries);
    more(&mut sum.bytes_in, arm.bytes_in);
    more(&mut sum.bytes_out, arm.bytes_out);
    sum.reached_errors.iter_mut().zip(arm.reached_errors).for_each(|(sum, n)| more(sum, n));
    more(&mut sum.came, arm.came);
    more(&mut sum.good_subjects, arm.good_subjects);
    sum.first_slow.iter_mut().zip(arm.first_slow).for_each(|(sum, n)| more(sum, n));
    sum.slow_subjects.iter_mut().zip(arm.slow_subjects).for_each(|(sum, n)| more(sum, n));
    sum.status.iter_mut().zip(arm.status).for_each(|(sum, n)| more(sum, n));
    sum.in_flight = sum.in_flight.saturating_add(arm.in_flight);
    if arm.latency.count > sum.latency.count {
        sum.latency = arm.latency;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{Arm, Latency};

    fn name(text: &str) -> RevisionName {
        RevisionName(text.to_owned())
    }

    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let route = |(service, stable): &(&str, &str)| Route::to(service, &[service], name(stable), vec![]);
        RouteTable { routes: routes.iter().map(route).collect() }
    }

    fn signals(requests: u64, count: u64) -> ServiceSignals {
        let arm = ArmSignals {
            revision: name("a"),
            arm: Arm::Stable,
            requests,
            abandoned: 0,
            subjects: requests,
            errors: 1,
            reached_errors: [1, 0, 0],
            slow_thresholds_us: vec![5],
            slow_subjects: vec![2],
            came: requests,
            first_slow: vec![1],
            good_subjects: requests,
            status: [0, requests, 0, 0, 0],
            connect_failures: 0,
            timeouts: 0,
            retries: 0,
            bytes_in: 0,
            bytes_out: 0,
            in_flight: 1,
            latency: Latency { count, p50_us: count, ..Latency::default() },
        };
        let service = "s".to_owned();
        ServiceSignals { service, epoch: 7, weight_bp: 500, salt: None, estimated: false, arms: vec![arm] }
    }

    fn report(process: &str, requests: u64) -> Report {
        let (router, process) = ("r1".to_owned(), process.to_owned());
        Report { router, process, signals: vec![signals(requests, 1)], ..Report::default() }
    }

    #[test]
    fn who_follows_delta_by_delta_holds_what_who_asks_for_all_holds() {
        let apart = Apart::default();
        let mut follower = Held::default();
        for routes in [
            &[("a", "1"), ("b", "1")][..],
            &[("a", "2"), ("b", "1"), ("c", "1")],
            &[("c", "1")],
            &[("c", "1"), ("a", "3")],
        ] {
            apart.tell(&table(routes));
            let delta = apart.since(&follower.boot, follower.number);
            assert!(follower.take(delta));
            let mut whole = Held::default();
            assert!(whole.take(apart.since("", 0)));
            assert_eq!(follower, whole);
            assert_eq!(follower.table().routes.len(), routes.len());
        }
        // What did not change is not sent again, and a table that is told twice has one number.
        apart.tell(&table(&[("c", "1"), ("a", "3")]));
        let delta = apart.since(&follower.boot, follower.number);
        assert_eq!((delta.number, delta.routes.len(), delta.gone.len()), (follower.number, 0, 0));
    }

    #[test]
    fn a_delta_on_top_of_another_table_is_refused_and_a_new_process_tells_all() {
        let (before, after) = (Apart::default(), Apart::default());
        before.tell(&table(&[("a", "1")]));
        after.tell(&table(&[("a", "1")]));
        after.tell(&table(&[("a", "2")]));
        let mut held = Held::default();
        assert!(held.take(before.since("", 0)));
        assert!(!held.clone().take(Delta { from: 1, ..after.since("", 0) }));
        let delta = after.since(&held.boot, held.number);
        assert_eq!(delta.from, 0);
        assert!(held.take(delta));
        assert_eq!(held.table().routes[0].stable, name("2"));
    }

    #[test]
    fn a_held_table_is_the_same_when_it_comes_back_from_the_disk() {
        let apart = Apart::default();
        apart.tell(&table(&[("a", "1")]));
        let mut held = Held::default();
        held.take(apart.since("", 0));
        let text = serde_json::to_string(&held).unwrap();
        assert_eq!(serde_json::from_str::<Held>(&text).unwrap(), held);
    }

    #[test]
    fn counts_that_are_told_twice_count_once_and_those_of_ended_processes_stay() {
        let apart = Apart::default();
        apart.tell(&table(&[("s", "a")]));
        apart.hear(report("p1", 10)).unwrap();
        apart.hear(report("p1", 10)).unwrap();
        apart.hear(report("p1", 12)).unwrap();
        apart.hear(report("p2", 3)).unwrap();
        let sum = apart.with(vec![signals(100, 9)]);
        assert_eq!(sum.len(), 1);
        let arm = &sum[0].arms[0];
        assert_eq!((arm.requests, arm.errors, arm.reached_errors[0], arm.slow_subjects[0]), (115, 3, 3, 6));
        assert_eq!((arm.came, arm.first_slow[0], arm.good_subjects), (115, 3, 115));
        assert_eq!((arm.in_flight, arm.latency.p50_us), (2, 9));
        assert!(apart.hear(Report::default()).is_err());
    }

    #[test]
    fn an_instance_is_used_until_every_router_has_the_table_without_it_and_nothing_under_way() {
        let apart = Apart::default();
        let (a, long) = (name("a"), Duration::from_secs(60));
        assert!(!apart.uses("s", &a, long));
        apart.tell(&table(&[("s", "a")]));
        let told = |number, in_flight| {
            let mut report = Report { boot: apart.boot.clone(), number, ..report("p", 1) };
            report.signals[0].arms[0].in_flight = in_flight;
            apart.hear(report).unwrap();
        };
        told(1, 0);
        apart.tell(&table(&[("s", "b")]));
        assert!(apart.uses("s", &a, long), "it still holds the old table");
        told(2, 1);
        assert!(apart.uses("s", &a, long), "a request is under way");
        told(2, 0);
        assert!(!apart.uses("s", &a, long));
        told(1, 1);
        assert!(!apart.uses("s", &a, Duration::ZERO), "who is silent for so long holds nothing up");
    }
}
