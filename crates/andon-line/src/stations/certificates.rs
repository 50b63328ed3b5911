//! The server's station for certificates: shows what lies in their folder, and orders what its hosts lack or what soon ends. What an order is lies in
//! andon-certificates.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use andon_certificates::{Folder, Pair, can_be_ordered, due};
use andon_router::tls::Pair as Shown;
use tokio_util::sync::CancellationToken;

use crate::line::CertificateSettings;
use crate::{Line, Refusal, stations};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// An order that failed is tried again after this long, each time twice as long up to the most: authorities count failures.
const AGAIN_SECS: i64 = 60;
const AGAIN_MOST_SECS: i64 = 6 * 3600;

/// Orders that failed, by host: how often, and when the next may be made in seconds since 1970.
type Failed = HashMap<String, (u32, i64)>;

pub(super) async fn run(line: Arc<Line>, stop: CancellationToken) {
    let Some(settings) = line.settings.certificates.clone() else { return };
    let folder = match Folder::open(&settings.folder) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::error!(%error, folder = %settings.folder.display(), "certificates cannot be kept");
            return;
        }
    };
    let mut failed = Failed::new();
    loop {
        let look = step(&line, &settings, &folder, &mut failed);
        match stop.run_until_cancelled(look).await {
            None => return,
            Some(Err(error)) => {
                tracing::error!(%error, "certificates could not be looked after, it is tried again")
            }
            Some(Ok(())) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn step(
    line: &Arc<Line>,
    settings: &CertificateSettings,
    folder: &Folder,
    failed: &mut Failed,
) -> Result<(), Refusal> {
    let mut pairs = folder.read()?;
    show(line, &pairs);
    let Some(authority) = &settings.authority else { return Ok(()) };
    let now = line.now().0 / 1000;
    for host in wanted(line) {
        let fresh =
            pairs.get(&host).and_then(Pair::span).is_some_and(|(begins, ends)| !due(begins, ends, now));
        if fresh || failed.get(&host).is_some_and(|(_, next)| now < *next) {
            continue;
        }
        match authority.order(folder, &host, |answers| line.router.prove(answers)).await {
            Ok(pair) => {
                folder.keep(&host, &pair)?;
                failed.remove(&host);
                tracing::info!(%host, "it has a certificate");
                pairs.insert(host, pair);
                show(line, &pairs);
            }
            Err(error) => {
                let times = failed.get(&host).map_or(0, |(times, _)| *times);
                let wait = (AGAIN_SECS << times.min(16)).min(AGAIN_MOST_SECS);
                tracing::warn!(%host, %error, "no certificate yet, tried again in {wait} s");
                failed.insert(host, (times + 1, now + wait));
            }
        }
    }
    Ok(())
}

/// Names of all services that an authority can look at.
fn wanted(line: &Line) -> BTreeSet<String> {
    let projects = line.projects();
    let routes =
        projects.iter().flat_map(|project| stations::routes::routes(&project.name, &project.state()));
    routes
        .flat_map(|route| route.hosts)
        .map(|host| host.to_lowercase())
        .filter(|host| can_be_ordered(host))
        .collect()
}

/// One that cannot be read keeps nobody from the others.
fn show(line: &Line, pairs: &HashMap<String, Pair>) {
    let shown = |pair: &Pair| Shown { chain: pair.chain.clone(), key: pair.key.clone() };
    let mut good = HashMap::new();
    for (host, pair) in pairs {
        let one = HashMap::from([(host.clone(), shown(pair))]);
        match andon_router::tls::Certificates::default().show(&one) {
            Ok(()) => good.extend(one),
            Err(error) => tracing::warn!(%host, %error, "its certificate is not shown"),
        }
    }
    if let Err(error) = line.certificates.show(&good) {
        tracing::error!(%error, "the certificates shown stay as they are");
    }
}
