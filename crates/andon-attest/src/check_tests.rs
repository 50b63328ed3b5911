//! Tests of what is believed and what is doubted.

use andon_model::event::{JobIsolation, KeyPurpose};
use andon_model::{ChangeId, JobName, ProjectName, RunId, Time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::key::Signer;
use crate::statement::{Origin, Said};

struct World {
    signer: Signer,
    project: ProjectName,
    job: JobName,
    commit: Oid,
    tree: Oid,
    artifact: Digest,
}

impl World {
    fn new() -> World {
        let key = Signer::generate(KeyPurpose::Provenance).unwrap();
        World {
            signer: Signer::of(KeyPurpose::Provenance, &key).unwrap(),
            project: "shop".parse().unwrap(),
            job: "package".parse().unwrap(),
            commit: "a".repeat(40).parse().unwrap(),
            tree: "b".repeat(40).parse().unwrap(),
            artifact: Digest::of(b"artifact"),
        }
    }
    fn origin(&self) -> Origin<'_> {
        static NONE: JobIsolation = JobIsolation { has: Vec::new(), lacks: Vec::new() };
        Origin {
            url: "http://andon",
            project: &self.project,
            trunk: "main",
            change: Some((ChangeId(3), 2)),
            run: RunId(7),
            job: Some((&self.job, 1)),
            replayed: None,
            commit: &self.commit,
            tree: &self.tree,
            plan: None,
            isolation: &NONE,
            builder: "urn:andon:builder:1",
            version: "0",
            times: Some((Time(0), Time(1500))),
        }
    }
    fn seal(&self, statement: &Value) -> Vec<u8> {
        serde_json::to_vec(&Envelope::seal(statement.to_string().as_bytes(), &self.signer).unwrap()).unwrap()
    }
    fn keys(&self) -> Vec<(Public, Option<String>)> {
        vec![(self.signer.public.clone(), Some("urn:andon:builder:1".into()))]
    }
    fn check(&self, envelope: &[u8]) -> Result<Statement, Doubt> {
        let source = Some((&self.commit, &self.tree));
        check(envelope, &self.keys(), Expected { artifact: &self.artifact, source })
    }
}

#[test]
fn what_was_built_here_from_what_landed_is_believed() {
    let world = World::new();
    let said = world.check(&world.seal(&world.origin().provenance(&world.artifact))).unwrap();
    let build = &said.predicate["buildDefinition"];
    assert_eq!(build["externalParameters"]["change"], 3);
    assert_eq!(said.predicate["runDetails"]["metadata"]["startedOn"], "1970-01-01T00:00:00.000Z");
    assert!(build["internalParameters"].get("replayedFrom").is_none(), "what is not known is left out");
    let green = Said { green: true, passed: vec!["t".into()], ..Said::default() };
    let said = world.check(&world.seal(&world.origin().test_result(&world.artifact, &green))).unwrap();
    assert_eq!(
        (&said.predicate["result"], &said.predicate["passedTests"][0]),
        (&"PASSED".into(), &"t".into())
    );
}

#[test]
fn anything_else_is_doubted_and_says_why() {
    let world = World::new();
    let good = world.origin().provenance(&world.artifact);
    let with = |pointer: &str, value: Value| {
        let mut other = good.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        world.check(&world.seal(&other)).unwrap_err()
    };
    assert!(matches!(with("/subject/0/digest/sha256", "00".into()), Doubt::Subject(_)));
    assert!(matches!(with("/predicate/runDetails/builder/id", "urn:other".into()), Doubt::Builder(_)));
    let tree = "/predicate/buildDefinition/resolvedDependencies/1/digest/gitTree";
    assert!(matches!(with(tree, "c".repeat(40).into()), Doubt::Source { what: "tree", .. }));
    let commit = "/predicate/buildDefinition/resolvedDependencies/0/digest";
    assert!(matches!(with(commit, Value::Null), Doubt::Source { what: "commit", .. }));
    assert!(matches!(with("/predicateType", "x".into()), Doubt::Unreadable(_)));
    assert!(matches!(with("/_type", "x".into()), Doubt::Unreadable(_)));
    let red = Said::default();
    let red = world.seal(&world.origin().test_result(&world.artifact, &red));
    assert_eq!(world.check(&red).unwrap_err(), Doubt::Tests("FAILED".into()));
    // Signed by somebody else, or changed after it was signed.
    let other = World::new();
    assert_eq!(world.check(&other.seal(&good)).unwrap_err(), Doubt::Signature);
    let mut sealed: Envelope = serde_json::from_slice(&world.seal(&good)).unwrap();
    sealed.payload = STANDARD.encode(good.to_string().replace("\"run\":7", "\"run\":8"));
    let bytes = serde_json::to_vec(&sealed).unwrap();
    assert_eq!(world.check(&bytes).unwrap_err(), Doubt::Signature);
    for bytes in [&b""[..], b"{}", b"[1]", b"{\"payloadType\":1}"] {
        assert!(matches!(world.check(bytes), Err(Doubt::Unreadable(_))));
    }
}
