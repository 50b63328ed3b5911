//! `andon serve`: everything in one process. Wires the parts together; decides nothing.

use crate::say::say;
use crate::upgrade::{self, Next, Offer, Sockets};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use andon_certificates::Authority;
use andon_kit::SystemClock;
use andon_line::stations::data::Address;
use andon_line::{CertificateSettings, Line, Settings};
use andon_model::Span;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often the lease is renewed: three times in its life.
const RENEW: Duration = Duration::from_secs(10);
/// How long an address that is in use is tried again, and how often.
const HELD: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(5);
/// How long running requests may take to end when the server stops.
const GOODBYE: Duration = Duration::from_secs(5);
/// The same when another server took over, and nobody waits for this one to end.
const DRAIN: Duration = Duration::from_secs(60);

/// Options of `andon serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where pages, API and git are served.
    #[arg(long, env = "ANDON_LISTEN", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// Where users reach the services, by host name.
    #[arg(long, env = "ANDON_ROUTER", default_value = "127.0.0.1:7080")]
    router: SocketAddr,
    /// Where users reach the services over TLS, with HTTP/2 where they speak it: 0.0.0.0:443.
    #[arg(long, env = "ANDON_TLS")]
    tls: Option<SocketAddr>,
    /// Certificates for it: HOST.crt and HOST.key, with _.example.com for all names below; default: below the data directory.
    #[arg(long, env = "ANDON_CERTIFICATES", requires = "tls")]
    certificates: Option<PathBuf>,
    /// Order certificates for the services' hosts at this authority, by its ACME directory: https://acme-v02.api.letsencrypt.org/directory. Its terms are agreed
    /// to; it has to reach the router on port 80.
    #[arg(long, env = "ANDON_ACME", requires = "tls")]
    acme: Option<String>,
    /// Where the authority writes to: mailto:ops@example.com.
    #[arg(long, env = "ANDON_ACME_CONTACT", requires = "acme")]
    acme_contact: Option<String>,
    /// A root certificate, as PEM, that the authority's own door is known by; for an authority of your own.
    #[arg(long, env = "ANDON_ACME_ROOT", requires = "acme")]
    acme_root: Option<PathBuf>,
    /// Write a line of JSON to this file for each answer to a user.
    #[arg(long, env = "ANDON_ACCESS_LOG")]
    access_log: Option<PathBuf>,
    /// Let HAProxy move users instead of our own router: the path of its runtime socket. `andon haproxy config` prints what it needs.
    #[arg(long, env = "ANDON_HAPROXY")]
    haproxy: Option<PathBuf>,
    /// Let other machines join as hosts here; they have to reach this address.
    #[arg(long, env = "ANDON_HOSTS")]
    hosts: Option<SocketAddr>,
    /// Let other machines join as runners of jobs here; they have to reach this address.
    #[arg(long, env = "ANDON_RUNNERS")]
    runners: Option<SocketAddr>,
    /// A runner that is silent for longer has lost its jobs: they are run again elsewhere.
    #[arg(long, env = "ANDON_RUNNER_LEASE", default_value = "1m")]
    runner_lease: Span,
    /// Where everything is kept.
    #[arg(long, env = "ANDON_DATA", default_value = "andon-data")]
    data: PathBuf,
    /// The address under which people reach this server, for links; default: where it listens.
    #[arg(long, env = "ANDON_URL")]
    url: Option<String>,
    /// Jobs that run side by side; default: one per core.
    #[arg(long, env = "ANDON_SLOTS")]
    slots: Option<usize>,
    /// Make a backup this often below the data directory: 1h, 1d.
    #[arg(long, env = "ANDON_BACKUP_EVERY")]
    backup_every: Option<Span>,
    /// Hold a disaster drill this often: 7d.
    #[arg(long, env = "ANDON_DRILL_EVERY")]
    drill_every: Option<Span>,
    /// Let jobs that say `docker: true` reach the container engine: whoever can push then can do what this server's user can.
    #[arg(long, env = "ANDON_DOCKER_IN_JOBS")]
    docker_in_jobs: bool,
    /// An administrator's address of the PostgreSQL server that environments get their databases from; they have to reach it there too.
    #[arg(long, env = "ANDON_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
    /// Take over from the server that runs on the same data, without refusing or losing a request: how Andon is upgraded.
    #[arg(long)]
    take_over: bool,
    /// Print a one-time owner link even if the owner has a password.
    #[arg(long)]
    owner_link: bool,
}

/// Serves until it is told to stop. Returns what went wrong.
pub fn run(options: Serve) -> Result<(), String> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("ANDON_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores().clamp(2, 8)).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(serve(options))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

async fn serve(options: Serve) -> Result<(), String> {
    let (before, mut taken) = match options.take_over {
        true => upgrade::take_over(&options.data).map(|(before, taken)| (Some(before), taken))?,
        false => (None, Sockets::default()),
    };
    let mut sockets = Sockets::default();
    let listener = open(options.listen, upgrade::PAGES, &mut taken, &mut sockets).await?;
    let router = open(options.router, upgrade::USERS, &mut taken, &mut sockets).await?;
    let secure = match options.tls {
        Some(address) => Some(open(address, upgrade::SECURE, &mut taken, &mut sockets).await?),
        None => None,
    };
    let hosts = match options.hosts {
        Some(address) => Some(open(address, upgrade::HOSTS, &mut taken, &mut sockets).await?),
        None => None,
    };
    let runners = match options.runners {
        Some(address) => Some(open(address, upgrade::RUNNERS, &mut taken, &mut sockets).await?),
        None => None,
    };
    let here = listener.local_addr().map_err(|error| error.to_string())?;
    let users = router.local_addr().map_err(|error| error.to_string())?;
    let url = options.url.clone().unwrap_or_else(|| format!("http://{here}"));
    std::fs::create_dir_all(&options.data).map_err(|error| format!("{}: {error}", options.data.display()))?;
    let settings = Settings {
        data: options.data.canonicalize().map_err(|error| error.to_string())?,
        url: url.trim_end_matches('/').to_owned(),
        router: users,
        exe: std::env::current_exe().map_err(|error| error.to_string())?,
        slots: options.slots.unwrap_or_else(cores),
        backup_every: options.backup_every,
        drill_every: options.drill_every,
        docker_in_jobs: options.docker_in_jobs,
        runner_lease: options.runner_lease,
        postgres: options.postgres.map(Address),
        certificates: secure.is_some().then(|| CertificateSettings {
            folder: options.certificates.clone().unwrap_or_else(|| options.data.join("certificates")),
            authority: options.acme.clone().map(|directory| Authority {
                directory,
                contact: options.acme_contact.clone(),
                root: options.acme_root.clone(),
            }),
        }),
        access_log: options.access_log.clone(),
    };
    let line =
        Line::open(settings, Box::new(SystemClock::default())).await.map_err(|error| error.to_string())?;
    let stop = CancellationToken::new();
    if let Some(socket) = options.haproxy {
        let plane = Arc::new(andon_haproxy::HaProxy::new(socket, Some(users)));
        let (driven, ended) = (Arc::clone(&plane), stop.clone());
        line.use_plane(plane);
        // None: the server stops; HAProxy keeps what it was told last.
        tokio::spawn(async move { ended.run_until_cancelled(driven.run()).await });
    }
    if let Some(hosts) = hosts {
        line.open_to_hosts(hosts, stop.clone()).map_err(|error| error.to_string())?;
    }
    if let Some(runners) = runners {
        line.open_to_runners(runners, stop.clone()).map_err(|error| error.to_string())?;
    }
    let mut doors = andon_api::routes::doors();
    doors.extend(andon_api::git::doors());
    doors.extend(andon_api::ofrep::doors());
    doors.extend(andon_web::pages().into_iter().map(door));
    let service =
        andon_api::open(Arc::clone(&line), doors).layer(axum::middleware::from_fn(andon_web::readable));
    let service = service.into_make_service_with_connect_info::<SocketAddr>();
    let stations = tokio::spawn(andon_line::stations::run(Arc::clone(&line), stop.clone()));
    tokio::spawn(keep_lease(Arc::clone(&line), stop.clone()));
    let hooks = Arc::clone(&line);
    tokio::spawn(async move {
        if let Err(error) = hooks.answer_hooks().await {
            tracing::error!(%error, "pushes cannot be taken");
        }
    });
    // Users are served on while another server takes over.
    let users_end = CancellationToken::new();
    let (traffic, ended) = (Arc::clone(&line), users_end.clone());
    let traffic = tokio::spawn(async move { traffic.router.serve(router, ended.cancelled_owned()).await });
    let secure = secure.map(|secure| {
        let (over, ended) = (Arc::clone(&line), users_end.clone());
        tokio::spawn(async move {
            over.router.serve_tls(secure, over.certificates.config(), ended.cancelled_owned()).await;
        })
    });
    greet(&line, options.owner_link, users).await?;
    let stopped = stop.clone();
    let pages = tokio::spawn(async move {
        axum::serve(listener, service).with_graceful_shutdown(stopped.cancelled_owned()).await
    });
    let offer = Offer::open(&line.settings.data).map_err(|error| format!("upgrade.sock: {error}"))?;
    if let Some(before) = before {
        before.ready().map_err(|error| format!("the server before is gone: {error}"))?;
    }
    let next = tokio::select! {
        () = told_to_stop(&stop) => None,
        next = offer.asked() => Some(next.map_err(|error| error.to_string())?),
    };
    stop.cancel();
    let _ = tokio::time::timeout(GOODBYE, stations).await;
    line.end_news();
    let _ = tokio::time::timeout(GOODBYE, pages).await;
    let goodbye = match next {
        Some(next) => {
            give_way(&line, next, offer, sockets).await?;
            DRAIN
        }
        None => GOODBYE,
    };
    users_end.cancel();
    let _ = tokio::time::timeout(goodbye, traffic).await;
    if let Some(secure) = secure {
        let _ = tokio::time::timeout(goodbye, secure).await;
    }
    Ok(())
}

/// Gives the data and the sockets to the next server and returns when it is ready. Until one is, users go on by the last table.
async fn give_way(line: &Line, mut next: Next, offer: Offer, sockets: Sockets) -> Result<(), String> {
    line.give_up().map_err(|error| error.to_string())?;
    let sockets = Arc::new(sockets);
    loop {
        let handed = Arc::clone(&sockets);
        let ready = tokio::task::spawn_blocking(move || next.hand_over(&handed)).await;
        match ready.map_err(|error| error.to_string())? {
            Ok(()) => {
                tracing::info!("another server took over: this one ends when its last request has");
                offer.leave();
                return Ok(());
            }
            Err(error) => tracing::error!(
                %error,
                "the server that was to take over did not become ready; users are served, nothing else is done. hint: andon serve --take-over again"
            ),
        }
        let (mut term, mut int) = signals().map_err(|error| error.to_string())?;
        next = tokio::select! {
            next = offer.asked() => next.map_err(|error| error.to_string())?,
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        };
    }
}

fn signals() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

/// The socket that was taken over for this, else one of our own; another handle of it is kept for who takes over from us.
async fn open(
    address: SocketAddr,
    what: u8,
    taken: &mut Sockets,
    kept: &mut Sockets,
) -> Result<TcpListener, String> {
    let listener = match taken.take(what) {
        Some(taken) => {
            taken.set_nonblocking(true).map_err(|error| error.to_string())?;
            TcpListener::from_std(taken).map_err(|error| error.to_string())?
        }
        None => bind(address).await?,
    };
    kept.keep(what, &listener).map_err(|error| error.to_string())?;
    Ok(listener)
}

/// A page stands behind the same guard as everything else.
fn door(page: andon_web::Page) -> andon_api::Door {
    let andon_web::Page { method, path, needs, handler } = page;
    andon_api::Door { method, path, needs, handler, any_length: false, reads: false }
}

/// A process that a killed server was just starting holds its socket until it executes: for so long the address is tried again.
async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let begun = tokio::time::Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < HELD => {
                tokio::time::sleep(AGAIN).await;
            }
            bound => {
                return bound.map_err(|error| {
                    format!("{address} cannot be listened on: {error}\nhint: is another server running? give --listen and --router other ports")
                });
            }
        }
    }
}

async fn told_to_stop(stop: &CancellationToken) {
    let Ok((mut term, mut int)) = signals() else { return };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = stop.cancelled() => {}
    }
}

async fn keep_lease(line: Arc<Line>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEW) => {}
        }
        if !line.renew().await {
            tracing::error!("another server took over: this one stops");
            stop.cancel();
        }
    }
}

async fn greet(line: &Line, wanted: bool, users: SocketAddr) -> Result<(), String> {
    let url = &line.settings.url;
    let known = line.access().0.users.values().any(|user| user.password.is_some());
    say!("● andon {} is ready: {url}", env!("CARGO_PKG_VERSION"));
    say!("  services answer at http://SERVICE.ENVIRONMENT.PROJECT.localhost:{}", users.port());
    if wanted || !known {
        let secret = line.owner_link().await.map_err(|error| error.to_string())?;
        say!("  owner link, good once, for a day: {url}/enter?once={secret}");
    }
    Ok(())
}
