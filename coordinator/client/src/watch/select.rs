//! Filters of `coord ps`: by commit, by data, or by values in the job.

use std::collections::BTreeSet;
use std::str::FromStr;

use lockstep_core::view::RunView;
use serde_json::Value;

/// Conditions that a run must all fulfil.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// A commit or the beginning of one, a tag, or a branch.
    pub(crate) commit: Option<String>,
    /// The path of a data file, or the beginning of its digest.
    pub(crate) data: Option<String>,
    pub(crate) conditions: Vec<Condition>,
}

impl Selection {
    pub(crate) fn is_empty(&self) -> bool {
        self.commit.is_none() && self.data.is_none() && self.conditions.is_empty()
    }

    /// Whether the run matches. Notes in `known` which of the names and keys the run has.
    pub(crate) fn takes(&self, view: &RunView, known: &mut Known) -> bool {
        let commit = |wanted: &String| {
            view.code.as_ref().is_some_and(|code| {
                code.commit.starts_with(wanted.as_str())
                    || code.branch.as_ref() == Some(wanted)
                    || code.tags.contains(wanted)
            })
        };
        let data = |wanted: &String| {
            let wanted = wanted.trim_end_matches('/');
            let is = |path: &str| path == wanted || path.ends_with(&format!("/{wanted}"));
            view.data.iter().any(|file| is(file.path.trim_end_matches('/')) || file.digest.to_hex().starts_with(wanted))
        };
        let job: Value = serde_json::from_str(&view.job).unwrap_or_default();
        let (of_commit, of_data) = (self.commit.as_ref().is_none_or(commit), self.data.as_ref().is_none_or(data));
        known.commit |= of_commit;
        known.data |= of_data;
        known.keys.extend(self.conditions.iter().filter(|one| one.is_about(&job)).map(|one| one.key.clone()));
        of_commit && of_data && self.conditions.iter().all(|condition| condition.holds(&job))
    }

    /// The error about a name or key that no run has, which is probably mistyped.
    pub(crate) fn unknown(&self, known: &Known) -> Option<String> {
        if let Some(commit) = self.commit.as_ref().filter(|_| !known.commit) {
            return Some(format!("no run is of a commit, branch or tag `{commit}`"));
        }
        if let Some(data) = self.data.as_ref().filter(|_| !known.data) {
            return Some(format!("no run has data `{data}`, by path or by the beginning of its digest"));
        }
        let key = self.conditions.iter().find(|condition| !known.keys.contains(&condition.key));
        key.map(|condition| format!("no run's job has a key `{}`", condition.key))
    }
}

/// The names and keys of a selection that at least one run has.
#[derive(Debug, Default)]
pub(crate) struct Known {
    commit: bool,
    data: bool,
    keys: BTreeSet<String>,
}

/// A comparison with a key of the job, as `optimizer.lr>0.001`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    key: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    Above,
    Below,
}

impl Operator {
    fn holds<N: PartialOrd>(self, own: &N, other: &N) -> bool {
        match self {
            Self::Equal => own == other,
            Self::NotEqual => own != other,
            Self::AtLeast => own >= other,
            Self::AtMost => own <= other,
            Self::Above => own > other,
            Self::Below => own < other,
        }
    }
}

/// Longer signs first, because `>=` begins with `>`.
const OPERATORS: [(&str, Operator); 6] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("!=", Operator::NotEqual),
    ("=", Operator::Equal),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a key, one of = != > >= < <=, and a value, for example `optimizer.lr>0.001`; found `{text}`"
            )
        };
        let at = text.find(['>', '<', '=', '!']).ok_or_else(wrong)?;
        let (key, rest) = text.split_at(at);
        let (sign, operator) = OPERATORS.into_iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(wrong)?;
        let (key, value) = (key.trim(), rest[sign.len()..].trim().trim_matches(['"', '\'']));
        if key.is_empty() || value.is_empty() {
            return Err(wrong());
        }
        Ok(Self { key: key.to_owned(), operator, value: value.to_owned() })
    }
}

impl Condition {
    /// Whether the condition is true for one of the keys with this name, or with this name as their last part.
    fn holds(&self, job: &Value) -> bool {
        self.meant(job).into_iter().any(|value| self.compares(value))
    }

    /// Whether the job has a key with this name, or with this name as its last part.
    fn is_about(&self, job: &Value) -> bool {
        !self.meant(job).is_empty()
    }

    /// The values of keys with this name, or with this name as their last part.
    fn meant<'a>(&self, job: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        leaves("", job, &mut found);
        let meant = |key: &str| key == self.key || key.strip_suffix(&self.key).is_some_and(|rest| rest.ends_with('.'));
        found.into_iter().filter(|(key, _)| meant(key)).map(|(_, value)| value).collect()
    }

    fn compares(&self, value: &Value) -> bool {
        // Integers are compared as integers: a 64-bit seed is not exact as a float.
        let whole = value.as_u64().map(i128::from).or(value.as_i64().map(i128::from));
        if let (Some(own), Ok(other)) = (whole, self.value.parse::<i128>()) {
            return self.operator.holds(&own, &other);
        }
        if let (Some(own), Ok(other)) = (value.as_f64(), self.value.parse::<f64>()) {
            return self.operator.holds(&own, &other);
        }
        let own = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self.operator {
            Operator::Equal => own == self.value,
            Operator::NotEqual => own != self.value,
            // Texts have no order.
            _ => false,
        }
    }
}

/// Adds the values of a job with their dotted keys.
fn leaves<'a>(prefix: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&key, value, found);
            }
        }
        value => found.push((prefix.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_numbers_as_numbers_and_texts_as_texts() {
        let job = serde_json::json!({
            "name": "digits", "seed": 9_007_199_254_740_993_u64, "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9}, "batch": {"size": 64},
            "model": {"hidden": [128, 64]},
        });
        let holds = |text: &str| text.parse::<Condition>().unwrap().holds(&job);
        for yes in [
            "lr>0.001",
            "optimizer.lr>=0.05",
            "lr<=0.05",
            "lr<5e-1",
            "size=64",
            "batch.size=64.0",
            "size!=65",
            "seed=9007199254740993",
            "seed>9007199254740992",
            "seed<9007199254740994",
            "kind=sgd",
            "name = digits",
            "kind='sgd'",
            "kind!=adam",
            "hidden=[128,64]",
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            "lr>0.05",
            "lr<0.05",
            "r=0.05",
            "size=65",
            "kind=adam",
            "kind>a",
            "nothing=1",
            "nothing!=1",
            "r>0",
            "seed=9007199254740992",
        ] {
            assert!(!holds(no), "{no}");
        }
        for bad in ["", "lr", "lr>", ">1", "lr!1"] {
            assert!(bad.parse::<Condition>().unwrap_err().contains("optimizer.lr>0.001"), "{bad}");
        }
    }
}
