//! Every door with every kind of caller, on a real line: programs' doors, git's, OpenFeature's and the pages'. The tables that the server is
//! built from are the list, so a door that is added is tried.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use andon_api::Door;
use andon_kit::SystemClock;
use andon_line::{Caller, Line, Settings};
use andon_model::event::Role;
use andon_model::{Span, UserName};
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request, StatusCode, header};
use tower::ServiceExt;

/// All roles, each on its own.
const ROLES: [Role; 5] = [Role::Viewer, Role::Developer, Role::Deployer, Role::Releaser, Role::Owner];

/// Doors behind which another role may be asked for, according to what is asked: any account changes its own password, only an owner others'.
const STRICTER_INSIDE: [(Method, &str); 4] = [
    (Method::POST, "/api/v1/users"),
    (Method::POST, "/api/v1/tokens"),
    (Method::DELETE, "/api/v1/tokens/{digest}"),
    (Method::POST, "/account/revoke"),
];

struct House {
    line: Arc<Line>,
    service: axum::Router,
    owner: Caller,
    _room: tempfile::TempDir,
    peers: AtomicU32,
}

fn doors() -> Vec<Door> {
    let mut doors = andon_api::routes::doors();
    doors.extend(andon_api::git::doors());
    doors.extend(andon_api::ofrep::doors());
    doors.extend(andon_web::pages().into_iter().map(|page| Door {
        method: page.method,
        path: page.path,
        needs: page.needs,
        handler: page.handler,
        any_length: false,
        reads: false,
    }));
    doors
}

impl House {
    async fn open() -> House {
        let room = tempfile::tempdir().unwrap();
        let here: SocketAddr = ([127, 0, 0, 1], 1).into();
        let settings = Settings {
            data: room.path().canonicalize().unwrap(),
            url: "http://andon".into(),
            router: here,
            exe: env!("CARGO_BIN_EXE_andon").into(),
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
        let session = line.enter(&line.owner_link().await.unwrap()).await.unwrap();
        let owner = line.access().0.holder(&session, line.now()).unwrap();
        line.create_project(&owner, "shop".parse().unwrap(), "main").await.unwrap();
        let service = andon_api::open(Arc::clone(&line), doors());
        House { line, service, owner, _room: room, peers: AtomicU32::new(1) }
    }

    /// A token of a user who has just this role.
    async fn token(&self, role: Role, lasts: Option<Span>) -> String {
        let name: UserName = format!("{role:?}").to_lowercase().parse().unwrap();
        self.line.set_user(&self.owner, name.clone(), vec![role], None).await.unwrap();
        self.line.issue(&self.owner, name, "t".into(), vec![role], lasts).await.unwrap()
    }

    /// A request from an address of its own, so that nobody is shut out for what others got wrong.
    async fn ask(&self, method: &Method, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let peer = self.peers.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        self.ask_from([10, peer[1], peer[2], peer[3]], method, path, headers).await
    }

    async fn ask_from(
        &self,
        peer: [u8; 4],
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> StatusCode {
        let page = !path.starts_with("/api/") && !path.contains("/ofrep/") && !path.contains(".git/");
        let kind = if page { "application/x-www-form-urlencoded" } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "andon")
            .header(header::CONTENT_TYPE, kind);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if page { "" } else { "{}" };
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 9))));
        self.service.clone().oneshot(request).await.unwrap().status()
    }
}

/// The path with something in each place that could be there.
fn filled(path: &str) -> String {
    let digest = format!("sha256:{}", "0".repeat(64));
    let project = if path.contains("git-") || path.contains("info/refs") { "shop.git" } else { "shop" };
    let mut path = path.to_owned();
    for (place, value) in [
        ("{project}", project),
        ("{change}", "1"),
        ("{run}", "1"),
        ("{job}", "unit"),
        ("{digest}", &digest),
        ("{environment}", "staging"),
        ("{other}", "production"),
        ("{database}", "main"),
        ("{instance}", "i1"),
        ("{release}", "1"),
        ("{andon}", "1"),
        ("{layer}", "network"),
        ("{infrarun}", "T1"),
        ("{flag}", "f"),
        ("{command}", "pause"),
        ("{*key}", "f"),
        ("{name}", "none.css"),
        ("{host}", "n1"),
        ("{runner}", "r1"),
        ("{shell}", "1"),
        ("{secret}", "NPM_TOKEN"),
        ("{*folder}", "src"),
        ("{*file}", "app.py"),
        ("{*path}", "app.py"),
    ] {
        path = path.replace(place, value);
    }
    assert!(!path.contains('{'), "{path}: tell this test what could stand there");
    if path.ends_with("/info/refs") { path + "?service=git-upload-pack" } else { path }
}

fn bearer(token: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {token}"))]
}

async fn with(house: &House, door: &Door, token: &str) -> StatusCode {
    let [(name, value)] = bearer(token);
    house.ask(&door.method, &filled(door.path), &[(name, &value)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_opens_to_its_role_and_to_no_other() {
    let house = House::open().await;
    for role in ROLES {
        let token = house.token(role, None).await;
        for door in doors() {
            // Tokens that leave or revoke themselves would end the story.
            if door.path == "/account/leave" {
                continue;
            }
            let status = with(&house, &door, &token).await;
            let opens = match door.needs {
                None => true,
                Some(needs) => role == needs || role == Role::Owner || needs == Role::Viewer,
            };
            let what = format!("{role:?} {} {}", door.method, door.path);
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{what}");
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{what}");
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
            let inside = STRICTER_INSIDE.contains(&(door.method.clone(), door.path));
            match opens {
                true => assert!(status != StatusCode::FORBIDDEN || inside, "{what}: shut"),
                false => assert_eq!(status, StatusCode::FORBIDDEN, "{what}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_only_public_doors_open() {
    let house = House::open().await;
    let (revoked, expired) =
        (house.token(Role::Owner, None).await, house.token(Role::Owner, Some(Span(0))).await);
    house.line.revoke(&house.owner, andon_model::Digest::of(revoked.as_bytes())).await.unwrap();
    let once = house.line.owner_link().await.unwrap();
    let mut public = Vec::new();
    for door in doors() {
        let path = filled(door.path);
        let nobody = house.ask(&door.method, &path, &[]).await;
        if door.needs.is_none() {
            public.push(format!("{} {}", door.method, door.path));
            assert_ne!(nobody, StatusCode::UNAUTHORIZED, "{path}");
            continue;
        }
        assert_eq!(nobody, StatusCode::UNAUTHORIZED, "nobody: {} {path}", door.method);
        for (what, secret) in [
            ("revoked", &revoked),
            ("expired", &expired),
            ("one-time", &once),
            ("made up", &"andon_x".to_owned()),
        ] {
            assert_eq!(
                with(&house, &door, secret).await,
                StatusCode::UNAUTHORIZED,
                "{what}: {} {path}",
                door.method
            );
        }
        if door.method == Method::GET {
            assert_eq!(house.ask(&Method::HEAD, &path, &[]).await, StatusCode::UNAUTHORIZED, "HEAD {path}");
        }
    }
    public.sort_unstable();
    let meant = [
        "GET /.well-known/jwks.json",
        "GET /.well-known/openid-configuration",
        "GET /api/v1/provenance/keys",
        "GET /assets/{name}",
        "GET /enter",
        "GET /healthz",
        "GET /login",
        "POST /api/v1/enter",
        "POST /enter",
        "POST /login",
    ];
    assert_eq!(public, meant, "a door became public: is that meant?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_changes_nothing_for_another_site() {
    let house = House::open().await;
    let session = house.line.enter(&house.line.owner_link().await.unwrap()).await.unwrap();
    let cookie = format!("{}={session}", andon_api::guard::COOKIE);
    for door in doors().iter().filter(|door| door.method != Method::GET) {
        let path = filled(door.path);
        let foreign: [&[(&str, &str)]; 4] = [
            &[("cookie", &cookie)],
            &[("cookie", &cookie), ("origin", "http://evil")],
            &[("cookie", &cookie), ("origin", "null")],
            &[("cookie", &cookie), ("origin", "http://andon"), ("sec-fetch-site", "cross-site")],
        ];
        for headers in foreign {
            assert_eq!(
                house.ask(&door.method, &path, headers).await,
                StatusCode::FORBIDDEN,
                "{} {path} {headers:?}",
                door.method
            );
        }
    }
    let own = [("cookie", cookie.as_str()), ("origin", "http://andon"), ("sec-fetch-site", "same-origin")];
    assert!(house.ask(&Method::POST, "/shop/cord/pull", &own).await.is_redirection());
    assert_eq!(house.ask(&Method::GET, "/api/v1/me", &[("cookie", &cookie)]).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_is_shut_out_and_only_they() {
    let house = House::open().await;
    let token = house.token(Role::Viewer, None).await;
    let wrong = [("authorization", "Bearer andon_guess")];
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(house.ask_from([9, 9, 9, 9], &Method::GET, "/api/v1/me", &wrong).await);
    }
    assert_eq!(seen[0], StatusCode::UNAUTHORIZED);
    assert_eq!(seen[39], StatusCode::TOO_MANY_REQUESTS);
    let [(name, value)] = bearer(&token);
    assert_eq!(
        house.ask_from([9, 9, 9, 8], &Method::GET, "/api/v1/me", &[(name, &value)]).await,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_table_is_not_there() {
    let house = House::open().await;
    let token = house.token(Role::Owner, None).await;
    let [(name, value)] = bearer(&token);
    for path in [
        "/api",
        "/api/v1",
        "/api/v1/shop/none",
        "/api/v2/me",
        "/shop/queue/x/y/z/w",
        "/.env",
        "/api/v1/nothing/queue",
        "//",
    ] {
        for method in [Method::GET, Method::POST] {
            let status = house.ask(&method, path, &[(name, &value)]).await;
            let gone = matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
            assert!(gone, "{method} {path}: {status}");
        }
    }
}
