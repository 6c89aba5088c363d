//! Opens the data sets of a job.

use crate::files::JobFiles;
use lockstep_common::job::{Data, JobSpec, Model};
use lockstep_common::preprocessing::Preprocessing;

use super::formats::csv::{self, Table};
use super::formats::idx::{self, Files};
use super::formats::npy;
use super::formats::safetensors::{self, Tensors};
use super::formats::tokens::{self, Windows};
use super::mapped::Source;
use super::{DataError, DataSets};

/// Opens the data of `job`, whose files are `files`, and checks all labels, tokens and table cells. Later batches can only fail for
/// wrong positions or lack of memory.
pub fn open_data(job: &JobSpec, files: &JobFiles) -> Result<DataSets, DataError> {
    open_data_as(job, files, None)
}

/// As [`open_data`], with the preprocessing of a checkpoint: a table's columns are standardised by the moments in `known`, not by
/// their own. A table with other columns is standardised by its own; [`Preprocessing::differences`] reports that.
pub fn open_data_as(job: &JobSpec, files: &JobFiles, known: Option<&Preprocessing>) -> Result<DataSets, DataError> {
    let at = |path: &str| Source::of(files, path);
    let outputs = match job.model {
        Model::Mlp { outputs, .. } | Model::Resnet { outputs, .. } => Some(outputs),
        Model::Gpt { .. } | Model::Torchscript { .. } | Model::Program => None,
    };
    match &job.data {
        Data::Tokens { path, dtype, validation, accept_as_is, .. } => {
            // Parsing a job rejects other models with this data.
            let Model::Gpt { context, vocabulary, .. } = job.model else {
                unreachable!("a sound job with tokens has a model of kind `gpt`");
            };
            let (file, validation, accept_as_is) = (&at(path), *validation, *accept_as_is);
            tokens::open(&Windows { file, dtype: *dtype, context, vocabulary, validation, accept_as_is })
        }
        Data::Idx { images, labels, validation_images, validation_labels, .. } => {
            let train = Files { images: &at(images), labels: &at(labels) };
            let others = validation_images.as_deref().zip(validation_labels.as_deref());
            let others = others.map(|(images, labels)| (at(images), at(labels)));
            let validation = others.as_ref().map(|(images, labels)| Files { images, labels });
            idx::open(train, validation, outputs)
        }
        Data::Csv { path, target, task, validation, .. } => {
            let (file, seed) = (&at(path), job.seed);
            csv::open(&Table { file, target, task: *task, validation: *validation, seed, outputs, known })
        }
        Data::Npy { inputs, targets, validation, .. } => {
            npy::open(&at(inputs), &at(targets), *validation, job.seed, outputs)
        }
        Data::Safetensors { path, inputs, targets, validation, .. } => {
            safetensors::open(&Tensors { file: &at(path), inputs, targets }, *validation, job.seed, outputs)
        }
        Data::Files { .. } => Err(DataError::Unread),
    }
}
