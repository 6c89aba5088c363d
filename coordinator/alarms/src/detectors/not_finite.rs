//! Not finite: a NaN or an infinity in loss, norms or tensors. One is enough, since every sum it enters becomes one.
//!
//! Where it came from is to be seen only at the first step: a step later the weights are NaN and with them everything. A run
//! that ends with it has made that step again and says itself where it began: `not_finite/<tensor>`, in a rank. Without it,
//! an activation tells most, the first in the forward pass, for all after it are only fed by it. Without one it is the
//! gradients: they are computed from the last layer to the first, so of those that are not finite the *last* in forward
//! order was hit first. When the loss itself was not finite all gradients follow, and no layer is named.

use serde::{Deserialize, Serialize};

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Steps without another after which it is over: histograms are taken that rarely.
const CALM: u32 = 200;

/// Series at the first step that are kept.
const MOST: usize = 1024;

const ADVICE: &[&str] = &[
    "resume from the last checkpoint before it, if there is one; everything after it is lost",
    "look at that step's samples for values that are not finite, empty batches and divisions by zero",
    "lower the learning rate or clip gradients, if the norms rose before",
];

/// What was not finite, and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bad {
    first: Option<u32>,
    /// The slots that were not finite at the first step.
    slots: Vec<u32>,
    last: u32,
}

impl Bad {
    /// The series of slot `index` was not finite at `step`.
    pub(crate) fn note(&mut self, index: usize, step: u32, seen: &Seen, board: &mut Board) {
        self.last = self.last.max(step);
        let index = index as u32;
        let is_origin = |index: &u32| seen.slots[*index as usize].role == Role::Origin;
        // A run says where it began of the step that ended it, which another number may have come before.
        let says_where = is_origin(&index) && !self.slots.iter().any(is_origin);
        match self.first {
            Some(first) if step > first && says_where => {}
            Some(first) if step > first => return,
            Some(first) if step == first && self.slots.len() < MOST => {}
            Some(first) if step == first => return,
            // Series may lag one behind the other: this one was earlier.
            Some(_) | None => {
                if self.first.is_some() {
                    board.antedate(Kind::NotFinite, step, seen.ms(step));
                }
                (self.first, self.slots) = (Some(step), Vec::new());
            }
        }
        self.slots.push(index);
        board.raise(self.finding(self.first.unwrap_or(step), seen));
    }

    /// The loss was finite since `step`.
    pub(crate) fn settle(&mut self, step: u32, board: &mut Board) {
        if self.first.is_some() && step > self.last.saturating_add(CALM) {
            board.end(Kind::NotFinite, None, self.last);
            *self = Self::default();
        }
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.last = self.last.min(step);
        if self.first.is_some_and(|first| first > step) {
            *self = Self::default();
        }
    }

    fn finding(&self, since: u32, seen: &Seen) -> Finding {
        let bad: Vec<&Slot> = self.slots.iter().map(|&index| &seen.slots[index as usize]).collect();
        let of =
            |roles: &[Role]| -> Vec<&Slot> { bad.iter().copied().filter(|slot| roles.contains(&slot.role)).collect() };
        let origin = of(&[Role::Origin]).first().copied();
        let loss = of(&[Role::Loss]);
        let grads = of(&[Role::LayerGrad, Role::GradHistogram]);
        let all_grads =
            seen.slots.iter().filter(|slot| slot.role == Role::LayerGrad && slot.last == Some(since)).count()
                == of(&[Role::LayerGrad]).len();
        let activation = of(&[Role::Activation]).into_iter().min_by_key(|slot| seen.forward(slot));
        let gradient = grads.iter().copied().max_by_key(|slot| seen.forward(slot));
        let gradient = gradient.filter(|_| loss.is_empty() || !all_grads);
        let weight = of(&[Role::WeightHistogram, Role::LayerWeight]).into_iter().min_by_key(|slot| seen.forward(slot));
        let weight = weight.filter(|_| grads.is_empty());
        let tensor = origin.or(activation).or(gradient).or(weight);
        let mut parts: Vec<&Slot> = bad.iter().copied().filter(|slot| slot.key.part.is_some()).collect();
        parts.dedup_by_key(|slot| slot.key.part);
        // Of where it began one rank is known; others may have had the same.
        let only = if let ([only], None) = (&parts[..], origin) { Some(*only) } else { None };
        let part = only.or(origin.filter(|slot| slot.key.part.is_some()));
        let whose = |slot: &Slot| {
            let of_rank = matches!(slot.role, Role::RankNorm | Role::Origin);
            format!("{} {}", if of_rank { "rank" } else { "process" }, slot.part())
        };
        let place: Vec<String> = tensor.map(|slot| spot(slot).1).into_iter().chain(part.map(whose)).collect();
        let mut what = vec![format!("At step {since} values were no longer finite: {}.", names(&bad))];
        if let Some(slot) = tensor {
            let of_rank = if origin.is_some() { part.map(|slot| format!(", in {}", whose(slot))) } else { None };
            what.push(format!("The first to be hit is {}{}.", spot(slot).0, of_rank.unwrap_or_default()));
        }
        if let Some(slot) = only {
            what.push(format!("Of what is measured by rank and process, only that of {} was.", whose(slot)));
        }
        Finding {
            kind: Kind::NotFinite,
            subject: None,
            severity: Severity::Error,
            since,
            since_ms: seen.ms(since),
            place: (!place.is_empty()).then(|| place.join(", ")),
            series: tensor.or(part).or(loss.first().copied()).unwrap_or(bad[0]).key.clone(),
            title: "values are not finite".into(),
            what: what.join(" "),
            advice: ADVICE,
            level: 0.0,
        }
    }
}

/// A tensor in words, and where it is.
fn spot(slot: &Slot) -> (String, String) {
    // What says where it began is named after what would have shown it.
    let name = if slot.role == Role::Origin { slot.tensor() } else { &slot.key.name };
    let Some((family, tensor)) = name.split_once('/') else {
        let words = if name == "loss" { "the loss itself".to_owned() } else { format!("the batch's {name}") };
        return (words.clone(), words);
    };
    let kind = match family {
        "activation" => "the output of module",
        "weight" | "weight_norm" => "the weight",
        "buffer" => "the buffer",
        "optimizer" => "the optimizer's",
        _ => "the gradient of",
    };
    (format!("{kind} `{tensor}`"), format!("layer `{tensor}`"))
}

/// A few of the series by name.
fn names(bad: &[&Slot]) -> String {
    let mut shown: Vec<String> = bad.iter().take(4).map(|slot| format!("`{}`", slot.key)).collect();
    if bad.len() > 4 {
        shown.push(format!("{} more", bad.len() - 4));
    }
    shown.join(", ")
}
