//! Other proxies as processes of a bench: what each is told, how it is started on the first core, what it cost. `tools/router-peers` installs them.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::house::{pause, target};

/// A proxy that runs, until dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A master that is killed leaves its workers: they go first.
        for pid in family(self.child.id()).iter().rev() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = vec![pid];
    all.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family));
    all
}

impl Proxy {
    /// CPU seconds that it has used, all its processes together.
    pub fn cpu(&self) -> f64 {
        let ticks = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
            let field = |at: usize| rest.split_whitespace().nth(at).and_then(|n| n.parse::<f64>().ok());
            field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0)
        };
        // The kernel counts in hundredths (USER_HZ).
        family(self.child.id()).iter().map(ticks).sum::<f64>() / 100.0
    }

    /// Resident memory in MB, all its processes together.
    pub fn memory(&self) -> f64 {
        let resident = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line =
                status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().to_owned();
            line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0)
        };
        family(self.child.id()).iter().map(resident).sum::<f64>() / 1000.0
    }
}

/// Starts a command on a core.
pub fn on_core(core: &str, program: &Path, args: &[String]) -> Result<Child, String> {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).args(args).env("GOMAXPROCS", "1");
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    command.spawn().map_err(|error| format!("taskset: {error}"))
}

/// Waits until somebody listens.
pub fn listens(port: u16) -> Result<(), String> {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        pause(20);
    }
    Err(format!("nobody listens on {port}"))
}

/// Ours, by the program that runs.
pub fn ours(port: u16, backends: [u16; 2], shadow: Option<u16>) -> Result<Proxy, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut args = vec!["alone".to_owned()];
    args.extend([port, backends[0], backends[1]].into_iter().chain(shadow).map(|port| port.to_string()));
    proxy("andon", port, on_core("0", &this, &args)?)
}

fn proxy(name: &'static str, port: u16, child: Child) -> Result<Proxy, String> {
    let proxy = Proxy { name, address: SocketAddr::from(([127, 0, 0, 1], port)), child };
    listens(port).map_err(|why| format!("{name}: {why}"))?;
    Ok(proxy)
}

/// All that are at hand, each with 95 : 5 between the two backends and kept connections; what is not is named.
pub fn start(first: u16, backends: [u16; 2], room: &Path) -> Result<Vec<Proxy>, String> {
    let own = target().join("router-peers");
    let installed = Command::new(crate::root().join("tools/router-peers")).arg(&own).status();
    installed.map_err(|error| format!("tools/router-peers: {error}"))?;
    let mut proxies = Vec::new();
    let makers: [(&'static str, Maker); 4] =
        [("nginx", nginx), ("haproxy", haproxy), ("envoy", envoy), ("caddy", caddy)];
    for (port, (name, maker)) in (first..).zip(makers) {
        let program = own.join(name);
        let file = room.join(format!("{name}.{}", if name == "envoy" { "yaml" } else { "conf" }));
        let (text, args) = maker(port, backends, &file, room);
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Err(format!("somebody listens on {port}: what is measured there would not be {name}"));
        }
        match on_core("0", &program, &args).and_then(|child| proxy(name, port, child)) {
            Ok(started) => proxies.push(started),
            Err(why) => println!("○ not measured: {name} ({why})"),
        }
    }
    println!("○ not measured: a bare Pingora proxy (257 crates and cmake to build it)");
    Ok(proxies)
}

type Maker = fn(u16, [u16; 2], &Path, &Path) -> (String, Vec<String>);

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn path(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}

fn nginx(port: u16, [a, b]: [u16; 2], file: &Path, room: &Path) -> (String, Vec<String>) {
    let room = path(room);
    let text = format!(
        "user root; worker_processes 1; daemon off; pid {room}/nginx.pid; error_log /dev/null;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {room}/b; proxy_temp_path {room}/p; fastcgi_temp_path {room}/f; uwsgi_temp_path {room}/u; scgi_temp_path {room}/s;
  keepalive_requests 1000000000; keepalive_timeout 300;
  upstream shop {{ server 127.0.0.1:{a} weight=19; server 127.0.0.1:{b} weight=1; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}
}}
"
    );
    (text, words(&["-p", &room, "-c", &path(file)]))
}

fn haproxy(port: u16, [a, b]: [u16; 2], file: &Path, _: &Path) -> (String, Vec<String>) {
    let text = format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend users
  bind 127.0.0.1:{port}
  default_backend shop
backend shop
  balance roundrobin
  server a 127.0.0.1:{a} weight 95
  server b 127.0.0.1:{b} weight 5
"
    );
    (text, words(&["-db", "-f", &path(file)]))
}

fn envoy(port: u16, [a, b]: [u16; 2], file: &Path, _: &Path) -> (String, Vec<String>) {
    let cluster = |name: &str, port: u16| {
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: {name}
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }} ] }} ]
"
        )
    };
    let text = format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: / }}
                route: {{ weighted_clusters: {{ clusters: [ {{ name: a, weight: 95 }}, {{ name: b, weight: 5 }} ] }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
{}{}",
        cluster("a", a),
        cluster("b", b)
    );
    (text, words(&["-c", &path(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "off"]))
}

fn caddy(port: u16, [a, b]: [u16; 2], file: &Path, _: &Path) -> (String, Vec<String>) {
    let text = format!(
        "{{
  admin off
  auto_https off
  persist_config off
}}
http://127.0.0.1:{port}, http://{}:{port} {{
  reverse_proxy 127.0.0.1:{a} 127.0.0.1:{b} {{
    lb_policy weighted_round_robin 95 5
    transport http {{
      keepalive_idle_conns_per_host 128
    }}
  }}
}}
",
        crate::alone::HOST
    );
    (text, words(&["run", "--adapter", "caddyfile", "--config", &path(file)]))
}
