//! The combinations of a matrix and what the jobs made of them are called. Unfolds no job.

use andon_model::JobName;

use crate::check::{Problem, whole};
use crate::job::{Matrix, Values};

/// The most jobs that one matrix makes.
pub const MOST: usize = 256;
/// The longest value of a matrix or a parameter, in characters.
const LONGEST: usize = 200;

/// All combinations in the order of the file, without those left out, then those beside it.
pub(crate) fn combinations(
    name: &JobName,
    matrix: &Matrix,
) -> Result<Vec<Vec<(String, String)>>, Box<Problem>> {
    let bad = |what: String, hint: &str| Err(Box::new(whole(what, hint)));
    if let Some(axis) = matrix.axes.keys().find(|axis| !is_word(axis)) {
        return bad(
            format!("{axis:?} of the matrix of {name} is no name"),
            "use letters, digits, `-` and `_`, beginning with a letter",
        );
    }
    if matrix.axes.is_empty() && matrix.include.is_empty() {
        return bad(
            format!("the matrix of {name} has no values"),
            "write matrix: { python: [\"3.11\", \"3.12\"] }",
        );
    }
    if let Some((axis, _)) = matrix.axes.iter().find(|(_, values)| values.is_empty()) {
        return bad(
            format!("{axis} of the matrix of {name} has no values"),
            "write at least one, or take it out",
        );
    }
    let product: usize = match matrix.axes.is_empty() {
        true => 0,
        false => matrix.axes.values().fold(1, |n, values| n.saturating_mul(values.len())),
    };
    if product.saturating_add(matrix.include.len()) > MOST {
        return bad(
            format!("the matrix of {name} makes {} jobs", product.saturating_add(matrix.include.len())),
            "at most 256 are made of one job: leave values out, or split it",
        );
    }
    for (axis, value) in
        matrix.axes.iter().flat_map(|(axis, values)| values.iter().map(move |value| (axis, value)))
    {
        plain(name, axis, value)?;
    }
    let known = |values: &Values| values.keys().all(|axis| matrix.axes.contains_key(axis));
    if matrix.exclude.iter().any(|values| values.is_empty() || !known(values)) {
        return bad(
            format!("an `exclude` of the matrix of {name} names what is no axis"),
            "name axes and values that are there",
        );
    }
    let mut made: Vec<Vec<(String, String)>> = if product == 0 { vec![] } else { vec![vec![]] };
    for (axis, values) in &matrix.axes {
        made = made
            .into_iter()
            .flat_map(|begun| {
                values.iter().map(move |value| {
                    let mut one = begun.clone();
                    one.push((axis.clone(), value.clone()));
                    one
                })
            })
            .collect();
    }
    made.retain(|one| {
        let has = |axis: &String, value: &String| one.iter().any(|(a, v)| a == axis && v == value);
        !matrix.exclude.iter().any(|out| out.iter().all(|(axis, value)| has(axis, value)))
    });
    for beside in &matrix.include {
        if matrix.axes.keys().any(|axis| !beside.contains_key(axis)) || beside.is_empty() {
            return bad(
                format!("an `include` of the matrix of {name} does not name every axis"),
                "it is a whole combination: give it a value for each name above",
            );
        }
        let axes = matrix.axes.keys().chain(beside.keys().filter(|axis| !matrix.axes.contains_key(*axis)));
        let mut one = Vec::new();
        for axis in axes {
            let Some(value) = beside.get(axis) else { continue };
            plain(name, axis, value)?;
            if !is_word(axis) {
                return bad(
                    format!("{axis:?} of the matrix of {name} is no name"),
                    "use letters, digits, `-` and `_`",
                );
            }
            one.push((axis.clone(), value.clone()));
        }
        made.push(one);
    }
    if made.is_empty() {
        return bad(format!("the matrix of {name} leaves nothing over"), "take something out of `exclude`");
    }
    Ok(made)
}

/// What a job of the matrix is called: the job and its values, `unit-3.11`.
pub(crate) fn called<'a>(
    name: &JobName,
    values: impl Iterator<Item = &'a str>,
) -> Result<JobName, Box<Problem>> {
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let parts: Vec<String> = values.map(|value| value.chars().map(fit).collect::<String>()).collect();
    let text = format!("{name}-{}", parts.join("-"));
    text.parse().map_err(|error: andon_model::name::NotAName| {
        Box::new(whole(
            format!("a job of the matrix of {name} would be called {text:?}: {error}"),
            "use a shorter name for the job, or shorter values",
        ))
    })
}

/// Whether a text can name an axis or a parameter.
pub(crate) fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 30
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Refuses values that nobody can have meant.
pub(crate) fn plain(job: &JobName, name: &str, value: &str) -> Result<(), Box<Problem>> {
    if value.chars().count() <= LONGEST && !value.chars().any(char::is_control) {
        return Ok(());
    }
    let what =
        format!("the value of {name} of {job} is longer than {LONGEST} characters or has control characters");
    Err(Box::new(whole(what, "values are short words: put long ones into a file of the repository")))
}

#[cfg(test)]
mod tests {
    use crate::read;

    fn wrong(jobs: &str) -> String {
        read(&format!("version: 1\npipeline:\n{jobs}")).expect_err("it was accepted").remove(0).to_string()
    }

    #[test]
    fn a_matrix_that_nobody_can_have_meant_is_refused() {
        let long = "x".repeat(60);
        for (matrix, says) in [
            ("{ }", "no values"),
            ("{ a: [] }", "no values"),
            ("{ a: [1], exclude: [{ b: 1 }] }", "no axis"),
            ("{ a: [1], exclude: [{ a: 1 }] }", "leaves nothing"),
            ("{ a: [1], b: [2], include: [{ a: 1 }] }", "every axis"),
            ("{ a: [1, 1] }", "two jobs are called"),
            ("{ 'a b': [1] }", "no name"),
            (&format!("{{ a: [{long}] }}"), "called"),
            ("{ a: [\"..\"] }", "called"),
            ("{ a: 1 }", "a"),
        ] {
            let said = wrong(&format!("  jobs: {{ unit: {{ run: x, matrix: {matrix} }} }}\n"));
            assert!(said.contains(says), "{matrix}: {said}");
        }
        let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
        let many = many.join(",");
        let said =
            wrong(&format!("  jobs: {{ unit: {{ run: x, matrix: {{ a: [{many}], b: [{many}] }} }} }}\n"));
        assert!(said.contains("makes 289 jobs"), "{said}");
    }
}
