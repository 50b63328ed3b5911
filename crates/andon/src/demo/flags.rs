//! The scene of a flag: for employees, for one percent, for all, for nobody. Asked as OpenFeature clients ask.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::must;
use super::report::rounded;
use super::world::{PROJECT, World};

/// Customers that are asked for.
const USERS: usize = 3_000;
/// Those of them who work here.
const EMPLOYEES: usize = 60;
/// The flag.
const FLAG: &str = "new-checkout";
/// A flag that does not change within this time has failed.
const LIMIT: Duration = Duration::from_secs(5);

/// A flag's whole life, each step measured at its clients.
pub fn flag(world: &mut World) -> Result<Value, String> {
    world.andon(&["flag", "create", FLAG])?;
    let before = on(world)?;
    must(before == (0, 0), || format!("a new flag is on for {before:?}"))?;
    let employees_after = changes(world, &["flag", "open-to", FLAG, "group=employees"], 0, true)?;
    let employees = on(world)?;
    must(employees == (EMPLOYEES, 0), || {
        format!("on for {employees:?} instead of the {EMPLOYEES} employees alone")
    })?;
    world.report.step(&format!(
        "on for {} employees and nobody else after {:.0} ms",
        employees.0,
        employees_after * 1000.0
    ));
    world.andon(&["flag", "ramp", FLAG, "1"])?;
    let percent = on(world)?;
    let share = percent.1 as f64 * 100.0 / (USERS - EMPLOYEES) as f64;
    must((0.4..=1.8).contains(&share), || format!("on for {share:.2} % of the customers instead of 1 %"))?;
    world.report.step(&format!("on for {share:.2} % of the customers and all employees"));
    let again = on(world)?;
    must(again == percent, || {
        format!("the same users asked again got other answers: {percent:?}, {again:?}")
    })?;
    let outside = (EMPLOYEES..USERS).find(|user| !evaluate(world, *user).unwrap_or(true));
    let outside = outside.ok_or("everyone has it at 1 %")?;
    let all_after = changes(world, &["flag", "ramp", FLAG, "100"], outside, true)?;
    let all = on(world)?;
    must(all == (EMPLOYEES, USERS - EMPLOYEES), || format!("on for {all:?} instead of all"))?;
    world.report.step(&format!("on for all after {:.0} ms", all_after * 1000.0));
    let killed_after = changes(world, &["flag", "kill", FLAG, "-m", "the demo is over"], outside, false)?;
    let killed = on(world)?;
    must(killed == (0, 0), || format!("killed and still on for {killed:?}"))?;
    world.report.step(&format!("off for everyone after {:.0} ms", killed_after * 1000.0));
    let slowest = employees_after.max(all_after).max(killed_after);
    must(slowest < 1.0, || format!("a change took {slowest:.2} s to be seen"))?;
    Ok(json!({
        "users": USERS,
        "on_for_employees_alone": employees.0,
        "percent_at_1_percent": rounded(share),
        "on_for_all": all.0 + all.1,
        "on_when_killed": killed.0 + killed.1,
        "evaluations": USERS * 6,
        "seconds_command_to_changed_answer": {
            "employees": rounded(employees_after), "all": rounded(all_after), "killed": rounded(killed_after),
        },
    }))
}

/// For how many employees and how many customers it is on.
fn on(world: &World) -> Result<(usize, usize), String> {
    let mut on = (0, 0);
    for user in 0..USERS {
        let is = evaluate(world, user)?;
        if user < EMPLOYEES { on.0 += usize::from(is) } else { on.1 += usize::from(is) }
    }
    Ok(on)
}

fn evaluate(world: &World, user: usize) -> Result<bool, String> {
    let group = if user < EMPLOYEES { "employees" } else { "customers" };
    let context = json!({ "context": { "targetingKey": format!("customer-{user}"), "group": group } });
    let said = world.client.post(&format!("/{PROJECT}/ofrep/v1/evaluate/flags/{FLAG}"), &context);
    let said = said.map_err(|failure| failure.words)?;
    said["value"].as_bool().ok_or_else(|| format!("the flag's value is {said}"))
}

/// Seconds from the start of a command until a user's answer is this one.
fn changes(world: &World, command: &[&str], user: usize, wanted: bool) -> Result<f64, String> {
    let began = Instant::now();
    let running = world.command(command).spawn().map_err(|error| error.to_string())?;
    let mut took = None;
    while took.is_none() && began.elapsed() < LIMIT {
        if evaluate(world, user)? == wanted {
            took = Some(began.elapsed().as_secs_f64());
        }
    }
    let out = running.wait_with_output().map_err(|error| error.to_string())?;
    must(out.status.success(), || {
        format!("andon {}: {}", command.join(" "), String::from_utf8_lossy(&out.stderr))
    })?;
    took.ok_or_else(|| format!("{user} was not answered {wanted} within {} s", LIMIT.as_secs()))
}
