//! Shares as people write them: `0.5%`, `20`. Whole numbers inside, so that they compare, hash and replay
//! exactly.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A percentage in steps of 0.0001 %. Written `0.5%`, or as a bare number that means percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent(u32);

/// A share of users in basis points, 0 to 10,000. Written in percent: `5`, `0.5`, `5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Weight(u16);

/// Why a text is not a percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPercent {
    /// Not a number, too fine, or too large.
    #[error("{0:?} is not a percentage: write it like 0.5% or 20%, with at most four decimals, up to 1000%")]
    Percent(String),
    /// Not a share.
    #[error(
        "{0:?} is not a share of users: write percent from 0 to 100, with at most two decimals, such as 5 or 0.5"
    )]
    Weight(String),
}

impl Percent {
    /// From millionths: 5,000 is 0.5 %.
    pub const fn from_ppm(ppm: u32) -> Percent {
        Percent(ppm)
    }

    /// In millionths.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// As a fraction: 0.5 % is 0.005.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl Weight {
    /// Nobody.
    pub const NONE: Weight = Weight(0);
    /// A quarter of the users.
    pub const QUARTER: Weight = Weight(2_500);
    /// Everyone.
    pub const ALL: Weight = Weight(10_000);

    /// From basis points; none above 10,000.
    pub fn from_basis_points(basis_points: u16) -> Option<Weight> {
        (basis_points <= 10_000).then_some(Weight(basis_points))
    }

    /// In basis points, at most 10,000.
    pub const fn basis_points(self) -> u16 {
        self.0
    }
}

/// Reads `12.34` exactly, as a whole number of 10^-decimals. None for anything that is not such a number.
fn scaled(text: &str, decimals: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let part = part.trim_end_matches('0');
    if whole.is_empty() || whole.len() > 6 || part.len() > decimals || !digits(whole) || !digits(part) {
        return None;
    }
    format!("{whole}{part:0<decimals$}").parse().ok()
}

impl FromStr for Percent {
    type Err = NotAPercent;

    fn from_str(text: &str) -> Result<Percent, NotAPercent> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let ppm = scaled(number, 4).and_then(|ppm| u32::try_from(ppm).ok()).filter(|ppm| *ppm <= 10_000_000);
        ppm.map(Percent).ok_or_else(|| NotAPercent::Percent(text.chars().take(40).collect()))
    }
}

impl FromStr for Weight {
    type Err = NotAPercent;

    fn from_str(text: &str) -> Result<Weight, NotAPercent> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let share =
            scaled(number, 2).and_then(|bp| u16::try_from(bp).ok()).and_then(Weight::from_basis_points);
        share.ok_or_else(|| NotAPercent::Weight(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

/// Reads a text or a number with the type's own [`FromStr`]: a number's shortest text is what was written.
struct Written<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = NotAPercent>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a percentage such as 5 or 0.5%")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
        deserializer.deserialize_any(Written(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
        deserializer.deserialize_any(Written(std::marker::PhantomData))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "number", "minimum": 0, "maximum": 1000 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})?%?$" }
            ],
            "description": "A percentage: 0.5% or 20"
        })
    }
}

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "number", "minimum": 0, "maximum": 100 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,2})?%?$" }
            ],
            "description": "A share of users in percent: 5, 0.5 or 5%"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_exactly_as_written() {
        for (text, ppm) in
            [("0.5%", 5_000), ("0.5", 5_000), ("20 %", 200_000), ("0.0001%", 1), ("1000", 10_000_000)]
        {
            assert_eq!(text.parse(), Ok(Percent(ppm)));
        }
        assert_eq!(serde_json::from_str::<Percent>("0.1").unwrap(), Percent(1_000));
        assert_eq!(serde_json::from_str::<Weight>("0.29").unwrap(), Weight(29));
        for bad in ["", "%", "-1", "1e3", "0.00001", "1001", "x", "1.2.3", "٣"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad:?} was accepted");
        }
        for bad in ["100.01", "101", "0.001", "-5"] {
            assert!(bad.parse::<Weight>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn every_weight_survives_being_written_and_read() {
        for basis_points in 0..=10_000 {
            let text = serde_json::to_string(&Weight(basis_points)).unwrap();
            assert_eq!(serde_json::from_str::<Weight>(&text).unwrap(), Weight(basis_points), "{text}");
        }
    }
}
