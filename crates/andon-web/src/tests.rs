//! What holds for every page: nothing from outside is markup, no page is without a way on, forms know their doors.

use std::collections::BTreeSet;
use std::sync::Arc;

use andon_kit::SystemClock;
use andon_line::{Caller, Line, Settings};
use andon_model::event::{DefinitionEdit, DefinitionRule, Event, PlannedJob, Purpose, Push, Role, Verdict};
use andon_model::{ChangeId, Oid, RunId, Time};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode, header};
use tower::ServiceExt;

use crate::table::{SHOWN, pages};

const HOSTILE: &str = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>";

struct House {
    line: Arc<Line>,
    router: Router,
    _dir: tempfile::TempDir,
}

fn caller(roles: &[Role]) -> Caller {
    Caller { user: "ann".parse().unwrap(), roles: roles.iter().copied().collect(), token: None, kind: None }
}

async fn house(roles: &[Role]) -> House {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        data: dir.path().to_owned(),
        url: "http://andon.test".into(),
        router: "127.0.0.1:1".parse().unwrap(),
        exe: "/bin/false".into(),
        slots: 1,
        backup_every: None,
        drill_every: None,
        docker_in_jobs: false,
        runner_lease: andon_line::LEASE_OF_RUNNERS,
        postgres: None,
        certificates: None,
        access_log: None,
    };
    let line = Line::open(settings, Box::new(SystemClock::default())).await.unwrap();
    line.create_project(&caller(&[Role::Owner]), "shop".parse().unwrap(), "main").await.unwrap();
    let who = caller(roles);
    let mut router = Router::new();
    for page in pages() {
        router = router.route(page.path, page.handler);
    }
    let router = router.with_state(Arc::clone(&line)).layer(axum::Extension(who));
    House { line, router, _dir: dir }
}

impl House {
    async fn ask(&self, method: Method, path: &str, form: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer =
            self.router.clone().oneshot(request.body(Body::from(form.to_owned())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> String {
        let (status, _, body) = self.ask(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// A change with a hostile title that was refused in hostile words, a stopped line, a flag.
    async fn hurt(&self) {
        let project = self.line.project("shop").unwrap();
        let oid: Oid = "a".repeat(40).parse().unwrap();
        let push = Push {
            change: ChangeId(1),
            patch_set: 1,
            head: oid.clone(),
            title: HOSTILE.into(),
            author: format!("{HOSTILE} <x@y>"),
            authored: Time(0),
            identity: "one".into(),
            fixes: None,
            edits_pipeline: false,
            commits: 1,
        };
        let job = PlannedJob::new("unit".parse().unwrap(), HOSTILE);
        let verdict = Verdict::Red { headline: HOSTILE.into(), reasons: vec![HOSTILE.into()] };
        let purpose = Purpose::Gate { change: ChangeId(1), patch_set: 1 };
        let run = RunId(1);
        let events = vec![
            Event::ChangePushed(push),
            Event::RunQueued {
                run,
                purpose,
                commit: oid.clone(),
                tree: oid,
                parent: None,
                jobs: vec![job],
                plan: None,
                again: None,
            },
            Event::DefinitionEdited {
                run,
                change: ChangeId(1),
                patch_set: 1,
                edits: vec![DefinitionEdit { says: HOSTILE.into(), loosens: true }],
                asks: Some(DefinitionRule { role: Role::Owner, not_author: false }),
            },
            Event::RunFinished { run, verdict, tests: Default::default(), coverage: None, report: None },
            Event::ChangeRefused { change: ChangeId(1), patch_set: 1, run: Some(run), why: HOSTILE.into() },
        ];
        self.line.tell(&project, "test", events).await.unwrap();
        let owner = caller(&[Role::Owner]);
        let andon = self.line.pull(&project, &owner, HOSTILE, "<i>tag", vec![ChangeId(1)]).await.unwrap();
        self.line.note(&project, &owner, andon, HOSTILE).await.unwrap();
        self.line.flag(&project, &owner, "gift", andon_line::stations::flags::Command::Create).await.unwrap();
    }
}

/// Values of an attribute over a whole page.
fn attributes(page: &str, name: &str) -> BTreeSet<String> {
    let start = format!(" {name}=\"");
    page.split(&start)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|value| value.replace("&amp;", "&"))
        .collect()
}

/// The rules of every page, whatever it shows.
fn well_made(path: &str, page: &str) {
    let scripts = page.matches("<script").count();
    assert_eq!(
        scripts,
        page.matches("<script src=\"/assets/andon.js?").count(),
        "{path} has a script of its own"
    );
    assert!(!page.contains(" style="), "{path} has a style of its own");
    assert!(!page.contains("<img") && !page.contains("onerror=alert(1)>\""), "{path} has foreign markup");
    assert!(!page.contains(" onclick") && !page.contains("javascript:"), "{path}");
    assert_eq!(page.matches("<h1").count(), 1, "{path} has one answer");
    assert!(page.contains("<html lang=\"en\">") && page.contains("name=\"viewport\""), "{path}");
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "{path} has an id twice: {ids:?}");
    for tag in page.split('<').filter_map(|rest| rest.split('>').next()) {
        assert!(tag.matches(" class=\"").count() < 2, "{path}: two classes in <{tag}>");
        assert!(
            !tag.starts_with("svg ") || tag.contains("role=\"img\"") && tag.contains("aria-label="),
            "{path}: <{tag}>"
        );
    }
    let known: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    for target in attributes(page, "popovertarget") {
        assert!(known.contains(&target), "{path}: nothing opens at {target}");
    }
}

/// Whether the table has a route for a path.
fn routed(method: &Method, path: &str) -> bool {
    let fits = |pattern: &str| {
        let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
        loop {
            match (pattern.next(), path.next()) {
                (None, None) => return true,
                (Some(want), Some(has)) if want == has || (want.starts_with('{') && !has.is_empty()) => {}
                _ => return false,
            }
        }
    };
    pages().iter().any(|page| page.method == *method && fits(page.path))
}

/// Follows every link from a page; returns the paths of the pages that were seen.
async fn walk(house: &House, from: &str) -> BTreeSet<String> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(path) = left.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let (status, headers, page) = house.ask(Method::GET, &path, "").await;
        if status.is_redirection() {
            left.push(headers[header::LOCATION].to_str().unwrap().to_owned());
            continue;
        }
        assert_eq!(status, StatusCode::OK, "{path} leads nowhere: {page}");
        well_made(&path, &page);
        for action in attributes(&page, "action") {
            let method = if action.ends_with("/jump") { Method::GET } else { Method::POST };
            assert!(routed(&method, &action), "{path}: no door takes the form {action}");
        }
        for link in attributes(&page, "href") {
            match link.strip_prefix('#') {
                Some(_) => {}
                None if link.starts_with("/assets/") || link.starts_with("/api/v1/shop/") => {}
                None if link.starts_with('/') && !link.starts_with("//") => left.push(link),
                None => panic!("{path} leads to {link}"),
            }
        }
    }
    seen
}

#[tokio::test]
async fn an_empty_project_has_every_page_and_each_says_what_to_do() {
    let house = house(&[Role::Owner]).await;
    let seen = walk(&house, "/").await;
    for path in [
        "/shop",
        "/shop/queue",
        "/shop/environments",
        "/shop/releases",
        "/shop/flags",
        "/shop/andons",
        "/shop/flow",
        "/account",
    ] {
        assert!(seen.contains(path), "{path} is reached from the wall");
    }
    assert!(house.get("/shop/queue").await.contains("git push andon HEAD:refs/for/main"));
    assert!(house.get("/shop").await.contains("data-state=\"green\""));
}

#[tokio::test]
async fn nothing_that_came_from_outside_becomes_markup_on_any_page() {
    let house = house(&[Role::Owner]).await;
    house.hurt().await;
    let seen = walk(&house, "/shop").await;
    for path in ["/shop/changes/1", "/shop/runs/1", "/shop/andons/1"] {
        assert!(seen.contains(path), "{path} is reached");
    }
    for path in [
        "/shop",
        "/shop/queue",
        "/shop/changes/1",
        "/shop/runs/1",
        "/shop/andons",
        "/shop/andons/1",
        "/shop/flow",
    ] {
        assert!(
            house.get(path).await.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
            "{path} shows it as text"
        );
    }
    let searched = house.get("/shop/jump?q=%3Cscript%3Ealert(2)%3C/script%3E%22%27").await;
    well_made("jump", &searched);
}

#[tokio::test]
async fn a_stopped_line_is_red_over_every_page_and_leads_into_the_room() {
    let house = house(&[Role::Developer]).await;
    house.hurt().await;
    for path in SHOWN {
        let path = path
            .replace("{project}", "shop")
            .replace("{change}", "1")
            .replace("{run}", "1")
            .replace("{andon}", "1")
            .replace("{job}", "unit");
        // Coverage needs a run that measured some, of a commit that is there: tests of the binary show it.
        if path.contains('{') || path.starts_with("/shop/coverage/") {
            continue;
        }
        let page = house.get(&path).await;
        assert!(page.contains("data-state=\"red\"") && page.contains("href=\"/shop/andons/1\""), "{path}");
        assert!(!page.contains("class=\"pull\""), "{path}: the button gives way to the link");
    }
}

#[tokio::test]
async fn what_a_caller_may_not_do_is_not_offered() {
    let house = house(&[Role::Viewer]).await;
    house.hurt().await;
    for path in
        ["/shop", "/shop/queue", "/shop/changes/1", "/shop/environments", "/shop/flags", "/shop/andons/1"]
    {
        let page = house.get(path).await;
        assert!(!page.contains("method=\"post\""), "{path} offers a form to someone who only reads");
    }
}

#[tokio::test]
async fn a_form_answers_with_the_page_where_its_effect_is_seen_and_says_it_once() {
    let house = house(&[Role::Owner]).await;
    let (status, headers, _) = house.ask(Method::POST, "/shop/cord/pull", "why=checkout+fails").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(headers[header::LOCATION], "/shop/andons/1");
    assert!(house.line.project("shop").unwrap().state().cord.open().next().is_some());
    let said = crate::said::Said::read(&HeaderMap::from_iter([(
        header::COOKIE,
        headers[header::SET_COOKIE].clone(),
    )]))
    .unwrap();
    assert!(said.done && said.words.contains("A1"), "{said:?}");
    let (_, headers, _) = house.ask(Method::POST, "/shop/andons/1/release", "why=").await;
    let said = crate::said::Said::read(&HeaderMap::from_iter([(
        header::COOKIE,
        headers[header::SET_COOKIE].clone(),
    )]))
    .unwrap();
    assert!(!said.done, "a reason is missing: {said:?}");
    house.ask(Method::POST, "/shop/andons/1/release", "why=a+wrong+alarm").await;
    assert!(house.line.project("shop").unwrap().state().cord.open().next().is_none());
}

#[tokio::test]
async fn a_role_that_a_command_needs_is_asked_for_even_when_the_form_is_sent_by_hand() {
    let house = house(&[Role::Viewer]).await;
    house.hurt().await;
    for (path, form) in [
        ("/shop/cord/pull", "why=x"),
        ("/shop/andons/1/release", "why=x"),
        ("/shop/changes/1/abandon", "why=x"),
        ("/shop/flags/create", "key=x"),
        ("/shop/flags/on", "key=gift"),
        ("/shop/environments/production/rollback", ""),
        ("/", "name=evil&trunk=main"),
    ] {
        let (_, headers, _) = house.ask(Method::POST, path, form).await;
        let said = crate::said::Said::read(&HeaderMap::from_iter([(
            header::COOKIE,
            headers[header::SET_COOKIE].clone(),
        )]))
        .unwrap();
        assert!(!said.done && said.words.contains("role"), "{path}: {said:?}");
    }
}

#[tokio::test]
async fn the_owners_link_opens_once_and_looking_at_it_does_not_use_it_up() {
    let house = house(&[]).await;
    let once = house.line.owner_link().await.unwrap();
    let page = house.get(&format!("/enter?once={once}")).await;
    well_made("/enter", &page);
    let (status, headers, _) = house.ask(Method::POST, "/enter", &format!("once={once}")).await;
    assert_eq!((status, headers[header::LOCATION].to_str().unwrap()), (StatusCode::SEE_OTHER, "/account"));
    let cookie = headers[header::SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.starts_with("andon_session=session_")
            && cookie.contains("HttpOnly")
            && cookie.contains("SameSite=Lax")
    );
    let (status, _, page) = house.ask(Method::POST, "/enter", &format!("once={once}")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(page.contains("used already"));
}

#[tokio::test]
async fn a_wrong_password_is_refused_on_the_same_page_without_saying_which_was_wrong() {
    let house = house(&[]).await;
    let (status, headers, page) =
        house.ask(Method::POST, "/login", "name=%3Cb%3Eann&password=wrong&then=//evil").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(headers.get(header::SET_COOKIE).is_none() && page.contains("Name or password is wrong."));
    assert!(page.contains("value=\"&lt;b&gt;ann\"") && !page.contains("//evil"));
    well_made("/login", &page);
}

/// The next event of a stream, as it stands on the wire.
async fn event(stream: &mut axum::body::BodyDataStream) -> Option<String> {
    let wait = std::time::Duration::from_secs(5);
    let bytes = tokio::time::timeout(wait, stream.next()).await.expect("news within five seconds")?;
    Some(String::from_utf8(bytes.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn an_open_page_hears_of_a_pulled_cord_at_once_and_goes_silent_when_its_reader_is_locked_out() {
    let House { line, _dir, .. } = house(&[]).await;
    let once = line.owner_link().await.unwrap();
    let session = line.enter(&once).await.unwrap();
    let owner = line.access().0.holder(&session, line.now()).unwrap();
    let live = pages().into_iter().find(|page| page.path == "/{project}/live").unwrap();
    let router = Router::new()
        .route(live.path, live.handler)
        .with_state(Arc::clone(&line))
        .layer(axum::Extension(owner.clone()));
    let request = Request::builder().uri("/shop/live?page=/shop/queue").body(Body::empty()).unwrap();
    let mut stream = router.oneshot(request).await.unwrap().into_body().into_data_stream();
    let first = event(&mut stream).await.unwrap();
    assert!(
        first.starts_with("event: page") && first.contains("The queue is empty") && first.contains("green"),
        "{first}"
    );
    let project = line.project("shop").unwrap();
    let began = tokio::time::Instant::now();
    line.pull(&project, &owner, "checkout fails", "person", vec![]).await.unwrap();
    let second = event(&mut stream).await.unwrap();
    assert!(second.contains("Line stopped"), "{second}");
    assert!(began.elapsed().as_millis() < 1000, "it took {:?}", began.elapsed());
    line.revoke(&owner, owner.token.clone().unwrap()).await.unwrap();
    line.pull(&project, &caller(&[Role::Owner]), "payment fails", "person", vec![]).await.unwrap();
    assert_eq!(event(&mut stream).await, None);
}

#[tokio::test]
async fn the_hosts_are_shown_with_what_runs_on_each_and_only_an_owner_empties_one() {
    let house = house(&[Role::Owner]).await;
    let page = house.get("/hosts").await;
    well_made("/hosts", &page);
    assert!(page.contains("Everything runs on the server") && page.contains("--hosts"), "{page}");
    assert!(page.contains("Empty it") && !page.contains("Let it leave"), "its own host cannot leave");
    let (_, headers, _) = house.ask(Method::POST, "/hosts/here/drain", "why=a+new+disk").await;
    assert_eq!(headers["location"], "/hosts");
    // Where no other host can come it is emptied in name only: something has to run the services.
    let page = house.get("/hosts").await;
    assert!(page.contains("a new disk") && page.contains("Take instances again"), "{page}");
    let (status, _, _) = house.ask(Method::POST, "/hosts/nobody/leave", "").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let viewer = self::house(&[Role::Viewer]).await;
    assert!(!viewer.get("/hosts").await.contains("Empty it"));
}

#[tokio::test]
async fn a_page_that_is_not_there_says_so_in_words() {
    let house = house(&[Role::Viewer]).await;
    for path in
        ["/shop/changes/99", "/shop/runs/9", "/nothing", "/shop/environments/%3Cb%3E", "/shop/runs/9/%3Cb%3E"]
    {
        let (status, _, page) = house.ask(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        well_made(path, &page);
    }
}
