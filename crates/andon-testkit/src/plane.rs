//! What every data plane keeps, whoever it is: users go where the table says and stay, errors are counted by user, nothing is lost in a switch.
//!
//! The suite speaks HTTP over plain sockets, so that it stands on nothing a plane is made of.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use andon_traffic::{Arm, Candidate, Plane, RevisionName, Route, RouteTable, TableError};

/// The service of the suite: a plane that needs a configuration needs it for this one and [`HOST`].
pub const SERVICE: &str = "shop/production/web";
/// Its host.
pub const HOST: &str = "web.example";

const PATIENCE: Duration = Duration::from_secs(20);

/// Holds requests for `/hold` until it is opened.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// A backend that says its name; `/fail` is answered with 500, `/break` not at all, `/hold` when its gate is open. Lives as long as the process.
struct Backend {
    addr: SocketAddr,
    gate: Gate,
}

impl Backend {
    fn start(says: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it listens");
        let gate: Gate = Arc::default();
        let held = Arc::clone(&gate);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gate = Arc::clone(&held);
                std::thread::spawn(move || serve(stream, says, &gate));
            }
        });
        Backend { addr, gate }
    }

    fn open(&self) {
        *self.gate.0.lock().expect("no thread panicked") = true;
        self.gate.1.notify_all();
    }
}

fn serve(stream: TcpStream, says: &str, gate: &Gate) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        }
        let status = if first.contains("/fail") { "500 Sorry" } else { "200 OK" };
        if first.contains("/break") {
            return None;
        }
        if first.contains("/hold") {
            let open = gate.0.lock().ok()?;
            drop(gate.1.wait_while(open, |open| !*open).ok()?);
        }
        let length = says.len();
        // In one piece: the second of two small writes waits for the other end.
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{says}");
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

/// Someone with a cookie.
#[derive(Default, Clone)]
struct User {
    cookie: Option<String>,
}

impl User {
    /// Status and body.
    fn ask(&mut self, users: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(users).expect("the plane listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time is no trouble");
        let cookie = self.cookie.as_ref().map_or(String::new(), |cookie| format!("cookie: {cookie}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{cookie}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request can be written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer in time");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let set = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            let pair = value.split(';').next()?;
            name.eq_ignore_ascii_case("set-cookie").then(|| pair.to_owned())
        };
        if let Some(cookie) = head.lines().find_map(set) {
            self.cookie = Some(cookie);
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, body.trim().to_owned())
    }
}

fn until(what: &str, seen: impl Fn() -> bool) {
    let begun = Instant::now();
    while !seen() {
        assert!(begun.elapsed() < PATIENCE, "never seen: {what}");
        look_again();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a plane may be another process: looking again is the only way to see"
)]
fn look_again() {
    std::thread::sleep(Duration::from_millis(5));
}

fn name(text: &str) -> RevisionName {
    RevisionName(text.to_owned())
}

fn put(plane: &dyn Plane, route: Route) {
    plane.set(&RouteTable { routes: vec![route] }).expect("a table without faults");
    until("the table is in force", || plane.behind().is_none());
}

/// The sum over all epochs of what an arm counted.
fn sum(plane: &dyn Plane, arm: Arm, what: impl Fn(&andon_traffic::ArmSignals) -> u64) -> u64 {
    let signals = plane.signals();
    signals.iter().flat_map(|s| &s.arms).filter(|a| a.arm == arm).map(what).sum()
}

/// All of it. `users` is where the plane listens; nothing else uses the plane meanwhile. Blocks: give it a thread of its own.
pub fn keeps_its_word(plane: &Arc<dyn Plane>, users: SocketAddr) {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let plane_ref = plane.as_ref();
    let alone = || Route::to(SERVICE, &[HOST], name("v1"), vec![old.addr]);
    let canary = |weight_bp: u16, epoch: u64| {
        let mut route = alone();
        route.candidate = Some(Candidate { revision: name("v2"), weight_bp, salt: "shop R1".into() });
        route.backends.insert(name("v2"), vec![new.addr]);
        route.epoch = epoch;
        route
    };

    // Everyone goes to the one revision there is.
    put(plane_ref, alone());
    assert_eq!(User::default().ask(users, "/"), (200, "old".to_owned()));

    // A table that would surprise is refused, and the one in force stays.
    let mut twice = canary(100, 1);
    twice.candidate.as_mut().expect("a canary").revision = name("v1");
    let refused = plane_ref.set(&RouteTable { routes: vec![twice] });
    assert_eq!(refused, Err(TableError::SameTwice(SERVICE.to_owned())));
    assert_eq!(User::default().ask(users, "/"), (200, "old".to_owned()));

    // Half of the users are new users of the new revision, and each stays where they are.
    put(plane_ref, canary(5000, 7));
    let mut all: Vec<(User, String)> = (0..200)
        .map(|_| {
            let mut user = User::default();
            let (status, says) = user.ask(users, "/");
            assert_eq!(status, 200);
            (user, says)
        })
        .collect();
    let moved = all.iter().filter(|(_, says)| says == "new").count();
    // Six standard deviations: a fair plane fails this once in 500 million.
    assert!((58..=142).contains(&moved), "{moved} of 200 at a weight of half");
    for (user, says) in &mut all {
        assert_eq!(user.ask(users, "/"), (200, says.clone()), "a user flipped");
    }

    // On the ramp nobody goes back, and at the end everybody is there.
    put(plane_ref, canary(8000, 8));
    for (user, says) in &mut all {
        let now = user.ask(users, "/").1;
        assert!(now == "new" || says == "old", "a user went back on the ramp");
        *says = now;
    }
    let later = all.iter().filter(|(_, says)| says == "new").count();
    assert!(later > moved, "{moved} before, {later} after");

    // Weight and counts belong together; a user who fails often is one witness.
    let weights: HashMap<u64, u16> = plane_ref.signals().iter().map(|s| (s.epoch, s.weight_bp)).collect();
    assert_eq!((weights.get(&7), weights.get(&8)), (Some(&5000), Some(&8000)), "{weights:?}");
    if !plane_ref.lacks().contains(&andon_traffic::Lack::Users) {
        let mut unlucky: Vec<User> =
            all.iter().filter(|(_, s)| s == "new").map(|(u, _)| u.clone()).take(2).collect();
        for (user, times) in unlucky.iter_mut().zip([4, 1]) {
            (0..times).for_each(|_| assert_eq!(user.ask(users, "/fail").0, 500));
        }
        until("the errors are counted", || sum(plane_ref, Arm::Candidate, |arm| arm.errors) == 5);
        let reached = |at: usize| sum(plane_ref, Arm::Candidate, |arm| arm.reached_errors[at]);
        assert_eq!((reached(0), reached(1), reached(2)), (2, 1, 0));
        assert_eq!(sum(plane_ref, Arm::Stable, |arm| arm.errors), 0);
        // A revision that breaks down without a word is as bad as one that says 500.
        let mut third: Vec<User> =
            all.iter().filter(|(_, s)| s == "new").map(|(u, _)| u.clone()).skip(2).take(1).collect();
        assert_eq!(third[0].ask(users, "/break").0, 502);
        until("the broken answer is an error of its user", || reached(0) == 3);
        let mut nowhere = canary(8000, 8);
        nowhere.backends.insert(name("v2"), vec![([127, 0, 0, 1], 1).into()]);
        put(plane_ref, nowhere);
        let mut fourth = all.iter().filter(|(_, s)| s == "new").map(|(u, _)| u.clone()).nth(3).expect("four");
        assert!(fourth.ask(users, "/").0 >= 500, "nobody is there");
        until("no connection is an error of its user", || reached(0) == 4);
        put(plane_ref, canary(8000, 8));
        let subjects = |epoch: u64, arm: Arm| {
            let signals = plane_ref.signals();
            let of = signals.iter().find(|s| s.epoch == epoch).expect("the epoch is known");
            of.arms.iter().find(|a| a.arm == arm).map_or(0, |arm| arm.subjects)
        };
        assert_eq!(subjects(7, Arm::Stable) + subjects(7, Arm::Candidate), 200);
        assert_eq!((subjects(7, Arm::Candidate), subjects(8, Arm::Candidate)), (moved as u64, later as u64));
    }

    // Taken back: new requests go to the old revision, what is under way ends where it is.
    let mut held = all.iter().find(|(_, says)| says == "new").map(|(user, _)| user.clone()).expect("one");
    let mut same = held.clone();
    let waiting = std::thread::spawn(move || held.ask(users, "/hold"));
    until("it is under way", || plane_ref.in_flight(SERVICE, &name("v2")) == Some(1));
    put(plane_ref, alone());
    assert_eq!(same.ask(users, "/"), (200, "old".to_owned()), "at once, for everybody");
    until("what is under way is known", || plane_ref.in_flight(SERVICE, &name("v2")) == Some(1));
    let (plane, drained) = (Arc::clone(plane), Arc::new(AtomicBool::new(false)));
    let done = Arc::clone(&drained);
    let waits = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(plane.drained(SERVICE, &name("v2")));
        done.store(true, Ordering::SeqCst);
    });
    assert!(!drained.load(Ordering::SeqCst), "one is still under way");
    new.open();
    assert_eq!(waiting.join().expect("it was answered"), (200, "new".to_owned()));
    waits.join().expect("it is drained");
    assert!(drained.load(Ordering::SeqCst));
}
