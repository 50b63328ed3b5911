//! The coverage of a run by folder and file, its course over landings, and a source file with its marks.

use std::collections::BTreeMap;
use std::sync::Arc;

use andon_model::{RunId, Time};
use andon_validation::coverage::{Coverage, FileCoverage, LineMark, Share, Totals};
use andon_validation::pyramid::LayerLine;
use andon_validation::{RunReport, diff};
use serde::{Deserialize, Serialize};

use super::{Frame, ago, count, frame};
use crate::{Line, Project, Refusal};

/// Bytes of the blob with the coverage of every line.
const BLOB: u64 = 512 << 20;
/// Rows of a table.
const ROWS: usize = 2000;
/// Landings of the course.
const LANDINGS: usize = 120;
/// Bytes of a source file that are shown.
const SOURCE: usize = 1 << 20;
/// Lines of a source file on one page; the terminal and the API get the same.
const LINES: usize = 4000;

/// By what a table is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Lowest share of lines first.
    #[default]
    Lines,
    /// Lowest share of branches first.
    Branches,
    /// Lowest share of functions first.
    Functions,
    /// Most lines without tests first.
    Missing,
    /// By name.
    Name,
}

impl Sort {
    /// All, with the word that names it in a path.
    pub const ALL: [(&'static str, Sort); 5] = [
        ("lines", Sort::Lines),
        ("branches", Sort::Branches),
        ("functions", Sort::Functions),
        ("missing", Sort::Missing),
        ("name", Sort::Name),
    ];

    /// By its word.
    pub fn of(word: &str) -> Option<Sort> {
        Sort::ALL.iter().find(|(own, _)| *own == word).map(|(_, sort)| *sort)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        Sort::ALL.iter().find(|(_, sort)| *sort == self).map_or("lines", |(word, _)| word)
    }
}

/// The page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Of which run, of what.
    pub sentence: String,
    /// The run.
    pub run: u32,
    /// The folder that is open, empty for the whole project.
    pub folder: String,
    /// By what the rows are sorted.
    pub sort: Sort,
    /// Sums over the folder.
    pub totals: Totals,
    /// Added lines that ran, of those that count; none where the change adds none.
    pub added: Option<(u64, u64)>,
    /// What is carried, and what was not judged and why.
    pub notes: Vec<String>,
    /// Folders and files of the folder.
    pub rows: Vec<CoverageRow>,
    /// Rows that are not shown.
    pub more: usize,
    /// Percent of lines at each landing, oldest first.
    pub course: Vec<(Time, u32, f64)>,
    /// Tests by layer.
    pub layers: Vec<LayerLine>,
}

/// A folder or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// Its name in the open folder.
    pub name: String,
    /// Its whole path.
    pub path: String,
    /// Files in it; none: it is a file.
    pub files: Option<usize>,
    /// Sums.
    pub totals: Totals,
}

/// A source file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Of which run, of what.
    pub sentence: String,
    /// The run.
    pub run: u32,
    /// The file.
    pub path: String,
    /// Sums.
    pub totals: Totals,
    /// Its lines.
    pub lines: Vec<SourceLine>,
    /// Lines that are not shown.
    pub more: usize,
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceLine {
    /// From 1.
    pub number: u32,
    /// Its text.
    pub text: String,
    /// How it stands; none: nothing in it can run, or nobody measured.
    pub mark: Option<LineMark>,
    /// How often it ran.
    pub hits: Option<u64>,
    /// Ways out that were taken, of all.
    pub branches: Option<(u32, u32)>,
    /// The change adds it.
    pub added: bool,
    /// What linters and analysers found here.
    pub findings: Vec<String>,
}

impl Line {
    /// The newest run of trunk, or that landed, with coverage.
    pub fn newest_coverage(&self, project: &Project) -> Result<RunId, Refusal> {
        let state = project.state();
        let found = state.runs.all.values().rev().find(|run| run.is_trusted() && run.coverage.is_some());
        found.map(|run| run.id).ok_or_else(|| {
            let hint = "hint: declare `reports: { coverage: … }` on a job of andon.yaml";
            Refusal::Unknown(format!("no landed change has coverage yet\n{hint}"))
        })
    }

    /// The coverage of a run.
    pub async fn coverage_view(
        &self,
        project: &Arc<Project>,
        run: RunId,
        folder: &str,
        sort: Sort,
    ) -> Result<CoverageView, Refusal> {
        let (report, coverage) = self.measured(project, run).await?;
        let (folder, now) = (folder.trim_matches('/'), self.now());
        let state = project.state();
        let own: Vec<_> = coverage
            .files
            .iter()
            .filter_map(|(path, file)| Some((below(path, folder)?, path, file)))
            .collect();
        if own.is_empty() {
            let name: String = folder.chars().take(200).collect();
            return Err(Refusal::Unknown(format!("{run} has no coverage of {name:?}")));
        }
        let mut totals = Totals::default();
        own.iter().for_each(|(_, _, file)| totals += file.totals());
        let mut rows = rows(&own, folder);
        order(&mut rows, sort);
        let more = rows.len().saturating_sub(ROWS);
        rows.truncate(ROWS);
        let landed = state.runs.all.values().filter(|run| run.is_trusted());
        let mut course: Vec<_> = landed
            .filter_map(|run| Some((run.finished.as_ref()?.0, run.id.0, run.coverage?.percent())))
            .collect();
        course.drain(..course.len().saturating_sub(LANDINGS));
        let what = if folder.is_empty() { String::new() } else { format!(" of {folder}") };
        let ended =
            state.runs.all.get(&run).and_then(|run| run.finished.as_ref()).map(|(at, _)| ago(now, *at));
        Ok(CoverageView {
            frame: frame(&state, project.name.as_str(), now),
            heading: format!("{:.1}\u{a0}% of the lines{what} ran in tests", totals.lines.percent()),
            sentence: format!(
                "{} of {} lines in {}, measured by {run}{}.",
                totals.lines.covered,
                totals.lines.total,
                count(own.len(), "file"),
                ended.map(|ended| format!(", {ended}")).unwrap_or_default()
            ),
            run: run.0,
            folder: folder.to_owned(),
            sort,
            totals,
            added: report.coverage.and_then(|figures| figures.diff),
            notes: report.notes,
            rows,
            more,
            course,
            layers: report.layers,
        })
    }

    /// A file as a run saw it.
    pub async fn source_view(
        &self,
        project: &Arc<Project>,
        run: RunId,
        path: &str,
    ) -> Result<SourceView, Refusal> {
        let (report, coverage) = self.measured(project, run).await?;
        let unknown = || {
            Refusal::Unknown(format!(
                "{run} has no coverage of {:?}",
                path.chars().take(200).collect::<String>()
            ))
        };
        let measured = coverage.files.get(path).ok_or_else(unknown)?;
        let found = project.state().runs.all.get(&run).map(|run| (run.commit.clone(), run.parent.clone()));
        let (commit, parent) = found.ok_or_else(unknown)?;
        let text = project.repository.file(&commit, path, SOURCE).await?;
        let text = text.ok_or_else(|| {
            Refusal::Unknown(format!("{path} is not in the repository, or larger than {SOURCE} bytes, or no text\nhint: reports name files that the tests made, too"))
        })?;
        let added = match parent {
            Some(parent) => {
                diff::read(&project.repository.diff(Some(&parent), &commit).await?).files.remove(path)
            }
            None => None,
        };
        let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for finding in report.findings.iter().filter(|finding| finding.path.as_deref() == Some(path)) {
            found.entry(finding.lines.0).or_default().push(format!("{}: {}", finding.rule, finding.message));
        }
        let all = text.lines().count();
        let lines = text.lines().take(LINES).zip(1u32..).map(|(text, number)| {
            let has = added.as_ref().is_some_and(|added| added.has(number));
            source_line(measured, number, text, has, found.remove(&number).unwrap_or_default())
        });
        let lines = lines.collect();
        let (state, totals) = (project.state(), measured.totals());
        Ok(SourceView {
            frame: frame(&state, project.name.as_str(), self.now()),
            heading: format!("{path}: {:.1}\u{a0}% of its lines ran in tests", totals.lines.percent()),
            sentence: format!(
                "{} of {} lines that can run, measured by {run}.",
                totals.lines.covered, totals.lines.total
            ),
            run: run.0,
            path: path.to_owned(),
            totals,
            lines,
            more: all.saturating_sub(LINES),
        })
    }

    async fn measured(&self, project: &Project, run: RunId) -> Result<(RunReport, Coverage), Refusal> {
        let report = project
            .state()
            .runs
            .all
            .get(&run)
            .ok_or_else(|| Refusal::Unknown(format!("there is no {run}")))?
            .report
            .clone();
        let none = || {
            Refusal::Unknown(format!(
                "{run} has no coverage\nhint: it is there when all its jobs are over and one declares `reports: {{ coverage: … }}`"
            ))
        };
        let report = self.run_report(report.ok_or_else(none)?).await?;
        let digest = report.measured.clone().ok_or_else(none)?;
        let blobs = self.blobs.clone();
        let read = tokio::task::spawn_blocking(move || {
            let bytes = blobs.read(&digest, BLOB)?;
            serde_json::from_slice(&bytes).map_err(std::io::Error::other)
        });
        let coverage = read.await.map_err(|error| Refusal::Broken(error.to_string()))??;
        Ok((report, coverage))
    }
}

/// What of a path stands below the folder.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    match folder {
        "" => Some(path),
        folder => path.strip_prefix(folder)?.strip_prefix('/'),
    }
}

fn rows(own: &[(&str, &String, &FileCoverage)], folder: &str) -> Vec<CoverageRow> {
    let mut rows: BTreeMap<&str, CoverageRow> = BTreeMap::new();
    for (rest, path, file) in own {
        let (name, inner) = rest.split_once('/').map_or((*rest, None), |(name, rest)| (name, Some(rest)));
        let whole = || if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let row = rows.entry(name).or_insert_with(|| CoverageRow {
            name: name.to_owned(),
            path: if inner.is_some() { whole() } else { (*path).clone() },
            files: inner.map(|_| 0),
            totals: Totals::default(),
        });
        row.files = row.files.map(|files| files + 1);
        row.totals += file.totals();
    }
    rows.into_values().collect()
}

fn order(rows: &mut [CoverageRow], sort: Sort) {
    let missing = |share: Share| share.total - share.covered;
    // What a tool does not measure stands behind what it does.
    let low = |share: Share| if share.total == 0 { 101.0 } else { share.percent() };
    match sort {
        Sort::Lines => rows.sort_by(|a, b| low(a.totals.lines).total_cmp(&low(b.totals.lines))),
        Sort::Branches => rows.sort_by(|a, b| low(a.totals.branches).total_cmp(&low(b.totals.branches))),
        Sort::Functions => rows.sort_by(|a, b| low(a.totals.functions).total_cmp(&low(b.totals.functions))),
        Sort::Missing => rows.sort_by_key(|row| std::cmp::Reverse(missing(row.totals.lines))),
        Sort::Name => rows.sort_by_key(|row| row.files.is_none()),
    }
}

fn source_line(
    file: &FileCoverage,
    number: u32,
    text: &str,
    added: bool,
    findings: Vec<String>,
) -> SourceLine {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ways = file.branches.get(&number);
    SourceLine {
        number,
        text: text.to_owned(),
        mark: file.mark(number),
        hits: file.lines.get(&number).copied(),
        branches: ways.map(|ways| (small(ways.iter().filter(|hits| **hits > 0).count()), small(ways.len()))),
        added,
        findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_what_is_below_it_and_sorts_by_what_is_asked() {
        let file = |lines: &[(u32, u64)]| FileCoverage {
            lines: lines.iter().copied().collect(),
            ..FileCoverage::default()
        };
        let files: BTreeMap<String, FileCoverage> = [
            ("src/core/a.py".to_owned(), file(&[(1, 1), (2, 0)])),
            ("src/core/b.py".to_owned(), file(&[(1, 1)])),
            ("src/app.py".to_owned(), file(&[(1, 0), (2, 1), (3, 1), (4, 1)])),
            ("srcs/x.py".to_owned(), file(&[(1, 0)])),
        ]
        .into();
        let own: Vec<_> =
            files.iter().filter_map(|(path, file)| Some((below(path, "src")?, path, file))).collect();
        assert_eq!(own.len(), 3, "srcs is another folder");
        let mut found = rows(&own, "src");
        order(&mut found, Sort::Lines);
        let shown =
            |rows: &[CoverageRow]| rows.iter().map(|row| (row.path.clone(), row.files)).collect::<Vec<_>>();
        assert_eq!(shown(&found), [("src/core".to_owned(), Some(2)), ("src/app.py".to_owned(), None)]);
        order(&mut found, Sort::Name);
        assert_eq!(found[0].name, "core", "folders first");
        assert_eq!((found[0].totals.lines.covered, found[0].totals.lines.total), (2, 3));
    }
}
