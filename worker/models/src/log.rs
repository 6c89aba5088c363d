//! What a model's own code says beside its loss: numbers, distributions, images, texts, files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::Context;

/// Something that was said.
#[derive(Debug)]
pub enum Said {
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
    // One thread trains, and takes what was said after each call of the model.
    static SAID: RefCell<Vec<(String, Said)>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    /// Tracks `value` under `name`, as it is at this step for this rank. Parts of a name are divided by `/`.
    pub fn log(&self, name: &str, value: f64) {
        say(name, Said::Number(value));
    }

    /// Tracks how the elements of `tensor` are distributed.
    pub fn histogram(&self, name: &str, tensor: &Tensor) {
        say(name, Said::Distribution(tensor.detach()));
    }

    /// Keeps an image: `[channels, height, width]` of one (grey), three (RGB) or four (RGBA) channels, bytes or floats from
    /// 0 to 1.
    pub fn image(&self, name: &str, image: &Tensor) {
        say(name, Said::Image(image.detach()));
    }

    /// Keeps a text.
    pub fn text(&self, name: &str, text: &str) {
        say(name, Said::Text(text.to_owned()));
    }

    /// Keeps a copy of the file at `path`, as it is when the step ends.
    pub fn artifact(&self, name: &str, path: &Path) {
        say(name, Said::Artifact(path.to_owned()));
    }
}

fn say(name: &str, said: Said) {
    SAID.with_borrow_mut(|all| all.push((name.to_owned(), said)));
}

/// What was said on this thread since the last call.
pub fn take_said() -> Vec<(String, Said)> {
    SAID.with_borrow_mut(std::mem::take)
}
