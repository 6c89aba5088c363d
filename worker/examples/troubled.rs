//! A program with a deliberate fault, for tests of alarms. `program.parameters.trouble` names the fault.
//!
//! It trains a small perceptron on the digits. Most of a step is sleep, so that several runs on one machine do not slow each other down.

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread::sleep;
use std::time::Duration;

use lockstep_worker::program::{
    self, Batch, Context, DataError, DataSets, Dataset, Failure, InMemory, Program, SampleShape, Setup,
};
use serde::Deserialize;
use tch::nn::{self, Module};
use tch::{Device, Kind, Reduction, Tensor};

/// Environment variable: if set, this process takes twice as long for a step.
const SLOW: &str = "TROUBLED_SLOW";
/// Environment variable with the path of a file: a process that does not find the file creates it, and hangs for ever.
const HANG: &str = "TROUBLED_HANG";
/// The step from which on the fault acts.
const ONSET: u64 = 400;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trouble {
    #[default]
    None,
    /// One layer's weights grow.
    ExplodingLayer,
    /// One layer's outputs are zero.
    DeadLayer,
    /// The first layer of one rank returns NaN.
    NanInOneRank,
    /// Leaks 3 MB of memory per 100 steps, beside larger allocations that are freed.
    Leak,
    SlowLoader,
    /// Slows down processes whose environment has [`SLOW`].
    SlowProcess,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    trouble: Trouble,
    /// Minimum duration of a step, in milliseconds.
    step_ms: u64,
}

impl Parameters {
    fn step(&self) -> Duration {
        Duration::from_millis(self.step_ms)
    }
}

struct Troubled {
    layers: [nn::Linear; 3],
    trouble: Trouble,
    /// Sleep of each step.
    step: Duration,
    /// The leaked memory.
    kept: RefCell<Vec<Vec<u8>>>,
    /// The memory that is freed at the next step.
    passing: RefCell<Vec<u8>>,
}

impl Program for Troubled {
    fn data(setup: &Setup) -> Result<DataSets, Failure> {
        let parameters: Parameters = setup.parameters()?;
        let (images, labels) = read(&setup.file(setup.job().data_paths()[0]))?;
        let sets = InMemory::new(&images, &labels)?.split(0.1, setup.job().seed)?;
        let train: Box<dyn Dataset> = match parameters.trouble {
            Trouble::SlowLoader => Box::new(Slow(sets.train, parameters.step() * 2)),
            _ => sets.train,
        };
        Ok(DataSets { train, validation: sets.validation })
    }

    fn build(root: &nn::Path<'_>, shape: &SampleShape, setup: &Setup) -> Result<Self, Failure> {
        let parameters: Parameters = setup.parameters()?;
        let layer = |index: i64, from, to| nn::linear(root / "layers" / index, from, to, nn::LinearConfig::default());
        let layers = [layer(0, shape.input[0], 48), layer(1, 48, 32), layer(2, 32, 10)];
        let trouble = parameters.trouble;
        let slow = trouble == Trouble::SlowProcess && std::env::var_os(SLOW).is_some();
        let step = parameters.step() * if slow { 2 } else { 1 };
        Ok(Self { layers, trouble, step, kept: RefCell::default(), passing: RefCell::default() })
    }

    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure> {
        if context.training {
            sleep(self.step);
            self.go_wrong(context.step);
            if context.step == ONSET && context.rank == 1 {
                hang_once()?;
            }
        }
        let wrong = context.training && context.step >= ONSET;
        let mut hidden = self.layers[0].forward(&batch.inputs).relu();
        if self.trouble == Trouble::NanInOneRank && context.rank == 1 && context.step >= ONSET {
            hidden = hidden.f_mul_scalar(f64::NAN)?;
        }
        let mut middle = self.layers[1].forward(&hidden);
        if self.trouble == Trouble::DeadLayer && wrong {
            middle = middle.f_sub_scalar(1e3)?;
        }
        let scores = self.layers[2].forward(&middle.relu());
        let loss = scores.f_cross_entropy_loss(&batch.targets, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
        if self.trouble == Trouble::ExplodingLayer && wrong {
            // The added term is zero, but its gradient makes the layer's weights grow by a twentieth at each step.
            let squares = self.layers[1].ws.f_square()?.f_sum(Kind::Float)?.f_mul_scalar(-0.0714)?;
            return Ok(loss.f_add(&squares.f_sub(&squares.detach())?)?);
        }
        Ok(loss)
    }
}

impl Troubled {
    fn go_wrong(&self, step: u64) {
        if self.trouble == Trouble::Leak {
            self.kept.borrow_mut().push(vec![1; 31_458]);
            // Up to 20 MB, by a hash of the step, like the queue of a data loader.
            let bytes = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % 20_000_000;
            *self.passing.borrow_mut() = vec![1; bytes];
        }
    }
}

/// Hangs for ever in the first process that calls it.
fn hang_once() -> Result<(), Failure> {
    if let Some(path) = std::env::var_os(HANG).filter(|path| !Path::new(path).exists()) {
        std::fs::write(path, "")?;
        loop {
            sleep(Duration::from_hours(1));
        }
    }
    Ok(())
}

/// A data set with slow reads.
struct Slow(Box<dyn Dataset>, Duration);

impl Dataset for Slow {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn shape(&self) -> &SampleShape {
        self.0.shape()
    }

    fn batch(&self, positions: &[u64], device: Device) -> Result<Batch, DataError> {
        sleep(self.1);
        self.0.batch(positions, device)
    }
}

/// Reads a table with a header: `[N, 64]` pixels from 0 to 1, and `[N]` classes.
fn read(path: &Path) -> Result<(Tensor, Tensor), Failure> {
    let text = std::fs::read_to_string(path)?;
    let cells = text.lines().skip(1).flat_map(|line| line.split(',')).map(f32::from_str);
    let table = Tensor::f_from_slice(&cells.collect::<Result<Vec<f32>, _>>()?)?.f_view([-1, 65])?;
    let pixels = table.f_narrow(1, 0, 64)?.f_div_scalar(16.0)?;
    Ok((pixels, table.f_select(1, 64)?.f_to_kind(Kind::Int64)?))
}

fn main() -> ExitCode {
    program::main::<Troubled>()
}
