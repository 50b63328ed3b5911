//! Charts as SVG with a text for those who cannot see them. Takes points, gives shapes; no style is written into them.

use andon_line::stations::release::Point;
use andon_model::Time;
use maud::{Markup, html};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 170.0;
/// The field inside the axes.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 512.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 142.0;
/// Points drawn at most; more would fall on the same pixel.
const POINTS: usize = 160;
/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_964;

/// Share of users with an error and its band, by Wilson's score interval: (low, middle, high).
pub fn band((hit, of): (u64, u64)) -> (f64, f64, f64) {
    if of == 0 {
        return (0.0, 0.0, 1.0);
    }
    let (n, p) = (of as f64, hit as f64 / of as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), p, (middle + half).min(1.0))
}

/// Users with an error per thousand, of both revisions.
pub fn errors(curve: &[Point], stable: &str, canary: &str) -> Markup {
    let points = thin(curve);
    let Some(last) = points.last() else { return nothing() };
    if last.stable.1 + last.canary.1 == 0 {
        return nothing();
    }
    let (old, new) = (band(last.stable), band(last.canary));
    let rates = points.iter().flat_map(|p| [band(p.stable).1, band(p.canary).1]);
    // The band of the first few users covers everything: the newest one decides the scale.
    let top = nice(rates.fold(old.2.max(new.2), f64::max) * 1000.0 * 1.05).min(1000.0);
    let x = across(&points);
    let y = |share: f64| BOTTOM - (share * 1000.0 / top).min(1.0) * (BOTTOM - TOP);
    let area = |of: fn(&Point) -> (u64, u64)| {
        let there = points.iter().enumerate().map(|(n, p)| format!("{:.1} {:.1}", x(n), y(band(of(p)).2)));
        let back =
            points.iter().enumerate().rev().map(|(n, p)| format!("{:.1} {:.1}", x(n), y(band(of(p)).0)));
        format!("M{}Z", there.chain(back).collect::<Vec<_>>().join("L"))
    };
    let path = |of: fn(&Point) -> (u64, u64)| {
        format!(
            "M{}",
            points
                .iter()
                .enumerate()
                .map(|(n, p)| format!("{:.1} {:.1}", x(n), y(band(of(p)).1)))
                .collect::<Vec<_>>()
                .join("L")
        )
    };
    let words = |(low, p, high): (f64, f64, f64), (hit, of): (u64, u64)| {
        format!("{:.2} per thousand ({:.2} to {:.2}; {hit} of {of} users)", p * 1e3, low * 1e3, high * 1e3)
    };
    let says = format!(
        "Users with an error: {stable} {}; {canary} {}",
        words(old, last.stable),
        words(new, last.canary)
    );
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(says) {
            (axes(&points))
            text x="4" y=(TOP + 4.0) { (number(top)) " ‰" }
            text x="4" y=(BOTTOM) { "0" }
            path.area.old d=(area(|p| p.stable)) {}
            path.area.new d=(area(|p| p.canary)) {}
            path.curve.old d=(path(|p| p.stable)) {}
            path.curve.new d=(path(|p| p.canary)) {}
        }
        ul.legend {
            li.old { code { (stable) } " serves: " (words(old, last.stable)) }
            li.new { code { (canary) } " is new: " (words(new, last.canary)) }
        }
    }
}

/// Evidence that the new one is worse, on a scale of powers of ten, with the line at which it is taken back.
pub fn evidence(curve: &[Point], needed: f64) -> Markup {
    let points = thin(curve);
    let Some(last) = points.last() else { return nothing() };
    let tens = |ln: f64| ln / std::f64::consts::LN_10;
    let line = needed.max(1.0).log10();
    let low = points.iter().map(|p| tens(p.evidence_ln)).fold(-1.0, f64::min).max(-4.0).floor();
    let high = points.iter().map(|p| tens(p.evidence_ln)).fold(line + 0.7, f64::max).min(line + 4.0).ceil();
    let x = across(&points);
    let y = |tens: f64| BOTTOM - ((tens - low) / (high - low)).clamp(0.0, 1.0) * (BOTTOM - TOP);
    let path = points
        .iter()
        .enumerate()
        .map(|(n, p)| format!("{:.1} {:.1}", x(n), y(tens(p.evidence_ln))))
        .collect::<Vec<_>>()
        .join("L");
    let now = tens(last.evidence_ln);
    let words = odds(now);
    let says = format!(
        "Evidence that the new revision is worse: {words}; it is taken back at {} : 1",
        number(needed)
    );
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(says) {
            (axes(&points))
            @for power in (low as i32)..=(high as i32) {
                path.grid d={ "M" (LEFT) " " (format!("{:.1}", y(f64::from(power)))) "H" (RIGHT) } {}
                @if (high - low) < 7.0 || power % 2 == 0 { text x="4" y=(format!("{:.1}", y(f64::from(power)) + 4.0)) { (label(power)) } }
            }
            path.limit d={ "M" (LEFT) " " (format!("{:.1}", y(line))) "H" (RIGHT) } {}
            path.curve.ink d={ "M" (path) } {}
        }
        ul.legend {
            li.ink { "Evidence now: " (words) }
            li.limit { "Taken back at " (number(needed)) " : 1" }
        }
    }
}

/// Percent over time, by landing: when, run, percent; oldest first.
pub fn course(points: &[(Time, u32, f64)]) -> Markup {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return html! {} };
    let lowest = points.iter().map(|point| point.2).fold(100.0, f64::min);
    let highest = points.iter().map(|point| point.2).fold(0.0, f64::max);
    // A scale of at least ten points: a tenth of a point is no cliff.
    let low = (((lowest - 1.0) / 5.0).floor() * 5.0).clamp(0.0, 90.0);
    let high = ((highest / 5.0).ceil() * 5.0).max(low + 10.0).min(100.0);
    let steps = (points.len() - 1).max(1) as f64;
    let x = |n: usize| LEFT + n as f64 / steps * (RIGHT - LEFT);
    let y = |percent: f64| BOTTOM - ((percent - low) / (high - low)).clamp(0.0, 1.0) * (BOTTOM - TOP);
    let path = points.iter().enumerate().map(|(n, point)| format!("{:.1} {:.1}", x(n), y(point.2)));
    let path = path.collect::<Vec<_>>().join("L");
    let says = format!(
        "Lines that ran in tests: {:.1} % at run-{}, {:.1} % at run-{}, over {} landings between {lowest:.1} % and {highest:.1} %",
        first.2,
        first.1,
        last.2,
        last.1,
        points.len()
    );
    let day = |at: Time| at.rfc3339().get(0..10).unwrap_or_default().to_owned();
    html! {
        svg.chart.course viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(says) {
            path.axis d={ "M" (LEFT) " " (TOP) "V" (BOTTOM) "H" (RIGHT) } {}
            text x="4" y=(TOP + 4.0) { (number(high)) " %" }
            text x="4" y=(BOTTOM) { (number(low)) " %" }
            text x=(LEFT) y=(BOTTOM + 18.0) { (day(first.0)) }
            text x=(RIGHT) y=(BOTTOM + 18.0) text-anchor="end" { (day(last.0)) }
            path.curve.ink d={ "M" (path) } {}
        }
        p.soft.small { (says) "." }
    }
}

fn odds(tens: f64) -> String {
    match tens {
        t if t < -2.0 => "less than 1 : 100".into(),
        t if t < 0.0 => format!("1 : {:.0}", 10f64.powf(-t)),
        t if t > 6.0 => "more than 1,000,000 : 1".into(),
        t => format!("{:.0} : 1", 10f64.powf(t)),
    }
}

fn label(power: i32) -> String {
    match power {
        0 => "1 : 1".into(),
        p @ 1..=3 => format!("{} : 1", 10i64.pow(p as u32)),
        p if p > 3 => format!("1e{p} : 1"),
        p if p >= -3 => format!("1 : {}", 10i64.pow(p.unsigned_abs())),
        p => format!("1 : 1e{}", -p),
    }
}

fn nothing() -> Markup {
    html! { p.soft { "No users were seen yet." } }
}

fn axes(points: &[&Point]) -> Markup {
    let time = |point: Option<&&Point>| point.map(|p| p.at.hh_mm_ss()).unwrap_or_default();
    html! {
        path.axis d={ "M" (LEFT) " " (TOP) "V" (BOTTOM) "H" (RIGHT) } {}
        text x=(LEFT) y=(BOTTOM + 18.0) { (time(points.first())) }
        text x=(RIGHT) y=(BOTTOM + 18.0) text-anchor="end" { (time(points.last())) }
    }
}

fn across<'a>(points: &'a [&'a Point]) -> impl Fn(usize) -> f64 + 'a {
    let (from, to) = (points.first().map_or(0, |p| p.at.0), points.last().map_or(0, |p| p.at.0));
    move |n| match to - from {
        0 => {
            if n == 0 {
                LEFT
            } else {
                RIGHT
            }
        }
        all => LEFT + (points[n].at.0 - from) as f64 / all as f64 * (RIGHT - LEFT),
    }
}

fn thin(curve: &[Point]) -> Vec<&Point> {
    let step = curve.len().div_ceil(POINTS).max(1);
    let mut points: Vec<&Point> = curve.iter().step_by(step).collect();
    if let (Some(last), true) = (curve.last(), curve.len() % step != 1 && step > 1) {
        points.push(last);
    }
    points
}

/// The next round number.
fn nice(top: f64) -> f64 {
    if !top.is_finite() || top <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(top.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= top).unwrap_or(top)
}

fn number(n: f64) -> String {
    if n >= 10.0 || n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_narrows_with_users_and_holds_its_share() {
        let (few, many) = (band((1, 100)), band((100, 10_000)));
        assert!(few.0 < 0.01 && 0.01 < few.2 && few.2 - few.0 > many.2 - many.0);
        // Wilson's interval of 1 in 100, as statistics packages give it: 0.0018 to 0.0545.
        assert!((few.0 - 0.00177).abs() < 1e-4 && (few.2 - 0.05449).abs() < 1e-4, "{few:?}");
        assert_eq!(band((0, 0)), (0.0, 0.0, 1.0));
    }

    #[test]
    fn a_chart_says_in_words_what_it_shows() {
        let point = |n: i64| Point {
            at: Time(n * 1000),
            weight_bp: 1000,
            stable: (3, 3000),
            canary: (5, 300 + n as u64),
            evidence_ln: 2.0,
        };
        let curve: Vec<Point> = (0..900).map(point).collect();
        let drawn = errors(&curve, "51b0aa2", "9c41d7e").0 + &evidence(&curve, 1000.0).0;
        assert!(drawn.contains("aria-label=\"Users with an error: 51b0aa2 1.00 per thousand"));
        assert!(drawn.contains("it is taken back at 1000 : 1") && !drawn.contains("NaN"));
        for few in [0usize, 1, 2] {
            let drawn = errors(&curve[..few], "a", "b").0 + &evidence(&curve[..few], 1000.0).0;
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{few} points");
        }
    }

    #[test]
    fn the_course_of_coverage_keeps_small_moves_small() {
        let at = |n: i64, percent| (Time(n * 86_400_000), n as u32, percent);
        let drawn = course(&[at(1, 81.2), at(2, 81.1), at(3, 83.0)]).0;
        assert!(drawn.contains("81.2 % at run-1, 83.0 % at run-3, over 3 landings"), "{drawn}");
        assert!(drawn.contains(">80 %<") && drawn.contains(">90 %<") && !drawn.contains("NaN"), "{drawn}");
        assert!(!course(&[at(1, 100.0), at(2, 0.0)]).0.contains("NaN"));
    }
}
