//! Preprocessing: how the samples of a file become a model's inputs, and how a model's outputs become target values.
//!
//! A checkpoint's manifest contains it ([`crate::manifest::Manifest::preprocessing`]), because a model is useless without the
//! preprocessing that it was trained with. Floats are written so that reading gives the same bits. Variants are externally tagged,
//! so that formats without field names can store them, too.

use serde::{Deserialize, Serialize};

use crate::job::TokenType;

/// Prefix of the value of `preprocessing` in a run's environment if the run uses its checkpoint's preprocessing. The differences from
/// the data's own preprocessing follow it.
pub const OF_CHECKPOINT: &str = "the checkpoint's; ";

/// Conversion of a run's samples to inputs, and meaning of the model's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Conversion of a file's contents to model inputs.
    pub inputs: Inputs,
    /// Meaning of the model's outputs.
    pub targets: Targets,
}

/// Conversion of a file's contents to model inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// Columns of a table, in the order of the model's inputs. Each is standardised in 64 bits, then rounded to 32.
    Columns(Vec<Standardised>),
    /// 8-bit pixels as 32-bit floats: `pixel / divisor - subtracted`.
    Pixels {
        /// Shape of a sample, without the batch dimension.
        shape: Vec<i64>,
        /// Divisor of each pixel.
        divisor: f64,
        /// Subtracted from the quotient.
        subtracted: f64,
    },
    /// 32-bit floats, unchanged.
    Values {
        /// Shape of a sample, without the batch dimension.
        shape: Vec<i64>,
    },
    /// Windows of token numbers, unchanged.
    Tokens {
        /// Element type of the file.
        dtype: TokenType,
        /// Number of tokens in an input.
        context: u32,
        /// Number of distinct tokens; all token numbers are below it.
        vocabulary: u32,
    },
}

/// Meaning of the model's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// Output `i` is the score of class `i`.
    Classes {
        /// The target column; `None` if the data is not a table.
        column: Option<String>,
        /// The highest class number in the data, plus 1.
        count: i64,
    },
    /// A table's target column, standardised: the value is `output * deviation + mean`.
    Standardised(Standardised),
    /// 32-bit floats, unchanged.
    Values {
        /// Number of values of a sample.
        count: i64,
    },
    /// The token that follows each input token.
    NextToken,
}

/// A column of a table, and its moments over the training rows: `(value - mean) / deviation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standardised {
    /// Name of the column in the table's header.
    pub column: String,
    /// Mean over the training rows.
    pub mean: f64,
    /// Population standard deviation over the training rows; 1 for a constant column.
    pub deviation: f64,
    /// Whether all training rows have the same value.
    pub constant: bool,
}

impl Standardised {
    /// Whether both convert every value to the same bits.
    pub fn same(&self, other: &Self) -> bool {
        let bits = |of: &Self| (of.mean.to_bits(), of.deviation.to_bits());
        self.column == other.column && bits(self) == bits(other)
    }
}

impl Preprocessing {
    /// All standardised columns: the input columns in their order, then the target.
    pub fn standardised(&self) -> impl Iterator<Item = &Standardised> {
        let inputs = match &self.inputs {
            Inputs::Columns(columns) => columns.as_slice(),
            Inputs::Pixels { .. } | Inputs::Values { .. } | Inputs::Tokens { .. } => &[],
        };
        let target = match &self.targets {
            Targets::Standardised(column) => Some(column),
            Targets::Classes { .. } | Targets::Values { .. } | Targets::NextToken => None,
        };
        inputs.iter().chain(target)
    }

    /// Whether `other` has the same kinds, shapes and columns in the same order. Means, deviations and class counts may differ.
    pub fn fits(&self, other: &Self) -> bool {
        let names = |columns: &[Standardised]| columns.iter().map(|column| column.column.clone()).collect::<Vec<_>>();
        let inputs = match (&self.inputs, &other.inputs) {
            (Inputs::Columns(own), Inputs::Columns(other)) => names(own) == names(other),
            (own, other) => own == other,
        };
        inputs
            && match (&self.targets, &other.targets) {
                (Targets::Classes { column: own, .. }, Targets::Classes { column: other, .. }) => own == other,
                (Targets::Standardised(own), Targets::Standardised(other)) => own.column == other.column,
                (own, other) => own == other,
            }
    }

    /// Differences between this preprocessing, which is a checkpoint's, and that of `data`: one line for each.
    pub fn differences(&self, data: &Self) -> Vec<String> {
        let line =
            |what: &str, own: String, other: String| format!("{what}: {own} in the checkpoint, {other} in the data");
        if !self.fits(data) {
            return vec![line("samples", self.summary(), data.summary())];
        }
        let moments = |of: &Standardised| format!("mean {} and deviation {}", of.mean, of.deviation);
        let columns = self.standardised().zip(data.standardised()).filter(|(own, other)| !own.same(other));
        let mut lines: Vec<String> = columns
            .map(|(own, other)| line(&format!("column `{}`", own.column), moments(own), moments(other)))
            .collect();
        if let (Targets::Classes { count: own, .. }, Targets::Classes { count: other, .. }) =
            (&self.targets, &data.targets)
            && own != other
        {
            lines.push(line("classes", own.to_string(), other.to_string()));
        }
        lines
    }

    /// Kinds, shapes and columns on one line, for messages.
    pub fn summary(&self) -> String {
        let names = |columns: &[Standardised]| {
            columns.iter().map(|column| column.column.as_str()).collect::<Vec<_>>().join(", ")
        };
        let inputs = match &self.inputs {
            Inputs::Columns(columns) => format!("columns {}", names(columns)),
            Inputs::Pixels { shape, .. } => format!("pixels of shape {shape:?}"),
            Inputs::Values { shape } => format!("values of shape {shape:?}"),
            Inputs::Tokens { dtype, context, vocabulary } => {
                let dtype = format!("{dtype:?}").to_lowercase();
                format!("windows of {context} {dtype} tokens below {vocabulary}")
            }
        };
        let targets = match &self.targets {
            Targets::Classes { column: Some(column), .. } => format!("classes of column {column}"),
            Targets::Classes { column: None, .. } => "classes".to_owned(),
            Targets::Standardised(column) => format!("values of column {}", column.column),
            Targets::Values { count } => format!("{count} values a sample"),
            Targets::NextToken => "the next token".to_owned(),
        };
        format!("{inputs}; targets: {targets}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical;

    fn column(name: &str, mean: f64, deviation: f64) -> Standardised {
        Standardised { column: name.to_owned(), mean, deviation, constant: deviation == 1.0 }
    }

    #[test]
    fn every_bit_of_a_moment_comes_back_and_the_text_is_frozen() {
        let moments = [0.1 + 0.2, f64::MIN_POSITIVE, 1e300 / 3.0, 5e-324, -0.0, 123_456_789.123_456_78];
        let columns = moments.map(|mean| column("x", mean, 1.0 / 3.0)).to_vec();
        let table =
            Preprocessing { inputs: Inputs::Columns(columns), targets: Targets::Standardised(column("y", 2.5, 1.0)) };
        let read: Preprocessing = canonical::decode("preprocessing", &canonical::encode(&table)).unwrap();
        assert!(read.standardised().zip(table.standardised()).all(|(read, was)| read.same(was)));
        assert_eq!(read.standardised().count(), 7);
        assert!(!column("x", 0.0, 1.0).same(&column("x", -0.0, 1.0)));

        let other = Preprocessing { targets: Targets::Standardised(column("y", 2.75, 1.0)), ..table.clone() };
        assert_eq!(table.differences(&table), [] as [String; 0]);
        assert_eq!(
            table.differences(&other),
            ["column `y`: mean 2.5 and deviation 1 in the checkpoint, mean 2.75 and deviation 1 in the data"]
        );
        let less = Preprocessing { inputs: Inputs::Columns(vec![column("x", 0.0, 1.0)]), ..table.clone() };
        assert!(table.fits(&other) && !table.fits(&less));
        assert_eq!(less.differences(&table).len(), 1);

        let text = |value: &Preprocessing| String::from_utf8(canonical::encode(value)).unwrap();
        let table = Preprocessing {
            inputs: Inputs::Columns(vec![column("a", 0.1, 2.0)]),
            targets: Targets::Classes { column: Some("y".to_owned()), count: 3 },
        };
        assert_eq!(
            text(&table),
            r#"{"inputs":{"columns":[{"column":"a","mean":0.1,"deviation":2.0,"constant":false}]},"targets":{"classes":{"column":"y","count":3}}}"#
        );
        let images = Preprocessing {
            inputs: Inputs::Pixels { shape: vec![1, 8, 8], divisor: 127.5, subtracted: 1.0 },
            targets: Targets::Values { count: 2 },
        };
        assert_eq!(
            text(&images),
            r#"{"inputs":{"pixels":{"shape":[1,8,8],"divisor":127.5,"subtracted":1.0}},"targets":{"values":{"count":2}}}"#
        );
        let tokens = Preprocessing {
            inputs: Inputs::Tokens { dtype: TokenType::U16, context: 8, vocabulary: 300 },
            targets: Targets::NextToken,
        };
        assert_eq!(
            text(&tokens),
            r#"{"inputs":{"tokens":{"dtype":"u16","context":8,"vocabulary":300}},"targets":"next_token"}"#
        );
    }
}
