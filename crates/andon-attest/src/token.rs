//! Tokens that say who a job is: JSON Web Tokens as OpenID Connect has them, signed with ES256. Knows neither clocks nor keys' places.

use andon_model::event::Purpose;
use andon_model::{EnvironmentName, JobName, Oid, ProjectName, RunId, Span, Time};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::key::{NotAKey, Signer};

/// The longest that a token is valid.
pub const LONGEST: Span = Span::secs(3600);

/// A job that asks for a token.
#[derive(Debug)]
pub struct Who<'a> {
    /// Under which the server is known: the issuer.
    pub url: &'a str,
    /// Whose.
    pub project: &'a ProjectName,
    /// The branch that it is for.
    pub trunk: &'a str,
    /// The environment that it tests.
    pub environment: Option<&'a EnvironmentName>,
    /// The job.
    pub job: &'a JobName,
    /// The run; none where an environment is tested.
    pub run: Option<RunId>,
    /// Counts from 1.
    pub attempt: u32,
    /// A change that has not landed, with its patch set.
    pub unlanded: Option<(u32, Option<u32>)>,
    /// What it runs on.
    pub commit: &'a Oid,
    /// Its tree.
    pub tree: Option<&'a Oid>,
}

impl Who<'_> {
    /// What a relying party compares. What has not landed never looks like trunk.
    pub fn subject(&self) -> String {
        let source = match self.unlanded {
            None => format!("ref:{}", self.trunk),
            Some((change, _)) => format!("change:{change}"),
        };
        let environment =
            self.environment.map(|environment| format!(":environment:{environment}")).unwrap_or_default();
        format!("project:{}:{source}{environment}:job:{}", self.project, self.job)
    }

    /// The claims.
    pub fn claims(&self, audience: &[String], now: Time, lasts: Span, id: &str) -> Value {
        let (from, to) = (now.0 / 1000, (now + lasts.min(LONGEST)).0 / 1000);
        let audience: Value = match audience {
            [one] => json!(one),
            many => json!(many),
        };
        let mut claims = json!({
            "iss": self.url,
            "sub": self.subject(),
            "aud": audience,
            "iat": from,
            "nbf": from,
            "exp": to,
            "jti": id,
            "project": self.project,
            "job": self.job,
            "attempt": self.attempt,
            "commit": self.commit,
            "protected": self.unlanded.is_none(),
        });
        let more = [
            ("ref", self.unlanded.is_none().then(|| json!(format!("refs/heads/{}", self.trunk)))),
            ("change", self.unlanded.map(|(change, _)| json!(change))),
            ("patch_set", self.unlanded.and_then(|(_, patch_set)| patch_set).map(|n| json!(n))),
            ("environment", self.environment.map(|environment| json!(environment))),
            ("run", self.run.map(|run| json!(run.0))),
            ("tree", self.tree.map(|tree| json!(tree))),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                claims[name] = value;
            }
        }
        claims
    }
}

/// A change that a run's purpose names, with its patch set.
pub fn change_of(purpose: &Purpose) -> Option<(u32, Option<u32>)> {
    match purpose {
        Purpose::Gate { change, patch_set } => Some((change.0, Some(*patch_set))),
        Purpose::Trunk => None,
    }
}

/// The token: JWS compact serialisation (RFC 7515).
pub fn sign(claims: &Value, signer: &Signer) -> Result<String, NotAKey> {
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": signer.public.id() });
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", text(&header), text(claims));
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// What the server says of itself to relying parties (OpenID Connect Discovery 1.0, section 3, as far as it applies).
pub fn discovery(url: &str) -> Value {
    json!({
        "issuer": url,
        "jwks_uri": format!("{url}/.well-known/jwks.json"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid"],
        "claims_supported": [
            "iss", "sub", "aud", "iat", "nbf", "exp", "jti", "project", "job", "attempt", "commit", "tree", "run", "ref",
            "change", "patch_set", "environment", "protected",
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_landed_never_looks_like_trunk_and_nothing_lasts_longer_than_an_hour() {
        let (project, job, commit) =
            ("shop".parse().unwrap(), "deploy".parse().unwrap(), "a".repeat(40).parse().unwrap());
        let environment = "production".parse().unwrap();
        let mut who = Who {
            url: "https://andon",
            project: &project,
            trunk: "main",
            environment: Some(&environment),
            job: &job,
            run: None,
            attempt: 1,
            unlanded: None,
            commit: &commit,
            tree: None,
        };
        assert_eq!(who.subject(), "project:shop:ref:main:environment:production:job:deploy");
        let claims = who.claims(&["sts".into()], Time(5_000), Span::secs(7200), "x");
        assert_eq!((&claims["aud"], &claims["protected"]), (&json!("sts"), &json!(true)));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
        who.unlanded = Some((12, Some(3)));
        let claims = who.claims(&["a".into(), "b".into()], Time(0), Span::secs(60), "x");
        assert_eq!(claims["sub"], "project:shop:change:12:environment:production:job:deploy");
        assert_eq!((&claims["protected"], claims.get("ref")), (&json!(false), None));
    }
}
