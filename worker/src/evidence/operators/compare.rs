//! Computes the operators, and compares their bits with the golden bits.

use std::collections::BTreeMap;
use std::io::{self, Write};

use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_common::{Digest, Domain, numerics as variables};
use lockstep_tch_ext::Error;
use lockstep_tch_ext::memory::bytes_of;
use tch::Tensor;

use super::list;
use crate::evidence::numerics;

/// A line is a name and the first 16 digits of a digest; lines that begin with `#` name the machines.
const GOLDEN: &str = include_str!("../../../golden/operators-portable.txt");

/// Number of digits of a digest that are compared.
const DIGITS: usize = 16;

/// Why the comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    /// Some operators compute other bits.
    #[error(
        "{} of {all} operators compute other bits at level `portable` than the machines of the list: `{}`; a run whose model uses one \
         of them does not give the same bits on this machine and on those",
        .differ.len(), .differ.join("`, `")
    )]
    Differ {
        /// Names of the differing operators.
        differ: Vec<String>,
        /// Number of all operators.
        all: usize,
    },
    /// An operator of libtorch failed.
    #[error("operator `{name}` failed")]
    Failed {
        /// Name of the operator.
        name: &'static str,
        /// libtorch's error.
        #[source]
        source: Error,
    },
    /// The switches of level `portable` cannot be set.
    #[error("cannot set the switches of `numerics.level = \"portable\"`")]
    Level(#[from] Error),
    /// The output is closed or cannot be written.
    #[error("cannot write the list of operators")]
    Write(#[from] io::Error),
}

/// A job at level `portable`, from which environment and switches are taken.
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

/// The environment variables that [`compare`] needs at the start of the process: values, or `None` for variables that must not be set.
pub fn environment() -> BTreeMap<String, Option<String>> {
    let unset = variables::VARIABLES.iter().map(|name| ((*name).to_owned(), None));
    let set = variables::environment(&job()).into_iter().map(|(name, value)| (name, Some(value)));
    unset.chain(set).collect()
}

/// Computes all operators, writes a line for each to `out`, and compares their bits with the golden bits. Operators whose bits depend on
/// the processor's vendor are written, but not compared.
///
/// # Errors
/// `Differ` with the names of the differing operators.
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

/// The digest of the types, shapes and bytes of `tensors`.
fn of(tensors: &[Tensor]) -> Result<String, Error> {
    let mut hasher = Domain::Blob.hasher();
    for tensor in tensors {
        let tensor = tensor.detach().f_contiguous()?;
        hasher.update(format!("{:?} {:?}\n", tensor.kind(), tensor.size()).as_bytes()).update(&bytes_of(&tensor)?);
    }
    Ok(Digest::of(&hasher).to_hex()[..DIGITS].to_owned())
}
