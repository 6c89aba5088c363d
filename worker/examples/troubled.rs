//! A program with something wrong with it on purpose, for tests of what finds it: `[program.parameters]` names the trouble.
//!
//! It trains a small perceptron on the digits. A step mostly sleeps, so that several such runs fit on one machine without
//! being in each other's way.

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

/// If set, this process takes longer than it should.
const SLOW: &str = "TROUBLED_SLOW";
/// The path of a file: who does not find it makes it, and hangs for ever.
const HANG: &str = "TROUBLED_HANG";
/// The step from which on something is wrong.
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
    /// What one rank's first layer gives is no number.
    NanInOneRank,
    /// 3 MB of memory for every 100 steps, under much more that comes and goes.
    Leak,
    SlowLoader,
    /// In processes whose environment says so.
    SlowProcess,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    trouble: Trouble,
    /// What a step takes, at least.
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
    /// Of each step, asleep.
    step: Duration,
    /// What was leaked.
    kept: RefCell<Vec<Vec<u8>>>,
    /// What comes and goes.
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
            // Nothing is added to the loss, and its gradient makes the layer's weights grow by a twentieth at each step.
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
            // Up to 20 MB, by a hash of the step: what a loader's queue may hold.
            let bytes = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % 20_000_000;
            *self.passing.borrow_mut() = vec![1; bytes];
        }
    }
}

/// For ever, the first time.
fn hang_once() -> Result<(), Failure> {
    if let Some(path) = std::env::var_os(HANG).filter(|path| !Path::new(path).exists()) {
        std::fs::write(path, "")?;
        loop {
            sleep(Duration::from_hours(1));
        }
    }
    Ok(())
}

/// Takes its time.
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

/// `[N, 64]` pixels from 0 to 1 and `[N]` classes, of a table with a header.
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
