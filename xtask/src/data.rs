//! `cargo xtask bench data`: how quickly environments with a database come, and a copy of a large one. Knows no rule of masking.

use std::time::Instant;

use andon_testkit::postgres::Cluster;
use serde_json::json;

use crate::environments::{at_once, create, cycles, end, rebuild};
use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary};

/// Environments made one after the other.
const ALONE: usize = 20;
/// At the same time.
const HANDS: usize = 12;
/// Clones of the large database.
const CLONES: usize = 10;
/// The large one, as notes and issues speak of it.
const LARGE: f64 = 325.0;

const NOTES: &str = "The release binary, process runtime, a PostgreSQL on the same machine that does not wait for its disk. *Create* is from the request until \
    three services are healthy, of which one has a database with a migration; *clone* is from the request of an environment until the journal tells that its \
    database, cloned from the masked template, is made. The template is made by `pg_dump` and `pg_restore`, then masked: its time is from the request until it is \
    sealed. The machine is shared with other work, so times are upper bounds.";

fn yaml(program: &str) -> String {
    let service = |name: &str, more: &str| {
        format!("  {name}: {{ command: [./hello, hello, $PORT], health: /, port: 8080{more} }}\n")
    };
    format!(
        "version: 1
pipeline: {{ jobs: {{ package: {{ run: \"mkdir dist && cp {program} dist/hello && cp version dist/\", artifact: dist }} }} }}
databases: {{ main: {{ migrations: migrations, mask: mask.yml }} }}
services:
{}{}{}environments: {{ production: {{ release: way }} }}
releases: {{ way: {{ blue-green: {{ keep: 1s }} }} }}
",
        service("web", ", databases: [main]"),
        service("cart", ""),
        service("mail", ""),
    )
}

const TABLE: &str = "CREATE TABLE users (id int PRIMARY KEY, email text, note text)";
const MASK: &str = "tables: { users: { id: keep, email: email, note: hash } }\n";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let cluster = Cluster::start().ok_or("PostgreSQL's server programs are missing")?;
    let house = House::open_with(&binary, &["--postgres", &cluster.url("postgres")])?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    std::fs::create_dir(house.repo().join("migrations")).map_err(|error| error.to_string())?;
    let files = [
        ("andon.yaml", yaml(&program)),
        ("version", "v1".to_owned()),
        ("migrations/1.expand.sql", TABLE.to_owned()),
        ("mask.yml", MASK.to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    house.served(house.propose("Begin", &files)?)?;
    let mut figures = Vec::new();

    sealed(&house)?;
    let (mut made, mut rebuilt) = (Vec::new(), Vec::new());
    for n in 0..ALONE {
        let name = format!("alone-{n}");
        made.push(create(&house, &name)?);
        rebuilt.push(rebuild(&house, &name)?);
        end(&house, &name)?;
    }
    let services = "with 3 services and a database";
    figures.push(Figure::lower(format!("create {services}: median"), quantile(&mut made, 0.5), "s", None));
    figures.push(Figure::lower(format!("create {services}: p95"), quantile(&mut made, 0.95), "s", Some(5.0)));
    figures.push(Figure::lower(
        format!("rebuild {services}: p95"),
        quantile(&mut rebuilt, 0.95),
        "s",
        Some(10.0),
    ));

    let names = || {
        let of = |what: &str| cluster.ask("postgres", &format!("SELECT {what} LIKE 'andon%' ORDER BY 1"));
        (of("datname FROM pg_database WHERE datname"), of("rolname FROM pg_roles WHERE rolname"))
    };
    let (before, cycles) = (names(), cycles());
    at_once(HANDS, |hand| {
        for n in (hand..cycles).step_by(HANDS) {
            create(&house, &format!("cycle-{n}"))?;
            end(&house, &format!("cycle-{n}"))?;
        }
        Ok(())
    })?;
    let begun = Instant::now();
    while names() != before && begun.elapsed().as_secs() < 60 {
        crate::house::pause(200);
    }
    let (databases, roles) = names();
    let left = databases.lines().chain(roles.lines());
    let left = left.filter(|name| !before.0.contains(name) && !before.1.contains(name)).count();
    let what = format!("databases and roles left by {cycles} environments that came and went");
    figures.push(Figure::lower(what, left as f64, "", Some(0.0)));

    let production = "andon_shop_production_main";
    let rows = "INSERT INTO users SELECT i, 'user' || i || '@example.org', repeat(md5(i::text), 8) FROM generate_series(1, 1000000) i";
    cluster.ask(production, rows);
    let size = |name: &str| -> Result<f64, String> {
        let bytes: f64 = cluster
            .ask("postgres", &format!("SELECT pg_database_size('{name}')"))
            .parse()
            .map_err(|_| "no size".to_owned())?;
        Ok(bytes / 1e6)
    };
    figures.push(Figure::higher("the large database", size(production)?, "MB", Some(LARGE)));
    figures.push(Figure::lower("a masked template of it, 1,000,000 rows", sealed(&house)?, "s", None));

    let (mut cloned, mut compared) = (Vec::new(), Vec::new());
    for n in 0..CLONES {
        let name = format!("clone-{n}");
        create(&house, &name)?;
        let journal = house.journal()?;
        let at = |kind: &str| {
            let mut own = journal.iter().filter(|e| e["event"]["type"] == kind);
            own.find(|e| e["event"]["environment"] == name.as_str()).and_then(|e| e["at"].as_f64())
        };
        let (asked, done) = (at("environment_created"), at("database_made"));
        let took = done.zip(asked).map(|(done, asked)| (done - asked) / 1000.0);
        cloned.push(took.ok_or_else(|| format!("{name} got no database"))?);
        let begun = Instant::now();
        house.get(&format!("/api/v1/shop/environments/production/diff/{name}"))?;
        compared.push(begun.elapsed().as_secs_f64());
        end(&house, &name)?;
    }
    figures.push(Figure::lower(
        "parity of two environments: most",
        quantile(&mut compared, 1.0),
        "s",
        Some(1.0),
    ));
    figures.push(Figure::lower("a clone of it: median", quantile(&mut cloned, 0.5), "s", None));
    figures.push(Figure::lower("a clone of it: most of 10", quantile(&mut cloned, 1.0), "s", Some(2.0)));
    keep("data", figures, NOTES)
}

/// Seconds until a new template stands.
fn sealed(house: &House) -> Result<f64, String> {
    let templates = || -> Result<usize, String> {
        Ok(house.journal()?.iter().filter(|event| event["event"]["type"] == "template_sealed").count())
    };
    let before = templates()?;
    let begun = Instant::now();
    house.post("/api/v1/shop/data/main/refresh", &json!({ "from": "production" }))?;
    while templates()? == before {
        if begun.elapsed().as_secs() > 120 {
            return Err(format!("no template was sealed: {:#}", house.get("/api/v1/shop/data")?));
        }
        crate::house::pause(50);
    }
    Ok(begun.elapsed().as_secs_f64())
}
