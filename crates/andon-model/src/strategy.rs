//! How users are moved to a new revision: the strategies as a team writes them and as the journal keeps them.
//!
//! Owns the written form and the checks that need nothing but the strategy itself. What a strategy *does*
//! lies in andon-release.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Span;

pub use crate::percent::{Percent, Weight};

/// How users are moved to a new revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Everyone, in one move.
    #[default]
    AllAtOnce,
    /// Equal steps by time; the immune system watches, but no proof is waited for.
    Rolling {
        /// The steps.
        rolling: Rolling,
        /// What watches it.
        guard: Guard,
    },
    /// Everyone in one move, with the old slot kept warm for an instant way back.
    BlueGreen(BlueGreen),
    /// Weighted steps, each with its own condition to go on.
    Canary {
        /// In order, with growing weights; after the last one everyone is moved.
        steps: Vec<Step>,
        /// What watches it.
        guard: Guard,
    },
    /// Production traffic is copied to the new revision; no user is ever moved.
    Dark(Dark),
}

/// Equal steps by time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rolling {
    /// Share of users that each step adds.
    #[serde(default = "quarter")]
    pub step: Weight,
    /// Time between two steps.
    #[serde(default = "ten_seconds")]
    pub each: Span,
}

/// Two slots and a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlueGreen {
    /// How long the old slot stays warm after the switch.
    #[serde(default = "ten_minutes")]
    pub keep: Span,
}

/// One step of a canary. Give `for`, `until`, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of users on the new revision, in percent.
    pub weight: Weight,
    /// Alone: how long the step lasts. With `until: certified`: the longest time it waits for the proof.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
    /// What ends the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

/// What ends a step, beside time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// The proof, from this step's users, that the new revision is not worse than allowed.
    Certified,
    /// A person with the role `releaser` says so.
    Approved,
}

/// Mirrored traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dark {
    /// Share of requests that is copied, in percent.
    #[serde(default = "everyone")]
    pub mirror: Weight,
    /// For how long.
    #[serde(rename = "for", default = "ten_minutes")]
    pub time: Span,
    /// Whether the answers of both revisions are compared.
    #[serde(default = "yes")]
    pub compare: bool,
    /// The largest share of answers that may differ.
    #[serde(default = "one_percent")]
    pub max_different: Percent,
    /// What is copied: requests that change nothing, or all. All only where the new revision writes nowhere real.
    #[serde(default, skip_serializing_if = "Methods::is_safe")]
    pub methods: Methods,
}

/// Which requests are copied in a dark launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Methods {
    /// GET, HEAD and OPTIONS.
    #[default]
    Safe,
    /// Any.
    All,
}

impl Methods {
    /// Whether nothing need be said.
    pub fn is_safe(&self) -> bool {
        *self == Methods::Safe
    }
}

/// What watches a release, and what it does when it sees something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    /// What is compared.
    pub analysis: Analysis,
    /// When the new revision is proven worse.
    pub on_regression: OnRegression,
    /// When a step's time is over without a proof.
    pub on_inconclusive: OnInconclusive,
    /// Who gets the new revision by asking for it, whatever its weight. They are no witnesses.
    pub routes: Vec<Asked>,
}

/// A request that asks for the new revision: a header or a cookie that says exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The name of the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The name of the cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// What it says.
    pub is: String,
}

/// What the immune system compares between the new revision and the one that serves. Counts are of users, not
/// of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Users who meet an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<WorseBy>,
    /// Users who meet an answer slower than the old revision's usual ones.
    #[serde(default, alias = "latency-p95", skip_serializing_if = "Option::is_none")]
    pub latency_p95: Option<WorseBy>,
    /// Share of harmless releases that may be taken back by mistake, over the whole release and however often
    /// it is looked at.
    #[serde(default = "a_tenth_of_a_percent")]
    pub alpha: Percent,
}

/// How much worse is still allowed. For errors: points of percent of requests. For latency: percent of the
/// answer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorseBy {
    /// The allowance.
    #[serde(alias = "worse-by")]
    pub worse_by: Percent,
}

/// What is done when the new revision is proven worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnRegression {
    /// All users go back at once.
    #[default]
    RollBack,
    /// The ramp stops where it is and a person decides.
    Pause,
}

/// What is done when a step's time is over without a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnInconclusive {
    /// The step goes on until the proof comes or a person promotes.
    #[default]
    Hold,
    /// The next step begins, with a note.
    Promote,
}

impl Default for Analysis {
    fn default() -> Analysis {
        Analysis {
            errors: Some(WorseBy { worse_by: Percent::from_ppm(5_000) }),
            latency_p95: Some(WorseBy { worse_by: Percent::from_ppm(200_000) }),
            alpha: a_tenth_of_a_percent(),
        }
    }
}

impl Strategy {
    /// Its kind, as written.
    pub fn kind(&self) -> &'static str {
        match self {
            Strategy::AllAtOnce => "all-at-once",
            Strategy::Rolling { .. } => "rolling",
            Strategy::BlueGreen(_) => "blue-green",
            Strategy::Canary { .. } => "canary",
            Strategy::Dark(_) => "dark",
        }
    }

    /// What watches it; none for the strategies that move everyone or nobody.
    pub fn guard(&self) -> Option<&Guard> {
        match self {
            Strategy::Rolling { guard, .. } | Strategy::Canary { guard, .. } => Some(guard),
            Strategy::AllAtOnce | Strategy::BlueGreen(_) | Strategy::Dark(_) => None,
        }
    }

    /// How long the revision that served before has to be kept running after the end.
    pub fn keep(&self) -> Span {
        match self {
            Strategy::BlueGreen(blue_green) => blue_green.keep,
            _ => Span(0),
        }
    }
}

/// The written form: one of the first five keys, and what belongs to it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Everyone, in one move.
    #[serde(rename = "all-at-once", default, skip_serializing_if = "Option::is_none")]
    all_at_once: Option<Nothing>,
    /// Equal steps by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rolling: Option<Rolling>,
    /// Everyone in one move, the old slot kept warm.
    #[serde(rename = "blue-green", default, skip_serializing_if = "Option::is_none")]
    blue_green: Option<BlueGreen>,
    /// Weighted steps with growing weights; after the last one everyone is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    canary: Option<Vec<Step>>,
    /// Production traffic is copied; no user is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dark: Option<Dark>,
    /// What is compared, for `canary` and `rolling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    analysis: Option<Analysis>,
    /// What is done when the new revision is proven worse.
    #[serde(alias = "on-regression", default, skip_serializing_if = "Option::is_none")]
    on_regression: Option<OnRegression>,
    /// What is done when a step's time is over without a proof.
    #[serde(alias = "on-inconclusive", default, skip_serializing_if = "Option::is_none")]
    on_inconclusive: Option<OnInconclusive>,
    /// Who gets the new revision of a `canary` or `rolling` by asking for it, as `{ header: x-try, is: "new" }`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Asked>,
}

/// A map without keys.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

const ONE_OF: &str = "say exactly one of all-at-once, rolling, blue-green, canary, dark";

impl TryFrom<Written> for Strategy {
    type Error = String;

    fn try_from(written: Written) -> Result<Strategy, String> {
        let Written {
            all_at_once,
            rolling,
            blue_green,
            canary,
            dark,
            analysis,
            on_regression,
            on_inconclusive,
            routes,
        } = written;
        let guarded =
            analysis.is_some() || on_regression.is_some() || on_inconclusive.is_some() || !routes.is_empty();
        let guard = Guard {
            analysis: analysis.unwrap_or_default(),
            on_regression: on_regression.unwrap_or_default(),
            on_inconclusive: on_inconclusive.unwrap_or_default(),
            routes,
        };
        let strategy = match (all_at_once, rolling, blue_green, canary, dark) {
            (Some(Nothing {}), None, None, None, None) => Strategy::AllAtOnce,
            (None, Some(rolling), None, None, None) => Strategy::Rolling { rolling, guard },
            (None, None, Some(blue_green), None, None) => Strategy::BlueGreen(blue_green),
            (None, None, None, Some(steps), None) => Strategy::Canary { steps, guard },
            (None, None, None, None, Some(dark)) => Strategy::Dark(dark),
            (None, None, None, None, None) => return Err(format!("the strategy says nothing: {ONE_OF}")),
            _ => return Err(format!("the strategy says two things: {ONE_OF}")),
        };
        if guarded && strategy.guard().is_none() {
            let kind = strategy.kind();
            return Err(format!(
                "{kind} has no use for analysis, on_regression, on_inconclusive or routes: take them out, or write a canary"
            ));
        }
        strategy.check()?;
        Ok(strategy)
    }
}

impl Strategy {
    /// What is wrong with it, with what to write instead.
    fn check(&self) -> Result<(), String> {
        match self {
            Strategy::Canary { steps, .. } => check_steps(steps)?,
            Strategy::Rolling { rolling, .. } if rolling.step.basis_points() == 0 => {
                return Err("step: 0 moves nobody: write a share such as 25".into());
            }
            Strategy::Dark(dark) if dark.mirror.basis_points() == 0 => {
                return Err("mirror: 0 copies nothing: write a share such as 100".into());
            }
            _ => {}
        }
        let Some(Guard { analysis, routes, .. }) = self.guard() else { return Ok(()) };
        routes.iter().try_for_each(check_route)?;
        if analysis.errors.is_none() && analysis.latency_p95.is_none() {
            return Err("analysis compares nothing: name errors, latency_p95 or both, or leave it out".into());
        }
        if !(1..=100_000).contains(&analysis.alpha.ppm()) {
            return Err("alpha has to lie between 0.0001% and 10%: write 0.1%".into());
        }
        Ok(())
    }
}

fn check_route(asked: &Asked) -> Result<(), String> {
    let name = match (&asked.header, &asked.cookie) {
        (Some(name), None) | (None, Some(name)) => name,
        _ => {
            return Err(
                "a route asks by one thing: write { header: x-try, is: new } or { cookie: try, is: new }"
                    .into(),
            );
        }
    };
    // The characters of a token (RFC 9110 section 5.6.2).
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{name:?} cannot be the name of a header or cookie: write one such as x-try"));
    }
    if asked.is.is_empty() || !asked.is.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(format!("{:?} cannot be sent as a header: write a plain word after is", asked.is));
    }
    Ok(())
}

fn check_steps(steps: &[Step]) -> Result<(), String> {
    if steps.is_empty() {
        return Err("the canary has no step: write canary: [{weight: 5, for: 5m}]".into());
    }
    let mut last = 0;
    for Step { weight, time, until } in steps {
        if weight.basis_points() <= last {
            return Err(format!("the weights have to grow from above 0: {weight} does not"));
        }
        last = weight.basis_points();
        match (time, until) {
            (None, None) => {
                return Err(format!("the step at {weight} never ends: add for: 5m or until: approved"));
            }
            (None, Some(Until::Certified)) => {
                return Err(format!(
                    "the step at {weight} may wait for ever: add the longest time, such as for: 10m"
                ));
            }
            (Some(_), Some(Until::Approved)) => {
                return Err(format!(
                    "the step at {weight} waits for a person, who has no time limit: take for out"
                ));
            }
            (_, Some(Until::Certified)) if last == 10_000 => {
                return Err(
                    "at 100 nobody is left to compare with: take until: certified out of that step".into()
                );
            }
            _ => {}
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strategy, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Strategy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a release strategy, such as all-at-once or canary: [{weight: 5, for: 5m}]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Strategy, E> {
                match text {
                    "all-at-once" => Ok(Strategy::AllAtOnce),
                    other => Err(E::custom(format!("{other:?} is not a strategy: {ONE_OF}"))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Strategy, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                Strategy::try_from(written).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Serialize for Strategy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut written = Written::default();
        match self.clone() {
            Strategy::AllAtOnce => return serializer.serialize_str("all-at-once"),
            Strategy::Rolling { rolling, .. } => written.rolling = Some(rolling),
            Strategy::BlueGreen(blue_green) => written.blue_green = Some(blue_green),
            Strategy::Canary { steps, .. } => written.canary = Some(steps),
            Strategy::Dark(dark) => written.dark = Some(dark),
        }
        if let Some(guard) = self.guard().cloned() {
            written.analysis = Some(guard.analysis);
            written.on_regression = Some(guard.on_regression);
            written.on_inconclusive = Some(guard.on_inconclusive);
            written.routes = guard.routes;
        }
        written.serialize(serializer)
    }
}

impl JsonSchema for Strategy {
    fn schema_name() -> Cow<'static, str> {
        "Strategy".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let written = generator.subschema_for::<Written>();
        json_schema!({
            "description": "How users are moved to a new revision.",
            "anyOf": [{ "const": "all-at-once" }, written]
        })
    }
}

const fn quarter() -> Weight {
    Weight::QUARTER
}
const fn everyone() -> Weight {
    Weight::ALL
}
const fn ten_seconds() -> Span {
    Span::secs(10)
}
const fn ten_minutes() -> Span {
    Span::secs(600)
}
const fn yes() -> bool {
    true
}
const fn one_percent() -> Percent {
    Percent::from_ppm(10_000)
}
const fn a_tenth_of_a_percent() -> Percent {
    Percent::from_ppm(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Strategy, String> {
        serde_json::from_value(json).map_err(|e| e.to_string())
    }

    #[test]
    fn every_strategy_survives_the_journal() {
        let written = [
            r#""all-at-once""#,
            r#"{"all-at-once":{}}"#,
            r#"{"rolling":{"step":10,"each":"2s"}}"#,
            r#"{"blue-green":{"keep":"10m"}}"#,
            r#"{"dark":{"mirror":100,"for":"20s","compare":true,"max_different":"1%"}}"#,
            r#"{"canary":[{"weight":0.5,"for":"2s"},{"weight":25,"until":"certified","for":"60s"},
                {"weight":"50%","until":"approved"}],
                "analysis":{"errors":{"worse_by":"0.5%"},"latency-p95":{"worse_by":20}},"on_regression":"pause",
                "routes":[{"header":"x-try","is":"new"},{"cookie":"try","is":"1"}]}"#,
        ];
        for text in written {
            let strategy: Strategy = serde_json::from_str(text).unwrap();
            let again = serde_json::to_string(&strategy).unwrap();
            assert_eq!(serde_json::from_str::<Strategy>(&again).unwrap(), strategy, "{again}");
        }
    }

    #[test]
    fn a_strategy_says_exactly_one_thing() {
        let two = read(serde_json::json!({"canary": [{"weight": 5, "for": "1s"}], "dark": {}})).unwrap_err();
        assert!(two.contains("exactly one of"), "{two}");
        assert!(read(serde_json::json!({})).unwrap_err().contains("exactly one of"));
        assert!(read(serde_json::json!("canary")).unwrap_err().contains("exactly one of"));
    }

    #[test]
    fn a_canary_that_could_not_go_on_is_refused() {
        for (steps, says) in [
            (serde_json::json!([]), "no step"),
            (serde_json::json!([{"weight": 0, "for": "1s"}]), "grow"),
            (serde_json::json!([{"weight": 5, "for": "1s"}, {"weight": 5, "for": "1s"}]), "grow"),
            (serde_json::json!([{"weight": 5}]), "never ends"),
            (serde_json::json!([{"weight": 5, "until": "certified"}]), "for ever"),
            (serde_json::json!([{"weight": 5, "until": "approved", "for": "1s"}]), "no time limit"),
            (serde_json::json!([{"weight": 100, "until": "certified", "for": "1s"}]), "nobody is left"),
            (serde_json::json!([{"weight": 5, "fore": "1s"}]), "fore"),
        ] {
            let why = read(serde_json::json!({ "canary": steps })).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn an_analysis_without_a_metric_or_where_nothing_is_compared_is_refused() {
        let empty = serde_json::json!({"canary": [{"weight": 5, "for": "1s"}], "analysis": {}});
        assert!(read(empty).unwrap_err().contains("compares nothing"));
        let useless = serde_json::json!({"blue-green": {}, "on_regression": "pause"});
        assert!(read(useless).unwrap_err().contains("no use"));
    }

    #[test]
    fn a_route_that_nobody_could_ask_by_is_refused() {
        for (route, says) in [
            (serde_json::json!({"is": "new"}), "asks by one thing"),
            (serde_json::json!({"header": "x", "cookie": "x", "is": "new"}), "asks by one thing"),
            (serde_json::json!({"header": "x y", "is": "new"}), "cannot be the name"),
            (serde_json::json!({"cookie": "", "is": "new"}), "cannot be the name"),
            (serde_json::json!({"header": "x", "is": "a\r\nb"}), "cannot be sent"),
            (serde_json::json!({"header": "x", "is": ""}), "cannot be sent"),
        ] {
            let canary = serde_json::json!({"canary": [{"weight": 5, "for": "1s"}], "routes": [route]});
            let why = read(canary).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
