//! Adapts a user's program to [`Model`]: orders its variables, turns failures and panics into errors, and undoes the side effects of
//! evaluations.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lockstep_common::contents::Contents;
use lockstep_common::preprocessing::Preprocessing;
use lockstep_common::seed::{Stream, derive};
use lockstep_data::{Batch, DataError, DataSets, Dataset, SampleShape};
use lockstep_models::{Context, EvalSums, Model, ModelError, Parameter, Parts, Precision, disjoint, without_trace};
use lockstep_tch_ext::memory::is_same;
use tch::{Device, Kind, Tensor, nn};

use super::{Failure, Program, Setup, Source};

/// The program `P` as a [`Source`].
pub(crate) struct Own<P>(PhantomData<P>);

impl<P> Own<P> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: Program> Source for Own<P> {
    fn data(&self, setup: &Setup) -> Result<DataSets, DataError> {
        let DataSets { train, validation } = guarded(|| P::data(setup)).map_err(unreadable)?;
        let read = |data| Box::new(Read(data)) as Box<dyn Dataset>;
        Ok(DataSets { train: read(train), validation: validation.map(read) })
    }

    fn model(&self, shape: &SampleShape, setup: &Setup) -> Result<Box<dyn Model>, ModelError> {
        if let Some(name) = without_own_curve(P::metrics()) {
            return Err(refusal(format!(
                "its metric `{name}` needs another name: names must be unique, and not `loss`, `accuracy` or `perplexity`"
            )));
        }
        let (job, device) = (setup.job(), setup.device());
        let variables = nn::VarStore::new(device);
        tch::manual_seed(derive(job.seed, Stream::Init, 0, 0) as i64);
        let program = guarded(|| P::build(&variables.root(), shape, setup)).map_err(ModelError::Program)?;
        let parts = parts(&variables)?;
        let title = job.program.as_ref().map_or("program", |program| program.bin.as_str());
        let title = format!("program `{title}`");
        Ok(Box::new(Trained {
            program,
            parts,
            device,
            precision: Precision::new(job.numerics.autocast, device),
            title,
        }))
    }
}

/// The first of `metrics` whose points would be mixed into another curve: its name is empty, repeated, or one that Lockstep itself reports.
fn without_own_curve(metrics: &[&'static str]) -> Option<&'static str> {
    let taken =
        |at: usize, name: &str| ["", "loss", "accuracy", "perplexity"].contains(&name) || metrics[..at].contains(&name);
    metrics.iter().enumerate().find(|&(at, name)| taken(at, name)).map(|(_, &name)| name)
}

/// A user's data set, whose panics become errors. Such an error is not retried, because the same read would panic again.
struct Read(Box<dyn Dataset>);

impl Dataset for Read {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn shape(&self) -> &SampleShape {
        self.0.shape()
    }

    fn features(&self) -> &[String] {
        self.0.features()
    }

    fn preprocessing(&self) -> Option<&Preprocessing> {
        self.0.preprocessing()
    }

    fn measured(&self) -> Option<&Preprocessing> {
        self.0.measured()
    }

    fn batch(&self, positions: &[u64], device: Device) -> Result<Batch, DataError> {
        guarded(|| Ok(self.0.batch(positions, device)?)).map_err(unreadable)
    }

    fn read(&self, positions: &[u64], device: Device) -> Result<(Batch, Option<Contents>), DataError> {
        guarded(|| Ok(self.0.read(positions, device)?)).map_err(unreadable)
    }
}

struct Trained<P> {
    program: P,
    parts: Parts,
    device: Device,
    precision: Precision,
    title: String,
}

impl<P: Program> Model for Trained<P> {
    fn parameters(&self) -> &[Parameter] {
        &self.parts.parameters
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        &self.parts.buffers
    }

    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError> {
        let loss = self.precision.run(|| guarded(|| self.program.loss(batch, context)).map_err(ModelError::Program))?;
        if loss.numel() == 1 && matches!(loss.kind(), Kind::Float | Kind::Double | Kind::BFloat16) {
            return if loss.dim() == 0 { Ok(loss) } else { Ok(loss.f_reshape([] as [i64; 0])?) };
        }
        Err(refusal(format!(
            "its loss is {:?} of shape {:?}: expected one element of type Float, Double or BFloat16",
            loss.kind(),
            loss.size()
        )))
    }

    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, ModelError> {
        let evaluate = || guarded(|| self.program.evaluate(batch, context)).map_err(ModelError::Program);
        let sums = without_trace(&self.parts.buffers, self.device, || self.precision.run(evaluate))?;
        if sums.metrics.len() != P::metrics().len() {
            return Err(refusal(format!(
                "`evaluate` returned {} metrics, but `metrics` names {}",
                sums.metrics.len(),
                P::metrics().len()
            )));
        }
        Ok(sums)
    }

    fn metrics(&self) -> &[&'static str] {
        P::metrics()
    }

    fn describe(&self) -> String {
        self.parts.describe(&self.title)
    }
}

/// The variables as parts of a model: parameters in the order in which the program created them, buffers sorted by name.
fn parts(variables: &nn::VarStore) -> Result<Parts, ModelError> {
    let mut named: Vec<(String, Tensor)> = variables.variables().into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let trainable = variables.trainable_variables();
    let place: HashMap<_, usize> =
        trainable.iter().enumerate().map(|(place, tensor)| (tensor.data_ptr(), place)).collect();
    let mut parts = Parts::new();
    let mut trained = Vec::new();
    for (name, tensor) in named {
        if tensor.requires_grad() {
            trained.push((place.get(&tensor.data_ptr()).copied(), name, tensor));
        } else {
            parts.buffers.push((name, tensor));
        }
    }
    if trained.is_empty() {
        return Err(refusal("it has no variables to train: create them below `root` in `build`".to_owned()));
    }
    trained.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (_, name, tensor) in trained {
        // One tensor under two names is one parameter, as in PyTorch.
        if parts.parameters.iter().any(|known| is_same(&known.tensor, &tensor)) {
            continue;
        }
        parts.module(&name, format!("tensor {:?}", tensor.size()));
        parts.parameters.push(Parameter::new(name, tensor));
    }
    disjoint(&parts.parameters)?;
    Ok(parts)
}

fn refusal(words: String) -> ModelError {
    ModelError::Program(words.into())
}

fn unreadable(failure: Failure) -> DataError {
    match failure.downcast::<DataError>() {
        Ok(error) => *error,
        Err(failure) => DataError::Program(failure),
    }
}

/// Runs the user's code, and turns a panic into an error: tch's operators without `f_` panic when they fail.
fn guarded<T>(code: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        Err(format!("it panicked: {}", words.unwrap_or_else(|| "without a message".to_owned())).into())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lockstep_common::job::parse_toml;
    use tch::nn::ModuleT;

    use super::*;
    use crate::life::local;
    use crate::observe::Outbox;
    use crate::program::InMemory;

    /// Batch norm, dropout, and the fault that the parameter `fault` names.
    struct Odd {
        first: nn::Linear,
        norm: nn::BatchNorm,
        fault: String,
    }

    impl Program for Odd {
        fn build(root: &nn::Path<'_>, _: &SampleShape, setup: &Setup) -> Result<Self, Failure> {
            // Sorted by name, this layer would be last. tch creates a bias before its weight.
            let first = nn::linear(root / "z", 3, 4, nn::LinearConfig::default());
            let norm = nn::batch_norm1d(root / "a", 4, nn::BatchNormConfig::default());
            Ok(Self { first, norm, fault: setup.parameter("fault")? })
        }

        fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure> {
            let hidden = self.norm.forward_t(&batch.inputs.apply(&self.first), true).dropout(0.5, true);
            match self.fault.as_str() {
                "error" => Err("no".into()),
                "panic" => Ok(batch.inputs.matmul(&batch.inputs)),
                "shape" => Ok(hidden),
                _ => Ok(hidden.mean(Kind::Float) + context.step as f64),
            }
        }

        fn metrics() -> &'static [&'static str] {
            &["extra"]
        }

        fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, Failure> {
            let sums = EvalSums::of_mean(self.loss(batch, context)?.double_value(&[]), 2);
            Ok(if self.fault == "metrics" { sums } else { EvalSums { metrics: vec![7.0], ..sums } })
        }
    }

    fn odd(fault: &str) -> Box<dyn Model> {
        built::<Odd>(fault).unwrap()
    }

    fn built<P: Program>(fault: &str) -> Result<Box<dyn Model>, ModelError> {
        let text = format!(
            "name = \"t\"\nsteps = 1\nbatch = {{ size = 2 }}\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\n\
             data = {{ kind = \"files\", paths = [\"x\"] }}\n[program]\nbin = \"t\"\nparameters = {{ fault = \"{fault}\" }}"
        );
        let job = parse_toml(&text, &[]).unwrap();
        let setup = Setup::new(job, Path::new("/").into(), Vec::new(), Device::Cpu);
        let shape = SampleShape {
            input: vec![3],
            kind: lockstep_data::InputKind::Float,
            targets: lockstep_data::Targets::Values { count: 1 },
        };
        Own::<P>::new().model(&shape, &setup)
    }

    fn batch() -> Batch {
        let ones = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        Batch::new(ones.shallow_clone(), ones)
    }

    fn words(error: &ModelError) -> String {
        format!("{error}: {}", std::error::Error::source(error).map(ToString::to_string).unwrap_or_default())
    }

    #[test]
    fn variables_come_in_the_order_of_definition_and_statistics_are_buffers() {
        let model = odd("");
        let names: Vec<&str> = model.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["z.bias", "z.weight", "a.weight", "a.bias"]);
        let buffers: Vec<&str> = model.buffers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(buffers, ["a.running_mean", "a.running_var"]);
        let bits = |model: &dyn Model| Vec::<f32>::try_from(model.parameters()[0].tensor.view(-1)).unwrap();
        assert_eq!(bits(model.as_ref()), bits(odd("").as_ref()), "the root seed decides the weights");
        assert!(model.describe().starts_with("program `t`: 24 parameters"), "{}", model.describe());
    }

    #[test]
    fn an_evaluation_leaves_neither_draws_nor_statistics() {
        let (model, context) = (odd(""), Context { step: 3, ..Context::default() });
        let mean = || Vec::<f32>::try_from(&model.buffers()[0].1).unwrap();
        tch::manual_seed(5);
        let (before, first) = (mean(), model.evaluate(&batch(), &context).unwrap());
        assert_eq!(first, model.evaluate(&batch(), &context).unwrap());
        assert_eq!((first.metrics.as_slice(), first.count), (&[7.0][..], 2));
        assert_eq!(mean(), before);
        drop(model.loss(&batch(), &context).unwrap());
        assert_ne!(mean(), before, "it would have changed them");
    }

    #[test]
    fn errors_panics_and_answers_of_another_kind_are_told() {
        let told = |fault: &str| words(&odd(fault).loss(&batch(), &Context::default()).unwrap_err());
        assert_eq!(told("error"), "the program failed: no");
        assert!(told("panic").starts_with("the program failed: it panicked: "), "{}", told("panic"));
        assert!(told("shape").contains("its loss is Float of shape [2, 4]: expected one element"), "{}", told("shape"));
        let metrics = words(&odd("metrics").evaluate(&batch(), &Context::default()).unwrap_err());
        assert!(metrics.contains("`evaluate` returned 0 metrics, but `metrics` names 1"), "{metrics}");
    }

    /// Has a metric with a reserved name.
    struct Mixed;

    impl Program for Mixed {
        fn build(_: &nn::Path<'_>, _: &SampleShape, _: &Setup) -> Result<Self, Failure> {
            Ok(Self)
        }

        fn loss(&self, batch: &Batch, _: &Context) -> Result<Tensor, Failure> {
            Ok(batch.inputs.mean(Kind::Float))
        }

        fn metrics() -> &'static [&'static str] {
            &["psnr", "loss"]
        }
    }

    #[test]
    fn a_metric_has_a_name_of_its_own() {
        let refused = words(&built::<Mixed>("").map(|_| ()).unwrap_err());
        assert!(refused.contains("its metric `loss` needs another name"), "{refused}");
        assert_eq!(without_own_curve(&["psnr", "loss of the border"]), None);
        assert_eq!(without_own_curve(&["psnr", "psnr"]), Some("psnr"));
        assert_eq!(without_own_curve(&["psnr", ""]), Some(""));
    }

    /// Has two variables that share memory.
    struct Shared;

    impl Program for Shared {
        fn build(root: &nn::Path<'_>, _: &SampleShape, setup: &Setup) -> Result<Self, Failure> {
            let first = root.zeros("first", &[3, 3]);
            let second = match setup.parameter::<String>("fault")?.as_str() {
                "transposed" => first.detach().tr(),
                "slice" => first.detach().narrow(0, 1, 1),
                _ => first,
            };
            let _same = root.add("second", second, true);
            Ok(Self)
        }

        fn loss(&self, batch: &Batch, _: &Context) -> Result<Tensor, Failure> {
            Ok(batch.inputs.mean(Kind::Float))
        }
    }

    #[test]
    fn variables_in_one_memory_are_one_parameter_or_refused() {
        let model = built::<Shared>("same").unwrap();
        let names: Vec<&str> = model.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["first"]);
        for fault in ["transposed", "slice"] {
            let refused = built::<Shared>(fault).map(|_| ()).unwrap_err().to_string();
            assert!(refused.starts_with("the parameters `first` and `second` share memory"), "{refused}");
        }
    }

    /// Panics at its third sample.
    struct Breaking(SampleShape);

    impl Dataset for Breaking {
        fn len(&self) -> u64 {
            8
        }

        fn shape(&self) -> &SampleShape {
            &self.0
        }

        fn batch(&self, positions: &[u64], _: Device) -> Result<Batch, DataError> {
            assert!(positions.iter().all(|position| *position < 2), "no third sample");
            Err(DataError::Position { position: positions[0], samples: 8 })
        }
    }

    #[test]
    fn a_panic_in_a_data_set_is_an_error_and_its_own_errors_stay_what_they_are() {
        let column = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([8, 1]);
        let read = Read(Box::new(Breaking(InMemory::new(&column, &column).unwrap().shape().clone())));
        assert!(matches!(read.batch(&[1], Device::Cpu), Err(DataError::Position { position: 1, .. })));
        let broken = read.batch(&[2], Device::Cpu).unwrap_err();
        assert_eq!(
            lockstep_common::chain(&broken),
            "the program could not read its data: it panicked: no third sample"
        );
    }

    static SEEN: std::sync::Mutex<Vec<Context>> = std::sync::Mutex::new(Vec::new());

    /// Records the context of every call.
    struct Seeing(Tensor);

    impl Program for Seeing {
        fn data(setup: &Setup) -> Result<DataSets, Failure> {
            let column = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([8, 1]);
            Ok(InMemory::new(&column, &column)?.split(setup.parameter("validation")?, setup.job().seed)?)
        }

        fn build(root: &nn::Path<'_>, _: &SampleShape, _: &Setup) -> Result<Self, Failure> {
            Ok(Self(root.zeros("weight", &[1])))
        }

        fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure> {
            SEEN.lock().unwrap().push(*context);
            Ok((&self.0 * &batch.inputs).mean(Kind::Float))
        }
    }

    #[test]
    fn each_micro_batch_is_told_its_step_rank_and_seed() {
        let train = |validation: &str| {
            let text = format!(
                "name = \"t\"\nseed = 7\nsteps = 2\nranks = 2\nbatch = {{ size = 2 }}\neval = {{ every_steps = 2 }}\n\
                 optimizer = {{ kind = \"sgd\", lr = 0.1 }}\ndata = {{ kind = \"files\", paths = [\"x\"] }}\n\
                 [program]\nbin = \"t\"\nparameters = {{ validation = {validation} }}"
            );
            let (job, outbox) = (parse_toml(&text, &[]).unwrap(), Outbox::default());
            local::train(&Own::<Seeing>::new(), &job, Path::new("/"), None, None, None, &outbox)
        };
        train("0.25").unwrap();
        let seen = SEEN.lock().unwrap().clone();
        let (training, evaluating): (Vec<Context>, Vec<Context>) = seen.iter().partition(|context| context.training);
        let told: Vec<(u64, u32)> = training.iter().map(|context| (context.step, context.rank)).collect();
        assert_eq!(told, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        for context in &training {
            assert_eq!(context.seed(), derive(7, Stream::User, context.step, context.rank), "as checkpoints have it");
        }
        assert!(!evaluating.is_empty() && evaluating.iter().all(|context| context.step == 2), "{evaluating:?}");
        assert!(training.iter().all(|context| context.seed() != evaluating[0].seed()));
        let refused = train("0.0").unwrap_err().to_string();
        assert_eq!(
            refused,
            "the job has `[eval]`, but its data has no validation samples: remove `[eval]`, or return them from \
             `Program::data`"
        );
    }
}
