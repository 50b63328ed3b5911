//! The configuration that HAProxy needs to be driven: frontends by host, backends by service, the counting of users. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use andon_traffic::{Protocol, Route, RouteTable};

/// Revisions of a service that can be there at once: one that serves, one that comes, one that still drains.
pub(crate) const SLOTS: [&str; 3] = ["a", "b", "c"];
/// The name under which HAProxy keeps the map. The file is empty: lines are put in through the socket.
pub(crate) const MAP: &str = "/dev/null";
/// The table of counts.
pub(crate) const COUNTS: &str = "andon:counts";
/// Numbers of errors at which a user is counted.
const LEVELS: [u32; 3] = andon_traffic::signals::ERROR_LEVELS;
/// The cookie that our router gives, too.
const COOKIE: &str = "andon-subject";

/// What a configuration is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where HAProxy's socket is to be.
    pub socket: PathBuf,
    /// Where it listens for users.
    pub bind: String,
    /// Instances that one revision can have.
    pub servers: usize,
}

/// The backend of a service's slot; dots and slashes of our names are not all allowed there.
pub(crate) fn backend(service: &str, slot: &str) -> String {
    format!("{}:{slot}", service.replace('/', ":"))
}

/// The whole file. Services are those of the table; it has to be printed anew when one is added or gets another host.
pub fn config(config: &Config, table: &RouteTable) -> String {
    let mut routes: Vec<&Route> = table.routes.iter().collect();
    routes.sort_by(|a, b| a.service.cmp(&b.service));
    let (socket, bind) = (config.socket.display(), &config.bind);
    let mut text = format!(
        "# Written by `andon haproxy config`. Print it anew when a service or a host is added, and reload HAProxy; its memory is filled by `andon serve --haproxy`.
global
    stats socket {socket} mode 660 level admin expose-fd listeners

defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-request 30s
    timeout tunnel 1h
    retries 2
    option redispatch

# Users, by release: when they were seen last, and how many errors they met.
backend andon:subjects
    stick-table type string len 120 size 200k expire 1d store gpc(1),gpt0

# By release, epoch, weight and backend: answers, users, errors, users with 1, 3 and 10 errors.
backend {COUNTS}
    stick-table type string len 200 size 10k expire 7d store gpc(6)

frontend andon
    bind {bind}
    option forwardfor
    http-request del-header x-andon-revision
    http-request set-var(txn.host) req.hdr(host),field(1,:),lower,rtrim(.)
"
    );
    for route in &routes {
        for host in &route.hosts {
            let _ = writeln!(
                text,
                "    http-request set-var(txn.service) str({}) if {{ var(txn.host) -m str {} }}",
                route.service,
                host.to_lowercase()
            );
        }
    }
    let _ = write!(
        text,
        "    http-request set-var(txn.route) var(txn.service),map_str({MAP}) if {{ var(txn.service) -m found }}
    http-request return status 404 content-type text/plain string \"No service answers to this name.\" unless {{ var(txn.service) -m found }}
    http-request return status 503 content-type text/plain hdr retry-after 1 string \"This service has no instances yet, or Andon is just filling HAProxy's memory. Try again in a second.\" unless {{ var(txn.route) -m found }}
    # Who asks: the cookie, if it is one of ours, else a new user.
    http-request set-var(txn.subject) req.cook({COOKIE})
    http-request unset-var(txn.subject) unless {{ var(txn.subject) -m reg ^[0-9a-f]{{32}}$ }}
    http-request set-var(txn.fresh) uuid(),regsub(-,,g) unless {{ var(txn.subject) -m found }}
    http-request set-var(txn.subject) var(txn.fresh) if {{ var(txn.fresh) -m found }}
    # The line of the map: release, epoch, weight, backend and revision that serve, backend and revision that come.
    http-request set-var(txn.salt) var(txn.route),field(1,|)
    http-request set-var(txn.epoch) var(txn.route),field(2,|)
    http-request set-var(txn.weight) var(txn.route),field(3,|)
    http-request set-var(txn.backend) var(txn.route),field(4,|)
    http-request set-var(txn.revision) var(txn.route),field(5,|)
    http-request set-var(txn.who) var(txn.salt),concat(|,txn.subject)
    # The place of this user in this release, 0 to 9999: below the weight is the new revision.
    http-request set-var(txn.place) var(txn.who),xxh32,mod(10000),sub(txn.weight)
    http-request set-var(txn.backend) var(txn.route),field(6,|) if {{ var(txn.place) -m int lt 0 }}
    http-request set-var(txn.revision) var(txn.route),field(7,|) if {{ var(txn.place) -m int lt 0 }}
    http-request set-var(txn.where) var(txn.salt),concat(|,txn.epoch),concat(|,txn.weight),concat(|,txn.backend)
    http-request track-sc0 var(txn.who) table andon:subjects
    http-request track-sc1 var(txn.where) table {COUNTS}
    http-request sc-inc-gpc(1,1) unless {{ sc_get_gpt0(0),sub(txn.epoch) eq 0 }}
    http-request sc-set-gpt0(0) var(txn.epoch)
    # 500 and above are errors, as they are for Andon's router; a user counts once at each level.
    http-response sc-inc-gpc(0,1)
    http-response sc-inc-gpc(2,1) if {{ status ge 500 }}
    http-response sc-inc-gpc(0,0) if {{ status ge 500 }}
"
    );
    for (at, level) in LEVELS.iter().enumerate() {
        let _ = writeln!(
            text,
            "    http-response sc-inc-gpc({},1) if {{ status ge 500 }} {{ sc_get_gpc(0,0) eq {level} }}",
            at + 3
        );
    }
    let _ = write!(
        text,
        "    http-after-response set-header x-andon-revision %[var(txn.revision)] if {{ var(txn.revision) -m found }}
    http-after-response add-header set-cookie \"{COOKIE}=%[var(txn.fresh)]; Path=/; HttpOnly; SameSite=Lax\" if {{ var(txn.fresh) -m found }}
    http-request set-header x-andon-backend %[var(txn.backend)]
    default_backend andon:within

# Requests pass a second time, so that what HAProxy itself answers - no connection, half an answer, too late - is an answer like another to the rules above, and an error of its user.
backend andon:within
    timeout server 90s
    # One connection each: on one that was used before, HAProxy ends a failed request without a word.
    http-reuse never
    option http-server-close
    server within unix@{socket}.within

frontend andon:within
    bind unix@{socket}.within mode 600
    http-request set-var(txn.backend) req.hdr(x-andon-backend)
    http-request del-header x-andon-backend
    use_backend %[var(txn.backend)]
"
    );
    for route in &routes {
        let proto = match route.protocol {
            Protocol::Http1 => "",
            Protocol::Http2 => " proto h2",
        };
        for slot in SLOTS {
            let (name, servers) = (backend(&route.service, slot), config.servers);
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
            let _ = write!(
                text,
                "\nbackend {name}\n    balance leastconn\n    server-template s 1-{servers} {nowhere}{proto} disabled\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_traffic::RevisionName;

    #[test]
    fn every_host_leads_to_its_service_and_every_service_has_three_backends() {
        let name = RevisionName("r".to_owned());
        let table = RouteTable {
            routes: vec![Route::to("shop/production/web", &["Web.Example", "www.example"], name, vec![])],
        };
        let made = Config { socket: "/run/h.sock".into(), bind: "127.0.0.1:80".into(), servers: 4 };
        let text = config(&made, &table);
        assert_eq!(text.matches("str(shop/production/web) if").count(), 2);
        assert!(text.contains("-m str web.example }"));
        for slot in SLOTS {
            assert!(text.contains(&format!("\nbackend shop:production:web:{slot}\n")));
        }
        assert!(text.contains("stats socket /run/h.sock "));
    }
}
