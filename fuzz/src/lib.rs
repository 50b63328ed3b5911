//! What has to hold of whatever a reader of coverage makes of any bytes.

use andon_validation::coverage::Coverage;

/// No path leads out of the working copy, and no more is covered than there is.
pub fn holds(coverage: &Coverage) {
    assert!(coverage.files.keys().all(|path| !path.starts_with('/') && !path.split('/').any(|part| part == "..")));
    let totals = coverage.totals();
    for share in [totals.lines, totals.branches, totals.functions, totals.classes] {
        assert!(share.covered <= share.total);
    }
}
