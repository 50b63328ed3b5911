//! Headers: what concerns one connection only is taken off, what the backend must know is put on.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

/// Names the revision that answered.
pub(crate) const REVISION: HeaderName = HeaderName::from_static("x-andon-revision");
/// Marks a copy of a request, whose answer nobody sees.
pub(crate) const SHADOW: HeaderName = HeaderName::from_static("x-andon-shadow");
/// Names the request, on its way there and back.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where the request stands in a trace (W3C Trace Context, level 1).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers of one hop (RFC 9110 section 7.6.1, and the old ones that are still sent).
const HOP: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("http2-settings"),
];
/// How long their names are, as bits: a quick way to know that a name is none of them.
const HOP_LENGTHS: u32 = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 19;

/// The protocol that the message asks to switch to, if it does so properly. HTTP/2 is not switched to (RFC 9113 section 3.1): behind a proxy that lets it pass,
/// requests would go by nobody's rules.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked =
        asked.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = asked.then(|| headers.get(UPGRADE)).flatten()?;
    let http2 = |name: &str| name.trim().to_ascii_lowercase().starts_with("h2");
    (!protocol.to_str().ok()?.split(',').any(http2)).then(|| protocol.clone())
}

/// Whether the sender understands trailers.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("trailers"))
}

/// Says so to the next one.
pub(crate) fn take_trailers(headers: &mut HeaderMap) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// Whether the message is one of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether trailers, or headers that stand for them, say that a gRPC server failed: the codes that OpenTelemetry's conventions for gRPC servers take for errors
/// (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS). The others are the caller's doing.
pub(crate) fn grpc_failed(headers: &HeaderMap) -> bool {
    let status = headers.get("grpc-status").and_then(|value| value.to_str().ok());
    matches!(status.and_then(|text| text.parse::<u8>().ok()), Some(2 | 4 | 12 | 13 | 14 | 15))
}

/// HTTP/2 may send a cookie in several lines; HTTP/1.1 knows one (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// The name of the request: what the caller calls it, if that can stand in a log, else a new one. A trace that comes along goes on; else one begins.
pub(crate) fn name(headers: &mut HeaderMap, fresh: impl Fn() -> [u64; 2]) -> HeaderValue {
    let readable =
        |id: &&HeaderValue| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let named = headers.get(REQUEST_ID).filter(readable).cloned();
    let traced = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).is_some_and(is_traceparent);
    if named.is_some() && traced {
        return named.unwrap_or(HeaderValue::from_static(""));
    }
    // One piece of memory holds both: the name of the request is that of the trace. Neither half may be all zeros.
    let [high, low] = fresh();
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    for (at, half) in [(3, high | 1), (19, low), (36, high.rotate_left(32) | 1)] {
        hexadecimal(&mut text[at..at + 16], half);
    }
    let text = Bytes::copy_from_slice(&text);
    let written =
        |part: Bytes| HeaderValue::from_maybe_shared(part).unwrap_or(HeaderValue::from_static("unnamed"));
    let id = named.unwrap_or_else(|| written(text.slice(3..35)));
    headers.insert(REQUEST_ID, id.clone());
    if !traced {
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, written(text));
    }
    id
}

fn hexadecimal(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// `version-trace-parent-flags` in lower-case hexadecimal; neither trace nor parent is all zeros, and no version is `ff`.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let some = |part: &str| part.bytes().any(|byte| byte != b'0');
    match parts.as_slice() {
        [version, trace, parent, flags, more @ ..] => {
            (hex(version, 2) && *version != "ff" && (more.is_empty() || *version != "00"))
                && (hex(trace, 32) && some(trace))
                && (hex(parent, 16) && some(parent))
                && hex(flags, 2)
        }
        _ => false,
    }
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
    // Most messages have none of them.
    if headers.keys().any(|name| HOP_LENGTHS & 1 << (name.as_str().len() & 31) != 0 && HOP.contains(name)) {
        for name in &HOP {
            headers.remove(name);
        }
    }
}

/// Puts back a switch of protocol that was taken off with the rest.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Says to the backend who asked, over what and under which host. `trusted`: something in front of us has said host and protocol already.
pub(crate) fn forwarded(
    headers: &mut HeaderMap,
    peer: SocketAddr,
    scheme: &'static str,
    host: &HeaderValue,
    trusted: bool,
) {
    headers.remove(EXPECT); // we answer `100-continue` ourselves, when the backend begins to read
    headers.remove(SHADOW);
    let ip = peer.ip().to_canonical();
    let mut text = String::with_capacity(96 + host.len());
    // Writing to memory cannot fail.
    let _ = write!(text, "{ip}");
    let address = text.len();
    let _ = match ip {
        IpAddr::V4(_) => write!(text, "for={ip}"),
        IpAddr::V6(_) => write!(text, "for=\"[{ip}]\""),
    };
    if let Some(host) = host.to_str().ok().filter(|host| !host.contains(['"', '\\'])) {
        let _ = write!(text, ";host=\"{host}\"");
    }
    let _ = write!(text, ";proto={scheme}");
    let text = Bytes::from(text);
    append(headers, FORWARDED_FOR, text.slice(..address));
    if !trusted || !headers.contains_key(FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    if !trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    append(headers, FORWARDED, text.slice(address..));
}

/// Adds to a list header, keeping what stands there as one line.
fn append(headers: &mut HeaderMap, name: HeaderName, entry: Bytes) {
    let value = if headers.contains_key(&name) {
        let before: Vec<&[u8]> = headers
            .get_all(&name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::as_bytes)
            .chain([&entry[..]])
            .collect();
        HeaderValue::from_bytes(&before.join(&b", "[..]))
    } else {
        HeaderValue::from_maybe_shared(entry)
    };
    if let Ok(value) = value {
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
        forwarded(&mut map, peer, "http", &host, false);
        assert_eq!(map["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(map["x-forwarded-host"], "web.example");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["forwarded"], "for=192.0.2.7;host=\"web.example\";proto=http");
        assert!(!map.contains_key("x-andon-shadow"));
    }

    #[test]
    fn nobody_switches_to_http2_behind_our_back() {
        for protocol in ["h2c", "H2C", "websocket, h2c"] {
            assert!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", protocol)])).is_none());
        }
    }

    #[test]
    fn cookies_of_http2_become_one_line_and_others_stay_as_they_are() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut map);
        assert_eq!(map.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        join_cookies(&mut map);
        assert_eq!(map["cookie"], "a=1; b=2");
    }

    #[test]
    fn a_request_keeps_the_name_and_the_trace_it_came_with_and_gets_both_where_it_has_none() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut map = headers(&[("x-request-id", "r-1"), ("traceparent", trace), ("tracestate", "a=b")]);
        assert_eq!(name(&mut map, || [0, 0]), "r-1");
        assert_eq!(
            (map["traceparent"].to_str().unwrap(), map["tracestate"].to_str().unwrap()),
            (trace, "a=b")
        );
        for bad in [
            "",
            "00-0-0-0",
            &trace.to_uppercase(),
            &format!("ff{}", &trace[2..]),
            &trace.replace("4736", "473"),
            &format!("{trace}-more"),
        ] {
            let mut map =
                headers(&[("x-request-id", "two words"), ("traceparent", bad), ("tracestate", "a=b")]);
            assert_eq!(name(&mut map, || [1, 2]), "00000000000000010000000000000002");
            assert!(
                is_traceparent(map["traceparent"].to_str().unwrap()) && !map.contains_key("tracestate"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_server_failed_where_its_status_says_so_and_not_where_the_caller_is_to_blame() {
        let failed = |status: &str| grpc_failed(&headers(&[("grpc-status", status)]));
        assert!(["2", "4", "12", "13", "14", "15"].into_iter().all(failed));
        assert!(!["0", "1", "3", "5", "7", "16", "x", ""].into_iter().any(failed));
    }
}
