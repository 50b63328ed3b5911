//! News for an open page: the page is drawn again when something happened, and sent when it looks different. At most five times a second. The lines of
//! a growing output come as they are read, by [`Tails`], once for all who look.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use andon_line::{Caller, Line, Project, State, view};
use andon_model::{JobName, Recorded, RunId};
use axum::Extension;
use axum::extract::{Path, Query, State as Shared};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until};

use crate::log::tail::{Attempt, Follower, Growth, Tails};
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
    tails: Tails,
    follow: Option<Follow>,
    /// The attempt of the job whose output is open.
    attempt: Option<u32>,
}

/// A growing output that is followed.
struct Follow {
    run: RunId,
    job: JobName,
    /// Up to where the page has it.
    at: view::Place,
    /// It is known that there is more.
    more: bool,
    tail: Option<Follower>,
}

/// Why a feed wakes.
enum Woken {
    Grown(Arc<Growth>),
    Behind,
    Look,
}

/// `event: page` with `{title, header, main}`, and `event: log` with further lines of a job's output.
pub async fn live(
    Shared(line): Shared<Arc<Line>>,
    Extension(tails): Extension<Tails>,
    Who(caller): Who,
    Path(project): Path<String>,
    Query(open): Query<Open>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let project = line.project(&project)?;
    let place = Place::read(&open.page).filter(|(name, _)| *name == project.name).map(|(_, place)| place);
    let follow = match (&place, open.at, open.line) {
        (Some(Place::Log(run, job)), Some(at), Some(number)) => {
            let at = view::Place { at, line: number };
            Some(Follow { run: *run, job: job.clone(), at, more: false, tail: None })
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
        tails,
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
            let woken = match self.known.0.is_empty() {
                true => Woken::Look,
                false => self.wait().await?,
            };
            if !self.still_in() {
                return None;
            }
            let look = matches!(woken, Woken::Look);
            let said = match woken {
                Woken::Grown(growth) => self.grown(&growth).await,
                Woken::Behind => self.lines(None).await,
                // While output is followed its tail brings the lines; what it cannot know is that it is over.
                Woken::Look => match self.another() {
                    Some(event) => Some(event),
                    None => self.lines(None).await,
                },
            };
            if said.is_some() {
                return said;
            }
            if look && let Some(event) = self.page().await {
                return Some(event);
            }
        }
    }

    /// Until lines have come, something happened in the project, or time alone makes a difference.
    async fn wait(&mut self) -> Option<Woken> {
        if self.follow.as_ref().is_some_and(|follow| follow.more) {
            return Some(Woken::Behind);
        }
        let calm = if self.follow.is_some() || busy(&self.project.state()) { BUSY } else { CALM };
        let mut look = self.drawn + calm;
        loop {
            let tail = self.follow.as_mut().and_then(|follow| follow.tail.as_mut());
            let growth = async {
                match tail {
                    Some(tail) => tail.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(look) => break,
                growth = growth => return Some(growth.map_or(Woken::Behind, Woken::Grown)),
                news = self.news.recv() => match news {
                    Ok(event) if event.project.as_ref() != Some(&self.project.name) => {}
                    // A burst becomes one drawing.
                    Ok(_) | Err(RecvError::Lagged(_)) => look = look.min(self.drawn + GAP),
                    Err(RecvError::Closed) => return None,
                }
            }
        }
        self.drawn = Instant::now();
        while !matches!(self.news.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        Some(Woken::Look)
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

    /// Another attempt has begun: what is shown is no longer the job's output.
    fn another(&mut self) -> Option<Event> {
        let (Some(Place::Log(run, job)), Some(known)) = (&self.place, self.attempt) else { return None };
        let now = attempt(&self.project.state(), *run, job);
        (now != known).then(|| {
            (self.follow, self.attempt) = (None, Some(now));
            Event::default().event("again").data("another attempt")
        })
    }

    /// Lines as everybody gets them, where the page has all before them.
    async fn grown(&mut self, growth: &Growth) -> Option<Event> {
        let follow = self.follow.as_mut()?;
        if growth.to.at <= follow.at.at {
            return None;
        }
        if growth.from != follow.at {
            return self.lines(Some(growth.to.at)).await;
        }
        follow.at = growth.to;
        Some(Event::default().event("log").data(&growth.json))
    }

    /// Lines that the page has missed, or the last ones. Those it gets up to where a growth ended that others had, so that the next growth is news to it, too.
    async fn lines(&mut self, until: Option<u64>) -> Option<Event> {
        let follow = self.follow.as_mut()?;
        // Whether it still runs is asked before the rest is read: what comes between is read in the next turn.
        let over = !running(&self.project.state(), follow.run, &follow.job);
        let output = self.line.log(&self.project, follow.run, &follow.job).ok()?;
        if !over && follow.tail.is_none() {
            let attempt = Attempt {
                project: self.project.name.clone(),
                run: follow.run,
                job: follow.job.clone(),
                number: self.attempt.unwrap_or_default(),
            };
            // First listened, then read: nothing can come between.
            follow.tail = Some(self.tails.follow(attempt, output.clone(), follow.at));
        }
        match log::grown(output, follow.at, until, !over).await {
            Some((growth, last)) => {
                (follow.at, follow.more) = (growth.to, !last && until != Some(growth.to.at));
                Some(Event::default().event("log").data(&growth.json))
            }
            None => {
                follow.more = false;
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
