//! Tests by layer: how many there are, how long they take, what they find; and whether the pyramid stands on its tip. Reads no report.

use andon_model::Span;
use serde::{Deserialize, Serialize};

use crate::case::TestCase;
use crate::coverage::Share;

/// What a test stands on, from the quickest to the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// One piece by itself.
    Unit,
    /// Pieces together.
    Integration,
    /// The whole product, as a user has it.
    E2e,
}

impl Layer {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Layer::Unit => "unit",
            Layer::Integration => "integration",
            Layer::E2e => "e2e",
        }
    }

    /// What a job of this stage is, when nobody says it: what runs first is unit tests, `acceptance` puts pieces together, anything later
    /// has the whole product.
    pub fn of_stage(stage: &str) -> Layer {
        match stage {
            "commit" | "unit" => Layer::Unit,
            "acceptance" | "integration" => Layer::Integration,
            _ => Layer::E2e,
        }
    }
}

/// What the tests of a layer are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerLine {
    /// Which.
    pub layer: Layer,
    /// Tests that ran.
    pub tests: u64,
    /// How long they took together, as far as they say.
    pub took: Span,
    /// Tests that failed.
    pub failed: u64,
    /// Lines that this layer alone runs; none where it measures none.
    pub lines: Option<Share>,
}

/// Sums over the tests of one layer.
pub fn line<'a>(layer: Layer, tests: impl Iterator<Item = &'a TestCase>, lines: Option<Share>) -> LayerLine {
    let mut made = LayerLine { layer, tests: 0, took: Span(0), failed: 0, lines };
    for test in tests.filter(|test| !matches!(test.outcome, crate::case::Outcome::Skipped { .. })) {
        made.tests += 1;
        made.failed += u64::from(test.outcome.is_red());
        made.took = Span(made.took.0.saturating_add(test.took.map_or(0, |took| took.0)));
    }
    made
}

/// What is wrong with the shape, in sentences: each layer should have fewer tests than the quicker one below it.
pub fn warnings(layers: &[LayerLine]) -> Vec<String> {
    let mut layers: Vec<&LayerLine> = layers.iter().filter(|line| line.tests > 0).collect();
    layers.sort_by_key(|line| line.layer);
    let mut said = Vec::new();
    for pair in layers.windows(2) {
        let [below, above] = pair else { continue };
        if above.tests > below.tests {
            let (more, less) = (above.layer.word(), below.layer.word());
            said.push(format!(
                "the pyramid stands on its tip: {} {more} tests above {} {less} tests; what a {less} test can find is found sooner there",
                above.tests, below.tests
            ));
        }
    }
    if let [only] = layers[..]
        && only.layer > Layer::Unit
    {
        said.push(format!(
            "all {} tests are {} tests: nothing is found before the slowest of them ends",
            only.tests,
            only.layer.word()
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(layer: Layer, tests: u64) -> LayerLine {
        LayerLine { layer, tests, took: Span(0), failed: 0, lines: None }
    }

    #[test]
    fn an_inverted_pyramid_is_said_and_an_upright_one_is_not() {
        let upright = [layer(Layer::Unit, 100), layer(Layer::Integration, 20), layer(Layer::E2e, 5)];
        assert!(warnings(&upright).is_empty());
        let inverted = [layer(Layer::E2e, 50), layer(Layer::Unit, 10)];
        assert!(warnings(&inverted)[0].contains("50 e2e tests above 10 unit tests"), "whatever their order");
        assert!(warnings(&[layer(Layer::E2e, 5), layer(Layer::Unit, 0)])[0].contains("all 5 tests are e2e"));
        assert!(warnings(&[layer(Layer::Unit, 5)]).is_empty() && warnings(&[]).is_empty());
    }
}
