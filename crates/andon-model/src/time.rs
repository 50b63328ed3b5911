//! Points in time and lengths of time, as the journal writes them. Reads no clock: `now` is always given.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

/// A length of time in milliseconds, never negative. Written by people as `500ms`, `30s`, `2m`, `1h30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl Time {
    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Time) -> Span {
        Span(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map(|t| format!("{t:.3}")).unwrap_or_default()
    }

    /// Hours and minutes in UTC, for timelines.
    pub fn hh_mm(self) -> String {
        self.rfc3339().get(11..16).unwrap_or("--:--").to_owned()
    }

    /// Hours, minutes and seconds in UTC, for timelines of fast things.
    pub fn hh_mm_ss(self) -> String {
        self.rfc3339().get(11..19).unwrap_or("--:--:--").to_owned()
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl Sub<Span> for Time {
    type Output = Time;
    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl Span {
    /// Whole seconds as a span.
    pub const fn secs(secs: u64) -> Span {
        Span(secs * 1000)
    }

    /// For timers.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// Seconds with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// The two largest units, the way people say it: `4 min 10 s`, `38 s`, `1.2 s`, `2 h 10 min`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0 / 1000;
        let (d, h, m, s) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
        let two = |f: &mut fmt::Formatter<'_>, a, ua, b, ub| match b {
            0 => write!(f, "{a} {ua}"),
            b => write!(f, "{a} {ua} {b} {ub}"),
        };
        match (d, h, m) {
            (0, 0, 0) if self.0 < 1000 => write!(f, "{} ms", self.0),
            (0, 0, 0) if self.0 < 10_000 => write!(f, "{:.1} s", self.0 as f64 / 1000.0),
            (0, 0, 0) => write!(f, "{s} s"),
            (0, 0, m) => two(f, m, "min", s, "s"),
            (0, h, m) => two(f, h, "h", m, "min"),
            (d, h, _) => two(f, d, "d", h, "h"),
        }
    }
}

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write it like 500ms, 30s, 2m, 1h30m or 7d")]
pub struct NotASpan(pub String);

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let wrong = || NotASpan(text.chars().take(40).collect());
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = 0u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let factor = match rest[..unit_end].trim() {
                "ms" => 1,
                "s" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            rest = &rest[unit_end..];
            total = number.checked_mul(factor).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        }
        Ok(Span(total))
    }
}

/// The form that [`FromStr`] reads, without loss.
impl Span {
    /// Compact text such as `2m` or `1500ms`, which parses back to the same span.
    pub fn compact(self) -> String {
        match self.0 {
            0 => "0s".into(),
            n if n % 86_400_000 == 0 => format!("{}d", n / 86_400_000),
            n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
            n if n % 60_000 == 0 => format!("{}m", n / 60_000),
            n if n % 1000 == 0 => format!("{}s", n / 1000),
            n => format!("{n}ms"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.compact())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|min|h|d))+$",
            "description": "A length of time: 500ms, 30s, 2m, 1h30m, 7d"
        })
    }
}

/// A day in UTC, written `2027-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(jiff::civil::Date);

impl Day {
    /// The first moment that is no longer this day.
    pub fn end(self) -> Time {
        let next = self.0.tomorrow().and_then(|next| next.to_zoned(jiff::tz::TimeZone::UTC));
        Time(next.map(|next| next.timestamp().as_millisecond()).unwrap_or(i64::MAX))
    }
}

impl JsonSchema for Day {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Day".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date", "description": "A day in UTC: 2027-01-31" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_what_people_write_and_refuse_the_rest() {
        assert_eq!("1h30m".parse(), Ok(Span(5_400_000)));
        assert_eq!("500ms".parse(), Ok(Span(500)));
        for bad in ["", "5", "m", "5x", "-1s", "99999999999999999999d", "1.5s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_span_survives_being_written_and_read() {
        for ms in [0, 1, 999, 1000, 61_000, 3_600_000, 86_400_000, 90_061_001] {
            assert_eq!(Span(ms).compact().parse(), Ok(Span(ms)));
        }
    }

    #[test]
    fn a_day_ends_where_the_next_one_begins() {
        let day: Day = serde_json::from_str("\"1970-01-02\"").unwrap();
        assert_eq!(day.end(), Time(2 * 86_400_000));
        assert!(serde_json::from_str::<Day>("\"1970-13-02\"").is_err());
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(Time(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time(3_723_000).hh_mm_ss(), "01:02:03");
    }
}
