//! Services that are stopped while nobody uses them: who was asked for, when it was last, and requests that wait until it runs. Starts
//! nothing; whoever reads [`Router::asked_for`] does.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::router::{Inner, Router};

/// Who sleeps, and who asks for them.
#[derive(Default)]
pub(crate) struct Sleep {
    asked_for: Mutex<BTreeSet<String>>,
    asked: Notify,
    /// Told with every new table.
    pub changed: Notify,
}

/// When a service was used last.
#[derive(Default)]
pub(crate) struct LastUse {
    /// Milliseconds since the router began, and one; 0: never.
    at: AtomicU64,
}

impl LastUse {
    pub fn touch(&self, began: Instant) {
        self.at.store(began.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    fn idle(&self, began: Instant) -> Option<Duration> {
        let at = self.at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(began.elapsed().saturating_sub(Duration::from_millis(at)))
    }
}

impl Inner {
    /// Returns when the service behind this host runs, or does not within the time for an answer. Whoever waits counts as under way.
    pub async fn awake(self: &Arc<Self>, host: &str) {
        let Some(service) = self.sleeper(host) else { return };
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        let woken = async {
            loop {
                let changed = self.sleep.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.sleeper(host).is_none() {
                    return;
                }
                lock(&self.sleep.asked_for).insert(service.clone());
                self.sleep.asked.notify_waiters();
                changed.await;
            }
        };
        if tokio::time::timeout(self.options.answer_within, woken).await.is_err() {
            tracing::warn!(service, "did not wake in time");
        }
    }
}

/// Takes a waiting request out of the count, also when its client goes away.
struct Leave<'a>(&'a Inner);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Router {
    /// Sleeping services (`project/environment/service`) that somebody asked for since this was read last.
    pub fn asked_for(&self) -> BTreeSet<String> {
        std::mem::take(&mut *lock(&self.inner.sleep.asked_for))
    }

    /// Resolves when somebody asks for a sleeping service.
    pub async fn asked(&self) {
        let asked = self.inner.sleep.asked.notified();
        tokio::pin!(asked);
        asked.as_mut().enable();
        if lock(&self.inner.sleep.asked_for).is_empty() {
            asked.await;
        }
    }

    /// How long ago the last request for a service came; none: none came since the router began.
    pub fn idle(&self, service: &str) -> Option<Duration> {
        self.service(service)?.last_use.idle(self.inner.began)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
