//! The jobs as they are run: templates put in, matrices unfolded, values in their places. Everything later sees these jobs only.
//!
//! A value never becomes part of a command: commands find it in their environment, as `MATRIX_PYTHON` or `WITH_MODULE`. The same names,
//! written `$MATRIX_PYTHON`, stand for the value in paths, in `env`, `group` and the cache's name; what comes of it is checked like
//! anything written by hand.

use std::collections::BTreeMap;

use andon_model::{JobName, StageName};
use indexmap::IndexMap;
use serde_saphyr::{Location, Spanned};

use crate::check::{Problem, at, unknown, whole};
use crate::definition::{Definition, Job, ServiceLimits, commit_stage};
use crate::job::{Template, Values};
use crate::matrix::{called, combinations, is_word, plain};

/// The most jobs of one file, when all is unfolded.
const JOBS: usize = 10_000;
/// The most bytes of all of them, and the most needs: a short file could unfold to more than any memory holds.
const BYTES: usize = 16 << 20;
const NEEDS: usize = 200_000;
/// The longest text that a value was put into, in bytes.
const TEXT: usize = 4096;

/// What may still be unfolded.
struct Left {
    jobs: usize,
    bytes: usize,
}

impl Left {
    /// Takes so many jobs like this one, before they are made.
    fn take(&mut self, name: &JobName, job: &Job, times: usize) -> Result<(), Box<Problem>> {
        // A job is strings and numbers: it always has a JSON form.
        let each = serde_json::to_vec(job).map_or(0, |bytes| bytes.len());
        let enough = self.jobs.checked_sub(times).zip(self.bytes.checked_sub(each.saturating_mul(times)));
        let Some((jobs, bytes)) = enough else {
            let what =
                format!("with {name} the file unfolds to more than {JOBS} jobs or {} MiB", BYTES >> 20);
            return Err(Box::new(whole(
                what,
                "make fewer combinations, and put long scripts into files of the repository",
            )));
        };
        *self = Left { jobs, bytes };
        Ok(())
    }
}

/// Puts the expanded jobs in place of the written ones.
pub(crate) fn expand(definition: &mut Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    let written = std::mem::take(&mut definition.pipeline.jobs);
    let templates = std::mem::take(&mut definition.pipeline.templates);
    for (name, template) in &templates {
        problems.extend(of_template(name.as_str(), template));
    }
    let mut made: IndexMap<JobName, Job> = IndexMap::new();
    let mut became: BTreeMap<JobName, Vec<JobName>> = BTreeMap::new();
    let mut left = Left { jobs: JOBS, bytes: BYTES };
    for (name, job) in written {
        match variants(&name, job, &templates, &mut left) {
            Ok(variants) => {
                let names = variants.iter().map(|(name, _)| name.clone()).collect();
                for (variant, job) in variants {
                    if made.insert(variant.clone(), job).is_some() {
                        problems.push(whole(
                            format!("two jobs are called {variant}"),
                            "a job of a matrix is called like the job and its values: give one of the two another name",
                        ));
                    }
                }
                became.insert(name, names);
            }
            Err(problem) => problems.push(*problem),
        }
    }
    // What needs a job with a matrix needs all that it becomes.
    let mut left = NEEDS;
    let mut all = |needs: &[Spanned<JobName>]| {
        let mut found: IndexMap<&JobName, Spanned<JobName>> = IndexMap::new();
        for need in needs {
            let names = became.get(&need.value).map_or(std::slice::from_ref(&need.value), Vec::as_slice);
            for name in names {
                found
                    .entry(name)
                    .or_insert_with(|| Spanned::new(name.clone(), need.referenced, need.defined));
            }
        }
        left = left.checked_sub(found.len())?;
        Some(found.into_values().collect::<Vec<_>>())
    };
    for job in made.values_mut() {
        let needs: Vec<_> = job.needs.iter().chain(&job.takes).cloned().collect();
        let (Some(takes), Some(needs)) = (all(&job.takes), all(&needs)) else {
            problems.push(whole(
                format!("the jobs need each other more than {NEEDS} times when all is unfolded"),
                "let one job stand between: it needs the many, and the many after it need the one",
            ));
            break;
        };
        (job.takes, job.needs) = (takes, needs);
    }
    definition.pipeline.jobs = made;
    problems
}

fn variants(
    name: &JobName,
    mut job: Job,
    templates: &IndexMap<andon_model::TemplateName, Template>,
    left: &mut Left,
) -> Result<Vec<(JobName, Job)>, Box<Problem>> {
    let mut given = Values::new();
    if let Some(uses) = job.uses.take() {
        let template = templates
            .get(&uses.value)
            .ok_or_else(|| Box::new(unknown("template", &uses.value, uses.referenced, templates.keys())))?;
        given = parameters(name, &job.with, template, uses.referenced)?;
        job = over(job, template.job.clone());
    } else if !job.with.is_empty() {
        return Err(Box::new(whole(
            format!("{name} says `with` and uses no template"),
            "write `use: NAME` beside it, or take it out",
        )));
    }
    job.with.clear();
    let Some(matrix) = job.matrix.take() else {
        left.take(name, &job, 1)?;
        settle(name, &mut job, &given)?;
        return Ok(vec![(name.clone(), job)]);
    };
    let mut made = Vec::new();
    let all = combinations(name, &matrix)?;
    left.take(name, &job, all.len())?;
    for values in all {
        let variant = called(name, values.iter().map(|(_, value)| value.as_str()))?;
        let mut job = job.clone();
        let mut all = given.clone();
        all.extend(values.into_iter().map(|(axis, value)| (variable("MATRIX", &axis), value)));
        settle(&variant, &mut job, &all)?;
        made.push((variant, job));
    }
    Ok(made)
}

/// The name of a variable: `MATRIX_PYTHON`.
fn variable(kind: &str, name: &str) -> String {
    format!("{kind}_{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn parameters(
    name: &JobName,
    with: &Values,
    template: &Template,
    place: Location,
) -> Result<Values, Box<Problem>> {
    if let Some(strange) = with.keys().find(|key| !template.parameters.contains_key(*key)) {
        return Err(Box::new(unknown("parameter", strange, place, template.parameters.keys())));
    }
    let mut values = Values::new();
    for (parameter, default) in &template.parameters {
        let value = with.get(parameter).or(default.as_ref()).ok_or_else(|| {
            Box::new(at(
                place,
                format!("{name} does not say {parameter}"),
                format!("write with: {{ {parameter}: … }}"),
            ))
        })?;
        plain(name, parameter, value)?;
        values.insert(variable("WITH", parameter), value.clone());
    }
    Ok(values)
}

/// What the job says, and the rest from the template.
fn over(job: Job, template: Job) -> Job {
    let first = |own: Vec<String>, other: Vec<String>| if own.is_empty() { other } else { own };
    let env = template.env.into_iter().chain(job.env).collect();
    Job {
        stage: job.stage,
        needs: job.needs,
        // Said in one form, the commands are said: the template's other form does not join them.
        steps: if job.run.is_none() && job.steps.is_empty() { template.steps } else { job.steps.clone() },
        run: if job.steps.is_empty() { job.run.or(template.run) } else { job.run },
        quiet: job.quiet.or(template.quiet),
        limits: ServiceLimits {
            memory: job.limits.memory.or(template.limits.memory),
            cpu: job.limits.cpu.or(template.limits.cpu),
            processes: job.limits.processes.or(template.limits.processes),
        },
        // Either may take it away.
        network: job.network && template.network,
        image: job.image.or(template.image),
        runs_on: first(job.runs_on, template.runs_on),
        docker: job.docker || template.docker,
        identity: job.identity.or(template.identity),
        secrets: if job.secrets.is_empty() { template.secrets } else { job.secrets },
        env,
        timeout: job.timeout.or(template.timeout),
        retries: job.retries.or(template.retries),
        reports: if job.reports == Default::default() { template.reports } else { job.reports },
        artifact: job.artifact.or(template.artifact),
        uses: None,
        with: job.with,
        matrix: job.matrix,
        when: job.when,
        approve: job.approve,
        group: job.group.or(template.group),
        outputs: first(job.outputs, template.outputs),
        takes: if job.takes.is_empty() { template.takes } else { job.takes },
        services: if job.services.is_empty() { template.services } else { job.services },
        cache: job.cache.or(template.cache),
        reads: first(job.reads, template.reads),
        layer: job.layer.or(template.layer),
    }
}

/// What a template says about where and when would be said by nobody who uses it.
fn of_template(name: &str, template: &Template) -> Vec<Problem> {
    let job = &template.job;
    let commit: StageName = commit_stage();
    let mut problems = Vec::new();
    for (said, key) in [
        (job.stage != commit, "stage"),
        (!job.needs.is_empty(), "needs"),
        (job.when.is_some(), "when"),
        (job.matrix.is_some(), "matrix"),
        (job.approve.is_some(), "approve"),
        (job.uses.is_some(), "use"),
        (!job.with.is_empty(), "with"),
    ] {
        if said {
            problems.push(whole(
                format!("the template {name} says `{key}`"),
                "a template says what is run; where and when is said by the jobs that use it",
            ));
        }
    }
    if let Some(parameter) = template.parameters.keys().find(|parameter| !is_word(parameter)) {
        problems.push(whole(
            format!("{parameter:?} of the template {name} is no name"),
            "use letters, digits, `-` and `_`, beginning with a letter",
        ));
    }
    problems
}

/// Puts values into their places and into the environment.
fn settle(name: &JobName, job: &mut Job, values: &Values) -> Result<(), Box<Problem>> {
    let mut left = None;
    for text in texts(job) {
        let Some(put) = put(text, values) else {
            let what = format!("a text of {name} has more than {TEXT} characters when its values are put in");
            return Err(Box::new(whole(
                what,
                "values are short words: let the commands read the rest from a file",
            )));
        };
        if let Some(unknown) =
            ["$MATRIX_", "$WITH_", "${MATRIX_", "${WITH_"].iter().find(|mark| put.contains(**mark))
        {
            left.get_or_insert_with(|| (put.clone(), *unknown));
        }
        *text = put;
    }
    if let Some((text, mark)) = left {
        let what = format!(
            "{text:?} of {name} asks for a {} that is not there",
            mark.trim_matches(['$', '{', '_']).to_lowercase()
        );
        let known: Vec<String> = values.keys().map(|key| format!("${key}")).collect();
        return Err(Box::new(whole(
            what,
            if known.is_empty() { "it has none".into() } else { format!("there are {}", known.join(", ")) },
        )));
    }
    job.env.extend(values.clone());
    Ok(())
}

/// Every text of a job in which a value may stand.
fn texts(job: &mut Job) -> Vec<&mut String> {
    let mut all: Vec<&mut String> = Vec::new();
    all.extend(job.env.values_mut());
    all.extend(job.services.values_mut().flat_map(|service| service.env.values_mut()));
    all.extend(job.artifact.as_mut());
    all.extend(job.group.as_mut());
    all.extend(job.image.as_mut());
    all.extend(job.runs_on.iter_mut());
    all.extend(job.outputs.iter_mut());
    all.extend(job.reads.iter_mut());
    all.extend(job.reports.paths_mut());
    if let Some(cache) = &mut job.cache {
        all.extend(cache.name.as_mut());
        all.extend(cache.key.iter_mut().chain(&mut cache.paths));
    }
    if let Some(when) = &mut job.when {
        all.extend(when.paths.iter_mut().chain(&mut when.not_paths));
    }
    all
}

/// The text with values in their places; what stands in a value stays as it is. None: it became too long.
fn put(text: &str, values: &Values) -> Option<String> {
    if !text.contains('$') {
        return Some(text.to_owned());
    }
    let (mut made, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        made.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest name: $WITH_A_B is not $WITH_A and `_B`.
        let named = |name: &&String| {
            rest[1..].starts_with(name.as_str())
                || rest[1..]
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_prefix(name.as_str()))
                    .is_some_and(|rest| rest.starts_with('}'))
        };
        match values.keys().filter(named).max_by_key(|name| name.len()) {
            Some(name) => {
                let braces = if rest[1..].starts_with('{') { 2 } else { 0 };
                made.push_str(&values[name]);
                rest = &rest[1 + name.len() + braces..];
            }
            None => {
                made.push('$');
                rest = &rest[1..];
            }
        }
        if made.len() > TEXT {
            return None;
        }
    }
    made.push_str(rest);
    Some(made)
}

#[cfg(test)]
mod tests {
    use crate::{Definition, read};

    fn of(jobs: &str) -> Definition {
        read(&format!("version: 1\npipeline:\n{jobs}")).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn wrong(jobs: &str) -> String {
        read(&format!("version: 1\npipeline:\n{jobs}")).expect_err("it was accepted").remove(0).to_string()
    }

    fn names(definition: &Definition) -> Vec<&str> {
        definition.pipeline.jobs.keys().map(|name| name.as_str()).collect()
    }

    #[test]
    fn a_matrix_makes_a_job_of_each_combination_and_what_needs_it_needs_all() {
        let definition = of("  jobs:
    unit:
      matrix: { python: [\"3.11\", 3.12], os: [alpine, Debian], exclude: [{ python: \"3.11\", os: Debian }], include: [{ python: \"3.13\", os: alpine, next: yes }] }
      env: { IMAGE: \"python:$MATRIX_PYTHON-${MATRIX_OS}\" }
      reports: { junit: out-$MATRIX_PYTHON.xml }
      run: pytest
    package: { needs: [unit], run: make }
");
        assert_eq!(
            names(&definition),
            ["unit-3.11-alpine", "unit-3.12-alpine", "unit-3.12-debian", "unit-3.13-alpine-yes", "package"]
        );
        let jobs = &definition.pipeline.jobs;
        assert_eq!(jobs["unit-3.12-debian"].env["MATRIX_OS"], "Debian");
        assert_eq!(jobs["unit-3.12-debian"].env["IMAGE"], "python:3.12-Debian");
        assert_eq!(jobs["unit-3.13-alpine-yes"].env["MATRIX_NEXT"], "yes");
        assert_eq!(jobs["unit-3.11-alpine"].reports.junit.iter().collect::<Vec<_>>(), ["out-3.11.xml"]);
        assert_eq!(jobs["unit-3.11-alpine"].all_steps()[0].run, "pytest", "nothing is put into commands");
        assert_eq!(jobs["package"].needs.len(), 4);
    }

    #[test]
    fn a_template_is_what_is_run_and_a_job_says_where_and_with_what() {
        let definition = of("  templates:
    module:
      parameters: { module: , flags: \"-q\" }
      job: { run: pytest $WITH_FLAGS $WITH_MODULE, timeout: 5m, env: { A: t, B: \"$WITH_MODULE\" }, reports: { junit: $WITH_MODULE/unit.xml } }
  jobs:
    cart: { use: module, with: { module: cart }, env: { A: j } }
    stock: { use: module, with: { module: stock, flags: -x }, timeout: 1m, stage: late, needs: [cart] }
");
        let (cart, stock) = (&definition.pipeline.jobs["cart"], &definition.pipeline.jobs["stock"]);
        assert_eq!(cart.all_steps()[0].run, "pytest $WITH_FLAGS $WITH_MODULE");
        assert_eq!(
            (cart.env["A"].as_str(), cart.env["B"].as_str(), cart.env["WITH_FLAGS"].as_str()),
            ("j", "cart", "-q")
        );
        assert_eq!(stock.reports.junit.iter().collect::<Vec<_>>(), ["stock/unit.xml"]);
        assert_eq!(cart.timeout, Some(andon_model::Span::secs(300)));
        assert_eq!((stock.timeout, stock.stage.as_str()), (Some(andon_model::Span::secs(60)), "late"));
    }

    #[test]
    fn a_template_that_is_used_wrongly_is_pointed_at() {
        let file = |job: &str| {
            format!(
                "  templates: {{ t: {{ parameters: {{ m: }}, job: {{ run: x, artifact: $WITH_M }} }} }}\n  jobs:\n    a: {job}\n"
            )
        };
        for (job, says) in [
            ("{ use: s }", "5:15: there is no template s"),
            ("{ use: t }", "5:15: a does not say m"),
            ("{ use: t, with: { m: 1, n: 2 } }", "there is no parameter n"),
            ("{ run: x, with: { m: 1 } }", "uses no template"),
            ("{ use: t, with: { m: ../up } }", "leads out"),
            ("{ run: x, artifact: $WITH_M }", "asks for a with"),
        ] {
            let said = wrong(&file(job));
            assert!(said.contains(says), "{job}: {said}");
        }
        let said = wrong("  templates: { t: { job: { run: x, needs: [a] } } }\n  jobs: { a: { use: t } }\n");
        assert!(said.contains("says `needs`"), "{said}");
    }

    #[test]
    fn a_value_is_put_in_once_and_what_stands_in_it_stays() {
        let definition = of("  jobs:
    a: { run: x, matrix: { p: [\"$HOME\"], p-q: [z] }, env: { A: \"$MATRIX_P_Q ${MATRIX_P}x $OTHER ${MATRIX\", B: $$MATRIX_P_Q } }
");
        let job = definition.pipeline.jobs.values().next().unwrap();
        assert_eq!(job.env["A"], "z $HOMEx $OTHER ${MATRIX");
        assert_eq!(job.env["B"], "$z");
    }

    #[test]
    fn a_short_file_does_not_unfold_to_more_than_memory_holds() {
        let values: Vec<String> = (0..16).map(|n| n.to_string()).collect();
        let matrix = format!("matrix: {{ a: [{0}], b: [{0}] }}", values.join(","));
        let many: String = (0..40).map(|n| format!("    m{n}: {{ run: x, {matrix} }}\n")).collect();
        assert!(wrong(&format!("  jobs:\n{many}")).contains("unfolds to more than"));
        let long = format!("  jobs: {{ a: {{ run: '{}', {matrix} }} }}\n", "x".repeat(100_000));
        assert!(wrong(&long).contains("unfolds to more than"));
        let names: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
        let few: String = names.iter().map(|name| format!("    {name}: {{ run: x, {matrix} }}\n")).collect();
        let last = format!("    z: {{ run: x, needs: [{}], {matrix} }}\n", names.join(","));
        assert!(wrong(&format!("  jobs:\n{few}{last}")).contains("need each other"));
        let puts = format!(
            "  jobs: {{ a: {{ run: x, matrix: {{ a: [{}] }}, group: '{}' }} }}\n",
            "v".repeat(30),
            "$MATRIX_A".repeat(500)
        );
        assert!(wrong(&puts).contains("when its values are put in"));
    }
}
