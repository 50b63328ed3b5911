//! Versions as flagd's `sem_ver` compares them: partial ones and a leading `v` are allowed, build parts are ignored. Nothing else.

use std::cmp::Ordering;

/// A version, without its build part.
#[derive(Debug, PartialEq)]
pub struct Version<'a> {
    numbers: [u64; 3],
    pre: &'a str,
}

impl<'a> Version<'a> {
    /// Reads `1`, `v1.2`, `1.2.3-rc.1+build`. None for anything else.
    pub fn read(text: &'a str) -> Option<Version<'a>> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut numbers = [0; 3];
        let mut count = 0;
        for part in core.split('.') {
            *numbers.get_mut(count)? = number(part)?;
            count += 1;
        }
        let words = |text: &str| {
            text.split('.')
                .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        };
        let dressed = pre.is_some() || build.is_some();
        let fits = pre.is_none_or(words) && build.is_none_or(words) && (count == 3 || !dressed);
        fits.then_some(Version { numbers, pre: pre.unwrap_or_default() })
    }

    fn cmp(&self, other: &Version<'_>) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre, other.pre) {
            (a, b) if a == b => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (a, b) => by_words(a, b),
        })
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Pre-release words: numbers by value and before letters, a longer list after its own beginning.
fn by_words(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Whether `left OPERATOR right` holds; none when either is no version or the operator is unknown.
pub fn compare(left: &str, operator: &str, right: &str) -> Option<bool> {
    let (left, right) = (Version::read(left)?, Version::read(right)?);
    let order = left.cmp(&right);
    Some(match operator {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "^" => left.numbers[0] == right.numbers[0],
        "~" => left.numbers[..2] == right.numbers[..2],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_flagd_compares_them() {
        let yes = [
            ("2.0.0", "=", "v2"),
            ("2.1.0", ">", "2.0.0"),
            ("2.0.0-alpha", "<", "2.0.0"),
            ("3.1.0", "^", "3.0.0"),
            ("3.0.1", "~", "3.0"),
            ("1.0.0+other", "=", "1.0.0+build"),
            ("1.5.0", "^", "1"),
            ("V1.0.0", "!=", "1.0.1"),
            ("1.0.0-rc.2", "<", "1.0.0-rc.10"),
            ("1.0.0-1", "<", "1.0.0-a"),
            ("1.0.0-a", "<=", "1.0.0-a.1"),
            ("1.0.0", ">=", "1.0.0"),
        ];
        for (left, operator, right) in yes {
            assert_eq!(compare(left, operator, right), Some(true), "{left} {operator} {right}");
        }
        assert_eq!(compare("4.0.0", "^", "3.0.0"), Some(false));
    }

    #[test]
    fn what_is_no_version_gives_nothing() {
        for bad in ["2.0.0.0", "", "a", "1.", "01.0.0", "1.0-rc", "1.0.0-", "-1", "1..2"] {
            assert_eq!(compare(bad, "=", "1.0.0"), None, "{bad}");
        }
        assert_eq!(compare("1", "===", "1"), None);
    }
}
