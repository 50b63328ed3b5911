//! The shop that the demo delivers: its files, and what its developers change in them. Knows no server.

use std::path::Path;

/// The files of the first commit.
pub const FILES: [(&str, &str); 11] = [
    ("andon.yaml", include_str!("shop/andon.yaml")),
    ("README.md", include_str!("shop/README.md")),
    (".gitignore", "reports/\ndist/\n__pycache__/\n"),
    ("shop/__init__.py", ""),
    ("shop/prices.py", include_str!("shop/prices.py")),
    ("shop/server.py", include_str!("shop/server.py")),
    ("tests/__init__.py", ""),
    ("tests/run.py", include_str!("shop/run.py")),
    ("tests/smoke.py", include_str!("shop/smoke.py")),
    ("tests/test_prices.py", include_str!("shop/test_prices.py")),
    ("tests/test_server.py", include_str!("shop/test_server.py")),
];

/// Text that takes the place of another one in a file; an empty `find` appends.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// The file.
    pub path: &'static str,
    /// What stands there once.
    pub find: &'static str,
    /// What shall stand there.
    pub put: &'static str,
}

/// What one developer pushes.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// First line of the message.
    pub title: &'static str,
    /// What it changes.
    pub edits: &'static [Edit],
}

/// Better words on the front page.
pub const GREETING: Change = Change {
    title: "Greet customers by what is new",
    edits: &[Edit { path: "shop/server.py", find: "Welcome to the shop.", put: "Welcome: posters are new." }],
};

/// A mistake that a test finds.
pub const WRONG_DISCOUNT: Change = Change {
    title: "Give the discount from the first piece on",
    edits: &[Edit { path: "shop/prices.py", find: "MANY = 10\n", put: "MANY = 1\n" }],
};

/// Code that no test runs.
pub const UNTESTED: Change = Change {
    title: "Wrap gifts",
    edits: &[Edit {
        path: "shop/prices.py",
        find: "",
        put: "\n\ndef wrapping(count, ribbon):\n    \"\"\"What wrapping so many pieces costs.\"\"\"\n    paper = 1.50 * count\n    if ribbon:\n        paper += 0.50 * count\n    return round(paper, 2)\n",
    }],
};

/// Green in every test, and wrong for every customer from a region that its author forgot.
pub const VOUCHERS: Change = Change {
    title: "Vouchers by region",
    edits: &[
        Edit {
            path: "shop/prices.py",
            find: "MANY = 10\n",
            put: "VOUCHERS = {\"de\": 0.50, \"at\": 0.50, \"nl\": 0.40, \"fr\": 0.40, \"it\": 0.30, \"es\": 0.30, \"pl\": 0.20}\nMANY = 10\n",
        },
        Edit {
            path: "shop/prices.py",
            find: "\"total\": round(goods + sending, 2)}",
            put: "\"total\": round(goods + sending - VOUCHERS[region], 2)}",
        },
        Edit { path: "tests/test_prices.py", find: "28.90", put: "28.40" },
        Edit { path: "tests/test_server.py", find: "19.15", put: "18.75" },
    ],
};

/// What mends it, with the test that was missing.
pub const FORGOTTEN_REGION: Change = Change {
    title: "Vouchers for every region",
    edits: &[
        Edit { path: "shop/prices.py", find: "\"pl\": 0.20}", put: "\"pl\": 0.20, \"gb\": 0.20}" },
        Edit {
            path: "tests/test_prices.py",
            find: "",
            put: "\n    def test_every_region_that_is_sent_to_has_a_voucher(self):\n        self.assertEqual(set(prices.VOUCHERS), set(prices.SHIPPING))\n",
        },
    ],
};

/// Nothing to do with any of it; and production's users are moved in one switch from here on.
pub const SWITCH: Change = Change {
    title: "Announce the sale, released by blue-green",
    edits: &[
        Edit { path: "shop/server.py", find: "Welcome: posters are new.", put: "Welcome: the sale begins." },
        Edit {
            path: "andon.yaml",
            find: "production: { release: careful,",
            put: "production: { release: swift,",
        },
    ],
};

/// Another way to compute prices, tried on copies of production's requests.
pub const NEW_PRICES: Change = Change {
    title: "Compute prices in whole cents, dark at first",
    edits: &[
        Edit {
            path: "shop/prices.py",
            find: "    total = ITEMS[item] * count\n",
            put: "    total = int(ITEMS[item]) * count if count > 2 else ITEMS[item] * count\n",
        },
        Edit {
            path: "tests/test_server.py",
            find: "count=3\")[1][\"price\"], 8.40",
            put: "count=3\")[1][\"price\"], 6.00",
        },
        Edit { path: "tests/test_prices.py", find: "85.50", put: "81.00" },
        Edit {
            path: "andon.yaml",
            find: "production: { release: swift,",
            put: "production: { release: shadow,",
        },
    ],
};

/// Back to the old way, for good.
pub const OLD_PRICES: Change = Change {
    title: "Compute prices as before",
    edits: &[
        Edit {
            path: "shop/prices.py",
            find: "    total = int(ITEMS[item]) * count if count > 2 else ITEMS[item] * count\n",
            put: "    total = ITEMS[item] * count  # exact: see the dark launch\n",
        },
        Edit {
            path: "tests/test_server.py",
            find: "count=3\")[1][\"price\"], 6.00",
            put: "count=3\")[1][\"price\"], 8.40",
        },
        Edit { path: "tests/test_prices.py", find: "81.00", put: "85.50" },
        Edit {
            path: "andon.yaml",
            find: "production: { release: shadow,",
            put: "production: { release: careful,",
        },
    ],
};

/// Writes the first commit's files.
pub fn write(repository: &Path) -> Result<(), String> {
    for (path, text) in FILES {
        let file = repository.join(path);
        let made = std::fs::create_dir_all(file.parent().unwrap_or(repository))
            .and_then(|()| std::fs::write(&file, text));
        made.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Carries out a change in a working copy. What is to be replaced has to stand there exactly once.
pub fn apply(repository: &Path, change: &Change) -> Result<(), String> {
    for Edit { path, find, put } in change.edits {
        let file = repository.join(path);
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let text = match text.matches(find).count() {
            _ if find.is_empty() => text + put,
            1 => text.replace(find, put),
            n => return Err(format!("{path} holds {find:?} {n} times: an earlier change did not land")),
        };
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_fits_on_those_before_it() {
        let dir = std::env::temp_dir().join(format!("andon-shop-{}", std::process::id()));
        write(&dir).unwrap();
        for change in [GREETING, VOUCHERS, FORGOTTEN_REGION, SWITCH, NEW_PRICES, OLD_PRICES] {
            apply(&dir, &change).unwrap();
            assert!(andon_pipeline_reads(&dir), "{}", change.title);
        }
        for change in [WRONG_DISCOUNT, UNTESTED] {
            apply(&dir, &change).unwrap();
        }
        assert!(apply(&dir, &GREETING).unwrap_err().contains("did not land"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// The strategies that production is given in turn are all declared.
    fn andon_pipeline_reads(dir: &Path) -> bool {
        let text = std::fs::read_to_string(dir.join("andon.yaml")).unwrap();
        let named =
            text.split("production: { release: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
        text.contains(&format!("\n  {named}:"))
    }
}
