//! How busy and how quick one backend is, and which of two is asked. Knows no connection.
//!
//! The cost of a backend is its requests under way times the time that its answers take, where a slow answer counts at once and is forgotten slowly (peak EWMA,
//! after Finagle). Of all backends two are drawn and the cheaper one is asked: nearly as good as knowing all, and no crowd runs to the one that was best a moment
//! ago (M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::pool::Backend;

/// After this long, a measured time weighs 1/e of what it did.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// What a backend is taken for that has not answered yet, in microseconds.
const UNKNOWN_US: u64 = 10_000;
/// A backend that is new, or back, gets its full share after this long, and a tenth at first.
const SLOW_START: Duration = Duration::from_secs(10);

/// All times are counted from here, in microseconds.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_us() -> u64 {
    BEGAN.elapsed().as_micros() as u64
}

/// Requests under way at a backend, and how long its answers take.
pub(crate) struct Load {
    in_flight: AtomicUsize,
    /// Microseconds; 0 until the first answer.
    took: AtomicU64,
    /// When `took` was measured.
    measured: AtomicU64,
    /// When it came into rotation.
    began: AtomicU64,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            in_flight: AtomicUsize::new(0),
            took: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            began: AtomicU64::new(now_us()),
        }
    }
}

impl Load {
    /// It comes into rotation (again): little is sent to it at first.
    pub fn begin(&self) {
        self.began.store(now_us(), Ordering::Relaxed);
    }

    fn measure(&self, took: Duration) {
        let (now, took) = (now_us(), (took.as_micros() as u64).max(1));
        let decayed = self.decayed(now).unwrap_or(0.0);
        let next = if took as f64 >= decayed {
            took as f64
        } else {
            // The old value has decayed already; what is left of its weight goes to the new one.
            let kept = self.kept(now);
            self.took.load(Ordering::Relaxed) as f64 * kept + took as f64 * (1.0 - kept)
        };
        self.took.store(next as u64, Ordering::Relaxed);
        self.measured.store(now, Ordering::Relaxed);
    }

    fn kept(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.measured.load(Ordering::Relaxed));
        (-(age as f64) / FORGOTTEN.as_micros() as f64).exp()
    }

    fn decayed(&self, now: u64) -> Option<f64> {
        let took = self.took.load(Ordering::Relaxed);
        (took > 0).then(|| took as f64 * self.kept(now))
    }

    /// What one more request would cost here.
    fn cost(&self, now: u64) -> f64 {
        let took = self.decayed(now).unwrap_or(UNKNOWN_US as f64).max(1.0);
        let age = now.saturating_sub(self.began.load(Ordering::Relaxed)) as f64;
        let share = (age / SLOW_START.as_micros() as f64).clamp(0.1, 1.0);
        took * (self.in_flight.load(Ordering::Relaxed) + 1) as f64 / share
    }
}

/// A request under way at a backend, until dropped.
pub(crate) struct Loaded {
    backend: Arc<Backend>,
    began: Instant,
}

impl Loaded {
    pub fn on(backend: &Arc<Backend>) -> Loaded {
        backend.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Loaded { backend: backend.clone(), began: Instant::now() }
    }

    /// Its answer has begun.
    pub fn answered(self) {
        self.backend.load.measure(self.began.elapsed());
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.backend.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cheaper of two that `draw` chooses among those that were not tried and are not left alone. If all are left alone, trying one is better than refusing.
pub(crate) fn pick(
    backends: &[Arc<Backend>],
    tried: impl Fn(&Backend) -> bool,
    draw: u64,
) -> Option<&Arc<Backend>> {
    if let [only] = backends {
        return (!tried(only)).then_some(only);
    }
    let count = backends.len() as u64;
    if count == 0 {
        return None;
    }
    // The first from the draw's lower half, the second among the others from its upper half.
    let first = (draw & 0xffff_ffff) % count;
    let second = (first + 1 + (draw >> 32) % (count - 1)) % count;
    let (first, second) = (&backends[first as usize], &backends[second as usize]);
    let good = |backend: &Arc<Backend>| !tried(backend) && !backend.ejected();
    match (good(first), good(second)) {
        (true, true) => {
            let now = now_us();
            Some(if second.load.cost(now) < first.load.cost(now) { second } else { first })
        }
        (true, false) => Some(first),
        (false, true) => Some(second),
        // Rare: looked through in full.
        (false, false) => {
            let now = now_us();
            let open = backends.iter().filter(|backend| !tried(backend));
            open.min_by(|a, b| {
                let rank = |backend: &Backend| (backend.ejected(), backend.load.cost(now));
                let (a, b) = (rank(a), rank(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Protocol;
    use std::net::SocketAddr;

    fn backends(count: u16) -> Vec<Arc<Backend>> {
        (1..=count)
            .map(|port| Backend::new(SocketAddr::from(([127, 0, 0, 1], port)), Protocol::Http1))
            .collect()
    }

    fn draws() -> impl Iterator<Item = u64> {
        (1..=3000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
    }

    fn asked(backends: &[Arc<Backend>], tried: &[u16]) -> Vec<usize> {
        let mut counts = vec![0; backends.len()];
        for draw in draws() {
            if let Some(backend) = pick(backends, |backend| tried.contains(&backend.addr.port()), draw) {
                counts[usize::from(backend.addr.port()) - 1] += 1;
            }
        }
        counts
    }

    #[test]
    fn equals_share_and_the_busier_of_two_is_spared() {
        let all = backends(3);
        assert!(asked(&all, &[]).iter().all(|count| (800..1200).contains(count)), "{:?}", asked(&all, &[]));
        let _busy: Vec<Loaded> = (0..5).map(|_| Loaded::on(&all[0])).collect();
        assert_eq!(asked(&all, &[])[0], 0);
    }

    #[test]
    fn a_backend_that_was_slow_once_is_spared_for_a_while() {
        let all = backends(3);
        all[0].load.measure(Duration::from_millis(300));
        all[1].load.measure(Duration::from_millis(3));
        all[2].load.measure(Duration::from_millis(3));
        assert_eq!(asked(&all, &[])[0], 0);
        let now = now_us() + FORGOTTEN.as_micros() as u64 * 6;
        assert!(all[0].load.cost(now) < 3_000.0);
    }

    #[test]
    fn who_is_ejected_or_tried_is_asked_only_when_nobody_else_is_left() {
        let all = backends(3);
        all[1].eject();
        assert_eq!(asked(&all, &[])[1], 0);
        assert_eq!(asked(&all, &[1, 3]), [0, 3000, 0]);
        assert_eq!(asked(&all, &[1, 2, 3]), [0, 0, 0]);
        assert!(pick(&[], |_| false, 7).is_none());
    }
}
