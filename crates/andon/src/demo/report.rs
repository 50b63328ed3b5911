//! What the demo says: words for people, JSON for programs.

use crate::say::say;

use serde_json::{Value, json};

/// Where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// JSON on standard output, one object a scene; words only on standard error then.
    pub json: bool,
}

/// How a scene went.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Its number, from 1.
    pub number: usize,
    /// What it shows.
    pub name: &'static str,
    /// What it saw; an error says it in words.
    pub evidence: Result<Value, String>,
    /// How long it took.
    pub seconds: f64,
}

impl Scene {
    /// Whether it showed what it is for.
    pub fn ok(&self) -> bool {
        self.evidence.is_ok()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let evidence = match &self.evidence {
            Ok(evidence) => evidence.clone(),
            Err(saw) => json!({ "saw": saw }),
        };
        json!({
            "scene": self.number,
            "name": self.name,
            "ok": self.ok(),
            "seconds": rounded(self.seconds),
            "evidence": evidence,
        })
    }
}

/// To a thousandth.
pub fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl Report {
    /// A line for people.
    pub fn say(&self, line: &str) {
        if self.json {
            eprintln!("{line}");
        } else {
            say!("{line}");
        }
    }

    /// A scene begins.
    pub fn begin(&self, number: usize, name: &str) {
        self.say(&format!("\n○ {number} {name}"));
    }

    /// Something that happened within a scene.
    pub fn step(&self, words: &str) {
        self.say(&format!("    {words}"));
    }

    /// A scene is over.
    pub fn end(&self, scene: &Scene) {
        if self.json {
            say!("{}", scene.json());
        }
        match &scene.evidence {
            Ok(_) => self.say(&format!("● {} shown in {:.1} s", scene.number, scene.seconds)),
            Err(saw) => self.say(&format!("■ {} failed after {:.1} s: {saw}", scene.number, scene.seconds)),
        }
    }
}
