//! A PostgreSQL of one's own: a cluster in a temporary directory, for as long as a test or a benchmark lasts. Knows no schema.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a harness that cannot go on stops the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A running cluster. It listens on a free port of the loopback and on a socket in its directory, trusts everybody, and does not wait for the disk.
pub struct Cluster {
    room: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// Makes and starts one with the newest server programs of this machine. Where there are none the test says so and is skipped; in CI it fails.
    pub fn start() -> Option<Cluster> {
        use std::os::unix::fs::PermissionsExt;
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin =
            installed.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let Some(bin) = bin else {
            println!("SKIPPED: postgres (no server programs below /usr/lib/postgresql)");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "PostgreSQL is missing");
            return None;
        };
        let room = tempfile::tempdir().unwrap();
        std::fs::set_permissions(room.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let db = room.path().join("db");
        let mut init = as_postgres(&bin.join("initdb"));
        init.arg("-D").arg(&db).args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]);
        let made = init.stdin(Stdio::null()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options =
            format!("-c listen_addresses=127.0.0.1 -p {port} -c fsync=off -k {}", room.path().display());
        let mut start = as_postgres(&bin.join("pg_ctl"));
        start.arg("-D").arg(&db).args(["-w", "-o", &options, "-l"]).arg(room.path().join("log")).arg("start");
        // It inherits our output else, and whoever reads that waits for its end.
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(start.status().unwrap().success(), "pg_ctl did not start the cluster");
        Some(Cluster { room, bin, port })
    }

    /// The address of a database, as its owner and superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The same by its socket, as words of a connection.
    pub fn words(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", self.room.path().display(), self.port)
    }

    /// A program of the same version: `pg_dump`, `psql`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Where it keeps its files.
    pub fn data(&self) -> PathBuf {
        self.room.path().join("db")
    }

    /// What these statements say, a line a row.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        let out =
            psql.args(["-AtX", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.url(database)]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = as_postgres(&self.bin.join("pg_ctl"));
        stop.arg("-D").arg(self.room.path().join("db")).args(["-m", "immediate", "stop"]);
        let _ = stop.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// PostgreSQL refuses to be root.
fn as_postgres(program: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}
