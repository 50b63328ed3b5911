//! The project's events as they come, for scenes that wait for one. Reads the server's event stream; decides nothing.

use std::io::BufRead;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use andon_model::Recorded;

use crate::client::Client;

/// Everything that was recorded since the demo began to listen.
#[derive(Debug, Default)]
pub struct Happened {
    all: Mutex<All>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct All {
    events: Vec<Recorded>,
    /// Why no more will come.
    over: Option<String>,
}

impl Happened {
    /// Listens from now on.
    pub fn follow(client: Client, base: &str) -> Result<Arc<Happened>, String> {
        let lines = client.lines(&format!("{base}/events")).map_err(|failure| failure.words)?;
        let happened = Arc::new(Happened::default());
        let (heard, base) = (Arc::clone(&happened), base.to_owned());
        std::thread::spawn(move || {
            for line in lines.lines() {
                let Ok(line) = line else { break };
                let Some(data) = line.strip_prefix("data:") else { continue };
                match serde_json::from_str::<Recorded>(data) {
                    Ok(event) => heard.add(vec![event]),
                    // We fell behind: the journal has what was missed.
                    Err(_) => heard.add(missed(&client, &base, heard.seq())),
                }
            }
            heard.end("the server ended its stream of events");
        });
        Ok(happened)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, events: Vec<Recorded>) {
        let mut all = self.lock();
        let last = all.events.last().map_or(0, |event| event.seq);
        all.events.extend(events.into_iter().filter(|event| event.seq > last));
        self.more.notify_all();
    }

    /// Nothing more is waited for.
    pub fn end(&self, why: &str) {
        self.lock().over.get_or_insert_with(|| why.to_owned());
        self.more.notify_all();
    }

    /// Why nothing more is waited for.
    pub fn over(&self) -> Option<String> {
        self.lock().over.clone()
    }

    /// The newest event's place in the journal.
    pub fn seq(&self) -> u64 {
        self.lock().events.last().map_or(0, |event| event.seq)
    }

    /// The first answer that `pick` finds in all events so far, looked for again with every new one. An error says what was waited for,
    /// and the last thing that happened instead.
    pub fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&[Recorded]) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + within;
        let mut all = self.lock();
        loop {
            if let Some(found) = pick(&all.events) {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || all.over.is_some() {
                let last = all
                    .events
                    .last()
                    .map_or_else(|| "nothing".to_owned(), |event| format!("{:?}", event.event));
                let why = all.over.clone().unwrap_or_else(|| format!("not within {} s", within.as_secs()));
                let last: String = last.chars().take(300).collect();
                return Err(format!("waited for {what}: {why}; the last thing that happened: {last}"));
            }
            all = self.more.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn missed(client: &Client, base: &str, after: u64) -> Vec<Recorded> {
    let found = client.get(&format!("{base}/journal?after={after}"));
    found.ok().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}
