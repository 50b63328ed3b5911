//! The arithmetic of evidence: e-values that may be looked at as often as one likes. Knows counts, not users,
//! errors or releases.
//!
//! An e-value is a number whose expectation is at most 1 while the claim it speaks against is true, at every
//! look at once; so it reaches 1/alpha with a chance of at most alpha (Ville's inequality). All results are
//! natural logarithms.
//!
//! Two kinds are used. *Labels*: of those that something happened to, which arm were they in? The router drew
//! the arm with a known chance, so this needs no assumption about how the rate moves over time. *Shares*: how
//! many of the users of one arm did it happen to? This also works where the other arm has no event at all,
//! but takes the users of one epoch as alike.

use statrs::function::gamma::ln_gamma;

/// Ratios in the grid of a regression.
pub const RATIOS: usize = 40;
/// Shares in the grids of a single arm.
const SHARES: usize = 20;

/// Events of one epoch by arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labels {
    /// Chance of a new user to be in the canary, strictly between 0 and 1.
    pub weight: f64,
    /// Events in the canary.
    pub canary: u64,
    /// Events in the baseline.
    pub stable: u64,
}

/// Users of one arm, and those that it happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Users.
    pub of: u64,
    /// Those hit.
    pub hit: u64,
}

impl Share {
    /// The share itself; 0 of nobody.
    pub fn rate(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hit as f64 / self.of as f64 }
    }

    fn spared(self) -> u64 {
        self.of.saturating_sub(self.hit)
    }

    /// Log-likelihood at `p`, which lies strictly between 0 and 1.
    fn log_likelihood(self, p: f64) -> f64 {
        self.hit as f64 * p.ln() + self.spared() as f64 * (-p).ln_1p()
    }
}

/// Log-likelihood of the labels when an event is `ratio` times as likely in the canary, up to a constant.
fn log_likelihood(epochs: &[Labels], ratio: f64) -> f64 {
    let log = ratio.ln();
    used(epochs).map(|e| e.log_likelihood(log, (e.weight * (ratio - 1.0)).ln_1p())).sum()
}

fn used(epochs: &[Labels]) -> impl Iterator<Item = &Labels> {
    epochs.iter().filter(|e| e.weight > 0.0 && e.weight < 1.0)
}

impl Labels {
    /// From the logarithms of the ratio and of `1 + weight * (ratio - 1)`.
    fn log_likelihood(&self, log: f64, spread: f64) -> f64 {
        self.canary as f64 * log - (self.canary + self.stable) as f64 * spread
    }
}

/// `ln(sum(exp(x)))` without overflow.
fn log_sum(terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top.is_finite() { top + terms.iter().map(|x| (x - top).exp()).sum::<f64>().ln() } else { top }
}

/// The weighted mean of e-values, in logarithms: again an e-value when the weights were fixed beforehand and
/// sum to at most 1.
pub fn log_mean(weighted: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let terms: Vec<f64> = weighted.into_iter().map(|(weight, log)| weight.ln() + log).collect();
    log_sum(&terms)
}

/// Point `j` of `count` between two positive ends, evenly in logarithms.
fn spaced(low: f64, high: f64, j: usize, count: usize) -> f64 {
    low * (high / low).powf(j as f64 / (count - 1) as f64)
}

/// Ratios that a test mixes evenly, fixed before anything is seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    ratios: Vec<f64>,
    logs: Vec<f64>,
}

impl Grid {
    /// So many ratios between two positive ends, evenly in logarithms.
    pub fn new(low: f64, high: f64, count: usize) -> Grid {
        let ratios: Vec<f64> = (0..count).map(|j| spaced(low, high, j, count)).collect();
        Grid::of(ratios)
    }

    /// These ratios.
    pub fn of(ratios: Vec<f64>) -> Grid {
        Grid { logs: ratios.iter().map(|ratio| ratio.ln()).collect(), ratios }
    }

    /// The usual one of a regression.
    pub fn harm() -> Grid {
        Grid::new(1.25, 50.0, RATIOS)
    }
}

/// Log-likelihoods of labels over one grid, kept from look to look. A look a second changes few counts; with this,
/// labels that stand still cost next to nothing. The results are the same bit for bit.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    epochs: Vec<Labels>,
    /// Of each epoch that is used: its weight, and `ln(1 + weight * (ratio - 1))` over the grid.
    spreads: Vec<(f64, Vec<f64>)>,
    along: Vec<f64>,
    /// The evidence, and the ratio that it speaks against.
    found: Option<(f64, f64)>,
}

impl Remembered {
    /// Log-likelihoods over the grid; a memory serves one grid.
    fn along(&mut self, epochs: &[Labels], grid: &Grid) -> &[f64] {
        if self.along.is_empty() || self.epochs != epochs {
            let known =
                |at: usize, e: &Labels| self.spreads.get(at).is_some_and(|(weight, _)| *weight == e.weight);
            if !used(epochs).enumerate().all(|(at, e)| known(at, e)) {
                let spread =
                    |e: &Labels| grid.ratios.iter().map(|r| (e.weight * (r - 1.0)).ln_1p()).collect();
                self.spreads = used(epochs).map(|e| (e.weight, spread(e))).collect();
            }
            let one = |j: usize| {
                let of = used(epochs).zip(&self.spreads);
                of.map(|(e, (_, spreads))| e.log_likelihood(grid.logs[j], spreads[j])).sum::<f64>()
            };
            self.along = (0..grid.ratios.len()).map(one).collect();
            self.epochs = epochs.to_vec();
            self.found = None;
        }
        &self.along
    }

    fn against(&mut self, epochs: &[Labels], ratio: f64, grid: &Grid) -> f64 {
        let along = self.along(epochs, grid);
        let base = log_likelihood(epochs, ratio);
        let rising = grid.ratios.iter().zip(along).filter(|(of, _)| **of > ratio);
        let terms: Vec<f64> = rising.map(|(_, along)| along - base).collect();
        log_sum(&terms) - (grid.ratios.len() as f64).ln()
    }
}

/// Evidence that events are more than `tolerated` times as likely in the canary (`tolerated` >= 1).
///
/// Every ratio of the grid keeps its weight 1/K even where others fall below the tolerance. Then evidence
/// above 1 only falls as the tolerance rises, so a tolerance computed from a lower bound of the baseline's rate
/// cannot raise it.
pub fn worse_by_labels(epochs: &[Labels], tolerated: f64, grid: &Grid) -> f64 {
    worse_again(&mut Remembered::default(), epochs, tolerated, grid)
}

/// The same, with what was found before.
pub fn worse_again(memory: &mut Remembered, epochs: &[Labels], tolerated: f64, grid: &Grid) -> f64 {
    if !tolerated.is_finite() {
        return f64::NEG_INFINITY;
    }
    match memory.found {
        Some((ratio, found)) if ratio == tolerated && memory.epochs == epochs => found,
        _ => {
            let found = memory.against(epochs, tolerated, grid);
            memory.found = Some((tolerated, found));
            found
        }
    }
}

/// Evidence that events are less than `bound` times as likely in the canary. The alternatives lie around an equal
/// canary where the bound is two: a better one is proven by them, too, and sooner.
pub fn below_by_labels(epochs: &[Labels], bound: f64) -> f64 {
    const BELOW: [f64; 2] = [0.4, 0.5];
    let base = log_likelihood(epochs, bound);
    let terms = BELOW.map(|part| log_likelihood(epochs, bound * part) - base);
    log_sum(&terms) - (BELOW.len() as f64).ln()
}

/// The same over a grid that lies below the bound, with what was found before.
pub fn below_again(memory: &mut Remembered, epochs: &[Labels], bound: f64, grid: &Grid) -> f64 {
    if let Some((_, found)) = memory.found.filter(|(ratio, _)| *ratio == bound && memory.epochs == epochs) {
        return found;
    }
    let base = log_likelihood(epochs, bound);
    let terms: Vec<f64> = memory.along(epochs, grid).iter().map(|along| along - base).collect();
    let found = log_sum(&terms) - (grid.ratios.len() as f64).ln();
    memory.found = Some((bound, found));
    found
}

/// Evidence that what came first to each user is worse in the canary: `kinds` are the labels of events by kind,
/// from good to bad. The grid of a kind says, story by story, how many times as likely the kind is in a canary
/// that is worse; each story rises from good to bad.
///
/// A kind's label is the canary's with the known chance whatever the kind, if the arms are alike; and as the
/// factor of a story rises from good to bad, a canary that is better than the baseline only lowers the
/// expectation. So it is an e-value against "the canary's first answers are no worse" (stochastic order), from
/// all kinds at once, without a word on how they are distributed.
pub fn worse_by_kinds(memory: &mut [Remembered], kinds: &[Vec<Labels>], grids: &[Grid]) -> f64 {
    let stories = grids.first().map_or(0, |grid| grid.ratios.len());
    let mut terms = vec![0.0; stories];
    for ((memory, labels), grid) in memory.iter_mut().zip(kinds).zip(grids) {
        for (term, along) in terms.iter_mut().zip(memory.along(labels, grid)) {
            *term += along;
        }
    }
    log_sum(&terms) - (stories as f64).ln()
}

/// Evidence that the share is above `bound`, from a fixed grid of shares that lie above it.
fn above(share: Share, bound: f64) -> f64 {
    let base = share.log_likelihood(bound);
    let grid = (0..SHARES).map(|j| spaced(0.002, 0.98, j, SHARES)).filter(|p| *p > bound);
    let terms: Vec<f64> = grid.map(|p| share.log_likelihood(p) - base).collect();
    log_sum(&terms) - (SHARES as f64).ln()
}

/// Evidence that the share is below `bound`.
pub fn below(share: Share, bound: f64) -> f64 {
    if bound <= 0.0 || bound >= 1.0 {
        return f64::NEG_INFINITY;
    }
    // For a canary with hardly any errors, and for one with half of what is allowed.
    const BELOW: [(f64, f64); 3] = [(0.5, 0.02), (0.25, 0.4), (0.25, 0.55)];
    let base = share.log_likelihood(bound);
    log_mean(BELOW.map(|(weight, part)| (weight, share.log_likelihood(bound * part) - base)))
}

/// Evidence that the share is not `p`: the mixture of all shares under the prior Beta(1/2, 1/2).
fn not_at(share: Share, p: f64) -> f64 {
    let (hit, spared) = (share.hit as f64 + 0.5, share.spared() as f64 + 0.5);
    let mixture = ln_gamma(hit) + ln_gamma(spared) - ln_gamma(hit + spared);
    mixture - std::f64::consts::PI.ln() - share.log_likelihood(p)
}

/// Evidence that the canary's share is above the baseline's, and above `limit`.
///
/// Were the baseline's true share `p`, then `v` times the evidence that the canary lies above `p` plus `1 -
/// v` times the evidence that the baseline is not at `p` would be an e-value against "the canary is no
/// worse". The true `p` is unknown, so the least over all `p` counts: the first part falls with `p`, the
/// second rises above the observed share, and where they cross the first alone is a lower bound of it. Asking
/// for more than `limit` as well only lowers the evidence, so a limit may be computed from what was seen.
pub fn worse_by_shares(canary: Share, stable: Share, limit: f64) -> f64 {
    const V: f64 = 0.9;
    // Below this the whole is never near a threshold, and leaving it out can only make the evidence smaller.
    const WORTH_A_SEARCH: f64 = 2.0;
    const TOP: f64 = 1.0 - 1e-9;
    let least = limit.max(stable.rate()).max(1e-9);
    if canary.hit == 0 || least >= TOP || above(canary, least) < WORTH_A_SEARCH {
        return f64::NEG_INFINITY;
    }
    let falls_behind = |p: f64| V.ln() + above(canary, p) <= (1.0 - V).ln() + not_at(stable, p);
    if falls_behind(least) {
        return V.ln() + above(canary, least);
    }
    let (mut low, mut high) = (least, TOP);
    for _ in 0..40 {
        let middle = (low * high).sqrt();
        if falls_behind(middle) { high = middle } else { low = middle }
    }
    V.ln() + above(canary, high)
}

/// How sure an end of a share has to be, in nats: the chance of being wrong is at most exp(-nats), at one
/// look (Chernoff's bound).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nats(pub f64);

/// The lower or upper end of a share.
pub fn bound(share: Share, Nats(nats): Nats, upper: bool) -> f64 {
    let observed = share.rate();
    if share.of == 0 {
        return if upper { 1.0 } else { 0.0 };
    }
    let term = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    let far = |p: f64| share.of as f64 * (term(observed, p) + term(1.0 - observed, 1.0 - p)) > nats;
    let (mut inside, mut outside) = (observed, if upper { 1.0 } else { 0.0 });
    for _ in 0..40 {
        let middle = f64::midpoint(inside, outside);
        if far(middle) { outside = middle } else { inside = middle }
    }
    outside
}

/// The ratios that the labels do not speak against at 95 %, at every look at once; no upper end while the
/// baseline has no event.
pub fn ratio_between(epochs: &[Labels]) -> (f64, Option<f64>) {
    const AGAINST: f64 = 3.0; // ln(1 / 0.05)
    let grid: Vec<f64> =
        (0..2 * RATIOS).map(|j| log_likelihood(epochs, spaced(0.01, 100.0, j, 2 * RATIOS))).collect();
    let mixture = log_sum(&grid) - (2.0 * RATIOS as f64).ln();
    let spoken_against = |log_ratio: f64| mixture - log_likelihood(epochs, log_ratio.exp()) > AGAINST;
    let best = most_likely(epochs).ln();
    let end = |mut outside: f64| {
        if !spoken_against(outside) {
            return None;
        }
        let mut inside = best.clamp(-30.0, 30.0);
        for _ in 0..50 {
            let middle = f64::midpoint(inside, outside);
            if spoken_against(middle) { outside = middle } else { inside = middle }
        }
        Some(outside.exp())
    };
    (end(-30.0).unwrap_or(0.0), end(30.0))
}

/// The ratio under which the labels are likeliest: 0 or infinity where one arm has no event.
pub fn most_likely(epochs: &[Labels]) -> f64 {
    let (canary, stable) = epochs.iter().fold((0, 0), |(c, b), e| (c + e.canary, b + e.stable));
    match (canary, stable) {
        (0, 0) => 1.0,
        (0, _) => 0.0,
        (_, 0) => f64::INFINITY,
        _ => {
            // The derivative by ln(ratio) is the events seen less those expected, and falls.
            let expected = |ratio: f64| -> f64 {
                let one = |e: &Labels| {
                    (e.canary + e.stable) as f64 * e.weight * ratio / (1.0 + e.weight * (ratio - 1.0))
                };
                epochs.iter().map(one).sum()
            };
            let (mut low, mut high) = (-30.0f64, 30.0f64);
            for _ in 0..60 {
                let middle = f64::midpoint(low, high);
                if expected(middle.exp()) < canary as f64 { low = middle } else { high = middle }
            }
            f64::midpoint(low, high).exp()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(weight: f64, canary: u64, stable: u64) -> Vec<Labels> {
        vec![Labels { weight, canary, stable }]
    }

    /// Chances of 0..=n events, each with chance p.
    fn binomial(n: u64, p: f64) -> impl Iterator<Item = (u64, f64)> {
        let choose = move |k: u64| {
            ln_gamma(n as f64 + 1.0) - ln_gamma(k as f64 + 1.0) - ln_gamma((n - k) as f64 + 1.0)
        };
        (0..=n).map(move |k| (k, (choose(k) + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp()))
    }

    proptest! {
        #[test]
        fn evidence_of_harm_is_worth_at_most_one_on_average_up_to_the_tolerated_ratio(
            weight in 0.01f64..0.9, tolerated in 1.0f64..5.0, share in 0.2f64..=1.0, n in 1u64..60,
        ) {
            let ratio = tolerated * share;
            let p = weight * ratio / (1.0 + weight * (ratio - 1.0));
            let worth = |c: u64| worse_by_labels(&labels(weight, c, n - c), tolerated, &Grid::harm()).exp();
            let mean: f64 = binomial(n, p).map(|(c, chance)| chance * worth(c)).sum();
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }

        #[test]
        fn evidence_of_harmlessness_is_worth_at_most_one_on_average_from_the_bound_on(
            weight in 0.01f64..0.9, bound in 1.2f64..5.0, more in 1.0f64..4.0, n in 1u64..60,
        ) {
            let ratio = bound * more;
            let p = weight * ratio / (1.0 + weight * (ratio - 1.0));
            let worth = |c: u64| below_by_labels(&labels(weight, c, n - c), bound).exp();
            let mean: f64 = binomial(n, p).map(|(c, chance)| chance * worth(c)).sum();
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }

        #[test]
        fn the_absolute_proof_is_worth_at_most_one_on_average_from_the_bound_on(
            limit in 0.001f64..0.2, more in 1.0f64..4.0, n in 1u64..300,
        ) {
            let p = limit * more;
            let worth = |hit: u64| below(Share { of: n, hit }, limit).exp();
            let mean: f64 = binomial(n, p).map(|(hit, chance)| chance * worth(hit)).sum();
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }

        #[test]
        fn evidence_from_kinds_is_worth_at_most_one_on_average_when_the_canary_is_no_worse(
            weight in 0.01f64..0.9, chances in prop::array::uniform3(0.05f64..1.0),
            better in 0.0f64..1.0, n in 1u64..12,
        ) {
            // The canary's share of bad kinds moves to the good one.
            let sum: f64 = chances.iter().sum();
            let stable = chances.map(|c| c / sum);
            let moved = [stable[1] * better, stable[2] * better];
            let canary = [stable[0] + moved[0] + moved[1], stable[1] - moved[0], stable[2] - moved[1]];
            let story = [0.7, 1.2, 3.0].map(|ratio| Grid::of(vec![ratio]));
            let factor = |kind: usize, in_canary: bool| {
                let one = Labels { weight, canary: u64::from(in_canary), stable: u64::from(!in_canary) };
                let mut kinds = vec![Vec::new(), Vec::new(), Vec::new()];
                kinds[kind] = vec![one];
                worse_by_kinds(&mut vec![Remembered::default(); 3], &kinds, &story).exp()
            };
            let step: f64 = (0..3)
                .map(|k| weight * canary[k] * factor(k, true) + (1.0 - weight) * stable[k] * factor(k, false))
                .sum();
            prop_assert!(step.powi(n as i32) <= 1.0 + 1e-9, "{step}");
        }

        #[test]
        fn what_was_found_before_changes_no_bit(
            steps in prop::collection::vec((0usize..3, 0u64..4, 0u64..4, 1.0f64..3.0), 1..40),
        ) {
            let (mut memory, grid) = (Remembered::default(), Grid::harm());
            let mut epochs = labels(0.05, 0, 0);
            for (epoch, canary, stable, tolerated) in steps {
                while epochs.len() <= epoch {
                    epochs.push(Labels { weight: 0.25 * epochs.len() as f64, canary: 0, stable: 0 });
                }
                epochs[epoch].canary += canary;
                epochs[epoch].stable += stable;
                let again = worse_again(&mut memory, &epochs, tolerated, &grid);
                prop_assert_eq!(again.to_bits(), worse_by_labels(&epochs, tolerated, &grid).to_bits());
            }
        }

        #[test]
        fn a_higher_tolerance_never_raises_the_evidence(
            weight in 0.01f64..0.9, canary in 0u64..50, stable in 0u64..200,
            a in 1.0f64..20.0, b in 1.0f64..20.0,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let labels = labels(weight, canary, stable);
            let (at_low, at_high) = (worse_by_labels(&labels, low, &Grid::harm()), worse_by_labels(&labels, high, &Grid::harm()));
            prop_assert!(at_high <= at_low + 1e-9 || at_high <= 1e-9, "{at_low} {at_high}");
        }
    }

    #[test]
    fn shares_of_two_arms_are_worth_at_most_one_on_average_when_the_canary_is_no_worse() {
        for (p, limit, n, m) in
            [(0.01, 0.0, 60, 200), (0.0001, 0.0, 40, 100), (0.2, 0.1, 30, 30), (0.001, 0.01, 100, 400)]
        {
            let stable: Vec<_> = binomial(m, p).filter(|(_, chance)| *chance > 1e-12).collect();
            let mean: f64 = binomial(n, p)
                .filter(|(_, chance)| *chance > 1e-12)
                .flat_map(|c| stable.iter().map(move |s| (c, *s)))
                .map(|((c, pc), (s, ps))| {
                    pc * ps * worse_by_shares(Share { of: n, hit: c }, Share { of: m, hit: s }, limit).exp()
                })
                .sum();
            assert!(mean <= 1.0, "{p} {limit}: {mean}");
        }
    }

    #[test]
    fn a_few_errors_of_the_canary_alone_are_enough() {
        let proven = |weight: f64, count: u64| {
            worse_by_labels(&labels(weight, count, 0), 1.0, &Grid::harm()) >= 1000f64.ln()
        };
        for (weight, needed) in [(0.05, 4), (0.25, 7), (0.5, 12)] {
            assert!(proven(weight, needed) && !proven(weight, needed - 1), "{weight}");
        }
    }

    #[test]
    fn a_clean_baseline_does_not_hide_a_canary_that_fails_for_everyone() {
        let log = worse_by_shares(Share { of: 10, hit: 10 }, Share { of: 400, hit: 0 }, 0.005);
        assert!(log > 1000f64.ln(), "{log}");
        let harmless = worse_by_shares(Share { of: 10, hit: 1 }, Share { of: 400, hit: 0 }, 0.005);
        assert!(harmless < 3.0, "{harmless}");
    }

    #[test]
    fn without_an_error_the_proof_below_half_a_percent_needs_about_seven_hundred_users() {
        let needed = (1..).find(|n| below(Share { of: *n, hit: 0 }, 0.005) >= 20f64.ln());
        assert!(needed.is_some_and(|n| (600..=760).contains(&n)), "{needed:?}");
    }

    #[test]
    fn the_interval_holds_the_likeliest_ratio_and_has_no_end_without_errors_in_the_baseline() {
        let (low, high) = ratio_between(&labels(0.05, 7, 12));
        assert!((most_likely(&labels(0.05, 7, 12)) - 11.083).abs() < 0.01);
        assert!(low > 2.0 && low < 6.0 && high.is_some_and(|h| (20.0..60.0).contains(&h)), "{low} {high:?}");
        assert_eq!(ratio_between(&labels(0.05, 3, 0)).1, None);
        assert_eq!(ratio_between(&labels(0.05, 0, 100)).0, 0.0);
    }
}
