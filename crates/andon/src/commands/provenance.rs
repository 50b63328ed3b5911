//! `andon provenance`: what the server vouches for, and whether that is so, which needs no server.

use std::fs::File;
use std::path::PathBuf;

use andon_attest::{Envelope, Expected, Public, check};
use andon_line::view::provenance::AttestationsView;
use andon_model::Digest;
use andon_model::event::Attestation;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Place, print_json};
use crate::cli::Common;
use crate::client::{Client, Failure, status};
use crate::say::say;

/// The largest bundle that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// What is asked about artifacts.
#[derive(Debug, Subcommand)]
pub enum Provenance {
    /// What the server says of the artifact of a run. Exit status 1 when it is not believed.
    Show(Show),
    /// Whether a file is what a bundle says it is. Needs no server. Exit status 1 when it is not.
    Verify(Verify),
    /// The public keys that verify it, as PEM.
    Keys,
    /// Sign with a new key from now on; what was signed stays good.
    Rotate,
}

/// Options of `andon provenance show`.
#[derive(Debug, Args)]
pub struct Show {
    /// A run's number, or the digest of an artifact.
    what: String,
    /// Write the envelopes there, one in a line.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// Options of `andon provenance verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The artifact.
    file: PathBuf,
    /// Envelopes, one in a line, as `show --bundle` writes them.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Public keys in PEM, as `keys` prints them.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The builder that has to have built it.
    #[arg(long, value_name = "URI")]
    builder: Option<String>,
}

/// Does it.
pub fn provenance(common: &Common, wanted: Provenance) -> Result<(), Failure> {
    match wanted {
        Provenance::Show(options) => show(&Place::find(common)?, &options),
        Provenance::Verify(options) => verify(common, &options),
        Provenance::Keys => keys(common),
        Provenance::Rotate => {
            let client = Client::new(common.server.clone(), common.token.clone())?;
            let made = client.post("/api/v1/provenance/rotate", &json!({}))?;
            say!("● {} signs from now on", made["keyid"].as_str().unwrap_or_default());
            Ok(())
        }
    }
}

fn show(place: &Place, options: &Show) -> Result<(), Failure> {
    let path = match options.what.parse::<Digest>() {
        Ok(digest) => format!("/artifacts/{digest}/attestations"),
        Err(_) => {
            let run = options.what.trim_start_matches("run-");
            let run: u32 = run.parse().map_err(|_| Failure {
                words: format!("{:?} is neither a run's number nor a digest", options.what),
                status: status::USAGE,
            })?;
            format!("/runs/{run}/attestations")
        }
    };
    let view = place.show(&path, print)?;
    if let Some(file) = &options.bundle {
        let lines: String = view.attestations.iter().map(|row| format!("{}\n", row.envelope)).collect();
        std::fs::write(file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match view.found.as_deref() {
        Some("good") => Ok(()),
        _ => Err(Failure { words: String::new(), status: status::NO }),
    }
}

fn print(view: &AttestationsView) {
    match view.found.as_deref() {
        Some("good") => say!("● {} is what run-{} built", view.artifact, view.run),
        Some(why) => say!("■ {} of run-{} is not believed: {why}", view.artifact, view.run),
        None => say!("○ nobody vouches for {} of run-{} yet", view.artifact, view.run),
    }
    for row in &view.attestations {
        let what = match row.what {
            Attestation::Provenance => "where it comes from",
            Attestation::TestResult => "what its tests said",
        };
        say!("  {what}: {}, signed by {} at {}", row.digest, row.key, row.at.rfc3339());
    }
}

fn keys(common: &Common) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let answer = client.get("/api/v1/provenance/keys")?;
    if common.json {
        print_json(&answer);
        return Ok(());
    }
    for key in answer["keys"].as_array().into_iter().flatten() {
        let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        say!("# {} of {}, since {}", text("keyid"), text("builder"), text("since"));
        say!("{}", text("pem").trim_end());
    }
    Ok(())
}

fn verify(common: &Common, options: &Verify) -> Result<(), Failure> {
    let wrong = |file: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let pem = std::fs::read_to_string(&options.key).map_err(|error| wrong(&options.key, &error))?;
    let mut keys = Vec::new();
    for (at, _) in pem.match_indices("-----BEGIN PUBLIC KEY-----") {
        let key = Public::from_pem(&pem[at..]).map_err(|error| wrong(&options.key, &error))?;
        keys.push((key, options.builder.clone()));
    }
    if std::fs::metadata(&options.bundle).is_ok_and(|about| about.len() > LARGEST) {
        return Err(wrong(&options.bundle, &format!("more than {LARGEST} bytes")).into());
    }
    let bundle = std::fs::read_to_string(&options.bundle).map_err(|error| wrong(&options.bundle, &error))?;
    let artifact = File::open(&options.file).and_then(Digest::of_all);
    let artifact = artifact.map_err(|error| wrong(&options.file, &error))?;
    let expected = Expected { artifact: &artifact, source: None };
    let no =
        |why: String| Failure { words: format!("{artifact} is not believed: {why}"), status: status::NO };
    let mut found: Vec<Value> = Vec::new();
    for line in bundle.lines().filter(|line| !line.trim().is_empty()) {
        let statement = check(line.as_bytes(), &keys, expected).map_err(|doubt| no(doubt.to_string()))?;
        let signer = serde_json::from_str::<Envelope>(line).ok();
        let signer = signer.and_then(|envelope| Some(envelope.signatures.first()?.keyid.clone()));
        found.push(json!({ "key": signer, "statement": statement }));
    }
    let proven = |one: &Value| one["statement"]["predicateType"] == andon_attest::statement::PROVENANCE;
    if !found.iter().any(proven) {
        return Err(no("the bundle does not say where it comes from".into()));
    }
    if common.json {
        print_json(&json!({ "artifact": artifact, "attestations": found }));
        return Ok(());
    }
    say!("● {artifact} is what the bundle says");
    for one in &found {
        let (statement, key) = (&one["statement"], one["key"].as_str().unwrap_or_default());
        let predicate = &statement["predicate"];
        match predicate["result"].as_str() {
            Some(result) => say!("  its tests: {result}, signed by {key}"),
            None => {
                let build = &predicate["buildDefinition"];
                let resolved = &build["resolvedDependencies"];
                let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
                say!("  built by {}, signed by {key}", text(&predicate["runDetails"]["builder"]["id"]));
                say!("  from {} at {}", text(&resolved[0]["uri"]), text(&resolved[0]["digest"]["gitCommit"]));
                say!("  in {}", text(&predicate["runDetails"]["metadata"]["invocationId"]));
            }
        }
    }
    Ok(())
}
