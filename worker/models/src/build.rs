//! Builds the model of a job.

use std::path::Path;

use lockstep_common::job::{JobSpec, LossKind, Model as ModelSpec, Output};
use lockstep_common::seed::{Stream, derive};
use lockstep_data::files::JobFiles;
use lockstep_data::{InputKind, SampleShape, Targets};
use tch::Device;

use super::networks::{Gpt, Mlp, Resnet, Sizes};
use super::parts::Builder;
use super::precision::Precision;
use super::supervised::{Network, Objective, Supervised};
use super::{Model, ModelError, script};

/// Builds the model of `job` for samples of `shape`, on `device`. Initial weights are drawn from the root seed: every process gets the same
/// bits. A TorchScript module has the weights of its file, which is one of `files`.
///
/// Seeds torch's generators.
pub fn build_model(
    job: &JobSpec,
    shape: &SampleShape,
    files: &JobFiles,
    device: Device,
) -> Result<Box<dyn Model>, ModelError> {
    let objective = Objective { loss: job.loss(), precision: Precision::new(job.numerics.autocast, device) };
    let mut builder = Builder::new(derive(job.seed, Stream::Init, 0, 0), device);
    match &job.model {
        ModelSpec::Mlp { hidden, outputs, activation, dropout } => {
            check_targets(objective.loss, i64::from(*outputs), shape)?;
            let inputs = shape.input.iter().product();
            let widths: Vec<i64> =
                [inputs].into_iter().chain(hidden.iter().chain([outputs]).map(|&width| width.into())).collect();
            let network = Mlp::new(&mut builder, &widths, *activation, *dropout)?;
            Ok(finish(network, builder, objective, "mlp"))
        }
        ModelSpec::Resnet { blocks, width, outputs } => {
            check_targets(objective.loss, i64::from(*outputs), shape)?;
            let channels = match *shape.input {
                [_, _] => 1,
                [channels @ 1..=3, _, _] => channels,
                _ => {
                    return Err(ModelError::Inputs {
                        model: "resnet",
                        expected: "images of H × W, or C × H × W with 1 to 3 channels".into(),
                        found: format!("samples of shape {:?}", shape.input),
                    });
                }
            };
            let network = Resnet::new(&mut builder, channels, *blocks, i64::from(*width), i64::from(*outputs))?;
            Ok(finish(network, builder, objective, &format!("resnet of depth {}", 6 * blocks + 2)))
        }
        &ModelSpec::Gpt { layers, heads, width, context, vocabulary, dropout } => {
            if shape.kind != InputKind::Tokens || shape.input != [i64::from(context)] {
                return Err(ModelError::Inputs {
                    model: "gpt",
                    expected: format!("{context} tokens"),
                    found: format!("samples of shape {:?}", shape.input),
                });
            }
            check_targets(objective.loss, i64::from(vocabulary), shape)?;
            let network = Gpt::new(
                &mut builder,
                Sizes {
                    layers,
                    heads: heads.into(),
                    width: width.into(),
                    context: context.into(),
                    vocabulary: vocabulary.into(),
                    dropout,
                },
            )?;
            Ok(finish(network, builder, objective, "gpt"))
        }
        ModelSpec::Program => Err(ModelError::NoModel),
        ModelSpec::Torchscript { path, output } => {
            let at = files.at(path);
            if *output == Output::Logits {
                check_logits(objective.loss, shape, &at)?;
            }
            script::load(&at, files.opened(&at), *output, objective, device)
        }
    }
}

fn finish<N: Network + 'static>(network: N, builder: Builder, objective: Objective, title: &str) -> Box<dyn Model> {
    Box::new(Supervised { network, parts: builder.finish(), objective, title: title.to_owned() })
}

/// As [`check_targets`], for a module, whose number of outputs is unknown before it runs.
fn check_logits(loss: LossKind, shape: &SampleShape, path: &Path) -> Result<(), ModelError> {
    let needs = match (loss, shape.targets) {
        (LossKind::CrossEntropy, Targets::Values { count }) => {
            format!("classes, but the data has {count} real values per sample: set `batch.loss = \"mse\"`")
        }
        (LossKind::Mse, Targets::Classes { .. } | Targets::Tokens) => {
            "real values, but the data has classes: set `batch.loss = \"cross_entropy\"`".to_owned()
        }
        _ => return Ok(()),
    };
    let detail = format!("`batch.loss` compares the logits of the module with {needs}");
    Err(ModelError::Script { path: path.to_owned(), detail })
}

/// Rejects targets that do not fit the loss or the number of outputs.
fn check_targets(loss: LossKind, outputs: i64, shape: &SampleShape) -> Result<(), ModelError> {
    let (loss, expected, found) = match (loss, shape.targets) {
        (LossKind::CrossEntropy, Targets::Tokens) => return Ok(()),
        (LossKind::CrossEntropy, Targets::Classes { count }) if count <= outputs => return Ok(()),
        (LossKind::Mse, Targets::Values { count }) if count == outputs => return Ok(()),
        (LossKind::CrossEntropy, found @ Targets::Values { .. }) => {
            ("cross_entropy", "classes below the number of outputs (real values take `batch.loss = \"mse\"`)", found)
        }
        (LossKind::CrossEntropy, found) => ("cross_entropy", "classes below the number of outputs", found),
        (LossKind::Mse, found) => ("mse", "as many real values per sample", found),
    };
    let found = match found {
        Targets::Tokens => "tokens".to_owned(),
        Targets::Classes { count } => format!("{count} classes"),
        Targets::Values { count } => format!("{count} real values per sample"),
    };
    Err(ModelError::Targets { loss, outputs, expected, found })
}
