//! The driver against a real PostgreSQL: a cluster of the test's own on a socket in a temporary directory. Told in given, when, then.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

use std::process::Command;
use std::time::Instant;

use andon_data::{Refresh, Server, Wanted, rules};
use andon_environment::data::migration::{Migration, read};
use andon_model::event::Phase;
use andon_model::{DatabaseName, EnvironmentName, ProjectName};
use andon_testkit::postgres::Cluster;
use tokio_postgres::NoTls;

async fn ask(cluster: &Cluster, database: &str, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(&cluster.words(database), NoTls).await.unwrap();
    let running = tokio::spawn(connection);
    let rows = client.simple_query(sql).await.unwrap();
    drop(client);
    running.await.unwrap().unwrap();
    let text = |row: tokio_postgres::SimpleQueryMessage| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    rows.into_iter().filter_map(text).collect()
}

struct Names {
    project: ProjectName,
    main: DatabaseName,
}

impl Names {
    fn new() -> Names {
        Names { project: "shop".parse().unwrap(), main: "main".parse().unwrap() }
    }

    async fn make(&self, server: &Server, environment: &str, template: Option<&str>) -> String {
        let environment: EnvironmentName = environment.parse().unwrap();
        let wanted = Wanted {
            project: &self.project,
            environment: &environment,
            database: &self.main,
            password: "0123abcd",
            template,
        };
        server.make(&wanted).await.unwrap()
    }
}

fn migrations(files: &[(&str, &str)]) -> Vec<Migration> {
    files.iter().map(|(name, sql)| read(name, sql).unwrap()).collect()
}

#[tokio::test]
async fn a_database_is_made_twice_without_harm_and_goes_with_its_role() {
    let Some(cluster) = Cluster::start() else { return };
    let (server, names) = (Server::new(&cluster.words("postgres"), "us").unwrap(), Names::new());
    let name = names.make(&server, "staging", None).await;
    assert_eq!(names.make(&server, "staging", None).await, name);
    assert_eq!(server.labelled().await.unwrap().len(), 1);
    // Another server neither takes it nor drops it.
    let other = Server::new(&cluster.words("postgres"), "them").unwrap();
    assert!(other.drop(&name).await.unwrap_err().to_string().contains("not this server's"));
    assert!(other.labelled().await.unwrap().is_empty());
    server.drop(&name).await.unwrap();
    server.drop(&name).await.unwrap();
    let left = "SELECT datname FROM pg_database WHERE datname LIKE 'andon%' UNION SELECT rolname FROM pg_roles WHERE rolname LIKE 'andon%'";
    assert_eq!(ask(&cluster, "postgres", left).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_and_the_next_attempt_goes_on_from_there() {
    let Some(cluster) = Cluster::start() else { return };
    let (server, names) = (Server::new(&cluster.words("postgres"), "us").unwrap(), Names::new());
    let name = names.make(&server, "staging", None).await;
    let run = |files: Vec<Migration>, phase| {
        let (server, name) = (server.clone(), name.clone());
        async move { server.migrate(&name, "0123abcd", &files, phase, false).await }
    };
    let first = (
        "1.expand.sql",
        "CREATE TABLE users (id int PRIMARY KEY, old text); INSERT INTO users VALUES (1, 'x')",
    );
    let broken = ("2.expand.sql", "ALTER TABLE users ADD new text; SELECT nonsense");
    let (ledger, done) = run(migrations(&[first, broken]), Phase::Expand).await;
    assert!(done.unwrap_err().to_string().contains("2.expand"));
    assert_eq!(ledger.len(), 1);
    let shape = server.shape(&name).await.unwrap();
    // One that ends its own transaction could not be undone: it is refused, and what it did is not in the ledger.
    let sly = ("2.expand.sql", "SELECT 1; COMMIT; SELECT 2");
    let (_, done) = run(migrations(&[first, sly]), Phase::Expand).await;
    assert!(done.unwrap_err().to_string().contains("ends its own transaction"));
    let good = ("2.expand.sql", "ALTER TABLE users ADD new text");
    let drops = ("2.contract.sql", "ALTER TABLE users DROP old");
    let all = migrations(&[first, good, drops]);
    let (ledger, done) = run(all.clone(), Phase::Expand).await;
    assert!(done.is_ok() && ledger.len() == 2, "{done:?}");
    assert_ne!(server.shape(&name).await.unwrap(), shape);
    let (ledger, done) = run(all, Phase::Contract).await;
    assert!(done.is_ok() && ledger.len() == 3, "{done:?}");
    // What was taken away is not there for an older commit.
    let (_, done) = run(migrations(&[first, good]), Phase::Expand).await;
    assert!(done.unwrap_err().to_string().contains("no way back"));
}

const MASK: &str = "tables:
  users: { id: keep, email: email, name: name, phone: phone, note: { constant: 'it''s gone' }, iban: hash, extra: 'null' }
  sessions: truncate
";

#[tokio::test]
async fn no_value_of_production_is_in_a_clone_and_a_column_without_a_rule_stops_the_copy() {
    let Some(cluster) = Cluster::start() else { return };
    let (server, names) = (Server::new(&cluster.words("postgres"), "us").unwrap(), Names::new());
    // Given a production with a canary in every column of text
    let real = names.make(&server, "production", None).await;
    let schema = "CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE, name varchar(40), phone text, note text NOT NULL, iban text, extra text);
        CREATE TABLE sessions (token text); CREATE TABLE orders (buyer text REFERENCES users (email));
        CREATE MATERIALIZED VIEW names AS SELECT name FROM users;
        INSERT INTO users SELECT i, 'canary' || i, 'canary' || i, 'canary' || i, 'canary' || i, 'canary' || i, 'canary' || i FROM generate_series(1, 500) i;
        INSERT INTO sessions VALUES ('canary'); INSERT INTO orders SELECT email FROM users WHERE id < 10; ANALYZE";
    let (_, done) = server
        .migrate(&real, "0123abcd", &migrations(&[("1.expand.sql", schema)]), Phase::Expand, false)
        .await;
    done.unwrap();
    // When a column is judged by no rule, then nothing is copied and the column is named
    let refresh = |rules, at| {
        let (server, real) = (server.clone(), real.clone());
        async move {
            let names = Names::new();
            let refresh = Refresh {
                project: &names.project,
                database: &names.main,
                from: &real,
                rules: &rules,
                key: "k",
                at,
            };
            server.refresh(&refresh).await
        }
    };
    let why = refresh(rules(MASK).unwrap(), 1).await.unwrap_err().to_string();
    assert!(why.contains("no rule judges orders.buyer"), "{why}");
    assert_eq!(server.labelled().await.unwrap().len(), 1);
    // When all are
    let began = Instant::now();
    let template =
        refresh(rules(&format!("{MASK}  orders: {{ buyer: email }}\n")).unwrap(), 2).await.unwrap();
    println!("a template in {} ms", began.elapsed().as_millis());
    let sealed =
        format!("SELECT datistemplate AND NOT datallowconn FROM pg_database WHERE datname = '{template}'");
    assert_eq!(ask(&cluster, "postgres", &sealed).await, ["t"]);
    let clone = names.make(&server, "staging", Some(&template)).await;
    // Then none of it is in the clone, rows find each other, and unique stays unique
    let dump = Command::new(cluster.program("pg_dump")).arg(cluster.url(&clone)).output().unwrap();
    assert!(dump.status.success() && dump.stdout.len() > 10_000);
    assert!(!String::from_utf8_lossy(&dump.stdout).contains("canary"));
    // Not in the statistics either, nor in what lies unreferenced in the files.
    let guesses = "SELECT count(*) FROM pg_stats WHERE most_common_vals::text LIKE '%canary%' OR histogram_bounds::text LIKE '%canary%'";
    assert_eq!(ask(&cluster, &clone, guesses).await, ["0"]);
    let file = ask(&cluster, &clone, "SELECT pg_relation_filepath('users')").await.remove(0);
    let bytes = std::fs::read(cluster.data().join(file)).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"canary"));
    let joined = "SELECT count(*) FROM orders JOIN users ON email = buyer";
    assert_eq!(ask(&cluster, &clone, joined).await, ["9"]);
    assert_eq!(ask(&cluster, &clone, "SELECT count(DISTINCT email) FROM users").await, ["500"]);
    // And the clone is its environment's own: it goes on migrating from where production is
    let more = migrations(&[("1.expand.sql", schema), ("2.expand.sql", "ALTER TABLE users ADD more text")]);
    let (ledger, done) = server.migrate(&clone, "0123abcd", &more, Phase::Expand, false).await;
    assert!(done.is_ok() && ledger.len() == 2, "{done:?}");
    server.drop(&clone).await.unwrap();
    server.drop(&template).await.unwrap();
    assert_eq!(server.labelled().await.unwrap().len(), 1);
}
