//! Backups, the way back, and disaster drills in the terminal.

use std::io::Write;
use std::path::PathBuf;

use andon_line::recovery::Drill;
use andon_line::view::RecoveryView;
use clap::Args;
use serde_json::json;

use super::read;
use crate::cli::Common;
use crate::client::{Client, Failure, status};
use crate::say::say;

/// Options of `andon backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// Bring it here too; else it stays below `backups` of the server's data directory.
    #[arg(long)]
    to: Option<PathBuf>,
}

/// Options of `andon restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup.
    backup: PathBuf,
    /// The new data directory.
    #[arg(long, required_unless_present = "check")]
    data: Option<PathBuf>,
    /// The file `key` of the old data directory: without it what was sealed stays sealed.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Only see whether it is whole.
    #[arg(long, conflicts_with = "data")]
    check: bool,
}

/// `andon backup`.
pub fn backup(common: &Common, options: &Backup) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let made = client.post("/api/v1/backups", &json!({}))?;
    let name = made["name"].as_str().unwrap_or_default().to_owned();
    if let Some(to) = &options.to {
        use std::os::unix::fs::OpenOptionsExt;
        let words = |error: std::io::Error| format!("{}: {error}", to.display());
        // It holds password hashes: nobody else reads it.
        let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(to);
        let mut file = file.map_err(words)?;
        let mut from = client.lines(&format!("/api/v1/backups/{name}"))?;
        std::io::copy(&mut from, &mut file).map_err(words)?;
        file.flush().and_then(|()| file.sync_all()).map_err(words)?;
    }
    if common.json {
        super::print_json(&made);
    } else {
        say!(
            "● {name}: everything up to event {}, {} kB",
            made["seq"],
            made["bytes"].as_u64().unwrap_or(0).div_ceil(1000)
        );
        say!(
            "  keep the file `key` of the data directory apart from it: sealed states cannot be read without"
        );
    }
    Ok(())
}

/// `andon restore`.
pub fn restore(common: &Common, options: &Restore) -> Result<(), Failure> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work =
        andon_line::backup::restore(&options.backup, options.data.as_deref(), options.key.as_deref(), &exe);
    let about = runtime.map_err(|error| error.to_string())?.block_on(work);
    let about = about.map_err(|error| error.to_string())?;
    if common.json {
        super::print_json(&json!(about));
        return Ok(());
    }
    let what = format!("everything up to event {} of {}", about.seq, about.at.rfc3339());
    match &options.data {
        Some(data) => say!(
            "● {} holds {what}\n  `andon serve --data {}` starts it again",
            data.display(),
            data.display()
        ),
        None => say!("● it is whole: {what}"),
    }
    if options.key.is_none() && !options.check {
        say!("▲ without --key states of Terraform stay sealed");
    }
    Ok(())
}

/// `andon drill`.
pub fn drill(common: &Common) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let answer = client.post("/api/v1/drills", &json!({}))?;
    let held: Drill = read(answer.clone())?;
    if common.json {
        super::print_json(&answer);
    }
    let Some(served) = held.served else {
        return Err(format!("the drill failed: {}", held.why.unwrap_or_default()).into());
    };
    if !common.json {
        say!("● the server was back after {}, everything after {served}", held.opened);
        say!("  {} environments, {} instances, from {}", held.environments, held.instances, held.backup);
    }
    Ok(())
}

/// `andon recovery`.
pub fn recovery(common: &Common) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let value = client.get("/api/v1/recovery")?;
    let view: RecoveryView = read(value.clone())?;
    if common.json {
        super::print_json(&value);
    } else {
        say!("{}", view.heading);
        for fact in &view.facts {
            say!("  {:>12}  {}", fact.value, fact.label);
        }
        for (drill, mark, words) in &view.drills {
            say!("  {} {} {words}", mark.sign(), drill.at.rfc3339());
        }
        for made in &view.backups {
            say!("  {} up to event {}, {} kB", made.name, made.seq, made.bytes.div_ceil(1000));
        }
    }
    let red = view.drills.first().is_some_and(|(_, mark, _)| *mark == andon_line::view::Mark::Stop);
    if red { Err(Failure { words: String::new(), status: status::NO }) } else { Ok(()) }
}
