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
    for (name, job) in written {
        match variants(&name, job, &templates) {
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
    let all = |needs: &[Spanned<JobName>]| {
        let mut found: Vec<Spanned<JobName>> = Vec::new();
        for need in needs {
            let names = became.get(&need.value).cloned().unwrap_or_else(|| vec![need.value.clone()]);
            for name in
                names.into_iter().filter(|name| !found.iter().any(|f| f.value == *name)).collect::<Vec<_>>()
            {
                found.push(Spanned::new(name, need.referenced, need.defined));
            }
        }
        found
    };
    for job in made.values_mut() {
        job.takes = all(&job.takes);
        let needs: Vec<_> = job.needs.iter().chain(&job.takes).cloned().collect();
        job.needs = all(&needs);
    }
    definition.pipeline.jobs = made;
    problems
}

fn variants(
    name: &JobName,
    mut job: Job,
    templates: &IndexMap<andon_model::TemplateName, Template>,
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
        settle(name, &mut job, &given)?;
        return Ok(vec![(name.clone(), job)]);
    };
    let mut made = Vec::new();
    for values in combinations(name, &matrix)? {
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
        let put = put(text, values);
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
    all.extend(job.artifact.as_mut());
    all.extend(job.group.as_mut());
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

fn put(text: &str, values: &Values) -> String {
    let mut made = text.to_owned();
    // The longest name first: $WITH_A_B is not $WITH_A and `_B`.
    let mut names: Vec<&String> = values.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        made =
            made.replace(&format!("${{{name}}}"), &values[name]).replace(&format!("${name}"), &values[name]);
    }
    made
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
}
