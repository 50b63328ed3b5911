//! Who gets which revision, and what is counted of them.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Response;
use support::{Backend, Served, get, name, one, two};

#[tokio::test]
async fn a_user_without_a_name_gets_a_cookie_once_and_stays_where_it_leads() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let served = Served::new().await;
    served.set(two(a.addr, b.addr, 5000, 1));
    let mut client = served.client().await;
    for _ in 0..20 {
        let first = client.get("/").await;
        let cookie = first.header("set-cookie").to_owned();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        for _ in 0..5 {
            let again = client.send(get("/").header("cookie", &cookie), "").await;
            assert_eq!(again.revision(), first.revision());
            assert_eq!(again.body, first.revision());
            assert_eq!(again.header("set-cookie"), "");
        }
    }
    assert_eq!(served.sum("a", |arm| arm.subjects) + served.sum("b", |arm| arm.subjects), 20);
    assert_eq!(served.sum("a", |arm| arm.requests) + served.sum("b", |arm| arm.requests), 120);
}

#[tokio::test]
async fn a_ramp_moves_users_forward_only() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let served = Served::new().await;
    let mut client = served.client().await;
    let mut before: BTreeMap<usize, String> = BTreeMap::new();
    for (epoch, weight) in [0, 100, 1000, 5000, 10_000].into_iter().enumerate() {
        served.set(two(a.addr, b.addr, weight, epoch as u64));
        for user in 0..200 {
            let now = client.get_as(&user.to_string()).await.body;
            assert!(
                before.get(&user).is_none_or(|was| was == "a" || now == "b"),
                "{user} went back at {weight}"
            );
            before.insert(user, now);
        }
    }
    assert!(before.values().all(|now| now == "b"));
    let weights: Vec<u16> = served.router.signals().iter().map(|s| s.weight_bp).collect();
    assert_eq!(weights, [0, 100, 1000, 5000, 10_000]);
    for signals in served.router.signals() {
        assert_eq!(
            signals.arms.iter().map(|arm| arm.subjects).sum::<u64>(),
            200,
            "in epoch {}",
            signals.epoch
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_weights_and_revisions_flip_under_load() {
    let reached = Arc::new(AtomicU64::new(0));
    let counting = reached.clone();
    let a = Backend::saying("a").await;
    let b = Backend::answering(move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        async { Response::new(Full::from("b")) }
    })
    .await;
    let served = Served::new().await;
    served.set(two(a.addr, b.addr, 0, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut users = Vec::new();
    for user in 0..8 {
        let (mut client, stop) = (served.client().await, stop.clone());
        users.push(tokio::spawn(async move {
            let mut sent = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let answer = client.get_as(&format!("{user}-{}", sent % 50)).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, answer.revision()));
                sent += 1;
            }
            sent
        }));
    }
    let mut mine = served.client().await;
    let (began, mut flips, mut drains) = (Instant::now(), 0u16, 0);
    while began.elapsed() < Duration::from_secs(3) {
        flips += 1;
        let weight = [0, 10_000, 100, 5000][usize::from(flips % 4)];
        served.set(two(a.addr, b.addr, weight, u64::from(flips)));
        if weight == 0 {
            // What reached b has ended and nothing reaches it any more: now it could be stopped.
            served.router.drained(support::SERVICE, &name("b")).await;
            let before = reached.load(Ordering::SeqCst);
            for _ in 0..5 {
                assert_eq!(mine.get_as("someone").await.body, "a");
            }
            assert_eq!(reached.load(Ordering::SeqCst), before, "a request reached b after it was drained");
            drains += 1;
        }
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for user in users {
        sent += user.await.unwrap();
    }
    assert!(
        flips > 20 && drains > 5 && sent > 500,
        "{flips} flips, {drains} drains, {sent} requests prove little"
    );
    assert_eq!(served.sum("a", |arm| arm.errors) + served.sum("b", |arm| arm.errors), 0);
    println!("{sent} requests over {flips} flips");
}

#[tokio::test]
async fn errors_and_slowness_are_counted_by_user() {
    let bad = Backend::answering(|_| async {
        let mut response = Response::new(Full::from("sorry"));
        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
    .await;
    let served = Served::new().await;
    let mut route = one(bad.addr);
    route.subject_header = Some("x-user-id".into());
    route.slow_thresholds_us = vec![0, 60_000_000];
    served.set(route);
    let mut client = served.client().await;
    for user in ["ann", "ann", "ann", "bob"] {
        assert_eq!(client.get_as(user).await.status, 500);
    }
    let signals = served.router.signals();
    let arm = &signals[0].arms[0];
    assert_eq!((arm.requests, arm.subjects, arm.errors, arm.status), (4, 2, 4, [0, 0, 0, 0, 4]));
    assert_eq!(arm.reached_errors, [2, 1, 0]);
    assert_eq!(arm.slow_subjects, [2, 0]);
    assert_eq!((arm.latency.count, arm.bytes_out), (4, 20));
}
