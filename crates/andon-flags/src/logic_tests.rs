//! One example for each operator, and the odd corners that other evaluators agree on.

use super::*;
use crate::rule::compile;

fn result(rule: Value, context: Value) -> Value {
    let compiled = compile(&rule, &Map::new()).unwrap();
    let context = context.as_object().cloned().unwrap_or_default();
    run(&compiled.rule, &Root { context: &context, flag: "flag", now: 1000 }).into_owned()
}

fn holds(cases: &[(Value, Value)]) {
    let context = json!({"a": 1, "s": "text", "l": [1, 2, 3], "o": {"p": [{"q": "deep"}]}, "e": "", "targetingKey": "u"});
    for (rule, expected) in cases {
        assert_eq!(&result(rule.clone(), context.clone()), expected, "{rule}");
    }
}

#[test]
fn values_of_the_context_are_found_by_path() {
    holds(&[
        (json!({"var": "a"}), json!(1)),
        (json!({"var": ["o.p.0.q"]}), json!("deep")),
        (json!({"var": ["nope", 7]}), json!(7)),
        (json!({"var": "nope"}), json!(null)),
        (json!({"var": "$flagd.flagKey"}), json!("flag")),
        (json!({"var": "$flagd.timestamp"}), json!(1000)),
        (json!({"var": {"cat": ["o", ".p.0.q"]}}), json!("deep")),
        (json!({"missing": ["a", "b", "e"]}), json!(["b", "e"])),
        (json!({"missing_some": [1, ["a", "b"]]}), json!([])),
        (json!({"missing_some": [2, ["a", "b"]]}), json!(["b"])),
    ]);
}

#[test]
fn comparisons_convert_as_javascript_does_and_strict_ones_do_not() {
    holds(&[
        (json!({"==": [1, "1"]}), json!(true)),
        (json!({"===": [1, "1"]}), json!(false)),
        (json!({"===": [1, 1.0]}), json!(true)),
        (json!({"!=": [null, 0]}), json!(true)),
        (json!({"!==": ["a", "a"]}), json!(false)),
        (json!({"==": [true, 1]}), json!(true)),
        (json!({"<": [1, {"var": "a"}, 3]}), json!(false)),
        (json!({"<=": [1, {"var": "a"}, 3]}), json!(true)),
        (json!({">": ["b", "a"]}), json!(true)),
        (json!({">=": ["10", 9]}), json!(true)),
        (json!({"<": ["x", 1]}), json!(false)),
    ]);
}

#[test]
fn logic_gives_values_and_not_only_truth() {
    holds(&[
        (json!({"!": [""]}), json!(true)),
        (json!({"!!": [["0"]]}), json!(true)),
        (json!({"!!": "0"}), json!(true)),
        (json!({"and": [1, "", 3]}), json!("")),
        (json!({"or": [0, "b", 3]}), json!("b")),
        (json!({"if": [0, 1, "", 2]}), json!(null)),
        (json!({"if": [0, 1, true, 2, 3]}), json!(2)),
        (json!({"?:": [false, 1, 3]}), json!(3)),
    ]);
}

#[test]
fn arithmetic_and_texts_work() {
    holds(&[
        (json!({"+": [1, "2", 3]}), json!(6)),
        (json!({"-": [5]}), json!(-5)),
        (json!({"-": [5, 2]}), json!(3)),
        (json!({"*": [2, 3]}), json!(6)),
        (json!({"/": [1, 2]}), json!(0.5)),
        (json!({"/": [1, 0]}), json!(null)),
        (json!({"%": [7, 4]}), json!(3)),
        (json!({"min": [3, 1, 2]}), json!(1)),
        (json!({"max": [3, "x"]}), json!(null)),
        (json!({"cat": ["a", 1, null, 2.5, true]}), json!("a12.5true")),
        (json!({"substr": ["jsonlogic", -5]}), json!("logic")),
        (json!({"substr": ["jsonlogic", 1, 3]}), json!("son")),
        (json!({"substr": ["käse", 4, -2]}), json!("")),
        (json!({"substr": ["jsonlogic", 4, -2]}), json!("log")),
        (json!({"in": ["ex", {"var": "s"}]}), json!(true)),
        (json!({"in": [2, {"var": "l"}]}), json!(true)),
        (json!({"in": [1, null]}), json!(false)),
    ]);
}

#[test]
fn arithmetic_on_what_is_missing_matches_nobody() {
    holds(&[
        (json!({"<": [{"+": [{"var": "age"}, 1]}, 18]}), json!(false)),
        (json!({">=": [{"%": [1, 0]}, 0]}), json!(false)),
        (json!({"max": [{"*": [2, "x"]}, 5]}), json!(null)),
        (json!({"+": [true, 1]}), json!(null)),
        (json!({"-": [true, null]}), json!(1)),
        (json!({"in": ["", ""]}), json!(false)),
    ]);
}

#[test]
fn lists_are_walked() {
    holds(&[
        (json!({"map": [{"var": "l"}, {"*": [{"var": ""}, 2]}]}), json!([2, 4, 6])),
        (json!({"filter": [{"var": "l"}, {">": [{"var": ""}, 1]}]}), json!([2, 3])),
        (json!({"reduce": [{"var": "l"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 0]}), json!(6)),
        (json!({"all": [[], true]}), json!(false)),
        (json!({"none": [[], true]}), json!(true)),
        (json!({"some": [{"var": "o.p"}, {"==": [{"var": "q"}, "deep"]}]}), json!(true)),
        (json!({"merge": [[1], 2, [[3]]]}), json!([1, 2, [3]])),
    ]);
}

#[test]
fn flagds_own_operators_give_null_on_bad_input() {
    holds(&[
        (json!({"starts_with": [{"var": "s"}, "te"]}), json!(true)),
        (json!({"ends_with": [{"var": "s"}, "te"]}), json!(false)),
        (json!({"starts_with": [1, "te"]}), json!(null)),
        (json!({"ends_with": ["te"]}), json!(null)),
        (json!({"sem_ver": ["1.2.3", "^", "1"]}), json!(true)),
        (json!({"sem_ver": [1, "<", 2]}), json!(true)),
        (json!({"sem_ver": ["x", "=", "1"]}), json!(null)),
        (json!({"sem_ver": ["1", "=", "1", "2"]}), json!(null)),
    ]);
}

#[test]
fn fractional_puts_users_where_flagd_puts_them() {
    // Expectations of flagd's own test bed, version 2.
    let cards = json!([["clubs", 25], ["diamonds", 25], ["hearts", 25], ["spades", 25]]);
    let rule = |key: Value| {
        let mut arguments = vec![key];
        arguments.extend(cards.as_array().unwrap().clone());
        json!({ "fractional": arguments })
    };
    let name = json!({"var": "user.name"});
    for (user, card) in
        [("jack", "hearts"), ("queen", "spades"), ("ten", "clubs"), ("nine", "diamonds"), ("3", "clubs")]
    {
        let context = json!({"user": {"name": user}});
        assert_eq!(result(rule(json!({"cat": ["fractional-flag", name]})), context), card, "{user}");
    }
    for (user, card) in [("seven", "hearts"), ("eight", "diamonds"), ("nine", "clubs"), ("two", "spades")] {
        assert_eq!(
            result(rule(json!({"cat": ["shared-seed", name]})), json!({"user": {"name": user}})),
            card,
            "{user}"
        );
    }
    let edge = json!({"fractional": [{"var": "targetingKey"}, ["lower", 50], ["upper", 50]]});
    for (key, half) in [
        ("ejOoVL", "lower"),
        ("bY9fO-", "lower"),
        ("SI7p-", "lower"),
        ("6LvT0", "upper"),
        ("ceQdGm", "upper"),
    ] {
        assert_eq!(result(edge.clone(), json!({"targetingKey": key})), half, "{key}");
    }
}

#[test]
fn fractional_without_a_key_or_with_bad_weights_says_nothing() {
    holds(&[
        (json!({"fractional": [["one", 0], ["two", -5]]}), json!(null)),
        (json!({"fractional": [["one"]]}), json!("one")),
        (json!({"fractional": [[null, 1]]}), json!(null)),
        (json!({"fractional": [7, ["one", 1], ["two", 1]]}), json!(null)),
        (json!({"fractional": [["one", {"var": "s"}]]}), json!(null)),
        (json!({"fractional": [["no", {"if": [false, 1, 0]}], ["yes", 1]]}), json!("yes")),
        (json!({"fractional": [{"var": "nope"}, [true, 100]]}), json!(true)),
    ]);
    assert_eq!(result(json!({"fractional": [["one", 1]]}), json!({})), Value::Null);
    assert_eq!(result(json!({"fractional": [["one", 1]]}), json!({"targetingKey": ""})), Value::Null);
}

#[test]
fn bad_rules_are_refused_when_they_are_compiled() {
    let deep = (0..100).fold(json!(1), |rule, _| json!({"!": [rule]}));
    let bad = [
        (json!({"frobnicate": 1}), "frobnicate"),
        (deep, "deeper"),
        (json!({"fractional": []}), "without any"),
        (json!({"fractional": [["a", 0.5]]}), "whole numbers"),
        (json!({"fractional": [["a", 2147483647], ["b", 1]]}), "above"),
        (json!({"$ref": "nobody"}), "nobody"),
    ];
    for (rule, word) in bad {
        let error = compile(&rule, &Map::new()).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    let bomb: Map<String, Value> = (0..60)
        .map(|n| {
            (
                format!("e{n}"),
                json!({"and": [{"$ref": format!("e{}", n + 1)}, {"$ref": format!("e{}", n + 1)}]}),
            )
        })
        .collect();
    assert!(compile(&json!({"$ref": "e0"}), &bomb).is_err());
    assert!(crate::rule::inline(&json!({"$ref": "e0"}), &bomb).is_err());
}

proptest::proptest! {
    /// A cohort of one per cent holds about one user in a hundred, and raising the share never takes a user out.
    #[test]
    fn raising_a_share_keeps_everyone_in(user in "[a-z0-9]{1,12}", low in 0..100_000u32, more in 0..100_000u32) {
        let high = (low + more).min(100_000);
        let on = |weight: u32| result(
            json!({"fractional": [["on", weight], ["off", 100_000 - weight]]}), json!({"targetingKey": user})) == "on";
        proptest::prop_assert!(!on(low) || on(high));
        proptest::prop_assert!(on(100_000) && !on(0));
    }
}

#[test]
fn one_per_cent_and_a_hundredth_of_it_are_what_they_say() {
    let count = |weight: u32| {
        let rule = json!({"fractional": [["on", weight], ["off", 100_000 - weight]]});
        (0..100_000)
            .filter(|n| result(rule.clone(), json!({"targetingKey": format!("user-{n}")})) == "on")
            .count()
    };
    // Five standard deviations of a binomial of 100,000 users.
    assert!((843..=1157).contains(&count(1000)), "{}", count(1000));
    assert!((1..=26).contains(&count(10)), "{}", count(10));
}
