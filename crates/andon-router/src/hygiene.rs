//! Headers: what concerns one connection only is taken off, what the backend must know is put on.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    CONNECTION, EXPECT, FORWARDED, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};

/// Names the revision that answered.
pub(crate) const REVISION: HeaderName = HeaderName::from_static("x-andon-revision");
/// Marks a copy of a request, whose answer nobody sees.
pub(crate) const SHADOW: HeaderName = HeaderName::from_static("x-andon-shadow");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers of one hop (RFC 9110 section 7.6.1, and the old ones that are still sent).
const HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
];

/// The protocol that the message asks to switch to, if it does so properly.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked =
        asked.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asked.then(|| headers.get(UPGRADE).cloned()).flatten()
}

/// Takes off everything that concerns one connection, the headers that `Connection` names included.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| token.trim().parse().ok())
            // These frame and address the message: naming them must not remove them.
            .filter(|name| *name != hyper::header::HOST && *name != hyper::header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP {
        headers.remove(name);
    }
}

/// Puts back a switch of protocol that was taken off with the rest.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Says to the backend who asked and under which host. `trusted`: something in front of us has said host and protocol
/// already.
pub(crate) fn forwarded(headers: &mut HeaderMap, peer: SocketAddr, host: &HeaderValue, trusted: bool) {
    headers.remove(EXPECT); // we answer `100-continue` ourselves, when the backend begins to read
    headers.remove(SHADOW);
    let ip = peer.ip().to_canonical();
    append(headers, FORWARDED_FOR, &ip.to_string());
    if !trusted || !headers.contains_key(FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    if !trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    let node = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let quotable = host.to_str().ok().filter(|host| !host.contains(['"', '\\']));
    let host = quotable.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    append(headers, FORWARDED, &format!("for={node}{host};proto=http"));
}

/// Adds to a list header, keeping what stands there as one line.
fn append(headers: &mut HeaderMap, name: HeaderName, entry: &str) {
    let mut before: Vec<&str> =
        headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    before.push(entry);
    if let Ok(value) = HeaderValue::from_str(&before.join(", ")) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    #[test]
    fn what_connection_names_goes_no_further() {
        let mut map = headers(&[
            ("connection", "close, X-Secret, host, content-length"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("host", "h"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        strip_hop(&mut map);
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(
            upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])).is_some()
        );
    }

    #[test]
    fn a_client_cannot_say_under_which_host_it_came() {
        let peer = "192.0.2.7:1234".parse().unwrap();
        let mut map = headers(&[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-andon-shadow", "1"),
        ]);
        let host = HeaderValue::from_static("web.example");
        forwarded(&mut map, peer, &host, false);
        assert_eq!(map["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(map["x-forwarded-host"], "web.example");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["forwarded"], "for=192.0.2.7;host=\"web.example\";proto=http");
        assert!(!map.contains_key("x-andon-shadow"));
    }
}
