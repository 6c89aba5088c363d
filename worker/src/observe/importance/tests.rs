use std::cell::RefCell;

use lockstep_data::{DataError, Targets};
use lockstep_models::{EvalSums, Parameter};

use super::*;

/// Squared error of `inputs · weight`, with a buffer that every forward pass changes.
struct Linear {
    weight: Tensor,
    parameters: Vec<Parameter>,
    buffers: Vec<(String, Tensor)>,
    contexts: RefCell<Vec<Context>>,
    habit: Habit,
}

/// How the model treats its inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    Reads,
    /// Doubles them in place.
    Doubles,
    /// Only compares them with zero: no gradient reaches them.
    Compares,
    /// The loss does not depend on them.
    Ignores,
    /// Multiplies them by random numbers.
    Draws,
}

impl Linear {
    fn new(weight: &[f32]) -> Self {
        let seen = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let (parameters, contexts) = (Vec::new(), RefCell::default());
        Self {
            weight: Tensor::from_slice(weight),
            parameters,
            buffers: vec![("seen".into(), seen)],
            contexts,
            habit: Habit::Reads,
        }
    }

    fn errors(&self, batch: &Batch) -> Tensor {
        // As batch norm does; the caller must restore it.
        let _same = self.buffers[0].1.shallow_clone().g_add_scalar_(1.0);
        let inputs = match self.habit {
            Habit::Reads => batch.inputs.shallow_clone(),
            Habit::Doubles => batch.inputs.shallow_clone().g_mul_scalar_(2.0),
            Habit::Compares => batch.inputs.gt(0.0).to_kind(Kind::Float),
            Habit::Ignores => batch.inputs.zeros_like().detach(),
            Habit::Draws => &batch.inputs * batch.inputs.rand_like(),
        };
        (inputs.matmul(&self.weight) - &batch.targets).square()
    }
}

impl Model for Linear {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        &self.buffers
    }

    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError> {
        self.contexts.borrow_mut().push(*context);
        Ok(self.errors(batch).mean(Kind::Float))
    }

    fn evaluate(&self, batch: &Batch, _context: &Context) -> Result<EvalSums, ModelError> {
        without_trace(&self.buffers, Device::Cpu, || {
            let sum = self.errors(batch).sum(Kind::Double).double_value(&[]);
            Ok(EvalSums { loss_sum: sum, right: None, count: batch.inputs.size()[0] as u64, metrics: Vec::new() })
        })
    }

    fn describe(&self) -> String {
        String::new()
    }
}

/// Three columns with the same distribution; the target is three times the first column.
struct Columns(SampleShape, Vec<String>);

impl Dataset for Columns {
    fn len(&self) -> u64 {
        64
    }

    fn shape(&self) -> &SampleShape {
        &self.0
    }

    fn features(&self) -> &[String] {
        &self.1
    }

    fn batch(&self, positions: &[u64], _device: Device) -> Result<Batch, DataError> {
        let at = |position: u64, column: u64| ((position * 7 + column * 29) % 64) as f32 / 32.0 - 1.0;
        let rows: Vec<f32> = positions.iter().flat_map(|&row| (0..3).map(move |column| at(row, column))).collect();
        let targets: Vec<f32> = positions.iter().map(|&row| 3.0 * at(row, 0)).collect();
        Ok(Batch::new(Tensor::from_slice(&rows).view([-1, 3]), Tensor::from_slice(&targets)))
    }
}

fn columns() -> Columns {
    let shape = SampleShape { input: vec![3], kind: InputKind::Float, targets: Targets::Values { count: 1 } };
    Columns(shape, ["carat", "depth", "table"].map(str::to_owned).to_vec())
}

fn plan(chunk: u64) -> Plan {
    Plan { step: 9, root: 4, samples: 64, chunk, repeats: 5, device: Device::Cpu }
}

fn measured(model: &Linear, chunk: u64) -> Vec<Importance> {
    measure(&plan(chunk), &columns(), model, ProcessIndex::ALONE, None).unwrap()
}

#[test]
fn a_model_that_draws_is_measured_alike_whatever_was_drawn_before() {
    let model = Linear { habit: Habit::Draws, ..Linear::new(&[3.0, 0.0, 0.5]) };
    // Two processes may have measured different features before the same one.
    let of = |seed| {
        tch::manual_seed(seed);
        measured(&model, 16)
            .into_iter()
            .map(|one| (one.permutation.to_bits(), one.gradient.to_bits()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(1), of(2));
}

#[test]
fn what_a_model_uses_counts_and_what_it_ignores_does_not() {
    let model = Linear::new(&[3.0, 0.0, 0.5]);
    let found = measured(&model, 64);
    let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["carat", "depth", "table"]);
    let [carat, depth, table] = [&found[0], &found[1], &found[2]];
    // Nine times twice the variance of one third: the expected squared difference of two shuffled values.
    assert!((carat.permutation - 6.0).abs() < 1.0, "{found:?}");
    assert_eq!((depth.permutation, depth.gradient), (0.0, 0.0));
    // It only adds noise: shuffling it does not change the loss on average, but the gradient shows that it is used.
    assert!(table.permutation.abs() < 0.1 && table.gradient > 0.05, "{found:?}");
    assert_eq!(model.buffers[0].1.double_value(&[0]), 0.0, "no trace");
    assert!(model.contexts.borrow().iter().all(|context| !context.training && context.step == 9));
}

#[test]
fn gradient_times_input_is_that_of_each_sample_whatever_the_batches() {
    let model = Linear::new(&[2.0, 0.0, 1.0]);
    let (whole, pieces) = (measured(&model, 64), measured(&model, 24));
    // By hand: |2 (w·x − 3 x₀) w₀ x₀|, the mean over the samples.
    let batch = columns().batch(&(0..64).collect::<Vec<_>>(), Device::Cpu).unwrap();
    let error = batch.inputs.matmul(&model.weight) - &batch.targets;
    let by_hand = (error * 2.0 * 2.0 * batch.inputs.select(1, 0)).abs().mean(Kind::Double).double_value(&[]);
    for (one, other) in whole.iter().zip(&pieces) {
        assert!((one.gradient - other.gradient).abs() < 1e-6, "{one:?} {other:?}");
        assert!((one.permutation - other.permutation).abs() < 1e-6, "{one:?} {other:?}");
    }
    assert!((whole[0].gradient - by_hand).abs() < 1e-6, "{} {by_hand}", whole[0].gradient);
}

#[test]
fn an_image_is_cut_into_cells_and_tokens_into_nothing() {
    let shape =
        |input: &[i64], kind| SampleShape { input: input.to_vec(), kind, targets: Targets::Values { count: 1 } };
    let image = features(&shape(&[3, 28, 30], InputKind::Image), &[]);
    assert_eq!(image.len(), 7 * 8);
    assert_eq!(image[0], Feature { name: "row 0, column 0".into(), part: vec![(0, 3), (0, 4), (0, 4)] });
    assert_eq!(image[55].part, [(0, 3), (24, 4), (28, 2)]);
    assert_eq!(features(&shape(&[8, 8], InputKind::Image), &[]).len(), 64);
    assert!(!is_measurable(&shape(&[4], InputKind::Tokens)));
    assert!(!is_measurable(&shape(&[2000], InputKind::Float)) && is_measurable(&shape(&[1024], InputKind::Float)));
}

#[test]
fn a_model_that_changes_its_inputs_is_measured_as_one_that_does_not() {
    let doubles = Linear { habit: Habit::Doubles, ..Linear::new(&[1.5, 0.0, 0.25]) };
    let twice = Linear::new(&[3.0, 0.0, 0.5]);
    for chunk in [64, 24] {
        for (one, other) in measured(&doubles, chunk).iter().zip(&measured(&twice, chunk)) {
            assert_eq!((&one.name, one.permutation.to_bits()), (&other.name, other.permutation.to_bits()));
            assert_eq!(one.gradient.to_bits(), other.gradient.to_bits(), "{}", one.name);
        }
    }
}

#[test]
fn inputs_that_no_gradient_reaches_have_none() {
    let compares = Linear { habit: Habit::Compares, ..Linear::new(&[3.0, 0.0, 0.5]) };
    let found = measured(&compares, 24);
    assert!(found.iter().all(|one| one.gradient == 0.0) && found[0].permutation > 1.0, "{found:?}");
    let ignores = Linear { habit: Habit::Ignores, ..Linear::new(&[3.0, 0.0, 0.5]) };
    assert!(measured(&ignores, 24).iter().all(|one| (one.gradient, one.permutation) == (0.0, 0.0)));
}
