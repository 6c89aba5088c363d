//! A wrapper that checks after every forward pass that the model changed no parameter, and of its buffers only the elements.

use std::cell::{Cell, OnceCell};

use lockstep_data::Batch;
use lockstep_tch_ext::bits::bit_sums;
use tch::Tensor;

use super::forms::Forms;
use super::{Context, EvalSums, Model, ModelError, Parameter};

/// A wrapper around a model. A forward pass fails if it changes a parameter, or anything but the elements of a buffer: checkpoints hold
/// elements only.
///
/// Every pass compares the version counter and the address of each parameter, and the form of each parameter and buffer, which takes
/// nanoseconds. A close check also compares the bits of the parameters, because a write that bypasses the counter (`parameter.data`) shows
/// nowhere else, and calls [`Model::check`].
pub struct Watched {
    model: Box<dyn Model>,
    tensors: Vec<Tensor>,
    /// The forms before the first pass: of the parameters, then of the buffers.
    forms: OnceCell<Forms>,
    training: Cell<bool>,
    evaluation: Cell<bool>,
}

/// The values before a forward pass that it must not change.
struct Before {
    marks: Vec<(i64, usize)>,
    sums: Option<Vec<u64>>,
}

impl Watched {
    /// Wraps `model`. Its first training pass and its first evaluation are checked closely.
    pub fn new(model: Box<dyn Model>) -> Self {
        let tensors = model.parameters().iter().map(|parameter| parameter.tensor.detach()).collect();
        Self { model, tensors, forms: OnceCell::new(), training: Cell::new(true), evaluation: Cell::new(true) }
    }

    fn marks(&self) -> Result<Vec<(i64, usize)>, ModelError> {
        let mark = |parameter: &Parameter| {
            // Of the parameter itself: a pass may have replaced its memory.
            Ok((parameter.tensor.f_internal_version()?, parameter.tensor.data_ptr() as usize))
        };
        self.model.parameters().iter().map(mark).collect()
    }

    fn around<T>(&self, closely: bool, forward: impl FnOnce() -> Result<T, ModelError>) -> Result<T, ModelError> {
        let closely = closely || self.model.evades();
        let forms = if let Some(known) = self.forms.get() {
            known
        } else {
            let found = Forms::of(self.model.parameters(), self.model.buffers())?;
            self.forms.get_or_init(|| found)
        };
        let before = Before { marks: self.marks()?, sums: if closely { Some(bit_sums(&self.tensors)?) } else { None } };
        let given = forward()?;
        let parameters = self.model.parameters();
        let differs = |place: Option<usize>| match place.and_then(|place| parameters.get(place)) {
            Some(parameter) => Err(ModelError::Changed(parameter.name.clone())),
            None => Ok(()),
        };
        differs(before.marks.iter().zip(self.marks()?).position(|(before, after)| *before != after))?;
        forms.compare()?;
        if let Some(before) = before.sums {
            differs(before.iter().zip(bit_sums(&self.tensors)?).position(|(before, after)| *before != after))?;
            self.model.check()?;
        }
        Ok(given)
    }
}

impl Model for Watched {
    fn parameters(&self) -> &[Parameter] {
        self.model.parameters()
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        self.model.buffers()
    }

    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError> {
        self.around(self.training.get(), || self.model.loss(batch, context))
    }

    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, ModelError> {
        // The first batch of an evaluation is enough: the others run the same code.
        self.around(self.evaluation.take(), || self.model.evaluate(batch, context))
    }

    fn predict(&self, batch: &Batch) -> Result<Option<Tensor>, ModelError> {
        self.around(false, || self.model.predict(batch))
    }

    fn metrics(&self) -> &[&'static str] {
        self.model.metrics()
    }

    fn describe(&self) -> String {
        self.model.describe()
    }

    fn check(&self) -> Result<(), ModelError> {
        self.model.check()
    }

    fn evades(&self) -> bool {
        self.model.evades()
    }

    fn look_closely(&self, closely: bool) {
        self.training.set(closely);
        self.evaluation.set(closely || self.evaluation.get());
    }
}
