//! What a model's own code logs beside its loss: numbers, distributions, images, texts, files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::Context;

/// A logged value.
#[derive(Debug)]
pub enum Logged {
    /// A number.
    Number(f64),
    /// A tensor whose distribution is of interest.
    Distribution(Tensor),
    /// `[channels, height, width]` of one (grey), three (RGB) or four (RGBA) channels: bytes, or floats from 0 to 1.
    Image(Tensor),
    /// A text.
    Text(String),
    /// A file.
    Artifact(PathBuf),
}

thread_local! {
    // One thread trains, and takes what was logged after each call of the model.
    static LOGGED: RefCell<Vec<(String, Logged)>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    /// Tracks `value` under `name`, as it is at this step for this rank. Parts of a name are divided by `/`.
    pub fn log(&self, name: &str, value: f64) {
        push(name, Logged::Number(value));
    }

    /// Tracks how the elements of `tensor` are distributed.
    pub fn histogram(&self, name: &str, tensor: &Tensor) {
        push(name, Logged::Distribution(tensor.detach()));
    }

    /// Keeps an image: `[channels, height, width]` of one (grey), three (RGB) or four (RGBA) channels, bytes or floats from
    /// 0 to 1.
    pub fn image(&self, name: &str, image: &Tensor) {
        push(name, Logged::Image(image.detach()));
    }

    /// Keeps a text.
    pub fn text(&self, name: &str, text: &str) {
        push(name, Logged::Text(text.to_owned()));
    }

    /// Keeps a copy of the file at `path`, as it is when the step ends.
    pub fn artifact(&self, name: &str, path: &Path) {
        push(name, Logged::Artifact(path.to_owned()));
    }
}

fn push(name: &str, value: Logged) {
    LOGGED.with_borrow_mut(|all| all.push((name.to_owned(), value)));
}

/// What was logged on this thread since the last call.
pub fn take_logged() -> Vec<(String, Logged)> {
    LOGGED.with_borrow_mut(std::mem::take)
}
