//! Each page, given a view in which every text is hostile: all of it is shown, none of it is markup.

use andon_line::stations::release::Point;
use andon_line::view::change::{DefinitionView, Proof, RunLine};
use andon_line::view::environment::{DeploymentRow, DriftRow, EnvironmentRow, InstanceRow, ServicePlace};
use andon_line::view::flags::FlagRow;
use andon_line::view::flow::{StageRow, WayRow};
use andon_line::view::release::{DifferenceRow, ReleaseRow, Sample, SignalRow};
use andon_line::view::run::{AskRow, FileRow, JobRow, RunStage, StepRow, TestRow};
use andon_line::view::wall::{Car, Cell, ServiceRow, Station};
use andon_line::view::{self, Fact, Frame, Mark, Moment, fact};
use andon_line::{Caller, State};
use andon_model::Time;
use andon_model::event::{Attestation, DefinitionEdit, JobIsolation, Role};

const HOSTILE: &str = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>";

fn text() -> String {
    HOSTILE.to_owned()
}

fn frame() -> Frame {
    view::frame(&State::default(), "shop", Time(0))
}

fn owner() -> Caller {
    Caller { user: "ann".parse().unwrap(), roles: [Role::Owner].into(), token: None, kind: None }
}

fn facts() -> Vec<Fact> {
    vec![fact(text(), text()), Fact { mark: Mark::Stop, ..fact(text(), text()) }]
}

fn moments() -> Vec<Moment> {
    vec![Moment {
        seq: 1,
        at: Time(0),
        mark: Mark::Go,
        by: text(),
        words: text(),
        link: Some("queue".into()),
    }]
}

/// What of a page an attacker could use: tags that we never write in the body of a page, and values that end early.
fn harmless(name: &str, page: &str) {
    assert!(page.contains("&lt;script&gt;alert(1)"), "{name} does not show it");
    for foreign in ["<script", "<img", "\"'&", "&<", " style="] {
        assert!(!page.contains(foreign), "{name} has {foreign} in {page}");
    }
    // Inside a tag, an attribute of theirs would stand outside of quotes.
    for tag in page.split('<').filter_map(|rest| rest.split_once('>').map(|(tag, _)| tag)) {
        let outside: String = tag.split('"').step_by(2).collect();
        assert!(!outside.contains("onerror"), "{name}: <{tag}>");
    }
}

#[test]
fn the_page_of_infrastructure_escapes_what_resources_states_and_people_are_called() {
    use andon_environment::blueprint::{Action, Attribute, Plan, ResourceChange};
    use andon_line::view::infrastructure::{
        InfraRunView, InfrastructureView, LostView, StateView, VersionView,
    };
    let attribute = Attribute { path: text(), before: Some(text()), after: Some(text()) };
    let change = ResourceChange {
        address: text(),
        kind: text(),
        actions: vec![Action::Delete, Action::Unknown(text())],
        reason: Some(text()),
        replaced_by: vec![text()],
        deposed: false,
        attributes: vec![attribute],
    };
    let plan = Plan {
        version: text(),
        changes: vec![change],
        drift: vec![],
        outputs: vec![text()],
        applyable: true,
    };
    let run = InfraRunView {
        run: "T1".into(),
        action: text(),
        mark: Mark::Wait,
        words: text(),
        place: Some(1),
        counts: Some(Default::default()),
        guarded: vec![text()],
        approvals: vec![text()],
        at: Time(0),
        by: text(),
        attempt: 1,
        tool: Some(text()),
        plan: Some(plan),
    };
    let (restored_from, recovered) = (Some(1), Some(text()));
    let version =
        VersionView { number: 1, serial: 1, at: Time(0), by: text(), bytes: 1, restored_from, recovered };
    let view = InfrastructureView {
        frame: frame(),
        environment: text(),
        heading: text(),
        sentence: text(),
        states: vec![StateView { name: text(), lock: Some(text()), versions: vec![version] }],
        runs: vec![run],
        outputs: vec![(text(), text())],
        unknown: vec![text()],
        lost: vec![LostView { address: text(), words: text() }],
    };
    harmless("infrastructure", &super::infrastructure::infrastructure(&view, &owner()).0);
}

#[test]
fn the_page_of_a_run_escapes_what_tests_jobs_and_files_are_called() {
    let step = StepRow { name: text(), mark: Mark::Go, words: text(), log_at: 0 };
    let job = JobRow {
        red_test: Some((text(), text())),
        name: "unit".into(),
        stage: text(),
        mark: Mark::Stop,
        words: text(),
        attempt: 1,
        tests: (1, 1, 0),
        log: true,
        asks: Some(AskRow { what: text(), who: text(), until: Time(0) }),
        steps: vec![step.clone(), step],
        runner: Some(text()),
        isolation: JobIsolation { has: vec![text()], lacks: vec![(text(), text())] },
    };
    let view = view::RunView {
        stages: ["quick", "slow"]
            .map(|_| RunStage { name: text(), mark: Mark::Go, words: text(), tests: (1, 0, 0) })
            .into(),
        frame: frame(),
        heading: text(),
        sentence: text(),
        mark: Mark::Stop,
        number: 1,
        change: Some(1),
        commit: "a".repeat(40),
        tree: "b".repeat(40),
        finished: true,
        verdict: "red".into(),
        reasons: vec![text()],
        facts: facts(),
        jobs: vec![job],
        red: vec![TestRow { job: "unit".into(), name: text(), message: text(), detail: text() }],
        breaches: vec![(text(), vec![text()])],
        files: vec![FileRow { path: text(), percent: 12.5, uncovered: text() }],
        notes: vec![],
        findings: vec![],
        layers: vec![],
        warnings: vec![text()],
        artifact: Some((text(), 2048)),
        attestations: vec![(Attestation::Provenance, text(), text())],
        plan: Some(text()),
        again: Some(3),
        may_again: true,
    };
    let finding = andon_validation::findings::Finding {
        tool: text(),
        rule: text(),
        level: andon_validation::findings::Level::Error,
        message: text(),
        path: Some(text()),
        lines: (1, 1),
        on_change: true,
    };
    let view = view::RunView { findings: vec![finding], notes: vec![text()], ..view };
    harmless("run", &super::run::run(&view, &owner()).0);
    harmless("job", &super::run::job(&view, "unit").unwrap().0);
    let view = view::RunView { finished: false, ..view };
    harmless("run under way", &super::run::run(&view, &owner()).0);
}

#[test]
fn the_page_of_a_release_escapes_the_answers_that_services_gave() {
    let row = ReleaseRow {
        id: "R1".into(),
        number: 1,
        service: "web".into(),
        environment: "production".into(),
        from: Some(text()),
        to: text(),
        strategy: text(),
        kind: text(),
        mark: Mark::Live,
        words: text(),
        state: "under_way".into(),
        weight_bp: 1000,
        started: Time(0),
        ended: None,
    };
    let signal = SignalRow {
        name: text(),
        stable: text(),
        canary: text(),
        ratio: text(),
        mark: Mark::Live,
        says: text(),
    };
    let sample = Sample { request: text(), stable: text(), canary: text() };
    let differs = DifferenceRow { at: text(), count: 3, percent: 1.5, noise: false, samples: vec![sample] };
    let all =
        view::ReleasesView { frame: frame(), heading: text(), sentence: text(), rows: vec![row.clone()] };
    let point = Point { at: Time(0), weight_bp: 1000, stable: (1, 900), canary: (2, 100), evidence_ln: 1.0 };
    let view = view::ReleaseView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        row,
        changes: vec![1],
        facts: facts(),
        steps: vec![(text(), Mark::Live)],
        signals: vec![signal],
        says: Some(text()),
        look: None,
        evidence: Some((2.0, 1000.0)),
        curve: vec![point.clone(), Point { at: Time(1000), ..point }],
        differences: vec![differs],
        commands: ["promote", "pause", "resume", "approve", "abort", "rollback"].map(String::from).to_vec(),
        timeline: moments(),
    };
    harmless("releases", &super::release::releases(&all).0);
    let page = super::release::release(&view, &owner()).0;
    harmless("release", &page);
    for command in ["promote", "pause", "resume", "approve", "abort"] {
        assert!(page.contains(&format!("action=\"/shop/releases/1/{command}\"")), "{command} is offered");
    }
}

#[test]
fn the_pages_of_environments_escape_what_was_found_in_them() {
    let row = EnvironmentRow {
        name: "staging".into(),
        mark: Mark::Wait,
        words: text(),
        like: Some(text()),
        standing: false,
        serving: vec![(text(), text())],
        instances: 1,
        drifts: 1,
        expires: Some(Time(0)),
        change: Some(1),
        parity: Some((7, text())),
    };
    let instance = InstanceRow {
        id: "i1".into(),
        revision: text(),
        mark: Mark::Go,
        words: text(),
        address: text(),
        host: Some(text()),
    };
    let service = ServicePlace {
        name: "web".into(),
        address: "http://web.staging.shop.localhost:1".into(),
        revision: Some(text()),
        previous: Some(text()),
        signals: Some((text(), text())),
        instances: vec![instance],
    };
    let deployment = DeploymentRow {
        id: "D1".into(),
        commit: text(),
        artifact: text(),
        changes: vec![1],
        mark: Mark::Stop,
        words: text(),
        tested: Some((false, text())),
        started: Time(0),
    };
    let all =
        view::EnvironmentsView { frame: frame(), heading: text(), sentence: text(), rows: vec![row.clone()] };
    let view = view::EnvironmentView {
        several_hosts: true,
        frame: frame(),
        heading: text(),
        sentence: text(),
        row,
        facts: facts(),
        services: vec![service],
        deployments: vec![deployment],
        drifts: vec![DriftRow { since: Time(0), what: text(), before: text(), after: text() }],
        held: true,
        notes: vec![text()],
        isolated_by: vec![text()],
        not_isolated_by: vec![(text(), text())],
        databases: vec![view::data::DatabaseRow {
            mark: Mark::Stop,
            environment: text(),
            database: text(),
            name: text(),
            template: Some(text()),
            cloned: Some(text()),
            schema: Some(text()),
            migrations: vec![text()],
            failed: Some(text()),
        }],
        shells: vec![view::shells::ShellRow {
            id: text(),
            mark: Mark::Live,
            words: text(),
            environment: text(),
            instance: text(),
            by: text(),
            why: text(),
            command: text(),
            opened: Time(0),
            recorded: true,
        }],
        scaled: vec![(text(), 3)],
        timeline: moments(),
    };
    let parity = view::ParityView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        here: text(),
        there: text(),
        percent: 7,
        facts: facts(),
        rows: vec![view::parity::ParityRow {
            mark: Mark::Wait,
            subject: text(),
            what: text(),
            here: text(),
            there: text(),
            allowed: Some(text()),
        }],
    };
    harmless("parity", &super::parity::parity(&parity).0);
    harmless("environments", &super::environment::environments(&all, &owner()).0);
    harmless("environment", &super::environment::environment(&view, &owner()).0);
}

#[test]
fn the_wall_escapes_titles_and_words_at_every_station() {
    let car = Car {
        link: "changes/1".into(),
        label: text(),
        title: text(),
        mark: Mark::Live,
        words: text(),
        progress: Some(40),
    };
    let cell = Cell {
        mark: Mark::Live,
        version: text(),
        words: text(),
        split: Some(1000),
        link: "environments/staging".into(),
    };
    let service =
        ServiceRow { name: text(), instances: text(), cells: vec![cell], signals: Some((text(), text())) };
    let view = view::WallView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        stations: vec![Station { name: "Gate".into(), busy: true, cars: vec![car] }],
        environments: vec!["staging".into()],
        services: vec![service],
        flow: facts(),
        feed: moments(),
    };
    harmless("wall", &super::wall::wall(&view, &owner()).0);
}

#[test]
fn flags_changes_and_flow_escape_what_people_wrote() {
    let flag = FlagRow {
        key: text(),
        state: "ramping".into(),
        mark: Mark::Live,
        audience: text(),
        variants: vec![text()],
        changed: Some((Time(0), text())),
        definition: serde_json::json!({ "x": HOSTILE }),
    };
    let flags = view::FlagsView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        rows: vec![flag],
        timeline: moments(),
    };
    harmless("flags", &super::flags::flags(&flags, &owner()).0);
    let row = view::ChangeRow {
        id: "#1".into(),
        number: 1,
        title: text(),
        author: text(),
        patch_set: 1,
        head: text(),
        standing: "refused".into(),
        mark: Mark::Stop,
        words: text(),
        since: Time(0),
        run: Some(1),
        progress: Some(3),
        fixes: Some(text()),
    };
    let change = view::ChangeView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        row,
        facts: facts(),
        definition: Some(DefinitionView {
            says: text(),
            mark: Mark::Wait,
            asks: Some(Role::Owner),
            edits: vec![
                DefinitionEdit { says: text(), loosens: true },
                DefinitionEdit { says: text(), loosens: false },
            ],
        }),
        runs: vec![RunLine { number: 1, patch_set: 1, mark: Mark::Stop, words: text(), queued: Time(0) }],
        proof: Some(Proof { commit: text(), tested_tree: text(), landed_tree: text(), run: 1 }),
        places: vec![("staging".into(), Mark::Go, text())],
        reasons: vec![text()],
        timeline: moments(),
    };
    harmless("change", &super::change::change(&change, &owner()).0);
    let stage = StageRow { from: text(), to: text(), kind: "waiting".into(), took: text(), total_ms: 5 };
    let segments = vec![(text(), text(), "working".to_owned(), 3)];
    let way = WayRow { number: 1, title: text(), working_ms: 3, waiting_ms: 0, segments };
    let flow = view::FlowView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        metrics: facts(),
        summary: serde_json::Value::Null,
        stages: vec![stage],
        changes: vec![way],
    };
    harmless("flow", &super::flow::flow(&flow).0);
}

#[test]
fn pages_of_coverage_escape_paths_and_source() {
    use andon_line::view::coverage::{CoverageRow, Sort, SourceLine};
    use andon_validation::coverage::{LineMark, Totals};
    let row = |files| CoverageRow { name: text(), path: text(), files, totals: Totals::default() };
    let view = view::CoverageView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        run: 1,
        folder: text(),
        sort: Sort::Missing,
        totals: Totals::default(),
        added: Some((1, 2)),
        notes: vec![text()],
        rows: vec![row(Some(2)), row(None)],
        more: 1,
        course: vec![(Time(0), 1, 50.0), (Time(1), 2, 60.0)],
        layers: vec![],
    };
    harmless("coverage", &super::coverage::coverage(&view).0);
    let line = |mark| SourceLine {
        number: 1,
        text: text(),
        mark,
        hits: Some(1),
        branches: Some((1, 2)),
        added: true,
        findings: vec![text()],
    };
    let view = view::SourceView {
        frame: frame(),
        heading: text(),
        sentence: text(),
        run: 1,
        path: text(),
        totals: Totals::default(),
        lines: vec![line(Some(LineMark::Partly)), line(None)],
        more: 3,
    };
    harmless("source", &super::coverage::source(&view).0);
}
