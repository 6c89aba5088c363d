//! Computes the operators, and compares their bits with the golden ones.

use std::collections::BTreeMap;
use std::io::{self, Write};

use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_common::{Digest, Domain, numerics as variables};
use lockstep_tch_ext::Error;
use lockstep_tch_ext::memory::bytes_of;
use tch::Tensor;

use super::list;
use crate::evidence::numerics;

/// A name and the first 16 digits of a digest on each line; lines that begin with `#` say what was compared.
const GOLDEN: &str = include_str!("../../../golden/operators-portable.txt");

/// Digits of a digest that are compared.
const DIGITS: usize = 16;

/// Why the operators of this machine are not the golden ones.
#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    /// Some compute other bits.
    #[error(
        "{} of {all} operators compute other bits at level `portable` than the machines in the list: `{}`; a run at \
         `portable` repeats on this machine, and not on those, if its model uses one of them",
        .differ.len(), .differ.join("`, `")
    )]
    Differ {
        /// Their names.
        differ: Vec<String>,
        /// How many there are.
        all: usize,
    },
    /// libtorch failed.
    #[error("operator `{name}` failed")]
    Failed {
        /// The operator.
        name: &'static str,
        /// Why.
        #[source]
        source: Error,
    },
    /// The switches cannot be set.
    #[error("level `portable` cannot be set")]
    Level(#[from] Error),
    /// Standard output is closed.
    #[error("cannot write the list")]
    Write(#[from] io::Error),
}

/// A job at level `portable`, as its environment and its switches are taken from one.
fn job() -> JobSpec {
    const TEXT: &str = r#"
        name = "operators"
        steps = 1
        batch = { size = 1 }
        model = { kind = "mlp", hidden = [1], outputs = 1 }
        data = { kind = "csv", path = "none.csv", target = "none" }
        optimizer = { kind = "sgd", lr = 0.1 }
        numerics = { level = "portable" }
    "#;
    parse_toml(TEXT, &[]).expect("the text is a job")
}

/// The environment that [`compare`] must be started with: each variable's value, or that it must not be set.
pub fn environment() -> BTreeMap<String, Option<String>> {
    let unset = variables::VARIABLES.iter().map(|name| ((*name).to_owned(), None));
    let set = variables::environment(&job()).into_iter().map(|(name, value)| (name, Some(value)));
    unset.chain(set).collect()
}

/// Computes all operators, writes a line for each to `out`, and compares them with the golden ones. Those that differ by processor
/// are written only.
///
/// # Errors
/// `Differ` with the names.
pub fn compare(out: &mut dyn Write) -> Result<(), OperatorsError> {
    numerics::apply(&job())?;
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    let golden: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(' ')).collect();
    let (mut differ, mut all) = (Vec::new(), 0);
    for (name, digest) in digests()? {
        let word = match golden.get(name) {
            _ if list::ROUGH.contains(&name) => "by processor",
            Some(expected) if **expected == digest => "same",
            Some(_) => "differs",
            None => "new",
        };
        if !matches!(word, "same" | "by processor") {
            differ.push(name.to_owned());
        }
        all += 1;
        writeln!(out, "{name} {digest} {word}")?;
    }
    if differ.is_empty() { Ok(()) } else { Err(OperatorsError::Differ { differ, all }) }
}

fn digests() -> Result<Vec<(&'static str, String)>, OperatorsError> {
    let digest = |name, computed: Result<Vec<Tensor>, Error>| -> Result<(&'static str, String), OperatorsError> {
        let computed = computed.and_then(|tensors| of(&tensors));
        Ok((name, computed.map_err(|source| OperatorsError::Failed { name, source })?))
    };
    let operators = list::operators().into_iter().map(|operator| digest(operator.name, operator.compute()));
    operators.chain(list::optimizers().into_iter().map(|(name, computed)| digest(name, computed))).collect()
}

/// The digest of tensors' bytes.
fn of(tensors: &[Tensor]) -> Result<String, Error> {
    let mut hasher = Domain::Blob.hasher();
    for tensor in tensors {
        let tensor = tensor.detach().f_contiguous()?;
        hasher.update(format!("{:?} {:?}\n", tensor.kind(), tensor.size()).as_bytes()).update(&bytes_of(&tensor)?);
    }
    Ok(Digest::of(&hasher).to_hex()[..DIGITS].to_owned())
}
