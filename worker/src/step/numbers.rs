//! Loss and gradient norm of a step, on the host or still on the device. Hot.

use std::time::{Duration, Instant};

use lockstep_tch_ext::streams::Mark;
use tch::Tensor;

use super::TrainError;

/// Loss and gradient norm of the current step.
pub(super) enum Measured {
    /// Both were read, and are finite.
    Read {
        loss: f64,
        grad_norm: f64,
    },
    OnDevice(OnDevice),
}

/// Numbers of 64 bits on the device.
pub(super) struct OnDevice {
    pub(super) grad_norm: Tensor,
    /// 1 if the loss or the norm is not finite, else 0; the optimizer kernels read it.
    pub(super) found_inf: Tensor,
    /// Loss and norm in host memory; complete when the device has reached `there`.
    pub(super) both: Tensor,
    pub(super) there: Mark,
}

/// How long a failing run waits for the numbers of its last complete step.
const PATIENCE: Duration = Duration::from_secs(10);

impl OnDevice {
    /// Whether the numbers can be read within [`PATIENCE`]. A device that hangs never delivers them.
    pub(super) fn is_there_soon(&self) -> bool {
        let since = Instant::now();
        loop {
            match self.there.is_reached() {
                Ok(false) if since.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
                reached => return reached.unwrap_or(false),
            }
        }
    }

    /// Loss and gradient norm; waits until the host has them.
    pub(super) fn read(&self) -> Result<(f64, f64), TrainError> {
        self.there.synchronize()?;
        Ok((self.both.f_double_value(&[0])?, self.both.f_double_value(&[1])?))
    }
}

/// A step whose loss and norm are not read yet; all its other numbers are known.
pub(super) struct Unread {
    pub(super) step: u64,
    pub(super) measured: OnDevice,
    pub(super) lr: f64,
    pub(super) positions: u64,
    pub(super) contents: u64,
}
