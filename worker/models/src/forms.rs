//! The form of a tensor: type, shape, strides, flags. Checkpoints store only elements, so a forward pass must not change the form.

use lockstep_tch_ext::memory::{forms, is_plain};
use tch::{Kind, Tensor};

use super::{ModelError, Parameter};

/// The forms of a model's parameters and buffers at one moment.
pub(super) struct Forms {
    tensors: Vec<(&'static str, String)>,
    live: Vec<Tensor>,
    marks: Vec<u64>,
    words: Vec<Form>,
}

impl Forms {
    pub(super) fn of(parameters: &[Parameter], buffers: &[(String, Tensor)]) -> Result<Self, ModelError> {
        let parameters = parameters.iter().map(|parameter| ("parameter", &parameter.name, &parameter.tensor));
        let buffers = buffers.iter().map(|(name, buffer)| ("buffer", name, buffer));
        let (mut tensors, mut live) = (Vec::new(), Vec::new());
        for (what, name, tensor) in parameters.chain(buffers) {
            tensors.push((what, name.clone()));
            live.push(tensor.shallow_clone());
        }
        let words = live.iter().map(Form::of).collect::<Result<_, _>>()?;
        Ok(Self { tensors, marks: forms(&live)?, live, words })
    }

    /// Checks that no form has changed.
    ///
    /// # Errors
    /// `History`, `Buffer` or `Form`, for the first tensor whose form has changed.
    pub(super) fn compare(&self) -> Result<(), ModelError> {
        let now = forms(&self.live)?;
        let Some(place) = self.marks.iter().zip(&now).position(|(before, now)| before != now) else { return Ok(()) };
        let ((what, name), before, now) = (&self.tensors[place], &self.words[place], Form::of(&self.live[place])?);
        let name = name.clone();
        if now.history {
            return Err(ModelError::History(name));
        }
        let (expected, found) = before.apart(&now);
        if *what == "buffer" && (&before.size, before.kind) != (&now.size, now.kind) {
            return Err(ModelError::Buffer { name, expected, found });
        }
        Err(ModelError::Form { what, name, before: expected, after: found })
    }
}

/// The form of one tensor, for messages.
struct Form {
    kind: Kind,
    size: Vec<i64>,
    /// Empty for a tensor without strides.
    stride: Vec<i64>,
    requires_grad: bool,
    history: bool,
}

impl Form {
    fn of(tensor: &Tensor) -> Result<Self, ModelError> {
        let requires_grad = tensor.requires_grad();
        Ok(Self {
            kind: tensor.f_kind()?,
            size: tensor.size(),
            stride: if is_plain(tensor) { tensor.stride() } else { Vec::new() },
            requires_grad,
            history: requires_grad && !tensor.f_is_leaf()?,
        })
    }

    /// Describes both forms by the property in which they differ.
    fn apart(&self, other: &Self) -> (String, String) {
        let gradients = |form: &Self| {
            if form.requires_grad { "`requires_grad = True`" } else { "`requires_grad = False`" }.to_owned()
        };
        if (&self.size, self.kind) != (&other.size, other.kind) {
            let told = |form: &Self| format!("{:?} of shape {:?}", form.kind, form.size);
            (told(self), told(other))
        } else if self.requires_grad != other.requires_grad {
            (gradients(self), gradients(other))
        } else if self.stride != other.stride {
            (format!("strides {:?}", self.stride), format!("strides {:?}", other.stride))
        } else {
            ("one offset in its memory".to_owned(), "another one".to_owned())
        }
    }
}
