//! Certificates of the router's hosts: a folder of them, and orders at an authority by ACME (RFC 8555). Serves nothing: who shows them and who answers the
//! authority's question is said by the caller.
//!
//! [`Folder`] keeps `HOST.crt` and `HOST.key` as PEM; a team may put its own there. [`Authority`] orders one for a host. [`due`] says which hosts need one.

mod authority;
mod folder;

pub use authority::{Authority, OrderError};
pub use folder::{Folder, Pair};

/// Seconds since 1970.
pub type Seconds = i64;

/// Whether a certificate is to be renewed: less than a third of its life is left, as authorities advise.
pub fn due(begins: Seconds, ends: Seconds, now: Seconds) -> bool {
    ends - now < (ends - begins) / 3
}

/// Whether an authority can be asked for a certificate of this host by looking at it over HTTP: a public name, no pattern and no address.
pub fn can_be_ordered(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let fits = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = labels.last().copied().unwrap_or_default();
    host.len() <= 253
        && labels.len() > 1
        && labels.iter().all(fits)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
        && !["localhost", "local", "internal", "invalid"].contains(&last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let day = 86_400;
        assert!(!due(0, 90 * day, 59 * day));
        assert!(due(0, 90 * day, 61 * day));
        assert!(due(0, 90 * day, 91 * day));
    }

    #[test]
    fn only_public_names_are_ordered() {
        for good in ["shop.example", "a-b.shop.example"] {
            assert!(can_be_ordered(good), "{good}");
        }
        for bad in [
            "localhost",
            "web.production.shop.localhost",
            "*.shop.example",
            "10.0.0.1",
            "shop",
            "",
            "-a.example",
            "a..example",
            "../etc.example",
            "a b.example",
        ] {
            assert!(!can_be_ordered(bad), "{bad}");
        }
    }
}
