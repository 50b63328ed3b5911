//! News for an open page: the page is drawn again when something happened, and sent when it looks different. At most five times a second.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use andon_line::{Caller, Line, Project, State, view};
use andon_model::{JobName, Recorded, RunId};
use axum::extract::{Path, Query, State as Shared};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep, sleep_until};

use crate::place::Place;
use crate::shell::Sheet;
use crate::show::{Who, draw};
use crate::trouble::Trouble;
use crate::{log, shell};

/// Shortest time between two drawings.
const GAP: Duration = Duration::from_millis(200);
/// Time between two drawings while something is under way.
const BUSY: Duration = Duration::from_secs(1);
/// The same while nothing is: what is said of the past grows older.
const CALM: Duration = Duration::from_secs(15);
/// Time between two looks at a growing output.
const GROWS: Duration = Duration::from_millis(250);

/// Which page is open.
#[derive(Debug, Deserialize)]
pub struct Open {
    page: String,
    at: Option<u64>,
    line: Option<u64>,
}

struct Feed {
    line: Arc<Line>,
    caller: Caller,
    project: Arc<Project>,
    place: Option<Place>,
    news: Receiver<Arc<Recorded>>,
    drawn: Instant,
    /// What the page looks like already: cord with bar, and everything below.
    known: (String, String),
    follow: Option<Follow>,
    /// The attempt of the job whose output is open.
    attempt: Option<u32>,
}

/// A growing output that is followed.
struct Follow {
    run: RunId,
    job: JobName,
    at: u64,
    number: u64,
}

/// `event: page` with `{title, header, main}`, and `event: log` with further lines of a job's output.
pub async fn live(
    Shared(line): Shared<Arc<Line>>,
    Who(caller): Who,
    Path(project): Path<String>,
    Query(open): Query<Open>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let project = line.project(&project)?;
    let place = Place::read(&open.page).filter(|(name, _)| *name == project.name).map(|(_, place)| place);
    let follow = match (&place, open.at, open.line) {
        (Some(Place::Log(run, job)), Some(at), Some(number)) => {
            Some(Follow { run: *run, job: job.clone(), at, number })
        }
        _ => None,
    };
    let attempt = match &place {
        Some(Place::Log(run, job)) => Some(attempt(&project.state(), *run, job)),
        _ => None,
    };
    let feed = Feed {
        news: line.news(),
        line,
        caller,
        project,
        place,
        drawn: Instant::now(),
        known: Default::default(),
        follow,
        attempt,
    };
    let flow = stream::unfold(feed, async |mut feed| Some((Ok(feed.next().await?), feed)));
    Ok(Sse::new(flow).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

impl Feed {
    /// The next thing that the page does not know yet; none when its reader may no longer see it.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if !self.known.0.is_empty() {
                self.wait().await?;
            }
            if !self.still_in() {
                return None;
            }
            if let Some(event) = self.lines().await {
                return Some(event);
            }
            if let Some(event) = self.page().await {
                return Some(event);
            }
        }
    }

    /// Until something happened in the project or time alone makes a difference.
    async fn wait(&mut self) -> Option<()> {
        let tick = match (&self.follow, busy(&self.project.state())) {
            (Some(_), _) => GROWS,
            (None, true) => BUSY,
            (None, false) => CALM,
        };
        let timer = sleep(tick);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = &mut timer => break,
                news = self.news.recv() => match news {
                    Ok(event) if event.project.as_ref() == Some(&self.project.name) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return None,
                }
            }
        }
        // A burst becomes one drawing.
        sleep_until(self.drawn + GAP).await;
        while !matches!(self.news.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        Some(())
    }

    fn still_in(&self) -> bool {
        let access = self.line.access();
        let token = self.caller.token.as_ref().and_then(|digest| access.0.tokens.get(digest));
        token.is_some_and(|token| token.expires.is_none_or(|end| self.line.now() < end))
    }

    async fn page(&mut self) -> Option<Event> {
        let sheet = match &self.place {
            Some(place) => draw(&self.line, &self.project, place, &self.caller).await.ok()?,
            // A page that does not change by itself still has the cord over it.
            None => {
                let frame = view::frame(&self.project.state(), self.project.name.as_str(), self.line.now());
                Sheet { title: frame.project.clone(), entry: "none", frame, main: maud::html! {} }
            }
        };
        self.drawn = Instant::now();
        let (header, main) = (shell::header(&sheet, &self.caller).0, sheet.main.0);
        let (header, main) =
            (Some(header).filter(|h| *h != self.known.0), Some(main).filter(|m| *m != self.known.1));
        if header.is_none() && main.is_none() {
            return None;
        }
        let title = self.place.is_some().then(|| format!("{} · andon", sheet.title));
        let event = json!({ "title": title, "header": header, "main": main });
        if let Some(header) = header {
            self.known.0 = header;
        }
        if let Some(main) = main {
            self.known.1 = main;
        }
        Event::default().event("page").json_data(event).ok()
    }

    async fn lines(&mut self) -> Option<Event> {
        if let (Some(Place::Log(run, job)), Some(known)) = (&self.place, self.attempt) {
            let now = attempt(&self.project.state(), *run, job);
            if now != known {
                (self.follow, self.attempt) = (None, Some(now));
                return Some(Event::default().event("again").data("another attempt"));
            }
        }
        let follow = self.follow.as_mut()?;
        // Whether it still runs is asked before the rest is read: what comes between is read in the next turn.
        let over = !running(&self.project.state(), follow.run, &follow.job);
        let output = self.line.log(&self.project, follow.run, &follow.job).ok()?;
        let from = view::Place { at: follow.at, line: follow.number };
        match log::grown(output, from, !over).await {
            Some((html, next)) => {
                (follow.at, follow.number) = (next.at, next.line);
                Event::default()
                    .event("log")
                    .json_data(json!({ "html": html, "at": follow.at, "line": follow.number }))
                    .ok()
            }
            None => {
                if over {
                    self.follow = None;
                }
                None
            }
        }
    }
}

fn attempt(state: &State, run: RunId, job: &JobName) -> u32 {
    state.runs.all.get(&run).and_then(|run| run.job(job)).map_or(0, |job| job.attempts)
}

fn running(state: &State, run: RunId, job: &JobName) -> bool {
    state.runs.all.get(&run).and_then(|run| run.job(job)).is_some_and(|job| !job.is_settled())
}

/// Whether clocks on the page run: a release, a run, a deployment or an andon.
fn busy(state: &State) -> bool {
    state.cord.open().next().is_some()
        || state.releases.under_way().next().is_some()
        || state.queue.open().next().is_some()
        || state.runs.all.values().rev().take(50).any(|run| run.finished.is_none())
        || state
            .estate
            .instances
            .values()
            .rev()
            .take(50)
            .any(|instance| instance.retired.is_none() && instance.healthy.is_none())
}
