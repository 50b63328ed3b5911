//! Commands as a team uses them: create, open to employees, ramp, kill, restore.

use super::*;
use crate::describe::describe;
use crate::evaluate::{Context, evaluate};
use andon_model::event::Recorded;
use andon_model::{Actor, Time};

fn after(set: &FlagSet, event: Event) -> FlagSet {
    let mut set = set.clone();
    let seq = set.revision() + 1;
    set.evolve(&Recorded { seq, at: Time(0), by: Actor::line("test"), project: None, event });
    set
}

fn made() -> FlagSet {
    let set = FlagSet::default();
    after(&set, create(&set, "checkout").unwrap())
}

fn is_on(set: &FlagSet, context: &Context) -> bool {
    evaluate(set, "checkout", context, Time(0)).value == Some(&json!(true))
}

fn words(set: &FlagSet) -> (String, String) {
    let words = describe(set.get("checkout").unwrap());
    (words.state, words.audience)
}

fn what(event: &Event) -> &str {
    let Event::FlagChanged { what, .. } = event else { panic!() };
    what
}

#[test]
fn a_new_flag_is_off_for_everyone() {
    let set = made();
    assert!(!is_on(&set, &Context::of("u")) && !is_on(&set, &Context::default()));
    assert_eq!(words(&set), ("off".into(), "nobody".into()));
    assert!(create(&set, "checkout").is_err() && create(&set, "").is_err() && create(&set, "a\nb").is_err());
}

#[test]
fn employees_and_one_per_cent_of_everyone_is_one_flag() {
    let set = made();
    let set = after(&set, open_to(&set, "checkout", "group=employees").unwrap());
    assert_eq!(words(&set), ("ramping".into(), "employees".into()));
    let event = ramp(&set, "checkout", 1.0).unwrap();
    assert_eq!(what(&event), "flag checkout is on for employees and 1 % of everyone");
    let set = after(&set, event);
    assert_eq!(words(&set), ("ramping".into(), "employees and 1 % of everyone".into()));
    assert!(is_on(&set, &Context::default().with("group", "employees")));
    let on = (0..20_000).filter(|n| is_on(&set, &Context::of(&format!("u{n}")))).count();
    assert!((130..=270).contains(&on), "{on} of 20,000 are on");
    let set = after(&set, open_to(&set, "checkout", "email=*@acme.com").unwrap());
    assert!(is_on(&set, &Context::default().with("email", "x@acme.com")));
    assert_eq!(words(&set).1, "employees, email = *@acme.com and 1 % of everyone");
    let set = after(&set, close_to(&set, "checkout", "group=employees").unwrap());
    assert!(!is_on(&set, &Context::default().with("group", "employees")));
    assert!(close_to(&set, "checkout", "group=employees").is_err());
}

#[test]
fn a_ramp_keeps_its_cohort_and_ends_with_everyone() {
    let mut set = made();
    let users: Vec<Context> = (0..3000).map(|n| Context::of(&format!("u{n}"))).collect();
    let mut before = 0;
    for percent in [0.01, 1.0, 10.0, 50.0, 99.999, 100.0] {
        let next = after(&set, ramp(&set, "checkout", percent).unwrap());
        let lost = users.iter().filter(|user| is_on(&set, user) && !is_on(&next, user)).count();
        let on = users.iter().filter(|user| is_on(&next, user)).count();
        assert!(lost == 0 && on >= before, "{percent} %: {lost} users were taken out");
        (before, set) = (on, next);
    }
    assert_eq!(before, users.len());
    assert!(is_on(&set, &Context::default()), "a user without a key belongs to everyone");
    assert_eq!(words(&set), ("on".into(), "everyone".into()));
    let set = after(&set, ramp(&set, "checkout", 0.0).unwrap());
    assert_eq!(words(&set), ("off".into(), "nobody".into()));
}

#[test]
fn shares_that_cannot_be_kept_exactly_are_refused() {
    for bad in [-1.0, 100.1, f64::NAN, f64::INFINITY, 0.0001, 33.333_33] {
        let error = ramp(&made(), "checkout", bad).unwrap_err().to_string();
        assert!(error.contains("steps of 0.001"), "{bad}: {error}");
    }
    assert!(what(&ramp(&made(), "checkout", 0.29).unwrap()).contains("0.29 %"));
}

#[test]
fn killing_beats_every_rule_at_once_and_restoring_brings_them_back() {
    let set = made();
    let set = after(&set, open_to(&set, "checkout", "group=employees").unwrap());
    let set = after(&set, ramp(&set, "checkout", 100.0).unwrap());
    let employee = Context::of("u").with("group", "employees");
    let killed = after(&set, kill(&set, "checkout", "payments fail").unwrap());
    assert!(!is_on(&killed, &employee) && !is_on(&killed, &Context::default()));
    assert_eq!(words(&killed), ("killed".into(), "everyone gets off".into()));
    assert!(killed.last_change("checkout").unwrap().what.ends_with("payments fail"));
    for refused in
        [ramp(&killed, "checkout", 5.0), switch(&killed, "checkout", true), kill(&killed, "checkout", "")]
    {
        assert!(refused.unwrap_err().to_string().contains("hint: "));
    }
    let restored = after(&killed, restore(&killed, "checkout").unwrap());
    assert_eq!(restored.get("checkout").unwrap().definition, set.get("checkout").unwrap().definition);
    assert!(restore(&restored, "checkout").is_err());
}

#[test]
fn a_disabled_flag_is_killed_too() {
    let disabled =
        json!({"state": "DISABLED", "variants": {"red": "r", "blue": "b"}, "defaultVariant": "red"});
    let set = after(&made(), changed("checkout", disabled.clone(), String::new()));
    let killed = after(&set, kill(&set, "checkout", "").unwrap());
    assert_eq!(evaluate(&killed, "checkout", &Context::of("u"), Time(0)).variant, Some("red"));
    assert_eq!(
        after(&killed, restore(&killed, "checkout").unwrap()).get("checkout").unwrap().definition,
        disabled
    );
}

#[test]
fn rules_of_a_teams_own_are_never_overwritten_by_a_ramp() {
    let own = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": {"if": [{"in": ["a", {"var": "x"}]}, "on"]}});
    let set = after(&made(), changed("checkout", own, String::new()));
    assert!(ramp(&set, "checkout", 5.0).unwrap_err().what.contains("rules of its own"));
    assert_eq!(words(&set).0, "targeted");
    let set = after(&set, switch(&set, "checkout", true).unwrap());
    assert_eq!(words(&set), ("on".into(), "everyone".into()));
}

#[test]
fn a_key_that_needs_quoting_is_refused() {
    for bad in ["", "a/b", "../x", "-x", "a b", "é", "<b>", &"a".repeat(201)] {
        assert!(create(&FlagSet::default(), bad).is_err(), "{bad}");
    }
}

#[test]
fn groups_are_read_strictly() {
    for bad in ["employees", "=x", "a=", "a=*", "a=*x*", "$flagd.flagKey=x", "a b=c"] {
        assert!(open_to(&made(), "checkout", bad).is_err(), "{bad}");
    }
}
