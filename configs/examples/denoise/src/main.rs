//! A denoising autoencoder on images of handwritten digits: it adds noise to an image, and the network learns to remove it. The program has
//! its own data format, loss and metric.
//!
//! `cargo run --release -- train job.toml` tries it out in one process; `coord submit job.toml --local 2` trains it on two.

use std::path::Path;
use std::process::ExitCode;

use lockstep_worker::program::{
    self, Batch, Context, DataSets, EvalSums, Failure, InMemory, Program, SampleShape, Setup,
};
use serde::Deserialize;
use tch::nn::{self, ModuleT};
use tch::{Kind, Tensor};

/// `[program.parameters]` of the job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Widths of the hidden layers, from the image to the bottleneck.
    widths: Vec<i64>,
    /// Standard deviation of the noise; pixels are from 0 to 1.
    noise: f64,
    /// Fraction of the images for evaluation.
    validation: f64,
}

struct Denoise {
    layers: nn::SequentialT,
    noise: f64,
}

impl Program for Denoise {
    /// The images are both inputs and targets.
    fn data(setup: &Setup) -> Result<DataSets, Failure> {
        let parameters: Parameters = setup.parameters()?;
        let images = read_images(&setup.file(setup.job().data_paths()[0]))?;
        Ok(InMemory::new(&images, &images)?.split(parameters.validation, setup.job().seed)?)
    }

    fn build(root: &nn::Path<'_>, shape: &SampleShape, setup: &Setup) -> Result<Self, Failure> {
        let Parameters { widths, noise, .. } = setup.parameters()?;
        let pixels = shape.input[0];
        // Down to the bottleneck and up again, with batch norm after each layer but the last.
        let down = [pixels].into_iter().chain(widths.iter().copied());
        let up = widths.iter().rev().skip(1).copied().chain([pixels]);
        let sizes: Vec<i64> = down.chain(up).collect();
        let mut layers = nn::seq_t();
        for (index, pair) in sizes.windows(2).enumerate() {
            let path = root / "layers" / index;
            layers = layers.add(nn::linear(&path / "linear", pair[0], pair[1], nn::LinearConfig::default()));
            if index + 2 < sizes.len() {
                layers = layers
                    .add(nn::batch_norm1d(&path / "norm", pair[1], nn::BatchNormConfig::default()))
                    .add_fn(|x| x.relu());
            }
        }
        Ok(Self { layers, noise })
    }

    /// The noise comes from torch's generator, which is seeded by step and rank, so it is the same on any number of processes.
    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure> {
        let noisy = &batch.inputs + self.noise * batch.inputs.f_randn_like()?;
        let clean = self.layers.forward_t(&noisy, context.training);
        Ok(clean.f_mse_loss(&batch.targets, tch::Reduction::Mean)?)
    }

    fn metrics() -> &'static [&'static str] {
        &["psnr"]
    }

    /// Returns the loss, and as a metric the peak signal-to-noise ratio in dB.
    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, Failure> {
        let (images, loss) = (batch.inputs.size()[0], self.loss(batch, context)?.f_double_value(&[])?);
        let psnr = -10.0 * loss.log10();
        Ok(EvalSums { metrics: vec![psnr * images as f64], ..EvalSums::of_mean(loss, images as u64) })
    }
}

/// Reads images `[N, 64]` from a table with a header: 64 pixels from 0 to 16, and a label that is not used.
fn read_images(path: &Path) -> Result<Tensor, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let mut pixels: Vec<f32> = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        for cell in line.split(',').take(64) {
            let value: f32 =
                cell.parse().map_err(|_| format!("`{}`, line {}: `{cell}`", path.display(), number + 1))?;
            pixels.push(value / 16.0);
        }
    }
    Ok(Tensor::f_from_slice(&pixels)?.f_view([-1, 64])?.f_to_kind(Kind::Float)?)
}

fn main() -> ExitCode {
    program::main::<Denoise>()
}
