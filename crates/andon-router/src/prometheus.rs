//! Signals as Prometheus reads them (text format 0.0.4), under the names of OpenTelemetry's conventions for HTTP servers where there are such. Keeps nothing.

use std::fmt::Write;

use crate::signals::{Arm, ArmSignals, ServiceSignals};

/// What one arm of a service has counted over all epochs that are remembered: the same series goes on when a weight changes.
pub fn text(signals: &[ServiceSignals]) -> String {
    let mut series: Vec<(&str, Vec<&ArmSignals>)> = Vec::new();
    for service in signals {
        for arm in &service.arms {
            let known = series.iter_mut().find(|(name, arms)| {
                *name == service.service && arms.first().is_some_and(|first| first.revision == arm.revision)
            });
            match known {
                Some((_, arms)) => arms.push(arm),
                None => series.push((&service.service, vec![arm])),
            }
        }
    }
    let mut page = String::new();
    let sum = |arms: &[&ArmSignals], of: fn(&ArmSignals) -> u64| arms.iter().map(|arm| of(arm)).sum::<u64>();
    type Counter = (&'static str, &'static str, fn(&ArmSignals) -> u64);
    let counters: [Counter; 7] = [
        ("andon_router_errors_total", "Requests that went wrong.", |arm| arm.errors),
        ("andon_router_abandoned_total", "Requests that the client gave up.", |arm| arm.abandoned),
        ("andon_router_connect_failures_total", "Connections that an instance refused.", |arm| {
            arm.connect_failures
        }),
        ("andon_router_timeouts_total", "Answers that did not begin in time.", |arm| arm.timeouts),
        ("andon_router_retries_total", "Attempts after the first.", |arm| arm.retries),
        ("http_server_request_body_size_bytes_total", "Bytes of request bodies.", |arm| arm.bytes_in),
        ("http_server_response_body_size_bytes_total", "Bytes of response bodies.", |arm| arm.bytes_out),
    ];
    let name = "http_server_request_duration_seconds";
    head(&mut page, name, "summary", "Time until the answer began.");
    for (service, arms) in &series {
        let labels = labels(service, arms);
        // Quantiles are those of the newest epoch, sums those of all.
        if let Some(newest) = arms.last().filter(|arm| arm.latency.count > 0) {
            let l = newest.latency;
            for (quantile, us) in
                [("0.5", l.p50_us), ("0.9", l.p90_us), ("0.95", l.p95_us), ("0.99", l.p99_us)]
            {
                line(&mut page, name, &format!("{labels},quantile=\"{quantile}\""), us as f64 / 1e6);
            }
        }
        let seconds: f64 = arms.iter().map(|arm| arm.latency.mean_us * arm.latency.count as f64 / 1e6).sum();
        line(&mut page, &format!("{name}_sum"), &labels, seconds);
        line(&mut page, &format!("{name}_count"), &labels, sum(arms, |arm| arm.latency.count) as f64);
    }
    head(&mut page, "http_server_active_requests", "gauge", "Requests and tunnels under way.");
    for (service, arms) in &series {
        let active = arms.last().map_or(0, |arm| arm.in_flight);
        line(&mut page, "http_server_active_requests", &labels(service, arms), active as f64);
    }
    head(&mut page, "andon_router_requests_total", "counter", "Requests by class of their answer.");
    for (service, arms) in &series {
        for class in 0..5 {
            let count: u64 = arms.iter().map(|arm| arm.status[class]).sum();
            let labels = format!("{},class=\"{}xx\"", labels(service, arms), class + 1);
            line(&mut page, "andon_router_requests_total", &labels, count as f64);
        }
    }
    for (name, help, of) in counters {
        head(&mut page, name, "counter", help);
        for (service, arms) in &series {
            line(&mut page, name, &labels(service, arms), sum(arms, of) as f64);
        }
    }
    page
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to memory cannot fail.
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(page: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(page, "{name}{{{labels}}} {value}");
}

/// Project, environment, service and revision; on which side, as it is now.
fn labels(service: &str, arms: &[&ArmSignals]) -> String {
    let mut parts = service.splitn(3, '/');
    let mut part = || escaped(parts.next().unwrap_or_default());
    let (project, environment, name) = (part(), part(), part());
    let newest = arms.last();
    let side = match newest.map(|arm| arm.arm) {
        Some(Arm::Candidate) => "candidate",
        _ => "stable",
    };
    let revision = escaped(newest.map_or("", |arm| arm.revision.0.as_str()));
    format!(
        "project=\"{project}\",environment=\"{environment}\",service=\"{name}\",revision=\"{revision}\",side=\"{side}\""
    )
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Router;
    use crate::table::{RevisionName, Route, RouteTable};

    #[test]
    fn every_line_is_a_series_with_a_number_and_names_are_escaped() {
        let router = Router::new();
        let odd = RevisionName("a\"b\\c\nd".to_owned());
        let mut route = Route::to("shop/production/web", &["h"], odd, vec![]);
        for epoch in 1..4 {
            route.epoch = epoch;
            router.set(RouteTable { routes: vec![route.clone()] }).unwrap();
        }
        let page = text(&router.signals());
        let of = |name: &str| page.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(
            of("http_server_active_requests"),
            [
                r#"http_server_active_requests{project="shop",environment="production",service="web",revision="a\"b\\c\nd",side="stable"} 0"#
            ]
        );
        assert_eq!(of("andon_router_requests_total").len(), 5);
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
}
