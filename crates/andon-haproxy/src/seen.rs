//! What HAProxy says of itself, read: lines of the map, servers, sessions, counts. What cannot be read is left out.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::config::backend;

/// All of it at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Where users of a service go, by service.
    pub lines: HashMap<String, Line>,
    /// By backend.
    pub backends: HashMap<String, Backend>,
    pub counts: Vec<Count>,
}

/// One line of the map: where the users of a service go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub salt: String,
    pub epoch: u64,
    pub weight_bp: u16,
    /// Slot and revision.
    pub stable: (String, String),
    pub candidate: Option<(String, String)>,
}

impl Line {
    /// As the map has it. No part contains a `|`, a space or a `;`.
    pub fn write(&self, service: &str) -> String {
        let place = |(slot, revision): &(String, String)| format!("{}|{revision}", backend(service, slot));
        let weight = if self.candidate.is_some() { self.weight_bp } else { 0 };
        let candidate = self.candidate.as_ref().unwrap_or(&self.stable);
        format!("{}|{}|{weight}|{}|{}", self.salt, self.epoch, place(&self.stable), place(candidate))
    }

    fn read(service: &str, text: &str) -> Option<Line> {
        let parts: Vec<&str> = text.split('|').collect();
        let [salt, epoch, weight, stable, stable_is, candidate, candidate_is] = parts.as_slice() else {
            return None;
        };
        let slot = |name: &str| {
            let slot = name.rsplit(':').next()?;
            (backend(service, slot) == name).then(|| slot.to_owned())
        };
        let stable = (slot(stable)?, (*stable_is).to_owned());
        let candidate = (slot(candidate)?, (*candidate_is).to_owned());
        Some(Line {
            salt: (*salt).to_owned(),
            epoch: epoch.parse().ok()?,
            weight_bp: weight.parse().ok()?,
            candidate: Some(candidate).filter(|candidate| *candidate != stable),
            stable,
        })
    }

    /// The slot that holds a revision.
    pub fn slot_of(&self, revision: &str) -> Option<&str> {
        let both = std::iter::once(&self.stable).chain(&self.candidate);
        both.into_iter().find(|(_, name)| name == revision).map(|(slot, _)| slot.as_str())
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Backend {
    /// Requests under way and waiting.
    pub under_way: usize,
    /// Requests since HAProxy began.
    pub requests: u64,
    pub servers: Vec<Server>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub name: String,
    pub addr: Option<SocketAddr>,
    pub state: State,
    pub under_way: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Gets requests.
    Ready,
    /// Gets no new ones.
    Drain,
    /// Off.
    Maint,
}

/// Counts of one backend in one epoch of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    pub salt: String,
    pub epoch: u64,
    pub weight_bp: u16,
    pub backend: String,
    /// Answers, users, errors, users with 1, 3 and 10 errors.
    pub values: [u64; 6],
}

/// Reads `show map`.
pub(crate) fn lines(text: &str) -> HashMap<String, Line> {
    let line = |line: &str| {
        let mut parts = line.split_whitespace().skip(1);
        let (service, value) = (parts.next()?, parts.next()?);
        Some((service.to_owned(), Line::read(service, value)?))
    };
    text.lines().filter_map(line).collect()
}

/// Reads `show table`.
pub(crate) fn counts(text: &str) -> Vec<Count> {
    let count = |line: &str| {
        let field = |name: &str| line.split_whitespace().find_map(|part| part.strip_prefix(name));
        let key: Vec<&str> = field("key=")?.split('|').collect();
        let [salt, epoch, weight, backend] = key.as_slice() else { return None };
        let value = |at: usize| field(&format!("gpc{at}=")).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Count {
            salt: (*salt).to_owned(),
            epoch: epoch.parse().ok()?,
            weight_bp: weight.parse().ok()?,
            backend: (*backend).to_owned(),
            values: std::array::from_fn(value),
        })
    };
    text.lines().filter_map(count).collect()
}

/// Reads `show stat`: a table with its heads in the first line.
pub(crate) fn backends(text: &str) -> HashMap<String, Backend> {
    let mut rows = text.lines();
    let heads: Vec<&str> = rows.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let column = |name: &str| heads.iter().position(|head| *head == name);
    let mut found: HashMap<String, Backend> = HashMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split(',').collect();
        let cell = |name: &str| column(name).and_then(|at| cells.get(at).copied()).unwrap_or_default();
        let number = |name: &str| cell(name).parse::<u64>().unwrap_or(0);
        let under_way = (number("scur") + number("qcur")) as usize;
        if cell("pxname").is_empty() {
            continue;
        }
        let entry = found.entry(cell("pxname").to_owned()).or_default();
        if cell("svname") == "BACKEND" {
            entry.under_way = under_way;
            entry.requests = number("req_tot");
            continue;
        }
        let state = match cell("status") {
            status if status.starts_with("MAINT") => State::Maint,
            status if status.starts_with("DRAIN") => State::Drain,
            _ => State::Ready,
        };
        let (name, addr) = (cell("svname").to_owned(), cell("addr").parse().ok());
        entry.servers.push(Server { name, addr, state, under_way });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_map_is_read_as_it_was_written() {
        let place = |slot: &str, name: &str| (slot.to_owned(), name.to_owned());
        let mut line = Line {
            salt: "shop:R1".into(),
            epoch: 7,
            weight_bp: 500,
            stable: place("a", "abc-D1"),
            candidate: Some(place("b", "def-D2")),
        };
        for weight in [500, 0] {
            line.weight_bp = weight;
            let said = format!("0x1 shop/production/web {}\n\n", line.write("shop/production/web"));
            assert_eq!(lines(&said)["shop/production/web"], line);
        }
        line.candidate = None;
        let said = format!("0x1 s {}", line.write("s"));
        assert_eq!(lines(&said)["s"], line);
        assert!(lines("0x1 s nonsense\nword\n0x2 s a|b|c|d|e|f|g").is_empty());
    }

    #[test]
    fn tables_of_haproxy_are_read_and_nonsense_is_left_out() {
        let said = "# table: andon:counts, type: string, size:10240, used:2
0x55: key=shop:R1|12345|500|shop:production:web:a use=0 exp=604799794 gpc0=8 gpc1=5 gpc2=4 gpc3=1 gpc4=1 gpc5=0
0x56: key=nonsense use=0
";
        let read = counts(said);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].epoch, read[0].weight_bp, read[0].values), (12345, 500, [8, 5, 4, 1, 1, 0]));
        let said = "# pxname,svname,qcur,scur,status,req_tot,addr,
w:a,s1,0,2,no check,,127.0.0.1:19001,
w:a,s2,0,0,MAINT,,127.0.0.1:1,
w:a,BACKEND,1,2,UP,15,,
";
        let read = &backends(said)["w:a"];
        assert_eq!((read.under_way, read.requests, read.servers.len()), (3, 15, 2));
        assert_eq!((read.servers[0].state, read.servers[1].state), (State::Ready, State::Maint));
        assert_eq!(read.servers[0].addr, Some(([127, 0, 0, 1], 19001).into()));
    }
}
