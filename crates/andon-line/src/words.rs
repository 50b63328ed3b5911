//! Every event as one sentence with a mark and a link: the one place where the journal is put into words.

use andon_model::event::{Attestation, Cause, Event, JobEnd, KeyPurpose, Purpose, ReleaseEnd, Verdict};
use andon_model::{ChangeId, EnvironmentName};

use crate::view::Mark;

/// Mark, sentence and link of an event; none for those that matter only inside a station.
pub fn of(event: &Event) -> Option<(Mark, String, Option<String>)> {
    let change = |id: &ChangeId| Some(format!("changes/{}", id.0));
    let place = |name: &EnvironmentName| Some(format!("environments/{name}"));
    Some(match event {
        Event::ProjectCreated { trunk } => {
            (Mark::Go, format!("The project was created; its trunk is {trunk}."), None)
        }
        Event::ChangePushed(push) if push.patch_set == 1 => {
            (Mark::Wait, format!("{} {} was pushed.", push.change, push.title), change(&push.change))
        }
        Event::ChangePushed(push) => {
            let words = format!("{} {} has patch set {}.", push.change, push.title, push.patch_set);
            (Mark::Wait, words, change(&push.change))
        }
        Event::ChangeAbandoned { change: id, why } => {
            (Mark::None, format!("{id} was taken back: {why}"), change(id))
        }
        Event::DefinitionApproved { change: id, patch_set, by_push: true, .. } => {
            let words = format!(
                "{id} changes andon.yaml; that is approved with patch set {patch_set}, by whoever pushed it."
            );
            (Mark::Go, words, change(id))
        }
        Event::DefinitionApproved { change: id, patch_set, why, .. } => {
            let words = format!("What patch set {patch_set} of {id} makes of andon.yaml was approved: {why}");
            (Mark::Go, words, change(id))
        }
        Event::DefinitionEdited { change: id, edits, .. } => {
            let loosens = edits.iter().filter(|edit| edit.loosens).count();
            let words = match loosens {
                0 => format!("{id} changes andon.yaml and takes away nothing that guards."),
                _ => format!(
                    "{id} changes andon.yaml and loosens {} trunk and users.",
                    crate::view::count(loosens, "guard") + " of"
                ),
            };
            (Mark::Wait, words, change(id))
        }
        Event::ChangeRefused { change: id, why, .. } => {
            (Mark::Stop, format!("{id} does not land: {}", first(why)), change(id))
        }
        Event::RunQueued { run, purpose: Purpose::Gate { change: id, .. }, again: Some(again), .. } => {
            (Mark::Live, format!("{id} is tested once more ({run}, after {again})."), change(id))
        }
        Event::RunQueued { run, purpose: Purpose::Gate { change: id, .. }, tree, .. } => (
            Mark::Live,
            format!("{id} is tested on the tree that would land, {} ({run}).", tree.short()),
            change(id),
        ),
        Event::RunQueued { run, commit, .. } => (
            Mark::Live,
            format!("Trunk {} is tested again ({run}).", commit.short()),
            Some(format!("runs/{}", run.0)),
        ),
        Event::Landed { change: id, commit, landed_tree, .. } => {
            let words = format!(
                "{id} landed as {}; its tree {} is the one that was tested.",
                commit.short(),
                landed_tree.short()
            );
            (Mark::Go, words, change(id))
        }
        Event::JobFinished { run, job, ended, took, .. } if *ended != JobEnd::Passed => {
            let (mark, words) = crate::view::job_end(ended);
            (mark, format!("{job} {words} after {took}."), Some(format!("runs/{}", run.0)))
        }
        Event::TestRed { run, job, test, .. } => {
            (Mark::Stop, format!("{test} is red in {job} of {run}."), Some(format!("runs/{}/{job}", run.0)))
        }
        Event::ImpactSeen { run, tests, selected, misses, .. } => {
            let missed = match misses {
                0 => "missed nothing".to_owned(),
                misses => format!("missed {}", crate::view::count(*misses as usize, "red test")),
            };
            let words = format!(
                "{selected} of {tests} tests of {run} can be touched by it; they alone would have {missed}."
            );
            (Mark::None, words, Some("tests".into()))
        }
        Event::SecretSet { secret, .. } => (Mark::None, format!("The secret {secret} was set."), None),
        Event::SecretRemoved { secret } => (Mark::None, format!("The secret {secret} was forgotten."), None),
        Event::TestQuarantined { test, owner, until, .. } => {
            let words = format!(
                "{test} is in quarantine until {}; {owner} makes it reliable again.",
                until.rfc3339().get(..10).unwrap_or_default()
            );
            (Mark::Wait, words, Some("tests".into()))
        }
        Event::QuarantineEnded { test, why } => {
            (Mark::None, format!("{test} counts again: {why}."), Some("tests".into()))
        }
        Event::HandoutOpened { run, name, tests, .. } => (
            Mark::None,
            format!("Jobs of {run} share {tests} tests ({name})."),
            Some(format!("runs/{}", run.0)),
        ),
        Event::JobLost { run, job, why, .. } => {
            (Mark::Wait, format!("{job} is run again: {why}."), Some(format!("runs/{}", run.0)))
        }
        Event::JobReplayed { run, job, from, .. } => {
            (Mark::Go, format!("{job} of {run} is what it was in {from}."), Some(format!("runs/{}", run.0)))
        }
        Event::ApprovalAsked { run, job, until } => {
            let words = format!("{job} of {run} waits for a person until {}.", until.rfc3339());
            (Mark::Wait, words, Some(format!("runs/{}", run.0)))
        }
        Event::ApprovalGiven { run, job, why } => {
            (Mark::Go, format!("{job} of {run} was approved: {why}"), Some(format!("runs/{}", run.0)))
        }
        Event::ApprovalRefused { run, job, why } => {
            (Mark::Stop, format!("{job} of {run} was refused: {why}"), Some(format!("runs/{}", run.0)))
        }
        Event::ArtifactBuilt { run, artifact, bytes, commit, .. } => {
            let words = format!(
                "{} was built from {} ({} kB).",
                artifact.short(),
                commit.short(),
                bytes.div_ceil(1000)
            );
            (Mark::Go, words, Some(format!("runs/{}", run.0)))
        }
        Event::Attested { run, artifact, what, .. } => {
            let words = match what {
                Attestation::Provenance => {
                    format!("The server vouches for where {} comes from.", artifact.short())
                }
                Attestation::TestResult => {
                    format!("The server vouches for what the tests of {} said.", artifact.short())
                }
            };
            (Mark::Go, words, Some(format!("runs/{}", run.0)))
        }
        Event::SigningKeyMade { purpose, key, .. } => {
            let what = match purpose {
                KeyPurpose::Provenance => "statements about artifacts",
                KeyPurpose::Identity => "identities of jobs",
            };
            (Mark::None, format!("The key {key} signs {what} from now on."), None)
        }
        Event::RunFinished { run, verdict, .. } => {
            let (mark, words) = match verdict {
                Verdict::Green => (Mark::Go, "green".to_owned()),
                Verdict::Red { headline, .. } => (Mark::Stop, format!("red: {headline}")),
                Verdict::Broken { why } => (Mark::Wait, format!("broken: {why}")),
            };
            (mark, format!("{run} is {words}"), Some(format!("runs/{}", run.0)))
        }
        Event::BackupMade { name, bytes, .. } => {
            (Mark::Go, format!("The backup {name} was made ({} kB).", bytes.div_ceil(1000)), None)
        }
        Event::Restored { seq } => (
            Mark::Wait,
            format!("Restored from a backup that ends at event {seq}: everything starts anew."),
            None,
        ),
        Event::DrillFinished { served: Some(served), .. } => {
            (Mark::Go, format!("A disaster drill made everything again in {served}."), None)
        }
        Event::DrillFinished { why, .. } => {
            let why = why.as_deref().unwrap_or("not everything came back");
            (Mark::Stop, format!("A disaster drill failed: {why}"), None)
        }
        Event::EnvironmentCreated { environment, like: Some(like), change, .. } => {
            let shows = change.map(|change| format!(" for change {}", change.0)).unwrap_or_default();
            (Mark::Go, format!("{environment} was created like {like}{shows}."), place(environment))
        }
        Event::EnvironmentCreated { environment, .. } => {
            (Mark::Go, format!("{environment} was created from code."), place(environment))
        }
        Event::EnvironmentDestroyed { environment, rebuild: true, why } => {
            (Mark::Wait, format!("{environment} is rebuilt from code: {why}"), place(environment))
        }
        Event::EnvironmentDestroyed { environment, why, .. } => {
            (Mark::None, format!("{environment} was destroyed: {why}"), place(environment))
        }
        Event::EnvironmentExtended { environment, expires } => {
            let end =
                expires.map_or_else(|| "it stays".into(), |end| format!("it ends at {}", end.rfc3339()));
            (Mark::None, format!("{environment} was extended: {end}."), place(environment))
        }
        Event::ExpiryNear { environment, left } => (
            Mark::Wait,
            format!("{environment} ends within {left}, unless somebody keeps it."),
            place(environment),
        ),
        Event::ServiceScaled { environment, service, replicas } => {
            let words = match replicas {
                Some(replicas) => {
                    format!("{service} in {environment} runs {replicas} times, whatever code says.")
                }
                None => format!("{service} in {environment} runs as often as code says."),
            };
            (Mark::None, words, place(environment))
        }
        Event::EnvironmentHeld { environment, why } => {
            let words = match why {
                Some(why) => format!("{environment} takes no deployments: {why}"),
                None => format!("{environment} takes deployments again."),
            };
            (Mark::None, words, place(environment))
        }
        Event::EnvironmentAsleep { environment, asleep, why } => {
            let what = if *asleep { "sleeps" } else { "wakes" };
            (Mark::None, format!("{environment} {what}: {why}."), place(environment))
        }
        Event::ReleaseMoved { release, fact } if fact["is"] == "frozen" => {
            let why = fact["why"].as_str().unwrap_or_default();
            (Mark::Stop, format!("{release} is frozen: {why}"), Some(format!("releases/{}", release.0)))
        }
        Event::PackagesSeen { environment, service, kind, count, .. } => {
            let kind = if kind.is_empty() { "no package records" } else { kind };
            (
                Mark::None,
                format!("{service} in {environment} sees {count} packages ({kind})."),
                place(environment),
            )
        }
        Event::ShellOpened { shell, environment, instance, why, .. } => {
            let words = format!("The shell {shell} was opened inside {instance} of {environment}: {why}");
            (Mark::Wait, words, place(environment))
        }
        Event::ShellEnded { shell, how, .. } => {
            (Mark::None, format!("The shell {shell} is closed: {how}."), None)
        }
        Event::EnvironmentTainted { environment, why } => {
            let words = format!("{environment} is tainted until it is rebuilt: {why}");
            (Mark::Wait, words, place(environment))
        }
        Event::DriftSeen { environment, drift } => {
            let words = format!(
                "{environment} differs from its code: {} was {}, is {}.",
                drift.what, drift.before, drift.after
            );
            (Mark::Wait, words, place(environment))
        }
        Event::DriftHealed { environment, what, how } => {
            (Mark::Go, format!("{environment} equals its code again: {what} was {how}."), place(environment))
        }
        Event::DeploymentStarted { deployment, environment, commit, .. } => {
            let words =
                format!("{deployment} puts {} into {environment}, beside what serves.", commit.short());
            (Mark::Live, words, place(environment))
        }
        Event::DeploymentFinished { deployment, ok: true, .. } => {
            (Mark::Go, format!("{deployment} is up: every instance is healthy, no user was moved."), None)
        }
        Event::DeploymentFinished { deployment, why, .. } => {
            (Mark::Stop, format!("{deployment} was given up: {why}"), None)
        }
        Event::EnvironmentTested { deployment, environment, ok, why, .. } => {
            let mark = if *ok { Mark::Go } else { Mark::Stop };
            (mark, format!("{deployment} was tested in {environment}: {why}"), place(environment))
        }
        Event::HostJoined { host, address, .. } => {
            (Mark::Go, format!("The host {host} joined; its instances listen on {address}."), None)
        }
        Event::HostLeaving { host, forget: true, why } => {
            (Mark::Wait, format!("The host {host} leaves when it is empty: {why}."), None)
        }
        Event::HostLeaving { host, why, .. } => {
            (Mark::Wait, format!("The host {host} is emptied: {why}."), None)
        }
        Event::HostStays { host } => (Mark::Go, format!("The host {host} takes instances again."), None),
        Event::HostLost { host, why } => (
            Mark::Stop,
            format!("The host {host} is lost, what ran there is made anew elsewhere: {why}."),
            None,
        ),
        Event::HostBack { host } => (Mark::Go, format!("The host {host} is reached again."), None),
        Event::HostLeft { host, why } => (Mark::None, format!("The host {host} has left: {why}."), None),
        Event::RunnerJoined { runner, labels, slots, .. } => {
            let labels: Vec<&str> = labels.iter().map(andon_model::LabelName::as_str).collect();
            let with = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
            (Mark::Go, format!("The runner {runner}{with} joined; it takes {slots} jobs at once."), None)
        }
        Event::RunnerLeaving { runner, forget: true, why } => {
            (Mark::Wait, format!("The runner {runner} leaves when its jobs are over: {why}."), None)
        }
        Event::RunnerLeaving { runner, why, .. } => {
            (Mark::Wait, format!("The runner {runner} gets no more jobs: {why}."), None)
        }
        Event::RunnerStays { runner } => (Mark::Go, format!("The runner {runner} gets jobs again."), None),
        Event::RunnerLeft { runner, why } => {
            (Mark::None, format!("The runner {runner} has left: {why}."), None)
        }
        Event::InstanceRetired { instance, why } if why.starts_with("moved") => {
            (Mark::Live, format!("{instance} gave way to one on another host: {why}."), None)
        }
        Event::InstanceRetired { instance, why } if why.starts_with("drift") => {
            (Mark::Wait, format!("{instance} is replaced: {why}"), None)
        }
        Event::StateUnlocked { state, forced: true, why, .. } => (
            Mark::Wait,
            format!("The lock of the state {state} was freed: {why}."),
            place(&state.environment),
        ),
        Event::StateLocked { state, holder } if holder.maintenance => (
            Mark::Wait,
            format!("The state {state} is held for maintenance: {}.", holder.who),
            place(&state.environment),
        ),
        Event::StateStored { state, version } if version.restored_from.is_some() => {
            let from = version.restored_from.unwrap_or_default();
            let words =
                format!("The state {state} is again as in version {from}; its serial is {}.", version.serial);
            (Mark::Wait, words, place(&state.environment))
        }
        Event::StateStored { state, version } if version.recovered.is_some() => {
            let run = version.recovered.map(|run| run.to_string()).unwrap_or_default();
            let words = format!(
                "A state of {state} that {run} could not store was found and stored; its serial is {}.",
                version.serial
            );
            (Mark::Wait, words, place(&state.environment))
        }
        Event::StateDeleted { state } => (
            Mark::Wait,
            format!("The state {state} was emptied; its versions are kept."),
            place(&state.environment),
        ),
        Event::DatabaseMade { environment, database, template, .. } => {
            let from = template.as_ref().map_or("empty", |_| "cloned from the masked template");
            (Mark::Go, format!("{environment} has its database {database}, {from}."), place(environment))
        }
        Event::DatabaseDropped { environment, database } => {
            (Mark::None, format!("The database {database} of {environment} was dropped."), None)
        }
        Event::MigrationRan(ran) => {
            let words = format!("The migration {} ran in {} of {}.", ran.name, ran.database, ran.environment);
            (Mark::Go, words, place(&ran.environment))
        }
        Event::DataMigrated(done) if !done.ok => {
            let words = format!("The data of {} could not be migrated: {}", done.environment, done.why);
            (Mark::Stop, words, place(&done.environment))
        }
        Event::TemplateSealed(sealed) => {
            let words = format!(
                "A masked template of {} was made from {} in {}.",
                sealed.database, sealed.from, sealed.took
            );
            (Mark::Go, words, None)
        }
        Event::RefreshFailed { database, why } => {
            (Mark::Stop, format!("No template of {database} could be made: {why}"), None)
        }
        Event::InfraPlanned(planned) if planned.approvals > 0 => {
            let words = format!(
                "{} waits for {}: {}.",
                planned.run,
                crate::view::count(planned.approvals as usize, "approval"),
                planned.guarded.join(", ")
            );
            (Mark::Wait, words, None)
        }
        Event::InfraApproved { run, why } => (Mark::Go, format!("{run} was approved: {why}"), None),
        Event::InfraStopping { run, force: false } => {
            (Mark::Wait, format!("{run} of the infrastructure is being stopped."), None)
        }
        Event::InfraStopping { run, force: true } => (
            Mark::Stop,
            format!("{run} of the infrastructure did not end in time and is ended by force."),
            None,
        ),
        Event::InfraAdopted { run, environment, address, id } => {
            let words = format!("{address} ({id}), which {run} had made and not saved, is in the state now.");
            (Mark::Wait, words, place(environment))
        }
        Event::InfraLost { run, environment, address, why, .. } => {
            (Mark::Stop, format!("{address} of {run} is in no state: {why}"), place(environment))
        }
        Event::InfraForgotten { environment, address, why } => {
            (Mark::None, format!("{address} is not looked for any more: {why}"), place(environment))
        }
        Event::InfraFinished(end) if end.ok => {
            (Mark::Go, format!("{} of the infrastructure: {}.", end.run, end.why), None)
        }
        Event::InfraFinished(end) => {
            (Mark::Stop, format!("{} of the infrastructure failed: {}", end.run, end.why), None)
        }
        Event::ReleaseStarted { release, environment, service, from, to, strategy_name, .. } => {
            let from = from.as_ref().map_or_else(String::new, |from| format!("{} → ", from.commit()));
            let words =
                format!("{release}: {service} in {environment}, {from}{}, {strategy_name}.", to.commit());
            (Mark::Live, words, Some(format!("releases/{}", release.0)))
        }
        Event::WeightChanged { release, basis_points, why } => {
            let words = format!("{} % of users are on it: {why}", percent(*basis_points));
            (Mark::Live, words, Some(format!("releases/{}", release.0)))
        }
        Event::ReleaseFinished { release, how, why, .. } => {
            let (mark, what) = match how {
                ReleaseEnd::Released => (Mark::Go, "everyone has it"),
                ReleaseEnd::TakenBack => (Mark::Stop, "was taken back by the immune system"),
                ReleaseEnd::Aborted => (Mark::Stop, "was taken back"),
                ReleaseEnd::DarkEnded => (Mark::Go, "ended its dark launch"),
            };
            let words = match how {
                // Its reason says the same already.
                ReleaseEnd::Released => format!("{release}: {why}"),
                _ => format!("{release} {what}: {why}"),
            };
            (mark, words, Some(format!("releases/{}", release.0)))
        }
        Event::FlagChanged { what, .. } => (Mark::None, capital(what), Some("flags".into())),
        Event::CordPulled { andon, cause, why, .. } => {
            let who = if matches!(cause, Cause::Person) { "" } else { " by the line" };
            (
                Mark::Stop,
                format!("{andon}: the cord was pulled{who}: {why}"),
                Some(format!("andons/{}", andon.0)),
            )
        }
        Event::CordAcknowledged { andon, owner } => {
            (Mark::Wait, format!("{owner} is on {andon}."), Some(format!("andons/{}", andon.0)))
        }
        Event::CordNoted { andon, note } => {
            (Mark::None, format!("{andon}: {note}"), Some(format!("andons/{}", andon.0)))
        }
        Event::CordFixLanded { andon, change: id } => {
            (Mark::Wait, format!("{id} landed to fix {andon}; it is believed when it is proven."), change(id))
        }
        Event::CordReleased { andon, why } => {
            (Mark::Go, format!("{andon} is over, the line runs: {why}"), Some(format!("andons/{}", andon.0)))
        }
        _ => return None,
    })
}

/// Basis points as people read percent: `5`, `0.5`.
pub fn percent(basis_points: u16) -> String {
    match basis_points % 100 {
        0 => (basis_points / 100).to_string(),
        _ => format!("{}", f64::from(basis_points) / 100.0),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default() + chars.as_str()
}

fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
