//! Logged values: numbers, distributions, images, texts and files that a model's code names while it computes.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::Context;

/// A logged value, and its kind.
#[derive(Debug)]
pub enum Logged {
    /// A point of a curve.
    Number(f64),
    /// A tensor whose elements are reported as a histogram.
    Distribution(Tensor),
    /// `[channels, height, width]` with one (grey), three (RGB) or four (RGBA) channels: bytes, or floats from 0 to 1.
    Image(Tensor),
    /// A text of any length.
    Text(String),
    /// The path of a file.
    Artifact(PathBuf),
}

thread_local! {
    // The training thread takes the values after each call of the model.
    static LOGGED: RefCell<Vec<(String, Logged)>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    /// Logs a number: a point of the curve `name`, at this step, for this rank. Use `/` to group names, for example `own/temperature`.
    ///
    /// Numbers that are logged in evaluations are dropped; use [`EvalSums::metrics`](super::EvalSums::metrics) there. The run fails if
    /// Lockstep itself writes a series of this name, such as `loss`.
    pub fn log(&self, name: &str, value: f64) {
        push(name, Logged::Number(value));
    }

    /// Logs the distribution of the elements of `tensor`.
    pub fn histogram(&self, name: &str, tensor: &Tensor) {
        push(name, Logged::Distribution(tensor.detach()));
    }

    /// Logs an image: `[channels, height, width]` with one (grey), three (RGB) or four (RGBA) channels, bytes or floats from 0 to 1.
    pub fn image(&self, name: &str, image: &Tensor) {
        push(name, Logged::Image(image.detach()));
    }

    /// Logs a text.
    pub fn text(&self, name: &str, text: &str) {
        push(name, Logged::Text(text.to_owned()));
    }

    /// Logs a file: a copy of the file at `path` is stored with the run. It is read a little later, so do not change it after the call.
    pub fn artifact(&self, name: &str, path: &Path) {
        push(name, Logged::Artifact(path.to_owned()));
    }
}

fn push(name: &str, value: Logged) {
    LOGGED.with_borrow_mut(|all| all.push((name.to_owned(), value)));
}

/// Takes the values that were logged on this thread since the last call.
pub fn take_logged() -> Vec<(String, Logged)> {
    LOGGED.with_borrow_mut(std::mem::take)
}
