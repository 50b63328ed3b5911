//! Who a request belongs to, and which revision that one gets. Pure: a text and a salt in, an answer out.
//!
//! The assignment must be the same in every version of the router and on every machine, therefore SipHash-1-3 under a
//! fixed key and not the standard library's hasher.

use std::hash::Hasher;

use hyper::header::{COOKIE, HeaderMap};
use siphasher::sip::SipHasher13;

/// The cookie that marks a subject that no header names.
pub const COOKIE_NAME: &str = "andon-subject";

/// All of a share.
pub const WHOLE_BP: u16 = 10_000;

const ASSIGN_KEY: (u64, u64) = (0x616e_646f_6e2d_6173, 0x7369_676e_2d76_6f31);

fn hash(key: (u64, u64), parts: [&[u8]; 2]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// Whether the subject gets the candidate: its place in 0..10 000 under this salt lies below the weight. Who is in at
/// one weight is in at every greater one.
pub fn gets_candidate(salt: &str, subject: &str, weight_bp: u16) -> bool {
    let place = hash(ASSIGN_KEY, [salt.as_bytes(), subject.as_bytes()]);
    // Compared in 1/2^64 and not in whole basis points, so that the share is exact.
    u128::from(place) * u128::from(WHOLE_BP) < u128::from(weight_bp) << 64
}

/// What is remembered of a subject: its hash under a key that lives as long as the router.
pub(crate) fn fingerprint(key: (u64, u64), subject: &str) -> u64 {
    hash(key, [b"", subject.as_bytes()])
}

/// An even, repeatable choice of `share_bp` of all numbers.
pub(crate) fn chosen(number: u64, share_bp: u16) -> bool {
    let place = hash(ASSIGN_KEY, [b"mirror", &number.to_le_bytes()]);
    u128::from(place) * u128::from(WHOLE_BP) < u128::from(share_bp) << 64
}

/// The subject that the cookie names; only what the router itself could have written counts.
pub(crate) fn from_cookie(headers: &HeaderMap) -> Option<&str> {
    let ours = |pair: &'_ str| -> bool {
        pair.len() == 32 && pair.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    cookies(headers, COOKIE_NAME).find(|value| ours(value))
}

/// The values of a cookie, as the client sends them.
pub(crate) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|value| value.split(';'))
        .filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A subject that nobody has had before: 128 random bits in hexadecimal.
pub(crate) fn fresh() -> String {
    let mut bits = [0u8; 16];
    getrandom::fill(&mut bits).expect("the operating system gives random bytes");
    hex::encode(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nobody_goes_back_on_a_ramp_and_the_share_is_what_was_said() {
        let subjects: Vec<String> = (0..100_000).map(|n| format!("user-{n}")).collect();
        let mut before = vec![false; subjects.len()];
        for weight in [0, 100, 500, 1000, 2500, 5000, 7500, 9900, 10_000] {
            let mut inside = 0u32;
            for (subject, was) in subjects.iter().zip(&mut before) {
                let is = gets_candidate("release-88", subject, weight);
                assert!(is || !*was, "{subject} flipped back at {weight}");
                *was = is;
                inside += u32::from(is);
            }
            let off = f64::from(inside) / 1000.0 - f64::from(weight) / 100.0;
            assert!(off.abs() <= 0.5, "{off} points off at {weight}");
        }
        assert!(before.iter().all(|is| *is));
    }

    #[test]
    fn another_release_picks_others() {
        let both = (0..100_000)
            .map(|n| n.to_string())
            .filter(|s| gets_candidate("R1", s, 1000) && gets_candidate("R2", s, 1000))
            .count();
        assert!((850..1150).contains(&both), "{both} of 100000 instead of about 1000");
    }

    #[test]
    fn the_assignment_is_the_same_in_every_version() {
        let place = hash(ASSIGN_KEY, [b"salt", b"subject"]);
        assert_eq!(place, 8_878_445_532_898_261_093, "changing this moves users in the middle of a release");
    }

    #[test]
    fn only_a_cookie_of_our_own_names_a_subject() {
        let named = |cookie: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, cookie.parse().unwrap());
            from_cookie(&headers).map(str::to_owned)
        };
        let ours = "0123456789abcdef0123456789abcdef";
        assert_eq!(named(&format!("a=b; andon-subject={ours}; c=d")).as_deref(), Some(ours));
        assert_eq!(named("andon-subject=admin"), None);
        assert_eq!(named(&format!("xandon-subject={ours}")), None);
        assert_eq!(fresh().len(), 32);
        assert_ne!(fresh(), fresh());
    }

    proptest! {
        #[test]
        fn more_weight_takes_nobody_away(salt in ".{0,20}", subject in ".{0,40}", a in 0..=10_000u16, b in 0..=10_000u16) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(!gets_candidate(&salt, &subject, low) || gets_candidate(&salt, &subject, high));
            prop_assert!(!gets_candidate(&salt, &subject, 0));
            prop_assert!(gets_candidate(&salt, &subject, 10_000));
        }
    }
}
